"""Composes pictures of people: muted places, ground plane, light, furniture, and COCO-style labels."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from body import Build, random_pose
from people import FAMILIES, PARTS, Camera, Canvas, Person, random_outfit

OCCLUDER = 60000  # id-map value of furniture


@dataclass
class Scene:
    """One picture and its truth.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        ids: (H, W) uint16: 0 background, 60000 furniture, else `1 + person * len(PARTS) + part`.
        keypoints: (P, 17, 3) float32: x, y in pixels, COCO visibility.
        families: (P,) int, index of each person's colour family.
    """

    image: np.ndarray
    ids: np.ndarray
    keypoints: np.ndarray
    families: np.ndarray


@dataclass
class Recipe:
    """How hard the pictures are. Heights are standing heights as a share of the picture's short side."""

    people: tuple = (1, 5)
    crowd: tuple = (0.28, 0.32, 0.22, 0.12, 0.06)
    height: tuple = (0.25, 0.72)
    facing: tuple = (0.72, 0.18, 0.10)  # towards the camera, away, sideways
    occluders: float = 0.2
    seen: float = 0.62  # least share of a person's joints that must be in view
    same_colour: bool = False
    places: tuple = field(default_factory=lambda: ("park", "street", "room", "court", "beach"))


GRADED = Recipe()
CROWD = Recipe(people=(3, 9), crowd=(0.1, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1), height=(0.2, 0.75), occluders=0.3, seen=0.5)
HARD = Recipe(
    people=(4, 9),
    crowd=(0.2, 0.2, 0.2, 0.2, 0.1, 0.1),
    height=(0.16, 0.85),
    facing=(0.45, 0.25, 0.3),
    occluders=0.6,
    seen=0.4,
    same_colour=True,
)


def compose(rng: np.random.Generator, width: int, height: int, recipe: Recipe = GRADED, nobody: bool = False) -> Scene:
    """Paint one picture.

    Args:
        rng: the only source of chance.
        width, height: size in pixels.
        recipe: difficulty.
        nobody: leave people out (the place and its furniture stay).

    Returns:
        The picture and its labels.
    """
    short = min(width, height)
    camera = Camera(
        focal=short * rng.uniform(1.05, 1.35),
        cx=width / 2,
        horizon=height * rng.uniform(0.34, 0.46),
        height=rng.uniform(1.35, 1.7),
    )
    canvas = Canvas(np.zeros((height, width, 3), np.uint8), light=(rng.choice([-0.6, 0.6]), -0.75))
    _PLACES[str(rng.choice(recipe.places))](rng, canvas, camera)
    people = [] if nobody else _cast(rng, width, height, camera, recipe)
    things = _furniture(rng, canvas, camera, people, recipe)
    empty = canvas.image.copy()
    while True:  # whoever ends up too hidden to label leaves the picture, which is then painted anew
        canvas.image, canvas.ids = empty.copy(), np.zeros((height, width), np.uint16)
        _paint(canvas, camera, people, things)
        stay = [p for p in people if _is_fair(p.keypoints(canvas.ids), recipe)]
        if len(stay) == len(people):
            break
        people = stay
    image = _photograph(rng, canvas.image)
    keypoints = [p.keypoints(canvas.ids) for p in people]
    return Scene(
        image,
        canvas.ids,
        np.float32(keypoints).reshape(-1, 17, 3),
        np.int64([p.outfit.family for p in people]),
    )


def person_masks(scene: Scene) -> list[np.ndarray]:
    """Each person's visible pixels, (H, W) bool."""
    owner = (scene.ids.astype(np.int64) - 1) // len(PARTS)
    hidden = (scene.ids == 0) | (scene.ids == OCCLUDER)
    return [(owner == k) & ~hidden for k in range(len(scene.keypoints))]


