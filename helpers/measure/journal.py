"""What an evaluation has found so far, image by image, in a file that a stopped run leaves to the next.

    kept = Journal(paths.output() / "runs", decisive(built, estimator, dataset, image_ids, batch_size))
    done = evaluate.run(estimator, dataset, image_ids, batch_size, journal=kept)   # runs what is missing
    records.save(...)
    kept.finish()

One JSON object a line: first all that decides the result, then an image each, written as soon as it is decoded. The
file's name derives from the first line, so runs of anything else have files of their own. JSON has the exact value of
every float32, and batches are the ones of an uninterrupted run, so a run taken up again gives the same numbers, to the
last bit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping, Sequence

import numpy as np

from helpers import artifacts
from helpers.errors import DataError
from helpers.keypoints import COCO17
from helpers.measure import records
from helpers.pose.decode import Poses

if TYPE_CHECKING:
    from helpers.dataset import CocoDataset
    from helpers.pose.estimator import PoseEstimator, PoseResult

_FORMAT = 1  # to be counted up when poses change in a way that nothing else in the first line shows
_FINISHED = "finished"


def decisive(
    built: str | os.PathLike[str],
    estimator: PoseEstimator,
    dataset: CocoDataset,
    image_ids: Sequence[int],
    batch_size: int = 1,
) -> dict[str, Any]:
    """Everything that decides what an evaluation finds: two runs that agree in it find the same.

    Args:
        built: the built model, with its sidecar.
        estimator: with that model's engine.
        dataset: what is scored.
        image_ids: which images. Their content is noted with each of them.
        batch_size: most images in one run of the network, which may change the last bits.

    Returns:
        JSON types; the engine by the hash of its file, the annotations by that of theirs.

    Raises:
        DataError: the model or the annotations cannot be read.
    """
    engine = artifacts.read_sidecar(built)
    return {
        "format": _FORMAT,
        **{key: engine[key] for key in ("model", "weights", "backend", "precision")},
        "engine": engine["sha256"],
        "flip_test": estimator.flip_test,
        "input_size": estimator.input_size,
        "decoding": dataclasses.asdict(estimator.config),
        "batch_size": batch_size,
        "annotations": artifacts.sha256(dataset.annotation_file),
        "images": list(image_ids),
        "cpu": records.machine().get("cpu"),
        "versions": records.versions(),
    }


@dataclass(frozen=True)
class Result:
    """What was found in one image.

    Attributes:
        poses: the people.
        stage_ms: milliseconds in each of `estimator.STAGES`.
    """

    poses: Poses
    stage_ms: dict[str, float]


def to_line(outcome: PoseResult) -> dict[str, Any]:
    """What was found in an image as JSON types, which keep the exact value of every float32."""
    poses = outcome.poses
    return {
        "keypoints": poses.keypoints.tolist(),
        "scores": poses.scores.tolist(),
        "tags": poses.tags.tolist(),
        "tag_count": poses.tags.shape[1],
        "stage_ms": outcome.stage_ms,
    }


def from_line(line: Mapping[str, Any]) -> Result:
    """Reads what `to_line` made, equal to the last bit.

    Raises:
        KeyError, TypeError, ValueError: the line is damaged.
    """
    people = len(line["scores"])
    poses = Poses(
        keypoints=np.array(line["keypoints"], np.float32).reshape(people, len(COCO17.names), 3),
        scores=np.array(line["scores"], np.float32),
        tags=np.array(line["tags"], np.float32).reshape(people, line["tag_count"]),
    )
    return Result(poses, line["stage_ms"])


class Journal:
    """The results of one evaluation, in memory and in a file.

    Attributes:
        path: the file.
        finished: whether the earlier run that left it had come to its end.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        decides: Mapping[str, Any],
        resume: bool = False,
        fresh: bool = False,
    ) -> None:
        """Opens the file of a run, or begins it; an earlier run that stopped is gone on with.

        A last line that a killed process could not complete is cut off, and damaged ones do not count: those images
        run again.

        Args:
            folder: where such files are.
            decides: from `decisive`.
            resume: also take the results of an earlier run that finished, instead of running again.
            fresh: begin anew whatever there is.

        Raises:
            DataError: the file belongs to another run, or cannot be read or written.
        """
        first = json.dumps(decides, sort_keys=True)
        name = "_".join(str(decides[key]) for key in ("model", "weights", "backend", "precision"))
        digest = hashlib.sha256(first.encode()).hexdigest()[:12]
        self.path = Path(folder) / (re.sub(r"[^\w.-]+", "-", name) + f"_{digest}.jsonl")
        self.finished = False
        self._found: dict[int, tuple[str, Result]] = {}
        if self.path.exists() and not fresh:
            self._read(first)
        if not self._found or (self.finished and not resume):
            self._found, self.finished = {}, False
            with artifacts.atomic_write(self.path) as part:
                part.write_text(first + "\n", encoding="utf-8")

    def results(self, dataset: CocoDataset) -> dict[int, Result]:
        """What an earlier run found, by image id, in images whose file is still the same.

        Args:
            dataset: where the images are.

        Returns:
            Results equal to the last bit to those that were added.
        """
        return {k: result for k, (digest, result) in self._found.items() if digest == _digest(dataset.path(k))}

    def add(self, image_id: int, image: Path, outcome: PoseResult) -> None:
        """Keeps what was found in an image: from here on, a killed process does not lose it.

        Raises:
            DataError: it cannot be written; what was written before is not lost.
        """
        self.finished = False
        self._append({"image_id": image_id, "image_sha256": _digest(image), **to_line(outcome)})

    def finish(self) -> None:
        """Notes that everything made from the results is saved: the next run of the same will begin anew."""
        if not self.finished:
            self._append({_FINISHED: records.now()})
            self.finished = True

    def _append(self, line: Mapping[str, Any]) -> None:
        data = (json.dumps(line) + "\n").encode()
        try:
            with self.path.open("ab", buffering=0) as file:
                written = file.write(data)
                if written < len(data):  # the disk is full; the second try says so
                    file.write(data[written:])
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror}; what it holds is kept.") from error

    def _read(self, first: str) -> None:
        """Takes up the file of an earlier run, after cutting off a line without an end."""
        try:
            data = self.path.read_bytes()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                os.truncate(str(self.path), whole)
        except OSError as error:
            raise DataError(f"{self.path} cannot be used: {error.strerror}; correct that, or remove it.") from error
        if not whole:  # nothing in it
            return
        head, *rest = data[:whole].rstrip(b"\n").split(b"\n")
        if head != first.encode():
            raise DataError(f"{self.path} is not of this run; remove it, or give --fresh.")
        for text in rest:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a damaged line
                line = json.loads(text.decode("utf-8"))
                self.finished = _FINISHED in line
                if not self.finished:
                    self._found[line["image_id"]] = line["image_sha256"], from_line(line)


def _digest(image: Path) -> str:
    """The hash of an image's file; of one that cannot be read there is none, and running it will say why."""
    try:
        return artifacts.sha256(image)
    except DataError:
        return ""
