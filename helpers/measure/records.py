"""One measured row: what ran, on what, and the figures. Written as JSON, read back, put side by side.

    record = Record("HRNet", "official", "onnxruntime", "force_float32", ap=0.654, ar=0.710, machine=machine())
    save(record)
    records, problems = load_all()
    print(align([{"model": record.model, "AP": record.ap} for record in records]))

A figure that was not measured is absent: it is neither 0 nor null, in no file and no table.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Sequence

import numpy as np

from helpers import artifacts, paths
from helpers.errors import DataError, UsageError

_PACKAGES = (
    "numpy",
    "scipy",
    "opencv-python-headless",
    "opencv-python",
    "numba",
    "pycocotools",
    "onnx",
    "onnxruntime",
    "openvino",
    "magicmind",
    "torch",
    "mmpose",
)
# What decides how fast a CPU computes in low precision.
_CPU_FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm")
_NO_FLIP = " without flip test"  # the end of such a record's `dataset`


@dataclass(frozen=True)
class Latency:
    """How long something took, over many runs, milliseconds.

    Attributes:
        p50, p90, p95, p99: so many percent of the runs took at most this long.
        mean: the mean of all runs.
    """

    p50: float
    p90: float
    p95: float
    p99: float
    mean: float

    @classmethod
    def from_seconds(cls, values: Sequence[float] | np.ndarray) -> Latency:
        """Percentiles (linear between runs) and mean.

        Args:
            values: (runs,) seconds.

        Raises:
            UsageError: there are none.
        """
        ms = np.asarray(values, np.float64) * 1e3
        if not ms.size:
            raise UsageError("There are no times to take percentiles of; run it at least once.")
        return cls(*(float(value) for value in np.percentile(ms, (50, 90, 95, 99))), mean=float(ms.mean()))


@dataclass(frozen=True)
class Record:
    """One measurement; every field but the first four is None if it was not measured or does not apply.

    Attributes:
        model, weights: name of the network and tag of its weights.
        backend, precision: what ran it, and how.
        weights_sha256: of the file that the weights came from.
        calibration: what a qint precision learnt its ranges from, such as `32 pictures, minmax`.
        input_type: what the network takes, one of `zoo.INPUT_TYPES`.
        batch_size: pictures in one run of the network.
        input_shape: (N, 3, H, W), for uint8 input (N, H, W, 3), if it was the same for all runs.
        dataset: what was run on, such as `demo val2017`.
        images: how many pictures of it.
        ap, ar: COCO's, from 0 to 1.
        ap_interval: the two values between which AP lies on 95 % of samples of the pictures (`evaluate.resampled_ap`).
        ap_change: AP minus that of float32, same pictures.
        ap_change_interval: the two values between which it lies on 95 % of the same samples.
        coco_stats: COCO's ten numbers by name (`evaluate.STAT_NAMES`).
        latency_ms: of one run.
        images_per_s: throughput of the network alone.
        whole_images_per_s: throughput from file to poses, by the clock on the wall.
        stage_ms: milliseconds per picture in `load`, `pre`, `infer`, `decode`, `draw`.
        gflops: billions of floating-point operations per second at which the network alone ran.
        gemm_gflops: those of a plain float32 matrix product on the same machine, to compare with.
        model_bytes, build_s: size of the built model, and how long building took.
        load_s: how long loading the built model took.
        peak_memory_mb: most memory that the process held, 10^6 bytes.
        machine, versions: see the functions of that name.
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
    gflops: float | None = None
    gemm_gflops: float | None = None
    model_bytes: int | None = None
    build_s: float | None = None
    load_s: float | None = None
    peak_memory_mb: float | None = None
    machine: Mapping[str, Any] | None = None
    versions: Mapping[str, str] | None = None
    command: str | None = None
    when: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON types, without what was not measured."""
        return _without_none(dataclasses.asdict(self))

    def to_json(self) -> str:
        """The record as JSON text.

        Raises:
            DataError: a figure is not finite.
        """
        try:
            return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False, default=_plain) + "\n"
        except ValueError as error:
            raise DataError(f"The record of {self.name} holds a figure that is not finite; measure again.") from error

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Reads what `to_json` wrote.

        Raises:
            DataError: it is no JSON, lacks one of the first four fields, has fields that a record does not, or a
                field holds something of another type or a figure that is not finite.
        """
        try:
            fields = json.loads(text)
            if "latency_ms" in fields:
                fields["latency_ms"] = Latency(**fields["latency_ms"])
                _check_types(fields["latency_ms"])
            record = cls(**fields)
            _check_types(record)
            return record
        except (ValueError, TypeError) as error:
            raise DataError(f"This is no record: {error}.") from error

    @property
    def simulated(self) -> bool:
        """Whether a double of a card made it (`backends.magicmind`): its accuracy is one, and it has no times."""
        return self.backend.endswith("-simulated")

    @property
    def flip_test(self) -> bool:
        """Whether the accuracy is that of the flip test."""
        return not (self.dataset or "").endswith(_NO_FLIP)

    @property
    def name(self) -> str:
        """The same for two measurements of the same thing, of which the later replaces the earlier."""
        parts = [self.model, self.weights, self.backend, self.precision]
        if self.input_type not in (None, "float32"):
            parts.append(self.input_type)
        if self.batch_size is not None:
            parts.append(f"b{self.batch_size}")
        if self.input_shape is not None:
            parts.append("x".join(str(size) for size in self.input_shape))
        if self.dataset is not None:
            parts.append(self.dataset)
        if self.images is not None:
            parts.append(f"{self.images}-images")
        return re.sub(r"[^\w.-]+", "-", "_".join(parts))


