"""Makes `import mmpose` work in this folder, whose tests compare our rooms with mmpose's own functions.

mmpose 0.29.0 and mmcv 1.7.0 import torchvision and xtcocotools at their top level; we install neither (the
reasons are in requirements-mmpose.txt). Nothing the parity tests call needs them, so both names are given to
stand-ins here: empty modules for torchvision, and for xtcocotools the pycocotools of which it is a fork.
pytest imports this file before the test modules beside it, so those may import mmpose at their top.
"""

from __future__ import annotations

import sys
import types
from importlib.machinery import PathFinder

import cv2
import pycocotools
import pycocotools.coco
import pycocotools.cocoeval
import pycocotools.mask
import pytest
import torch

REPORT: list[str] = []


@pytest.fixture(scope="session")
def parity_report() -> list[str]:
    """Lines about what was compared and how it came out; they are printed after the tests."""
    return REPORT


def pytest_terminal_summary(terminalreporter) -> None:
    """Publishes the parity report, passed or failed."""
    if REPORT:
        terminalreporter.section("parity with mmpose 0.29.0")
        terminalreporter.write_line("\n".join(REPORT))


def pytest_configure(config) -> None:
    """Keeps mmpose's and mmcv's notices about their own age out of the test report."""
    config.addinivalue_line("filterwarnings", "ignore:On January 1, 2023, MMCV:UserWarning")
    config.addinivalue_line("filterwarnings", "ignore:Fail to import:UserWarning")
    config.addinivalue_line("filterwarnings", "ignore:Please import `gaussian_filter1d`:DeprecationWarning")


def _empty_module(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__version__ = "0.0.0"  # mmcv asks whether it is below 0.13
    module.__path__ = []
    return module


def _stand_in(package: str, modules: dict[str, types.ModuleType]) -> None:
    """Serves `import package` and its submodules from `modules`, unless the real package is installed."""
    if PathFinder.find_spec(package) is not None:
        return
    for name, module in modules.items():
        sys.modules.setdefault(name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, sys.modules[name])


_stand_in(
    "torchvision",
    {
        name: _empty_module(name)
        for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    },
)
_stand_in(
    "xtcocotools",
    {
        "xtcocotools": pycocotools,
        "xtcocotools.coco": pycocotools.coco,
        "xtcocotools.cocoeval": pycocotools.cocoeval,
        "xtcocotools.mask": pycocotools.mask,
    },
)
cv2.setNumThreads(1)
torch.set_num_threads(1)
