"""Images of a dataset -> poses -> COCO's ten keypoint numbers and its results file.

    kept = Journal(paths.output() / "runs", fingerprint(engine, estimator, dataset, image_ids))
    done = run(estimator, dataset, image_ids, journal=kept)     # Evaluation: poses, failures, times, stats
    kept.finish()                                               # once everything made from it is saved
    stats = evaluate({image_id: poses, ...}, dataset, image_ids)     # poses from elsewhere
    resampled_ap({"float32": poses, "int8": others}, dataset, image_ids)   # how far AP depends on the sample
    save_results("results.json", to_coco_results(done.poses, dataset.category_id))

The numbers are those of mmpose 0.29.0's `BottomUpCocoDataset.evaluate` for the same poses: see
tests/parity/test_evaluate.py. The official configs ask for no suppression of overlapping people, so there is none here;
pycocotools itself takes the 20 best people of an image.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Callable, Mapping, Sequence

import numpy as np

from helpers import artifacts
from helpers.dataset import CocoDataset, GroundTruth
from helpers.errors import DataError, UsageError
from helpers.keypoints import COCO17
from helpers.measure.machine import machine, now, versions
from helpers.pose.decode import Poses
from helpers.pose.estimator import PoseResult

if TYPE_CHECKING:
    from types import TracebackType

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from helpers.backends.base import Engine
    from helpers.pose.estimator import PoseEstimator

STAT_NAMES = ("AP", "AP .5", "AP .75", "AP (M)", "AP (L)", "AR", "AR .5", "AR .75", "AR (M)", "AR (L)")
_SMALLEST = 32.0**2  # square pixels: COCO's keypoints are of people from this size on

# What may change a network's output or what is found in it, beside the library that runs it (as pip knows that).
_DECISIVE_PACKAGES = ("numpy", "opencv-python-headless", "opencv-python")
_PACKAGE_OF = {"pytorch": "torch"}
_FORMAT = 2  # of a journal; to be counted up when poses change in a way that nothing else in its first line shows
_FINISHED = "finished"


@dataclass(frozen=True)
class CocoStats:
    """What a COCO keypoint evaluation gave, and how much it was measured on.

    Attributes:
        numbers: the ten numbers, 0..1, under the names and in the order of `STAT_NAMES`; `None` where there
            was nobody to measure on, for instance `AP (L)` of images without large people.
        images: images that were scored, those without people included.
        dataset_images: images that the dataset has.
        people: annotated people in the scored images.
        detections: people that were found in them.
    """

    numbers: dict[str, float | None]
    images: int
    dataset_images: int
    people: int
    detections: int

    @property
    def scope(self) -> str:
        """What the numbers stand for, to be printed beside them: '200 of 5000 images, 431 people'."""
        return f"{self.images} of {self.dataset_images} images, {self.people} people"

    def __str__(self) -> str:
        """One number per line, then the scope."""
        shown = {name: "-" if value is None else f"{value:.4f}" for name, value in self.numbers.items()}
        return "\n".join([*(f"{name:<7} {value}" for name, value in shown.items()), f"({self.scope})"])


@dataclass(frozen=True)
class Evaluation:
    """A model run over images of a dataset, and its score.

    Attributes:
        image_ids: which images.
        poses: image id -> the people found; images that could not be read are absent.
        failures: one sentence for each image that could not be read or decoded.
        stage_ms: mean milliseconds per image in each of `estimator.STAGES`.
        stats: the ten numbers. A failed image counts: its people were not found.
        taken_up: what an earlier run had done already, one sentence; empty if nothing.
    """

    image_ids: list[int]
    poses: dict[int, Poses]
    failures: list[str]
    stage_ms: dict[str, float]
    stats: CocoStats
    taken_up: str = ""

    def summary(self) -> str:
        """What was run and how long it took, one line; then what an earlier run had done, and one line per failure."""
        total = sum(self.stage_ms.values())
        stages = ", ".join(f"{stage} {ms:.0f}" for stage, ms in self.stage_ms.items())
        head = f"{self.stats.scope}: {self.stats.detections} found, {total:.0f} ms per image ({stages})"
        taken_up = [self.taken_up] if self.taken_up else []
        return "\n".join([head, *taken_up, *(f"failed: {reason}" for reason in self.failures)])


def run(
    estimator: PoseEstimator,
    dataset: CocoDataset,
    image_ids: Sequence[int],
    batch_size: int = 1,
    progress: Callable[[int, int], None] | None = None,
    journal: Journal | None = None,
) -> Evaluation:
    """Finds the people in images of a dataset and scores them.

    Args:
        estimator: ready to run.
        dataset: images and annotations.
        image_ids: which images.
        batch_size: most images in one run of the network.
        progress: called with (done, all) after every image, and at once if an earlier run has done some.
        journal: what an earlier run of the same found, which is taken over, and where this one keeps what it finds.
            Images that failed are tried again.

    Raises:
        UsageError: no image.
        DataError: not one image could be used; or the journal cannot be written, or another process writes it.
    """
    with journal or contextlib.nullcontext():
        results, failures, taken_up = _results(estimator, dataset, image_ids, batch_size, progress, journal)
    times = [result.stage_ms for result in results.values()]
    stage_ms = {stage: float(np.mean([t[stage] for t in times])) for stage in (times[0] if times else ())}
    poses = {image_id: result.poses for image_id, result in results.items()}
    return Evaluation(list(image_ids), poses, failures, stage_ms, evaluate(poses, dataset, image_ids), taken_up)


def _results(
    estimator: PoseEstimator,
    dataset: CocoDataset,
    image_ids: Sequence[int],
    batch_size: int,
    progress: Callable[[int, int], None] | None,
    journal: Journal | None,
) -> tuple[dict[int, PoseResult], list[str], str]:
    """Results by image id, failures, and what was taken over; the arguments are those of `run`."""
    found = {} if journal is None else journal.results(dataset)
    missing = _missing(image_ids, found, estimator.window(batch_size))
    done = len(image_ids) - len(missing)
    ended = "finished" if journal is not None and journal.finished else "stopped"
    taken_up = f"{done} of {len(image_ids)} images from an earlier run that {ended}" if done else ""
    if done and progress is not None:
        progress(done, len(image_ids))
    failures: list[str] = []
    stream = estimator.stream((dataset.path(image_id) for image_id in missing), batch_size)
    for image_id, result in zip(missing, stream):
        if result.poses is None:
            found.pop(image_id, None)
            failures.append(result.error)
        else:
            found[image_id] = result
            if journal is not None:
                journal.add(image_id, dataset.path(image_id), result)
        done += 1
        if progress is not None:
            progress(done, len(image_ids))
    if failures and not found:
        raise DataError(f"Not one of {len(failures)} images could be used; the first: {failures[0]}")
    return {image_id: found[image_id] for image_id in image_ids if image_id in found}, failures, taken_up


def evaluate(poses_by_image_id: Mapping[int, Poses], dataset: CocoDataset, image_ids: Sequence[int]) -> CocoStats:
    """Scores poses with pycocotools.

    Every image in `image_ids` counts: one without poses loses all its people, one without people makes
    mistakes of all its poses. Poses of other images are left out.

    Args:
        poses_by_image_id: poses in pixels of the original images; of an absent image nobody was found.
        dataset: the annotations.
        image_ids: the images that were run.

    Returns:
        The ten numbers with their scope.

    Raises:
        UsageError: no image, an image that the dataset does not have, or pycocotools is not installed.
    """
    image_ids = _some(image_ids)
    people = sum(len(dataset.people(image_id)) for image_id in image_ids)
    results = _results_of(poses_by_image_id, dataset, image_ids)
    return CocoStats(
        numbers=_score(results, dataset, image_ids),
        images=len(image_ids),
        dataset_images=len(dataset),
        people=people,
        detections=len(results),
    )


def resampled_ap(
    runs: Mapping[str, Mapping[int, Poses]],
    dataset: CocoDataset,
    image_ids: Sequence[int],
    rounds: int = 200,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """AP on samples of the images drawn with replacement (Efron's bootstrap): how much chance is in a figure.

    All runs are scored on the same samples, so the spread of the *difference* of two can be taken round by round. It
    is smaller than that of either: an image that is hard for one precision is hard for the other.

    Args:
        runs: label -> image id -> poses.
        dataset: the annotations.
        image_ids: the images that were run.
        rounds: number of samples.
        seed: of the samples.

    Returns:
        Label -> (rounds,) float64 AP; NaN for a sample without annotated people.

    Raises:
        UsageError: no image, an image that the dataset does not have, or pycocotools is not installed.
    """
    image_ids = _some(image_ids)
    chosen = np.random.default_rng(seed).integers(0, len(image_ids), (rounds, len(image_ids)))
    found = {}
    for label, poses in runs.items():
        with _quietly():
            scorer = _matched(_results_of(poses, dataset, image_ids), dataset, image_ids)
            by_image = scorer.evalImgs[: len(image_ids)]  # areas x images, for the one category; the first: any area
            for params in (scorer.params, scorer._paramsEval):
                params.imgIds = list(range(len(image_ids)))  # places, to occur again
                params.areaRng = params.areaRng[:1]
            found[label] = np.array([_resampled(scorer, [by_image[k] for k in row]) for row in chosen])
    return found


def interval(values: np.ndarray) -> tuple[float, float]:
    """The two values between which 95 % of (rounds,) values of `resampled_ap`, or of differences of them, lie."""
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)


def to_coco_results(poses_by_image_id: Mapping[int, Poses], category_id: int = 1) -> list[dict[str, Any]]:
    """Writes poses as the list that COCO's results format and its evaluation server ask for.

    As mmpose 0.29.0 (mmpose/datasets/datasets/bottom_up/bottom_up_coco.py): the person's score is the
    decoder's, the third number of a joint is its score, `bbox` spans all 17 joints, and its area is the size
    by which COCO sorts unmatched people into medium and large. The `center` and `scale` that mmpose's
    top-down datasets write have no meaning here. A person without a joint of positive score is left out, as
    by xtcocotools, with which mmpose scores.

    Args:
        poses_by_image_id: per image keypoints (P, 17, 3) float32 and scores (P,) float32.
        category_id: the file's number for "person"; 1 in COCO.

    Returns:
        One dict of JSON types per person: `image_id, category_id, keypoints (51), score, bbox (4)`.
    """
    return [
        {
            "image_id": int(image_id),
            "category_id": category_id,
            "keypoints": keypoints.ravel().tolist(),
            "score": float(score),
            "bbox": [*keypoints[:, :2].min(axis=0).tolist(), *np.ptp(keypoints[:, :2], axis=0).tolist()],
        }
        for image_id, poses in poses_by_image_id.items()
        for keypoints, score in zip(poses.keypoints, poses.scores)
        if (keypoints[:, 2] > 0).any()
    ]


def save_results(path: str | os.PathLike[str], results: Sequence[Mapping[str, Any]]) -> Path:
    """Writes a results list as JSON; the file is either complete or not there."""
    with artifacts.atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(results), encoding="utf-8")
    return Path(path)


def save_pickle(path: str | os.PathLike[str], poses_by_image_id: Mapping[int, Poses], dataset: CocoDataset) -> Path:
    """Writes poses as mmpose 0.29.0's `tools/test.py --out x.pkl`, and so the sample, does. Never read back here.

    A list with one dict per image: `preds`, list of (17, 3 + L) float32 arrays (x, y, joint score, tags), `scores`,
    list of person scores, `image_paths`, list of the one path, and `output_heatmap`, None. mmpose's
    `BottomUpCocoDataset.evaluate` takes it. mmpose has a tag per joint there; we keep those of persons, and give each
    joint its person's.

    Args:
        path: the file, which is either complete or not there.
        poses_by_image_id: per image keypoints (P, 17, 3), scores (P,) and tags (P, L), float32.
        dataset: where the images are.
    """
    outputs = [
        {
            "preds": [_with_tags(points, tags) for points, tags in zip(poses.keypoints, poses.tags)],
            "scores": [float(score) for score in poses.scores],
            "image_paths": [str(dataset.path(image_id))],
            "output_heatmap": None,
        }
        for image_id, poses in poses_by_image_id.items()
    ]
    with artifacts.atomic_write(path) as unfinished:
        unfinished.write_bytes(pickle.dumps(outputs, protocol=4))
    return Path(path)


def oks(predicted: np.ndarray, truth: np.ndarray, area: np.ndarray | float) -> np.ndarray:
    """Object keypoint similarity: 1 for a perfect pose, near 0 for a pose of somebody else.

    The mean over labelled joints of exp(-d^2 / (2 area (2 sigma)^2)), as `COCOeval.computeOks`: 0.61 when
    each joint is off by twice the annotators' own spread. Leading dimensions broadcast: (P, 17, 3) with
    (P, 17, 3) gives (P,), and (P, 1, 17, 3) with (G, 17, 3) gives (P, G).

    Args:
        predicted: (..., 17, 2 or more) x, y in pixels.
        truth: (..., 17, 3) x, y in pixels and visibility, of which 0 means not labelled.
        area: (...) of the annotated people, in square pixels.

    Returns:
        (...) float64; NaN for people without a labelled joint.
    """
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    squared = ((predicted[..., :2] - truth[..., :2]) ** 2).sum(axis=-1)
    spread = 2 * (2 * np.array(COCO17.sigmas)) ** 2 * (np.asarray(area, np.float64)[..., None] + np.spacing(1))
    labelled = truth[..., 2] > 0
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing is labelled
        return (np.exp(-squared / spread) * labelled).sum(axis=-1) / labelled.sum(axis=-1)


@dataclass(frozen=True)
class Matches:
    """Who is who between found and annotated people of one image.

    Attributes:
        truth: (P,) int64: index of the annotated person each pose belongs to; -1 for a false one.
        oks: (P,) float64: how well it fits; NaN for a false one.
    """

    truth: np.ndarray
    oks: np.ndarray


def match(poses: Poses, people: GroundTruth, threshold: float = 0.5) -> Matches:
    """Gives each pose, best score first, the annotated person it fits best among those still free.

    The greedy rule by which COCO counts hits at one OKS threshold (`COCOeval.evaluateImg`).

    Args:
        poses: the found people of an image.
        people: its annotated people.
        threshold: least OKS that counts as a hit.

    Returns:
        The pairs, from the poses' side.
    """
    found = Matches(truth=np.full(len(poses), -1), oks=np.full(len(poses), np.nan))
    if not len(people):
        return found
    similarity = np.nan_to_num(oks(poses.keypoints[:, None], people.keypoints, people.area), nan=-1.0)
    for index in np.argsort(-poses.scores, kind="stable"):
        best = int(np.argmax(similarity[index]))
        if similarity[index, best] >= threshold:
            found.truth[index], found.oks[index] = best, similarity[index, best]
            similarity[:, best] = -1.0
    return found


@dataclass(frozen=True)
class PoseChanges:
    """How far poses moved from those of a reference, person by person of the reference.

    Attributes:
        partner: (P,) int64: index of the same person among the other poses; -1 if they were lost.
        oks: (P,) float64: similarity to the reference's pose; 0 for the lost.
        pixels: (P,) float64: mean distance of the joints; NaN for the lost.
    """

    partner: np.ndarray
    oks: np.ndarray
    pixels: np.ndarray


def compare_poses(reference: Poses, other: Poses, keypoint_threshold: float = 0.1) -> PoseChanges:
    """Compares two decodings of one image, say in float32 and in int8, with no annotation needed.

    Args:
        reference: poses of the one; of each person, keypoints of a higher score than the threshold count.
        other: poses of the other.
        keypoint_threshold: least score.
    """
    sure = reference.keypoints[..., 2] > keypoint_threshold
    keypoints = np.dstack([reference.keypoints[..., :2], 2 * sure]).astype(np.float64)
    boxes = [np.ptp(points[seen, :2], axis=0) if seen.any() else (0, 0) for points, seen in zip(keypoints, sure)]
    # Keypoints on one line, or a single one, span no area; without a least one, any move would lose the person.
    area = np.array([max(width * height, _SMALLEST) for width, height in boxes])
    people = GroundTruth(keypoints, np.zeros((len(area), 4)), area)
    found = match(other, people)
    partner = np.full(len(reference), -1)
    partner[found.truth[found.truth >= 0]] = np.flatnonzero(found.truth >= 0)
    similarity, pixels = np.zeros(len(reference)), np.full(len(reference), np.nan)
    for person in np.flatnonzero(partner >= 0):
        similarity[person] = found.oks[partner[person]]
        away = other.keypoints[partner[person], :, :2] - reference.keypoints[person, :, :2]
        pixels[person] = np.linalg.norm(away[sure[person]], axis=1).mean()
    return PoseChanges(partner, similarity, pixels)


def rank_by_change(reference: Sequence[Poses], other: Sequence[Poses], person_threshold: float = 0.2) -> list[int]:
    """Images in the order of how far poses strayed from a reference: least mean OKS over people first, the lost at 0.

    Args:
        reference: the poses to be kept, of each image.
        other: the poses that should be the same, of the same images.
        person_threshold: people of the reference with a lower score do not count.

    Returns:
        Their indices; where nobody was, nothing strayed.
    """
    kept = []
    for mine, yours in zip(reference, other):
        sure = mine.scores >= person_threshold
        kept.append(float(compare_poses(mine, yours).oks[sure].mean()) if sure.any() else 1.0)
    return [int(index) for index in np.argsort(kept, kind="stable")]


# ------------------------------------------------------------------------------------------------- journal


def fingerprint(
    engine: Engine, estimator: PoseEstimator, dataset: CocoDataset, image_ids: Sequence[int], batch_size: int = 1
) -> dict[str, Any]:
    """Collects everything that decides what an evaluation finds: two runs that agree in it find the same.

    Args:
        engine: the estimator's engine, or the fleet that stands for one: what has its `facts`.
        estimator: its settings count.
        dataset: what is scored.
        image_ids: which images. Their content is noted with each of them.
        batch_size: most images in one run of the network, which may change the last bits.

    Returns:
        JSON types; the engine by the hash of its file, the annotations by that of theirs.

    Raises:
        DataError: the annotations cannot be read.
    """
    facts, found = engine.facts, versions()
    packages = (*_DECISIVE_PACKAGES, _PACKAGE_OF.get(facts["backend"], facts["backend"]))
    return {
        "format": _FORMAT,
        **{key: facts[key] for key in ("model", "weights", "backend", "backend_version", "precision")},
        "engine": facts["sha256"],
        "flip_test": estimator.flip_test,
        "input_size": estimator.input_size,
        "decoding": dataclasses.asdict(estimator.config),
        "batch_size": batch_size,
        "annotations": artifacts.sha256(dataset.annotation_file),
        "images": list(image_ids),
        "cpu": machine().get("cpu"),
        "versions": {package: found[package] for package in packages if package in found},
    }


def to_line(result: PoseResult) -> dict[str, Any]:
    """Returns what was found in an image as JSON types, which keep the exact value of every float32."""
    poses = result.poses
    return {
        "keypoints": poses.keypoints.tolist(),
        "scores": poses.scores.tolist(),
        "tags": poses.tags.tolist(),
        "tag_count": poses.tags.shape[1],
        "stage_ms": result.stage_ms,
    }


def from_line(line: Mapping[str, Any], name: str = "") -> PoseResult:
    """Reads what `to_line` made, equal to the last bit; `name` is that of the image.

    Raises:
        KeyError, TypeError, ValueError: the line is damaged.
    """
    people = len(line["scores"])
    poses = Poses(
        keypoints=np.array(line["keypoints"], np.float32).reshape(people, len(COCO17.names), 3),
        scores=np.array(line["scores"], np.float32),
        tags=np.array(line["tags"], np.float32).reshape(people, line["tag_count"]),
    )
    return PoseResult(name, poses, stage_ms=line["stage_ms"])


class Journal:
    """What an evaluation has found so far, in a file that a stopped run leaves to the next; open as a context manager.

    One JSON object a line: first the fingerprint, then an image each, written as soon as it is decoded. The file's name
    derives from the first line, so runs of anything else have files of their own. JSON has the exact value of every
    float32, and batches are those of an uninterrupted run, so a resumed run gives the same numbers, to the last bit.

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
        """Names the file; nothing is read or written yet.

        Args:
            folder: where such files are.
            decides: from `fingerprint`.
            resume: also take the results of an earlier run that finished, instead of running again.
            fresh: begin anew whatever there is.
        """
        self._first = json.dumps(decides, sort_keys=True).encode() + b"\n"
        name = "_".join(str(decides[key]) for key in ("model", "weights", "backend", "precision"))
        digest = hashlib.sha256(self._first).hexdigest()[:12]
        self.path = Path(folder) / (re.sub(r"[^\w.-]+", "-", name) + f"_{digest}.jsonl")
        self.finished = False
        self._resume, self._fresh = resume, fresh
        self._found: dict[int, tuple[str, PoseResult]] = {}
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Journal:
        """Opens the file; an interrupted run is resumed.

        A last line that a killed process could not complete is cut off, and damaged ones do not count: those images
        run again.

        Raises:
            DataError: another process has it open, it belongs to another run, or it cannot be read or written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b", buffering=0)
            try:
                _lock(self._file)
                self._read()
                if self._fresh or not self._found or (self.finished and not self._resume):
                    self._found, self.finished = {}, False
                    self._file.truncate(0)
                    _write(self._file, self._first)
            except BaseException:
                self._file.close()
                raise
        except BlockingIOError:
            raise DataError(
                f"{self.path} is in use: the same evaluation is running; wait for it, or stop it."
            ) from None
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror}; what it holds is kept.") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file, which others may then open."""
        self._file.close()

    def results(self, dataset: CocoDataset) -> dict[int, PoseResult]:
        """Returns what an earlier run found, by image id, in images whose file is still the same, to the last bit."""
        return {k: result for k, (digest, result) in self._found.items() if digest == _digest(dataset.path(k))}

    def add(self, image_id: int, image: Path, result: PoseResult) -> None:
        """Keeps what was found in an image: from here on, a killed process does not lose it.

        Raises:
            DataError: it cannot be written; what was written before is not lost.
        """
        self.finished = False
        self._append({"image_id": image_id, "image_sha256": _digest(image), **to_line(result)})

    def finish(self) -> None:
        """Notes, after the run, that everything made from the results is saved: the next one will begin anew."""
        if not self.finished:
            self._append({_FINISHED: now()})
            self.finished = True

    def _append(self, line: Mapping[str, Any]) -> None:
        try:
            with self.path.open("ab", buffering=0) as file:
                _write(file, json.dumps(line).encode() + b"\n")
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror}; what it holds is kept.") from error

    def _read(self) -> None:
        """Takes up what an earlier run left, after cutting off a line without an end."""
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._file.truncate(whole)
        if not whole or self._fresh:
            return
        if not data.startswith(self._first):
            raise DataError(f"{self.path} is not of this run; remove it, or give --fresh.")
        for text in data[len(self._first) : whole].splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a damaged line
                line = json.loads(text.decode("utf-8"))
                self.finished = _FINISHED in line
                if not self.finished:
                    self._found[line["image_id"]] = line["image_sha256"], from_line(line)


