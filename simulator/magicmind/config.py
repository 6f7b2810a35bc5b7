"""BuilderConfig: JSON in, merged piece by piece; what is not known is refused."""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Mapping, Sequence

from magicmind.values import Status, failure, note

PRECISIONS = (
    "force_float32",
    "force_float16",
    "qint8_mixed_float16",
    "qint8_mixed_float32",
    "qint16_mixed_float16",
    "qint16_mixed_float32",
)


class BuilderConfig:
    """What is to be built, and for what."""

    __slots__ = ("_settings",)

    def __init__(self) -> None:
        note("BuilderConfig")
        self._settings: dict[str, Any] = {}

    def parse_from_string(self, text: str) -> Status:
        """Adds settings to those of earlier calls; in nested objects key by key."""
        try:
            piece = json.loads(text)
        except ValueError as error:
            return failure(f"the configuration is not JSON: {error}")
        note("BuilderConfig.parse_from_string", settings=piece)
        merged = {}
        fault = _fault(piece, _KEYS, "")
        if not fault:
            merged = merge(self._settings, piece)
            fault = _range_fault(merged.get("dim_range", {}))
        if fault:
            return failure(fault)
        self._settings = merged
        return Status.OK()


def merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings after another piece."""
    merged = dict(old)
    for key, value in new.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def shape_fault(shape: Sequence[int], dims: list[int], settings: Mapping[str, Any]) -> str:
    """Says why an input is not taken; empty if it is.

    Args:
        shape: (N, 3, H, W) of the input.
        dims: of the network's input.
        settings: the merged configuration.
    """
    if not settings.get("graph_shape_mutable"):
        return "" if list(shape) == dims else f"a shape of {list(shape)}, but {dims} is fixed"
    bounds = settings.get("dim_range", {}).get("0")
    if bounds is None:
        return "" if len(shape) == len(dims) else f"a shape of {list(shape)} for {dims}"
    low, high = bounds["min"], bounds["max"]
    inside = len(shape) == len(low) and all(a <= size <= b for a, size, b in zip(low, shape, high))
    return "" if inside else f"a shape of {list(shape)}, outside dim_range {low} to {high}"


def _fault(piece: Any, keys: Mapping[str, Any], where: str) -> str:
    """Says which key is unknown or has a wrong value; empty if none."""
    if not isinstance(piece, dict):
        return f"{where.rstrip('.') or 'the configuration'} must be an object, not {piece!r}"
    for key, value in piece.items():
        if key not in keys:
            return f"unknown key {where}{key}"
        fault = _fault(value, keys[key], f"{where}{key}.") if isinstance(keys[key], dict) else ""
        if fault:
            return fault
        if callable(keys[key]) and not keys[key](value):
            return f"wrong value of {where}{key}: {value!r}"
    return ""


def _range_fault(ranges: Mapping[str, Any]) -> str:
    for index, bounds in ranges.items():
        least, most = bounds["min"], bounds["max"]
        if len(least) != len(most) or any(a > b for a, b in zip(least, most)):
            return f"dim_range of input {index} is not a range: {least} to {most}"
    return ""


def _one_of(*names: str) -> Callable[[Any], bool]:
    return lambda value: value in names


def _boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _archs(value: Any) -> bool:
    """Accepts `["mtp_372"]`, `[{"mtp_372": [6, 8]}]`, or both kinds in one list."""
    if not isinstance(value, list) or not value:
        return False
    single = [{entry: [1]} if isinstance(entry, str) else entry for entry in value]
    return all(
        isinstance(entry, dict)
        and len(entry) == 1
        and all(re.fullmatch(r"m?tp_\d+", name) and _counts(clusters) for name, clusters in entry.items())
        for entry in single
    )


def _counts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(number) is int and number >= 1 for number in value)


def _three_numbers(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(number) in (int, float) for number in value)


def _by_input(*inner: str, of: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Accepts objects by number of the input, each with all of these keys."""

    def check(value: Any) -> bool:
        return isinstance(value, dict) and all(
            index.isdigit() and isinstance(each, dict) and set(each) == set(inner) and all(map(of, each.values()))
            for index, each in value.items()
        )

    return check


# What the simulator can do, of what public code is known to use; see docs/mlu.md.
_KEYS: dict[str, Any] = {
    "archs": _archs,
    "graph_shape_mutable": _boolean,
    "dim_range": _by_input("min", "max", of=_counts),
    "precision_config": {
        "precision_mode": _one_of(*PRECISIONS),
        "weight_quant_granularity": _one_of("per_tensor", "per_axis"),
        "activation_quant_algo": _one_of("symmetric", "asymmetric"),
    },
    "computation_preference": _one_of("auto", "fast", "high_precision"),
    "opt_config": {"type64to32_conversion": _boolean, "conv_scale_fold": _boolean},
    "insert_bn_before_firstnode": _by_input("mean", "var", of=_three_numbers),
    "convert_input_layout": _by_input("src", "dst", of=_one_of("NCHW", "NHWC")),
}
