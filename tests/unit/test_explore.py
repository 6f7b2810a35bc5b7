"""Controls: what they choose is what is shown, and a threshold is quick enough to follow the mouse."""

from __future__ import annotations

import time

import cv2
import ipywidgets
import numpy as np
import pytest

from helpers import paths, pipeline
from helpers.dataset import CocoDataset
from helpers.errors import UsageError
from helpers.pose.decode import Poses
from helpers.show.explore import Choice, Explorer, Scene

START = Choice("MobileNetv2", "onnxruntime", "force_float32")


@pytest.fixture(scope="module")
def explorer(home):
    dataset = CocoDataset(paths.demo_data())
    yield Explorer(START, [dataset.path(image_id) for image_id in (20079, 20014)], pipeline.load, ["MobileNetv2"])


class Panel:
    """The panel as a browser has it: controls by their label, the image and the text."""

    def __init__(self, box: ipywidgets.VBox) -> None:
        *rows, self.image, self.text, self.output = box.children
        self.controls = {control.description: control for row in rows for control in row.children}

    def pixels(self) -> np.ndarray:
        return cv2.imdecode(np.frombuffer(self.image.value, np.uint8), cv2.IMREAD_COLOR)


@pytest.fixture
def panel(explorer):
    return Panel(explorer.panel())


def test_it_starts_with_the_choice_and_shows_the_same_as_the_figure(explorer, panel):
    assert panel.controls["keypoint threshold"].value == START.keypoint_threshold
    shown = explorer.scene(START).counts(START)
    assert panel.text.value == shown
    assert explorer.figure().axes[0].get_title(loc="left") == shown


def test_the_threshold_slider_repaints_in_under_a_tenth_of_a_second(panel):
    """As a browser calls it: drawing the skeletons, JPEG and text included."""
    before, seconds = panel.image.value, []
    for value in np.linspace(0.15, 0.95, 17):
        start = time.perf_counter()
        panel.controls["keypoint threshold"].value = float(value)
        seconds.append(time.perf_counter() - start)
    assert np.median(seconds) < 0.1
    assert panel.image.value != before
    assert len(panel.image.value) < 300_000, "it is kept in the notebook's file"


def test_a_high_threshold_leaves_the_image_bare(explorer, panel):
    panel.controls["keypoint threshold"].value = 1.0
    bare = explorer.scene(START).image
    assert np.abs(panel.pixels().astype(int) - bare).mean() < 5, "JPEG's losses"
    assert "0 of their" in panel.text.value


def test_thresholds_count_people_and_keypoints():
    keypoints = np.zeros((2, 17, 3), np.float32)
    keypoints[0, :5, 2] = 0.5
    scene = Scene.of(np.zeros((64, 64, 3), np.uint8), Poses(keypoints, np.float32([0.5, 0.1]), np.zeros((2, 1))))
    assert scene.counts(START) == "1 of 2 people score 0.20 or more, 5 of their 17 keypoints above 0.10"


def test_another_image_is_decoded_once(explorer, panel):
    first = panel.image.value
    panel.controls["image"].value = 1
    assert panel.image.value != first
    panel.controls["image"].value = 0
    assert panel.image.value == first
    assert explorer.scene(START) is explorer.scene(START)


def test_a_choice_that_does_not_work_is_told_in_a_line_and_the_image_stays(panel):
    """PyTorch computes in float32 alone."""
    panel.controls["engine"].value = "pytorch"
    assert "people score" in panel.text.value
    before = panel.image.value
    panel.controls["precision"].value = "force_float16"
    assert "does not build force_float16" in panel.text.value
    assert panel.image.value == before
    assert panel.output.outputs == ()


def test_only_what_there_is_is_offered(panel):
    assert panel.controls["network"].options == ("MobileNetv2",)
    assert "magicmind" not in panel.controls["engine"].options, "there is no card here"
    assert panel.controls["precision"].options[0] == "force_float32"


def test_a_wrong_start_is_refused(explorer):
    with pytest.raises(UsageError, match="did you mean HRNet"):
        explorer.scene(Choice("HRNet2", "onnxruntime", "force_float32"))
