"""The contract of the engines: what to build, how to run it, when a build can be used again.

A backend fills in the few methods that differ (`_build`, `_load`, ...); checks, naming, reuse and sidecars are here.
"""

from __future__ import annotations

import abc
import contextlib
import importlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Sequence

import numpy as np

from helpers import artifacts, paths, zoo
from helpers.errors import DataError, UsageError, did_you_mean
from helpers.keypoints import COCO17

if TYPE_CHECKING:
    from helpers.backends.calibration import CalibrationSet as Calibration

OUTPUT_CHANNELS = 2 * len(COCO17)
STRIDE = 32  # height and width of an input must be multiples of the deepest feature map's stride
SCALE = 4  # an output is a quarter of the input in height and width

_FORMAT = 2  # to be counted up when builds change in a way that nothing else in the sidecar shows


@dataclass(frozen=True)
class BuildSpec:
    """What is to be built; a UsageError if the parts make no sense, alone or together.

    A dynamic shape leaves batch, height and width open; then `batch_size` and `input_shape` decide nothing.

    Attributes:
        dim_range_min, dim_range_max: least and most (N, 3, H, W) of a dynamic shape, for MagicMind.
        float_layers: names of convolutions in the ONNX graph that a qint precision leaves in float; None for the usual
            ones, () for none.
    """

    precision: str = "force_float32"
    batch_size: int = 1
    dynamic_shape: bool = True
    input_shape: tuple[int, int] = (zoo.INPUT_SIZE, zoo.INPUT_SIZE)  # (height, width)
    dim_range_min: tuple[int, int, int, int] = (1, 3, 128, 128)
    dim_range_max: tuple[int, int, int, int] = (64, 3, 2560, 2560)
    float_layers: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Checks everything, so that whoever gets a spec can rely on it."""
        if self.precision not in zoo.PRECISIONS:
            meant = did_you_mean(self.precision, zoo.PRECISIONS)
            raise UsageError(f"There is no precision {self.precision!r}; {meant}.")
        if not _are_counts([self.batch_size], 1):
            raise UsageError(f"The batch size must be a whole number from 1, not {self.batch_size!r}.")
        if not isinstance(self.dynamic_shape, bool):
            raise UsageError(f"Whether the shape is dynamic must be True or False, not {self.dynamic_shape!r}.")
        if not _are_counts(self.input_shape, 2) or any(side % STRIDE for side in self.input_shape):
            raise UsageError(f"The input shape must be (height, width), multiples of {STRIDE}, not {self.input_shape}.")
        least, most = self.dim_range_min, self.dim_range_max
        ordered = _are_counts(least, 4) and _are_counts(most, 4) and all(a <= b for a, b in zip(least, most))
        if not ordered or (least[1], most[1]) != (3, 3):
            raise UsageError(f"The range of dimensions must be two of (N, 3, H, W), least first, not {least}, {most}.")
        if self.dynamic_shape and self.batch_size > most[0]:
            raise UsageError(f"The batch size {self.batch_size} exceeds {most[0]}, the most in dim_range.")

    @property
    def needs_calibration(self) -> bool:
        """Whether the precision's ranges have to be learnt from images."""
        return self.precision.startswith("qint")

    def shapes(self) -> dict[str, Any]:
        """Returns what decides the shapes that a built model takes, for its sidecar."""
        if self.dynamic_shape:
            return {"dim_range_min": self.dim_range_min, "dim_range_max": self.dim_range_max}
        return {"batch_size": self.batch_size, "input_shape": self.input_shape}


@dataclass(frozen=True)
class Latency:
    """Percentiles and mean of how long something took, over many runs, in milliseconds."""

    p50: float
    p90: float
    p95: float
    p99: float
    mean: float

    @classmethod
    def from_seconds(cls, values: Sequence[float] | np.ndarray) -> Latency:
        """Returns percentiles (linear between runs) and mean of (runs,) seconds; a UsageError if there are none."""
        ms = np.asarray(values, np.float64) * 1e3
        if not ms.size:
            raise UsageError("There are no times to take percentiles of; run it at least once.")
        return cls(*(float(value) for value in np.percentile(ms, (50, 90, 95, 99))), mean=float(ms.mean()))


