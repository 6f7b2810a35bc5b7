"""Records and figures -> one page of HTML that needs nothing else: no script, no request, pictures inside.

    report.write("report.html", report.gather())

The page states its findings first, in sentences computed from the records, then gives the tables behind them, then
the figures, under the title and description that `draw.save` put into each PNG. What cannot be compared is not
compared: other weights than the published ones, speeds of two machines, times of a card that was simulated.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import importlib.util
import io
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterable, Mapping, Sequence, Union

from helpers import artifacts, paths, zoo
from helpers.errors import DataError
from helpers.measure import records
from helpers.measure.records import Record

if TYPE_CHECKING:
    from PIL.Image import Image

    from helpers.zoo import Accuracy

MAX_BYTES = 5_000_000  # of a page, whatever the number of figures: a mail server takes that
_WIDTHS = (1800, 1200, 800, 500)  # pixels; the first to which all figures can be reduced and fit
_WEBP_QUALITY = 80
_CHART_COLOURS = 4096  # a drawing has fewer, a photograph more
_WIDE = 1200  # pixels of the PNG from which on a figure gets the whole width of the page
_MARKUP = 1500  # bytes around a figure, generously
_NEEDED = {"jinja2": "jinja2", "PIL": "pillow"}  # module -> package
_REFERENCE = "force_float32"  # what other precisions are compared with
SIMULATED = "simulated MLU: calls and accuracy path, not speed"
_SETTING = ("model", "weights", "backend", "input_type")  # what has to be equal for that, and:
_ALIKE_SCORED = (*_SETTING, "dataset", "images")
_ALIKE_TIMED = (*_SETTING, "batch_size", "input_shape", "machine", "command")  # the same hour is as busy for both
_FEW = 100  # images; of so few an AP says little
_STAGES = {"load": "load file", "pre": "resize", "infer": "network", "decode": "decode", "draw": "draw"}

# -- what travels ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NotebookRun:
    """What papermill left in an executed notebook.

    Attributes:
        name: of the file.
        outcome: `finished`, or what kept it from that.
        seconds: from start to end, if it ended.
        when: UTC as in records, of the start.
    """

    name: str
    outcome: str
    seconds: float | None = None
    when: str | None = None


@dataclass(frozen=True)
class Source:
    """All that a page is made from.

    Attributes:
        rows: the records.
        problems: one sentence for each record that could not be read.
        figures: PNG files, in the order in which they are shown.
        runs: the executed notebooks.
        shipped: records of accuracy that come with the repository.
    """

    rows: Sequence[Record]
    problems: Sequence[str] = ()
    figures: Sequence[Path] = ()
    runs: Sequence[NotebookRun] = ()
    shipped: Sequence[Record] = ()


@dataclass(frozen=True)
class Finding:
    """One line of the summary.

    Attributes:
        figure: what to remember.
        text: the sentence that says what it is, and under which circumstances.
        caveat: whether it is about what is not known, rather than a result.
    """

    figure: str
    text: str
    caveat: bool = False


@dataclass(frozen=True)
class Measured:
    """A cell with a figure.

    Attributes:
        text: as it is printed.
        share: length of the bar under it, 0..1; None for no bar.
    """

    text: str
    share: float | None = None


@dataclass(frozen=True)
class Flag:
    """A cell with something not to be overlooked."""

    text: str


@dataclass(frozen=True)
class Subject:
    """The first cell of a row.

    Attributes:
        name: what the row is about.
        detail: what tells it from others of that name.
        flag: what is not to be overlooked, if anything.
    """

    name: str
    detail: str
    flag: str | None = None


Cell = Union[str, Measured, Flag, Subject, None]
Row = Mapping[str, Cell]


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        title: its heading.
        note: how to read it.
        rows: column -> cell, all with the same columns; a cell is None where nothing was measured.
    """

    title: str
    note: str
    rows: Sequence[Row]

    @property
    def columns(self) -> list[str]:
        """Those that hold anything."""
        return [column for column in self.rows[0] if any(row[column] not in (None, "") for row in self.rows)]

    def figures(self, column: str) -> bool:
        """Whether a column holds figures, to be set flush right."""
        return any(isinstance(row[column], Measured) for row in self.rows)


