"""Calibration: samples come in through the caller's interface, one call at a time, and are kept for the build."""

from __future__ import annotations

from typing import Any, Iterator, Mapping

import numpy as np

from magicmind.config import BuilderConfig, shape_fault
from magicmind.device import current
from magicmind.network import Network
from magicmind.values import DataType, Dims, Misuse, QuantizationAlgorithm, Status, failure, note

# Names of the nearest methods of ONNX Runtime's backend. What eqnm computes is not public; entropy, too, balances what
# is cut off against what is rounded.
_METHODS = {QuantizationAlgorithm.LINEAR_ALGORITHM: "minmax", QuantizationAlgorithm.EQNM_ALGORITHM: "entropy"}
_PROTOCOL = ("next", "get_sample", "get_shape", "get_data_type", "reset")


class CalibDataInterface:
    """What a caller's calibration data derive from; `super().__init__()` is part of it."""

    def __init__(self) -> None:
        self._constructed = True


class Learnt:
    """A calibration set of `helpers`, left in the network, with the configuration at that time."""

    def __init__(self, method: str, settings: Mapping[str, Any]) -> None:
        self.method, self.settings = method, settings
        self.images: list[np.ndarray] = []  # (1, 3, h, w) float32 each

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.images)

    def batches(self) -> Iterator[np.ndarray]:
        """Yields the images."""
        return iter(self.images)


class Calibrator:
    """Learns ranges of activations from images, one `CalibDataInterface` per input of the network."""

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
        algo = settings.get("precision_config", {}).get("activation_quant_algo")
        if self._algorithm is None:
            return "no quantization algorithm was set"
        if self._algorithm is QuantizationAlgorithm.EQNM_ALGORITHM and algo == "asymmetric":
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
        learnt.images += [image[None].copy() for image in sample]
    if not str(status).startswith("OUT_OF_RANGE"):
        return status
    return Status.OK() if len(learnt) else failure("there was no calibration sample")


def _sample_fault(shape: Any, data_type: Any, sample: Any) -> str:
    """Says what a sample and its description disagree about; empty if nothing."""
    if not isinstance(sample, np.ndarray) or not sample.flags.c_contiguous:
        return "get_sample() gave no C-contiguous array"
    if not isinstance(shape, Dims) or shape.GetDims() != list(sample.shape):
        return f"get_shape() says {shape}, the array has {list(sample.shape)}"
    if data_type is not DataType.FLOAT32 or sample.dtype != np.float32:
        return f"get_data_type() says {data_type}, the array has {sample.dtype}, the input FLOAT32"
    return ""
