"""The small values that calls take and answer with: Status, Dims and the enumerations."""

from __future__ import annotations

import enum
from typing import Any, Sequence

import numpy as np

from helpers.backends.simulator.trace import Misuse


class Code(enum.Enum):
    """Kinds of failure, of which one is known."""

    OUT_OF_RANGE = 1


class Status:
    """The answer of a call that may fail.

    Args:
        code: the kind of failure; without one all is well.
        message: what failed.
    """

    __slots__ = ("_message",)
    __hash__ = None

    def __init__(self, code: Code | None = None, message: str = "") -> None:
        if (code is not None and not isinstance(code, Code)) or not isinstance(message, str) or (message and not code):
            raise Misuse(f"a Status is made of nothing, or of a Code and a text, not of {code!r} and {message!r}")
        self._message = message if code is None else f"{code.name}: {message}"

    @staticmethod
    def OK() -> Status:
        """The answer that all is well."""
        return Status()

    def ok(self) -> bool:
        """Whether all is well."""
        return not self._message

    def __str__(self) -> str:
        """What failed."""
        return self._message or "OK"

    def __bool__(self) -> bool:
        """What a Status is worth by itself is not known."""
        raise Misuse("a Status has no truth value; ask it .ok()")

    def __eq__(self, other: object) -> bool:
        """How two compare is not known."""
        raise Misuse("two Status cannot be compared; ask each .ok()")


def failure(message: str) -> Status:
    """A Status of a kind of which public code does not know the name."""
    status = Status()
    status._message = message or "failed"
    return status


class DataType(enum.Enum):
    """Types of values in tensors."""

    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    FLOAT16 = 8
    FLOAT32 = 9
    FLOAT64 = 10
    BOOL = 11
    QINT8 = 12
    QINT16 = 13


class ModelKind(enum.Enum):
    """Kinds of files that a parser reads; here ONNX only."""

    kOnnx = 1


class QuantizationAlgorithm(enum.Enum):
    """Ways to choose the range of an activation."""

    LINEAR_ALGORITHM = 1
    EQNM_ALGORITHM = 2


class Dims:
    """Sizes of a tensor; -1 is open.

    Args:
        sizes: whole numbers.
    """

    __slots__ = ("_sizes",)
    __hash__ = None

    def __init__(self, sizes: Sequence[int]) -> None:
        if not all(isinstance(size, (int, np.integer)) and size >= -1 for size in sizes):
            raise Misuse(f"Dims are whole numbers, or -1 for an open one, not {sizes}")
        self._sizes = [int(size) for size in sizes]

    def GetDims(self) -> list[int]:
        """All sizes; a list of the caller's own."""
        return list(self._sizes)

    def GetDimValue(self, index: int) -> int:
        """One size."""
        return self._sizes[index]

    def __eq__(self, other: object) -> bool:
        """How two compare is not known."""
        raise Misuse("two Dims cannot be compared; compare their GetDims()")

    def __repr__(self) -> str:
        """As the real one prints them: in brackets."""
        return str(self._sizes)


_NUMPY = {
    DataType[name.upper()]: np.dtype(name)
    for name in (
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"),
        *("float16", "float32", "float64", "bool"),
    )
}


def get_numpy_dtype_by_datatype(data_type: DataType) -> Any:
    """NumPy's type for MagicMind's."""
    if data_type not in _NUMPY:
        raise Misuse(f"NumPy has no type for {data_type}")
    return _NUMPY[data_type]


def get_datatype_by_numpy(dtype: Any) -> DataType:
    """MagicMind's type for NumPy's."""
    for data_type, known in _NUMPY.items():
        if known == np.dtype(dtype):
            return data_type
    raise Misuse(f"MagicMind has no type for {dtype}")
