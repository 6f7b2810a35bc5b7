"""Makes `import mmpose` work in this folder, whose tests compare our modules with mmpose's own functions.

pytest imports this file before the test modules beside it, so those may import mmpose at their top.
"""

from __future__ import annotations

import cv2
import pytest
import torch

from helpers.export import mmpose_chain

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


mmpose_chain.make_importable()
cv2.setNumThreads(1)
torch.set_num_threads(1)
