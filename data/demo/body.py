"""A small articulated body: pose angles in, named 3D points out.

Units are metres. A body's own axes are L (the person's left), U (up) and F (the way the person faces); the
world's are x (image right), y (up), z (away from the camera). A body with yaw 0 faces the camera, so that its
left is on the image's right.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
LIMB_JOINTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
KEYPOINTS = (*FACE, *(f"{side}_{joint}" for joint in LIMB_JOINTS for side in ("left", "right")))


@dataclass
class Limb:
    """Angles of an arm or a leg in degrees: out to the side, forward, bend of elbow or knee, twist of the bend."""

    out: float = 8.0
    forward: float = 0.0
    bend: float = 10.0
    twist: float = 0.0


@dataclass
class Pose:
    """A body's joint angles in degrees; `lift` in metres raises it off the ground."""

    left_arm: Limb = field(default_factory=Limb)
    right_arm: Limb = field(default_factory=Limb)
    left_leg: Limb = field(default_factory=lambda: Limb(4, 0, 3))
    right_leg: Limb = field(default_factory=lambda: Limb(4, 0, 3))
    lean: float = 0.0
    sway: float = 0.0
    head_turn: float = 0.0
    head_nod: float = 0.0
    lift: float = 0.0
    seated: bool = False


@dataclass
class Build:
    """Proportions of one body: standing height in metres, width and head size as factors."""

    height: float = 1.72
    width: float = 1.0
    head: float = 1.12


def _unit(v: np.ndarray) -> np.ndarray:
    return v / max(float(np.linalg.norm(v)), 1e-9)


