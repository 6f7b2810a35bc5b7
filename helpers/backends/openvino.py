"""OpenVINO on the CPU: a second engine, which computes in bfloat16 or int8 where the processor can.

A built model is an uncompressed zip file of the two that OpenVINO writes, description and weights. It suits every CPU;
what depends on the machine is done at load.

| precision | weights in the file | computation |
| --- | --- | --- |
| `force_float32` | float32 | float32, always: left alone, OpenVINO takes bfloat16 where the CPU has it |
| `force_float16` | float16 | as the CPU allows: float16 (AVX512-FP16, AMX-FP16), else bfloat16, else float32 |
| `qint8_mixed_*` | int8 | int8, and what is not quantized as above |

So on many servers `force_float16` means bfloat16, with 8 significant bits instead of 11: its errors are not a card's.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers.backends import quantize
from helpers.backends.base import Backend, BuildSpec, Engine, threads
from helpers.errors import DataError

if TYPE_CHECKING:
    import openvino

    from helpers.backends.base import Calibration

# How each precision computes what is not quantized.
_HINTS = {
    "force_float32": "f32",
    "force_float16": "f16",
    "qint8_mixed_float16": "f16",
    "qint8_mixed_float32": "f32",
}
_MEMBERS = ("model.xml", "model.bin")  # of the zip file: the description, the weights
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the date of both: a zip file has to have one, and today's would say nothing


class OpenVinoBackend(Backend):
    """Builds and loads models for OpenVINO's CPU plugin."""

    name = "openvino"

    def precisions(self) -> tuple[str, ...]:
        """Returns those that its CPU kernels have: none of 16-bit integers."""
        return tuple(_HINTS)

    def _build(self, onnx_path: Path, spec: BuildSpec, calibration: Calibration | None, out: Path) -> None:
        import openvino

        with tempfile.TemporaryDirectory(prefix=f"{out.name}-", dir=str(out.parent)) as folder:
            if spec.needs_calibration:
                quantized = Path(folder) / "model.onnx"
                # What is not rounded stays float32 in the file: the hint says what it is computed in.
                spec32 = dataclasses.replace(spec, precision="qint8_mixed_float32")
                quantize.quantize_file(onnx_path, spec32, calibration, quantized)
                onnx_path = quantized
            members = [Path(folder) / name for name in _MEMBERS]
            try:
                model = _core().read_model(str(onnx_path))
                if not spec.dynamic_shape:
                    model.reshape([spec.batch_size, 3, *spec.input_shape])
                openvino.save_model(model, str(members[0]), compress_to_fp16=_HINTS[spec.precision] == "f16")
            except RuntimeError as error:
                raise DataError(f"OpenVINO cannot convert {onnx_path}: {_last_line(error)}.") from error
            with zipfile.ZipFile(str(out), "w") as file:  # byte by byte the same for the same files
                for member in members:
                    file.writestr(zipfile.ZipInfo(member.name, _EPOCH), member.read_bytes())

    def _load(self, path: Path, facts: dict[str, Any], device_id: int) -> Engine:
        config = {
            "INFERENCE_PRECISION_HINT": _HINTS[facts["precision"]],
            "INFERENCE_NUM_THREADS": threads(),
            "PERFORMANCE_HINT": "LATENCY",  # all threads on one batch, as the other engines do
        }
        try:
            with zipfile.ZipFile(str(path)) as file:
                model = _core().read_model(*(file.read(name) for name in _MEMBERS))
            return OpenVinoEngine(facts, _core().compile_model(model, "CPU", config))
        except (RuntimeError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"OpenVINO cannot read {path}: {_last_line(error)}; build it again.") from error


class OpenVinoEngine(Engine):
    """A compiled model of OpenVINO, with one request that runs take in turns."""

    def __init__(self, facts: dict[str, Any], model: openvino.CompiledModel) -> None:
        """Takes over the compiled model."""
        super().__init__(facts)
        self._model = model
        self._request = model.create_infer_request()
        self._turn = threading.Lock()  # a request that is busy refuses a second run

    def _run(self, batch: np.ndarray) -> np.ndarray:
        try:
            with self._turn:
                return self._request.infer([batch], share_inputs=True)[0]  # a copy: the next run reuses the memory
        except RuntimeError as error:
            raise DataError(f"OpenVINO failed on {batch.shape}: {_last_line(error)}.") from error

    def _close(self) -> None:
        self._model = self._request = None


@functools.lru_cache(maxsize=None)
def _core() -> openvino.Core:
    """Returns the process-wide Core; creating one loads the CPU plugin."""
    import openvino

    return openvino.Core()


def _last_line(error: Exception) -> str:
    """Returns what went wrong; OpenVINO's messages begin with where in its source."""
    return str(error).strip().split("\n")[-1].rstrip(".")


BACKEND = OpenVinoBackend()
