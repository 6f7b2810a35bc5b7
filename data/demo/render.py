"""Renders the training pool: shards of JPEG scenes at the size in which the network meets them.

    python data/demo/render.py --scenes 8000            # the training pool, about 0.04 s a scene on one core
    python data/demo/render.py --scenes 3000 --crowds   # scenes of many people, to learn tags from

Every scene is painted at a random camera size, saved as JPEG, read back and resized to a short side of 512, so
that it carries the same blur and blocks as a test picture. Shards go to data/train/ (not committed); a shard that
exists is not made again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from people import PARTS
from scenes import CROWD, GRADED, HARD, OCCLUDER, compose

SIZES = (
    (640, 480),
    (480, 640),
    (640, 427),
    (500, 375),
    (375, 500),
    (512, 512),
    (800, 600),
    (427, 640),
    (320, 320),
)
POOL = Path(__file__).resolve().parents[1] / "train"
SHARD = 200
POOL_SEED = 100_000
CROWD_SEED = 300_000  # seeds from here on show crowds
SCENE_KEYS = ("jpeg", "parts", "keypoints", "families")


def random_size(rng: np.random.Generator) -> tuple[int, int]:
    """A picture's (width, height) in pixels, as mixed as COCO's."""
    return SIZES[rng.integers(len(SIZES))]


def render_scene(seed: int) -> dict[str, np.ndarray]:
    """One training scene at network scale.

    Returns:
        dict with `jpeg` (n,) uint8, `parts` (n,) uint8 (PNG of the part map at a quarter of the size: 0 background,
        1 + index into `PARTS`), `keypoints` (P, 17, 3) float32 in pixels of the JPEG, `families` (P,) int64.
    """
    rng = np.random.default_rng(seed)
    width, height = random_size(rng)
    hard, other = (0.4, CROWD) if seed >= CROWD_SEED else (0.15, GRADED)
    recipe = HARD if rng.random() < hard else other
    scene = compose(rng, width, height, recipe, nobody=rng.random() < 0.03)
    quality = int(rng.integers(80, 96))
    image = cv2.imdecode(cv2.imencode(".jpg", scene.image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    scale = 512 / min(width, height)
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    h, w = image.shape[:2]
    ids = cv2.resize(scene.ids, (w // 4, h // 4), interpolation=cv2.INTER_NEAREST).astype(np.int64)
    parts = np.where((ids == 0) | (ids == OCCLUDER), 0, 1 + (ids - 1) % len(PARTS)).astype(np.uint8)
    keypoints = scene.keypoints.copy()
    keypoints[..., :2] *= scale * (keypoints[..., 2:] > 0)
    return {
        "jpeg": cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].ravel(),
        "parts": cv2.imencode(".png", parts)[1].ravel(),
        "keypoints": keypoints,
        "families": scene.families,
    }


def write_shard(path: Path, seed: int, count: int = SHARD) -> None:
    """Render `count` scenes with seeds `seed`, `seed + 1`, ... into one npz file."""
    scenes = [render_scene(seed + k) for k in range(count)]
    flat = {f"{key}_{k}": value for k, scene in enumerate(scenes) for key, value in scene.items()}
    part = path.with_suffix(".part.npz")
    np.savez(part, **flat)
    part.replace(path)


def main() -> int:
    """Render what is missing of the pool."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=8000)
    parser.add_argument("--crowds", action="store_true", help="scenes of many people, from another seed on")
    parser.add_argument("--pool", type=Path, default=POOL, help="folder to write to")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    args.pool.mkdir(parents=True, exist_ok=True)
    first = CROWD_SEED if args.crowds else POOL_SEED
    for seed in range(first, first + args.scenes, SHARD):
        path = args.pool / f"scenes_{seed}.npz"
        if not path.exists():
            write_shard(path, seed)
            print(f"{path.name}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