def save(record: Record, folder: str | os.PathLike[str] | None = None) -> Path:
    """Writes a record, replacing the earlier one of the same thing.

    Args:
        record: the measurement.
        folder: by default data/output/records.

    Returns:
        The file.

    Raises:
        DataError: a figure is not finite, or the file cannot be written.
    """
    path = _folder(folder) / f"{record.name}.json"
    text = record.to_json()
    with artifacts.atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def load_all(folder: str | os.PathLike[str] | None = None) -> tuple[list[Record], list[str]]:
    """Reads all records of a folder.

    Args:
        folder: by default data/output/records; may not exist yet.

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


def without_flip(dataset: str) -> str:
    """The name of a dataset, whatever `scored_on` added."""
    return dataset[: -len(_NO_FLIP)] if dataset.endswith(_NO_FLIP) else dataset


def scored_on(dataset: str, flip_test: bool) -> str:
    """What a record says it was scored on, so that accuracies with and without the flip test stand side by side."""
    return dataset if flip_test else dataset + _NO_FLIP


def align(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table whose columns line up in a terminal.

    Args:
        rows: dicts; a key that a row lacks leaves its cell empty.
    """
    if not rows:
        return "(no records)"
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns] + [[_text(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def now() -> str:
    """This moment for `Record.when`: UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def machine() -> dict[str, Any]:
    """What a speed belongs to: processor, cores, memory, system. Nothing that tells whose machine it is.

    Returns:
        `cpu`, `cores` (that this process may use), `cpu_flags` (those that matter to low precision), `memory_gb`,
        `os`, `python`; what cannot be found out is absent.
    """
    cpu_info = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", cpu_info, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpu_info, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    system = re.search(r'^PRETTY_NAME="?([^"\n]+)', _read("/etc/os-release"), re.MULTILINE)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return _without_none(
        {
            "cpu": model.group(1).strip() if model else platform.processor() or platform.machine(),
            "cores": usable,
            "cpu_flags": [flag for flag in _CPU_FLAGS if flag in flags.group(1).split()] if flags else None,
            "memory_gb": round(int(memory.group(1)) / 2**20, 1) if memory else None,
            "os": system.group(1) if system else platform.system(),
            "python": platform.python_version(),
        }
    )


def versions() -> dict[str, str]:
    """Versions of the installed packages that figures depend on; those not installed are absent."""
    try:
        from importlib import metadata
    except ImportError:  # Python 3.7
        try:
            import importlib_metadata as metadata
        except ImportError:
            return {}
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


# ------------------------------------------------------------------------------------------------- parts


def _text(value: Any) -> str:
    """A cell: four significant digits, which AP needs and milliseconds allow."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


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


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
