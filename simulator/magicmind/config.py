"""BuilderConfig: JSON in, once; what is not known is refused."""

from __future__ import annotations

import json
import re
from typing import Any, Mapping, Sequence

from magicmind.values import Status, failure, note


class BuilderConfig:
    """What is to be built, and for what."""

    __slots__ = ("_settings",)

    def __init__(self) -> None:
        note("BuilderConfig")
        self._settings: dict[str, Any] = {}

    def parse_from_string(self, text: str) -> Status:
        """Takes all settings at once."""
        try:
            piece = json.loads(text)
        except ValueError as error:
            return failure(f"the configuration is not JSON: {error}")
        note("BuilderConfig.parse_from_string", settings=piece)
        fault = _fault(piece, _KEYS, "") or _range_fault(piece.get("dim_range", {}))
        if fault or self._settings:
            return failure(fault or "the configuration was filled before")
        self._settings = piece
        return Status.OK()


def shape_fault(shape: Sequence[int], dims: list[int], settings: Mapping[str, Any]) -> str:
    """Says why an input (N, 3, H, W) is not taken by a network's input; empty if it is."""
    if not settings.get("graph_shape_mutable"):
        return "" if list(shape) == dims else f"a shape of {list(shape)}, but {dims} is fixed"
    bounds = settings.get("dim_range", {}).get("0")
    if bounds is None:
        return "" if len(shape) == len(dims) else f"a shape of {list(shape)} for {dims}"
    low, high = bounds["min"], bounds["max"]
    inside = len(shape) == len(low) and all(a <= size <= b for a, size, b in zip(low, shape, high))
    return "" if inside else f"a shape of {list(shape)}, outside dim_range {low} to {high}"


def _fault(piece: Any, known: Mapping[str, Any], where: str) -> str:
    """Says which key is unknown or has a wrong value; empty if none."""
    if not isinstance(piece, dict):
        return f"{where.rstrip('.') or 'the configuration'} must be an object, not {piece!r}"
    for key, value in piece.items():
        if key not in known:
            return f"unknown key {where}{key}"
        if isinstance(known[key], dict):
            fault = _fault(value, known[key], f"{where}{key}.")
            if fault:
                return fault
        elif not re.fullmatch(known[key], json.dumps(value, sort_keys=True)):
            return f"wrong value of {where}{key}: {value!r}"
    return ""


def _range_fault(ranges: Mapping[str, Any]) -> str:
    for index, bounds in ranges.items():
        least, most = bounds["min"], bounds["max"]
        if len(least) != len(most) or any(a > b for a, b in zip(least, most)):
            return f"dim_range of input {index} is not a range: {least} to {most}"
    return ""


_BOOLEAN = "true|false"
_COUNTS = r"\[[1-9]\d*(, [1-9]\d*)*\]"
_ARCH = rf'{{"m?tp_\d+": {_COUNTS}}}'
_NUMBERS = r"\[[\d.e+-]+(, [\d.e+-]+){2}\]"
_LAYOUT = '"(NCHW|NHWC)"'


def _by_input(first: str, second: str, value: str) -> str:
    """Returns the pattern of an object by number of the input, each with these two keys."""
    each = rf'"\d+": {{"{first}": {value}, "{second}": {value}}}'
    return rf"{{{each}(, {each})*}}"


# What the simulator can do, of what public code is known to use (docs/mlu.md): patterns of the JSON, with sorted keys.
_KEYS: dict[str, Any] = {
    "archs": rf"\[{_ARCH}(, {_ARCH})*\]",
    "graph_shape_mutable": _BOOLEAN,
    "dim_range": _by_input("max", "min", _COUNTS),
    "precision_config": {
        "precision_mode": '"(force_float(16|32)|qint(8|16)_mixed_float(16|32))"',
        "weight_quant_granularity": '"per_(tensor|axis)"',
        "activation_quant_algo": '"a?symmetric"',
    },
    "computation_preference": '"(auto|fast|high_precision)"',
    "opt_config": {"type64to32_conversion": _BOOLEAN, "conv_scale_fold": _BOOLEAN},
    "insert_bn_before_firstnode": _by_input("mean", "var", _NUMBERS),
    "convert_input_layout": _by_input("dst", "src", _LAYOUT),
}
