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
    """One measurement; what was not measured or does not apply is None."""

    model: str
    weights: str  # their tag
    backend: str
    precision: str
    weights_sha256: str | None = None  # of the file they came from
    calibration: str | None = None  # what a qint precision learnt its ranges from, such as `32 images, minmax`
    input_type: str | None = None  # float32, or uint8 where MagicMind normalizes
    batch_size: int | None = None  # most images in one run of the network
    input_shape: Sequence[int] | None = None  # (N, 3, H, W), for uint8 (N, H, W, 3), if it was the same for all runs
    dataset: str | None = None  # such as `demo val2017`
    images: int | None = None  # how many of them
    image_ids_sha256: str | None = None  # see `ids_sha256`: tells samples apart, and COCO from the rest
    ap: float | None = None  # 0..1, as `ar`
    ar: float | None = None
    ap_interval: Sequence[float] | None = None  # AP lies in it on 95 % of samples (`evaluate.resampled_ap`)
    ap_change: float | None = None  # AP minus that of float32 on the same images
    ap_change_interval: Sequence[float] | None = None
    coco_stats: Mapping[str, float] | None = None  # COCO's ten numbers by name (`evaluate.STAT_NAMES`)
    latency_ms: Latency | None = None  # of one run of the network only, as `images_per_s`
    images_per_s: float | None = None
    whole_images_per_s: float | None = None  # end to end, from file to poses, by the clock on the wall
    stage_ms: Mapping[str, float] | None = None  # per image in `load`, `pre`, `infer`, `decode`, `draw`
    model_bytes: int | None = None
    build_s: float | None = None
    load_s: float | None = None
    peak_memory_mb: float | None = None  # 10^6 bytes
    machine: Mapping[str, Any] | None = None
    versions: Mapping[str, str] | None = None
    command: str | None = None  # how to do it again
    when: str | None = None  # UTC, `2026-11-24T09:30:00Z`

    def to_dict(self) -> dict[str, Any]:
        """Returns the record as JSON types, without what was not measured."""
        return _without_none(dataclasses.asdict(self))

    def to_json(self) -> str:
        """Returns the record as JSON text; refuses a figure that is not finite."""
        try:
            text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False, default=np.generic.item)
        except ValueError as error:
            raise DataError(f"The record of {self.name} holds a figure that is not finite; measure again.") from error
        return text + "\n"

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Reads what `to_json` wrote, and checks it; fields of other editions are left out."""
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
    """Returns how accurate an engine or a fleet is; `reference`, float32 on the same images, to tell what changes."""
    fields = {**_engine_fields(engine.facts, command), **_accuracy(evaluation, dataset, flip_test, reference)}
    record = Record(**fields, batch_size=batch_size, stage_ms=evaluation.stage_ms)
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
    """Returns how fast an engine is, and, given an evaluation, how accurate; refuses a simulator's."""
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
    """Writes a record, by default to data/output/records, replacing the earlier one of the same configuration."""
    path = _folder(folder) / f"{record.name}.json"
    with artifacts.atomic_write(path) as part:
        part.write_text(record.to_json(), encoding="utf-8")
    return path


def load_all(folder: str | os.PathLike[str] | None = None) -> tuple[list[Record], list[str]]:
    """Reads the records of a folder, by default data/output/records, and a sentence for each file it could not read."""
    records, problems = [], []
    for path in sorted(_folder(folder).glob("[!.]*.json")):
        try:
            records.append(Record.from_json(path.read_text(encoding="utf-8")))
        except (DataError, OSError, UnicodeDecodeError) as error:
            problems.append(f"{path} was skipped: {error}")
    return records, problems


def ids_sha256(image_ids: Sequence[int]) -> str:
    """Returns the hash of a set of image ids: in ascending order, one a line."""
    return hashlib.sha256("\n".join(str(image_id) for image_id in sorted(set(image_ids))).encode()).hexdigest()


def _engine_fields(facts: Mapping[str, Any], command: str) -> dict[str, Any]:
    """What ran, where, and what it was made from."""
    fields = {key: facts[key] for key in ("model", "weights", "backend", "precision", "input_type")}
    fields.update(weights_sha256=facts.get("weights_sha256") or None, calibration=_calibration(facts))
    fields.update(build_s=facts["build_s"], model_bytes=facts["bytes"], command=command or None)
    found = versions()
    if facts["backend"] == "magicmind":  # pip does not know it everywhere
        found["magicmind"] = facts["backend_version"]
    return {**fields, "machine": machine(), "versions": found, "when": now()}


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
    """How accurate a network is, and on what."""
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
    """Raises a TypeError that names the first field whose value is not of the annotated type."""
    for field in dataclasses.fields(document):
        value = getattr(document, field.name)
        if not ((value is None and "None" in field.type) or _fits(value, field.type)):
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
