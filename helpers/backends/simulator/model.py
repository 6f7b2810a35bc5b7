"""Builder and Model: a configured network becomes ONNX Runtime's file for the same precision, in a wrapping of its own.

A file is a line that says what it is, a line of JSON, and the ONNX bytes: MagicMind cannot take it for one of its
own, nor the double one of MagicMind's.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.backends.base import BuildSpec
from helpers.backends.simulator import device
from helpers.backends.simulator.calibrator import shape_fault
from helpers.backends.simulator.execution import IEngine
from helpers.backends.simulator.trace import LABEL, Held, Misuse, complain, note
from helpers.backends.simulator.values import DataType, Dims, Status, failure
from helpers.errors import DataError, UsageError

if TYPE_CHECKING:
    from helpers.backends.simulator.config import BuilderConfig
    from helpers.backends.simulator.graph import Network

MAGIC = f"{LABEL}; no card can load this file\n".encode()


class Builder:
    """Compiles networks."""

    __slots__ = ()

    def __init__(self) -> None:
        note("Builder")

    def build_model(self, name: str, network: Network, config: BuilderConfig) -> Model | None:
        """Compiles one; None if that fails, and the reason on standard error."""
        note("Builder.build_model", name=name)
        fault = _fault(network, config) or _dims_fault(network, config._settings)
        if not fault:
            try:
                return Model._of(_facts(network, config), _compiled(network, config._settings))
            except (DataError, UsageError) as error:
                fault = str(error)
        complain(f"build_model: {fault}")
        return None


class Model(Held):
    """A compiled network, from a builder or from a file."""

    __slots__ = ("_facts", "_graph")

    def __init__(self) -> None:
        super().__init__()
        self._facts: dict[str, Any] = {}
        self._graph = b""

    class EngineConfig:
        """How an engine is to run."""

        __slots__ = ("device_type",)

    @classmethod
    def _of(cls, facts: dict[str, Any], graph: bytes) -> Model:
        model = cls()
        model._facts, model._graph = facts, graph
        return model

    def serialize_to_file(self, path: str) -> Status:
        """Writes it."""
        note("Model.serialize_to_file")
        if not self._graph:
            return failure("the model is empty")
        try:
            Path(path).write_bytes(MAGIC + json.dumps(self._facts).encode() + b"\n" + self._graph)
        except OSError as error:
            return failure(f"{path}: {error.strerror}")
        return Status.OK()

    def deserialize_from_file(self, path: str) -> Status:
        """Reads what `serialize_to_file` wrote."""
        note("Model.deserialize_from_file", file=Path(path).name)
        if self._graph:
            return failure("the model was filled before")
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            return failure(f"{path}: {error.strerror}")
        if not content.startswith(MAGIC):
            return failure(f"{path} was not built by the simulated MLU")
        facts, _, self._graph = content[len(MAGIC) :].partition(b"\n")
        self._facts = json.loads(facts)
        return Status.OK()

    def get_input_num(self) -> int:
        """Number of inputs."""
        return len(self.get_input_names())

    def get_output_num(self) -> int:
        """Number of outputs."""
        return len(self.get_output_names())

    def get_input_names(self) -> list[str]:
        """Names of the inputs."""
        return [self._filled()["input"]["name"]]

    def get_output_names(self) -> list[str]:
        """Names of the outputs."""
        return [self._filled()["output"]["name"]]

    def get_input_data_types(self) -> list[DataType]:
        """Types of the inputs."""
        return [DataType[self._filled()["input"]["type"]]]

    def get_output_data_types(self) -> list[DataType]:
        """Types of the outputs: float32 in every precision."""
        return [DataType[self._filled()["output"]["type"]]]

    def get_input_dimensions(self) -> list[Dims]:
        """Sizes of the inputs; -1 where they are open."""
        return [Dims(self._filled()["input"]["dims"])]

    def get_output_dimensions(self) -> list[Dims]:
        """Sizes of the outputs; -1 where they are open."""
        return [Dims(self._filled()["output"]["dims"])]

    def create_i_engine(self, config: Model.EngineConfig | None = None) -> IEngine | None:
        """Loads it onto the active card; None if there is none, or if it was not built for that card."""
        note("Model.create_i_engine")
        card = device.current()
        fault = "no device is active" if card is None else _card_fault(self._filled()["settings"]["archs"])
        if config is not None and getattr(config, "device_type", None) != "MLU":
            fault = 'EngineConfig.device_type is not "MLU"'
        if not fault:
            try:
                return IEngine(self, card, self._facts, self._graph)
            except DataError as error:
                fault = str(error)
        complain(f"create_i_engine: {fault}")
        return None

    def _filled(self) -> dict[str, Any]:
        if not self._graph:
            raise Misuse("the model is empty; deserialize_from_file first")
        return self._facts


def _fault(network: Network, config: BuilderConfig) -> str:
    """Says why a network cannot be built so; empty if it can."""
    settings = config._settings
    precision = settings.get("precision_config", {}).get("precision_mode")
    if network._path is None:
        return "the network is empty; parse first"
    if precision is None:
        return "the configuration has no precision_mode"
    archs = [entry if isinstance(entry, str) else next(iter(entry)) for entry in settings.get("archs", [])]
    if not archs or sorted(archs) != sorted(config._mlu_archs):
        return f"archs {archs} and mlu_archs {config._mlu_archs} do not name the same"
    if "graph_shape_mutable" not in settings or ("dim_range" in settings and not settings["graph_shape_mutable"]):
        return "graph_shape_mutable is not set, or false beside a dim_range"
    if not precision.startswith("qint"):
        return ""
    if network._learnt is None:
        return f"{precision} needs calibration before the build"
    learnt = network._learnt.settings
    changed = [key for key in ("opt_config", "precision_config") if learnt.get(key) != settings.get(key)]
    return f"{changed[0]} was changed after calibration" if changed else ""


def _dims_fault(network: Network, settings: dict[str, Any]) -> str:
    """Says what is wrong with the input's dimensions; empty if nothing."""
    dims = network.get_input(0).get_dimension().GetDims()
    if network.get_input_count() != 1 or len(dims) != 4 or -1 in dims:
        return f"one input (N, 3, H, W) with all dimensions set is simulated, not {dims}"
    return shape_fault(dims, dims, settings)


