"""As in MagicMind."""

from magicmind.network import Parser  # noqa: F401
