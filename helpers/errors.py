"""The two ways a run can go wrong through no fault of the code; the command line maps them to exit codes."""

from __future__ import annotations


class UsageError(ValueError):
    """An argument is wrong: unknown model, precision or backend, a number out of range (exit status 2)."""


class DataError(RuntimeError):
    """A file or what is in it is wrong: missing, truncated, of another network (exit status 1)."""