@dataclass(frozen=True)
class Picture:
    """A figure as it travels inside the page.

    Attributes:
        file: name of the PNG.
        title, description: what `draw.save` put into it; empty if another program made it.
        when: UTC, when it was written.
        width, height: pixels, as embedded.
        wide: whether it gets the whole width of the page.
        uri: the picture itself, as a `data:` address.
    """

    file: str
    title: str
    description: str
    when: str
    width: int
    height: int
    wide: bool
    uri: str


# -- steps -------------------------------------------------------------------------------------------------------


def gather(folder: str | os.PathLike[str] | None = None) -> Source:
    """Collects what commands and notebooks left behind.

    Args:
        folder: by default data/output; may not exist yet.
    """
    folder = paths.output() if folder is None else Path(folder)
    rows, problems = records.load_all(folder / "records")
    runs = [_notebook_run(path) for path in sorted(folder.glob("[!.]*.ipynb"))]
    shipped, broken = records.load_all(paths.demo_scores())
    return Source(rows, [*problems, *broken], sorted(folder.glob("[!.]*.png")), runs, shipped)


def missing() -> list[str]:
    """The packages that a page needs and that are not here, by the names that pip knows."""
    return [package for module, package in _NEEDED.items() if importlib.util.find_spec(module) is None]


def write(path: str | os.PathLike[str], source: Source) -> Path:
    """Writes the page.

    Args:
        path: the HTML file to be.
        source: what to show, from `gather`.

    Returns:
        The file. Figures are reduced, and in the end left out and counted, so that it stays under `MAX_BYTES`.

    Raises:
        DataError: a package is missing, or the file cannot be written.
    """
    if missing():
        raise DataError(f"The page needs {' and '.join(missing())}: pip install {' '.join(missing())}.")
    room = MAX_BYTES - len(_page(source, [], []))
    pictures, problems = _pictures(source.figures, room)
    with artifacts.atomic_write(path) as part:
        part.write_bytes(_page(source, pictures, problems))
    return Path(path)


def findings(source: Source) -> list[Finding]:
    """The summary: what the records say, the most asked-for first.

    A card that was simulated is mentioned, and never the source of a figure.
    """
    real = sorted((row for row in source.rows if not row.simulated), key=_age)
    return [
        *_accuracy_findings(real, source.shipped),
        *_precision_findings([*source.shipped, *real]),
        *_speed_findings(real),
        *_whole_findings(real),
        *_published_findings(real),
        *_caveats(source),
    ]


def tables(source: Source) -> list[Table]:
    """The tables of results: accuracy, published beside measured, speed, stages, builds. None is without rows."""
    rows = sorted(source.rows, key=_order)
    real = [row for row in rows if not row.simulated]
    published = _published_table(real, source.shipped)
    found = [
        _accuracy_table(rows, source.shipped),
        published,
        _speed_table(real),
        _stage_table(real),
        _build_table(real),
    ]
    return [table for table in found if table.rows]


def circumstances(source: Source) -> list[Table]:
    """The tables of how the results came about: notebooks, commands, machines. None is without rows."""
    found = [_notebook_table(source.runs), _command_table(source.rows), _machine_table(source.rows)]
    return [table for table in found if table.rows]


# -- the page ----------------------------------------------------------------------------------------------------


def _page(source: Source, pictures: Sequence[Picture], broken: Sequence[str]) -> bytes:
    """The HTML of a page, in UTF-8."""
    import jinja2

    loader = jinja2.FileSystemLoader(str(Path(__file__).parent))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    problems = [{"what": Flag(problem)} for problem in (*source.problems, *broken)]
    text = environment.get_template("report.html").render(
        made=_minute(records.now()),
        machines=sorted({_machine(row.machine) for row in source.rows if row.machine}),
        counts=[_count(len(source.rows), "record"), _count(len(source.figures), "figure")],
        findings=findings(source),
        tables=tables(source),
        problems=Table("Could not be used", "Left out of all tables and figures.", problems),
        groups=_groups(pictures),
        left_out=len(source.figures) - len(pictures) - len(broken),
        circumstances=circumstances(source),
    )
    return text.encode("utf-8", "replace")  # a record may hold half of a surrogate pair, which UTF-8 cannot