def _cast(rng, width: int, height: int, camera: Camera, recipe: Recipe) -> list[Person]:
    """Choose people and where they stand: sizes follow the ground plane, neighbours overlap only a little."""
    low, high = recipe.people
    count = int(rng.choice(np.arange(low, high + 1), p=recipe.crowd))
    families = _families(rng, count, recipe.same_colour)
    short = min(width, height)
    people: list[Person] = []
    spans: list[tuple[float, float, float]] = []
    base = np.exp(rng.uniform(*np.log(recipe.height)))
    for family in families:
        for _ in range(12):
            share = np.clip(base * np.exp(rng.normal(0, 0.22)), *recipe.height)
            z = camera.focal * 1.72 / (share * short)
            half = width / 2 / camera.focal * z
            x = rng.uniform(-0.86, 0.86) * half
            u, reach = camera.cx + camera.focal * x / z, camera.focal * 0.33 / z
            if all(abs(u - v) > 0.8 * (reach + r) or abs(np.log(z / q)) > 0.55 for v, r, q in spans):
                break
        else:
            continue
        kind = rng.choice(3, p=recipe.facing)
        yaw = [rng.normal(0, 22), 180 + rng.normal(0, 20), rng.choice([-1, 1]) * rng.uniform(50, 110)][kind]
        child = rng.random() < 0.15
        build = Build(
            height=float(rng.uniform(1.05, 1.35) if child else rng.normal(1.72, 0.08)),
            width=float(rng.uniform(0.9, 1.12)),
            head=float(rng.uniform(1.3, 1.5) if child else rng.uniform(1.06, 1.22)),
        )
        spans.append((u, reach, z))
        people.append(Person(random_pose(rng), build, random_outfit(rng, family), float(yaw), float(x), float(z)))
    return people


def _families(rng, count: int, same: bool) -> list[int]:
    """Colour families of a picture's people: all different, neighbours in the rainbow avoided when few."""
    n = len(FAMILIES)
    if same:
        return [int(k) for k in rng.integers(n, size=count)]
    for _ in range(40):
        chosen = rng.permutation(n)[:count]
        gaps = np.diff(np.sort(chosen))
        if count > 4 or (gaps > 1).all():
            break
    return [int(k) for k in chosen]


def _paint(canvas: Canvas, camera: Camera, people: list[Person], things: list) -> None:
    """Everything from far to near; each person's contact shadow first."""
    for p in people:
        _shadow(canvas, camera, p)
    jobs = [(p.z, lambda p=p, k=k: p.paint(canvas, camera, k)) for k, p in enumerate(people)]
    jobs += things
    for _, job in sorted(jobs, key=lambda j: -j[0]):
        job()


def _is_fair(keypoints: np.ndarray, recipe: Recipe) -> bool:
    """Whether enough of a person's twelve body joints are in view to be worth a label."""
    return bool((keypoints[5:, 2] == 2).mean() >= recipe.seen * 0.75 and (keypoints[:, 2] > 0).mean() >= recipe.seen)


def _shadow(canvas: Canvas, camera: Camera, person: Person) -> None:
    """A soft dark ellipse on the ground under a person."""
    foot = camera.project(np.array([person.x, 0.0, person.z]))
    rx = camera.focal * 0.34 / person.z
    ry = rx * 0.22
    x0, x1 = int(max(foot[0] - 1.6 * rx, 0)), int(min(foot[0] + 1.6 * rx, canvas.image.shape[1]))
    y0, y1 = int(max(foot[1] - 2 * ry, 0)), int(min(foot[1] + 2 * ry, canvas.image.shape[0]))
    if x1 <= x0 or y1 <= y0:
        return
    yy, xx = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    d = ((xx - foot[0]) / rx) ** 2 + ((yy - foot[1]) / ry) ** 2
    dark = 1 - 0.45 * np.exp(-1.5 * d)
    canvas.image[y0:y1, x0:x1] = canvas.image[y0:y1, x0:x1] * dark[..., None]


def _muted(rng, value: tuple[float, float] = (0.3, 0.85), saturation: float = 0.28) -> np.ndarray:
    """A quiet colour, BGR 0..255."""
    hsv = np.uint8([[[rng.integers(180), int(rng.uniform(0.03, saturation) * 255), int(rng.uniform(*value) * 255)]]])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float32)


def _box(
    canvas: Canvas, camera: Camera, x: float, z: float, size: tuple, colour: np.ndarray, ident: int | None
) -> None:
    """A box standing on the ground at (x, z), `size` = (width, height, depth) in metres: top, front and one side."""
    w, h, d = size
    near, far = max(z - d / 2, 0.4), max(z + d / 2, 0.5)

    def q(sx: float, y: float, depth: float) -> np.ndarray:
        return camera.project(np.array([x + sx * w / 2, y, depth]))

    side = -1 if x > 0 else 1
    canvas.polygon(
        np.stack([q(side, 0, near), q(side, h, near), q(side, h, far), q(side, 0, far)]), colour * 0.7, ident
    )
    canvas.polygon(np.stack([q(-1, h, near), q(1, h, near), q(1, h, far), q(-1, h, far)]), colour * 1.12, ident)
    canvas.polygon(np.stack([q(-1, 0, near), q(1, 0, near), q(1, h, near), q(-1, h, near)]), colour * 0.9, ident)
    inset = [
        q(-0.86, h * 0.12, near),
        q(0.86, h * 0.12, near),
        q(0.86, h * 0.88, near),
        q(-0.86, h * 0.88, near),
    ]
    canvas.polygon(np.stack(inset), colour * 0.84, None)


