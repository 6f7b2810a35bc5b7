"""As in MagicMind."""

from magicmind.network import Parser

__all__ = ["Parser"]
