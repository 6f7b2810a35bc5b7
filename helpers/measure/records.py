"""One measurement: what ran, on what, and the figures. Written as JSON, read back, put side by side by `tables`.

    evaluation = evaluate.run(PoseEstimator(engine), dataset, dataset.image_ids)
    save(accuracy_record(engine, evaluation, dataset))
    records, problems = load_all()

A figure that was not measured is absent: it is neither 0 nor null, in no file and no table.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping, Sequence

import numpy as np

from helpers import artifacts, paths
from helpers.backends.base import Latency
from helpers.errors import DataError, UsageError
from helpers.measure import evaluate
from helpers.measure.machine import machine, now, versions

if TYPE_CHECKING:
    from helpers.backends.base import Engine
    from helpers.backends.mm_run import CardTiming
    from helpers.dataset import CocoDataset
    from helpers.measure.benchmark import EndToEndTiming, NetworkTiming
    from helpers.measure.evaluate import Evaluation

_NO_FLIP = " without flip test"  # the end of such a record's `dataset`


@dataclass(frozen=True)
class Record:
    """One measurement; every field but the first four is None if it was not measured or does not apply.

    Attributes:
        model, weights: name of the network and tag of its weights.
        backend, precision: what ran it, and how.
        weights_sha256: of the file that the weights came from.
        calibration: what a qint precision learnt its ranges from, such as `32 images, minmax`.
        input_type: what the network takes: float32, or uint8 where MagicMind normalizes.
        batch_size: images in one run of the network.
        input_shape: (N, 3, H, W), for uint8 input (N, H, W, 3), if it was the same for all runs.
        dataset, images: what was run on, such as `demo val2017`, and how many images of it.
        image_ids_sha256: of their ids in ascending order, one a line: tells samples apart, and COCO from the rest.
        ap, ar: COCO's, from 0 to 1.
        ap_interval: the two values between which AP lies on 95 % of samples of the images (`evaluate.resampled_ap`).
        ap_change, ap_change_interval: AP minus that of float32 on the same images, and its own such interval.
        coco_stats: COCO's ten numbers by name (`evaluate.STAT_NAMES`).
        latency_ms, images_per_s: of one run, and throughput, of the network only.
        whole_images_per_s: throughput end to end, from file to poses, by the clock on the wall.
        stage_ms: milliseconds per image in `load`, `pre`, `infer`, `decode`, `draw`.
        model_bytes, build_s, load_s: size of the built model, and how long building and loading it took.
        peak_memory_mb: most memory that the process held, 10^6 bytes.
        machine, versions: what it was measured on and with (`measure.machine`).
        command: how to do it again.
        when: UTC, `2026-11-24T09:30:00Z`.
    """

    model: str
    weights: str
    backend: str
    precision: str
    weights_sha256: str | None = None
    calibration: str | None = None
    input_type: str | None = None
    batch_size: int | None = None
    input_shape: Sequence[int] | None = None
    dataset: str | None = None
    images: int | None = None
    image_ids_sha256: str | None = None
    ap: float | None = None
    ar: float | None = None
    ap_interval: Sequence[float] | None = None
    ap_change: float | None = None
    ap_change_interval: Sequence[float] | None = None
    coco_stats: Mapping[str, float] | None = None
    latency_ms: Latency | None = None
    images_per_s: float | None = None
    whole_images_per_s: float | None = None
    stage_ms: Mapping[str, float] | None = None
    model_bytes: int | None = None
    build_s: float | None = None
    load_s: float | None = None
    peak_memory_mb: float | None = None
    machine: Mapping[str, Any] | None = None
    versions: Mapping[str, str] | None = None
    command: str | None = None
    when: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the record as JSON types, without what was not measured."""
        return _without_none(dataclasses.asdict(self))

    def to_json(self) -> str:
        """Returns the record as JSON text.

        Raises:
            DataError: a figure is not finite.
        """
        try:
            return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False, default=_plain) + "\n"
        except ValueError as error:
            raise DataError(f"The record of {self.name} holds a figure that is not finite; measure again.") from error

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Reads what `to_json` wrote; fields of other editions are left out.

        Raises:
            DataError: it is not JSON, lacks one of the first four fields, or a field holds something of another type
                or a figure that is not finite.
        """
        try:
            known = {field.name for field in dataclasses.fields(cls)}
            fields = {key: value for key, value in dict(json.loads(text)).items() if key in known}
            if "latency_ms" in fields:
                fields["latency_ms"] = Latency(**fields["latency_ms"])
                _check_types(fields["latency_ms"])
            record = cls(**fields)
            _check_types(record)
            return record
        except (ValueError, TypeError) as error:
            raise DataError(f"This is not a record: {error}.") from error

    @property
    def simulated(self) -> bool:
        """Whether a simulator made it instead of a card: its accuracy is the simulator's, and it has no times."""
        return self.backend == "magicmind" and "simulator" in (self.versions or {}).get("magicmind", "")

    @property
    def flip_test(self) -> bool:
        """Whether the accuracy is that of the flip test."""
        return not (self.dataset or "").endswith(_NO_FLIP)

    @property
    def name(self) -> str:
        """File name; a new measurement of the same configuration overwrites the old one."""
        parts = [self.model, self.weights, self.backend, self.precision, self.calibration]
        parts += [self.input_type != "float32" and self.input_type, self.batch_size and f"b{self.batch_size}"]
        parts += ["x".join(map(str, self.input_shape or ())), self.dataset]
        parts += [self.images and f"{self.images}-images", (self.image_ids_sha256 or "")[:6]]
        parts += [self.simulated and "simulator"]
        return re.sub(r"[^\w.-]+", "-", "_".join(part for part in parts if part))