def _groups(pictures: Iterable[Picture]) -> dict[str, list[Picture]]:
    """Figures by the notebook whose number begins their name; in each, those first that share a line with another."""
    titles = {
        path.name[:2]: f"{int(path.name[:2])} · {path.stem[3:].replace('_', ' ').capitalize()}"
        for path in (paths.root() / "notebooks").glob("[0-9][0-9]_*.ipynb")
    }
    groups: dict[str, list[Picture]] = {}
    for picture in pictures:
        groups.setdefault(titles.get(picture.file[:2], "Other figures"), []).append(picture)
    for members in groups.values():
        members.sort(key=lambda picture: picture.wide)
        narrow = sum(not picture.wide for picture in members)
        if narrow % 2:  # the last of them has no neighbour
            members[narrow - 1] = dataclasses.replace(members[narrow - 1], wide=True)
    return groups


def _pictures(files: Sequence[Path], room: int) -> tuple[list[Picture], list[str]]:
    """As many figures as fit into so many bytes, as large as all of them can be; and what could not be read."""
    for width in _WIDTHS:
        pictures, problems, left = [], [], room
        for file in files:
            try:
                picture = _picture(file, width)
            except (OSError, ValueError, SyntaxError) as error:  # the last is what Pillow says of a broken chunk
                problems.append(f"{file} is no picture that can be read: {' '.join(str(error).split())}")
                continue
            text = html.escape(picture.title + picture.description)
            size = len(picture.uri) + 2 * len(text.encode("utf-8", "replace")) + _MARKUP
            if size <= left:
                pictures.append(picture)
                left -= size
            elif width != _WIDTHS[-1]:
                break
        else:
            return pictures, problems
    return pictures, problems


def _picture(file: Path, width: int) -> Picture:
    """A PNG, reduced to `width` pixels if it is wider, in WebP."""
    from PIL import Image

    with Image.open(file) as png:
        image, text = png.convert("RGB"), {str(key): str(value) for key, value in png.info.items()}
    original = image.width
    chart = image.getcolors(_CHART_COLOURS) is not None
    if image.width > width:
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.LANCZOS)
    uri = "data:image/webp;base64," + base64.b64encode(_webp(image, chart)).decode("ascii")
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(file.stat().st_mtime))
    described = text.get("Title", ""), text.get("Description", "")
    return Picture(file.name, *described, _minute(when), *image.size, original >= _WIDE, uri)


def _webp(image: Image, chart: bool) -> bytes:
    """The smaller of lossy and lossless for a chart, whose letters stay sharp in the latter; lossy for a photograph."""
    encoded = []
    for options in ({"quality": _WEBP_QUALITY}, *([{"lossless": True}] if chart else [])):
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", **options)
        encoded.append(buffer.getvalue())
    return min(encoded, key=len)


