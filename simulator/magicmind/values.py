"""What every part needs: the log of calls, objects that outlive others, Status, Dims and the enumerations."""

from __future__ import annotations

import collections
import enum
import logging
import sys
import weakref
from typing import Any, Sequence

import numpy as np


class Misuse(RuntimeError):
    """A call that MagicMind is not known to allow: out of order, too early, on something that is gone."""


# `step` is class and method, `Builder.build_model`; `arguments` are JSON types, by name.
Call = collections.namedtuple("Call", "step arguments")
# The latest calls of this process; older ones are forgotten, so that a long run does not fill the memory.
CALLS: collections.deque = collections.deque(maxlen=1000)


def note(step: str, **arguments: Any) -> None:
    """Adds a call to `CALLS`."""
    CALLS.append(Call(step, arguments))


def complain(reason: str) -> None:
    """Prints why a call that can only answer None has failed, as MagicMind prints it to standard error."""
    logging.getLogger("MagicMind simulator").error("MagicMind simulator: %s", reason)


class Held:
    """Something that must outlive what is made from it; `makers` are what it is made from itself."""

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


Code = enum.Enum("Code", ["OUT_OF_RANGE"])
DataType = enum.Enum("DataType", "INT8 INT16 INT32 INT64 UINT8 UINT16 UINT32 FLOAT16 FLOAT32 FLOAT64 BOOL QINT8 QINT16")
ModelKind = enum.Enum("ModelKind", ["kOnnx"])
QuantizationAlgorithm = enum.Enum("QuantizationAlgorithm", ["LINEAR_ALGORITHM", "EQNM_ALGORITHM"])


class Status:
    """The answer of a call that may fail; without a code, success."""

    __slots__ = ("_message",)
    __hash__ = None

    def __init__(self, code: Code | None = None, message: str = "") -> None:
        if (code is not None and not isinstance(code, Code)) or not isinstance(message, str) or (message and not code):
            raise Misuse(f"a Status is made of nothing, or of a Code and a text, not of {code!r} and {message!r}")
        self._message = message if code is None else f"{code.name}: {message}"

    @staticmethod
    def OK() -> Status:
        """Returns the answer of success."""
        return Status()

    def ok(self) -> bool:
        """Tells success."""
        return not self._message

    def __str__(self) -> str:
        """Returns what failed."""
        return self._message or "OK"

    def __bool__(self) -> bool:
        """Raises: its truth value is not documented."""
        raise Misuse("a Status has no truth value; ask it .ok()")

    def __eq__(self, other: object) -> bool:
        """Raises: comparison is not documented."""
        raise Misuse("two Status cannot be compared; ask each .ok()")


def failure(message: str) -> Status:
    """Returns a Status of a kind of which public code does not know the name."""
    status = Status()
    status._message = message or "failed"
    return status


class Dims:
    """Sizes of a tensor; -1 is open."""

    __slots__ = ("_sizes",)
    __hash__ = None

    def __init__(self, sizes: Sequence[int]) -> None:
        if not all(isinstance(size, (int, np.integer)) and size >= -1 for size in sizes):
            raise Misuse(f"Dims must be whole numbers, -1 for an open one, not {sizes}")
        self._sizes = [int(size) for size in sizes]

    def GetDims(self) -> list[int]:
        """Returns all sizes, a copy."""
        return list(self._sizes)

    def __eq__(self, other: object) -> bool:
        """Raises: comparison is not documented."""
        raise Misuse("two Dims cannot be compared; compare their GetDims()")

    def __repr__(self) -> str:
        """Returns the sizes in brackets, as the real one prints them."""
        return str(self._sizes)