def accuracy_record(
    engine: Engine,
    evaluation: Evaluation,
    dataset: CocoDataset,
    batch_size: int = 1,
    flip_test: bool = True,
    command: str = "",
    reference: Evaluation | None = None,
) -> Record:
    """Returns how accurate an engine is, and the times of its run.

    Args:
        engine: the engine, or a fleet of it: what has its `facts`.
        evaluation, dataset: from `evaluate.run`, and what was scored.
        batch_size: most images in one run of the network.
        flip_test: whether flipped images were used; if not, the record's `dataset` says so.
        command: how to do it again.
        reference: that of float32 over the same images, to say what this precision changes.
    """
    fields = _accuracy(evaluation, dataset, flip_test, reference)
    record = Record(
        **_engine_fields(engine.facts, command), **fields, batch_size=batch_size, stage_ms=evaluation.stage_ms
    )
    if record.simulated:  # times and sizes are not the card's
        return dataclasses.replace(record, stage_ms=None, build_s=None, model_bytes=None)
    return record


def speed_record(
    engine: Engine,
    network: NetworkTiming | CardTiming,
    end_to_end: EndToEndTiming,
    command: str = "",
    load_s: float | None = None,
    peak_memory_mb: float | None = None,
    evaluation: Evaluation | None = None,
    dataset: CocoDataset | None = None,
) -> Record:
    """Returns how fast an engine is, network only and end to end.

    Args:
        engine: the engine.
        network: from `benchmark.network_only`, or from `mm_run.measure`.
        end_to_end: from `benchmark.end_to_end`.
        command: how to do it again.
        load_s, peak_memory_mb: seconds that loading took, and `benchmark.peak_memory_mb`.
        evaluation, dataset: as for `accuracy_record`, with the flip test, to have accuracy in the same record.

    Raises:
        UsageError: the engine is a simulator's, which has no speed.
    """
    record = Record(
        **_engine_fields(engine.facts, command),
        **({} if evaluation is None else _accuracy(evaluation, dataset)),
        batch_size=network.batch_size,
        input_shape=network.input_shape,
        latency_ms=network.latency,
        images_per_s=network.images_per_s,
        whole_images_per_s=end_to_end.images_per_s,
        stage_ms=end_to_end.stage_ms,
        load_s=load_s,
        peak_memory_mb=peak_memory_mb,
    )
    if record.simulated:
        raise UsageError(f"{engine.path} is a simulator's model, which has no speed; measure on a real card.")
    return record


def save(record: Record, folder: str | os.PathLike[str] | None = None) -> Path:
    """Writes a record, by default to data/output/records, replacing the earlier one of the same configuration.

    Raises:
        DataError: a figure is not finite, or the file cannot be written.
    """
    path = _folder(folder) / f"{record.name}.json"
    text = record.to_json()
    with artifacts.atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def load_all(folder: str | os.PathLike[str] | None = None) -> tuple[list[Record], list[str]]:
    """Reads all records of a folder, by default data/output/records, which may not exist yet.

    Returns:
        (records, problems): the records by file name, and one sentence for each file that could not be read.
    """
    records, problems = [], []
    for path in sorted(_folder(folder).glob("[!.]*.json")):
        try:
            records.append(Record.from_json(path.read_text(encoding="utf-8")))
        except (DataError, OSError, UnicodeDecodeError) as error:
            problems.append(f"{path} was skipped: {error}")
    return records, problems


