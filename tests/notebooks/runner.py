"""Runs a notebook as `make run` does, with other parameters."""

from __future__ import annotations

from pathlib import Path

import nbformat
import papermill
import pytest

from tests.notebooks.lint import FOLDER

__all__ = ["FOLDER", "kernel_start", "run"]

# What a kernel runs first: an export is compared with PyTorch at one small size; tests/unit compares thoroughly.
KERNEL_START = """
from helpers.export import export
export.CHECK_SHAPES = [(128, 192)]
export.export.__kwdefaults__.update(shapes=[(128, 192)], batches=[1])
"""


def kernel_start(profile: Path) -> None:
    """Has every kernel whose IPYTHONDIR is `profile` run `KERNEL_START`."""
    first = profile / "profile_default" / "startup" / "first.py"
    first.parent.mkdir(parents=True)
    first.write_text(KERNEL_START)


def run(name: str, out: Path, models: Path, **parameters) -> nbformat.NotebookNode:
    """Executes notebooks/NAME.ipynb.

    Args:
        name: without `.ipynb`.
        out: where figures, records and the executed notebook go.
        models: where exported and built models go, or are.
        **parameters: as papermill's.

    Returns:
        The executed notebook.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_PATH", str(models))
        return papermill.execute_notebook(
            str(FOLDER / f"{name}.ipynb"),
            str(out / f"{name}.ipynb"),
            {"out": str(out), **parameters},
            cwd=str(FOLDER),
            kernel_name="python3",
            progress_bar=False,
            execution_timeout=420,
        )
