"""Images and videos of any number -> poses, as JSON, as drawn images and as drawn videos.

    files = infer.with_targets(infer.sources([Path("photos"), Path("walk.mp4")]), folder)
    with infer.pose_lines(folder) as keep:
        for failure in infer.run(estimator, files, keep): ...

Results are written as they come: what is finished is never lost.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Callable, Iterable, Iterator

import cv2

from helpers import artifacts, scale_out
from helpers.errors import DataError, UsageError
from helpers.images import list_images, read_image
from helpers.pose import video
from helpers.pose.estimator import PoseEstimator
from helpers.show import draw

if TYPE_CHECKING:
    from helpers.pose.estimator import PoseResult
    from helpers.scale_out import Fleet

    Keep = Callable[[dict[str, Any]], None]  # takes the entry of an image or of a frame


def sources(given: Iterable[Path]) -> Iterator[Path]:
    """Yields the files that folders hold and lists (`x.txt`, one image a line) name, or that are given themselves."""
    for path in given:
        if path.is_dir():
            yield from list_images(path)
        elif path.suffix == ".txt":
            yield from scale_out.read_list(path)
        else:
            yield path


def with_targets(files: Iterable[Path], folder: Path | None) -> Iterable[tuple[Path, Path | None]]:
    """Pairs each file with the one to be drawn from it: its own name where that is free, else `x_2.png`.

    Args:
        files: images and videos; read as it goes if nothing is drawn.
        folder: for what is drawn; None draws nothing.

    Raises:
        UsageError: what is drawn would replace a file that is read.
    """
    if folder is None:
        return zip(files, itertools.repeat(None))
    files, targets = list(files), {}
    for file in files:
        suffix = ".mp4" if video.is_video(file) else ".png"
        stems = itertools.chain([file.stem], (f"{file.stem}_{count}" for count in itertools.count(2)))
        targets[next(folder / (stem + suffix) for stem in stems if folder / (stem + suffix) not in targets)] = None
    clash = {target.resolve() for target in targets} & {file.resolve() for file in files}
    if clash:
        raise UsageError(f"--out {folder} would overwrite {min(clash)}; choose another folder")
    return list(zip(files, targets))


def run(
    estimator: PoseEstimator | Fleet,
    files: Iterable[tuple[Path, Path | None]],
    keep: Keep,
    batch_size: int = 1,
    say: Callable[[str], object] = lambda text: None,
    progress: Callable[[int, int], None] | None = None,
    note: str = "",
) -> Iterator[str]:
    """Finds people in images and videos.

    Args:
        estimator: ready to run. A `Fleet` takes images only.
        files: from `with_targets`.
        keep: takes an entry as JSON types for each image and for each frame of a video.
        batch_size: most images in one run of the network.
        say: takes a line about each finished file.
        progress: takes (frames done, frames of the video).
        note: stands in the place of times that mean nothing, those of a simulator.

    Yields:
        For each file why it failed, in one sentence, or an empty string.

    Raises:
        UsageError: there is a video, and several devices.
    """
    for moving, group in itertools.groupby(files, lambda item: video.is_video(item[0])):
        if not moving:
            yield from _run_images(estimator, group, keep, batch_size, say, note)
            continue
        if not isinstance(estimator, PoseEstimator):
            raise UsageError("a video goes through one device; leave out --devices, or give images")
        for file, target in group:
            try:
                say(str(_run_video(estimator, file, target, keep, batch_size, progress, note)))
                yield ""
            except DataError as error:
                yield str(error)


def _run_images(
    estimator: PoseEstimator | Fleet,
    group: Iterator[tuple[Path, Path | None]],
    keep: Keep,
    batch_size: int,
    say: Callable[[str], object],
    note: str,
) -> Iterator[str]:
    """Runs consecutive images; the estimator reads ahead."""
    behind, ahead = itertools.tee(group)
    for (_, target), result in zip(behind, estimator.stream((file for file, _ in ahead), batch_size)):
        if result.poses is None:
            yield result.error
            continue
        keep(_entry({"image": result.name}, result, note))
        if target is not None:
            drawn = draw.draw_poses(read_image(result.name), result.poses)
            with artifacts.atomic_write(target) as part:
                cv2.imencode(".png", drawn)[1].tofile(str(part))
        count = len(draw.confident(result.poses))
        time = note or f"{sum(result.stage_ms.values()):.0f} ms"
        say(f"{result.name}: {count} {'person' if count == 1 else 'people'}, {time}")
        yield ""


def _run_video(
    estimator: PoseEstimator,
    file: Path,
    target: Path | None,
    keep: Keep,
    batch_size: int,
    progress: Callable[[int, int], None] | None,
    note: str,
) -> video.Annotated:
    """Runs a video, an entry for each frame."""

    def each(frame: int, second: float, result: PoseResult) -> None:
        keep(_entry({"video": str(file), "frame": frame, "second": round(second, 3)}, result, note))

    return video.annotate(file, target, estimator, draw.draw_poses, batch_size, each, progress)


def _entry(where: dict[str, Any], result: PoseResult, note: str) -> dict[str, Any]:
    """Describes the people of an image, or of a frame, which `where` says."""
    people = [
        {"score": float(score), "keypoints": points.tolist()}
        for score, points in zip(result.poses.scores, result.poses.keypoints)
    ]
    return {**where, "people": people, **({"note": note} if note else {"stage_ms": result.stage_ms})}


@contextlib.contextmanager
def pose_lines(out: Path | None, target: IO[str] | None = None) -> Iterator[Keep]:
    """Lends a function that keeps an entry: at once as a line of JSON, at the end as a list.

    Args:
        out: a `.jsonl` file for the lines alone; or a folder, in which `poses.json` takes the place of the lines at the
            end, also of those that an interrupted run has written; None keeps nothing.
        target: where the list is written to as well.
    """
    in_folder = out is not None and out.suffix != ".jsonl"
    with tempfile.TemporaryDirectory() as temporary:
        lines = out / "poses.jsonl" if in_folder else out or Path(temporary) / "poses.jsonl"
        lines.parent.mkdir(parents=True, exist_ok=True)
        try:
            with lines.open("w", encoding="utf-8") as file:
                yield lambda entry: print(json.dumps(entry), file=file, flush=True)
        finally:
            if target is not None:
                _write_list(lines, target)
            if in_folder:
                with artifacts.atomic_write(out / "poses.json") as part, part.open("w", encoding="utf-8") as whole:
                    _write_list(lines, whole)
                lines.unlink()


def _write_list(lines: Path, target: IO[str]) -> None:
    """Copies lines of JSON as one list; never more than a line is in memory."""
    target.write("[")
    with lines.open(encoding="utf-8") as file:
        for index, line in enumerate(file):
            target.write((",\n" if index else "") + line.rstrip("\n"))
    target.write("]\n")
