"""As in MagicMind."""

from magicmind.values import get_datatype_by_numpy, get_numpy_dtype_by_datatype  # noqa: F401
