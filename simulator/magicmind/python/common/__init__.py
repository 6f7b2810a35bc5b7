"""As in MagicMind."""
