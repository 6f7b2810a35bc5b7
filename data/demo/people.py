"""Paints one articulated person: shaded capsules in painter's order, clothes, hair, a face.

Left and right can be told only as in life: by where the face, the chest and the toes are. Everything painted is
mirror-symmetric as a rule (a mirrored picture is again a picture that this painter could have made), so that
flip augmentation and the flip test are sound.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from body import KEYPOINTS, Build, Pose, solve

# Outfits of one picture differ in colour family; the order is that of the rainbow, greys last.
FAMILIES = {
    "red": 2,
    "orange": 22,
    "yellow": 46,
    "green": 105,
    "teal": 168,
    "blue": 214,
    "violet": 268,
    "pink": 325,
    "grey": None,
}
# Part numbers in the id map, per person. Thigh and shin, upper arm and forearm are told apart by side.
_ARM_PARTS = tuple(f"{side}_{part}" for side in ("left", "right") for part in ("upper_arm", "forearm"))
_LEG_PARTS = tuple(f"{side}_{part}" for side in ("left", "right") for part in ("thigh", "shin"))
PARTS = ("head", "torso", *_ARM_PARTS, *_LEG_PARTS, "extra")
_SKINS = (
    (198, 216, 242),
    (168, 196, 232),
    (140, 174, 220),
    (108, 146, 200),
    (76, 110, 168),
    (52, 78, 124),
    (38, 56, 92),
)
_HAIRS = (
    (24, 22, 24),
    (30, 38, 58),
    (40, 62, 100),
    (70, 128, 176),
    (120, 176, 214),
    (34, 62, 140),
    (150, 150, 156),
)
_JOINT_PARTS = {
    "nose": ("head",),
    "eye": ("head",),
    "ear": ("head",),
    "shoulder": ("torso", "upper_arm"),
    "elbow": ("upper_arm", "forearm"),
    "wrist": ("forearm",),
    "hip": ("torso", "thigh"),
    "knee": ("thigh", "shin"),
    "ankle": ("shin",),
}


@dataclass
class Outfit:
    """What one person wears; colours are BGR, 0..255."""

    family: int
    top: np.ndarray
    bottom: np.ndarray
    accent: np.ndarray
    shoe: np.ndarray
    skin: np.ndarray
    hair: np.ndarray
    sleeve: str
    legs: str
    hair_style: str
    hat: str
    pattern: str
    backpack: bool
    glasses: bool


def _colour(hue: float | None, saturation: float, value: float) -> np.ndarray:
    """HSV (degrees, 0..1, 0..1) to BGR 0..255; no hue is grey."""
    if hue is None:
        hue, saturation = 220.0, saturation * 0.08
    hsv = np.uint8([[[int(hue % 360 / 2), int(saturation * 255), int(value * 255)]]])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float32)


def random_outfit(rng: np.random.Generator, family: int) -> Outfit:
    """An outfit in one colour family (index into `FAMILIES`), in matching tones."""
    hue = list(FAMILIES.values())[family]
    jitter = None if hue is None else hue + rng.uniform(-7, 7)
    light, deep = rng.uniform(0.78, 1.0), rng.uniform(0.38, 0.62)
    top, bottom = (
        _colour(jitter, rng.uniform(0.62, 0.95), light),
        _colour(jitter, rng.uniform(0.6, 0.95), deep),
    )
    if rng.random() < 0.4:
        top, bottom = bottom, top
    return Outfit(
        family=family,
        top=top,
        bottom=bottom,
        accent=_colour(jitter, rng.uniform(0.12, 0.4), 0.98),
        shoe=_colour(jitter, 0.8, rng.uniform(0.25, 0.95)) if rng.random() < 0.6 else np.float32([238, 238, 240]),
        skin=np.float32(_SKINS[rng.integers(len(_SKINS))]) * rng.uniform(0.94, 1.05),
        hair=np.float32(_HAIRS[rng.integers(len(_HAIRS))]) * rng.uniform(0.85, 1.15),
        sleeve=str(rng.choice(["long", "short", "none"], p=[0.45, 0.45, 0.1])),
        legs=str(rng.choice(["trousers", "shorts", "skirt"], p=[0.6, 0.28, 0.12])),
        hair_style=str(rng.choice(["short", "long", "bun", "crop"], p=[0.4, 0.28, 0.14, 0.18])),
        hat=str(rng.choice(["none", "cap", "beanie", "band"], p=[0.5, 0.2, 0.15, 0.15])),
        pattern=str(rng.choice(["plain", "band", "stripes", "zip", "badge"], p=[0.25, 0.22, 0.18, 0.2, 0.15])),
        backpack=bool(rng.random() < 0.18),
        glasses=bool(rng.random() < 0.15),
    )


class Canvas:
    """A picture (H, W, 3) uint8 BGR and the map of who covers each pixel (H, W) uint16, 0 for nobody."""

    def __init__(self, image: np.ndarray, light: tuple[float, float] = (-0.6, -0.8)):
        self.image = image
        self.ids = np.zeros(image.shape[:2], np.uint16)
        self.light = np.float32(light)
        self._circle = np.float32([[np.cos(a), np.sin(a)] for a in np.linspace(0, 2 * np.pi, 18, endpoint=False)])

    def polygon(self, points: np.ndarray, colour: np.ndarray, ident: int | None = None) -> None:
        """Fill a convex polygon (n, 2) in pixels; `ident` also claims its pixels in the id map."""
        fixed = np.round(np.asarray(points) * 16).astype(np.int32)
        cv2.fillConvexPoly(self.image, fixed, [float(c) for c in np.clip(colour, 0, 255)], cv2.LINE_AA, 4)
        if ident is not None:
            cv2.fillConvexPoly(self.ids, fixed, ident, cv2.LINE_8, 4)

    def ellipse(self, centre, u, v, colour, ident: int | None = None) -> None:
        """A filled ellipse with half-axes `u` and `v` (2,) in pixels (an affine image of a disc)."""
        self.polygon(centre + self._circle[:, :1] * u + self._circle[:, 1:] * v, colour, ident)

    def hull(self, circles, colour: np.ndarray, ident: int | None = None, shading: float = 1.0) -> None:
        """The convex hull of circles [(centre (2,), radius)], shaded like a round body by three nested hulls."""
        biggest = max(r for _, r in circles)
        layers = ((1.0, 0.74, 0.0), (0.8, 0.92, 0.13), (0.5, 1.05, 0.26)) if biggest > 2 else ((1.0, 0.95, 0.0),)
        for k, (size, tone, offset) in enumerate(layers):
            points = np.concatenate(
                [c + self.light * offset * r + self._circle * max(r * size, 0.6) for c, r in circles]
            )
            tone = 1 + (tone - 1) * shading
            hull = cv2.convexHull(points.astype(np.float32))[:, 0]
            self.polygon(hull, colour * tone, ident if k == 0 else None)

    def line(self, points: np.ndarray, width: float, colour: np.ndarray) -> None:
        """An open polyline (n, 2), `width` in pixels."""
        fixed = np.round(np.asarray(points) * 16).astype(np.int32)
        cv2.polylines(
            self.image,
            [fixed],
            False,
            [float(c) for c in np.clip(colour, 0, 255)],
            max(1, round(width)),
            cv2.LINE_AA,
            4,
        )


@dataclass
class Camera:
    """Pinhole camera looking along +z: focal length and principal point in pixels, height above ground in metres."""

    focal: float
    cx: float
    horizon: float
    height: float

    def project(self, p: np.ndarray) -> np.ndarray:
        """World point (3,) in metres to the image (2,) in pixels."""
        return np.float32([self.cx + self.focal * p[0] / p[2], self.horizon + self.focal * (self.height - p[1]) / p[2]])


class Person:
    """A posed, dressed and placed person, ready to be painted.

    Args:
        pose, build, outfit: what it looks like.
        yaw: turn about the vertical in degrees; 0 faces the camera.
        x, z: place on the ground in metres, right of and away from the camera.
    """

    def __init__(self, pose: Pose, build: Build, outfit: Outfit, yaw: float, x: float, z: float):
        self.pose, self.build, self.outfit, self.yaw, self.x, self.z = pose, build, outfit, yaw, x, z
        a = np.deg2rad(yaw)
        self._axes = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [np.sin(a), 0, -np.cos(a)]])
        local = solve(pose, build)
        axes = ("torso_up", "torso_front", "torso_left", "head_up", "head_front", "head_left")
        self.radius = float(local["head_radius"][0])
        self.axis = {k: local[k] @ self._axes for k in axes}
        place = np.array([x, 0.0, z])
        self.point = {k: v @ self._axes + place for k, v in local.items() if k not in (*axes, "head_radius")}

    def paint(self, canvas: Canvas, camera: Camera, number: int) -> None:
        """Paint onto `canvas`; the id map gets `1 + number * len(PARTS) + part`."""
        base = 1 + number * len(PARTS)
        self.ids = {part: base + k for k, part in enumerate(PARTS)}
        self.canvas, self.camera = canvas, camera
        jobs: list[tuple[float, object]] = []
        for side in ("left", "right"):
            jobs += [
                (self._depth(f"{side}_hip", f"{side}_knee") + 0.06, lambda s=side: self._thigh(s)),
                (self._depth(f"{side}_knee", f"{side}_ankle") + 0.05, lambda s=side: self._shin(s)),
                (self._depth(f"{side}_shoulder", f"{side}_elbow") - 0.03, lambda s=side: self._upper_arm(s)),
                (self._depth(f"{side}_elbow", f"{side}_hand") - 0.05, lambda s=side: self._forearm(s)),
            ]
        jobs.append((self._depth("pelvis", "neck"), self._torso))
        jobs.append((self._depth("neck", "head") - 0.04 * self._facing("torso_front"), self._head))
        if self.outfit.hair_style == "long":  # behind the shoulders, seen from the front; over them, from behind
            jobs.append((self._depth("neck") + 0.12 * self._facing("head_front") - 0.05, self._long_hair))
        back = self.point["chest"] - self.axis["torso_front"] * 0.2
        if self.outfit.backpack:
            jobs.append((float(back[2]), self._backpack))
        for _, job in sorted(jobs, key=lambda j: -j[0]):
            job()

    def keypoints(self, ids: np.ndarray) -> np.ndarray:
        """COCO keypoints (17, 3) float32: x, y in pixels and visibility (0 not labelled, 1 hidden, 2 seen).

        Args:
            ids: the id map (H, W) after everybody and everything has been painted.
        """
        h, w = ids.shape
        out = np.zeros((17, 3), np.float32)
        for k, name in enumerate(KEYPOINTS):
            x, y = self.camera.project(self.point[name])
            if not (0 <= x < w and 0 <= y < h) or not self._could_be_seen(name):
                continue
            out[k] = x, y, 2 if self._is_seen(name, x, y, ids) else 1
        return out

    # -- geometry ------------------------------------------------------------------------------------------

    def _depth(self, *names: str) -> float:
        return float(np.mean([self.point[n][2] for n in names]))

    def _px(self, name: str) -> np.ndarray:
        return self.camera.project(self.point[name])

    def _len(self, metres: float) -> float:
        return self.camera.focal * metres * self.build.height / 1.72 / self.z

    def _facing(self, axis: str) -> float:
        """Cosine between an axis and the direction to the camera."""
        to_camera = np.array([-self.x, self.camera.height - self.point["chest"][1], -self.z])
        return float(self.axis[axis] @ to_camera / np.linalg.norm(to_camera))

    def _could_be_seen(self, name: str) -> bool:
        """Face points on the far side of the head are not labelled, as in COCO."""
        if name == "nose" or name.endswith("eye"):
            sideways = 0.0 if name == "nose" else self._facing("head_left") * (1 if name[0] == "l" else -1)
            return self._facing("head_front") + 0.45 * sideways > 0.08
        if name.endswith("ear"):
            return self._facing("head_left") * (1 if name[0] == "l" else -1) > -0.55
        return True

    def _is_seen(self, name: str, x: float, y: float, ids: np.ndarray) -> bool:
        side, _, joint = name.rpartition("_")
        parts = _JOINT_PARTS[joint]
        mine = [self.ids[p if p in ("head", "torso") else f"{side}_{p}"] for p in parts]
        row, col = int(y), int(x)
        return bool(np.isin(ids[max(row - 1, 0) : row + 2, max(col - 1, 0) : col + 2], mine).any())

    # -- parts -----------------------------------------------------------------------------------------------

    def _capsule(self, a: str, b: str, ra: float, rb: float, colour: np.ndarray, part: str, until: float = 1.0) -> None:
        """A limb from point `a` towards `b`, radii in metres; `until` < 1 covers only the upper share (a sleeve)."""
        pa, pb = self._px(a), self._px(b)
        end = pa + (pb - pa) * until
        radius = ra + (rb - ra) * until
        w = 0.5 + 0.5 * self.build.width
        self.canvas.hull([(pa, self._len(ra * w)), (end, self._len(radius * w))], colour, self.ids[part])

    def _seam(self, a: str, b: str, side: str, radius: float, until: float) -> None:
        """A light seam down the outer side of a limb, where the body's left (or right) looks at the camera."""
        outward = self.axis["torso_left"] * (1 if side == "left" else -1) * radius
        pa, pb = self.point[a] + outward, self.point[b] + outward
        pb = pa + (pb - pa) * until
        line = np.stack([self.camera.project(pa), self.camera.project(pb)])
        self.canvas.line(line, self._len(0.012), self.outfit.accent)

    def _thigh(self, side: str) -> None:
        o, part = self.outfit, f"{side}_thigh"
        bare = o.legs != "trousers"
        self._capsule(f"{side}_hip", f"{side}_knee", 0.088, 0.062, o.skin if bare else o.bottom, part)
        if o.legs == "shorts":
            self._capsule(f"{side}_hip", f"{side}_knee", 0.096, 0.08, o.bottom, part, 0.68)
        if o.legs == "trousers" and o.pattern in ("band", "zip"):
            self._seam(f"{side}_hip", f"{side}_knee", side, 0.06, 1.0)

    def _shin(self, side: str) -> None:
        o, part = self.outfit, f"{side}_shin"
        self._shoe(side)
        self._capsule(f"{side}_knee", f"{side}_ankle", 0.06, 0.042, o.bottom if o.legs == "trousers" else o.skin, part)
        knee, r = self._px(f"{side}_knee"), self._len(0.036)
        if self._facing("torso_front") > 0.15:  # a knee shows in front only
            tone = (o.bottom if o.legs == "trousers" else o.skin) * 1.16
            self.canvas.ellipse(knee, np.float32([r, 0]), np.float32([0, r * 1.15]), tone)
        if o.legs == "trousers" and o.pattern in ("band", "zip"):
            self._seam(f"{side}_knee", f"{side}_ankle", side, 0.045, 0.95)
        elif o.legs != "trousers":
            top = self._px(f"{side}_ankle") + (knee - self._px(f"{side}_ankle")) * 0.28
            sock = [(top, self._len(0.047)), (self._px(f"{side}_ankle"), self._len(0.045))]
            self.canvas.hull(sock, o.accent, self.ids[part])

    def _shoe(self, side: str) -> None:
        heel, toe = self._px(f"{side}_heel"), self._px(f"{side}_toe")
        ident = self.ids[f"{side}_shin"]
        drop = np.float32([0, self._len(0.022)])
        self.canvas.hull(
            [(heel + drop, self._len(0.046)), (toe + drop, self._len(0.036))], np.float32([228] * 3), ident
        )
        shoe = [
            (self._px(f"{side}_ankle"), self._len(0.04)),
            (heel, self._len(0.046)),
            (toe, self._len(0.037)),
        ]
        self.canvas.hull(shoe, self.outfit.shoe, ident)

    def _upper_arm(self, side: str) -> None:
        o, part = self.outfit, f"{side}_upper_arm"
        bare = o.sleeve != "long"
        self._capsule(f"{side}_shoulder", f"{side}_elbow", 0.056, 0.043, o.skin if bare else o.top * 0.97, part)
        if o.sleeve == "short":
            self._capsule(f"{side}_shoulder", f"{side}_elbow", 0.066, 0.058, o.top * 0.97, part, 0.6)
        elif o.sleeve == "long" and o.pattern in ("stripes", "zip"):
            self._seam(f"{side}_shoulder", f"{side}_elbow", side, 0.03, 1.0)

    def _forearm(self, side: str) -> None:
        o, part = self.outfit, f"{side}_forearm"
        wrist, hand = self._px(f"{side}_wrist"), self._px(f"{side}_hand")
        self.canvas.hull([(wrist, self._len(0.032)), (hand, self._len(0.042))], o.skin, self.ids[part])
        self._capsule(
            f"{side}_elbow",
            f"{side}_wrist",
            0.044,
            0.034,
            o.top * 0.97 if o.sleeve == "long" else o.skin,
            part,
        )
        if o.sleeve == "long":
            cuff = wrist + (self._px(f"{side}_elbow") - wrist) * 0.08
            self.canvas.hull([(wrist, self._len(0.036)), (cuff, self._len(0.037))], o.accent, self.ids[part])

    def _torso(self) -> None:
        o, canvas, ident = self.outfit, self.canvas, self.ids["torso"]
        up, front, left = (self.axis[f"torso_{k}"] for k in ("up", "front", "left"))
        s, w = self.build.height / 1.72, self.build.width
        wide = (0.6 + 0.4 * w) * s
        pelvis, neck = self.point["pelvis"], self.point["neck"]

        def at(u: float, side: float, f: float = 0.0) -> np.ndarray:
            return self.camera.project(pelvis + up * u * s + left * side * wide + front * f * s)

        project, length = self.camera.project, self._len
        # neck, then hips (trousers' top), then the shirt over them
        neck_line = [(project(neck - up * 0.04), length(0.055)), (project(neck + up * 0.06), length(0.05))]
        canvas.hull(neck_line, o.skin * 0.9, self.ids["head"])
        hips = [(at(-0.03, k, 0.0), length(0.092)) for k in (-0.085, 0.085)]
        waist = [(at(0.14, k, 0.0), length(0.09)) for k in (-0.06, 0.06)]
        if o.legs == "skirt":
            spread = [
                (self._px(f"{k}_hip") * 0.4 + self._px(f"{k}_knee") * 0.6, length(0.115)) for k in ("left", "right")
            ]
            canvas.hull(hips + spread, o.bottom, ident)
        canvas.hull(hips + waist, o.bottom, ident)
        shoulders = [(at(0.455, k, 0.0), length(0.068)) for k in (-0.165, 0.165)]
        chest = [(at(0.33, k, f), length(0.1)) for k in (-0.1, 0.1) for f in (-0.02, 0.03)]
        hem = [(at(0.05, k, 0.0), length(0.098)) for k in (-0.078, 0.078)]
        canvas.hull(shoulders + chest + hem, o.top, ident)
        if self._facing("torso_front") > 0.12:
            self._chest(at)
        elif self._facing("torso_front") < -0.12:
            yoke = [at(0.44, k, -0.1) for k in (-0.16, -0.05, 0.05, 0.16)]
            canvas.line(np.stack(yoke), length(0.014), o.top * 0.7)

    def _chest(self, at) -> None:
        """What only the front of a shirt has: neckline, zip, band, badge or stripes; backpack straps."""
        o, canvas, length = self.outfit, self.canvas, self._len
        if o.pattern == "stripes":
            for u in (0.14, 0.22, 0.30, 0.38):
                canvas.line(
                    np.stack([at(u, -0.13, 0.09), at(u - 0.008, 0.0, 0.12), at(u, 0.13, 0.09)]),
                    length(0.022),
                    o.accent,
                )
        elif o.pattern == "band":
            canvas.polygon(
                np.stack([at(0.34, -0.15, 0.08), at(0.34, 0.15, 0.08), at(0.26, 0.15, 0.09), at(0.26, -0.15, 0.09)]),
                o.accent,
            )
        elif o.pattern == "zip":
            canvas.line(np.stack([at(0.46, 0, 0.09), at(0.25, 0, 0.12), at(0.02, 0, 0.1)]), length(0.016), o.accent)
        elif o.pattern == "badge":
            canvas.ellipse(
                at(0.29, 0, 0.12),
                at(0.29, 0.065, 0.12) - at(0.29, 0, 0.12),
                np.float32([0, length(0.065)]),
                o.accent,
            )
        v = np.stack([at(0.515, -0.06, 0.05), at(0.515, 0.06, 0.05), at(0.42, 0, 0.1)])
        canvas.polygon(v, o.skin * 0.96)
        canvas.line(np.stack([v[0], v[2], v[1]]), length(0.012), o.top * 0.6)
        if o.backpack:
            for k in (-0.1, 0.1):
                canvas.line(
                    np.stack([at(0.48, k, 0.05), at(0.33, k * 1.1, 0.11), at(0.2, k * 1.4, 0.07)]),
                    length(0.03),
                    o.bottom * 0.55,
                )

    def _backpack(self) -> None:
        o, up, back = self.outfit, self.axis["torso_up"], -self.axis["torso_front"]
        left = self.axis["torso_left"]
        corners = []
        for u, side in ((0.42, -0.09), (0.42, 0.09), (0.12, -0.11), (0.12, 0.11)):
            p = self.point["pelvis"] + up * u + left * side + back * 0.17
            corners.append((self.camera.project(p), self._len(0.055)))
        self.canvas.hull(corners, o.bottom * 0.75, self.ids["extra"])
        if self._facing("torso_front") < -0.1:
            pocket = self.point["pelvis"] + up * 0.2 + back * 0.23
            u, v = np.float32([self._len(0.085), 0]), np.float32([0, self._len(0.06)])
            self.canvas.ellipse(self.camera.project(pocket), u, v, o.bottom * 0.55)

    def _long_hair(self) -> None:
        c, up, front = self.point["head"], self.axis["head_up"], self.axis["head_front"]
        px = self.camera.focal * self.radius / self.z
        ends = [(c + (up * u - front * f) * self.radius, k) for u, f, k in ((0.1, 0.25, 1.04), (-1.3, 0.6, 0.85))]
        self.canvas.hull([(self.camera.project(p), px * k) for p, k in ends], self.outfit.hair, self.ids["head"])

    def _head(self) -> None:
        o, canvas, ident, r = self.outfit, self.canvas, self.ids["head"], self.radius
        project = self.camera.project
        c, up, front = self.point["head"], self.axis["head_up"], self.axis["head_front"]
        left = self.axis["head_left"]
        px = self.camera.focal * r / self.z
        facing = self._facing("head_front")

        def at(f: float, s: float, u: float) -> np.ndarray:
            return project(c + (front * f + left * s + up * u) * r)

        def hair() -> None:
            if o.hair_style == "bun":
                canvas.hull([(at(-0.55, 0, 0.95), px * 0.42)], o.hair, ident)
            size = 0.98 if o.hair_style == "crop" else 1.07
            canvas.hull([(at(-0.16, 0, 0.16), px * size), (at(-0.2, 0, -0.1), px * size * 0.95)], o.hair, ident)

        def face() -> None:
            for side in (1, -1):
                if self._facing("head_left") * side > -0.45:
                    canvas.hull([(at(0.0, 0.93 * side, -0.08), px * 0.2)], o.skin * 0.93, ident)
            canvas.hull([(at(0.1, 0, 0.02), px * 0.93), (at(0.3, 0, -0.52), px * 0.6)], o.skin, ident)

        for layer in (hair, face) if facing > 0 else (face, hair):
            layer()
        if facing > 0 and o.hair_style != "crop":  # a fringe
            canvas.hull([(at(0.35, k, 0.78), px * 0.36) for k in (-0.45, 0, 0.45)], o.hair, ident)
        self._features(at, px)
        if o.hat != "none":
            self._hat(at, px, ident)

    def _features(self, at, px: float) -> None:
        """Eyes, brows, nose, mouth and glasses, each only where it looks at the camera."""
        o, canvas = self.outfit, self.canvas
        facing, sideways = self._facing("head_front"), self._facing("head_left")
        for side in (1, -1):
            if facing + 0.45 * sideways * side < 0.12:
                continue
            eye = at(0.88, 0.38 * side, 0.16)
            squeeze = float(np.clip(facing + 0.3 * sideways * side, 0.35, 1))
            u, v = np.float32([px * 0.19 * squeeze, 0]), np.float32([0, px * 0.14])
            canvas.ellipse(eye, u, v, np.float32([245, 245, 245]))
            canvas.ellipse(eye, u * 0.55, v * 0.8, np.float32([40, 34, 30]))
            brow = np.stack([at(0.86, 0.2 * side, 0.42), at(0.8, 0.56 * side, 0.42)])
            canvas.line(brow, px * 0.08, o.hair * 0.8)
            if o.glasses:
                ring = eye + canvas._circle * np.float32([px * 0.26 * squeeze, px * 0.24])
                canvas.line(np.concatenate([ring, ring[:1]]), px * 0.06, np.float32([40, 36, 34]))
        if facing > 0.05:
            canvas.hull([(at(0.95, 0, 0.05), px * 0.08), (at(1.02, 0, -0.18), px * 0.13)], o.skin * 0.9)
            canvas.line(
                np.stack([at(0.86, -0.26, -0.52), at(0.95, 0, -0.6), at(0.86, 0.26, -0.52)]),
                px * 0.09,
                np.float32([70, 66, 150]),
            )

    def _hat(self, at, px: float, ident: int) -> None:
        o, canvas = self.outfit, self.canvas
        if o.hat == "band":
            canvas.line(
                np.stack([at(0.3, -0.95, 0.42), at(0.95, 0, 0.5), at(0.3, 0.95, 0.42)])
                if self._facing("head_front") > 0
                else np.stack([at(-0.3, -1.0, 0.4), at(-1.0, 0, 0.4), at(-0.3, 1.0, 0.4)]),
                px * 0.2,
                o.top,
            )
            return
        crown = [(at(-0.05, k, 0.72), px * 0.55) for k in (-0.42, 0.42)]
        canvas.hull([*crown, (at(-0.05, 0, 0.72), px * 0.74)], o.top, ident)
        if o.hat == "beanie":
            rim = [at(0.75, -0.72, 0.5), at(0.98, 0, 0.52), at(0.75, 0.72, 0.5)]
            if self._facing("head_front") < 0:
                rim = [at(-0.75, -0.72, 0.45), at(-1.0, 0, 0.45), at(-0.75, 0.72, 0.45)]
            canvas.line(np.stack(rim), px * 0.24, o.accent)
        elif self._facing("head_front") > -0.3:
            canvas.hull(
                [(at(0.9, k, 0.72), px * 0.12) for k in (-0.55, 0.55)] + [(at(1.3, 0, 0.7), px * 0.14)],
                o.bottom,
                ident,
            )
