"""Images of a dataset -> poses -> COCO's ten keypoint numbers and its results file.

    kept = Journal(paths.output() / "runs", fingerprint(engine, estimator, dataset, image_ids))
    done = run(estimator, dataset, image_ids, journal=kept)     # Evaluation: poses, failures, times, stats
    kept.finish()                                               # once everything made from it is saved
    stats = evaluate({image_id: poses, ...}, dataset, image_ids)     # poses from elsewhere

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
from typing import IO, TYPE_CHECKING, Any, Callable, Iterator, Mapping, Sequence

import numpy as np

from helpers import artifacts
from helpers.dataset import CocoDataset
from helpers.errors import DataError, UsageError
from helpers.keypoints import COCO17
from helpers.measure.machine import machine, now, versions
from helpers.pose.decode import Poses
from helpers.pose.estimator import PoseResult

if TYPE_CHECKING:
    from pycocotools.cocoeval import COCOeval

    from helpers.backends.base import Engine
    from helpers.pose.estimator import PoseEstimator

STAT_NAMES = ("AP", "AP .5", "AP .75", "AP (M)", "AP (L)", "AR", "AR .5", "AR .75", "AR (M)", "AR (L)")

# What may change a network's output or what is found in it, beside the library that runs it (as pip knows that).
_DECISIVE_PACKAGES = ("numpy", "opencv-python-headless", "opencv-python")
_PACKAGE_OF = {"pytorch": "torch"}
_FORMAT = 2  # of a journal; to be counted up when poses change in a way that nothing else in its first line shows
_FINISHED = "finished"


@dataclass(frozen=True)
class CocoStats:
    """What a COCO keypoint evaluation gave, and how much it was measured on."""

    numbers: dict[str, float | None]  # by `STAT_NAMES`, 0..1; None without anybody to measure on, say large people
    images: int  # scored, those without people included
    dataset_images: int
    people: int  # annotated in the scored images
    detections: int

    @property
    def scope(self) -> str:
        """Returns what the numbers stand for, to be printed beside them: '200 of 5000 images, 431 people'."""
        return f"{self.images} of {self.dataset_images} images, {self.people} people"

    def __str__(self) -> str:
        """Returns one number per line, then the scope."""
        shown = {name: "-" if value is None else f"{value:.4f}" for name, value in self.numbers.items()}
        return "\n".join([*(f"{name:<7} {value}" for name, value in shown.items()), f"({self.scope})"])


@dataclass(frozen=True)
class Evaluation:
    """A model run over images of a dataset, and its score."""

    image_ids: list[int]
    poses: dict[int, Poses]  # by image id; none of images that failed
    failures: list[str]  # one sentence for each image that could not be read or decoded
    stage_ms: dict[str, float]  # means per image in each of `estimator.STAGES`
    stats: CocoStats  # a failed image counts: its people were not found
    taken_up: str = ""  # what an earlier run had done already, one sentence

    def summary(self) -> str:
        """Returns a line on what was run and how long it took, one on an earlier run, and one per failure."""
        total = sum(self.stage_ms.values())
        stages = ", ".join(f"{stage} {ms:.0f}" for stage, ms in self.stage_ms.items())
        head = f"{self.stats.scope}: {self.stats.detections} found, {total:.0f} ms per image ({stages})"
        return "\n".join(filter(None, [head, self.taken_up, *(f"failed: {reason}" for reason in self.failures)]))


def run(
    estimator: PoseEstimator,
    dataset: CocoDataset,
    image_ids: Sequence[int],
    batch_size: int = 1,
    progress: Callable[[int, int], None] | None = None,
    journal: Journal | None = None,
) -> Evaluation:
    """Finds the people in images of a dataset and scores them.

    `progress` is called with (done, all) after every image, and at once if an earlier run has done some. That one's
    `journal` is taken over, and keeps what this one finds; images that failed are tried again.

    Raises:
        DataError: not one image could be used; or the journal cannot be written, or another process writes it.
    """
    count, failures, taken_up = len(image_ids), [], ""
    report = progress or (lambda done, count: None)
    with journal or contextlib.nullcontext():
        found = {} if journal is None else journal.results(dataset)
        missing = _missing(image_ids, found, estimator.window(batch_size))
        done = count - len(missing)
        if done:
            ended = "finished" if journal.finished else "stopped"
            taken_up = f"{done} of {count} images from an earlier run that {ended}"
            report(done, count)
        results = estimator.stream((dataset.path(image_id) for image_id in missing), batch_size)
        for image_id, result in zip(missing, results):
            if result.poses is None:
                found.pop(image_id, None)
                failures.append(result.error)
            else:
                found[image_id] = result
                if journal is not None:
                    journal.add(image_id, dataset.path(image_id), result)
            done += 1
            report(done, count)
    if failures and not found:
        raise DataError(f"Not one of {len(failures)} images could be used; the first: {failures[0]}")
    found = {image_id: found[image_id] for image_id in image_ids if image_id in found}
    times = [result.stage_ms for result in found.values()]
    stage_ms = {stage: float(np.mean([t[stage] for t in times])) for stage in (times[0] if times else ())}
    poses = {image_id: result.poses for image_id, result in found.items()}
    return Evaluation(list(image_ids), poses, failures, stage_ms, evaluate(poses, dataset, image_ids), taken_up)


def evaluate(poses_by_image_id: Mapping[int, Poses], dataset: CocoDataset, image_ids: Sequence[int]) -> CocoStats:
    """Scores poses with pycocotools.

    Every image in `image_ids` counts: one without poses loses all its people, one without people makes mistakes of all
    its poses. Poses of other images are left out.
    """
    image_ids = _unique(image_ids)
    people = sum(len(dataset.people(image_id)) for image_id in image_ids)
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress with print()
        scorer = _matched(poses_by_image_id, dataset, image_ids)
        scorer.accumulate()
        scorer.summarize()
    # COCOeval says -1 where there is nobody of that size.
    numbers = {name: None if value < 0 else float(value) for name, value in zip(STAT_NAMES, scorer.stats)}
    return CocoStats(numbers, len(image_ids), len(dataset), people, len(scorer.cocoDt.anns))


def resampled_ap(
    runs: Mapping[str, Mapping[int, Poses]], dataset: CocoDataset, image_ids: Sequence[int], rounds: int = 200
) -> dict[str, np.ndarray]:
    """Scores samples of the images drawn with replacement (Efron's bootstrap): label -> (rounds,) float64 AP.

    All runs (label -> image id -> poses) are scored on the same samples, so the spread of the *difference* of two can
    be taken round by round; it is smaller than that of either. A sample without annotated people has NaN.
    """
    image_ids = _unique(image_ids)
    chosen = np.random.default_rng(0).integers(0, len(image_ids), (rounds, len(image_ids)))
    found = {}
    for label, poses in runs.items():
        with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress with print()
            scorer = _matched(poses, dataset, image_ids)
            by_image = scorer.evalImgs[: len(image_ids)]  # areas x images, for the one category; the first: any area
            for params in (scorer.params, scorer._paramsEval):
                params.imgIds = list(range(len(image_ids)))  # places, to occur again
                params.areaRng = params.areaRng[:1]
            ap = np.full(rounds, np.nan)
            for k, row in enumerate(chosen):
                scorer.evalImgs = [by_image[place] for place in row]
                scorer.accumulate()
                precision = scorer.eval["precision"][:, :, 0, 0]  # thresholds x recalls of the one category
                if (precision > -1).any():
                    ap[k] = precision[precision > -1].mean()
            found[label] = ap
    return found


def interval(values: np.ndarray) -> tuple[float, float]:
    """Returns the two values between which 95 % of `resampled_ap`, or of differences of two, lie."""
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)


def to_coco_results(poses_by_image_id: Mapping[int, Poses], category_id: int = 1) -> list[dict[str, Any]]:
    """Returns poses in COCO's results format, as its evaluation server asks for.

    As mmpose 0.29.0 (mmpose/datasets/datasets/bottom_up/bottom_up_coco.py): the third number of a keypoint is its
    score, and the area of `bbox`, which spans all 17, is the size by which COCO sorts unmatched people into medium and
    large. A person without a keypoint of positive score is left out, as by the xtcocotools that mmpose scores with.
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

    A list with one dict per image: `preds`, list of (17, 3 + L) float32 arrays (x, y, keypoint score, tags), `scores`,
    list of person scores, `image_paths`, list of the one path, and `output_heatmap`, None. mmpose has a tag per
    keypoint there; we keep those of persons, and give each keypoint its person's.
    """
    outputs = [
        {
            "preds": list(np.dstack([poses.keypoints, poses.tags[:, None].repeat(len(COCO17), axis=1)])),
            "scores": [float(score) for score in poses.scores],
            "image_paths": [str(dataset.path(image_id))],
            "output_heatmap": None,
        }
        for image_id, poses in poses_by_image_id.items()
    ]
    with artifacts.atomic_write(path) as unfinished:
        unfinished.write_bytes(pickle.dumps(outputs, protocol=4))
    return Path(path)


def fingerprint(
    engine: Engine, estimator: PoseEstimator, dataset: CocoDataset, image_ids: Sequence[int], batch_size: int = 1
) -> dict[str, Any]:
    """Collects everything that decides what an evaluation finds: two runs that agree in it find the same.

    A fleet may stand for its `engine`. The content of images is noted with each of them. `batch_size` may change the
    last bits.
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


class Journal:
    """What an evaluation has found so far, in a file that a stopped run leaves to the next; `run` opens and closes it.

    One JSON object a line: first the fingerprint, from which the file's name derives, then an image each, written as
    soon as it is decoded. JSON has the exact value of every float32, and batches are those of an uninterrupted run, so
    a resumed run gives the same numbers, to the last bit. `finished`: the earlier run had come to its end.
    """

    def __init__(
        self, folder: str | os.PathLike[str], decides: Mapping[str, Any], resume: bool = False, fresh: bool = False
    ) -> None:
        """Names the file of a `fingerprint`; nothing is read or written yet.

        `resume` takes over the results of an earlier run even if it finished, `fresh` begins anew whatever there is.
        """
        self._first = json.dumps(decides, sort_keys=True).encode() + b"\n"
        name = "_".join(str(decides[key]) for key in ("model", "weights", "backend", "precision"))
        digest = hashlib.sha256(self._first).hexdigest()[:12]
        self.path = Path(folder) / (re.sub(r"[^\w.-]+", "-", name) + f"_{digest}.jsonl")
        self.finished = False
        self._resume, self._fresh = resume, fresh
        self._found: dict[int, tuple[str, PoseResult]] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Journal:
        """Opens the file, and keeps other processes from it; images whose line is damaged run again."""
        with self._named_errors(), contextlib.ExitStack() as stack:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(self.path.open("a+b"))
            with contextlib.suppress(ImportError):  # on Windows
                import fcntl

                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)  # released even if this process is killed
            self._read(file)
            if self._fresh or not self._found or (self.finished and not self._resume):
                self._found, self.finished = {}, False
                file.truncate(0)
                file.write(self._first)
                file.flush()
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file, which others may then open."""
        self._open.close()

    def results(self, dataset: CocoDataset) -> dict[int, PoseResult]:
        """Returns what an earlier run found, by image id, in images whose file is still the same, to the last bit."""
        return {k: result for k, (digest, result) in self._found.items() if digest == _digest(dataset.path(k))}

    def add(self, image_id: int, image: Path, result: PoseResult) -> None:
        """Keeps what was found in an image: from here on, a killed process does not lose it."""
        self.finished = False
        self._append({"image_id": image_id, "image_sha256": _digest(image), **_to_line(result)})

    def finish(self) -> None:
        """Notes, after the run, that everything made from the results is saved: the next one will begin anew."""
        if not self.finished:
            self._append({_FINISHED: now()})
            self.finished = True

    def _append(self, line: Mapping[str, Any]) -> None:
        with self._named_errors(), self.path.open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Makes errors of the system sentences that name the file."""
        try:
            yield
        except BlockingIOError as error:
            text = f"{self.path} is in use: the same evaluation is running; wait for it, or stop it."
            raise DataError(text) from error
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror}; what it holds is kept.") from error

    def _read(self, file: IO[bytes]) -> None:
        """Takes up what an earlier run left, after cutting off a line without an end."""
        file.seek(0)
        data = file.read()
        whole = data.rfind(b"\n") + 1
        file.truncate(whole)
        if not whole or self._fresh:
            return
        if not data.startswith(self._first):
            raise DataError(f"{self.path} is not of this run; remove it, or give --fresh.")
        for text in data[len(self._first) : whole].splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a damaged line
                line = json.loads(text.decode("utf-8"))
                self.finished = _FINISHED in line
                if not self.finished:
                    self._found[line["image_id"]] = line["image_sha256"], _from_line(line)


