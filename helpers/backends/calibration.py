"""Images -> what a backend learns the ranges of activations from, before it rounds them to 8 or 16 bits.

    images = CalibrationSet(count=32)                     # of the demo data's own calibration split
    images.refuse(CocoDataset("data/demo", "val2017"))    # nothing that will be scored
    backend.build(onnx_path, BuildSpec("qint8_mixed_float16"), images)

They are never those that are scored: an engine that has seen the exam does well in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator

import numpy as np

from helpers import artifacts, paths
from helpers.backends.base import STRIDE
from helpers.dataset import CocoDataset, seeded_sample
from helpers.errors import UsageError, did_you_mean
from helpers.images import list_images, read_image
from helpers.pose.preprocess import resize_align, to_input

if TYPE_CHECKING:
    import os

DEFAULT_SPLIT, DEFAULT_COUNT = "calib2017", 32

# How a range is chosen, and what that means.
METHODS = {
    "minmax": "from the smallest to the largest value seen",
    "percentile": "cut so that a small share of the values lies outside, half on either side",
    "entropy": "cut where the rounded values' distribution differs least from the true one (Kullback-Leibler)",
    "linear": "MagicMind's name for a symmetric range up to the largest magnitude; on a CPU: minmax",
    "eqnm": "MagicMind's own method, which is not public: on a card only",
}


class CalibrationSet:
    """A seeded sample of images, `files`, read as the network will see them."""

    def __init__(
        self,
        source: str | os.PathLike[str] | None = None,
        split: str = DEFAULT_SPLIT,
        count: int | None = DEFAULT_COUNT,
        method: str = "minmax",
        input_shape: tuple[int, int] | None = None,
        seed: int = 0,
    ) -> None:
        """Draws the sample; nothing is read yet.

        Args:
            source: a COCO-format folder or a folder of images; None for the demo data.
            split: part of a COCO-format folder; nothing to a folder of images.
            count: None for all images.
            method: one of `METHODS`.
            input_shape: (height, width), multiples of 32, for engines of one shape: images are scaled to the short
                side and cut at their middle. None: each image gets its own shape, as with dynamic engines.
            seed: of the sample; a larger sample contains every smaller one.
        """
        if method not in METHODS:
            raise UsageError(f"There is no calibration method {method!r}; {did_you_mean(method, METHODS)}.")
        if input_shape is not None and any(side % STRIDE or side < 1 for side in input_shape):
            raise UsageError(f"Calibration images must be (height, width), multiples of {STRIDE}, not {input_shape}.")
        folder = Path(source or paths.demo_data())
        if (folder / "annotations").is_dir():
            dataset = CocoDataset(folder, split)
            self.files = [dataset.path(image_id) for image_id in dataset.sample(count, seed)]
        else:
            self.files = seeded_sample(list_images(folder), count, seed, folder)
        self.method, self.input_shape, self.seed = method, input_shape, seed

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.files)

    def describe(self) -> dict[str, Any]:
        """Returns all that decides the outcome, as JSON types, for a built model's sidecar."""
        return {
            "images": [artifacts.sha256(path) for path in self.files],
            "count": len(self),
            "method": self.method,
            "seed": self.seed,
            "shape": "each its own" if self.input_shape is None else list(self.input_shape),
        }

    def refuse(self, scored: CocoDataset) -> None:
        """Makes sure that no image is also scored, whatever its name."""
        sizes = {path.stat().st_size for path in self.files}
        theirs = {artifacts.sha256(path) for _, path in scored if path.stat().st_size in sizes}
        shared = [path.name for path in self.files if artifacts.sha256(path) in theirs]
        if shared:
            raise UsageError(
                f"{len(shared)} of {len(self)} calibration images are also scored, first {shared[0]}; "
                f"calibrate with images that {scored.root / scored.split} does not have."
            )

    def batches(self) -> Iterator[np.ndarray]:
        """Yields each image as the network's input, (1, 3, h, w) float32; one is in memory at a time."""
        for path in self.files:
            image = read_image(path)
            if self.input_shape is None:
                image = resize_align(image)[0]
            else:
                image = _cut(resize_align(image, min(self.input_shape))[0], *self.input_shape)
            yield to_input([image])


def _cut(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns the middle of an image, (h, w, 3) -> (height, width, 3) uint8; black where it is too small."""
    lacks = [max(want - have, 0) for have, want in zip(image.shape, (height, width))]
    image = np.pad(image, [*((lack // 2, lack - lack // 2) for lack in lacks), (0, 0)])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]
