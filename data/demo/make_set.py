"""Renders the demo set in COCO's folder shape: the scored, the calibration and the hard split.

    python data/demo/make_set.py            # about 20 s on one core; writes next to this file
    python data/demo/make_set.py --manifest # only the hashes of what is here
    python data/demo/make_set.py --validation # pictures to judge a training by (train.py), into data/train/

The files are committed, because another OpenCV paints other pixels from the same seed. Seeds of the splits and
of the training pool (render.py: 100000 upwards) do not meet.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

import cv2
import numpy as np
from body import KEYPOINTS
from render import POOL, random_size
from scenes import GRADED, HARD, Recipe, Scene, compose, person_masks

HERE = Path(__file__).resolve().parent
SKELETON = "16 14 14 12 17 15 15 13 12 13 6 12 7 13 6 7 6 8 7 9 8 10 9 11 2 3 1 2 1 3 2 4 3 5 4 6 5 7"
CATEGORY = {
    "id": 1,
    "name": "person",
    "supercategory": "person",
    "keypoints": list(KEYPOINTS),
    "skeleton": np.array(SKELETON.split(), int).reshape(-1, 2).tolist(),
}
# Not shipped, to judge a training by: AP, and the tags of few and of many people.
TAG_VALIDATION, HARD_VALIDATION = JUDGED = ("validation_tags", "validation_hard")
# split: (first seed, pictures with people, pictures with nobody, recipe)
SPLITS = {
    "val2017": (20_000, 240, 16, GRADED),
    "calib2017": (30_000, 80, 0, GRADED),
    "hard2017": (40_000, 40, 0, HARD),
    TAG_VALIDATION: (51_000, 120, 0, GRADED),
    HARD_VALIDATION: (52_000, 24, 0, HARD),
}


def annotate(scene: Scene, image_id: int, first_id: int) -> list[dict]:
    """COCO person annotations of one scene: visible area, its box and outline, keypoints."""
    found = []
    for keypoints, mask in zip(scene.keypoints, person_masks(scene)):
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        outlines = [cv2.approxPolyDP(c, 1.0, True).ravel().tolist() for c in contours if cv2.contourArea(c) > 6]
        rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = [int(cols[0]), int(rows[0]), int(cols[-1] - cols[0] + 1), int(rows[-1] - rows[0] + 1)]
        triples = [[round(float(x), 1), round(float(y), 1), int(v)] for x, y, v in keypoints]
        found.append(
            {
                "id": first_id + len(found),
                "image_id": image_id,
                "category_id": 1,
                "iscrowd": 0,
                "area": int(mask.sum()),
                "bbox": box,
                "num_keypoints": sum(v > 0 for _, _, v in triples),
                "keypoints": [n for t in triples for n in t],
                "segmentation": [o for o in outlines if len(o) >= 6],
            }
        )
    return found


def scene_with_people(seed: int, recipe: Recipe) -> Scene:
    """The first scene from `seed` on, in steps of 1000000, in which somebody is left to label."""
    while True:
        rng = np.random.default_rng(seed)
        scene = compose(rng, *random_size(rng), recipe)
        if len(scene.keypoints):
            return scene
        seed += 1_000_000


def make_split(split: str, root: Path = HERE) -> None:
    """Render one split: `<split>/*.jpg` and `annotations/person_keypoints_<split>.json`."""
    seed, people, nobody, recipe = SPLITS[split]
    folder = root / split
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for k in range(people + nobody):
        image_id = seed + k
        if k < people:
            scene = scene_with_people(image_id, recipe)
        else:
            rng = np.random.default_rng(image_id)
            scene = compose(rng, *random_size(rng), recipe, nobody=True)
        name = f"{image_id:012d}.jpg"
        cv2.imwrite(str(folder / name), scene.image, [cv2.IMWRITE_JPEG_QUALITY, 87])
        h, w = scene.image.shape[:2]
        images.append({"id": image_id, "file_name": name, "width": w, "height": h, "license": 1})
        annotations += annotate(scene, image_id, image_id * 100)
    document = {
        "info": {"description": f"generated people, {split}", "version": "1", "url": "data/demo/README.md"},
        "licenses": [{"id": 1, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}],
        "categories": [CATEGORY],
        "images": images,
        "annotations": annotations,
    }
    path = root / "annotations" / f"person_keypoints_{split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, separators=(",", ":")) + "\n")
    print(f"{split}: {len(images)} pictures, {len(annotations)} people")


def write_manifest() -> None:
    """`MANIFEST.sha256` of every shipped data file, in the form that `sha256sum -c` reads."""
    files = sorted(
        p for kind in ("*/*.jpg", "annotations/*.json", "weights/*.npz", "scores/*.json") for p in HERE.glob(kind)
    )
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(HERE).as_posix()}" for p in files]
    (HERE / "MANIFEST.sha256").write_text("\n".join(lines) + "\n")
    print(f"MANIFEST.sha256: {len(lines)} files, {sum(p.stat().st_size for p in files) / 1e6:.1f} MB")


def main() -> int:
    """Render the shipped splits, then hash."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", action="store_true", help="only hash what is here")
    parser.add_argument("--validation", action="store_true", help="only render pictures to judge a training by")
    parser.add_argument("--pool", type=Path, default=POOL, help="folder for those")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    if args.validation:
        for split in JUDGED:
            make_split(split, args.pool)
        return 0
    if not args.manifest:
        for split in SPLITS:
            if split not in JUDGED:
                make_split(split)
    write_manifest()
    return 0


if __name__ == "__main__":
    sys.exit(main())
