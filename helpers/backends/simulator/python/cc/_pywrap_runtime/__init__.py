"""Answers to `magicmind.python.cc._pywrap_runtime`."""

from helpers.backends.simulator.graph import ITensor

__all__ = ["ITensor"]
