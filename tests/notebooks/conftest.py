"""What the runs of notebooks share."""

from __future__ import annotations

import pytest

from helpers import paths

# What a kernel runs first: an export is compared with PyTorch at one small size; tests/unit compares thoroughly.
KERNEL_START = """
from helpers.export import export
export.CHECK_SHAPES = [(128, 192)]
export.export.__kwdefaults__.update(shapes=[(128, 192)], batches=[1])
"""


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """One place for exported and built models: a network is exported once, however many runs use it."""
    profile = tmp_path_factory.mktemp("ipython")
    start = profile / "profile_default" / "startup"
    start.mkdir(parents=True)
    (start / "first.py").write_text(KERNEL_START)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(profile))
        patch.setenv("PYTHONPATH", str(paths.root()))
        yield tmp_path_factory.mktemp("models")
