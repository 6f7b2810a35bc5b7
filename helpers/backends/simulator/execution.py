"""Engine, context and tensors: a model on the card, run by ONNX Runtime when the queue is waited for."""

from __future__ import annotations

import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from helpers.backends.simulator.calibrator import shape_fault
from helpers.backends.simulator.device import Device, Queue, current
from helpers.backends.simulator.trace import Held, Misuse, note
from helpers.backends.simulator.values import DataType, Status, failure, get_numpy_dtype_by_datatype
from helpers.errors import DataError, UsageError

if TYPE_CHECKING:
    from helpers.backends.base import Engine
    from helpers.backends.simulator.model import Model


class IEngine(Held):
    """A model on a card.

    Args:
        model: where it is from.
        device: the card.
        facts: the model's.
        graph: the ONNX bytes.
    """

    __slots__ = ("_device_id", "_facts", "_session")

    def __init__(self, model: Model, device: Device, facts: dict[str, Any], graph: bytes) -> None:
        super().__init__(model, device)
        self._device_id = device.id
        self._facts = facts
        self._session = _session(facts, graph)

    def create_i_context(self) -> IContext | None:
        """Makes room to run it."""
        note("IEngine.create_i_context")
        return IContext(self)


class IContext(Held):
    """Room to run an engine, one run at a time.

    Args:
        engine: what to run; it is not kept alive.
    """

    __slots__ = ("_engine", "_last")

    def __init__(self, engine: IEngine) -> None:
        super().__init__(engine)
        self._engine = weakref.ref(engine)
        self._last: weakref.ref | None = None

    def create_inputs(self) -> list[Tensor]:
        """One tensor per input of the model, to be filled before every run."""
        note("IContext.create_inputs")
        spec = self._alive()._facts["input"]
        return [Tensor(self, DataType[spec["type"]], spec["dims"])]

    def enqueue(self, inputs: list[Tensor], outputs: list[Tensor], queue: Queue) -> Status:
        """Asks for a run; `outputs`, an empty list, gets the tensors that will hold the results."""
        engine = self._alive()
        fault = self._fault(engine, inputs, outputs)
        if fault:
            return failure(fault)
        note("IContext.enqueue", shapes=[list(each._array.shape) for each in inputs])
        self._spoil_last()
        queue.serves(self)
        out = Tensor(self, DataType.FLOAT32, engine._facts["output"]["dims"])
        self._last = weakref.ref(out)
        outputs.append(out)
        queue._jobs.append(Job(weakref.ref(engine), inputs[0]._array, weakref.ref(out)))
        return Status.OK()

    def _alive(self) -> IEngine:
        engine = self._engine()
        if engine is None:
            raise Misuse("the context's engine is gone")
        return engine

    def _fault(self, engine: IEngine, inputs: Any, outputs: Any) -> str:
        """Says why a run cannot be; empty if it can."""
        card = current()
        if card is None or card.id != engine._device_id:
            return f"device {engine._device_id} is not active in this thread"
        if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], Tensor):
            return "the inputs are no list of one tensor"
        if inputs[0]._array is None:
            return "the input is empty; from_numpy first"
        if not isinstance(outputs, list) or outputs:
            return "the outputs are no empty list"
        return shape_fault(
            _framework_shape(inputs[0]._array.shape, engine._facts), engine._facts["dims"], engine._facts["settings"]
        )

    def _spoil_last(self) -> None:
        """The next run may take the place of the last one's results."""
        last = None if self._last is None else self._last()
        if last is not None:
            last._spoil()


