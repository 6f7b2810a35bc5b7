"""The engines that run a network, one module each, behind one contract (`base`).

    backend = backends.get("onnxruntime")
    path = backend.build(onnx_path, BuildSpec("force_float32"))     # at once if nothing changed
    with backend.load(path) as engine:
        output = engine.run(batch)                                  # (N, 3, H, W) -> (N, 34, H/4, W/4)

An engine's own library is imported when it is first needed, so asking for names costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

from helpers import zoo
from helpers.backends.base import Backend, BuildSpec, Engine
from helpers.errors import UsageError, did_you_mean

__all__ = ["MEANINGS", "Backend", "BuildSpec", "Engine", "get", "meanings", "names", "overview"]

_NAMES = ("onnxruntime", "magicmind", "openvino", "pytorch")  # each a module of this package

# What the name of a precision means, by backend. Absent: that backend does not build it.
MEANINGS = {
    "force_float32": {
        "onnxruntime": "weights, activations and arithmetic in float32",
        "openvino": "the same",
        "magicmind": "the same",
        "pytorch": "the same, as MMPose has it: the reference",
    },
    "force_float16": {
        "onnxruntime": "weights, and what operators give, rounded to float16; arithmetic in float32, so it shows "
        "accuracy and size, not speed",
        "openvino": "weights in float16; arithmetic in float16, bfloat16 or float32, the first that the CPU has",
        "magicmind": "weights, activations and arithmetic in float16",
    },
    "qint8_mixed_float16": {
        "onnxruntime": "8 bits: weights signed, a scale per channel, activations unsigned, a scale per tensor; the "
        "last layers stay in float, with float16 weights and outputs",
        "openvino": "the same file, run by OpenVINO",
        "magicmind": "convolutions in 8 bits, the rest in float16",
    },
    "qint8_mixed_float32": {
        "onnxruntime": "the same 8 bits; the last layers in float32",
        "openvino": "the same file, run by OpenVINO",
        "magicmind": "convolutions in 8 bits, the rest in float32",
    },
    "qint16_mixed_float16": {
        "onnxruntime": "as qint8, with 16 bits for weights and activations; arithmetic in float32, so it shows "
        "accuracy and size, not speed",
        "magicmind": "convolutions in 16 bits, the rest in float16",
    },
    "qint16_mixed_float32": {
        "onnxruntime": "the same 16 bits; the last layers in float32",
        "magicmind": "convolutions in 16 bits, the rest in float32",
    },
}


def meanings() -> list[dict[str, str]]:
    """Returns one row per precision for a table: what its name means on each backend."""
    return [
        {"precision": precision, **{name: MEANINGS[precision].get(name, "-") for name in names()}}
        for precision in zoo.PRECISIONS
    ]


def names() -> tuple[str, ...]:
    """Returns the names that `get` knows."""
    return _NAMES


def get(name: str, **options: Any) -> Backend:
    """Returns a backend by name, whether or not it can run here (`is_available` tells).

    Options are those of that backend alone, such as `mlu_arch="mtp_592"` (`magicmind.Options`); false, empty or None is
    as good as not given.
    """
    given = {key: value for key, value in options.items() if value}
    if name not in _NAMES:
        raise UsageError(f"There is no backend {name!r}; {did_you_mean(name, _NAMES)}.")
    backend = importlib.import_module(f"{__name__}.{name}").BACKEND
    return backend.configured(**given) if given else backend


def overview() -> list[dict[str, str]]:
    """Returns one row per backend for a table: whether it can run here, its version or why not, what it builds."""
    rows = []
    for name in names():
        backend = get(name)
        available, reason = backend.is_available()
        row = {"backend": name, "available": "yes" if available else "no"}
        row["version, or why not"] = backend.version() if available else reason
        row["builds"] = ", ".join(backend.precisions())
        rows.append(row)
    return rows
