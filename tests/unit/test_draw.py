"""Pictures: painted where the people are, and only what is sure."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from helpers.backends.sensitivity import CountRow, LayerRow
from helpers.dataset import GroundTruth
from helpers.errors import UsageError
from helpers.export.export import CheckRow, Difference
from helpers.measure.benchmark import Cost, EndToEndTiming, NetworkTiming, PairedTimings
from helpers.measure.records import Record
from helpers.pose.decode import Poses, align_maps, decode_steps
from helpers.pose.preprocess import resize_align
from helpers.show import draw
from helpers.zoo import NETWORKS


def standing(x: float = 100, y: float = 40, score: float = 0.9) -> Poses:
    grid = np.stack([x + 20 * (np.arange(17) % 3), y + 12 * np.arange(17), np.full(17, score)], axis=1)
    return Poses(grid[None].astype(np.float32), np.float32([score]), np.float32([[1.0]]))


@pytest.fixture
def image():
    return np.full((300, 240, 3), 200, np.uint8)


def test_paints_a_copy_where_the_joints_are(image):
    painted = draw.draw_poses(image, standing())
    assert (image == 200).all(), "the input stays as it was"
    changed = (painted != 200).any(axis=2)
    for x, y, _ in standing().keypoints[0]:
        assert changed[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2].all()
    assert not changed[:, 180:].any()
    assert not changed[:20].any()


def test_leaves_out_faint_people_and_faint_or_broken_joints(image):
    assert (draw.draw_poses(image, standing(score=0.05)) == 200).all()
    poses = standing()
    poses.keypoints[0, :, 2] = 0
    poses.keypoints[0, 5] = [np.nan, np.inf, 0.9]
    assert (draw.draw_poses(image, poses) == 200).all()


def test_far_away_joints_do_not_crash(image):
    poses = standing()
    poses.keypoints[0, 3, :2] = [1e9, -1e9]
    assert draw.draw_poses(image, poses).shape == image.shape


def test_people_have_colours_of_their_own_and_the_right_side_is_darker(image):
    two = Poses(
        np.concatenate([standing(40).keypoints, standing(160).keypoints]),
        np.float32([0.9, 0.9]),
        np.float32([[0.0], [1.0]]),
    )
    painted = draw.draw_poses(image, two).astype(int)
    left_eye, right_eye = standing(40).keypoints[0, 1, :2].astype(int), standing(40).keypoints[0, 2, :2].astype(int)
    other = standing(160).keypoints[0, 1, :2].astype(int)
    assert painted[right_eye[1], right_eye[0]].sum() < painted[left_eye[1], left_eye[0]].sum()
    assert (painted[left_eye[1], left_eye[0]] != painted[other[1], other[0]]).any()


@pytest.mark.parametrize(("height", "width"), [(480, 640), (333, 500), (640, 427)])
def test_maps_line_up_with_the_picture(height, width):
    """A heatmap's peak comes to lie on the spot of the picture that made it."""
    picture = np.zeros((height, width, 3), np.uint8)
    x, y = int(width * 0.7), int(height * 0.3)
    cv2.circle(picture, (x, y), 12, (255, 255, 255), -1)
    resized, transform = resize_align(picture)
    cells = cv2.resize(resized[..., 0], None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA).astype(np.float32)
    placed = draw.to_picture(cells, transform)
    assert placed.shape == (height, width)
    rows, columns = np.nonzero(placed > placed.max() * 0.9)
    assert abs(columns.mean() - x) < 1.5
    assert abs(rows.mean() - y) < 1.5