class Tensor(Held):
    """An input, or a result.

    Args:
        context: where it is used.
        data_type: of its values.
        dims: its sizes, -1 where they are open.
    """

    __slots__ = ("_array", "_dims", "_dtype", "_is_input")

    def __init__(self, context: IContext, data_type: DataType, dims: list[int]) -> None:
        super().__init__(context)
        self._dtype = get_numpy_dtype_by_datatype(data_type)
        self._dims = dims
        self._is_input = False
        self._array: np.ndarray | None = None

    def from_numpy(self, array: np.ndarray) -> Status:
        """Takes values, and their shape; they are read when the queue is waited for."""
        if not isinstance(array, np.ndarray) or not array.flags.c_contiguous:
            return failure("from_numpy takes a C-contiguous array")
        if array.dtype != self._dtype:
            return failure(f"from_numpy got {array.dtype} values for {self._dtype}")
        if array.ndim != len(self._dims) or any(dim not in (-1, size) for dim, size in zip(self._dims, array.shape)):
            return failure(f"from_numpy got a shape of {list(array.shape)} for {self._dims}")
        note("Tensor.from_numpy", shape=list(array.shape))
        self._array, self._is_input = array, True
        return Status.OK()

    def to(self, device: Device) -> None:
        """Moves it to a card."""
        if not isinstance(device, Device):
            raise Misuse(f"to() takes a Device, not {device!r}")

    def asnumpy(self) -> np.ndarray:
        """The values, once the queue was waited for; the array is good until the tensor goes, or the next run."""
        if self._array is None:
            raise Misuse("asnumpy() before Queue.sync()")
        note("Tensor.asnumpy")
        return self._array.view()

    def _spoil(self) -> None:
        """Makes a result useless to whoever did not copy it."""
        if self._array is not None and not self._is_input:
            self._array.fill(np.nan)

    def __del__(self) -> None:
        """The memory goes, too."""
        self._spoil()
        super().__del__()


class Job(NamedTuple):
    """A run that was asked for.

    Attributes:
        engine: what to run, if it is still there.
        array: the input.
        out: where the result goes, if somebody still waits for it.
    """

    engine: weakref.ref
    array: np.ndarray
    out: weakref.ref

    def run(self) -> str:
        """Runs; says why that failed, or nothing."""
        engine, out = self.engine(), self.out()
        if engine is None:
            return "the engine is gone"
        try:
            result = engine._session.run(_network_input(self.array, engine._facts))
        except (DataError, UsageError) as error:
            return str(error)
        if out is not None:
            out._array = np.array(result)  # memory of its own, which can be spoilt
        return ""


def _session(facts: dict[str, Any], graph: bytes) -> Engine:
    """ONNX Runtime's engine for the model."""
    from helpers.backends.onnxruntime import BACKEND as ONNXRUNTIME

    n, _, height, width = facts["dims"]
    sidecar = {
        "backend": "onnxruntime",
        "precision": facts["settings"]["precision_config"]["precision_mode"],
        "dynamic_shape": facts["settings"]["graph_shape_mutable"],
        "shapes": {"batch_size": n, "input_shape": [height, width]},
        "input_type": "float32",
    }
    if sidecar["dynamic_shape"]:
        sidecar["shapes"] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        path.write_bytes(graph)
        return ONNXRUNTIME._load(path, sidecar, 0)


def _network_input(array: np.ndarray, facts: dict[str, Any]) -> np.ndarray:
    """What the graph itself takes, (N, 3, H, W) float32: layout and normalisation as configured."""
    if facts["settings"].get("convert_input_layout", {}).get("0", {}).get("dst") == "NHWC":
        array = array.transpose(0, 3, 1, 2)
    norm = facts["settings"].get("insert_bn_before_firstnode", {}).get("0")
    if norm is not None:
        mean, var = (np.array(norm[key], np.float32).reshape(1, 3, 1, 1) for key in ("mean", "var"))
        array = (array.astype(np.float32) - mean) / np.sqrt(var)
    return np.ascontiguousarray(array)


def _framework_shape(shape: tuple[int, ...], facts: dict[str, Any]) -> list[int]:
    """(N, 3, H, W), whatever the layout of the input."""
    if facts["settings"].get("convert_input_layout", {}).get("0", {}).get("dst") == "NHWC":
        return [shape[0], shape[3], shape[1], shape[2]]
    return list(shape)
