"""What was called, and what must not be called so."""

from __future__ import annotations

import collections
import logging
import sys
import weakref
from typing import Any, NamedTuple

LABEL = "simulated MLU: calls and accuracy path, not speed"

_LOG = logging.getLogger("simulated MLU")


class Misuse(RuntimeError):
    """A call that MagicMind is not known to allow: out of order, too early, on something that is gone."""


class Call(NamedTuple):
    """One call.

    Attributes:
        step: class and method, `Builder.build_model`.
        arguments: as JSON types, by name.
    """

    step: str
    arguments: dict


# The latest calls of this process; older ones are forgotten, so that a long run does not fill the memory.
CALLS: collections.deque = collections.deque(maxlen=1000)


def note(step: str, **arguments: Any) -> None:
    """Adds a call to `CALLS`."""
    CALLS.append(Call(step, arguments))


def complain(reason: str) -> None:
    """Prints why a call that can only answer None has failed, as MagicMind prints it to standard error."""
    _LOG.error("simulated MLU: %s", reason)


class Held:
    """Something that must outlive what was made from it.

    Args:
        *makers: what this was made from.
    """

    __slots__ = ("__weakref__", "_users")

    def __init__(self, *makers: Held) -> None:
        self._users: weakref.WeakSet = weakref.WeakSet()
        for maker in makers:
            maker.serves(self)

    def serves(self, user: Held) -> None:
        """Notes that `user` has to go first."""
        self._users.add(user)

    def __del__(self) -> None:
        """Shows, on standard error, that something went before its users; at the end of the process all may go."""
        alive = sorted({type(user).__name__ for user in getattr(self, "_users", ())})
        if alive and not sys.is_finalizing():
            raise Misuse(f"{type(self).__name__} went before its {' and '.join(alive)}; let go of those first")