def figures(image):
    poses = standing()
    people = GroundTruth(
        poses.keypoints.astype(float) * [1, 1, 2 / 0.9], np.array([[90, 30, 60, 220.0]]), np.array([9000.0])
    )
    _, transform = resize_align(image)
    width, height = transform.base_size
    noise = np.random.default_rng(0).random((34, height // 4, width // 4), dtype=np.float32)
    maps, nothing = align_maps(noise), np.zeros_like(noise)
    alone = NetworkTiming(np.array([0.1, 0.12, 0.11]), 1, (1, 3, 512, 512))
    whole = EndToEndTiming(np.array([0.2]), {"load": 1.0, "pre": 2.0, "infer": 150.0, "decode": 12.0}, 0.2)
    painted = EndToEndTiming(np.array([0.2]), {**whole.stage_ms, "draw": 6.0}, 0.2)
    turns = PairedTimings({"slow": np.array([0.5, 0.6]), "quick": np.array([0.001, 0.002])})
    row = CheckRow(17, 1, 512, 512, Difference(1e-6, 1.0, 1.0), Difference(1e-5, 8.0, 1.0), True)
    return {
        "poses": lambda: draw.poses_figure([image, image], [poses, poses], 2),
        "truth": lambda: draw.truth_figure(image, poses, people),
        "heatmaps": lambda: draw.heatmap_figure(image, maps, transform, ["nose", "left_wrist"]),
        "tags": lambda: draw.tag_figure(image, maps, poses, transform),
        "nobody": lambda: draw.tag_figure(
            image,
            align_maps(np.zeros((34, height // 4, width // 4))),
            draw.confident(poses, 2),
            transform,
        ),
        "steps": lambda: draw.steps_figure(image, decode_steps(noise, None, transform), transform),
        "steps to nobody": lambda: draw.steps_figure(image, decode_steps(nothing, None, transform), transform),
        "pictures": lambda: draw.pictures_figure([image, image[:, :100]], ["one", "two"]),
        "worst": lambda: draw.worst_figure([image] * 2, [poses] * 2, [poses, draw.confident(poses, 2)], "int8"),
        "roofline": lambda: draw.roofline_figure({"a": (Cost(20.0, 500.0), 0.1)}, 300.0, 20.0),
        "check": lambda: draw.check_figure([row, row], 1e-3),
        "agreement": lambda: draw.agreement_figure(*np.random.default_rng(0).random((2, 34, 8, 8))),
        "latency": lambda: draw.latency_figure({"a": alone, "b": alone}),
        "stages": lambda: draw.stage_figure({"a": whole, "b": whole}, ["b"]),
        "painted": lambda: draw.stage_figure({"a": whole, "b": painted}),
        "decoding": lambda: draw.decode_time_figure({1: turns, 30: turns}),
        "one decoder": lambda: draw.decode_time_figure({8: PairedTimings({"only": np.array([0.5])})}),
        "throughput": lambda: draw.throughput_figure({"a": {1: alone, 8: alone}, "b": {1: alone}}),
        "accuracy": lambda: draw.accuracy_figure({"AP": 0.5, "AP (L)": None}),
        "precisions": lambda: draw.precision_figure(image, {"float32": poses, "int8": poses}),
        "trade": lambda: draw.trade_figure([{"label": "a", "ms": 5.0, "ap": 0.5, "low": 0.4, "high": 0.6}]),
        "histograms": lambda: draw.histogram_figure({"/a/b/Conv": (np.arange(9), np.arange(10.0), 0.0, 9.0)}),
        "sensitivity": lambda: draw.sensitivity_figure([LayerRow("/a/b/Conv", 20.0, 30.0)] * 3),
        "counts": lambda: draw.count_figure([CountRow(1, 0.5, 30.0, 29.0), CountRow(32, 1.0, 31.0, 30.0)]),
        "published": lambda: draw.published_figure(NETWORKS.values()),
        "ladder": lambda: draw.ladder_figure(NETWORKS.values(), [scored("force_float32", 0.76)]),
    }


def scored(precision: str, ap: float) -> Record:
    figures = {"ap": ap, "ap_interval": [ap - 0.02, ap + 0.03], "images": 256, "dataset": "demo val2017"}
    return Record("MobileNetv2", "demo", "onnxruntime", precision, **figures)


@pytest.mark.parametrize("name", figures(np.full((300, 240, 3), 200, np.uint8)))
def test_figures_can_be_saved(name, image, tmp_path):
    path = draw.save(figures(image)[name](), tmp_path / "deep" / f"{name}.png")
    picture = cv2.imread(str(path))
    assert min(picture.shape[:2]) > 150
    assert picture.std() > 5, "not a blank page"
    assert [p.name for p in path.parent.iterdir()] == [path.name], "no temporary file stays"


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_a_stage_bar_shows_its_total_and_no_decoding_of_noise(image):
    stages = {"load": 1.0, "pre": 2.0, "infer": 150.0, "decode": 900.0, "draw": 7.0}
    whole = EndToEndTiming(np.array([0.2]), stages, 0.2)
    assert [text.strip() for text in texts(draw.stage_figure({"a": whole, "b": whole}, ["b"]))] == [
        "1,060 ms",
        "153 ms without decoding",
    ]


def test_decode_times_stand_at_their_points_with_the_speedup_below():
    turns = PairedTimings({"slow": np.array([0.5, 0.5, 0.5]), "quick": np.array([0.001, 0.002, 0.001])})
    shown = texts(draw.decode_time_figure({3: turns}))
    assert {"slow", "quick", "500 ms", "1 ms\n500x (375 to 500)"} == set(shown)


def test_the_panel_of_precisions_tells_who_moved_and_who_got_lost(image):
    one, other = standing(), standing(x=30)
    both = Poses(*(np.concatenate(pair) for pair in zip(*((p.keypoints, p.scores, p.tags) for p in (one, other)))))
    figure = draw.precision_figure(image, {"float32": both, "float16": both, "int8": one})
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "float32: 2 people",
        "float16: 2 people",
        "int8: 1 person",
    ]
    told = [[text.get_text() for text in ax.texts] for ax in figure.axes]
    assert told == [[], ["OKS 1.000\n0.0 px"] * 2, ["OKS 1.000\n0.0 px", "lost"]]


def test_the_ladder_shows_what_was_measured_and_names_what_was_not():
    rows = [scored("force_float32", 0.76), scored("qint8_mixed_float16", 0.75)]
    figure = draw.ladder_figure(NETWORKS.values(), rows)
    published, measured = figure.axes
    assert [text.get_text() for text in measured.texts] == ["76.00", "75.00"]
    assert [list(line.get_ydata()) for line in measured.lines] == [pytest.approx([74, 79]), pytest.approx([73, 78])]
    named = [label.get_text() for label in measured.get_xticklabels()]
    assert named == ["HRNet\nnot measured", "ResNet50\nnot measured", "MobileNetv2"]
    assert len(published.texts) == 9
    assert published.get_ylim() == measured.get_ylim()
    assert published.get_title(loc="left").endswith("8 bits: HRNet -2.9, ResNet50 -1.2, MobileNetv2 -0.3")
    assert measured.get_title(loc="left").endswith("8 bits: MobileNetv2 -1.0")
    figure = draw.ladder_figure(
        NETWORKS.values(), [scored("force_float32", 0.76), scored("qint8_mixed_float16", 0.7597)]
    )
    assert figure.axes[1].get_title(loc="left").endswith("8 bits: MobileNetv2 +0.0")


def test_a_ladder_without_rows_is_refused():
    with pytest.raises(UsageError, match="no rows"):
        draw.ladder_figure(NETWORKS.values(), [])


def test_the_line_joins_what_nothing_beats():
    def point(label, ms, ap):
        return {"label": label, "ms": ms, "ap": ap, "low": ap - 0.1, "high": ap + 0.1}

    figure = draw.trade_figure([point("slow", 9, 0.7), point("bad", 5, 0.4), point("quick", 3, 0.5)])
    [line] = [line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-post"]
    assert line.get_xydata().tolist() == [[3, 0.5], [9, 0.7]]
    named = [text.get_text() for text in figure.axes[0].get_legend().texts]
    assert named == ["quick: 0.500", "bad: 0.400", "slow: 0.700"]


def heading(figure) -> str:
    return figure._suptitle.get_text()


def test_headings_state_what_was_found(image):
    one, other = standing(), standing(x=30)
    people = GroundTruth(
        np.concatenate([one.keypoints, standing(x=160).keypoints]).astype(float) * [1, 1, 2 / 0.9],
        np.zeros((2, 4)),
        np.array([9000.0, 9000.0]),
    )
    both = Poses(*(np.concatenate(pair) for pair in zip(*((p.keypoints, p.scores, p.tags) for p in (one, other)))))
    assert heading(draw.truth_figure(image, both, people)) == (
        "1 of 2 annotated people found, mean OKS 1.00; 1 found where nobody is"
    )
    assert heading(draw.precision_figure(image, {"float32": both, "int8": one})) == (
        "Least OKS of a person to float32: 0.000 in int8"
    )
    assert "keep a mean OKS of 0.500" in heading(draw.worst_figure([image], [both], [one], "int8"))


def test_the_step_view_counts_what_the_steps_hold(image):
    """One hill per joint with the person's tag, one hill missing; a second person far away."""
    _, transform = resize_align(image)
    width, height = transform.base_size
    output = np.zeros((34, height // 4, width // 4), np.float32)
    rows, columns = np.mgrid[: height // 4, : width // 4]
    for tag, left in ((0.0, 20), (5.0, 90)):
        for joint in range(17):
            away = (columns - left - joint - 0.3) ** 2 + (rows - 10.2 - 6 * joint) ** 2
            hot = 0.05 if (tag, joint) == (5.0, 9) else 0.9
            output[joint] = np.maximum(output[joint], hot * np.exp(-away / 8))
            output[17 + joint][away < 40] = tag
    steps = decode_steps(output, None, transform)
    figure = draw.steps_figure(image, steps, transform)
    assert heading(figure) == "33 peaks become 2 people, 2 of them likely; 1 of 1 missing joints find a place"
    captions = [ax.get_title(loc="left") for ax in figure.axes]
    assert captions[1].startswith("2 · 33 peaks")
    assert captions[2].startswith("3 · grouped by tags: 2 people")
    assert captions[4].startswith("5 · refined: 1 missing joint")
    ringed = figure.axes[4].collections[-1].get_offsets()
    assert np.allclose(ringed, steps.poses.keypoints[steps.grouped[..., 2] == 0][:, :2])


def test_tags_state_how_far_people_are_apart(image):
    _, transform = resize_align(image)
    width, height = transform.base_size
    output = np.zeros((34, height // 4, width // 4), np.float32)
    output[17:, :, width // 8 :] = 3.0
    poses = Poses(
        np.concatenate([standing(20).keypoints, standing(180).keypoints]),
        np.float32([0.9, 0.9]),
        np.float32([[0.0], [3.0]]),
    )
    assert heading(draw.tag_figure(image, align_maps(output), poses, transform)) == (
        "Within a person tags differ by 0.00 (standard deviation, median of 2 people), "
        "between the nearest two people by 3.00"
    )


def test_a_network_stands_below_the_roof_at_its_intensity():
    figure = draw.roofline_figure({"a": (Cost(20.0, 500.0), 0.1), "b": (Cost(1.0, 500.0), 0.1)}, 400.0, 20.0)
    points = [line.get_xydata().tolist()[0] for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert points == [[40.0, pytest.approx(200.0)], [2.0, pytest.approx(10.0)]]
    assert figure.axes[0].get_title(loc="left") == "Of what the machine allows: a 50%, b 25%"


def test_unsure_joints_are_hollow(image):
    poses = standing(score=0.9)
    poses.keypoints[0, :, 2] = draw.SURE - 0.05
    x, y = poses.keypoints[0, 0, :2].astype(int)
    faint, sure = draw.draw_poses(image, poses), draw.draw_poses(image, standing())
    assert faint[y, x].min() > 240 > sure[y, x].min()


def test_throughput_counts_pictures_and_not_runs():
    timing = NetworkTiming(np.array([0.5]), 8, (8, 3, 512, 512))
    assert texts(draw.throughput_figure({"a": {8: timing}})) == ["16.0"]


def test_style_is_not_forced_on_others(image):
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw.poses_figure([image], [standing()])
    assert dict(matplotlib.rcParams) == before
