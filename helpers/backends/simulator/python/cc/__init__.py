"""As in the magicmind package."""