class Engine(contextlib.AbstractContextManager, abc.ABC):
    """A loaded network, ready to run; as a context manager it is closed in the end.

    Attributes:
        facts: the sidecar of the built model, as read at load.
        path: the built model; None if the engine was not loaded from a file.
        name: the backend's.
        input_type: `float32`, or `uint8` where MagicMind normalizes.
        batch_size, input_shape: the only batch and (height, width) it takes; None if the shape is dynamic.
        max_batch: the most images in one run; None if there is no limit.
    """

    path: Path | None = None

    def __init__(self, facts: dict[str, Any]) -> None:
        """Takes over what the sidecar of the built model says."""
        self.facts = facts
        shapes = facts["shapes"]
        self.name: str = facts["backend"]
        self.precision: str = facts["precision"]
        self.input_type: str = facts["input_type"]
        self.dynamic_shape: bool = facts["dynamic_shape"]
        self.batch_size: int | None = shapes.get("batch_size")
        self.input_shape: tuple[int, int] | None = None if self.dynamic_shape else tuple(shapes["input_shape"])
        self.max_batch: int | None = shapes["dim_range_max"][0] if "dim_range_max" in shapes else self.batch_size
        self._closed = False

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Runs the network.

        Args:
            batch: (N, 3, H, W) float32, normalized RGB, H and W multiples of 32 (`preprocess.to_input`); of input type
                uint8: (N, H, W, 3), BGR.

        Returns:
            (N, 34, H/4, W/4) float32: 17 heatmaps, then 17 tag maps.

        Raises:
            UsageError: this engine does not take such a batch, or it is closed.
            DataError: the engine failed.
        """
        if self._closed:
            raise UsageError(f"The {self.name} engine is closed; load it again.")
        self._check(batch)
        output = self._run(np.ascontiguousarray(batch))
        count, height, width = self._sizes(batch)
        wanted = (count, OUTPUT_CHANNELS, height // SCALE, width // SCALE)
        if output.shape != wanted or output.dtype != np.float32:
            found = f"{output.shape} {output.dtype} instead of {wanted} float32"
            raise DataError(f"The {self.name} engine returned {found}; build it again.")
        return output

    def batch_shape(self, count: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Returns the shape of a batch of so many images, as `run` takes it."""
        return (count, height, width, 3) if self.input_type == "uint8" else (count, 3, height, width)

    def close(self) -> None:
        """Gives memory and device back; `run` is over then."""
        self._closed = True
        self._close()

    def __exit__(self, *error: object) -> None:
        """Closes the engine."""
        self.close()

    @abc.abstractmethod
    def _run(self, batch: np.ndarray) -> np.ndarray:
        """Runs a batch that was checked and is contiguous."""

    @abc.abstractmethod
    def _close(self) -> None:
        """Lets go of what the engine holds; may be called twice."""

    def _sizes(self, batch: np.ndarray) -> tuple[int, int, int]:
        """Returns images, height and width of a batch with four dimensions."""
        height = 1 if self.input_type == "uint8" else 2
        return batch.shape[0], batch.shape[height], batch.shape[height + 1]

    def _check(self, batch: np.ndarray) -> None:
        if self.dynamic_shape:
            layout = "(N, H, W, 3)" if self.input_type == "uint8" else "(N, 3, H, W)"
            wanted = f"{layout} {self.input_type}, H and W multiples of {STRIDE}"
            fits = batch.ndim == 4 and batch.size and batch.shape == self.batch_shape(*self._sizes(batch))
            fits = fits and not any(side % STRIDE for side in self._sizes(batch)[1:])
        else:
            fixed = self.batch_shape(self.batch_size, *self.input_shape)
            wanted = f"{fixed} {self.input_type}, for which it was built"
            fits = batch.shape == fixed
        if not fits or batch.dtype != self.input_type:
            raise UsageError(f"The {self.name} engine takes {wanted}, not {batch.shape} {batch.dtype}.")


