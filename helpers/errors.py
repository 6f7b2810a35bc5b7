"""The two ways a run can go wrong through no fault of the code; the command line maps them to exit codes."""

from __future__ import annotations


class UsageError(ValueError):
    """An argument is wrong: unknown model, precision or backend, a number out of range (exit status 2)."""


class DataError(RuntimeError):
    """What a run needs is missing or wrong: a file or what is in it, a library, a card (exit status 1)."""


def first_line(error: BaseException) -> str:
    """The first line of what a library says, without its full stop, to be quoted in a sentence of ours."""
    return str(error).strip().split("\n")[0].rstrip(".")
