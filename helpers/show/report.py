"""Records, executed notebooks and their figures -> one page of HTML that needs nothing else: no script, no request.

    report.write("report.html", report.gather())

Figures come under the notebook that drew them, with the heading of their section.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping, Sequence

from helpers import artifacts, paths
from helpers.errors import DataError
from helpers.measure import records, tables
from helpers.measure.records import Record

_WIDTH = 1600  # pixels of a figure at most, on a page of 1160: thirty figures take some 2 MB
_WIDE = 1200  # pixels of the PNG from which on a figure gets the whole width of the page
_WEBP_QUALITY = 80
_NEEDED = {"jinja2": "jinja2", "PIL": "pillow"}  # module -> package


@dataclass(frozen=True)
class NotebookRun:
    """What papermill left in an executed notebook."""

    name: str  # of the file
    outcome: str  # "finished", or what kept it from that
    seconds: float | None = None
    headings: Mapping[str, str] = field(default_factory=dict)  # PNG's name -> heading of its section, in order


@dataclass(frozen=True)
class Source:
    """All that a page is made from."""

    rows: Sequence[Record]
    problems: Sequence[str] = ()  # one sentence for each record that could not be read
    figures: Sequence[Path] = ()  # PNG files
    runs: Sequence[NotebookRun] = ()
    shipped: Sequence[Record] = ()  # those of accuracy that come with the repository


@dataclass(frozen=True)
class Table:
    """A table of the page: its heading, how to read it, and rows of column -> value."""

    title: str
    note: str
    rows: Sequence[Mapping[str, Any]]

    @property
    def columns(self) -> list[str]:
        """Returns the columns that any row has, in order."""
        return list(dict.fromkeys(column for row in self.rows for column in row))


def gather(folder: str | os.PathLike[str] | None = None) -> Source:
    """Collects what commands and notebooks left in a folder, data/output by default, that may not exist yet."""
    folder = paths.output() if folder is None else Path(folder)
    rows, problems = records.load_all(folder / "records")
    shipped, broken = records.load_all(paths.demo_scores())
    runs = [_notebook_run(path) for path in sorted(folder.glob("[!.]*.ipynb"))]
    return Source(rows, [*problems, *broken], sorted(folder.glob("[!.]*.png")), runs, shipped)


def missing() -> list[str]:
    """Returns the packages that a page needs and that are not here, by the names that pip knows."""
    return [package for module, package in _NEEDED.items() if importlib.util.find_spec(module) is None]


def write(path: str | os.PathLike[str], source: Source) -> Path:
    """Writes the page and returns its path."""
    if missing():
        raise DataError(f"The page needs {' and '.join(missing())}: pip install {' '.join(missing())}.")
    import jinja2

    groups, broken = _figures(source)
    loader = jinja2.FileSystemLoader(str(Path(__file__).parent))
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text = environment.get_template("report.html").render(
        made=records.now(),
        counts={"records": len(source.rows), "figures": len(source.figures)},
        tables=[table for table in _tables(source, broken) if table.rows],
        groups=groups,
        cell=_cell,
    )
    with artifacts.atomic_write(path) as part:
        part.write_bytes(text.encode("utf-8", "replace"))  # a record may hold half of a surrogate pair
    return Path(path)


def _tables(source: Source, broken: Sequence[str]) -> list[Table]:
    """Returns the tables of a page; those without rows are not shown."""
    real = [row for row in source.rows if not row.simulated]
    scored = sorted(filter(tables.scored, real), key=lambda row: (tables.comparable(row), row.images or 0))
    machines = {json.dumps([row.machine, row.versions], sort_keys=True): row for row in source.rows}
    return [
        Table(
            "Networks",
            "Accuracy and speed in float32. AP is COCO's, from 0 to 1; compare the same weights and images only.",
            tables.closing(real, "force_float32", source.shipped),
        ),
        Table(
            "Published and measured",
            "In percent. Published: official weights, 5000 images of COCO val2017, MLU370. Accuracies stand side by "
            "side for the same weights and images only; elsewhere changes do, of a precision against float32.",
            tables.published([*source.shipped, *scored]),
        ),
        Table(
            "All records",
            "The network alone on one fixed batch, without flip test; 'end to end' is the whole call with it.",
            tables.sweep(real),
        ),
        Table(
            "Where the work goes",
            "Milliseconds of work per image, mean; with the flip test the network runs twice. Stages overlap.",
            [
                {"model": row.model, "precision": row.precision, "batch": row.batch_size, **row.stage_ms}
                for row in real
                if row.stage_ms
            ],
        ),
        Table(
            "Simulator",
            "Calls and accuracy path of a card that is not there, not its speed.",
            tables.sweep(row for row in source.rows if row.simulated),
        ),
        Table("Could not be used", "", [{"what": problem} for problem in (*source.problems, *broken)]),
        Table(
            "Notebooks",
            "As papermill executed them.",
            [{"notebook": run.name, "outcome": run.outcome, "seconds": run.seconds} for run in source.runs],
        ),
        Table("Machines", "What the figures were measured on and with.", [_facts(row) for row in machines.values()]),
        Table(
            "Commands",
            "What made the records, and makes them again.",
            [{"command": command} for command in dict.fromkeys(row.command or "not recorded" for row in source.rows)],
        ),
    ]


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _facts(row: Record) -> dict[str, str]:
    facts = {name.replace("_", " "): value for name, value in (row.machine or {}).items()}
    facts = {name: ", ".join(map(str, value)) if isinstance(value, list) else value for name, value in facts.items()}
    return {**facts, "versions": ", ".join(f"{name} {version}" for name, version in (row.versions or {}).items())}


def _figures(source: Source) -> tuple[dict[str, list[dict]], list[str]]:
    """Returns the figures by notebook, those of known headings in its order; and what could not be read."""
    headings = {file: heading for run in source.runs for file, heading in run.headings.items()}
    order = {file: place for place, file in enumerate(headings)}
    groups: dict[str, list[dict]] = {}
    broken = []
    for file in sorted(source.figures, key=lambda path: (path.name[:2], order.get(path.name, len(order)))):
        try:
            figure = _figure(file, headings.get(file.name, ""))
        except (OSError, ValueError, SyntaxError) as error:  # the last is what Pillow says of a broken chunk
            broken.append(f"{file} is not an image that can be read: {' '.join(str(error).split())}")
            continue
        notebook = next((run.name for run in source.runs if file.name in run.headings), "Other figures")
        groups.setdefault(notebook, []).append(figure)
    return groups, broken


def _figure(file: Path, heading: str) -> dict[str, Any]:
    """Reads a PNG, reduced to the page's width if it is wider, for the template."""
    from PIL import Image

    with Image.open(file) as png:
        image = png.convert("RGB")
    wide = image.width >= _WIDE
    if image.width > _WIDTH:
        image = image.resize((_WIDTH, max(1, round(image.height * _WIDTH / image.width))), Image.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=_WEBP_QUALITY)
    uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    width, height = image.size
    return {"file": file.name, "heading": heading, "wide": wide, "width": width, "height": height, "uri": uri}


def _notebook_run(path: Path) -> NotebookRun:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        facts, cells = document["metadata"]["papermill"], document["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        errors = [f"{each['ename']}: {each['evalue']}" for each in outputs if each["output_type"] == "error"]
        outcome = errors[0] if errors else "finished" if facts["end_time"] else "did not end"
        headings, heading = {}, ""
        for cell in cells:
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                heading = (re.findall(r"^## (.+)$", source, re.MULTILINE) or [heading])[-1]
            else:
                headings.update(dict.fromkeys(re.findall(r"/(\d\d_\w+\.png)", source), heading))
        return NotebookRun(path.name, outcome, facts["duration"], headings)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return NotebookRun(path.name, "not a notebook that papermill ran")
