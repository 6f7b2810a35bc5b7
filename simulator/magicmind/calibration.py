"""Calibration: samples come in through the caller's interface, one call at a time, and are kept for the build."""

from __future__ import annotations

import tempfile
from typing import Any, Iterator, Mapping

import numpy as np

from magicmind.config import BuilderConfig, shape_fault
from magicmind.device import current
from magicmind.network import Network
from magicmind.values import Dims, Misuse, QuantizationAlgorithm, Status, failure, get_datatype_by_numpy, note

# Names of the nearest methods of ONNX Runtime's backend. What eqnm computes is not public; entropy, too, balances what
# is cut off against what is rounded.
_METHODS = {QuantizationAlgorithm.LINEAR_ALGORITHM: "minmax", QuantizationAlgorithm.EQNM_ALGORITHM: "entropy"}
_PROTOCOL = ("next", "get_sample", "get_shape", "get_data_type", "reset")


class CalibDataInterface:
    """What a caller's calibration data derive from; `super().__init__()` is part of it."""

    def __init__(self) -> None:
        self._constructed = True


class Learnt:
    """What calibration left in the network: the samples, on disk, as a calibration set of `helpers`.

    Attributes:
        method: as ONNX Runtime's backend calls it.
        settings: the configuration at that time.
    """

    def __init__(self, method: str, settings: Mapping[str, Any]) -> None:
        """Starts empty."""
        self.method = method
        self.settings = settings
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as this object)
        self._starts: list[int] = []

    def __del__(self) -> None:
        """Removes the file."""
        self._file.close()

    def add(self, sample: np.ndarray) -> None:
        """Keeps a (N, 3, h, w) sample, image by image."""
        for image in sample:
            self._starts.append(self._file.seek(0, 2))
            np.save(self._file, image[None])

    def describe(self) -> dict[str, Any]:
        """Returns how many, and which method."""
        return {"count": len(self), "method": self.method}

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._starts)

    def batches(self) -> Iterator[np.ndarray]:
        """Yields the images, each (1, 3, h, w) float32."""
        for start in self._starts:
            self._file.seek(start)
            yield np.load(self._file)


class Calibrator:
    """Learns ranges of activations from images.

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
            return failure(f"{algorithm!r} is not a QuantizationAlgorithm")
        note("Calibrator.set_quantization_algorithm", algorithm=algorithm.name)
        self._algorithm = algorithm
        return Status.OK()

    def calibrate(self, network: Network, config: BuilderConfig) -> Status:
        """Asks for samples until there are no more, and keeps what it learnt in the network."""
        note("Calibrator.calibrate", inputs=network.get_input_count())
        fault = self._fault(network, config._settings)
        if fault:
            return failure(fault)
        learnt = Learnt(_METHODS[self._algorithm], config._settings)
        status = _learn(self._data[0], learnt, network, config._settings)
        if status.ok():
            network._learnt = learnt
        return status

    def _fault(self, network: Network, settings: Mapping[str, Any]) -> str:
        """Says why calibration cannot begin; empty if it can."""
        precision = settings.get("precision_config", {})
        eqnm = self._algorithm is QuantizationAlgorithm.EQNM_ALGORITHM
        if self._algorithm is None:
            return "no quantization algorithm was set"
        if "precision_mode" not in precision:
            return "the configuration has no precision_mode"
        if eqnm and precision.get("activation_quant_algo") == "asymmetric":
            return "the eqnm algorithm needs symmetric activations"
        if len(self._data) != 1 or network.get_input_count() != 1:
            return f"{len(self._data)} sets of data for {network.get_input_count()} inputs"
        return "no device is active" if current() is None else ""


def _learn(data: Any, learnt: Learnt, network: Network, settings: Mapping[str, Any]) -> Status:
    """Goes once over the caller's data: next, then the getters, until `next` is out of range."""
    while True:
        status = data.next()
        if not isinstance(status, Status):
            raise Misuse(f"next() must answer with a Status, not {status!r}")
        if not status.ok():
            break
        shape, data_type, sample = data.get_shape(), data.get_data_type(), data.get_sample()
        fault = _sample_fault(shape, data_type, sample)
        fault = fault or shape_fault(sample.shape, network.get_input(0)._dims, settings)
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
