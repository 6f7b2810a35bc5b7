"""Pictures in, poses out: preprocessing, the engine, the flip test and decoding in one callable.

    engine = backends.get("onnxruntime").load(path)
    estimator = PoseEstimator(engine)
    [poses] = estimator([image])                       # (H, W, 3) uint8 BGR
    for outcome in estimator.stream(paths, batch_size=8): ...

Pictures of one padded shape share a batch, so a batch size above one works on a mixed folder too, which MMPose's
own bottom-up models refuse. While the engine runs one batch, other threads read and resize the pictures of the next
ones and decode those before; how far they may be ahead is limited, so memory is too, however slow the consumer.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Iterable, Iterator, Union

import numpy as np

from helpers.errors import DataError, UsageError
from helpers.images import read_image
from helpers.pose import decode
from helpers.pose.decode import OFFICIAL, DecodeConfig, Poses, decode_poses
from helpers.pose.preprocess import ResizeTransform, hflip, resize_align, stack_images, to_input

if TYPE_CHECKING:
    from helpers.backends.base import Engine

ImageLike = Union[str, "os.PathLike[str]", np.ndarray]  # a file, or (H, W, 3) uint8 BGR

STAGES = ("load", "pre", "infer", "decode")
_WINDOW = 4  # batches sorted by shape together: more fill batches better, fewer need less memory
_WINDOWS_AHEAD = 3  # windows on their way at once, the one that is being handed out included
_BATCHES_AHEAD = 2  # batches of network input and output in memory at once: one is run, one is made or decoded


@dataclass
class PoseResult:
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
    """A picture on its way through the stages.

    Attributes:
        outcome: what the caller will get.
        resized: (h, w, 3) uint8, until it is in a batch or has failed.
        transform: how it was resized.
        fault: an error that is no fault of the picture's data, to be raised when it is the picture's turn.
    """

    outcome: PoseResult
    resized: np.ndarray | None = None
    transform: ResizeTransform | None = None
    fault: Exception | None = None

    def fail(self, error: Exception) -> None:
        """Ends the job: a `DataError` becomes its outcome, anything else stops the stream. Both name the picture."""
        self.resized = None
        text, name = str(error), self.outcome.name
        if name not in text:
            text = f"{name}: {text}"
        if isinstance(error, DataError):
            self.outcome.error = text
        elif isinstance(error, UsageError):
            self.fault = UsageError(text)
        else:
            self.fault = RuntimeError(f"{text} ({type(error).__name__})")
            self.fault.__cause__ = error


class _Pipeline:
    """One thread per stage, each with its queue of work; closed, they finish what they are at and skip the rest."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.unfinished: deque[Future] = deque()  # batches that are not decoded yet, in order
        self.load, self.assemble, self.run, self.decode = (
            ThreadPoolExecutor(1, thread_name_prefix=f"pose-{stage}") for stage in ("load", "batch", "infer", "decode")
        )

    def close(self) -> None:
        """Waits for at most one run of the engine."""
        self.closed.set()
        for stage in (self.load, self.assemble, self.run, self.decode):
            stage.shutdown()


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
        # While the caller is still getting ready; until it is done, pictures are decoded by NumPy, to the same poses.
        threading.Thread(target=decode.warm_up, daemon=True).start()

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

    def stream(self, images: Iterable[ImageLike], batch_size: int = 1) -> Iterator[PoseResult]:
        """Like calling, but yields results as they come and goes on after a picture that cannot be read.

        Stages overlap in threads. Pictures are taken from `images` in the caller's thread, not more than
        `batch_size` * 12 ahead of what was yielded. Leaving the loop early, or Ctrl-C, ends the threads after at most
        one run of the engine.

        Args:
            images: files, or (H, W, 3) uint8 BGR arrays; may be endless.
            batch_size: most pictures in one run of the network; mirror images come on top.

        Yields:
            One `PoseResult` per picture, in order.

        Raises:
            UsageError: `batch_size` is below 1, or an array is no BGR picture.
            RuntimeError: a stage failed in a way that is not the picture's fault; names the picture.
        """
        if batch_size < 1:
            raise UsageError(f"The batch size must be 1 or more, not {batch_size}.")
        return self._stream(enumerate(images), self._batch_size(batch_size))

    def window(self, batch_size: int = 1) -> int:
        """How many consecutive pictures form batches among themselves.

        Who cuts a list at multiples of it gets the same batches, so the same bits, in two runs as in one.

        Args:
            batch_size: as for `stream`.
        """
        size = self._batch_size(batch_size)
        return size * _WINDOW if size > 1 else 1

    def _batch_size(self, batch_size: int) -> int:
        """Most pictures in one run: what was asked for, unless the engine was built for so many."""
        if self.engine.dynamic_shape:
            return batch_size
        return max(self.engine.batch_size // (2 if self.flip_test else 1), 1)

    def _stream(self, images: Iterator[tuple[int, ImageLike]], batch_size: int) -> Iterator[PoseResult]:
        """Keeps windows of pictures on their way, and hands out the oldest."""
        pipeline = _Pipeline()
        windows: deque[Future] = deque()
        length = self.window(batch_size)
        try:
            while True:
                while len(windows) < (_WINDOWS_AHEAD if length > 1 else _WINDOWS_AHEAD * _WINDOW):
                    taken = list(itertools.islice(images, length))
                    if not taken:
                        break
                    loading = [pipeline.load.submit(self._prepare, pipeline, image, k) for k, image in taken]
                    windows.append(pipeline.assemble.submit(self._assemble, pipeline, loading, batch_size))
                if not windows:
                    return
                for job, decoded in windows.popleft().result():
                    if decoded is not None:
                        decoded.result()
                    if job.fault is not None:
                        raise job.fault
                    yield job.outcome
        finally:
            pipeline.close()

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
        [output], flipped = self._infer(self._batch([resized]))
        return output, None if flipped is None else flipped[0], transform

    def _refuse_shape(self, resized: np.ndarray, name: str) -> None:
        """An engine built for one shape takes pictures of that shape only."""
        shape = resized.shape[:2]
        if not self.engine.dynamic_shape and shape != self.engine.input_shape:
            raise DataError(
                f"{name} fills an input of {shape[0]} x {shape[1]} (height x width), but the engine was built for "
                f"{self.engine.input_shape[0]} x {self.engine.input_shape[1]} only; build a dynamic one."
            )

    # -- stages, each in a thread of its own ---------------------------------------------------------------------

    def _prepare(self, pipeline: _Pipeline, image: ImageLike, index: int) -> _Job:
        """Loads and resizes one picture."""
        is_array = isinstance(image, np.ndarray)
        job = _Job(PoseResult(f"image {index}" if is_array else str(image)))
        if pipeline.closed.is_set():
            return job
        try:
            start = time.perf_counter()
            pixels = image if is_array else read_image(Path(os.fspath(image)))
            loaded = time.perf_counter()
            job.resized, job.transform = resize_align(pixels, self.input_size)
            self._refuse_shape(job.resized, job.outcome.name)
            job.outcome.stage_ms["load"] = (loaded - start) * 1e3
            job.outcome.stage_ms["pre"] = (time.perf_counter() - loaded) * 1e3
        except Exception as error:  # whatever it is, it belongs to this picture and comes up at its turn
            job.fail(error)
        return job

    def _assemble(
        self, pipeline: _Pipeline, loading: list[Future], batch_size: int
    ) -> list[tuple[_Job, Future | None]]:
        """Makes batches of a window of pictures and sends them on: each job with the future of its decoding."""
        jobs = [future.result() for future in loading]
        by_shape: dict[tuple[int, ...], list[_Job]] = {}
        for job in jobs:
            if job.resized is not None:
                by_shape.setdefault(job.resized.shape, []).append(job)
        decoding: dict[int, Future] = {}
        for alike in by_shape.values():
            for k in range(0, len(alike), batch_size):
                if len(pipeline.unfinished) == _BATCHES_AHEAD:
                    pipeline.unfinished.popleft().result()
                if pipeline.closed.is_set():
                    return []
                chosen = alike[k : k + batch_size]
                running = pipeline.run.submit(self._run_batch, pipeline, chosen, self._fill_batch(chosen))
                decoded = pipeline.decode.submit(self._decode_batch, pipeline, chosen, running)
                pipeline.unfinished.append(decoded)
                decoding.update((id(job), decoded) for job in chosen)
        return [(job, decoding.get(id(job))) for job in jobs]

    def _fill_batch(self, jobs: list[_Job]) -> np.ndarray:
        """The network's input for pictures of one shape; they are let go of."""
        start = time.perf_counter()
        batch = self._batch([job.resized for job in jobs])
        shared = (time.perf_counter() - start) * 1e3 / len(jobs)
        for job in jobs:
            job.resized = None
            job.outcome.stage_ms["pre"] += shared
        return batch

    def _run_batch(
        self, pipeline: _Pipeline, jobs: list[_Job], batch: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None] | None:
        """The network's outputs for a batch; None if it failed, which is then known to its jobs."""
        if pipeline.closed.is_set():
            return None
        start = time.perf_counter()
        try:
            outputs = self._infer(batch)
        except Exception as error:  # out of memory on a panorama, say: the other pictures go on
            for job in jobs:
                job.fail(error)
            return None
        for job in jobs:
            job.outcome.stage_ms["infer"] = (time.perf_counter() - start) * 1e3 / len(jobs)
        return outputs

    def _decode_batch(self, pipeline: _Pipeline, jobs: list[_Job], running: Future) -> None:
        """Fills in the poses of a batch."""
        outputs = running.result()
        if outputs is None:
            return
        for k, job in enumerate(jobs):
            if pipeline.closed.is_set():
                return
            start = time.perf_counter()
            output, mirrored = (None if half is None else half[k] for half in outputs)
            try:
                job.outcome.poses = decode_poses(output, mirrored, job.transform, self.config)
            except Exception as error:
                job.fail(error)
            job.outcome.stage_ms["decode"] = (time.perf_counter() - start) * 1e3

    # -- the engine ----------------------------------------------------------------------------------------------

    def _batch(self, resized: list[np.ndarray]) -> np.ndarray:
        """The network's input for N resized pictures of one shape; with the flip test their mirror images follow."""
        batch = stack_images(resized) if self.engine.input_type == "uint8" else to_input(resized)
        return np.concatenate([batch, hflip(batch)]) if self.flip_test else batch

    def _infer(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Network outputs (N, 34, h, w) of N pictures, and of their mirror images.

        Picture and mirror image go through in one run: that is as fast as two or faster (HRNet: by a tenth).
        """
        most = self.engine.max_batch or len(batch)
        outputs = [self._run(batch[k : k + most]) for k in range(0, len(batch), most)]
        output = outputs[0] if len(outputs) == 1 else np.concatenate(outputs)
        half = len(output) // 2
        return (output[:half], output[half:]) if self.flip_test else (output, None)

    def _run(self, batch: np.ndarray) -> np.ndarray:
        """One run; an engine built for a fixed batch gets its last batch filled up with repeats."""
        missing = 0 if self.engine.dynamic_shape else self.engine.batch_size - len(batch)
        if missing > 0:
            return self.engine.run(np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]))[: len(batch)]
        return self.engine.run(batch)