def _turn(axis: np.ndarray, degrees: float) -> np.ndarray:
    """Rotation matrix about `axis` (Rodrigues)."""
    a = np.deg2rad(degrees)
    x, y, z = _unit(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(a) * k + (1 - np.cos(a)) * (k @ k)


def _direction(limb: Limb, side: int) -> np.ndarray:
    """The upper bone's direction in body axes, hanging down at zero angles; side +1 is left."""
    out, forward = np.deg2rad(limb.out), np.deg2rad(limb.forward)
    return np.array([side * np.sin(out), -np.cos(out) * np.cos(forward), np.cos(out) * np.sin(forward)])


def _elbow_bend(d: np.ndarray, twist: float, side: int) -> np.ndarray:
    """The direction in which a forearm folds: forward, turned towards the body's middle by `twist`."""
    front = np.array([0.0, 0.0, 1.0])
    p = front - front.dot(d) * d
    if np.linalg.norm(p) < 0.3:  # the arm points forward: it folds upward
        up = np.array([0.0, 1.0, 0.0])
        p = up - up.dot(d) * d
    p = _unit(p)
    inward = _unit(np.cross(d, p)) * side
    t = np.deg2rad(twist)
    return np.cos(t) * p + np.sin(t) * inward


def solve(pose: Pose, build: Build) -> dict[str, np.ndarray]:
    """Forward kinematics.

    Args:
        pose: joint angles.
        build: proportions.

    Returns:
        Named points (3,) in body axes (L, U, F), metres, feet (or the seat's feet) at U = 0 plus `lift`; and
        the unit axes `torso_up`, `torso_front`, `head_left`, `head_up`, `head_front`.
    """
    s = build.height / 1.72
    w = build.width
    p: dict[str, np.ndarray] = {}
    pelvis = np.zeros(3)
    tilt = _turn(np.array([1.0, 0, 0]), pose.lean) @ _turn(np.array([0, 0, 1.0]), pose.sway)
    # Rotating about L by a positive angle takes U towards F: leaning forward.
    up, front, left = tilt @ np.array([0, 1.0, 0]), tilt @ np.array([0, 0, 1.0]), tilt @ np.array([1.0, 0, 0])
    p["torso_up"], p["torso_front"], p["torso_left"] = up, front, left
    p["pelvis"] = pelvis
    p["chest"] = pelvis + up * 0.36 * s
    p["neck"] = pelvis + up * 0.53 * s
    head_turn = _turn(up, -pose.head_turn) @ _turn(left, pose.head_nod)
    hu, hf, hl = head_turn @ up, head_turn @ front, head_turn @ left
    p["head_up"], p["head_front"], p["head_left"] = hu, hf, hl
    r = 0.1 * s * build.head
    head = p["neck"] + up * 0.05 * s + hu * 1.25 * r
    p["head"], p["head_radius"] = head, np.array([r, r, r])
    p["nose"] = head + hf * 1.0 * r - hu * 0.16 * r
    p["chin"] = head + hf * 0.72 * r - hu * 1.05 * r
    for name, side in (("left", 1), ("right", -1)):
        p[f"{name}_eye"] = head + hf * 0.88 * r + hl * side * 0.38 * r + hu * 0.16 * r
        p[f"{name}_ear"] = head + hl * side * 0.96 * r - hu * 0.04 * r
        shoulder = p["neck"] - up * 0.055 * s + left * side * 0.185 * s * w
        arm = getattr(pose, f"{name}_arm")
        d = tilt @ _direction(arm, side)
        local = _direction(arm, side)
        fold = tilt @ _elbow_bend(local, arm.twist, side)
        bend = np.deg2rad(arm.bend)
        elbow = shoulder + d * 0.285 * s
        fore = np.cos(bend) * d + np.sin(bend) * fold
        wrist = elbow + fore * 0.25 * s
        p[f"{name}_shoulder"], p[f"{name}_elbow"], p[f"{name}_wrist"] = shoulder, elbow, wrist
        p[f"{name}_hand"] = wrist + fore * 0.085 * s
        leg = getattr(pose, f"{name}_leg")
        hip = pelvis + np.array([side * 0.098 * s * w, 0, 0]) - np.array([0, 0.015 * s, 0])
        d = _direction(leg, side)
        back = np.cross([1.0, 0, 0], d)
        bend = np.deg2rad(leg.bend)
        shin = np.cos(bend) * d + np.sin(bend) * _unit(back)
        knee = hip + d * 0.425 * s
        ankle = knee + shin * 0.415 * s
        p[f"{name}_hip"], p[f"{name}_knee"], p[f"{name}_ankle"] = hip, knee, ankle
        toe = np.cross(np.array([1.0, 0, 0]), shin) * -1.0  # at a right angle to the shin, to the front
        toe = _unit(toe + np.array([side * 0.25, 0, 0]))
        p[f"{name}_heel"] = ankle + shin * 0.06 * s - toe * 0.04 * s
        p[f"{name}_toe"] = ankle + shin * 0.065 * s + toe * 0.17 * s
    floor = min(p[f"{n}_{q}"][1] for n in ("left", "right") for q in ("heel", "toe"))
    rise = np.array([0, pose.lift - floor, 0])
    axes = {"torso_up", "torso_front", "torso_left", "head_up", "head_front", "head_left", "head_radius"}
    return {k: v if k in axes else v + rise for k, v in p.items()}


def random_pose(rng: np.random.Generator) -> Pose:
    """One everyday pose, jittered; see `_KINDS` for the kinds and how often each comes."""
    kinds, weights = zip(*[(k, w) for k, (w, _) in _KINDS.items()])
    kind = kinds[rng.choice(len(kinds), p=np.array(weights) / sum(weights))]
    pose = _KINDS[kind][1](rng)
    for limb in (pose.left_arm, pose.right_arm):
        limb.out = float(np.clip(limb.out + rng.normal(0, 5), 3, 172))
        limb.forward += rng.normal(0, 7)
        limb.bend = float(np.clip(limb.bend + rng.normal(0, 8), 2, 145))
        limb.twist += rng.normal(0, 10)
    for limb in (pose.left_leg, pose.right_leg):
        limb.out = float(np.clip(limb.out + rng.normal(0, 2), 0, 60))
        limb.forward += rng.normal(0, 4)
        limb.bend = float(np.clip(limb.bend + abs(rng.normal(0, 4)), 0, 135))
    pose.lean += rng.normal(0, 3)
    pose.sway += rng.normal(0, 3)
    pose.head_turn += rng.normal(0, 14)
    pose.head_nod += rng.normal(0, 6)
    return pose


def _swap(rng: np.random.Generator, pose: Pose) -> Pose:
    """Left and right exchanged half of the time."""
    if rng.random() < 0.5:
        pose.left_arm, pose.right_arm = pose.right_arm, pose.left_arm
        pose.left_leg, pose.right_leg = pose.right_leg, pose.left_leg
        pose.sway, pose.head_turn = -pose.sway, -pose.head_turn
    return pose


def _stand(rng: np.random.Generator) -> Pose:
    return Pose(Limb(10, 0, 12, 20), Limb(10, 0, 12, 20), Limb(5, 0, 2), Limb(5, 0, 2))


def _relaxed(rng: np.random.Generator) -> Pose:
    return _swap(rng, Pose(Limb(14, 5, 30, 30), Limb(10, 0, 15), Limb(3, 0, 2), Limb(9, 10, 12), sway=4))


def _walk(rng: np.random.Generator) -> Pose:
    a = rng.uniform(16, 32)
    return _swap(rng, Pose(Limb(8, -a, 20), Limb(8, a, 30), Limb(3, a, 6), Limb(3, -a * 0.8, 24), lean=4))


def _run(rng: np.random.Generator) -> Pose:
    a = rng.uniform(35, 55)
    return _swap(
        rng,
        Pose(Limb(12, -a, 85), Limb(12, a * 0.8, 90), Limb(4, a, 45), Limb(4, -a * 0.5, 70), lean=12, lift=0.06),
    )


def _arms_up(rng: np.random.Generator) -> Pose:
    return Pose(
        Limb(rng.uniform(130, 165), 0, rng.uniform(5, 45), 90),
        Limb(rng.uniform(130, 165), 0, rng.uniform(5, 45), 90),
        Limb(9, 0, 3),
        Limb(9, 0, 3),
    )


def _wave(rng: np.random.Generator) -> Pose:
    # Twist -90 folds the forearm away from the middle: up, for an arm held out.
    return _swap(
        rng,
        Pose(Limb(rng.uniform(85, 115), 0, rng.uniform(50, 95), -90), Limb(10, 0, 12), sway=-4, head_turn=8),
    )


def _hands_on_hips(rng: np.random.Generator) -> Pose:
    return Pose(Limb(48, -12, 95, 75), Limb(48, -12, 95, 75), Limb(10, 0, 2), Limb(10, 0, 2))


def _stretch(rng: np.random.Generator) -> Pose:
    return Pose(Limb(88, 0, 6), Limb(88, 0, 6), Limb(14, 0, 2), Limb(14, 0, 2))


def _squat(rng: np.random.Generator) -> Pose:
    k = rng.uniform(55, 85)
    return Pose(Limb(14, 75, 15), Limb(14, 75, 15), Limb(20, k, k + 25), Limb(20, k, k + 25), lean=22)


def _star_jump(rng: np.random.Generator) -> Pose:
    return Pose(Limb(128, 0, 8), Limb(128, 0, 8), Limb(30, 0, 4), Limb(30, 0, 4), lift=float(rng.uniform(0.15, 0.4)))


def _sit(rng: np.random.Generator) -> Pose:
    return Pose(Limb(14, 28, 50, 20), Limb(14, 28, 50, 20), Limb(10, 84, 86), Limb(10, 84, 86), lean=3, seated=True)


def _kick(rng: np.random.Generator) -> Pose:
    return _swap(
        rng,
        Pose(Limb(55, 10, 25), Limb(60, -15, 25), Limb(10, rng.uniform(45, 75), 12), Limb(5, -4, 12), lean=-8),
    )


def _reach(rng: np.random.Generator) -> Pose:
    return _swap(rng, Pose(Limb(12, rng.uniform(80, 130), 12), Limb(14, 0, 35, 30), lean=4))


def _dance(rng: np.random.Generator) -> Pose:
    return _swap(
        rng,
        Pose(
            Limb(rng.uniform(95, 140), 10, rng.uniform(20, 60), 90),
            Limb(rng.uniform(35, 65), 10, rng.uniform(40, 80), 30),
            Limb(14, 18, 30),
            Limb(12, -4, 6),
            sway=float(rng.uniform(-10, 10)),
        ),
    )


_KINDS = {
    "stand": (18, _stand),
    "relaxed": (12, _relaxed),
    "walk": (16, _walk),
    "run": (7, _run),
    "arms up": (7, _arms_up),
    "wave": (8, _wave),
    "hands on hips": (7, _hands_on_hips),
    "stretch": (5, _stretch),
    "squat": (4, _squat),
    "star jump": (5, _star_jump),
    "sit": (7, _sit),
    "kick": (4, _kick),
    "reach": (4, _reach),
    "dance": (6, _dance),
}
