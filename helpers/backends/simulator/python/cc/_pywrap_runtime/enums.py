"""Answers to `magicmind.python.cc._pywrap_runtime.enums`."""

from __future__ import annotations

from helpers.backends.simulator.values import DataType

__all__ = ["DataType"]
