"""Pictures in, poses out: preprocessing, the engine, the flip test and decoding in one callable.

    engine = backends.get("onnxruntime").load(path)
    estimator = PoseEstimator(engine)
    [poses] = estimator([image])                       # (H, W, 3) uint8 BGR
    for outcome in estimator.stream(paths, batch_size=8): ...

Pictures of one padded shape share a batch, so a batch size above one works on a mixed folder too, which MMPose's
own bottom-up models refuse.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Iterable, Iterator, Union

import numpy as np

from helpers.decode import OFFICIAL, DecodeConfig, Poses, decode_poses
from helpers.errors import DataError, UsageError
from helpers.preprocess import ResizeTransform, mirror, read_image, resize_align, stack_images, to_input

if TYPE_CHECKING:
    from helpers.backends.base import Engine

ImageLike = Union[str, "os.PathLike[str]", np.ndarray]  # a file, or (H, W, 3) uint8 BGR

STAGES = ("load", "pre", "infer", "decode")
_WINDOW = 4  # batches looked ahead when pictures are sorted by shape: more fill batches better, fewer need less memory


@dataclass
class Outcome:
    """What became of one picture.

    Attributes:
        name: the file's path, or "image 3" for the fourth array.
        poses: the people found; None if there is an `error`.
        error: why there are no poses, one sentence; empty if there are.
        stage_ms: milliseconds of this picture's share in each of `STAGES`.
    """

    name: str
    poses: Poses | None = None
    error: str = ""
    stage_ms: dict[str, float] = field(default_factory=dict)


@dataclass
class _Job:
    """A picture on its way through the stages."""

    outcome: Outcome
    resized: np.ndarray | None = None
    transform: ResizeTransform | None = None


def _fail(job: _Job, error: DataError) -> None:
    """Ends a job with an error that names the picture."""
    text = str(error)
    job.outcome.error = text if job.outcome.name in text else f"{job.outcome.name}: {text}"
    job.resized = None


class PoseEstimator:
    """Finds people and their 17 COCO keypoints in pictures.

    Args:
        engine: a loaded network (`helpers.backends.get(name).load(path)`).
        flip_test: also run the mirror image and average, as the official accuracy figures do; twice the time.
        input_size: short side of the network's input in pixels.
        config: thresholds and steps of decoding.
    """

    def __init__(
        self,
        engine: Engine,
        flip_test: bool = True,
        input_size: int = 512,
        config: DecodeConfig = OFFICIAL,
    ) -> None:
        self.engine = engine
        self.flip_test = flip_test
        self.input_size = input_size
        self.config = config

    def __call__(self, images: Iterable[ImageLike], batch_size: int = 1) -> list[Poses]:
        """Poses of any number of pictures of any sizes, in their order.

        Args:
            images: files, or (H, W, 3) uint8 BGR arrays.
            batch_size: most pictures in one run of the network.

        Returns:
            One `Poses` per picture, in pixels of that picture.

        Raises:
            DataError: a picture cannot be read, does not have the shape the engine was built for, or makes the
                network's output not finite; names the picture.
            UsageError: `batch_size` is below 1, or an array is no BGR picture.
        """
        found = []
        for outcome in self.stream(images, batch_size):
            if outcome.poses is None:
                raise DataError(outcome.error)
            found.append(outcome.poses)
        return found

    def stream(self, images: Iterable[ImageLike], batch_size: int = 1) -> Iterator[Outcome]:
        """Like calling, but yields results as they come and goes on after a picture that cannot be read.

        Args:
            images: files, or (H, W, 3) uint8 BGR arrays; may be endless.
            batch_size: most pictures in one run of the network.

        Yields:
            One `Outcome` per picture, in order.

        Raises:
            UsageError: `batch_size` is below 1, or an array is no BGR picture.
        """
        if batch_size < 1:
            raise UsageError(f"The batch size must be 1 or more, not {batch_size}.")
        if not self.engine.dynamic_shape:
            batch_size = self.engine.batch_size
        window: list[_Job] = []
        ahead = batch_size * _WINDOW if batch_size > 1 else 1
        for index, image in enumerate(images):
            window.append(self._prepare(image, index))
            if len(window) == ahead:
                yield from self._finish(window, batch_size)
                window = []
        yield from self._finish(window, batch_size)

    def maps(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, ResizeTransform]:
        """The network's raw outputs for one picture, for a look inside.

        Args:
            image: (H, W, 3) uint8 BGR.

        Returns:
            (output, flipped_output, transform): (34, h, w) float32 of the picture, the same of its mirror image
            (None without flip test), and how to get back to the picture: what `decode_poses` takes.

        Raises:
            DataError: the picture does not have the shape the engine was built for.
        """
        resized, transform = resize_align(image, self.input_size)
        self._refuse_shape(resized, "The picture")
        [output], flipped = self._infer([resized])
        return output, None if flipped is None else flipped[0], transform

    def _prepare(self, image: ImageLike, index: int) -> _Job:
        """Loads and resizes one picture; a fault becomes the outcome's error."""
        is_array = isinstance(image, np.ndarray)
        job = _Job(Outcome(f"image {index}" if is_array else str(image)))
        try:
            start = time.perf_counter()
            pixels = image if is_array else read_image(Path(os.fspath(image)))
            loaded = time.perf_counter()
            job.resized, job.transform = resize_align(pixels, self.input_size)
            self._refuse_shape(job.resized, job.outcome.name)
            job.outcome.stage_ms["load"] = (loaded - start) * 1e3
            job.outcome.stage_ms["pre"] = (time.perf_counter() - loaded) * 1e3
        except DataError as error:
            _fail(job, error)
        return job

    def _refuse_shape(self, resized: np.ndarray, name: str) -> None:
        """An engine built for one shape takes pictures of that shape only."""
        shape = resized.shape[:2]
        if not self.engine.dynamic_shape and shape != self.engine.input_shape:
            raise DataError(
                f"{name} fills an input of {shape[0]} x {shape[1]} (height x width), but the engine was built for "
                f"{self.engine.input_shape[0]} x {self.engine.input_shape[1]} only; build a dynamic one."
            )

    def _finish(self, jobs: list[_Job], batch_size: int) -> Iterator[Outcome]:
        """Runs the network and the decoder on prepared pictures, those of one shape together."""
        by_shape: dict[tuple[int, ...], list[_Job]] = {}
        for job in jobs:
            if job.resized is not None:
                by_shape.setdefault(job.resized.shape, []).append(job)
        for alike in by_shape.values():
            for k in range(0, len(alike), batch_size):
                self._run_batch(alike[k : k + batch_size])
        for job in jobs:
            yield job.outcome

    def _run_batch(self, jobs: list[_Job]) -> None:
        """Fills in the poses of pictures of one shape."""
        start = time.perf_counter()
        try:
            outputs, flipped = self._infer([job.resized for job in jobs])
        except DataError as error:  # out of memory on a panorama, say: the other pictures go on
            for job in jobs:
                _fail(job, error)
            return
        shared = (time.perf_counter() - start) * 1e3 / len(jobs)
        for k, job in enumerate(jobs):
            job.resized = None  # the picture is no longer needed, and windows can be large
            start = time.perf_counter()
            try:
                mirrored = None if flipped is None else flipped[k]
                job.outcome.poses = decode_poses(outputs[k], mirrored, job.transform, self.config)
            except DataError as error:
                _fail(job, error)
            job.outcome.stage_ms["infer"] = shared
            job.outcome.stage_ms["decode"] = (time.perf_counter() - start) * 1e3

    def _infer(self, resized: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
        """Network outputs (N, 34, h, w) of N resized pictures of one shape, and of their mirror images."""
        batch = stack_images(resized) if self.engine.input_type == "uint8" else to_input(resized)
        outputs = self._run(batch)
        return outputs, self._run(mirror(batch)) if self.flip_test else None

    def _run(self, batch: np.ndarray) -> np.ndarray:
        """One run; an engine built for a fixed batch gets its last batch filled up with repeats."""
        missing = 0 if self.engine.dynamic_shape else self.engine.batch_size - len(batch)
        if missing > 0:
            return self.engine.run(np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]))[: len(batch)]
        return self.engine.run(batch)
