"""Calibration: pictures come in through the caller's interface, one call at a time, and are kept for the build."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any, Iterator

import numpy as np

from helpers.backends.simulator.device import current
from helpers.backends.simulator.trace import Misuse, note
from helpers.backends.simulator.values import Dims, QuantizationAlgorithm, Status, failure, get_datatype_by_numpy

if TYPE_CHECKING:
    from helpers.backends.simulator.config import BuilderConfig
    from helpers.backends.simulator.graph import Network

# How ONNX Runtime's recipes call what comes nearest. What eqnm computes is not public; entropy, too, balances what is
# cut off against what is rounded.
_METHODS = {QuantizationAlgorithm.LINEAR_ALGORITHM: "minmax", QuantizationAlgorithm.EQNM_ALGORITHM: "entropy"}
_PROTOCOL = ("next", "get_sample", "get_shape", "get_data_type", "reset")


class RemoteConfig:
    """A card elsewhere; nothing here uses one."""

    __slots__ = ("address",)


class CalibDataInterface:
    """What a caller's calibration data derive from; `super().__init__()` is part of it."""

    def __init__(self) -> None:
        self._constructed = True


class Learnt:
    """What calibration left in the network: the samples, on disk, in the shape of our own calibration sets.

    Attributes:
        method: as ONNX Runtime's recipes call it.
        settings: the configuration at that time.
    """

    def __init__(self, method: str, settings: dict[str, Any]) -> None:
        """Starts empty."""
        self.method = method
        self.settings = settings
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as this object)
        self._starts: list[int] = []

    def __del__(self) -> None:
        """The file goes with it."""
        self._file.close()

    def add(self, sample: np.ndarray) -> None:
        """Keeps a (N, 3, h, w) sample, picture by picture."""
        for picture in sample:
            self._starts.append(self._file.seek(0, 2))
            np.save(self._file, picture[None])

    def describe(self) -> dict[str, Any]:
        """How many, and which method."""
        return {"count": len(self), "method": self.method}

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._starts)

    def batches(self) -> Iterator[np.ndarray]:
        """The pictures, each (1, 3, h, w) float32."""
        for start in self._starts:
            self._file.seek(start)
            yield np.load(self._file)


class Calibrator:
    """Learns ranges of activations from pictures.

    Args:
        data: one `CalibDataInterface` per input of the network.
    """

    __slots__ = ("_algorithm", "_data")

    def __init__(self, data: list[CalibDataInterface]) -> None:
        if not isinstance(data, list) or not all(isinstance(each, CalibDataInterface) for each in data):
            raise Misuse("a Calibrator takes a list of CalibDataInterface")
        for each in data:
            if not getattr(each, "_constructed", False):
                raise Misuse(f"{type(each).__name__} did not call super().__init__()")
            missing = [name for name in _PROTOCOL if not callable(getattr(each, name, None))]
            if missing:
                raise Misuse(f"{type(each).__name__} has no {', '.join(missing)}")
        note("Calibrator", inputs=len(data))
        self._data = data
        self._algorithm: QuantizationAlgorithm | None = None

    def set_quantization_algorithm(self, algorithm: QuantizationAlgorithm) -> Status:
        """Chooses how; before `calibrate`."""
        if not isinstance(algorithm, QuantizationAlgorithm):
            return failure(f"{algorithm!r} is no QuantizationAlgorithm")
        note("Calibrator.set_quantization_algorithm", algorithm=algorithm.name)
        self._algorithm = algorithm
        return Status.OK()

    def calibrate(self, network: Network, config: BuilderConfig) -> Status:
        """Asks for pictures until there are no more, and keeps what it learnt in the network."""
        settings = config._settings
        note("Calibrator.calibrate", inputs=network.get_input_count())
        precision = settings.get("precision_config", {})
        if self._algorithm is None:
            return failure("no quantization algorithm was set")
        if "precision_mode" not in precision:
            return failure("the configuration has no precision_mode")
        if (self._algorithm, precision.get("activation_quant_algo")) == (
            QuantizationAlgorithm.EQNM_ALGORITHM,
            "asymmetric",
        ):
            return failure("the eqnm algorithm needs symmetric activations")
        if len(self._data) != network.get_input_count() or len(self._data) != 1:
            return failure(f"{len(self._data)} sets of data for {network.get_input_count()} inputs")
        if current() is None:
            return failure("no device is active")
        learnt = Learnt(_METHODS[self._algorithm], settings)
        status = _learn(self._data[0], learnt, network, settings)
        if status.ok():
            network._learnt = learnt
        return status


def _learn(data: Any, learnt: Learnt, network: Network, settings: dict[str, Any]) -> Status:
    """One pass over the caller's data: next, then the getters, until `next` is out of range."""
    while True:
        status = data.next()
        if not isinstance(status, Status):
            raise Misuse(f"next() must answer with a Status, not {status!r}")
        if not status.ok():
            break
        shape, data_type, sample = data.get_shape(), data.get_data_type(), data.get_sample()
        fault = _sample_fault(shape, data_type, sample) or shape_fault(
            sample.shape, network.get_input(0).get_dimension().GetDims(), settings
        )
        if fault:
            return failure(f"calibration sample {len(learnt)}: {fault}")
        learnt.add(sample)
    if not str(status).startswith("OUT_OF_RANGE"):
        return status
    return Status.OK() if len(learnt) else failure("there was no calibration sample")


def _sample_fault(shape: Any, data_type: Any, sample: Any) -> str:
    """Says what a sample and its description disagree about; empty if nothing."""
    if not isinstance(sample, np.ndarray) or not sample.flags.c_contiguous:
        return "get_sample() gave no C-contiguous array"
    if not isinstance(shape, Dims) or shape.GetDims() != list(sample.shape):
        return f"get_shape() says {shape}, the array has {list(sample.shape)}"
    if data_type is not get_datatype_by_numpy(sample.dtype) or sample.dtype != np.float32:
        return f"get_data_type() says {data_type}, the array has {sample.dtype}, the input FLOAT32"
    return ""


def shape_fault(shape: Any, dims: list[int], settings: dict[str, Any]) -> str:
    """Says why an input of that shape (N, 3, H, W) is not taken; empty if it is.

    Args:
        shape: of the input.
        dims: of the network's input.
        settings: the merged configuration.
    """
    if not settings.get("graph_shape_mutable"):
        return "" if list(shape) == dims else f"a shape of {list(shape)}, but {dims} is fixed"
    bounds = settings.get("dim_range", {}).get("0")
    if bounds is None:
        return "" if len(shape) == len(dims) else f"a shape of {list(shape)} for {dims}"
    low, high = bounds["min"], bounds["max"]
    inside = len(shape) == len(low) and all(a <= size <= b for a, size, b in zip(low, shape, high))
    return "" if inside else f"a shape of {list(shape)}, outside dim_range {low} to {high}"
