"""Answers to `magicmind.python.common.types`."""

from __future__ import annotations

from helpers.backends.simulator.values import get_datatype_by_numpy, get_numpy_dtype_by_datatype

__all__ = ["get_datatype_by_numpy", "get_numpy_dtype_by_datatype"]
