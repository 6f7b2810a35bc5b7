"""Answers to `magicmind.python.runtime.model`."""

from __future__ import annotations

from helpers.backends.simulator.model import Model

__all__ = ["Model"]