def _tree(canvas: Canvas, camera: Camera, x: float, z: float, size: float, leaf: np.ndarray, lumps: np.ndarray) -> None:
    foot, top = (camera.project(np.array([x, y, z])) for y in (0.0, 1.7 * size))
    r = camera.focal * size / z
    canvas.hull([(foot, 0.13 * r), (top, 0.08 * r)], np.float32([52, 70, 92]))
    for dx, dy, k in lumps:
        canvas.hull([(top + np.float32([dx, dy - 0.5]) * r, r * k)], leaf)


def _furniture(rng, canvas: Canvas, camera: Camera, people: list[Person], recipe: Recipe) -> list:
    """Seats for the seated, a few things standing about, now and then one in front of somebody.

    Returns:
        list of (depth in metres, paint function), not yet painted.
    """
    things = []

    def add(z: float, job) -> None:
        things.append((z, job))

    for p in people:
        if p.pose.seated:
            seat = max(p.point["left_hip"][1] - 0.1 * p.build.height / 1.72, 0.15)
            size = (0.5, float(seat), 0.34)
            colour = _muted(rng)
            add(
                p.z + 0.03,
                lambda p=p, size=size, c=colour: _box(canvas, camera, p.x, p.z + 0.12, size, c, OCCLUDER),
            )
        if rng.random() < recipe.occluders * 0.5:
            size = (rng.uniform(0.4, 1.1), rng.uniform(0.3, 0.6), 0.35)
            x, z, colour = p.x + rng.normal(0, 0.3), max(p.z - rng.uniform(0.5, 0.9), 1.2), _muted(rng)
            add(z, lambda x=x, z=z, size=size, c=colour: _box(canvas, camera, x, z, size, c, OCCLUDER))
    for _ in range(rng.integers(0, 4)):
        z = rng.uniform(5, 12)
        x = rng.uniform(-0.5, 0.5) * canvas.image.shape[1] / camera.focal * z
        kind, colour = rng.integers(3), _muted(rng)
        if kind == 0:
            size = (rng.uniform(0.4, 1.6), rng.uniform(0.3, 1.2), 0.5)
            add(z, lambda x=x, z=z, size=size, c=colour: _box(canvas, camera, x, z, size, c, OCCLUDER))
        elif kind == 1:
            add(z, lambda x=x, z=z, c=colour: _post(canvas, camera, x, z, c))
        else:
            r = rng.uniform(0.12, 0.3)
            add(z, lambda x=x, z=z, r=r, c=colour: _ball(canvas, camera, x, z, r, c))
    return things


def _post(canvas: Canvas, camera: Camera, x: float, z: float, colour: np.ndarray) -> None:
    foot, top = (camera.project(np.array([x, y, z])) for y in (0.0, 3.2))
    r = camera.focal * 0.05 / z
    canvas.hull([(foot, r * 1.5), (top, r)], colour * 0.7, OCCLUDER)
    canvas.hull([(top, r * 5)], np.float32([190, 225, 235]), OCCLUDER)


def _ball(canvas: Canvas, camera: Camera, x: float, z: float, radius: float, colour: np.ndarray) -> None:
    r = camera.focal * radius / z
    canvas.hull([(camera.project(np.array([x, radius, z])), r)], colour, OCCLUDER)


# -- places --------------------------------------------------------------------------------------------------


def _gradient(canvas: Canvas, top: int, bottom: int, first: np.ndarray, last: np.ndarray) -> None:
    h = canvas.image.shape[0]
    top, bottom = int(np.clip(top, 0, h)), int(np.clip(bottom, 0, h))
    if bottom > top:
        t = np.linspace(0, 1, bottom - top)[:, None, None]
        canvas.image[top:bottom] = np.clip(first * (1 - t) + last * t, 0, 255)