def ids_sha256(image_ids: Sequence[int]) -> str:
    """Returns the hash of a set of images, for `Record.image_ids_sha256`."""
    return hashlib.sha256("\n".join(str(image_id) for image_id in sorted(set(image_ids))).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------- parts


def _engine_fields(facts: Mapping[str, Any], command: str) -> dict[str, Any]:
    """Fields that say what ran, where, and what it was made from; `facts` are those of an engine."""
    fields = {key: facts[key] for key in ("model", "weights", "backend", "precision", "input_type")}
    fields.update(weights_sha256=facts.get("weights_sha256") or None, calibration=_calibration(facts))
    fields.update(build_s=facts["build_s"], model_bytes=facts["bytes"])
    found = versions()
    if facts["backend"] == "magicmind":  # pip does not know it everywhere
        found["magicmind"] = facts["backend_version"]
    return {**fields, "machine": machine(), "versions": found, "command": command or None, "when": now()}


def _calibration(facts: Mapping[str, Any]) -> str | None:
    """What decides the ranges of a qint engine beside its network: `32 images, minmax`."""
    learnt = facts.get("calibration")
    if not learnt:
        return None
    words = [f"{learnt['count']} images", learnt["method"]]
    words += [f"{learnt['percentile']:g} percent"] if "percentile" in learnt else []
    words += [f"seed {learnt['seed']}"] if learnt.get("seed") else []
    words += [f"{len(facts['float_layers'])} layers in float"] if facts.get("float_layers") else []
    return ", ".join(words)


def _accuracy(
    evaluation: Evaluation, dataset: CocoDataset, flip_test: bool = True, reference: Evaluation | None = None
) -> dict[str, Any]:
    """The fields of a record that say how accurate a network is, and on what."""
    numbers, image_ids = evaluation.stats.numbers, evaluation.image_ids
    fields = {
        "dataset": f"{dataset.root.resolve().name} {dataset.split}{'' if flip_test else _NO_FLIP}",
        "images": evaluation.stats.images,
        "image_ids_sha256": ids_sha256(image_ids),
        "ap": numbers["AP"],
        "ar": numbers["AR"],
        "coco_stats": numbers,
    }
    if numbers["AP"] is None:  # nobody is annotated
        return fields
    runs = {"this": evaluation.poses} if reference is None else {"this": evaluation.poses, "float32": reference.poses}
    drawn = evaluate.resampled_ap(runs, dataset, image_ids)
    fields["ap_interval"] = list(evaluate.interval(drawn["this"]))
    if reference is not None:
        fields["ap_change"] = numbers["AP"] - reference.stats.numbers["AP"]
        fields["ap_change_interval"] = list(evaluate.interval(drawn["this"] - drawn["float32"]))
    return fields


def _folder(folder: str | os.PathLike[str] | None) -> Path:
    return paths.output() / "records" if folder is None else Path(folder)


def _check_types(document: Record | Latency) -> None:
    """Raises a TypeError that names the first field with a value of another type than it is annotated with."""
    for field in dataclasses.fields(document):
        value = getattr(document, field.name)
        absent = value is None and "None" in field.type
        if not absent and not _fits(value, field.type):
            raise TypeError(f"{field.name} is {str(value)[:60]!r}")


# What a field of that annotation holds when it comes from JSON.
_KINDS = {"str": str, "int": int, "float": (int, float), "Sequence": list, "Mapping": dict, "Latency": Latency}


def _fits(value: Any, annotation: str) -> bool:
    if not isinstance(value, _KINDS[re.match(r"\w+", annotation).group()]) or isinstance(value, bool):
        return False
    if annotation.startswith("Mapping[str, float]"):
        return all(_fits(item, "float") for item in value.values())
    return not isinstance(value, float) or math.isfinite(value)


def _without_none(value: Any) -> Any:
    """The same without None anywhere inside: JSON has null for it, records have nothing."""
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(item) for item in value]
    return value


def _plain(value: Any) -> Any:
    """A NumPy number as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} has no place in a record")
