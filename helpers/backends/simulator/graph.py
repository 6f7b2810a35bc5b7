"""From an ONNX file to a network that can be configured, calibrated and built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from helpers.backends.simulator.trace import Misuse, note
from helpers.backends.simulator.values import DataType, Dims, ModelKind, Status, failure
from helpers.errors import first_line

if TYPE_CHECKING:
    from helpers.backends.simulator.calibrator import Learnt


class ITensor:
    """An input of a network.

    Args:
        dims: its sizes as parsed.
    """

    __slots__ = ("_dims", "_parsed")

    def __init__(self, dims: list[int]) -> None:
        self._parsed = self._dims = dims

    def set_dimension(self, dims: Dims) -> Status:
        """Fixes sizes that the file leaves open."""
        sizes = dims.GetDims()
        note("ITensor.set_dimension", dims=sizes)
        fits = len(sizes) == len(self._parsed) and all(a in (-1, b) for a, b in zip(self._parsed, sizes))
        if not fits:
            return failure(f"an input of {self._parsed} cannot become {sizes}")
        self._dims = sizes
        return Status.OK()

    def get_dimension(self) -> Dims:
        """Its sizes now."""
        return Dims(self._dims)


class Network:
    """A graph, empty until a parser fills it."""

    __slots__ = ("_inputs", "_learnt", "_path")

    def __init__(self) -> None:
        note("Network")
        self._path: Path | None = None
        self._inputs: list[ITensor] = []
        self._learnt: Learnt | None = None

    def get_input_count(self) -> int:
        """Number of inputs."""
        return len(self._inputs)

    def get_input(self, index: int) -> ITensor:
        """One input."""
        if not 0 <= index < len(self._inputs):
            raise Misuse(f"there is no input {index}; the network has {len(self._inputs)}")
        return self._inputs[index]


class Parser:
    """Reads a file into a network.

    Args:
        kind: of the file.
    """

    __slots__ = ()

    def __init__(self, kind: ModelKind) -> None:
        if kind is not ModelKind.kOnnx:
            raise Misuse(f"a parser needs a ModelKind, here kOnnx, not {kind!r}")
        note("Parser", kind=kind.name)

    def parse(self, network: Network, path: str) -> Status:
        """Fills an empty network.

        Args:
            network: the network.
            path: an ONNX file.
        """
        import onnxruntime

        note("Parser.parse", file=Path(path).name)
        if network._path is not None:
            return failure("the network was filled before")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            inputs = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).get_inputs()
        except Exception as error:  # a dozen kinds, without a common ancestor
            return failure(first_line(error))
        if any(each.type != "tensor(float)" for each in inputs):
            return failure(f"{path} has inputs other than {DataType.FLOAT32.name}, which is not simulated")
        network._inputs = [ITensor([size if isinstance(size, int) else -1 for size in each.shape]) for each in inputs]
        network._path = Path(path)
        return Status.OK()
