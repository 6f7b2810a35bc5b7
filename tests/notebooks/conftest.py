"""What the runs of notebooks share."""

from __future__ import annotations

import pytest

from helpers import paths
from tests.notebooks.runner import kernel_start


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """One place for exported and built models: a network is exported once, however many runs use it."""
    profile = tmp_path_factory.mktemp("ipython")
    kernel_start(profile)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(profile))
        patch.setenv("PYTHONPATH", str(paths.root()))
        yield tmp_path_factory.mktemp("models")
