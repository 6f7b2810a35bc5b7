"""The two kinds of errors that are not bugs; the command line maps them to exit statuses."""

from __future__ import annotations

import difflib
from typing import Iterable


class UsageError(ValueError):
    """An argument is wrong: unknown model, precision or backend, a number out of range (exit status 2)."""


class DataError(RuntimeError):
    """A required file, library or device is missing, damaged or does not fit (exit status 1)."""


def first_line(error: BaseException) -> str:
    """Returns the first line of a library's message, without its full stop, to be quoted in a sentence of ours."""
    return str(error).strip().split("\n")[0].rstrip(".")


def did_you_mean(wrong: str, right: Iterable[str]) -> str:
    """Returns the end of an error message about a wrong name: 'did you mean HRNet? (choices: ...)'."""
    right = list(right)
    folded = {name.lower(): name for name in right}
    close = difflib.get_close_matches(str(wrong).lower(), folded, n=1)
    listed = ", ".join(right)
    return f"did you mean {folded[close[0]]}? (choices: {listed})" if close else f"choose one of {listed}"