def _missing(image_ids: Sequence[int], found: Mapping[int, object], window: int) -> list[int]:
    """Images to run, in order: all of each window of which one lacks, so that batches are as in a run of all."""
    windows = (image_ids[k : k + window] for k in range(0, len(image_ids), window))
    return [image_id for some in windows if not all(each in found for each in some) for image_id in some]


def _to_line(result: PoseResult) -> dict[str, Any]:
    """JSON types, which keep the exact value of every float32."""
    poses, tag_count = result.poses, result.poses.tags.shape[1]
    arrays = {name: getattr(poses, name).tolist() for name in ("keypoints", "scores", "tags")}
    return {**arrays, "tag_count": tag_count, "stage_ms": result.stage_ms}


def _from_line(line: Mapping[str, Any]) -> PoseResult:
    """What `_to_line` made a line of, equal to the last bit; an error of Python's own if the line is damaged."""
    people = len(line["scores"])
    poses = Poses(
        keypoints=np.array(line["keypoints"], np.float32).reshape(people, len(COCO17.names), 3),
        scores=np.array(line["scores"], np.float32),
        tags=np.array(line["tags"], np.float32).reshape(people, line["tag_count"]),
    )
    return PoseResult("", poses, stage_ms=line["stage_ms"])


def _digest(image: Path) -> str:
    """The hash of an image's file; of one that cannot be read there is none, and running it will say why."""
    try:
        return artifacts.sha256(image)
    except DataError:
        return ""


def _unique(image_ids: Sequence[int]) -> list[int]:
    """Each image once, in order; refuses none at all."""
    if not len(image_ids):
        raise UsageError("There is no image to score; run one or more.")
    return sorted(set(image_ids))


def _matched(poses: Mapping[int, Poses], dataset: CocoDataset, image_ids: Sequence[int]) -> COCOeval:
    """A COCOeval that knows for every image which pose belongs to whom; poses of other images are left out."""
    chosen = {image_id: poses[image_id] for image_id in image_ids if image_id in poses}
    results = to_coco_results(chosen, dataset.category_id)
    truth = dataset.coco  # first: it says what to do when pycocotools is not installed
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found = truth.loadRes(results) if results else COCO()  # `loadRes` does not take an empty list
    scorer = COCOeval(truth, found, "keypoints")
    scorer.params.imgIds = list(image_ids)
    scorer.params.catIds = [dataset.category_id]
    scorer.evaluate()
    return scorer
