"""Images in, poses out: preprocessing, the engine, the flip test and decoding in one callable.

    engine = backends.get("onnxruntime").load(path)
    estimator = PoseEstimator(engine)
    [poses] = estimator([image])                       # (H, W, 3) uint8 BGR
    for result in estimator.stream(paths, batch_size=8): ...

Images of one padded shape share a batch, so a batch size above one works on a mixed folder too. While the engine runs
one batch, other threads prepare the next ones and decode those before, a limited number ahead.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Iterable, Iterator, Union

import cv2
import numpy as np

from helpers.errors import DataError, UsageError
from helpers.images import read_image
from helpers.pose import decode
from helpers.pose.decode import OFFICIAL, DecodeConfig, Poses, decode_poses
from helpers.pose.preprocess import ResizeTransform, resize_align, to_input

if TYPE_CHECKING:
    from helpers.backends.base import Engine

ImageLike = Union[str, "os.PathLike[str]", np.ndarray]  # a file, or (H, W, 3) uint8 BGR

STAGES = ("load", "pre", "infer", "decode")
_WINDOW = 4  # batches sorted by shape together: more fill batches better, fewer need less memory
_WINDOWS_AHEAD = 3  # windows on their way at once, the one that is being handed out included
_BATCHES_AHEAD = 2  # batches of network input and output in memory at once: one is run, one is made or decoded


@dataclass
class PoseResult:
    """What became of one image."""

    name: str  # the file's path, or "image 3" for the fourth array
    poses: Poses | None = None  # None if there is an error
    error: str = ""  # why there are no poses, one sentence
    stage_ms: dict[str, float] = field(default_factory=dict)  # this image's share in each of `STAGES`


@dataclass
class _Item:
    """An image on its way through the stages."""

    result: PoseResult
    resized: np.ndarray | None = None  # (h, w, 3) uint8, until it is in a batch or has failed
    transform: ResizeTransform | None = None
    decoding: Future | None = None  # done when the poses are in the result
    fault: Exception | None = None  # not of the image's data: to be raised when it is the image's turn

    def fail(self, error: Exception) -> None:
        """Ends the item: a `DataError` becomes its result, anything else stops the stream. Both name the image."""
        self.resized = None
        name, text = self.result.name, str(error)
        text = text if name in text else f"{name}: {text}"
        if isinstance(error, DataError):
            self.result.error = text
        elif isinstance(error, UsageError):
            self.fault = UsageError(text)
        else:
            self.fault = RuntimeError(f"{text} ({type(error).__name__})")
            self.fault.__cause__ = error


@contextlib.contextmanager
def _timed(items: list[_Item], stage: str) -> Iterator[None]:
    """Adds an equal share of the time that the block takes to each item."""
    start = time.perf_counter()
    yield
    share = (time.perf_counter() - start) * 1e3 / len(items)
    for item in items:
        item.result.stage_ms[stage] = item.result.stage_ms.get(stage, 0.0) + share


class _Threads:
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
    """Finds people and their 17 COCO keypoints in images.

    Args:
        flip_test: also run the flipped image and average, as the official accuracy figures do; twice the time.
        input_size: short side of the network's input in pixels.
    """

    def __init__(
        self, engine: Engine, flip_test: bool = True, input_size: int = 512, config: DecodeConfig = OFFICIAL
    ) -> None:
        self.engine = engine
        self.flip_test = flip_test
        self.input_size = input_size
        self.config = config
        self._compiling: threading.Thread | None = None

    def __call__(self, images: Iterable[ImageLike], batch_size: int = 1) -> list[Poses]:
        """Returns the people in each image, in its pixels; takes and raises what `stream` does.

        Raises:
            DataError: an image cannot be read, does not have the shape the engine was built for, or makes the network's
                output not finite; names the image.
        """
        found = []
        for result in self.stream(images, batch_size):
            if result.poses is None:
                raise DataError(result.error)
            found.append(result.poses)
        return found

    def stream(self, images: Iterable[ImageLike], batch_size: int = 1) -> Iterator[PoseResult]:
        """Like calling, but yields results in order as they come, and goes on after an image that cannot be read.

        Images are taken from `images`, which may be endless, in the caller's thread, at most `batch_size` * 12 ahead of
        what was yielded. Leaving the loop early ends the threads after at most one run of the engine.

        Args:
            batch_size: most images in one run of the network; flipped images come on top.

        Raises:
            UsageError: `batch_size` is below 1, or an array is not a BGR image.
            RuntimeError: a stage failed for another reason than the image's data; names the image.
        """
        if batch_size < 1:
            raise UsageError(f"The batch size must be 1 or more, not {batch_size}.")
        return self._stream(enumerate(images), self._batch_size(batch_size))

    def window(self, batch_size: int = 1) -> int:
        """Returns how many consecutive images form batches among themselves.

        A list cut at multiples of it gives the same batches, so the same bits, in two runs as in one.
        """
        size = self._batch_size(batch_size)
        return size * _WINDOW if size > 1 else 1

    def _batch_size(self, batch_size: int) -> int:
        """Returns the most images in one run: as asked for, unless the engine was built for a number."""
        if self.engine.dynamic_shape:
            return batch_size
        return max(self.engine.batch_size // (2 if self.flip_test else 1), 1)

    def _stream(self, images: Iterator[tuple[int, ImageLike]], batch_size: int) -> Iterator[PoseResult]:
        """Keeps windows of images on their way, and hands out the oldest."""
        if self._compiling is None:  # half a minute the first time; until then NumPy decodes, to the same poses
            self._compiling = threading.Thread(target=decode.warm_up, daemon=True)
            self._compiling.start()
        windows: deque[Future] = deque()
        length = self.window(batch_size)
        with contextlib.closing(_Threads()) as threads:
            while True:
                while len(windows) < (_WINDOWS_AHEAD if length > 1 else _WINDOWS_AHEAD * _WINDOW):
                    taken = list(itertools.islice(images, length))
                    if not taken:
                        break
                    loading = [threads.load.submit(self._prepare, threads, image, k) for k, image in taken]
                    windows.append(threads.assemble.submit(self._assemble, threads, loading, batch_size))
                if not windows:
                    return
                for item in windows.popleft().result():
                    if item.decoding is not None:
                        item.decoding.result()
                    if item.fault is not None:
                        raise item.fault
                    yield item.result

    def maps(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, ResizeTransform]:
        """Runs the network on one image, (H, W, 3) uint8 BGR, for a look inside.

        Returns what `decode_poses` takes: the output, (34, h, w) float32, that of the flipped image, or None without
        flip test, and the way back to the image.
        """
        resized, transform = resize_align(image, self.input_size)
        self._refuse_shape(resized, "The image")
        [output], flipped = self._infer(self._batch([resized]))
        return output, None if flipped is None else flipped[0], transform

    def _refuse_shape(self, resized: np.ndarray, name: str) -> None:
        """Refuses other shapes than the one that an engine was built for."""
        shape = resized.shape[:2]
        if not self.engine.dynamic_shape and shape != self.engine.input_shape:
            raise DataError(
                f"{name} fills an input of {shape[0]} x {shape[1]} (height x width), but the engine was built for "
                f"{self.engine.input_shape[0]} x {self.engine.input_shape[1]} only; build a dynamic one."
            )

    # Stages, each in a thread of its own.

    def _prepare(self, threads: _Threads, image: ImageLike, index: int) -> _Item:
        """Loads and resizes one image."""
        is_array = isinstance(image, np.ndarray)
        item = _Item(PoseResult(f"image {index}" if is_array else str(image)))
        if threads.closed.is_set():
            return item
        try:
            with _timed([item], "load"):
                pixels = image if is_array else read_image(Path(os.fspath(image)))
            with _timed([item], "pre"):
                item.resized, item.transform = resize_align(pixels, self.input_size)
                self._refuse_shape(item.resized, item.result.name)
        except Exception as error:  # whatever it is, it belongs to this image and comes up at its turn
            item.fail(error)
        return item

    def _assemble(self, threads: _Threads, loading: list[Future], batch_size: int) -> list[_Item]:
        """Makes batches of a window of images and sends them on."""
        items = [future.result() for future in loading]
        by_shape: dict[tuple[int, ...], list[_Item]] = {}
        for item in items:
            if item.resized is not None:
                by_shape.setdefault(item.resized.shape, []).append(item)
        for alike in by_shape.values():
            for k in range(0, len(alike), batch_size):
                if len(threads.unfinished) == _BATCHES_AHEAD:
                    threads.unfinished.popleft().result()
                if threads.closed.is_set():
                    return []
                chosen = alike[k : k + batch_size]
                with _timed(chosen, "pre"):
                    batch = self._batch([item.resized for item in chosen])
                running = threads.run.submit(self._run_batch, threads, chosen, batch)
                decoded = threads.decode.submit(self._decode_batch, threads, chosen, running)
                threads.unfinished.append(decoded)
                for item in chosen:
                    item.resized, item.decoding = None, decoded
        return items

    def _run_batch(
        self, threads: _Threads, items: list[_Item], batch: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None] | None:
        """Runs the network on a batch; None if it failed, which is then known to its items."""
        if threads.closed.is_set():
            return None
        try:
            with _timed(items, "infer"):
                return self._infer(batch)
        except Exception as error:  # out of memory on a panorama, say: the other images go on
            for item in items:
                item.fail(error)
            return None

    def _decode_batch(self, threads: _Threads, items: list[_Item], running: Future) -> None:
        """Fills in the poses of a batch."""
        outputs = running.result()
        if outputs is None:
            return
        for k, item in enumerate(items):
            if threads.closed.is_set():
                return
            output, flipped = (None if half is None else half[k] for half in outputs)
            try:
                with _timed([item], "decode"):
                    item.result.poses = decode_poses(output, flipped, item.transform, self.config)
            except Exception as error:
                item.fail(error)

    def _batch(self, resized: list[np.ndarray]) -> np.ndarray:
        """Makes the network's input of N images of one shape; with the flip test, the flipped images follow."""
        if self.flip_test:  # as bytes: with `to_input`, 0.7 ms for both of 512 x 704, instead of 9 as floats
            resized = [*resized, *(cv2.flip(image, 1) for image in resized)]
        return np.stack(resized) if self.engine.input_type == "uint8" else to_input(resized)

    def _infer(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the outputs of N images, and of the flipped ones, (N, 34, h, w) each.

        An image and its flipped one go through in one run: that is as fast as two or faster (HRNet: by a tenth).
        """
        most = self.engine.max_batch or len(batch)
        outputs = [self._run(batch[k : k + most]) for k in range(0, len(batch), most)]
        output = outputs[0] if len(outputs) == 1 else np.concatenate(outputs)
        half = len(output) // 2
        return (output[:half], output[half:]) if self.flip_test else (output, None)

    def _run(self, batch: np.ndarray) -> np.ndarray:
        """Runs the engine once; one built for a fixed batch gets its last batch filled up with repeats."""
        missing = 0 if self.engine.dynamic_shape else self.engine.batch_size - len(batch)
        if missing > 0:
            return self.engine.run(np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]))[: len(batch)]
        return self.engine.run(batch)
