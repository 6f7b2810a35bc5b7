"""What every notebook keeps to as it is committed; `make lint` runs it: `python -m tests.notebooks.lint`.

for fault in faults(Path("notebooks/01_export.ipynb")): print(fault)
"""

from __future__ import annotations

import ast
import json
import logging
import re
import sys
from pathlib import Path
from typing import Iterator

import nbformat
import papermill

FOLDER = Path(__file__).resolve().parent.parent.parent / "notebooks"
MOST_BYTES = 200_000
MOST_LINES = 25  # of a cell of code
KINDS = ("str", "int", "bool", "float", "list")
SECTIONS = ("**You will learn**", "**You need**", "**Contents**")


def faults(path: Path) -> list[str]:
    """What is wrong with a notebook, a sentence each; none if it may be committed."""
    ids = [cell.get("id", "") for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    if len(set(ids)) < len(ids):
        return ["two cells have the same id"]  # which nbformat would mend, unasked
    notebook = nbformat.read(path, as_version=4)
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        return [f"is not a valid notebook: {str(error).splitlines()[0]}"]
    found = [*_as_a_file(path, notebook), *_as_a_lesson(path, notebook), *_code(notebook)]
    return found or list(_parameters(path, notebook))


def _as_a_file(path: Path, notebook: nbformat.NotebookNode) -> Iterator[str]:
    size = path.stat().st_size
    if size > MOST_BYTES:
        yield f"has {size} bytes, more than {MOST_BYTES}"
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "its kernel is not python3"
    number = path.name[:2]
    odd = [cell.id for cell in notebook.cells if not re.fullmatch(rf"{number}-\d\d", cell.id)]
    if odd:
        yield f"the cell ids {odd} were not kept: they are {number}-00, {number}-01 ..., whatever the order"
    for cell in notebook.cells:
        if cell.cell_type == "code" and (cell.outputs or cell.execution_count is not None):
            yield f"the output of cell {cell.id} is not stripped"


def _as_a_lesson(path: Path, notebook: nbformat.NotebookNode) -> Iterator[str]:
    texts = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    first, last = texts[0].source, texts[-1].source
    if not first.startswith(f"# {int(path.name[:2])} "):
        yield f"the first line is not a title with the number {int(path.name[:2])}"
    for section in SECTIONS:
        if section not in first:
            yield f"the first cell has no {section}"
    headings = [line[3:] for cell in texts for line in cell.source.splitlines() if line.startswith("## ")]
    contents = re.findall(r"^\d+\. \[(.+)\]\(#(.+)\)$", first, re.MULTILINE)
    if contents != [(heading, heading.replace(" ", "-")) for heading in headings]:
        yield f"the contents are not those of its headings: {headings}"
    if not re.search(r"!\[[^\]]{20,}\]\(attachment:", first):
        yield "the first cell has no image with words that describe it"
    for cell in texts:
        missing = set(re.findall(r"\(attachment:([^)]+)\)", cell.source)) ^ set(cell.get("attachments", {}))
        if missing:
            yield f"cell {cell.id} does not show what is attached to it, or the other way round: {sorted(missing)}"
        if cell.source.count("<details>") != cell.source.count("</details>"):
            yield f"a <details> in cell {cell.id} is not closed"
    if not any("<details>" in cell.source for cell in texts):
        yield "no exercise has a hidden answer"
    if "**Try**" not in last:
        yield "the last cell has no **Try**"


def _code(notebook: nbformat.NotebookNode) -> Iterator[str]:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if len(cells) < 2 or "notebook.start()" not in cells[1].source:
        yield "the first cell after the parameters does not call notebook.start()"
    for cell in cells:
        if len(cell.source.splitlines()) > MOST_LINES:
            yield f"cell {cell.id} has more than {MOST_LINES} lines: logic belongs in helpers"
        nodes = ast.walk(ast.parse(cell.source))
        if any(isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.While)) for node in nodes):
            yield f"cell {cell.id} defines something or loops: logic belongs in helpers"


def _parameters(path: Path, notebook: nbformat.NotebookNode) -> Iterator[str]:
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        yield f"{len(tagged)} cells have the tag parameters, not one"
        return
    body = ast.parse(tagged[0].source).body
    if not all(isinstance(line, ast.AnnAssign) and _is_literal(line.value) for line in body):
        yield "a parameter is not a literal with a type"
        return
    names = {line.target.id for line in body}
    logging.disable(logging.WARNING)  # of what papermill drops, which is told below
    shown = papermill.inspect_notebook(str(path))
    logging.disable(logging.NOTSET)
    if set(shown) != names:
        yield f"papermill does not see {sorted(names - set(shown))}: is there an = in the comment?"
    for name, parameter in shown.items():
        if parameter["inferred_type_name"] not in KINDS:
            yield f"the type of {name} is none of {', '.join(KINDS)}"
        if len(parameter["help"]) <= 10:
            yield f"{name} has no comment that says what it is"
    if not {"model", "weights", "out"} <= names:
        yield "model, weights and out are not all parameters"


def _is_literal(value: ast.expr | None) -> bool:
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError):
        return False
    return True


def main() -> int:
    """Prints the faults of all notebooks; 1 if there are any."""
    told = [f"{path.name} {fault}" for path in sorted(FOLDER.glob("*.ipynb")) for fault in faults(path)]
    print("\n".join(told) or "All notebooks keep to the rules.")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
