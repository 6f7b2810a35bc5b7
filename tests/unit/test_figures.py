"""Figures: not blank, true to what they are given, and harmless to other matplotlib users."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from helpers.dataset import GroundTruth
from helpers.errors import UsageError
from helpers.measure.roofline import Cost
from helpers.pose.decode import Poses, align_maps, decode_steps
from helpers.pose.preprocess import resize_align
from helpers.show import draw, figures
from tests.unit.test_draw import standing

IMAGE = np.full((300, 240, 3), 200, np.uint8)
TRANSFORM = resize_align(IMAGE)[1]
SHAPE = (34, TRANSFORM.base_size[1] // 4, TRANSFORM.base_size[0] // 4)


def together(*each: Poses) -> Poses:
    return Poses(*map(np.concatenate, zip(*((poses.keypoints, poses.scores, poses.tags) for poses in each))))


def annotated(*each: Poses) -> GroundTruth:
    points = together(*each).keypoints.astype(float)
    points[..., 2] = 2
    return GroundTruth(points, np.zeros((len(points), 4)), np.full(len(points), 9000.0))


def hills() -> np.ndarray:
    """An output (34, h, w) of two people with a hill per keypoint, of which the second person's left wrist is cold."""
    output = np.zeros(SHAPE, np.float32)
    rows, columns = np.mgrid[: SHAPE[1], : SHAPE[2]]
    for tag, left in ((0.0, 20), (5.0, 90)):
        for keypoint in range(17):
            away = (columns - left - keypoint - 0.3) ** 2 + (rows - 10.2 - 6 * keypoint) ** 2
            hot = 0.05 if (tag, keypoint) == (5.0, 9) else 0.9
            output[keypoint] = np.maximum(output[keypoint], hot * np.exp(-away / 8))
            output[17 + keypoint][away < 40] = tag
    return output


NOISE = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
NOBODY = draw.confident(standing(), 2)
MAKERS = {
    "gallery": lambda: figures.gallery([IMAGE, IMAGE[:, :100]], [standing(), NOBODY]),
    "one image": lambda: figures.gallery([IMAGE], captions=["as it is"], title="One"),
    "truth": lambda: figures.truth(IMAGE, standing(), annotated(standing())),
    "truth of nobody": lambda: figures.truth(IMAGE, NOBODY, annotated(standing())),
    "precisions": lambda: figures.precisions(IMAGE, {"float32": standing(), "int8": standing()}),
    "worst": lambda: figures.worst([IMAGE] * 2, [standing(), NOBODY], [standing(), NOBODY], "int8"),
    "heatmaps": lambda: figures.heatmaps(IMAGE, align_maps(NOISE), TRANSFORM, ["nose", "left_wrist"]),
    "tags": lambda: figures.tags(IMAGE, align_maps(NOISE), standing(), TRANSFORM),
    "tags of nobody": lambda: figures.tags(IMAGE, align_maps(np.zeros_like(NOISE)), NOBODY, TRANSFORM),
    "steps": lambda: figures.steps(IMAGE, decode_steps(NOISE, None, TRANSFORM), TRANSFORM),
    "steps to nobody": lambda: figures.steps(IMAGE, decode_steps(np.zeros_like(NOISE), None, TRANSFORM), TRANSFORM),
    "agreement": lambda: figures.agreement(*np.random.default_rng(0).random((2, 34, 8, 8))),
    "histograms": lambda: figures.histograms({"/a/b/Conv": (np.arange(9), np.arange(10.0), 0.0, 9.0)}),
    "a dead layer": lambda: figures.histograms({"/a/b/Conv": (np.zeros(9), np.linspace(0, 1, 10), 0.0, 0.0)}),
    "roofline": lambda: figures.roofline({"a": (Cost(20.0, 500.0), 0.1)}, 300.0, 20.0),
    "bars": lambda: figures.bars({"here": {"a": 1.0, "b": None}, "there": {"b": -2.0}}),
    "a limit": lambda: figures.bars({"x": {"a": 1e-6}}, limit=1e-3),
    "stack": lambda: figures.bars({"load": {"a": 1.0}, "decode": {"a": None}}, stacked=True),
    "lines": lambda: figures.lines({"a": ([1, 2], [3, 4])}, form="{:.1f}", log=True),
    "dashed": lambda: figures.lines({"a": ([1, 2], [0, 1]), "b": ([1, 3], [0, 1])}, dashed=["b"]),
    "scatter": lambda: figures.scatter({"a": (["1", "8"], [3, 4])}),
}


@pytest.mark.parametrize("name", MAKERS)
def test_can_be_saved(name, tmp_path):
    path = figures.save(MAKERS[name](), tmp_path / "deep" / f"{name}.png")
    picture = cv2.imread(str(path))
    assert min(picture.shape[:2]) > 150
    assert picture.std() > 5, "not a blank page"
    assert [each.name for each in path.parent.iterdir()] == [path.name], "no temporary file stays"


def test_a_gallery_of_nothing_is_refused():
    with pytest.raises(UsageError, match="no image to show"):
        figures.gallery([], [])


