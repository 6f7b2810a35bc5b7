"""A video in, the same video with skeletons out, frame by frame: memory does not grow with its length.

    done = annotate("walk.mov", "walk_poses.mp4", PoseEstimator(engine), draw.draw_poses)
    print(done)          # walk_poses.mp4: 250 frames, 4.1 per second (it plays at 25 per second)

OpenCV turns frames upright as the file says, and writes VP9 in MP4, which browsers play. The sound is lost.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterable, Iterator

import cv2
import numpy as np

from helpers.artifacts import atomic_write
from helpers.errors import DataError
from helpers.images import opencv_silenced

if TYPE_CHECKING:
    from helpers.pose.decode import Poses
    from helpers.pose.estimator import PoseEstimator, PoseResult

SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ts"))
_CODECS = ("vp09", "mp4v")  # browsers do not play the second, which every build of OpenCV writes
_USUAL_FPS = 25.0  # where the file does not say
_FFMPEG_LOG_LEVEL = "OPENCV_FFMPEG_LOGLEVEL"


@dataclass(frozen=True)
class Annotated:
    """What became of a video."""

    path: Path  # the drawn one; the one that was read if none was drawn
    frames: int  # that were read
    announced: int  # by the file, 0 if it does not say; more than `frames` if it is cut short
    fps: float  # frames per second of playing
    wall_s: float  # seconds that it all took

    def __str__(self) -> str:
        """One line."""
        cut = f" of {self.announced} announced" if self.announced > self.frames else ""
        speed = f"{self.frames / self.wall_s:.1f} per second"
        return f"{self.path.name}: {self.frames} frames{cut}, {speed} (it plays at {self.fps:.4g} per second)"


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether a file's name ends like that of a video."""
    return Path(path).suffix.lower() in SUFFIXES


def annotate(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str] | None,
    estimator: PoseEstimator,
    draw: Callable[[np.ndarray, Poses], np.ndarray],
    batch_size: int = 1,
    each: Callable[[int, float, PoseResult], object] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Annotated:
    """Finds the people in every frame and writes the drawn video, complete or not at all.

    No more frames are in memory than the estimator is ahead, `batch_size` * 12.

    Args:
        target: the drawn video, `.mp4`; None to draw none.
        draw: (frame (H, W, 3) uint8 BGR, its poses) -> drawn frame of the same size, such as `draw.draw_poses`.
        each: called for every frame with its index, its second in the video, and its result.
        progress: called after every frame with (done, all); all is 0 if the file does not say.

    Raises:
        DataError: a video cannot be read or written, or a frame does not have the shape the engine was built for.
    """
    start, done, waiting = time.perf_counter(), 0, deque()
    with _opened(source) as capture:
        announced, fps = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0), capture.get(cv2.CAP_PROP_FPS)
        fps = fps if 0 < fps <= 1000 else _USUAL_FPS

        def drawn() -> Iterator[np.ndarray]:
            nonlocal done
            for result in estimator.stream(_taken(capture, waiting), batch_size):
                frame = waiting.popleft()
                if result.poses is None:
                    raise DataError(result.error.replace(result.name, f"{source}, frame {done}"))
                if each is not None:
                    each(done, done / fps, result)
                yield frame if target is None else draw(frame, result.poses)
                done += 1
                if progress is not None:
                    progress(done, announced)
            _refuse_none(done, source)

        if target is None:
            deque(drawn(), maxlen=0)
        else:
            _write(drawn(), Path(target), fps)
    return Annotated(Path(source if target is None else target), done, announced, fps, time.perf_counter() - start)


def pan(image: np.ndarray, target: str | os.PathLike[str], frames: int = 8) -> Path:
    """Makes a video, `.mp4`, of one BGR image, a second long: its left three quarters, moving to the right ones."""
    width = 3 * image.shape[1] // 4
    lefts = np.linspace(0, image.shape[1] - width, frames).round().astype(int)
    _write((image[:, left : left + width] for left in lefts), Path(target), float(frames))
    return Path(target)


def stills(path: str | os.PathLike[str], count: int) -> list[np.ndarray]:
    """Returns frames spread evenly over a video, (H, W, 3) uint8 BGR each; all if there are no more than `count`."""
    with _opened(path) as capture:
        total = sum(1 for _ in iter(capture.grab, False))
    _refuse_none(total, path)
    wanted = set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())
    with _opened(path) as capture:
        return [frame for index, frame in enumerate(_taken(capture, deque(maxlen=1))) if index in wanted]


def _refuse_none(frames: int, path: str | os.PathLike[str]) -> None:
    if not frames:
        raise DataError(f"The video {path} holds no frame; copy it again, or convert it to MP4.")


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[cv2.VideoCapture]:
    """Opens a video to read it."""
    try:
        Path(path).open("rb").close()  # OpenCV does not say why it cannot
    except OSError as error:
        raise DataError(f"Cannot read the video {path}: {error.strerror}; check the path.") from error
    with _silenced():
        capture = cv2.VideoCapture(str(Path(path).absolute()), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise DataError(f"The video {path} is damaged or not a video; copy it again, or convert it to MP4.")
        yield capture
    finally:
        capture.release()


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Keeps OpenCV and FFmpeg from writing to standard error while a video is opened."""
    ours = _FFMPEG_LOG_LEVEL not in os.environ
    if ours:  # OpenCV reads it once, at the first video of a process
        os.environ[_FFMPEG_LOG_LEVEL] = "-8"
    try:
        with opencv_silenced():
            yield
    finally:
        if ours:
            os.environ.pop(_FFMPEG_LOG_LEVEL, None)


def _taken(capture: cv2.VideoCapture, waiting: deque[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the frames one by one; each is also queued for the painter."""
    while True:
        there, frame = capture.read()
        if not there:
            return
        waiting.append(frame)
        yield frame


def _write(frames: Iterable[np.ndarray], target: Path, fps: float) -> None:
    """Writes a video of the size of its first frame, rounded up to even numbers, since codecs halve the colors."""
    writer = None
    with atomic_write(target) as part:
        try:
            for frame in frames:
                if writer is None:
                    height, width = (side + side % 2 for side in frame.shape[:2])
                    writer = _writer(part, target, fps, (width, height))
                writer.write(_fitted(frame, width, height))
        finally:
            if writer is not None:
                writer.release()  # before the file gets its name


def _fitted(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """Brings a frame to the video's size: the writer would drop another one, in silence."""
    below, right = height - frame.shape[0], width - frame.shape[1]
    if below in (0, 1) and right in (0, 1):
        return cv2.copyMakeBorder(frame, 0, below, 0, right, cv2.BORDER_REPLICATE)
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)


def _writer(part: Path, target: Path, fps: float, size: tuple[int, int]) -> cv2.VideoWriter:
    for codec in _CODECS:
        with _silenced():
            writer = cv2.VideoWriter(str(part), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), fps, size)
        if writer.isOpened():
            return writer
    raise DataError(f"{target} cannot be written as a video; give it a name that ends in .mp4.")
