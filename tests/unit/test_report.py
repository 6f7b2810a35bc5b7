"""The page: all of it in one file, true to the records, and harmless whatever is in them."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import re

import cv2
import numpy as np
import pytest

from helpers import paths, zoo
from helpers.cli import main
from helpers.errors import DataError
from helpers.measure import records
from helpers.measure.records import Latency, Record
from helpers.show import figures, report
from helpers.show.report import Source

MACHINE = {"cpu": "Some CPU", "cores": 2, "memory_gb": 8.0, "os": "Debian", "python": "3.11.7", "cpu_flags": ["avx2"]}
SPEED = Record(
    "MobileNetv2",
    "demo",
    "onnxruntime",
    "force_float32",
    input_type="float32",
    batch_size=1,
    input_shape=[1, 3, 512, 512],
    latency_ms=Latency(90.0, 95.0, 96.0, 99.0, 91.0),
    images_per_s=11.1,
    whole_images_per_s=3.4,
    stage_ms={"load": 1.0, "pre": 9.0, "infer": 180.0, "decode": 10.0},
    model_bytes=40_000_000,
    build_s=0.5,
    machine=MACHINE,
    versions={"onnxruntime": "1.32.0"},
    command="python -m helpers perf",
    when="2026-11-24T22:01:46Z",
)
ACCURACY = Record(
    "MobileNetv2",
    "demo",
    "onnxruntime",
    "force_float32",
    input_type="float32",
    batch_size=1,
    dataset="demo val2017",
    images=256,
    ap=0.7609,
    ar=0.8224,
    machine=MACHINE,
    command="python -m helpers eval",
    when="2026-11-24T22:05:00Z",
)
INT8 = {"precision": "qint8_mixed_float16", "calibration": "32 pictures, minmax"}
INT8_SPEED = dataclasses.replace(
    SPEED, **INT8, latency_ms=Latency(50.0, 51.0, 52.0, 53.0, 50.0), model_bytes=10_000_000
)
INT8_ACCURACY = dataclasses.replace(ACCURACY, **INT8, ap=0.7605)
SIMULATED = dataclasses.replace(INT8_ACCURACY, backend="magicmind", versions={"magicmind": "1.7+simulator"}, ap=0.7631)
OFFICIAL = dataclasses.replace(
    ACCURACY, model="HRNet", weights="official", dataset="coco val2017", images=5000, ap=0.6530, ar=0.7090
)


class Page(html.parser.HTMLParser):
    """What a browser would look at: tags with their attributes, visible text, cells of tables by heading."""

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


def figure(path, title: str = "What a figure says"):
    return figures.save(figures.bars({"AP": {"HRNet": 65.4}}, title), path)


def noise(path, side: int = 700):
    """A PNG that no codec makes small, and none of `draw`'s."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8))


def sentences(*rows: Record, **source) -> str:
    return "\n".join(f"{each.figure}: {each.text}" for each in report.findings(Source(rows, **source)))


# -- the findings ------------------------------------------------------------------------------------------------


def test_accuracy_is_told_with_all_that_it_depends_on():
    said = sentences(ACCURACY)
    assert "AP 0.7609 and AR 0.8224 on 256 images of demo val2017, with the flip test" in said
    assert "demo weights" in said
    assert "says nothing about photographs" in said
    assert "on only 8 images" in sentences(dataclasses.replace(ACCURACY, images=8))
    assert "without the flip test" in sentences(dataclasses.replace(ACCURACY, dataset="demo val2017 without flip test"))


def test_fewer_bits_are_set_against_float32():
    said = sentences(SPEED, ACCURACY, INT8_SPEED, INT8_ACCURACY)
    assert "-0.0004 AP: Against float32" in said
    assert "loses 0.0004 AP (0.7609 to 0.7605 on 256 images" in said
    assert "is 1.8 times as quick (p50, batch 1, timed by one command) and has 25% of the file size" in said
    assert "keeps the AP" in sentences(ACCURACY, dataclasses.replace(INT8_ACCURACY, ap=0.76093))