def _notebook_run(path: Path) -> NotebookRun:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        facts, cells = document["metadata"]["papermill"], document["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        errors = [f"{each['ename']}: {each['evalue']}" for each in outputs if each["output_type"] == "error"]
        outcome = errors[0] if errors else "finished" if facts["end_time"] else "did not end"
        return NotebookRun(path.name, outcome, facts["duration"], f"{facts['start_time'][:19]}Z")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return NotebookRun(path.name, "not a notebook that papermill ran")


# -- findings ----------------------------------------------------------------------------------------------------


def _accuracy_findings(rows: Sequence[Record], shipped: Sequence[Record]) -> list[Finding]:
    """Of each network: official weights before others, float32 before fewer bits, many images before few.

    What is shipped stands for networks that were not scored here.
    """
    found = []
    for model in zoo.NETWORKS:
        mine, elsewhere = ([row for row in some if row.model == model and _scored(row)] for some in (rows, shipped))
        scored = mine or elsewhere
        if not scored:
            continue
        best = max(scored, key=lambda row: (row.weights == "official", row.precision == _REFERENCE, row.images or 0))
        recall = "" if best.ar is None else f" and AR {best.ar:.4f}"
        text = f"{_what(best)}: AP {best.ap:.4f}{recall} on {_scope(best)}."
        if best.weights == "demo":
            text += " Demo people are generated: this says nothing about photographs."
        found.append(Finding(f"{best.ap:.3f} AP", text))
    return found


def _precision_findings(rows: Sequence[Record]) -> list[Finding]:
    """What fewer bits change, against float32 of the same kind: accuracy, speed, size."""
    kinds = {tuple(getattr(row, name) for name in (*_SETTING, "precision")): row for row in rows}
    found = []
    for kind, row in kinds.items():
        mine = [each for each in rows if tuple(getattr(each, name) for name in (*_SETTING, "precision")) == kind]
        accuracy = _last_pair(mine, rows, _scored, _ALIKE_SCORED)
        speed = _last_pair(mine, rows, _timed, _ALIKE_TIMED)
        size = _last_pair(mine, rows, _built, _SETTING)
        said = []
        if accuracy:
            change = accuracy[0].ap - accuracy[1].ap
            verb = f"{'loses' if change < 0 else 'gains'} {abs(change):.4f} AP" if round(change, 4) else "keeps the AP"
            said.append(f"{verb} ({accuracy[1].ap:.4f} to {accuracy[0].ap:.4f} on {_scope(accuracy[0])})")
        if speed:
            ratio = speed[1].latency_ms.p50 / speed[0].latency_ms.p50
            said.append(f"is {ratio:.1f} times as quick (p50, batch {speed[0].batch_size}, timed by one command)")
        if size:
            said.append(f"has {size[0].model_bytes / size[1].model_bytes:.0%} of the file size")
        if accuracy or speed:
            figure = f"{change:+.4f} AP" if accuracy else f"{ratio:.1f}x"
            found.append(Finding(figure, f"Against float32, {_what(row)} {_listed(said)}."))
    return found


def _published_findings(rows: Sequence[Record]) -> list[Finding]:
    latest = {(row.model, row.backend, row.precision): row for row in rows if _comparable(row)}
    if not latest:
        text = (
            "Nothing here can be set against the figures published with Cambricon's sample: those are of the official "
            "weights on COCO val2017, and no record is."
        )
        return [Finding("not comparable", text, caveat=True)]
    return [
        Finding(
            f"{row.ap - _published(row).ap / 100:+.4f} AP",
            f"{_what(row)}, against the published {_published(row).ap / 100:.4f}: {row.ap:.4f} on {_scope(row)}.",
        )
        for row in latest.values()
    ]


def _speed_findings(rows: Sequence[Record]) -> list[Finding]:
    """The networks side by side, where most of them ran alike and by one command: a busy hour is as hard on all."""
    alike: dict[str, dict[str, Record]] = {}
    for row in rows:
        if _timed(row) and row.model in zoo.NETWORKS:
            names = ("backend", "precision", "input_type", "batch_size", "input_shape", "machine", "command")
            like = [getattr(row, name) for name in names]
            alike.setdefault(repr(like), {})[row.model] = row
    if not alike:
        return []
    group = max(alike.values(), key=lambda group: (len(group), max(map(_age, group.values()))))
    first, *others = sorted(group.values(), key=lambda row: row.latency_ms.p50)
    took = _ms(first.latency_ms.p50)
    slower = [f"{row.model} {row.latency_ms.p50 / first.latency_ms.p50:.1f} times" for row in others]
    text = f"One run of {_shape(first)} in {first.precision} on {first.backend} takes {first.model} {took} (p50)"
    return [Finding(took, f"{text}, {' and '.join(slower)} as long." if slower else f"{text}.")]


def _whole_findings(rows: Sequence[Record]) -> list[Finding]:
    whole = [row for row in rows if row.whole_images_per_s and row.stage_ms]
    if not whole:
        return []
    best = max(whole, key=lambda row: row.whole_images_per_s)
    share = best.stage_ms.get("infer", 0) / (sum(best.stage_ms.values()) or 1)
    text = f"From file to poses, flip test: {_what(best)}, batch {best.batch_size} ({share:.0%} of it the network)."
    return [Finding(f"{best.whole_images_per_s:.1f} images/s", text)]


def _caveats(source: Source) -> list[Finding]:
    found = []
    simulated = sum(row.simulated for row in source.rows)
    if simulated:
        found.append(Finding("no card", f"{_count(simulated, 'record')} of a {SIMULATED}.", caveat=True))
    if source.shipped:
        text = (
            f"{_count(len(source.shipped), 'figure')} of accuracy come with the repository "
            f"({_machine(source.shipped[0].machine)}); `{source.shipped[0].command}` measures them."
        )
        found.append(Finding("not of this machine", text, caveat=True))
    if source.problems:
        text = f"{_count(len(source.problems), 'record')} could not be read; listed below as such."
        found.append(Finding(f"{len(source.problems)} unusable", text, caveat=True))
    failed = [run.name for run in source.runs if run.outcome != "finished"]
    if failed:
        found.append(Finding(f"{len(failed)} unfinished", f"Not run to the end: {', '.join(failed)}.", caveat=True))
    return found


# -- tables ------------------------------------------------------------------------------------------------------


def _accuracy_table(measured: Sequence[Record], shipped: Sequence[Record]) -> Table:
    cells, rows = [], sorted([*measured, *shipped], key=_order)
    for row in rows:
        if row.ap is None:
            continue
        reference = _float32_of(row, rows, _scored, _ALIKE_SCORED)
        noise = None if _scored(row) else Flag("random: noise was scored")
        cells.append(
            {
                "": _subject(row),
                "AP": Measured(f"{row.ap:.4f}", row.ap),
                "AR": _number(row.ar, ".4f"),
                "95 %": row.ap_interval and "{:.3f} to {:.3f}".format(*row.ap_interval),
                "weights": noise or row.weights,
                "flip test": "yes" if row.flip_test else "no",
                "images": _number(row.images, "d"),
                "of": records.without_flip(row.dataset or ""),
                "AP against float32": reference and Measured(f"{row.ap - reference.ap:+.4f}"),
                "calibration": _calibration(row),
                "measured": None if not shipped else "elsewhere, shipped" if row in shipped else "here",
            }
        )
    note = (
        "COCO's average precision and recall over keypoints, from 0 to 1. Rows with other weights, images or flip test "
        "are not comparable, and on few images differences of hundredths are chance (notebook 4 shows how AP scatters)."
    )
    return Table("Accuracy", note, cells)


def _published_table(measured: Sequence[Record], shipped: Sequence[Record]) -> Table:
    """Each published figure, with the best of each backend that was measured in that precision."""
    cells = []
    for model, network in zoo.NETWORKS.items():
        for precision, published in network.published.items():
            mine, elsewhere = (
                [row for row in some if (row.model, row.precision) == (model, precision) and _scored(row)]
                for some in (measured, shipped)
            )
            mine.sort(key=lambda row: (row.weights == "official", row.images or 0))
            best = {row.backend: row for row in mine or elsewhere}
            cells += [_beside(model, precision, published, row, not mine) for row in best.values() or [None]]
    note = (
        "Published with Cambricon's sample: official weights, COCO val2017, 5000 images, batch 1, flip test, on an "
        "MLU370. A difference is given only where weights, data and flip test are the same."
    )
    return Table("Published figures beside ours", note, cells)


def _beside(model: str, precision: str, published: Accuracy, row: Record | None, shipped: bool) -> Row:
    """A published accuracy and ours, in the published precision, if there is one."""
    difference, here = None, "not measured with trained weights"
    if row is not None:
        difference, here = Flag("not comparable"), f"{row.weights} weights, {row.backend}, {_scope(row)}"
        here += ", shipped figure" if shipped else ""
        if _comparable(row):
            difference = Measured(f"{row.ap - published.ap / 100:+.4f}")
    return {
        "": Subject(model, precision),
        "AP published": Measured(f"{published.ap / 100:.4f}"),
        "AR published": Measured(f"{published.ar / 100:.4f}"),
        "AP here": row and _number(row.ap, ".4f"),
        "AR here": row and _number(row.ar, ".4f"),
        "AP difference": difference,
        "measured here": here,
    }


def _speed_table(rows: Sequence[Record]) -> Table:
    timed = [row for row in rows if _timed(row)]
    longest = max((row.latency_ms.p50 for row in timed), default=1)
    many_machines = len({_machine(row.machine) for row in timed}) > 1
    cells = []
    for row in timed:
        reference = _float32_of(row, rows, _timed, _ALIKE_TIMED)
        faster = reference and f"{reference.latency_ms.p50 / row.latency_ms.p50:.1f}x"
        cells.append(
            {
                "": _subject(row),
                "p50 ms": Measured(f"{row.latency_ms.p50:.1f}", row.latency_ms.p50 / longest),
                "p90 ms": _number(row.latency_ms.p90, ".1f"),
                "p99 ms": _number(row.latency_ms.p99, ".1f"),
                "images/s": _number(row.images_per_s, ".1f"),
                "against float32": faster and Measured(faster),
                "one run of": _shape(row),
                "weights": row.weights,
                "file to poses, images/s": _number(row.whole_images_per_s, ".1f"),
                "memory MB": _number(row.peak_memory_mb, ".0f"),
                "machine": _machine(row.machine) if many_machines else None,
            }
        )
    note = (
        "The network alone on one fixed batch, without flip test; 'file to poses' is the whole call with it. Random "
        "weights are as fast as trained ones. Rows of different commands may differ because the machine was busy once: "
        "only those of one command are set against float32 (`python -m helpers bench --precision all`)."
    )
    return Table("Speed", note, cells)


def _stage_table(rows: Sequence[Record]) -> Table:
    cells = []
    for row in rows:
        total = sum((row.stage_ms or {}).values())
        if not total:
            continue
        parts = {
            f"{name} ms": Measured(f"{row.stage_ms[stage]:.1f}", row.stage_ms[stage] / total)
            if stage in row.stage_ms
            else None
            for stage, name in _STAGES.items()
        }
        same = {"batch": _number(row.batch_size, "d"), "weights": row.weights, "command": row.command}
        cells.append({"": _subject(row), **parts, **same})
    note = (
        "Milliseconds of work per picture, mean; the network sees the mirror image too if there is a flip test. Stages "
        "overlap, so a picture takes less than their sum. With random weights there is nobody to decode."
    )
    return Table("Where the work goes", note, cells)


def _build_table(rows: Sequence[Record]) -> Table:
    latest = {
        (row.model, row.weights, row.backend, row.precision, row.input_type, row.model_bytes): row
        for row in sorted(rows, key=_age)
        if _built(row)
    }
    cells = []
    for row in sorted(latest.values(), key=_order):
        reference = _float32_of(row, rows, _built, _SETTING)
        cells.append(
            {
                "": _subject(row),
                "MB": _number(row.model_bytes / 1e6, ".1f"),
                "of float32": reference and Measured(f"{row.model_bytes / reference.model_bytes:.0%}"),
                "build s": _number(row.build_s, ".1f"),
                "load s": _number(row.load_s, ".2f"),
                "weights": row.weights,
                "calibration": _calibration(row),
            }
        )
    note = "Size of each built model, and how long building and loading took. Calibration pictures are never scored."
    return Table("Builds", note, cells)


def _notebook_table(runs: Sequence[NotebookRun]) -> Table:
    cells = [
        {
            "notebook": run.name,
            "outcome": run.outcome if run.outcome == "finished" else Flag(run.outcome),
            "seconds": _number(run.seconds, ".0f"),
            "started": _minute(run.when),
        }
        for run in runs
    ]
    return Table("Notebooks", "As papermill executed them.", cells)


def _command_table(rows: Sequence[Record]) -> Table:
    by_command: dict[str, list[Record]] = {}
    for row in sorted(rows, key=_age):
        by_command.setdefault(row.command or "not recorded", []).append(row)
    cells = [
        {"command": command, "records": _number(len(made), "d"), "last": _minute(made[-1].when)}
        for command, made in by_command.items()
    ]
    return Table("Commands", "What made the records, and makes them again.", cells)


def _machine_table(rows: Sequence[Record]) -> Table:
    alike: dict[str, list[Record]] = {}
    for row in rows:
        alike.setdefault(json.dumps([row.machine, row.versions], sort_keys=True, default=str), []).append(row)
    cells = []
    for made in alike.values():
        facts = made[0].machine or {}
        memory = f"{facts['memory_gb']} GB" if "memory_gb" in facts else None
        python = f"Python {facts['python']}" if "python" in facts else None
        about = [memory, facts.get("os"), python]
        cells.append(
            {
                "machine": Subject(_machine(facts), ", ".join(part for part in about if part)),
                "instructions": ", ".join(map(str, facts.get("cpu_flags", []))),
                "versions": ", ".join(f"{name} {version}" for name, version in (made[0].versions or {}).items()),
                "records": _number(len(made), "d"),
            }
        )
    return Table("Machines and versions", "What the figures were measured on and with.", cells)


# -- parts -------------------------------------------------------------------------------------------------------


def _scored(row: Record) -> bool:
    """Whether it has an accuracy worth the name: that of noise has none."""
    return row.ap is not None and row.weights != "random"


def _timed(row: Record) -> bool:
    return row.latency_ms is not None and row.latency_ms.p50 > 0


def _built(row: Record) -> bool:
    return bool(row.model_bytes)


def _float32_of(
    row: Record, rows: Iterable[Record], measured: Callable[[Record], bool], alike: Sequence[str]
) -> Record | None:
    """The latest float32 record like a record of fewer bits; `alike` are the fields in which they have to be equal."""
    if row.precision == _REFERENCE or not measured(row):
        return None
    same = [each for each in rows if each.precision == _REFERENCE and measured(each)]
    same = [each for each in same if all(getattr(each, name) == getattr(row, name) for name in alike)]
    return max(same, key=_age, default=None)


def _last_pair(
    mine: Sequence[Record], rows: Sequence[Record], measured: Callable[[Record], bool], alike: Sequence[str]
) -> tuple[Record, Record] | None:
    """The latest of `mine` that float32 can be set against, with that."""
    pairs = [(row, _float32_of(row, rows, measured, alike)) for row in mine]
    return next(((row, other) for row, other in reversed(pairs) if other is not None), None)


def _published(row: Record) -> Accuracy | None:
    network = zoo.NETWORKS.get(row.model)
    return network.published.get(row.precision) if network else None


def _comparable(row: Record) -> bool:
    """Whether its accuracy may be set against the published one."""
    folder, _, split = (row.dataset or "").rpartition(" ")
    on_coco = split == "val2017" and folder != paths.demo_data().name  # without flip test it would end otherwise
    return _scored(row) and row.weights == "official" and on_coco and _published(row) is not None


def _subject(row: Record) -> Subject:
    """With what a row of results begins; what is simulated says so at once."""
    kind = "" if row.input_type in (None, "float32") else f", {row.input_type} input"
    return Subject(row.model, f"{row.precision}, {row.backend}{kind}", SIMULATED if row.simulated else None)


def _calibration(row: Record) -> str | None:
    return row.calibration or ("not recorded" if row.precision.startswith("qint") else None)


def _what(row: Record) -> str:
    return f"{row.model} with {row.weights} weights in {row.precision} on {row.backend}"


def _scope(row: Record) -> str:
    flip = "with the flip test" if row.flip_test else "without the flip test"
    images = "an unknown number of images" if row.images is None else _count(row.images, "image")
    images = f"only {images}" if (row.images or _FEW) < _FEW else images
    return f"{images} of {records.without_flip(row.dataset or 'an unknown set')}, {flip}"


def _shape(row: Record) -> str:
    return " x ".join(map(str, row.input_shape)) if row.input_shape else f"batch {row.batch_size}"


def _machine(facts: Mapping[str, Any] | None) -> str:
    if not facts:
        return "unknown machine"
    cores = f", {_count(facts['cores'], 'core')}" if "cores" in facts else ""
    return f"{facts.get('cpu', 'unknown processor')}{cores}"


def _order(row: Record) -> tuple:
    """Networks and precisions as the zoo lists them, then what is to be compared side by side."""
    models, precisions = list(zoo.NETWORKS), list(zoo.PRECISIONS)
    model = models.index(row.model) if row.model in models else len(models)
    precision = precisions.index(row.precision) if row.precision in precisions else len(precisions)
    data = (row.weights, row.backend, row.dataset or "", row.images or 0, row.batch_size or 0)
    return (model, row.model, *data, precision, row.precision, _age(row))


def _age(row: Record) -> str:
    return row.when or ""


def _number(value: float | None, form: str) -> Measured | None:
    return None if value is None else Measured(format(value, form))


def _ms(value: float) -> str:
    return f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if parts[1:] else parts)


def _minute(when: str | None) -> str:
    """`2026-11-24T22:01:46Z` as `2026-11-24 22:01 UTC`; anything else as it is."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\dZ", when or "")
    return f"{found.group(1)} {found.group(2)} UTC" if found else when or ""
