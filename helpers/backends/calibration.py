"""Pictures -> what a backend learns the ranges of activations from, before it rounds them to 8 or 16 bits.

    pictures = CalibrationSet(count=32)                     # of the demo data's own calibration split
    pictures.refuse(CocoDataset("data/demo", "val2017"))    # nothing that will be scored
    backend.build(onnx_path, BuildSpec("qint8_mixed_float16"), pictures)

Different pictures, drawn with a seed, and never those that are scored: an engine that has seen the exam does well in
it. Pictures are read one at a time, so that memory does not grow with their number.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any, Iterator

import numpy as np

from helpers import artifacts, paths
from helpers.backends.base import STRIDE
from helpers.dataset import CocoDataset
from helpers.errors import UsageError, did_you_mean
from helpers.images import list_images, read_image
from helpers.pose.preprocess import resize_align, to_input

DEFAULT_SPLIT = "calib2017"
DEFAULT_COUNT = 32

# How a range is chosen, and what that means.
METHODS = {
    "minmax": "from the smallest to the largest value seen",
    "percentile": "cut so that a small share of the values lies outside, half on either side",
    "entropy": "cut where the rounded values' distribution differs least from the true one (Kullback-Leibler)",
    "linear": "MagicMind's name for a symmetric range up to the largest magnitude; on a CPU: minmax",
    "eqnm": "MagicMind's own method, which is not public: on a card only",
}
DEFAULT_PERCENTILE = 99.999


class CalibrationSet:
    """A seeded sample of pictures, read as the network will see them.

    Attributes:
        files: the pictures.
        method: one of `METHODS`.
        percentile: for that method, percent of the values that the range has to hold.
        input_shape: (height, width) if all pictures get that shape, None if each keeps its own.
        seed: of the sample.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | None = None,
        split: str = DEFAULT_SPLIT,
        count: int | None = DEFAULT_COUNT,
        method: str = "minmax",
        percentile: float = DEFAULT_PERCENTILE,
        input_shape: tuple[int, int] | None = None,
        seed: int = 0,
    ) -> None:
        """Draws the sample; nothing is read yet.

        Args:
            source: a COCO-format folder or a folder of pictures; None for the demo data.
            split: part of a COCO-format folder; nothing to a folder of pictures.
            count: how many pictures; None for all.
            method: one of `METHODS`.
            percentile: for that method, above 50 and up to 100.
            input_shape: (height, width), multiples of 32, for engines of one shape: pictures are scaled to the short
                side and cut at their middle. None: each picture gets its own shape, as with dynamic engines.
            seed: another seed, another sample. A larger sample contains every smaller one.

        Raises:
            UsageError: there is no such method, or a number is out of range.
            DataError: the folder or its pictures are missing.
        """
        if method not in METHODS:
            raise UsageError(f"There is no calibration method {method!r}; {did_you_mean(method, METHODS)}.")
        if not 50 < percentile <= 100:
            raise UsageError(f"The percentile must be above 50 and at most 100, not {percentile:g}.")
        if input_shape is not None and any(side % STRIDE or side < 1 for side in input_shape):
            raise UsageError(f"Calibration pictures must be (height, width), multiples of {STRIDE}, not {input_shape}.")
        self.files = _sample(Path(source or paths.demo_data()), split, count, seed)
        self.method = method
        self.percentile = percentile
        self.input_shape = input_shape
        self.seed = seed

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.files)

    def describe(self) -> dict[str, Any]:
        """All that decides the outcome, as JSON types, for a built model's sidecar."""
        facts = {
            "images": self.hashes(),
            "count": len(self),
            "method": self.method,
            "seed": self.seed,
            "shape": "each its own" if self.input_shape is None else list(self.input_shape),
        }
        return {**facts, "percentile": self.percentile} if self.method == "percentile" else facts

    def hashes(self) -> list[str]:
        """SHA-256 of each file.

        Raises:
            DataError: a file cannot be read.
        """
        return [artifacts.sha256(path) for path in self.files]

    def refuse(self, scored: CocoDataset) -> None:
        """Makes sure that no picture is also scored, whatever its name.

        Args:
            scored: the dataset that accuracy is measured on.

        Raises:
            UsageError: some are.
        """
        sizes = {path.stat().st_size for path in self.files}
        theirs = {artifacts.sha256(path) for _, path in scored if path.stat().st_size in sizes}
        shared = [path.name for path, digest in zip(self.files, self.hashes()) if digest in theirs]
        if shared:
            raise UsageError(
                f"{len(shared)} of {len(self)} calibration pictures are also scored, first {shared[0]}; "
                f"calibrate with pictures that {scored.root / scored.split} does not have."
            )

    def batches(self) -> Iterator[np.ndarray]:
        """Yields each picture as the network's input, (1, 3, h, w) float32; one is in memory at a time.

        Raises:
            DataError: a picture cannot be read.
        """
        for path in self.files:
            image = read_image(path)
            if self.input_shape is None:
                resized = resize_align(image)[0]
            else:
                resized = _cut(resize_align(image, min(self.input_shape))[0], *self.input_shape)
            yield to_input([resized])


def _sample(source: Path, split: str, count: int | None, seed: int) -> list[Path]:
    """Pictures of a COCO-format folder, or of a plain one, drawn as `CocoDataset.sample` draws."""
    if (source / "annotations").is_dir():
        dataset = CocoDataset(source, split)
        return [dataset.path(image_id) for image_id in dataset.sample(count, seed)]
    files = list_images(source)
    if count is None:
        return files
    if not 1 <= count <= len(files):
        raise UsageError(f"The number of images must be from 1 to {len(files)}, the size of {source}, not {count}.")
    random.Random(seed).shuffle(files)
    return sorted(files[:count])


def _cut(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of a picture (h, w, 3) uint8 -> (height, width, 3); black where it is too small."""
    cut = np.zeros((height, width, 3), np.uint8)
    taken, given = zip(*(_overlap(have, want) for have, want in zip(image.shape, (height, width))))
    cut[given] = image[taken]
    return cut


def _overlap(have: int, want: int) -> tuple[slice, slice]:
    """Where the middles of two lengths overlap, in each of them."""
    length = min(have, want)
    starts = (have - length) // 2, (want - length) // 2
    return slice(starts[0], starts[0] + length), slice(starts[1], starts[1] + length)
