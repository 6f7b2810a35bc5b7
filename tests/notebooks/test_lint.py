"""The notebooks keep to the rules, and each rule finds what breaks it."""

from __future__ import annotations

import copy

import nbformat
import pytest

from tests.notebooks.lint import FOLDER, faults

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_keeps_to_the_rules(path):
    assert faults(path) == []


@pytest.fixture(scope="module")
def good():
    return nbformat.read(FOLDER / "01_export.ipynb", as_version=4)


def first(notebook, kind: str, word: str = ""):
    return next(cell for cell in notebook.cells if cell.cell_type == kind and word in cell.source)


def replace(kind: str, old: str, new: str):
    """A change of the first cell of that kind that has `old`."""

    def change(notebook):
        cell = first(notebook, kind, old)
        cell.source = cell.source.replace(old, new, 1)

    return change


def with_output(notebook):
    first(notebook, "code").outputs = [nbformat.v4.new_output("stream", text="x")]


def with_a_count(notebook):
    first(notebook, "code").execution_count = 3


def with_an_id_twice(notebook):
    notebook.cells[3].id = notebook.cells[2].id


def with_a_random_id(notebook):
    notebook.cells[3].id = "a1b2c3d4"


def with_another_kernel(notebook):
    notebook.metadata.kernelspec.name = "magicmind"


def without_tag(notebook):
    first(notebook, "code").metadata.tags = []


def too_large(notebook):
    notebook.cells[3].source += "x" * 200_000


def without_attachment(notebook):
    del notebook.cells[0]["attachments"]


BREAKS = {
    "is not stripped": [with_output, with_a_count],
    "same id": [with_an_id_twice],
    "were not kept": [with_a_random_id],
    "kernel is not python3": [with_another_kernel],
    "more than 200000": [too_large],
    "not a title with the number 1": [replace("markdown", "# 1 ", "# 2 ")],
    "no **You need**": [replace("markdown", "**You need**", "You need")],
    "contents are not those": [
        replace("markdown", "## Export", "## Exporting"),
        replace("markdown", "(#Export)", "(#export)"),
        replace("markdown", "2. [", "2. ["[:-1]),
    ],
    "does not show what is attached": [without_attachment],
    "no image with words": [replace("markdown", "![Heatmaps", "[Heatmaps")],
    "is not closed": [replace("markdown", "</details>", "")],
    "no **Try**": [replace("markdown", "**Try**", "Try")],
    "does not call notebook.start()": [replace("code", "notebook.start()", "print()")],
    "belongs in helpers": [
        replace("code", "keypoints = ", "def f(): pass\nkeypoints = "),
        replace("code", "keypoints = ", "\n" * 30 + "keypoints = "),
    ],
    "not one": [without_tag],
    "not a literal with a type": [
        replace("code", "image_id: int = 20132", "image_id = 20132"),
        replace("code", "image_id: int = 20132", "image_id: int = 4 * 5033"),
    ],
    "is there an = in the comment": [replace("code", "the demo image to look at", "the image, 1 = first")],
    "has no comment that says": [replace("code", "  # the demo image to look at", "")],
    "the type of image_id is none": [replace("code", "image_id: int = 20132", "image_id: tuple = (20132,)")],
    "not all parameters": [replace("code", "out: str", "out_folder: str")],
}


@pytest.mark.parametrize(
    ("told", "change"), [pytest.param(told, change, id=told) for told, changes in BREAKS.items() for change in changes]
)
def test_each_rule_finds_what_breaks_it(good, tmp_path, told, change):
    broken = copy.deepcopy(good)
    change(broken)
    assert broken != good
    path = tmp_path / "01_export.ipynb"
    path.write_text(nbformat.v4.writes(broken), encoding="utf-8")  # as it is: nbformat.write mends equal ids
    found = faults(path)
    assert any(told in fault for fault in found), found
