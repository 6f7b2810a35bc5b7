"""The two ways a run can go wrong through no fault of the code; the command line maps them to exit codes."""

from __future__ import annotations

import difflib
from typing import Iterable


class UsageError(ValueError):
    """An argument is wrong: unknown model, precision or backend, a number out of range (exit status 2)."""


class DataError(RuntimeError):
    """What a run needs is missing or wrong: a file or what is in it, a library, a card (exit status 1)."""


def first_line(error: BaseException) -> str:
    """The first line of what a library says, without its full stop, to be quoted in a sentence of ours."""
    return str(error).strip().split("\n")[0].rstrip(".")


def did_you_mean(wrong: str, right: Iterable[str]) -> str:
    """Returns the end of an error message: 'did you mean HRNet? (choices: ...)'.

    Args:
        wrong: what was asked for.
        right: what there is.
    """
    right = list(right)
    folded = {name.lower(): name for name in right}
    close = difflib.get_close_matches(str(wrong).lower(), folded, n=1)
    listed = ", ".join(right)
    return f"did you mean {folded[close[0]]}? (choices: {listed})" if close else f"choose one of {listed}"