@pytest.mark.parametrize(
    "other", [{"images": 8}, {"dataset": "hard2017"}, {"weights": "other"}, {"backend": "openvino"}]
)
def test_accuracies_of_different_things_are_not_compared(other):
    assert "Against float32" not in sentences(ACCURACY, dataclasses.replace(INT8_ACCURACY, **other))


@pytest.mark.parametrize(
    "other", [{"machine": {"cpu": "Another"}}, {"batch_size": 8}, {"command": "perf, on another day"}]
)
def test_speeds_of_different_things_are_not_compared(other):
    assert "quick" not in sentences(SPEED, dataclasses.replace(INT8_SPEED, **other))


def test_networks_are_compared_where_one_command_timed_them():
    slow = dataclasses.replace(SPEED, model="HRNet", weights="random", latency_ms=Latency(360.0, 1, 1, 1, 1))
    assert "takes MobileNetv2 90.0 ms (p50), HRNet 4.0 times as long" in sentences(SPEED, slow)
    assert "as long" not in sentences(SPEED, dataclasses.replace(slow, command="on another day"))


def test_only_official_weights_on_coco_are_set_against_what_is_published():
    assert "Nothing here can be set against" in sentences(ACCURACY)
    assert "-0.0012 AP: HRNet with official weights" in sentences(OFFICIAL)
    for other in ({"dataset": "demo val2017"}, {"weights": "random"}, {"dataset": "coco val2017 without flip test"}):
        assert "Nothing here can be set against" in sentences(dataclasses.replace(OFFICIAL, **other))


def test_a_simulated_card_is_no_source_of_figures():
    said = sentences(SIMULATED)
    assert "0.763" not in said
    assert "1 record of a simulated MLU: calls and accuracy path, not speed" in said


def test_noise_has_no_accuracy():
    assert " AP" not in sentences(dataclasses.replace(ACCURACY, weights="random", ap=0.0)).replace("AP and", "")


# -- the tables --------------------------------------------------------------------------------------------------


def test_every_figure_of_the_records_is_in_a_table(tmp_path):
    page = write(tmp_path, SPEED, ACCURACY, INT8_SPEED, INT8_ACCURACY)
    assert page.tables["Accuracy"][1:] == [
        "MobileNetv2 force_ float32, onnxruntime 0.7609 0.8224 demo yes 256 demo val2017 ",
        "MobileNetv2 qint8_ mixed_ float16, onnxruntime 0.7605 0.8224 demo yes 256 demo val2017 -0.0004 "
        "32 pictures, minmax ",
    ]
    speeds = page.tables["Speed"]
    assert [row.split("onnxruntime ")[1].split(" 1 x 3")[0] for row in speeds[1:]] == [
        "90.0 95.0 99.0 11.1",
        "50.0 51.0 53.0 11.1 1.8x",
    ]
    assert "40.0" in page.tables["Builds"][1]
    assert "10.0 25% 0.5" in page.tables["Builds"][2]
    assert "1.0 9.0 180.0 10.0" in page.tables["Where the work goes"][1]
    assert "python -m helpers eval 2" in page.tables["Commands"][2]
    assert "Some CPU, 2 cores 8.0 GB, Debian, Python 3.11.7 avx2 onnxruntime 1.32.0" in " ".join(
        page.tables["Machines and versions"]
    )


def test_what_was_not_measured_has_no_column_and_no_zero(tmp_path):
    page = write(tmp_path, dataclasses.replace(ACCURACY, ar=None))
    assert "AR" not in page.tables["Accuracy"][0]
    assert set(page.tables) == {"Accuracy", "Published figures beside ours", "Commands", "Machines and versions"}


