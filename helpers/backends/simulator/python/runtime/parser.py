"""Answers to `magicmind.python.runtime.parser`."""

from __future__ import annotations

from helpers.backends.simulator.graph import Parser

__all__ = ["Parser"]
