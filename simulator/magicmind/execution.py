"""Engine, context and tensors: a model on the card, run by ONNX Runtime when the queue is waited for."""

from __future__ import annotations

import functools
import weakref
from typing import Any

import numpy as np

from magicmind.config import shape_fault
from magicmind.device import Device, Queue, current
from magicmind.network import open_session
from magicmind.values import DataType, Held, Misuse, Status, failure, note


class IEngine(Held):
    """A model on a card; `graph` is the ONNX file, `facts` has the settings, and dims and type of the input."""

    def __init__(self, model: Held, device: Device, facts: dict[str, Any], graph: bytes) -> None:
        super().__init__(model, device)
        self._device_id = device.id
        self._dims: list[int] = facts["dims"]
        self._input_type = DataType[facts["input_type"]]
        self._settings = facts["settings"]
        self._nhwc = self._settings.get("convert_input_layout", {}).get("0", {}).get("dst") == "NHWC"
        self._session = open_session(graph)

    def create_i_context(self) -> IContext | None:
        """Makes room to run it."""
        note("IEngine.create_i_context")
        return IContext(self)

    def _network_input(self, array: np.ndarray) -> np.ndarray:
        """Returns what the graph takes, (N, 3, H, W) float32: layout and normalization as configured."""
        if self._nhwc:
            array = array.transpose(0, 3, 1, 2)
        norm = self._settings.get("insert_bn_before_firstnode", {}).get("0")
        if norm is not None:
            mean, var = (np.array(norm[key], np.float32).reshape(1, 3, 1, 1) for key in ("mean", "var"))
            array = (array.astype(np.float32) - mean) / np.sqrt(var)
        return np.ascontiguousarray(array)


class IContext(Held):
    """Room to run an engine, one run at a time; does not keep the engine alive."""

    def __init__(self, engine: IEngine) -> None:
        super().__init__(engine)
        self._engine = weakref.ref(engine)
        self._last: weakref.ref | None = None

    def create_inputs(self) -> list[Tensor]:
        """Returns one tensor per input of the model, to be filled before every run."""
        note("IContext.create_inputs")
        engine = self._alive()
        n, c, h, w = engine._dims
        return [Tensor(self, engine._input_type, [n, h, w, c] if engine._nhwc else [n, c, h, w])]

    def enqueue(self, inputs: list[Tensor], outputs: list[Tensor], queue: Queue) -> Status:
        """Asks for a run; `outputs`, an empty list, gets the tensors that will hold the results."""
        engine = self._alive()
        fault = self._fault(engine, inputs, outputs)
        if fault:
            return failure(fault)
        note("IContext.enqueue", shapes=[list(each._array.shape) for each in inputs])
        if self._last is not None and self._last() is not None:  # the next run may take the place of its results
            self._last()._spoil()
        queue.serves(self)
        out = Tensor(self, DataType.FLOAT32, [])
        self._last = weakref.ref(out)
        outputs.append(out)
        queue._jobs.append(functools.partial(_run, weakref.ref(engine), inputs[0]._array, weakref.ref(out)))
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
            return "the inputs must be a list of one tensor"
        if inputs[0]._array is None:
            return "the input is empty; from_numpy first"
        if not isinstance(outputs, list) or outputs:
            return "the outputs must be an empty list"
        shape = inputs[0]._array.shape
        if engine._nhwc:
            shape = (shape[0], shape[3], *shape[1:3])
        return shape_fault(shape, engine._dims, engine._settings)


class Tensor(Held):
    """An input or a result; `dims` are its sizes, -1 where they are open."""

    def __init__(self, context: IContext, data_type: DataType, dims: list[int]) -> None:
        super().__init__(context)
        self._dtype = data_type.name.lower()  # as NumPy calls it
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
        """Returns the values, once the queue was waited for; good until the tensor goes, or the next run."""
        if self._array is None:
            raise Misuse("asnumpy() before Queue.sync()")
        note("Tensor.asnumpy")
        return self._array.view()

    def _spoil(self) -> None:
        """Makes a result useless to whoever did not copy it."""
        if self._array is not None and not self._is_input:
            self._array.fill(np.nan)

    def __del__(self) -> None:
        """Takes the memory with it."""
        self._spoil()
        super().__del__()


def _run(engine: weakref.ref, array: np.ndarray, out: weakref.ref) -> str:
    """Runs what was enqueued, if its engine and result are still there; says why that failed, or nothing."""
    if engine() is None:
        return "the engine is gone"
    try:
        [result] = engine()._session.run(None, {"input": engine()._network_input(array)})
    except Exception as error:  # a dozen kinds, without a common ancestor
        return str(error).strip().split("\n")[0]
    if out() is not None:
        out()._array = np.array(result)  # memory of its own, which can be spoilt
    return ""