def test_published_figures_stand_beside_ours_with_a_difference_or_a_warning(tmp_path):
    rows = write(tmp_path, ACCURACY, OFFICIAL).tables["Published figures beside ours"][1:]
    assert len(rows) == sum(len(network.published) for network in zoo.NETWORKS.values())
    assert "HRNet force_ float32 0.6542 0.7099 0.6530 0.7090 -0.0012 official weights" in rows[0]
    assert "not measured" in rows[1]
    assert "MobileNetv2 force_ float32 0.3813 0.4740 0.7609 0.8224 not comparable demo weights" in rows[6]


def test_a_simulated_card_is_marked_and_has_no_time_beside_real_ones(tmp_path):
    timed = dataclasses.replace(SIMULATED, latency_ms=Latency(1.5, 1.5, 1.5, 1.5, 1.5))
    page = write(tmp_path, SPEED, SIMULATED, timed)
    assert report.SIMULATED in page.tables["Accuracy"][1]
    for table in ("Speed", "Where the work goes", "Builds", "Published figures beside ours"):
        assert "simulated" not in " ".join(page.tables[table])
    assert "1.5" not in " ".join(page.tables["Speed"])


def test_what_cannot_be_read_is_a_row(tmp_path):
    """Records, figures and notebooks that are broken are told, and the rest is there."""
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "cut.json").write_text('{"model": "HRNet"')
    (tmp_path / "03_cut.png").write_bytes(figure(tmp_path / "03_whole.png").read_bytes()[:2000])
    (tmp_path / "04_none.png").write_text("no picture")
    (tmp_path / "01_cut.ipynb").write_text("{")
    page = write(tmp_path, ACCURACY)
    told = page.tables["Could not be used"]
    assert len(told) == 1 + 3
    assert all(any(name in row for row in told) for name in ("cut.json", "03_cut.png", "04_none.png"))
    assert "not a notebook that papermill ran" in page.tables["Notebooks"][1]
    assert len(page.find("img")) == 1
    assert "1 unusable" in page.text
    assert "1 unfinished" in page.text


def test_a_failed_notebook_says_where(tmp_path):
    times = {"start_time": "2026-11-24T22:32:06.58+00:00", "end_time": "x", "duration": 12.3, "exception": True}
    error = {"output_type": "error", "ename": "DataError", "evalue": "no such file", "traceback": []}
    cells = [{"cell_type": "code", "outputs": [error]}, {"cell_type": "markdown"}]
    (tmp_path / "02_build.ipynb").write_text(json.dumps({"metadata": {"papermill": times}, "cells": cells}))
    cells[0]["outputs"] = []
    (tmp_path / "03_infer.ipynb").write_text(json.dumps({"metadata": {"papermill": times}, "cells": cells}))
    rows = write(tmp_path, ACCURACY).tables["Notebooks"]
    assert rows[1] == "02_build.ipynb DataError: no such file 12 2026-11-24 22:32 UTC "
    assert rows[2] == "03_infer.ipynb finished 12 2026-11-24 22:32 UTC "


# -- the file ----------------------------------------------------------------------------------------------------


def test_needs_nothing_from_outside(tmp_path):
    figure(tmp_path / "04_published.png")
    page = write(tmp_path, SPEED, ACCURACY, INT8_ACCURACY, SIMULATED)
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
    figure(tmp_path / "04_a name with spaces & more.png")
    page = write(tmp_path, SPEED, ACCURACY)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {attrs["href"][1:] for attrs in page.find("a")}
    assert links - set(ids) == {"close"}, "closing an enlarged figure goes nowhere, and scrolls nowhere"


def test_hostile_text_is_text(tmp_path):
    attack = "<script>alert(1)</script>\"'><img src=http://example.org/x onerror=alert(1)> {{ 7 * 7 }}"
    fields = ("weights", "backend", "precision", "dataset", "command", "when")
    hostile = dataclasses.replace(ACCURACY, **dict.fromkeys(fields, attack), machine={"cpu": attack, "cores": 2})
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / f"{'x<script>'}.json").write_text('{"model": "\\ud800<script>"')
    (tmp_path / "records" / "surrogate.json").write_text(
        json.dumps({**hostile.to_dict(), "model": "\ud800 half a character"})
    )
    (tmp_path / "records" / "attack.json").write_text(hostile.to_json())
    figure(tmp_path / "03_<img src=x>.png", attack.replace("$", ""))
    page = write(tmp_path)
    assert not page.find("script")
    assert all(image["src"].startswith("data:") for image in page.find("img"))
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text


