"""What the tests of this folder share: the engine of the demo weights, and a home to run commands in."""

from __future__ import annotations

import shutil

import pytest

from tests.faults.command import Home
from tests.unit.conftest import demo_built, demo_engine

__all__ = ["demo_built", "demo_engine"]


@pytest.fixture
def home(tmp_path, demo_built) -> Home:
    """A home in which MobileNetv2 with demo weights is exported and built."""
    shutil.copytree(str(demo_built.parents[2]), str(tmp_path / "models"))
    return Home(tmp_path / "models", tmp_path / "output")
