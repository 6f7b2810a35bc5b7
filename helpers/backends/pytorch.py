"""PyTorch on the CPU, the reference: mmpose's network as it is; a built model is its weights, tensors only."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers import paths
from helpers.backends.base import Backend, BuildSpec, Engine, exported
from helpers.errors import DataError
from helpers.export import network

if TYPE_CHECKING:
    import torch

    from helpers.backends.base import Calibration


class PyTorchBackend(Backend):
    """Runs the very network that was exported."""

    name = "pytorch"

    def is_available(self) -> tuple[bool, str]:
        """Tells whether torch, mmcv and mmpose are installed."""
        missing = [package for package in ("torch", "mmcv", "mmpose") if not importlib.util.find_spec(package)]
        if missing:
            return False, f"{', '.join(missing)} is not installed; see requirements.txt and requirements-mmpose.txt"
        return True, ""

    def version(self) -> str:
        """Returns the version of torch."""
        return str(importlib.import_module("torch").__version__)

    def precisions(self) -> tuple[str, ...]:
        """Returns float32 only: it is the reference."""
        return ("force_float32",)

    def _build(self, onnx_path: Path, spec: BuildSpec, calibration: Calibration | None, out: Path) -> None:
        """Saves the weights that the ONNX file was made from, if they are still what they were."""
        import torch

        facts = exported(onnx_path)
        weights = facts["weights"] if facts["weights"] in paths.WEIGHTS else facts["weights_file"]
        found = network.find_weights(facts["model"], weights)
        if found.sha256 != facts["weights_sha256"]:
            raise DataError(f"The weights of {onnx_path} ({weights}) have changed since; export it again.")
        state = network.load_file(facts["model"], found.file).state_dict()
        with out.open("wb") as file:  # given a name, torch refuses those that begin with a dot
            torch.save(state, file)

    def _load(self, path: Path, facts: dict[str, Any], device_id: int) -> Engine:
        return PyTorchEngine(facts, network.load_file(facts["model"], path))


class PyTorchEngine(Engine):
    """A torch module in eval mode."""

    def __init__(self, facts: dict[str, Any], module: torch.nn.Module) -> None:
        """Takes over the module."""
        super().__init__(facts)
        self._module = module

    def _run(self, batch: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return self._module(torch.from_numpy(batch)).numpy()

    def _close(self) -> None:
        self._module = None


def engine_of(module: torch.nn.Module) -> Engine:
    """Returns an engine around a network from `network.load`, for a look at it before the export."""
    facts = {"backend": "pytorch", "precision": "force_float32", "input_type": "float32"}
    return PyTorchEngine({**facts, "dynamic_shape": True, "shapes": {}}, module)


BACKEND = PyTorchBackend()
