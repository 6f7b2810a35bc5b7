"""From an ONNX file to a network that can be configured, calibrated and built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from magicmind.values import Dims, Misuse, ModelKind, Status, failure, note


class ITensor:
    """An input of a network, with its sizes as parsed."""

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


class Network:
    """A graph, empty until a parser fills it."""

    def __init__(self) -> None:
        note("Network")
        self._path: Path | None = None
        self._inputs: list[ITensor] = []
        self._learnt: Any = None  # from calibration

    def get_input_count(self) -> int:
        """Returns the number of inputs."""
        return len(self._inputs)

    def get_input(self, index: int) -> ITensor:
        """Returns one input."""
        if not 0 <= index < len(self._inputs):
            raise Misuse(f"there is no input {index}; the network has {len(self._inputs)}")
        return self._inputs[index]


class Parser:
    """Reads a file into a network."""

    def __init__(self, kind: ModelKind) -> None:
        if kind is not ModelKind.kOnnx:
            raise Misuse(f"a parser needs a ModelKind, here kOnnx, not {kind!r}")
        note("Parser", kind=kind.name)

    def parse(self, network: Network, path: str) -> Status:
        """Fills an empty network from an ONNX file."""
        note("Parser.parse", file=Path(path).name)
        if network._path is not None:
            return failure("the network was filled before")
        try:
            inputs = open_session(path).get_inputs()
        except Exception as error:  # a dozen kinds, without a common ancestor
            return failure(str(error).strip().split("\n")[0])
        if any(each.type != "tensor(float)" for each in inputs):
            return failure(f"{path} has inputs other than FLOAT32, which the simulator does not take")
        network._inputs = [ITensor([size if isinstance(size, int) else -1 for size in each.shape]) for each in inputs]
        network._path = Path(path)
        return Status.OK()


def open_session(graph: str | bytes) -> Any:
    """Returns ONNX Runtime's session of a file, or of its content."""
    import onnxruntime

    from helpers.backends.base import threads

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = threads()
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