def _sky(rng, canvas: Canvas, camera: Camera) -> None:
    dusk = rng.random() < 0.25
    first = np.float32([150, 150, 175] if dusk else [215, 185, 150]) * rng.uniform(0.85, 1.08)
    last = np.float32([165, 190, 225] if dusk else [235, 228, 215]) * rng.uniform(0.9, 1.05)
    _gradient(canvas, 0, int(camera.horizon) + 1, first, last)
    w = canvas.image.shape[1]
    for _ in range(rng.integers(0, 5)):
        x, y, r = rng.uniform(0, w), rng.uniform(0, camera.horizon * 0.7), w * rng.uniform(0.015, 0.035)
        for k in range(4):
            canvas.ellipse(
                np.float32([x + (k - 1.5) * r * 1.4, y]),
                np.float32([r * 1.5, 0]),
                np.float32([0, r * 0.7]),
                last * 1.04,
            )


def _ground(rng, canvas: Canvas, camera: Camera, far: np.ndarray, near: np.ndarray, grain: float) -> None:
    h, w = canvas.image.shape[:2]
    y = int(camera.horizon)
    _gradient(canvas, y, h, far, near)
    small = rng.normal(0, 1, (max((h - y) // 3, 1), max(w // 12, 1))).astype(np.float32)
    noise = cv2.resize(small, (w, h - y), interpolation=cv2.INTER_LINEAR)[..., None] * grain
    canvas.image[y:] = np.clip(canvas.image[y:] * (1 + noise), 0, 255)


def _floor_lines(canvas: Canvas, camera: Camera, step: float, colour: np.ndarray, across: bool) -> None:
    """Boards running away from the viewer, and joints across them."""
    w = canvas.image.shape[1]
    for k in np.arange(-14, 14) * step:
        line = np.stack([camera.project(np.array([k, 0, z])) for z in (1.2, 40.0)])
        canvas.line(line, max(1, w / 640), colour)
    if across:
        for z in np.geomspace(1.6, 14, 9):
            y = camera.project(np.array([0, 0, z]))[1]
            canvas.line(np.float32([[0, y], [w, y]]), 1, colour)


def _park(rng, canvas: Canvas, camera: Camera) -> None:
    _sky(rng, canvas, camera)
    w = canvas.image.shape[1]
    green = np.float32([92, 138, 118]) * rng.uniform(0.85, 1.15)
    for _ in range(3):
        x, r = rng.uniform(0, w), w * rng.uniform(0.2, 0.4)
        canvas.ellipse(
            np.float32([x, camera.horizon + r * 0.08]),
            np.float32([r, 0]),
            np.float32([0, r * 0.3]),
            green * rng.uniform(0.95, 1.25),
        )
    _ground(rng, canvas, camera, green * 1.08, green * 0.86, 0.05)
    for z in sorted(rng.uniform(8, 22, rng.integers(1, 6)), reverse=True):
        x, size = rng.uniform(-0.55, 0.55) * w / camera.focal * z, rng.uniform(0.9, 1.7)
        lumps = np.column_stack([rng.normal(0, 0.4, 5), rng.normal(-0.2, 0.35, 5), rng.uniform(0.45, 0.75, 5)])
        _tree(canvas, camera, x, z, size, green * rng.uniform(0.6, 0.95), lumps)


def _street(rng, canvas: Canvas, camera: Camera) -> None:
    _sky(rng, canvas, camera)
    h, w = canvas.image.shape[:2]
    x = -rng.uniform(0, 0.1) * w
    while x < w:
        width, top = w * rng.uniform(0.14, 0.3), camera.horizon - h * rng.uniform(0.16, 0.5)
        colour = _muted(rng, (0.45, 0.85), 0.24)
        base = camera.horizon + h * 0.03
        canvas.polygon(np.float32([[x, top], [x + width, top], [x + width, base], [x, base]]), colour)
        nx, ny = int(rng.integers(2, 5)), int(rng.integers(2, 6))
        for i in range(nx):
            for j in range(ny):
                cx, cy = x + width * (i + 0.5) / nx, top + (base - top) * (j + 0.5) / (ny + 0.4)
                a, b = width * 0.28 / nx, (base - top) * 0.27 / ny
                pane = np.float32([[cx - a, cy - b], [cx + a, cy - b], [cx + a, cy + b], [cx - a, cy + b]])
                canvas.polygon(pane, colour * rng.choice([0.6, 0.7, 1.15]))
        x += width * rng.uniform(1.0, 1.15)
    grey = _muted(rng, (0.5, 0.7), 0.08)
    _ground(rng, canvas, camera, grey * 1.05, grey * 0.9, 0.03)
    _floor_lines(canvas, camera, rng.uniform(0.8, 1.4), grey * 0.82, True)


def _room(rng, canvas: Canvas, camera: Camera) -> None:
    h, w = canvas.image.shape[:2]
    wall = _muted(rng, (0.55, 0.9), 0.3)
    _gradient(canvas, 0, int(camera.horizon) + 1, wall * 1.03, wall * 0.95)
    if rng.random() < 0.5:
        for x in np.arange(0, w, w * rng.uniform(0.04, 0.09)):
            canvas.line(np.float32([[x, 0], [x, camera.horizon]]), 1, wall * 0.93)
    for _ in range(rng.integers(1, 4)):
        cx, cy = rng.uniform(0.05, 0.95) * w, camera.horizon * rng.uniform(0.25, 0.55)
        a, b = w * rng.uniform(0.05, 0.11), camera.horizon * rng.uniform(0.15, 0.28)
        for k, tone in ((1.0, np.float32([225, 228, 230])), (0.84, _muted(rng, (0.4, 0.95), 0.35))):
            canvas.polygon(
                np.float32(
                    [
                        [cx - a * k, cy - b * k],
                        [cx + a * k, cy - b * k],
                        [cx + a * k, cy + b * k],
                        [cx - a * k, cy + b * k],
                    ]
                ),
                tone,
            )
    # The far wall meets the floor below the horizon: a room is not endless.
    edge = camera.horizon + h * rng.uniform(0.03, 0.09)
    board = np.float32([90, 125, 165]) * rng.uniform(0.6, 1.2)
    _ground(rng, canvas, camera, board * 0.9, board * 1.05, 0.02)
    _floor_lines(canvas, camera, rng.uniform(0.2, 0.4), board * 0.8, False)
    canvas.polygon(np.float32([[0, camera.horizon - 1], [w, camera.horizon - 1], [w, edge], [0, edge]]), wall * 0.95)
    canvas.line(np.float32([[0, edge], [w, edge]]), max(2, h / 90), np.float32([222, 224, 226]))


def _court(rng, canvas: Canvas, camera: Camera) -> None:
    h, w = canvas.image.shape[:2]
    wall = _muted(rng, (0.35, 0.7), 0.22)
    _gradient(canvas, 0, int(camera.horizon) + 1, wall * 0.9, wall * 1.1)
    for k in range(int(rng.integers(3, 7))):
        y = camera.horizon * (k + 1) / 7
        canvas.line(np.float32([[0, y], [w, y]]), max(2, h / 120), wall * rng.uniform(0.8, 1.25))
    floor = _muted(rng, (0.45, 0.75), 0.26)
    _ground(rng, canvas, camera, floor, floor * 1.1, 0.015)
    for z in (3.0, 7.0):
        y = camera.project(np.array([0, 0, z]))[1]
        canvas.line(np.float32([[0, y], [w, y]]), max(2, h / 130), np.float32([232] * 3))
    for x in (-2.4, 2.4):
        canvas.line(
            np.stack([camera.project(np.array([x, 0, z])) for z in (1.2, 30.0)]),
            max(2, h / 130),
            np.float32([232] * 3),
        )


def _beach(rng, canvas: Canvas, camera: Camera) -> None:
    _sky(rng, canvas, camera)
    h = canvas.image.shape[0]
    sand = np.float32([165, 198, 218]) * rng.uniform(0.85, 1.08)
    _ground(rng, canvas, camera, sand, sand * 0.92, 0.035)
    sea = np.float32([172, 150, 112]) * rng.uniform(0.8, 1.1)
    _gradient(canvas, int(camera.horizon), int(camera.horizon + h * rng.uniform(0.04, 0.08)), sea * 0.85, sea * 1.2)


_PLACES = {"park": _park, "street": _street, "room": _room, "court": _court, "beach": _beach}


def _photograph(rng, image: np.ndarray) -> np.ndarray:
    """Exposure, colour of the light, vignette, a little blur and grain."""
    h, w = image.shape[:2]
    out = image.astype(np.float32)
    out *= rng.uniform(0.86, 1.12) * (1 + rng.normal(0, 0.025, 3).astype(np.float32))
    yy, xx = np.mgrid[0:h, 0:w].astype(np.float32)
    radius = ((xx / w - 0.5) ** 2 + (yy / h - 0.5) ** 2)[..., None]
    out *= 1 - rng.uniform(0.05, 0.4) * radius
    if rng.random() < 0.5:
        out = cv2.GaussianBlur(out, (0, 0), float(rng.uniform(0.3, 0.8)) * min(h, w) / 512 + 0.1)
    grain = rng.standard_normal(out.shape[:2], dtype=np.float32)[..., None] * rng.uniform(1, 5)
    return np.clip(out + grain, 0, 255).astype(np.uint8)
