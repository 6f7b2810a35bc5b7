"""The notebooks: well-formed as they are committed, and run from top to bottom by papermill as a reader would."""

from __future__ import annotations

import base64
import json
import subprocess
import sys

import cv2
import nbformat
import numpy as np
import papermill
import pytest

from helpers import paths, scale_out, zoo
from helpers.pose import video
from tests.notebooks.runner import FOLDER, run

NAMES = ("01_export", "02_build", "03_infer", "04_benchmark", "05_scale_out")
FIGURES = {
    "01_export": {"01_heatmaps", "01_check"},
    "02_build": {"02_agreement", "02_poses", "02_histograms", "02_counts", "02_ranges", "02_sensitivity"},
    "03_infer": {
        "03_truth",
        "03_heatmaps",
        "03_tags",
        "03_steps",
        "03_explore",
        "03_precisions",
        "03_worst",
        "03_gallery",
        "03_accuracy",
        "03_own",
        "03_video",
    },
    "04_benchmark": {
        "04_published",
        "04_latency",
        "04_roofline",
        "04_stages",
        "04_mmpose",
        "04_decode",
        "04_throughput",
        "04_trade",
        "04_changes",
    },
    "05_scale_out": {"05_limits", *(["05_scaling"] if scale_out.available() else [])},
}
QUICK = {
    "02_build": {"calibration_num": 2, "calibration_counts": [1, 2], "sensitivity_num": 1, "sensitivity_layers": 8},
    "03_infer": {"image_num": 6, "batch_size": 2, "compare_num": 2},
    "04_benchmark": {
        "image_num": 1,
        "min_runs": 2,
        "min_seconds": 0.0,
        "compare_num": 1,
        "people": [1],
        "batch_sizes": [1],
        "option_num": 2,
    },
    "05_scale_out": {"image_num": 4, "batch_size": 2},
}


