"""Controls: what they choose is what is shown, and a threshold is quick enough to follow the mouse."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

from helpers import paths
from helpers.dataset import CocoDataset
from helpers.errors import UsageError
from helpers.pose.decode import Poses
from helpers.show import explore
from helpers.show.explore import Choice, Explorer, Scene

START = Choice("MobileNetv2", "onnxruntime", "force_float32")


@pytest.fixture(scope="module")
def explorer(demo_built):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_PATH", str(demo_built.parents[2]))
        patch.setattr("helpers.export.export.CHECK_SHAPES", [(128, 192)])
        dataset = CocoDataset(paths.demo_data())
        yield Explorer(START, [dataset.path(image_id) for image_id in (20079, 20014)])


@pytest.fixture
def panel(explorer):
    return explore._Panel(explorer)


def pixels(panel) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(panel.picture.value, np.uint8), cv2.IMREAD_COLOR)


def test_it_starts_with_the_choice_and_shows_the_same_as_the_figure(explorer, panel):
    assert panel.controls["joint_threshold"].value == START.joint_threshold
    shown = explorer.scene(START).counts(START.joint_threshold, START.person_threshold)
    assert panel.told.value == shown
    assert explorer.figure().axes[0].get_title(loc="left") == shown


def test_the_threshold_slider_repaints_in_under_a_tenth_of_a_second(panel):
    """As a browser calls it: drawing the skeletons, JPEG and text included."""
    before, seconds = panel.picture.value, []
    for value in np.linspace(0.15, 0.95, 17):
        start = time.perf_counter()
        panel.controls["joint_threshold"].value = float(value)
        seconds.append(time.perf_counter() - start)
    assert np.median(seconds) < 0.1
    assert panel.picture.value != before
    assert len(panel.picture.value) < 300_000, "it is kept in the notebook's file"


def test_a_high_threshold_leaves_the_picture_bare(explorer, panel):
    panel.controls["joint_threshold"].value = 1.0
    bare = explorer.scene(START).image
    assert np.abs(pixels(panel).astype(int) - bare).mean() < 5, "JPEG's losses"
    assert "0 of their" in panel.told.value


def test_thresholds_count_people_and_joints():
    keypoints = np.zeros((2, 17, 3), np.float32)
    keypoints[0, :5, 2] = 0.5
    scene = Scene.of(np.zeros((64, 64, 3), np.uint8), Poses(keypoints, np.float32([0.5, 0.1]), np.zeros((2, 1))))
    assert scene.counts(0.1, 0.2).startswith("1 of 2 people")
    assert "5 of their 17 joints" in scene.counts(0.1, 0.2)
    assert "0 of their 17 joints" in scene.counts(0.5, 0.2)


def test_another_picture_is_decoded_once(explorer, panel):
    first = panel.picture.value
    panel.controls["picture"].value = 1
    second = panel.picture.value
    assert second != first
    assert panel.told.value == explorer.scene(panel._choice()).counts(0.1, 0.2)
    panel.controls["picture"].value = 0
    assert panel.picture.value == first
    assert explorer.scene(START) is explorer.scene(START)


def test_another_engine_offers_its_precisions(panel):
    """PyTorch computes in float32 alone."""
    panel.controls["precision"].value = "force_float16"
    panel.controls["backend"].value = "pytorch"
    assert panel.controls["precision"].options == ("force_float32",)
    assert "people score" in panel.told.value


def test_a_choice_that_does_not_work_is_told_in_a_line_and_the_picture_stays(panel):
    before = panel.picture.value
    panel.controls["model"].options = ["MobileNetv2", "HRNet2"]
    panel.controls["model"].value = "HRNet2"
    assert "There is no model" in panel.told.value
    assert panel.picture.value == before


def test_only_what_there_is_is_offered(explorer):
    assert "MobileNetv2" in explorer.models()
    assert all(paths.demo_weights(name).is_file() for name in explorer.models())
    assert "magicmind" not in explorer.engines(), "there is no card here"


def test_a_wrong_start_is_refused():
    with pytest.raises(UsageError, match="did you mean HRNet"):
        Explorer(Choice("HRNet2", "onnxruntime", "force_float32"), [paths.demo_data() / "x.jpg"]).scene(
            Choice("HRNet2", "onnxruntime", "force_float32")
        )