@pytest.mark.parametrize(("height", "width"), [(480, 640), (333, 500), (640, 427)])
def test_maps_line_up_with_the_image(height, width):
    """A heatmap's peak comes to lie on the spot of the image that made it."""
    image = np.zeros((height, width, 3), np.uint8)
    x, y = int(width * 0.7), int(height * 0.3)
    cv2.circle(image, (x, y), 12, (255, 255, 255), -1)
    resized, transform = resize_align(image)
    cells = cv2.resize(resized[..., 0], None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA).astype(np.float32)
    placed = figures.on_image(cells, transform)
    assert placed.shape == (height, width)
    rows, columns = np.nonzero(placed > placed.max() * 0.9)
    assert abs(columns.mean() - x) < 1.5
    assert abs(rows.mean() - y) < 1.5


def texts(ax) -> list[str]:
    return [text.get_text().strip() for text in ax.texts if text.get_text()]


def test_truth_tells_who_was_found():
    both = together(standing(), standing(x=30))
    left, right = figures.truth(IMAGE, both, annotated(standing(), standing(x=160))).axes
    assert left.get_title(loc="left") == "ground truth: 2 people"
    assert right.get_title(loc="left") == "found: 2 people"
    assert texts(right) == ["OKS 1.00", "no match"]


def test_the_panel_of_precisions_tells_who_moved_and_who_got_lost():
    both = together(standing(), standing(x=30))
    axes = figures.precisions(IMAGE, {"float32": both, "float16": both, "int8": standing()}).axes
    told = [ax.get_title(loc="left") for ax in axes]
    assert told == ["float32: 2 people", "float16: 2 people", "int8: 1 person"]
    assert [texts(ax) for ax in axes] == [[], ["OKS 1.000\n0.0 px"] * 2, ["OKS 1.000\n0.0 px", "lost"]]


def test_the_worst_images_tell_what_was_lost():
    both = together(standing(), standing(x=30))
    above, below = figures.worst([IMAGE], [both], [standing()], "int8").axes
    assert above.get_title(loc="left") == "reference: 2 people"
    assert below.get_title(loc="left") == "int8: 1 person, 1 lost, mean OKS 0.500"


def test_steps_count_what_they_hold():
    steps = decode_steps(hills(), None, TRANSFORM)
    axes = figures.steps(IMAGE, steps, TRANSFORM).axes
    captions = [ax.get_title(loc="left") for ax in axes]
    assert captions[1].startswith("2 · 33 peaks")
    assert captions[2].startswith("3 · grouped by tags: 2 people")
    assert captions[4].startswith("5 · filled: 1 missing keypoint")
    ringed = axes[4].collections[-1].get_offsets()
    assert np.allclose(ringed, steps.poses.keypoints[steps.grouped[..., 2] == 0][:, :2])


def test_tags_stand_at_their_keypoints():
    output = np.zeros(SHAPE, np.float32)
    output[17:, :, SHAPE[2] // 2 :] = 3.0
    poses = together(standing(20), standing(180))
    dots = figures.tags(IMAGE, align_maps(output), poses, TRANSFORM).axes[2].collections
    assert [set(each.get_offsets()[:, 1]) for each in dots] == [{0.0}, {3.0}]


def test_a_network_stands_below_the_roof_at_its_intensity():
    figure = figures.roofline({"a": (Cost(20.0, 500.0), 0.1), "b": (Cost(1.0, 500.0), 0.1)}, 400.0, 20.0)
    [ax] = figure.axes
    points = [line.get_xydata().tolist()[0] for line in ax.lines if line.get_marker() == "o"]
    assert points == [[40.0, pytest.approx(200.0)], [2.0, pytest.approx(10.0)]]
    named = [text.get_text() for text in ax.get_legend().texts]
    assert named == ["a: 200 GFLOP/s, 50% of the roof", "b: 10 GFLOP/s, 25% of the roof"]


def test_bars_write_their_values_and_lines_their_spread():
    values = {"float32": {"HRNet": 65.4, "ResNet50": None}, "int8": {"HRNet": 62.5}}
    [ax] = figures.bars(values, form="{:.1f}", spread={"int8": {"HRNet": (62.0, 63.0)}}).axes
    assert texts(ax) == ["65.4", "62.5"]
    assert [list(line.get_xdata()) for line in ax.lines] == [[62.0, 63.0]]


def test_a_stack_shows_its_total():
    stages = {"load": {"a": 1.0, "b": 1.0}, "network": {"a": 150.0, "b": 150.0}, "decode": {"a": 900.0, "b": None}}
    [ax] = figures.bars(stages, form="{:,.0f} ms", stacked=True).axes
    assert texts(ax) == ["1,051 ms", "151 ms"]


def test_the_front_joins_what_nothing_beats():
    points = {"slow": ([9], [0.7]), "bad": ([5], [0.4]), "quick": ([3], [0.5])}
    [ax] = figures.scatter(points, front=True, spread=dict.fromkeys(points, (0.3, 0.8))).axes
    [line] = [line for line in ax.lines if line.get_drawstyle() == "steps-post"]
    assert line.get_xydata().tolist() == [[3, 0.5], [9, 0.7]]


def test_no_color_of_a_chart_is_a_persons():
    assert not set(figures.CHART_COLORS) & set(draw.PERSON_COLORS)


def test_style_is_not_forced_on_others():
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures.gallery([IMAGE], [standing()])
    assert dict(matplotlib.rcParams) == before
