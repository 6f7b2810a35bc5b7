"""A job picks what its weights were trained for, and never learns from what is scored."""

from __future__ import annotations

import pytest

from helpers import paths
from helpers.backends import BuildSpec
from helpers.dataset import CocoDataset
from helpers.errors import UsageError
from helpers.pipeline import Job
from tests.unit.conftest import person, write_coco

EIGHT = BuildSpec("qint8_mixed_float16")


def test_official_weights_are_calibrated_with_coco_and_others_with_the_demo_set(tmp_path, monkeypatch):
    write_coco(tmp_path, {1: "a.jpg", 2: "b.jpg"}, [person(1, 20, 10, 100, 200)], "calib2017")
    monkeypatch.setenv("COCO_DATASETS_PATH", str(tmp_path))
    for weights, home in (("official", tmp_path), ("demo", paths.demo_data()), ("random", paths.demo_data())):
        images = Job(weights=weights, spec=EIGHT, calibration_num=2).calibration()
        assert {path.parent for path in images.files} == {home / "calib2017"}
    assert Job(weights="official").calibration() is None, "float32 learns nothing"


def test_calibration_with_scored_images_is_refused():
    scored = CocoDataset(paths.demo_data(), "calib2017")
    with pytest.raises(UsageError, match="calibration images are also scored"):
        Job(spec=EIGHT).calibration(scored)
    assert len(Job(spec=EIGHT).calibration(CocoDataset(paths.demo_data()))) == 32
