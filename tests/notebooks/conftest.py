"""What the runs of notebooks share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """One place for exported and built models: a network is exported once, however many runs use it."""
    return tmp_path_factory.mktemp("models")
