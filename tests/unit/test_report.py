"""The page: all of it in one file, true to the records, and harmless whatever is in them."""

from __future__ import annotations

import base64
import dataclasses
import html.parser
import io
import json
import re

import pytest
from PIL import Image

from helpers import paths
from helpers.cli import main
from helpers.errors import DataError
from helpers.measure import records
from helpers.measure.records import Latency, Record
from helpers.show import figures, report
from helpers.show.report import Source

MACHINE = {"cpu": "Some CPU", "cores": 2, "memory_gb": 8.0, "os": "Debian", "python": "3.11.7", "cpu_flags": ["avx2"]}
WHAT = ("MobileNetv2", "demo", "onnxruntime", "force_float32")
MADE = {"machine": MACHINE, "versions": {"onnxruntime": "1.32.0"}, "when": "2026-11-24T22:01:46Z"}
SPEED = Record(
    *WHAT,
    **MADE,
    batch_size=1,
    input_shape=[1, 3, 512, 512],
    latency_ms=Latency(90.0, 95.0, 96.0, 99.0, 91.0),
    images_per_s=11.1,
    whole_images_per_s=3.4,
    stage_ms={"load": 1.0, "pre": 9.0, "infer": 180.0, "decode": 12.5},
    model_bytes=40_000_000,
    build_s=0.5,
    command="python -m helpers perf",
)
SCORED = {"dataset": "demo val2017", "images": 256, "ap": 0.7609, "ar": 0.8224}
ACCURACY = Record(*WHAT, **MADE, **SCORED, batch_size=1, command="python -m helpers eval")
INT8 = dataclasses.replace(ACCURACY, precision="qint8_mixed_float16", calibration="32 images, minmax", ap=0.7505)
SIMULATED = dataclasses.replace(INT8, backend="magicmind", versions={"magicmind": "1.7.0-simulator"}, ap=0.7631)


