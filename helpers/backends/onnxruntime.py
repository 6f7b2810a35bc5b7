"""ONNX Runtime on the CPU: the default engine, which runs anywhere.

The built model is an ONNX file, without the extension. In float32 it is optimized ahead of time, up to the level whose
result does not depend on the machine; memory layout, which does, is chosen at load. In the other precisions it is as
`quantize` writes it, and optimized only at load: float16 weights would grow back to 32 bits otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from helpers import zoo
from helpers.backends import quantize
from helpers.backends.base import Backend, BuildSpec, Engine, threads
from helpers.errors import DataError, first_line

if TYPE_CHECKING:
    import onnxruntime

    from helpers.backends.base import Calibration

_ERRORS_ONLY = 3  # ONNX Runtime's log level
_PROVIDERS = ["CPUExecutionProvider"]


class OnnxRuntimeBackend(Backend):
    """Builds and loads models for ONNX Runtime's CPU kernels."""

    name = "onnxruntime"

    def precisions(self) -> tuple[str, ...]:
        """Returns those that have a recipe."""
        return tuple(_RECIPES)

    def _build(self, onnx_path: Path, spec: BuildSpec, calibration: Calibration | None, out: Path) -> None:
        _RECIPES[spec.precision](onnx_path, spec, calibration, out)

    def _load(self, path: Path, facts: dict[str, Any], device_id: int) -> Engine:
        options = _options()
        options.intra_op_num_threads = threads()
        return OnnxRuntimeEngine(facts, _session(path, options))


class OnnxRuntimeEngine(Engine):
    """A session of ONNX Runtime."""

    def __init__(self, facts: dict[str, Any], session: onnxruntime.InferenceSession) -> None:
        """Takes over the session."""
        super().__init__(facts)
        self._session = session

    def _run(self, batch: np.ndarray) -> np.ndarray:
        try:
            return self._session.run(None, {"input": batch})[0]
        except Exception as error:
            raise DataError(f"ONNX Runtime failed on {batch.shape}: {first_line(error)}.") from error

    def _close(self) -> None:
        self._session = None


def _force_float32(onnx_path: Path, spec: BuildSpec, calibration: Calibration | None, out: Path) -> None:
    """Optimizes the graph; a static shape is written into it, so that it can be planned for."""
    import onnxruntime

    options = _options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(out)
    if not spec.dynamic_shape:
        for axis, size in zip(("batch", "height", "width"), (spec.batch_size, *spec.input_shape)):
            options.add_free_dimension_override_by_name(axis, size)
    _session(onnx_path, options)


def _force_float16(onnx_path: Path, spec: BuildSpec, calibration: Calibration | None, out: Path) -> None:
    """Rounds weights and what operators give to half; computed in float32, so it shows accuracy and size, not speed."""
    quantize.save(quantize.to_float16(quantize.load(onnx_path)), spec, out)


# How each precision is built.
_RECIPES: dict[str, Callable[[Path, BuildSpec, Calibration | None, Path], None]] = {
    "force_float32": _force_float32,
    "force_float16": _force_float16,
    **{precision: quantize.quantize_file for precision in zoo.PRECISIONS if precision.startswith("qint")},
}


def _options() -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    return options


def _session(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(str(path), options, providers=_PROVIDERS)
    except Exception as error:  # a dozen kinds, without a common ancestor
        raise DataError(f"ONNX Runtime cannot read {path}: {first_line(error)}.") from error


BACKEND = OnnxRuntimeBackend()