@pytest.mark.parametrize(("limit", "left_out"), [(5_000_000, 0), (1_500_000, 0), (600_000, 3), (40_000, 6)])
def test_stays_under_its_limit(tmp_path, monkeypatch, limit, left_out):
    """First figures get smaller; only when all are as small as they may be, some are left out, and counted."""
    monkeypatch.setattr(report, "MAX_BYTES", limit)
    for k in range(6):
        noise(tmp_path / f"03_{k}.png", 700 + k)
    page = write(tmp_path, ACCURACY)
    assert (tmp_path / "page.html").stat().st_size <= limit
    widths = [int(image["width"]) for image in page.find("img")]
    assert len(widths) == 6 - left_out
    assert ("did not fit" in page.text) == (left_out > 0)
    assert f"{left_out} more" in page.text or not left_out
    assert set(widths) <= ({700, 701, 702, 703, 704, 705} if limit == 5_000_000 else {500})


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
    assert "0 records and 0 figures" in page.text
    assert set(page.tables) == {"Accuracy", "Published figures beside ours"}


def test_what_comes_with_the_repository_says_so(tmp_path):
    """It fills cells that were not measured here, and is the source of nothing but accuracy."""
    ours = dataclasses.replace(ACCURACY, ap=0.7601, images=60)
    page = write(tmp_path, ours, shipped=[ACCURACY, dataclasses.replace(ACCURACY, model="HRNet", ap=0.8)])
    where = [row.split("val2017 ")[1] for row in page.tables["Accuracy"][1:]]
    assert sorted(where) == ["elsewhere, shipped "] * 2 + ["here "]
    rows = page.tables["Published figures beside ours"][1:]
    assert "0.8000" in rows[0] and rows[0].endswith(", shipped figure ")
    assert "0.7601" in rows[6] and "shipped" not in rows[6], "what was measured here comes first"
    assert "HRNet" not in " ".join(row for name in ("Builds", "Commands") for row in page.tables.get(name, []))
    assert "2 figures of accuracy come with the repository (Some CPU, 2 cores)" in page.text


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
    assert "0.761 (demo weights, 256 images of demo val2017)" in printed
    assert printed.splitlines()[-1] == f"page: {output / 'report.html'}"
    assert (output / "report.html").is_file()
    assert main(["report", "--json", "--out", str(tmp_path / "deep" / "x.html")]) == 0
    captured = capsys.readouterr()
    assert [row["model"] for row in json.loads(captured.out)] == ["MobileNetv2"] * 2
    assert "x.html" in captured.err
    assert (tmp_path / "deep" / "x.html").is_file()
    assert main(["report", "--out", str(output)]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_the_command_fills_in_what_is_shipped(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "output", lambda: tmp_path / "output")
    records.save(SPEED)
    assert main(["report"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("(demo weights, 256 images of demo val2017, shipped figure)") == len(paths.demo_models()) > 0


def test_without_jinja2_there_is_still_the_table(capsys, output, monkeypatch, tmp_path):
    monkeypatch.setattr(report, "_NEEDED", {"not_a_module": "not-a-package", "json": "json"})
    assert main(["report"]) == 0
    captured = capsys.readouterr()
    assert "0.761 (demo weights" in captured.out
    assert captured.err == "no page without not-a-package: pip install not-a-package\n"
    assert not (output / "report.html").exists()
    assert main(["report", "--out", str(tmp_path / "x.html")]) == 1
    assert "error: The page needs not-a-package" in capsys.readouterr().err