def read(name: str):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def test_these_are_all_the_notebooks():
    assert sorted(p.stem for p in FOLDER.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", QUICK)
def test_the_parameters_of_this_test_exist(name):
    """papermill only warns of a misspelt one."""
    assert set(QUICK[name]) <= set(papermill.inspect_notebook(str(FOLDER / f"{name}.ipynb")))


@pytest.fixture(scope="module")
def walk(tmp_path_factory, models):
    """All in order: folder, and executed notebooks by name."""
    out = tmp_path_factory.mktemp("walk")
    return out, {name: run(name, out, models, **QUICK.get(name, {})) for name in NAMES}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", NAMES)
def test_runs_and_shows_its_figures(walk, name):
    out, executed = walk
    cells = [cell for cell in executed[name].cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    shown = [o.data["image/png"] for o in outputs if "image/png" in o.get("data", {})]
    assert {p.stem for p in out.glob(f"{name[:2]}_*.png")} == FIGURES[name]
    assert len(shown) == len(FIGURES[name])
    for picture in shown:
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_COLOR)
        assert min(pixels.shape[:2]) > 200
        assert pixels.std() > 5


def test_thresholds_and_the_same_as_a_plain_image(walk):
    """The controls are there for a browser; who has none gets the image that they start with."""
    _, executed = walk
    [cell] = [c for c in executed["03_infer"].cells if c.id == "03-22"]
    kinds = [set(output.data) for output in cell.outputs]
    assert any("application/vnd.jupyter.widget-view+json" in kind for kind in kinds)
    assert any("image/png" in kind for kind in kinds)
    state = executed["03_infer"].metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    sliders = {s["state"]["description"]: s["state"]["value"] for s in state.values() if "FloatSlider" in str(s)}
    assert {"keypoint threshold": 0.1, "person threshold": 0.2}.items() <= sliders.items()
    assert len(json.dumps(state)) < 400_000, "the image is kept once"


def test_a_video_is_painted(walk):
    out, _ = walk
    assert len(video.stills(out / "03_video.mp4", 100)) == len(video.stills(out / "03_pan.mp4", 100)) > 3
    assert not list(out.glob(".part*"))


def test_records_of_all_three_networks(walk):
    out, _ = walk
    records = [json.loads(path.read_text()) for path in (out / "records").glob("*.json")]
    timed = [r for r in records if "latency_ms" in r]
    assert {r["model"] for r in timed} == set(zoo.NETWORKS)
    [scored] = [r for r in records if "ap" in r]
    assert scored["model"] == "MobileNetv2"
    assert scored["images"] == 6
    assert all("ap" not in r for r in timed if r["weights"] == "random")


def test_the_closing_table_says_where_accuracy_was_measured(walk):
    _, executed = walk
    shown = [o.data["text/plain"] for o in executed["04_benchmark"].cells[-2].outputs if "data" in o]
    assert "6 images of demo val2017" in shown[-1], "MobileNetv2's, of notebook 3"
    assert shown[-1].count("shipped figure") == len(paths.demo_models()) - 1


def test_what_decoding_options_cost_and_bring(walk):
    _, executed = walk
    [table] = [o for c in executed["04_benchmark"].cells if c.id == "04-21" for o in c.outputs]
    for word in ("official", "no flip", "no adjust", "no refine", "none of the three", "AP", "infer ms", "decode ms"):
        assert word in table.data["text/plain"]


def test_precisions_are_compared(walk):
    _, executed = walk
    [sizes] = [o for c in executed["02_build"].cells if c.id == "02-18" for o in c.outputs]
    assert all(column in sizes.data["text/plain"] for column in ("heatmaps dB", "of the first", "build s"))
    assert all(name in sizes.data["text/plain"] for name in ("force_float32", "force_float16", "qint8_mixed_float16"))
    [points] = [o for c in executed["04_benchmark"].cells if c.id == "04-24" for o in c.outputs]
    assert "times as fast" in points.data["text/plain"]


WRONG = [
    ("01_export", {"model": "HRNet2"}, "There is no model 'HRNet2'; did you mean HRNet?"),
    ("02_build", {"precision": "int8"}, "There is no precision 'int8'"),
    ("02_build", {"dynamic_shape": "maybe"}, "The parameter dynamic_shape must be of type bool, not 'maybe'."),
    ("03_infer", {"split": "calib2017", "precision": "qint8_mixed_float16"}, "calibration images are also scored"),
    ("04_benchmark", {"image_nmu": 3}, "There is no parameter 'image_nmu'; did you mean image_num?"),
]


@pytest.mark.parametrize(("name", "parameters", "sentence"), WRONG, ids=[f"{n}-{next(iter(p))}" for n, p, _ in WRONG])
def test_a_wrong_parameter_is_told_in_one_sentence(models, tmp_path, name, parameters, sentence):
    with pytest.raises(papermill.PapermillExecutionError) as raised:
        run(name, tmp_path, models, **parameters)
    [line] = raised.value.traceback
    assert line.startswith("UsageError: ")
    assert sentence in line
    assert line in str(raised.value)
    written = nbformat.read(tmp_path / f"{name}.ipynb", as_version=4)
    outputs = [output for cell in written.cells for output in cell.get("outputs", ())]
    assert [output.traceback for output in outputs if output.output_type == "error"] == [[line]]


def test_the_command_fails_with_that_sentence(tmp_path):
    """papermill's own program, as `make run` calls it."""
    words = ["papermill", FOLDER / "02_build.ipynb", tmp_path / "02_build.ipynb", "--cwd", FOLDER, "-k", "python3"]
    done = subprocess.run(
        [sys.executable, "-m", *words, "-p", "batch_size", "many"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("UsageError: The parameter batch_size must be of type int, not 'many'.")


def test_other_errors_keep_their_traceback(tmp_path):
    """A fault of the code is looked for where it happened; only what a reader can mend is one sentence."""
    setting_up = next(c.source for c in read("01_export").cells if "notebook.start()" in c.source)
    cells = [nbformat.v4.new_code_cell(source) for source in ('out: str = ""', setting_up, "1 / 0")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "fault.ipynb")
    with pytest.raises(papermill.PapermillExecutionError, match="ZeroDivisionError") as raised:
        papermill.execute_notebook(
            str(tmp_path / "fault.ipynb"), None, cwd=str(FOLDER), kernel_name="python3", progress_bar=False
        )
    assert len(raised.value.traceback) > 1
