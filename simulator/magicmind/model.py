"""Builder and Model: a configured network becomes ONNX Runtime's file for the same precision, in a wrapping of its own.

A file is a line that says what it is, a line of JSON, and the ONNX file: MagicMind cannot take it for one of its own.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from magicmind import device
from magicmind.config import BuilderConfig, shape_fault
from magicmind.execution import IEngine
from magicmind.network import Network
from magicmind.values import DataType, Held, Misuse, Status, complain, failure, note

MAGIC = b"MagicMind simulator; no card can load this file\n"


class Builder:
    """Compiles networks."""

    def __init__(self) -> None:
        note("Builder")

    def build_model(self, name: str, network: Network, config: BuilderConfig) -> Model | None:
        """Compiles a network; None if that fails, and the reason on standard error."""
        note("Builder.build_model", name=name)
        fault = _fault(network, config._settings)
        if not fault:
            try:
                return _compiled(network, config._settings)
            except Exception as error:  # whatever ONNX Runtime and its tools raise
                fault = str(error)
        complain(f"build_model: {fault}")
        return None


class Model(Held):
    """A compiled network, from a builder or from a file."""

    def __init__(self) -> None:
        super().__init__()
        self._facts: dict[str, Any] = {}
        self._graph = b""

    def serialize_to_file(self, path: str) -> Status:
        """Writes it."""
        note("Model.serialize_to_file")
        if not self._graph:
            return failure("the model is empty")
        Path(path).write_bytes(MAGIC + json.dumps(self._facts).encode() + b"\n" + self._graph)
        return Status.OK()

    def deserialize_from_file(self, path: str) -> Status:
        """Reads what `serialize_to_file` wrote."""
        note("Model.deserialize_from_file", file=Path(path).name)
        if self._graph:
            return failure("the model was filled before")
        content = Path(path).read_bytes()
        if not content.startswith(MAGIC):
            return failure(f"{path} was not built by the simulator")
        facts, _, self._graph = content[len(MAGIC) :].partition(b"\n")
        self._facts = json.loads(facts)
        return Status.OK()

    def get_input_data_types(self) -> list[DataType]:
        """Returns the types of the inputs."""
        return [DataType[self._filled()["input_type"]]]

    def get_output_data_types(self) -> list[DataType]:
        """Returns the types of the outputs: float32 in every precision."""
        return [DataType.FLOAT32][: len(self._filled())]

    def create_i_engine(self) -> IEngine | None:
        """Loads it onto the active card; None if there is none, or if it was not built for that card."""
        note("Model.create_i_engine")
        facts, card = self._filled(), device.current()
        fault = "no device is active" if card is None else _card_fault(facts["settings"]["archs"])
        if not fault:
            try:
                return IEngine(self, card, facts, self._graph)
            except Exception as error:  # a dozen kinds, without a common ancestor
                fault = str(error)
        complain(f"create_i_engine: {fault}")
        return None

    def _filled(self) -> dict[str, Any]:
        if not self._graph:
            raise Misuse("the model is empty; deserialize_from_file first")
        return self._facts


def _fault(network: Network, settings: dict[str, Any]) -> str:
    """Says why a network cannot be built so; empty if it can."""
    if network._path is None:
        return "the network is empty; parse first"
    precision = settings.get("precision_config", {}).get("precision_mode")
    if precision is None or "archs" not in settings or "graph_shape_mutable" not in settings:
        return "the configuration must have precision_mode, archs and graph_shape_mutable"
    if "dim_range" in settings and not settings["graph_shape_mutable"]:
        return "graph_shape_mutable is false beside a dim_range"
    if precision.startswith("qint"):
        if network._learnt is None:
            return f"{precision} needs calibration before the build"
        learnt = network._learnt.settings
        for key in ("opt_config", "precision_config"):
            if learnt.get(key) != settings.get(key):
                return f"{key} was changed after calibration"
    dims = network.get_input(0)._dims
    if network.get_input_count() != 1 or len(dims) != 4 or -1 in dims:
        return f"the simulator takes one input (N, 3, H, W) with all dimensions set, not {dims}"
    return shape_fault(dims, dims, settings)


def _compiled(network: Network, settings: dict[str, Any]) -> Model:
    """Returns the model: what ONNX Runtime's backend makes for the precision, and what it is for."""
    from helpers.backends.base import BuildSpec
    from helpers.backends.onnxruntime import BACKEND

    n, c, height, width = network.get_input(0)._dims
    spec = BuildSpec(
        precision=settings["precision_config"]["precision_mode"],
        batch_size=n,
        dynamic_shape=settings["graph_shape_mutable"],
        input_shape=(height, width),
    )
    model = Model()
    model._facts = {
        "settings": settings,
        "dims": [-1, c, -1, -1] if spec.dynamic_shape else [n, c, height, width],
        "input_type": "UINT8" if "insert_bn_before_firstnode" in settings else "FLOAT32",
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        out.touch()
        BACKEND._build(network._path, spec, network._learnt, out)
        model._graph = out.read_bytes()
    return model


def _card_fault(archs: list[dict[str, list[int]]]) -> str:
    """Says why the card cannot run what was built for these; empty if it can."""
    for entry in archs:
        [(name, clusters)] = entry.items()
        if name == device.ARCH:
            fits = min(clusters) <= device.CLUSTERS
            return "" if fits else f"the card has {device.CLUSTERS} clusters, the model was built for {clusters}"
    return f"the card is {device.ARCH}, the model was built for {archs}"