def _compiled(network: Network, settings: dict[str, Any]) -> bytes:
    """The ONNX bytes that ONNX Runtime's backend makes for the precision."""
    from helpers.backends.onnxruntime import BACKEND as ONNXRUNTIME

    n, _, height, width = network.get_input(0).get_dimension().GetDims()
    bounds = settings.get("dim_range", {}).get("0", {})
    spec = BuildSpec(
        precision=settings["precision_config"]["precision_mode"],
        batch_size=n,
        dynamic_shape=settings["graph_shape_mutable"],
        input_shape=(height, width),
        **{f"dim_range_{end}": tuple(sizes) for end, sizes in bounds.items()},
    )
    ONNXRUNTIME.require(spec.precision)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        out.touch()
        ONNXRUNTIME._build(network._path, spec, network._learnt, out)
        return out.read_bytes()


def _facts(network: Network, config: BuilderConfig) -> dict[str, Any]:
    """What a model says about itself."""
    settings = config._settings
    n, c, h, w = network.get_input(0).get_dimension().GetDims()
    if settings["graph_shape_mutable"]:
        n = h = w = -1
    eight_bit = "insert_bn_before_firstnode" in settings
    layout = settings.get("convert_input_layout", {}).get("0", {"dst": "NCHW"})["dst"]
    quarter = [side if side == -1 else side // 4 for side in (h, w)]
    return {
        "settings": settings,
        "dims": [n, c, h, w],
        "input": {
            "name": "input",
            "type": "UINT8" if eight_bit else "FLOAT32",
            "dims": [n, h, w, c] if layout == "NHWC" else [n, c, h, w],
        },
        "output": {"name": "output", "type": "FLOAT32", "dims": [n, 34, *quarter]},
    }


def _card_fault(archs: list[Any]) -> str:
    """Says why the card cannot run what was built for these; empty if it can."""
    for entry in archs:
        name, clusters = (entry, [1]) if isinstance(entry, str) else next(iter(entry.items()))
        if name == device.ARCH:
            fits = min(clusters) <= device.CLUSTERS
            return "" if fits else f"the card has {device.CLUSTERS} clusters, the model was built for {clusters}"
    return f"the card is {device.ARCH}, the model was built for {archs}"