class Page(html.parser.HTMLParser):
    """What a browser would look at: tags with their attributes, visible text, rows of tables by heading."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.tables: dict[str, list[str]] = {}
        self._table = None
        self.feed(text)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if attrs.get("role") == "region":
            self._table = self.tables.setdefault(attrs["aria-label"], [])
        if tag == "tr" and self._table is not None:
            self._table.append("")

    def handle_endtag(self, tag):
        if tag == "table":
            self._table = None

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "style":
            return
        self.words.append(data)
        if self._table:
            self._table[-1] += f"{data.strip()} " if data.strip() else ""

    def find(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.tags if name == tag]


def write(tmp_path, *rows: Record, **source) -> Page:
    """The page of some records, which go to files and back as they do in life."""
    for row in rows:
        records.save(row, tmp_path / "records")
    gathered = dataclasses.replace(report.gather(tmp_path), **{"shipped": [], **source})
    return Page(report.write(tmp_path / "page.html", gathered).read_text(encoding="utf-8"))


def chart(path):
    return figures.save(figures.bars({"AP": {"HRNet": 65.4}}, "A title"), path)


def executed(path, *cells: dict, end: str | None = "x") -> None:
    """A notebook as papermill leaves it."""
    facts = {"start_time": "2026-11-24T22:32:06.58+00:00", "end_time": end, "duration": 12.3}
    path.write_text(json.dumps({"metadata": {"papermill": facts}, "cells": list(cells)}))


def code(*source: str, outputs=()) -> dict:
    return {"cell_type": "code", "source": list(source), "outputs": list(outputs)}


# -- tables ------------------------------------------------------------------------------------------------------


def test_every_figure_of_the_records_is_in_a_table(tmp_path):
    page = write(tmp_path, SPEED, ACCURACY, INT8)
    shown = " ".join(page.tables["All records"])
    assert all(figure in shown for figure in ("0.7609", "0.8224", "0.7505", "90", "99", "11.1", "3.4", "0.5", "40"))
    assert "0.7609" in " ".join(page.tables["Networks"])
    assert any("-1.04" in row for row in page.tables["Published and measured"]), "what 8 bits change here"
    assert "MobileNetv2 force_float32 1 1 9 180 12.5" in page.tables["Where the work goes"][1]
    [machine] = page.tables["Machines"][1:]
    assert machine == "Some CPU 2 8 Debian 3.11.7 avx2 onnxruntime 1.32.0 "
    assert sorted(page.tables["Commands"][1:]) == ["python -m helpers eval ", "python -m helpers perf "]


def test_what_was_not_measured_has_no_column_and_no_table(tmp_path):
    page = write(tmp_path, dataclasses.replace(ACCURACY, ar=None))
    assert "p50 ms" not in page.tables["All records"][0]
    assert {"Where the work goes", "Simulator", "Could not be used", "Notebooks"}.isdisjoint(page.tables)


def test_a_simulated_card_is_in_no_table_but_its_own(tmp_path):
    page = write(tmp_path, SPEED, SIMULATED)
    assert "0.7631" in page.tables["Simulator"][1]
    for table in ("Networks", "Published and measured", "All records"):
        assert "0.7631" not in " ".join(page.tables[table])
        assert "76.31" not in " ".join(page.tables[table])


def test_what_comes_with_the_repository_fills_what_was_not_measured_here(tmp_path):
    ours = dataclasses.replace(ACCURACY, ap=0.7601, images=60)
    page = write(tmp_path, ours, shipped=[ACCURACY, dataclasses.replace(ACCURACY, model="HRNet", ap=0.8)])
    networks = {row.split()[0]: row for row in page.tables["Networks"][1:]}
    assert "0.8000" in networks["HRNet"] and "shipped" in networks["HRNet"]
    assert "0.7601" in networks["MobileNetv2"] and "shipped" not in networks["MobileNetv2"]
    assert "HRNet" not in " ".join(page.tables["All records"])


def test_what_cannot_be_read_is_a_row(tmp_path):
    """Records, figures and notebooks that are broken are named, and the rest is there."""
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "cut.json").write_text('{"model": "HRNet"')
    (tmp_path / "03_cut.png").write_bytes(chart(tmp_path / "03_whole.png").read_bytes()[:2000])
    (tmp_path / "04_none.png").write_text("not an image")
    (tmp_path / "01_cut.ipynb").write_text("{")
    page = write(tmp_path, ACCURACY)
    told = page.tables["Could not be used"]
    assert len(told) == 1 + 3
    assert all(any(name in row for row in told) for name in ("cut.json", "03_cut.png", "04_none.png"))
    assert "not a notebook that papermill ran" in page.tables["Notebooks"][1]
    assert len(page.find("img")) == 1


def test_a_failed_notebook_says_where(tmp_path):
    error = {"output_type": "error", "ename": "DataError", "evalue": "no such file", "traceback": []}
    executed(tmp_path / "02_build.ipynb", code("1 / 0", outputs=[error]))
    executed(tmp_path / "03_infer.ipynb", {"cell_type": "markdown", "source": []})
    executed(tmp_path / "04_benchmark.ipynb", end=None)
    rows = write(tmp_path, ACCURACY).tables["Notebooks"]
    assert rows[1] == "02_build.ipynb DataError: no such file 12.3 "
    assert rows[2] == "03_infer.ipynb finished 12.3 "
    assert rows[3] == "04_benchmark.ipynb did not end 12.3 "


# -- the file ----------------------------------------------------------------------------------------------------


def test_needs_nothing_from_outside(tmp_path):
    chart(tmp_path / "04_published.png")
    page = write(tmp_path, SPEED, ACCURACY, INT8, SIMULATED)
    assert not {"script", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in page.tags}
    for tag, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")], tag
        for name in ("src", "href", "srcset", "poster", "data", "action"):
            assert attrs.get(name, "#").startswith(("#", "data:")), (tag, name)
    [policy] = [meta["content"] for meta in page.find("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    style = (tmp_path / "page.html").read_text(encoding="utf-8").split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_links_inside_the_page_lead_somewhere(tmp_path):
    chart(tmp_path / "04_a name with spaces & more.png")
    page = write(tmp_path, SPEED, ACCURACY)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {attrs["href"][1:] for attrs in page.find("a")}
    assert links - set(ids) == {"close"}, "closing an enlarged figure goes nowhere, and scrolls nowhere"


def test_figures_stand_under_their_notebook_with_the_heading_of_their_section(tmp_path):
    for name in ("04_b", "04_a", "other"):
        chart(tmp_path / f"{name}.png")
    headings = {"cell_type": "markdown", "source": ["# 4 · Benchmark\n", "## First & <foremost>\n", "Text."]}
    cells = [code('Image(figures.save(figure, f"{out}/04_', 'b.png"))'), code('save(f"{out}/04_a.png")')]
    executed(tmp_path / "04_benchmark.ipynb", headings, *cells)
    page = write(tmp_path, ACCURACY)
    assert [image["alt"] for image in page.find("img")] == ["First & <foremost>", "First & <foremost>", "other.png"]
    assert page.text.count("First & <foremost>") == 2
    assert "04_benchmark.ipynb Close First" in page.text and "Other figures Close" in page.text
    assert [each["id"] for each in page.find("figure")] == ["04_b.png", "04_a.png", "other.png"], "as in the notebook"
    for image in page.find("img"):
        with Image.open(io.BytesIO(base64.b64decode(image["src"].split("base64,")[1]))) as picture:
            assert (picture.format, *picture.size) == ("WEBP", int(image["width"]), int(image["height"]))
            assert picture.width <= 1600


def test_hostile_text_is_text(tmp_path):
    attack = "<script>alert(1)</script>\"'><img src=http://example.org/x onerror=alert(1)> {{ 7 * 7 }}"
    fields = ("weights", "backend", "precision", "dataset", "command", "when")
    hostile = dataclasses.replace(ACCURACY, **dict.fromkeys(fields, attack), machine={"cpu": attack, "cores": 2})
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "x<script>.json").write_text('{"model": "\\ud800<script>"')
    (tmp_path / "records" / "surrogate.json").write_text(
        json.dumps({**hostile.to_dict(), "model": "\ud800 half a character"})
    )
    (tmp_path / "records" / "attack.json").write_text(hostile.to_json())
    chart(tmp_path / "03_<img src=x>.png")
    executed(tmp_path / "02_build.ipynb", {"cell_type": "markdown", "source": [f"## {attack}"]}, code("/02_x.png"))
    chart(tmp_path / "02_x.png")
    page = write(tmp_path)
    assert not page.find("script")
    assert all(image["src"].startswith("data:") for image in page.find("img"))
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text


def test_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("the earlier one")
    monkeypatch.setattr("jinja2.Template.render", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.write(path, Source([ACCURACY]))
    (tmp_path / "folder.html").mkdir()
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"folder\.html cannot be written"):
        report.write(tmp_path / "folder.html", Source([ACCURACY]))
    assert path.read_text() == "the earlier one"
    assert {each.name for each in tmp_path.iterdir()} == {"page.html", "folder.html"}


def test_a_folder_that_is_not_there(tmp_path):
    source = report.gather(tmp_path / "gone")
    assert source == Source([], [], [], [], source.shipped)
    page = Page(report.write(tmp_path / "made" / "page.html", source).read_text(encoding="utf-8"))
    assert "Records: 0. Figures: 0." in page.text
    assert set(page.tables) == {"Networks", "Published and measured"}


# -- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def output(tmp_path, monkeypatch):
    """An output folder with two records."""
    monkeypatch.setattr(paths, "output", lambda: tmp_path / "output")
    for row in (SPEED, ACCURACY):
        records.save(row)
    return tmp_path / "output"


def test_the_command_prints_the_table_and_writes_the_page(capsys, output, tmp_path):
    assert main(["report"]) == 0
    printed = capsys.readouterr().out
    assert "0.7609" in printed
    assert printed.count("shipped figure") == len(paths.demo_models()) - 1
    assert printed.splitlines()[-1] == f"page: {output / 'report.html'}"
    assert (output / "report.html").is_file()
    assert main(["report", "--json", "--out", str(tmp_path / "deep" / "x.html")]) == 0
    captured = capsys.readouterr()
    assert [row["model"] for row in json.loads(captured.out)] == ["MobileNetv2"] * 2
    assert "x.html" in captured.err
    assert (tmp_path / "deep" / "x.html").is_file()
    assert main(["report", "--out", str(output)]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_without_jinja2_there_is_still_the_table(capsys, output, monkeypatch, tmp_path):
    monkeypatch.setattr(report, "_NEEDED", {"not_a_module": "not-a-package", "json": "json"})
    assert main(["report"]) == 0
    captured = capsys.readouterr()
    assert "0.7609" in captured.out
    assert captured.err == "no page without not-a-package: pip install not-a-package\n"
    assert not (output / "report.html").exists()
    assert main(["report", "--out", str(tmp_path / "x.html")]) == 1
    assert "error: The page needs not-a-package" in capsys.readouterr().err