class Backend(abc.ABC):
    """An inference engine's library: whether it is here, what it can build, how to load that."""

    name: str  # as `backends.get` knows it; of its Python package too, where it is not overridden
    opset = 17  # of the ONNX file that it builds from
    on_cpu = True  # the CPU computes, as device 0; otherwise devices are cards

    def is_available(self) -> tuple[bool, str]:
        """Returns whether it can run here, and if not, why and what to do."""
        try:
            importlib.import_module(self.name)
        except ImportError as error:
            return False, f"{error}; install {self.name}"
        return True, ""

    def version(self) -> str:
        """Returns the library's version, without the build's number; only if available."""
        return importlib.import_module(self.name).__version__.split("-")[0]

    @abc.abstractmethod
    def precisions(self) -> tuple[str, ...]:
        """Returns what it can build, of `zoo.PRECISIONS`."""

    def build(
        self,
        onnx_path: str | os.PathLike[str],
        spec: BuildSpec,
        calibration: Calibration | None = None,
        out: Path | None = None,
    ) -> Path:
        """Turns an exported network into this engine's form, or finds the one built before.

        A built model is used again only if everything that decides its content is the same, and if its bytes are
        still those that were written. Its sidecar lies beside it.

        Args:
            onnx_path: a file made by `export.export`, with its sidecar.
            spec: what to build.
            calibration: images to calibrate with, for the qint precisions.
            out: the file to write; None for the name that the sample gives it (`paths.engine_file`).

        Raises:
            UsageError: the backend does not build that precision.
            DataError: the backend is not available here, the ONNX file is missing or damaged, or the build failed.
        """
        self.require(spec.precision)
        onnx_path = Path(onnx_path)
        if not spec.needs_calibration:
            calibration = None
        source = exported(onnx_path)
        model, weights = source["model"], source["weights"]
        decides = {
            "backend": self.name,
            "backend_version": self.version(),
            "model": model,
            "weights": weights,
            "onnx_sha256": source["sha256"],
            "input_type": "float32",
            "precision": spec.precision,
            "dynamic_shape": spec.dynamic_shape,
            "shapes": spec.shapes(),
            "float_layers": spec.float_layers,
            "calibration": None if calibration is None else calibration.describe(),
            "format": _FORMAT,
            **self._decides(spec),
        }
        path = out or paths.engine_file(
            model, weights, self.name, spec.precision, spec.dynamic_shape, spec.batch_size, decides["input_type"]
        )
        if not artifacts.is_current(path, decides):
            start = time.perf_counter()
            with artifacts.atomic_write(path, needs=onnx_path.stat().st_size) as part:
                self._build(onnx_path, spec, calibration, part)
            seconds = round(time.perf_counter() - start, 3)
            artifacts.write_sidecar(path, **decides, weights_sha256=source["weights_sha256"], build_s=seconds)
        return path

    def load(self, path: str | os.PathLike[str], device_id: int = 0) -> Engine:
        """Loads what `build` returned, onto a card by its number; a CPU is device 0.

        Raises:
            UsageError: the model is another backend's, or there is no such device.
            DataError: the backend is not available here, or the file or its sidecar is missing or damaged.
        """
        self.require()
        path = Path(path)
        if not path.is_file():
            raise DataError(f"There is no built model {path}; build it first.")
        facts = artifacts.read_sidecar(path)
        if facts.get("backend") != self.name:
            raise UsageError(f"{path} is not a model of the {self.name} backend; build one with it.")
        if facts.get("sha256") != artifacts.sha256(path):
            raise DataError(f"{path} was changed or cut short since it was built; build it again.")
        if not _is_complete(facts):
            raise DataError(f"{artifacts.sidecar(path)} is damaged; build {path.name} again.")
        self.require_device(device_id)
        engine = self._load(path, facts, device_id)
        engine.path = path
        return engine

    def configured(self, **options: Any) -> Backend:
        """Returns this backend with the given options; a UsageError if it has no such option."""
        raise UsageError(f"The {self.name} backend has no option {', '.join(options)}; leave it out.")

    def require(self, precision: str | None = None) -> None:
        """Raises a DataError if the backend cannot run here, a UsageError if it does not build a precision."""
        available, reason = self.is_available()
        if not available:
            raise DataError(f"The {self.name} backend is not available: {reason}.")
        if precision is not None and precision not in self.precisions():
            builds = " or ".join(self.precisions())
            raise UsageError(f"The {self.name} backend does not build {precision}; use {builds}.")

    def require_device(self, device_id: int) -> None:
        """Raises a UsageError if there is no such device."""
        if device_id != 0:
            raise UsageError(f"The {self.name} backend runs on the CPU, device 0; there is no device {device_id}.")

    def _decides(self, spec: BuildSpec) -> dict[str, Any]:
        """Returns what else decides a built model's content, for its sidecar."""
        return {}

    @abc.abstractmethod
    def _build(self, onnx_path: Path, spec: BuildSpec, calibration: Calibration | None, out: Path) -> None:
        """Writes the built model to `out`, which exists and is empty."""

    @abc.abstractmethod
    def _load(self, path: Path, facts: dict[str, Any], device_id: int) -> Engine:
        """Loads a file that was checked; `facts` is its sidecar."""


def exported(path: Path) -> dict[str, Any]:
    """Reads the sidecar of an exported network; a DataError unless the file is the one it describes."""
    if not path.is_file():
        raise DataError(f"There is no exported network {path}; export it first.")
    facts = artifacts.read_sidecar(path)
    needed = {"model", "weights", "weights_sha256", "weights_file", "opset"}
    if needed - set(facts) or facts.get("sha256") != artifacts.sha256(path):
        raise DataError(f"{path} is not the file that {artifacts.sidecar(path).name} describes; export it again.")
    return facts


def threads() -> int:
    """Returns the threads per run: `OMP_NUM_THREADS`, which torch and NumPy obey too; 0 leaves it to the engine."""
    value = os.environ.get("OMP_NUM_THREADS") or "0"
    if not value.isdigit():
        raise UsageError(f"OMP_NUM_THREADS must be a whole number, not {value!r}.")
    return int(value)


def _is_complete(facts: dict[str, Any]) -> bool:
    """Tells whether the sidecar of a built model has all that engines take from it."""
    needed = {"model", "backend_version", "precision", "input_type", "dynamic_shape", "shapes"}
    if needed - set(facts) or not isinstance(facts["shapes"], dict):
        return False
    named = {"dim_range_min", "dim_range_max"} if facts["dynamic_shape"] else {"batch_size", "input_shape"}
    return named <= set(facts["shapes"])


def _are_counts(values: Any, length: int) -> bool:
    """Tells whether these are so many whole numbers from 1; True, which Python takes for 1, is not one."""
    return len(values) == length and all(type(value) is int and value >= 1 for value in values)
