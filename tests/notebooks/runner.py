"""Runs a notebook as `make run` does, with other parameters."""

from __future__ import annotations

from pathlib import Path

import nbformat
import papermill
import pytest

from tests.notebooks.lint import FOLDER

__all__ = ["FOLDER", "run"]


def run(name: str, out: Path, models: Path, **parameters) -> nbformat.NotebookNode:
    """Executes notebooks/NAME.ipynb.

    Args:
        name: without `.ipynb`.
        out: where pictures, records and the executed notebook go.
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
