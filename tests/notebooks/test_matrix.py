"""Every notebook with trained and with random weights, in 32 and in 8 bits: judged by what it leaves behind.

MobileNetv2's other runs are those of test_notebooks.py: 1, 2 (8 bits), 3 and 4 (float32).
"""

from __future__ import annotations

import json

import cv2
import pytest

from helpers import paths
from helpers.images import read_image
from helpers.pose import video
from tests.notebooks.runner import run
from tests.notebooks.test_notebooks import FIGURES, QUICK

TRAINED = {"model": "MobileNetv2", "weights": "demo"}
NOISE = {"model": "ResNet50", "weights": "random"}
FLOAT, EIGHT = "force_float32", "qint8_mixed_float16"
# ResNet50 is three times the work: one picture to calibrate with, two layers to rank, two pictures to score.
LESS = {
    "02_build": {"calibration_num": 1, "calibration_counts": [1], "sensitivity_layers": 2},
    "03_infer": {"image_num": 2, "compare_num": 1},
    "04_benchmark": {"ladder": [FLOAT], "option_num": 1, "batch_sizes": [1], "compare_num": 1},
}
RUNS = [
    ("01_export", NOISE, None),
    *[("02_build", *at) for at in ((TRAINED, FLOAT), (NOISE, FLOAT), (NOISE, EIGHT))],
    *[("03_infer", *at) for at in ((TRAINED, EIGHT), (NOISE, FLOAT), (NOISE, EIGHT))],
    # In 8 bits it would calibrate three networks with 32 pictures each; MobileNetv2 in 8 bits is on its ladder.
    ("04_benchmark", NOISE, FLOAT),
]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder of one picture and a video of two frames, as a reader's own: notebook 3 takes more by itself."""
    folder = tmp_path_factory.mktemp("own")
    picture = read_image(next((paths.demo_data() / "val2017").glob("*.jpg")))
    cv2.imwrite(str(folder / "picture.jpg"), picture)
    return {"images": str(folder), "video": str(video.pan(picture, folder / "pan.mp4", frames=2))}


def parameters(name: str, network: dict, precision: str | None, own: dict) -> dict:
    less = {**QUICK.get(name, {}), **(LESS.get(name, {}) if network is NOISE else {})}
    if name == "03_infer":
        less.update(own)
    if precision is not None:
        less["precision"] = precision
        less[{"02_build": "ladder", "03_infer": "compare"}.get(name, "ladder")] = [precision]
    return {**network, **less}


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "network", "precision"), RUNS, ids=[f"{n}-{w['model']}-{p or 'any'}" for n, w, p in RUNS]
)
def test_leaves_figures_and_records(models, own, tmp_path, name, network, precision):
    run(name, tmp_path, models, **parameters(name, network, precision, own))
    figures = {path.stem: path for path in tmp_path.glob("*.png")}
    assert set(figures) == FIGURES[name]
    for stem, path in figures.items():
        assert path.stat().st_size > 8000, stem
        picture = cv2.imread(str(path))
        assert (picture < 250).any(axis=2).mean() > 0.01, f"{stem} is all but blank"
        assert picture.std() > 5, stem
    exported = models / f"{network['model']}_{network['weights']}"
    assert len(list(exported.glob("*.onnx"))) >= (2 if name == "01_export" else 1)
    if precision is not None:
        assert [p for p in exported.rglob(f"*{precision}*") if p.suffix != ".json" and p.stat().st_size > 5e6]
    records = [json.loads(path.read_text()) for path in (tmp_path / "records").glob("*.json")]
    scored = [each for each in records if "ap" in each and each["model"] == network["model"]]
    timed = [each for each in records if "latency_ms" in each]
    assert bool(scored) == (name == "03_infer")
    assert len(timed) == (3 if name == "04_benchmark" else 0)
    for each in scored:
        assert (each["weights"], each["precision"]) == (network["weights"], precision)
        low, high = (0.5, 1.0) if network is TRAINED else (0.0, 0.05)  # noise finds nobody
        assert low <= each["ap"] <= high
    for each in timed:
        assert 1 < each["latency_ms"]["p50"] < 60_000