# ------------------------------------------------------------------------------------------------- parts


def _missing(image_ids: Sequence[int], found: Mapping[int, object], window: int) -> list[int]:
    """Images to run, in order: all of each window of which one lacks, so that batches are as in a run of all."""
    windows = (image_ids[k : k + window] for k in range(0, len(image_ids), window))
    return [image_id for some in windows if not all(each in found for each in some) for image_id in some]


def _lock(file: IO[bytes]) -> None:
    """Keeps other processes from opening a journal; the system releases the lock when this one dies."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _write(file: IO[bytes], data: bytes) -> None:
    written = file.write(data)
    if written < len(data):  # the disk is full; the second try says so
        file.write(data[written:])


def _digest(image: Path) -> str:
    """The hash of an image's file; of one that cannot be read there is none, and running it will say why."""
    try:
        return artifacts.sha256(image)
    except DataError:
        return ""


def _with_tags(points: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """(17, 3) joints with their person's (L,) tags behind each -> (17, 3 + L) float32."""
    return np.hstack([points, np.broadcast_to(tags, (len(points), len(tags)))])


def _some(image_ids: Sequence[int]) -> list[int]:
    """Each image once, in order; refuses none at all."""
    if not len(image_ids):
        raise UsageError("There is no image to score; run one or more.")
    return sorted(set(image_ids))


def _results_of(poses: Mapping[int, Poses], dataset: CocoDataset, image_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Results of the given images; those of others are left out."""
    chosen = {image_id: poses[image_id] for image_id in image_ids if image_id in poses}
    return to_coco_results(chosen, dataset.category_id)


def _score(results: list[dict[str, Any]], dataset: CocoDataset, image_ids: Sequence[int]) -> dict[str, float | None]:
    """The ten numbers on the given images only; COCOeval's -1, 'nobody of that size', becomes `None`."""
    with _quietly():
        scorer = _matched(results, dataset, image_ids)
        scorer.accumulate()
        scorer.summarize()
    return {name: None if value < 0 else float(value) for name, value in zip(STAT_NAMES, scorer.stats)}


def _matched(results: list[dict[str, Any]], dataset: CocoDataset, image_ids: Sequence[int]) -> COCOeval:
    """A COCOeval that knows for every image which pose belongs to whom."""
    truth = dataset.coco  # first: it says what to do when pycocotools is not installed
    from pycocotools.cocoeval import COCOeval

    scorer = COCOeval(truth, _as_coco(results, truth), "keypoints")
    scorer.params.imgIds = list(image_ids)
    scorer.params.catIds = [dataset.category_id]
    scorer.evaluate()
    return scorer


def _resampled(scorer: COCOeval, by_image: list[dict[str, Any]]) -> float:
    """AP of a COCOeval with other images' matches in the places of its own."""
    scorer.evalImgs = by_image
    scorer.accumulate()
    precision = scorer.eval["precision"][:, :, 0, 0]  # thresholds x recalls of the one category
    return float(precision[precision > -1].mean()) if (precision > -1).any() else float("nan")


def _quietly() -> contextlib.AbstractContextManager:
    """COCOeval reports its progress with print()."""
    return contextlib.redirect_stdout(io.StringIO())


def _as_coco(results: list[dict[str, Any]], truth: COCO) -> COCO:
    """Wraps results for COCOeval; `loadRes` adds keys to the dicts, and does not take an empty list."""
    if results:
        return truth.loadRes([dict(result) for result in results])
    from pycocotools.coco import COCO

    empty = COCO()
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty
