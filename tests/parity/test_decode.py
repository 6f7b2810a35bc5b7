"""Our decoder against mmpose 0.29.0's own chain: same people, same order, same numbers.

torch's bilinear upsampling uses a fused multiply-add on any x86-64 CPU with AVX2, which `helpers.decode`
reproduces; on such a machine not only the numbers but their bits are equal, as the report at the end says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from mmpose.core.evaluation.bottom_up_eval import (
    aggregate_scale,
    aggregate_stage_flip,
    flip_feature_maps,
    get_group_preds,
    split_ae_outputs,
)
from mmpose.core.post_processing.group import HeatmapParser
from munkres import Munkres

from helpers import decode as room
from helpers.decode import FLIP_INDEX, DecodeConfig, Poses, decode_poses

OFFICIAL_TEST_CFG = {
    "num_joints": 17,
    "with_heatmaps": [True],
    "with_ae": [True],
    "project2image": True,
    "align_corners": False,
    "nms_kernel": 5,
    "nms_padding": 2,
    "tag_per_joint": True,
    "max_num_people": 30,
    "detection_threshold": 0.1,
    "tag_threshold": 1,
    "use_detection_val": True,
    "ignore_too_much": False,
    "adjust": True,
    "refine": True,
}


@dataclass(frozen=True)
class Transform:
    """The three attributes of `helpers.preprocess.ResizeTransform` that decoding uses."""

    base_size: tuple[int, int]
    center: np.ndarray
    scale: np.ndarray


def transform_for(output: np.ndarray, rng: np.random.Generator) -> Transform:
    _, height, width = output.shape
    return Transform((4 * width, 4 * height), rng.integers(50, 500, 2), rng.uniform(0.5, 5, 2))


def mmpose_decode(output, flipped, transform, **changes) -> tuple[np.ndarray, np.ndarray]:
    """What `AssociativeEmbedding.forward_test` does after the network: (P, 17, 3), (P,)."""
    cfg = {**OFFICIAL_TEST_CFG, **changes}
    aligned = []
    for array in (output, flipped):
        if array is None:
            aligned.append((None, None))
            continue
        outputs = [torch.from_numpy(np.ascontiguousarray(array))[None]]
        heat, tags = split_ae_outputs(outputs, 17, cfg["with_heatmaps"], cfg["with_ae"], [0])
        if array is flipped:
            heat, tags = (flip_feature_maps(maps, flip_index=list(FLIP_INDEX)) for maps in (heat, tags))
        aligned.append((heat, tags))
    (heat, tags), (flipped_heat, flipped_tags) = aligned
    where = {"project2image": True, "size_projected": transform.base_size, "align_corners": False}
    heat = aggregate_stage_flip(heat, flipped_heat, aggregate_stage="average", aggregate_flip="average", **where)
    tags = aggregate_stage_flip(tags, flipped_tags, aggregate_stage="concat", aggregate_flip="concat", **where)
    heat = aggregate_scale(heat, align_corners=False, aggregate_scale="average")
    tags = aggregate_scale(tags, align_corners=False, aggregate_scale="unsqueeze_concat")
    grouped, scores = HeatmapParser(cfg).parse(heat, tags, cfg["adjust"], cfg["refine"])
    people = get_group_preds(grouped, transform.center, transform.scale, [heat.size(3), heat.size(2)])
    keypoints = [person[:, :3] for person in people]
    return np.array(keypoints, np.float32).reshape(-1, 17, 3), np.array(scores, np.float32)


class Tally:
    """Counts what was compared; pytest prints it at the end (see conftest.py)."""

    def __init__(self):
        self.maps = self.people = self.same_bits = self.ties = self.mismatches = 0

    def compare(self, output, flipped, rng, **options) -> Poses:
        """Decodes both ways; every person, coordinate and score must be equal.

        The one exception: below 64 pixels per candidate, torch.topk sorts in a way that we do not follow, so
        equally high peaks may come in another order. There the coordinates alone may differ.
        """
        transform = transform_for(output, rng)
        config = DecodeConfig(**options)
        ours = decode_poses(output, flipped, transform, config)
        keypoints, scores = mmpose_decode(output, flipped, transform, **options)
        self.maps += 1
        self.people += len(scores)
        self.mismatches += 1  # until shown otherwise
        assert ours.keypoints.shape == keypoints.shape
        assert ours.keypoints.dtype == ours.scores.dtype == np.float32
        np.testing.assert_allclose(ours.keypoints[..., 2], keypoints[..., 2], rtol=0, atol=1e-5)
        np.testing.assert_allclose(ours.scores, scores, rtol=0, atol=1e-5)
        at_one_place = np.allclose(ours.keypoints, keypoints, rtol=0, atol=1e-3)
        too_small = np.prod(transform.base_size) < 64 * config.max_num_people
        if too_small and not at_one_place:
            self.ties += 1
        else:
            np.testing.assert_allclose(ours.keypoints[..., :2], keypoints[..., :2], rtol=0, atol=1e-3)
        self.mismatches -= 1
        self.same_bits += np.array_equal(ours.keypoints, keypoints) and np.array_equal(ours.scores, scores)
        return ours


@pytest.fixture(scope="module")
def tally(parity_report):
    tally = Tally()
    yield tally
    parity_report.append(
        f"decode: {tally.maps} maps with {tally.people} people: {tally.mismatches} mismatches, "
        f"{tally.ties} maps with explained ties, {tally.same_bits} maps equal to the last bit"
    )


# --- Synthetic outputs ----------------------------------------------------------------------------------


def outputs_of(heat: np.ndarray, tags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(2, 17, h, w) aligned heatmaps and tag maps -> what the network would give for image and mirror image."""
    output, mirrored = np.concatenate((heat, tags), axis=1).astype(np.float32)
    order = [*FLIP_INDEX, *(17 + joint for joint in FLIP_INDEX)]
    return output, np.ascontiguousarray(mirrored[order, :, ::-1])


def add_peak(heat: np.ndarray, tags: np.ndarray, joint: int, y: float, x: float, tag: float, rng) -> None:
    """Adds one joint to (2, 17, h, w) maps: a Gaussian of sigma 2 and a round plateau of its tag."""
    rows, columns = np.mgrid[: heat.shape[2], : heat.shape[3]]
    height = rng.uniform(0.2, 1)
    for source in range(2):
        off_y, off_x = rng.normal(0, 0.15, 2)
        distance = (rows - y - off_y) ** 2 + (columns - x - off_x) ** 2
        peak = height * np.exp(-distance / 8)
        heat[source, joint] = np.maximum(heat[source, joint], peak + rng.normal(0, 0.003, peak.shape))
        near = distance < 16
        tags[source, joint][near] = tag + rng.normal(0, 0.05, near.sum()) + 0.1 * source


def crowd(
    rng: np.random.Generator,
    shape: tuple[int, int],
    people: int,
    noise: float = 0.01,
    missing: float = 0.15,
    at_border: float = 0.2,
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs with `people` people; the share `at_border` of the joints outside the image sits on its border."""
    height, width = shape
    heat = rng.normal(0, noise, (2, 17, height, width))
    tags = rng.normal(0, 0.3, (2, 17, height, width))
    for person in range(people):
        tag = person * rng.uniform(0.8, 2.5) + rng.normal(0, 0.2)
        center, spread = rng.uniform(0, shape), rng.uniform(0.1, 0.35) * min(shape)
        for joint in np.flatnonzero(rng.random(17) > missing):
            y, x = rng.normal(center, (spread, 0.6 * spread))
            inside = 0 <= y < height and 0 <= x < width
            if inside or rng.random() < at_border:
                add_peak(heat, tags, joint, np.clip(y, 0, height - 1), np.clip(x, 0, width - 1), tag, rng)
    return outputs_of(heat, tags)


# --- Random maps ----------------------------------------------------------------------------------------

SMALL = ((32, 48), (48, 32), (64, 64), (33, 47))


@pytest.mark.parametrize("seed", range(12))
def test_random_people(tally, seed):
    rng = np.random.default_rng(seed)
    for number in range(15):
        shape = SMALL[number % len(SMALL)]
        noise = (0, 0.004, 0.01, 0.03)[number // 4]
        output, flipped = crowd(rng, shape, rng.integers(0, 7), noise, missing=rng.choice((0, 0.15, 0.5)))
        tally.compare(output, flipped, rng)


@pytest.mark.parametrize("seed", range(3))
def test_random_people_without_flip_test(tally, seed):
    rng = np.random.default_rng(100 + seed)
    for number in range(10):
        output, _ = crowd(rng, SMALL[number % len(SMALL)], rng.integers(0, 7))
        assert tally.compare(output, None, rng).tags.shape[1] == 1


def test_crowds_on_small_maps(tally):
    rng = np.random.default_rng(200)
    for people in (8, 10, 12, 15):
        output, flipped = crowd(rng, (32, 48), people)
        assert len(tally.compare(output, flipped, rng)) >= 5


@pytest.mark.parametrize(
    ("shape", "people"), [((128, 128), 0), ((128, 128), 2), ((128, 192), 1), ((128, 192), 3), ((192, 128), 2)]
)
def test_full_size(tally, shape, people):
    rng = np.random.default_rng(300 + people)
    output, flipped = crowd(rng, shape, people, at_border=0.1)
    assert len(tally.compare(output, flipped, rng)) >= people


@pytest.mark.parametrize(
    "options",
    [
        {"max_num_people": 3},
        {"max_num_people": 3, "ignore_too_much": True},
        {"max_num_people": 1, "ignore_too_much": True},
        {"max_num_people": 60, "detection_threshold": 0.02},
        {"detection_threshold": 0.35},
        {"detection_threshold": 0.0, "max_num_people": 5},
        {"tag_threshold": 0.2},
        {"tag_threshold": 3.0},
        {"use_detection_val": False},
        {"adjust": False},
        {"refine": False},
        {"adjust": False, "refine": False},
    ],
    ids=str,
)
def test_every_option(tally, options):
    rng = np.random.default_rng(400)
    for people in (1, 4, 5):
        output, flipped = crowd(rng, (32, 48), people)
        tally.compare(output, flipped, rng, **options)
    tally.compare(output, None, rng, **options)


# --- Degenerate maps ------------------------------------------------------------------------------------


def blank(shape: tuple[int, int], heat: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    return np.full((2, 17, *shape), heat), np.zeros((2, 17, *shape))


@pytest.mark.parametrize("heat", [0.0, -0.0, -0.5, 0.1, 0.05])
def test_constant_maps_hold_nobody_or_the_same_people(tally, heat):
    rng = np.random.default_rng(0)
    found = tally.compare(*outputs_of(*blank((32, 48), heat)), rng)
    # the float32 nearest to 0.1 is a little more than 0.1
    assert (len(found) > 0) == (heat == 0.1)


def test_one_hot_plateau_for_all(tally):
    rng = np.random.default_rng(1)
    heat, tags = blank((32, 48))
    heat[:, 3] = 0.7
    heat[:, 5, 4:9, 10:20] = 0.6
    assert len(tally.compare(*outputs_of(heat, tags), rng))


def test_equal_peaks_with_equal_and_with_other_tags(tally):
    rng = np.random.default_rng(2)
    heat, tags = blank((32, 48))
    heat[:, :, 5:30:8, 6:48:10] = 0.75
    tags[:, :, :16] = 4
    tags[:, 8:] += 0.25
    assert len(tally.compare(*outputs_of(heat, tags), rng)) >= 2


@pytest.mark.parametrize("side", range(4))
def test_people_on_each_border(tally, side):
    rng = np.random.default_rng(side)
    heat, tags = rng.normal(0, 0.01, (2, 2, 17, 32, 48))
    for person in range(3):
        for joint in range(17):
            along = rng.integers(0, 47 if side < 2 else 31)
            y, x = ((0, along), (31, along), (along, 0), (along, 47))[side]
            add_peak(heat, tags, joint, y, x, 2 * person, rng)
    assert len(tally.compare(*outputs_of(heat, tags), rng)) >= 3


def test_corners(tally):
    rng = np.random.default_rng(5)
    heat, tags = rng.normal(0, 0.01, (2, 2, 17, 32, 48))
    for joint in range(17):
        for y, x in ((0, 0), (0, 47), (31, 0), (31, 47)):
            add_peak(heat, tags, joint, y, x, y / 10 + x / 5, rng)
    assert len(tally.compare(*outputs_of(heat, tags), rng)) >= 4


def test_more_candidates_than_may_be(tally):
    rng = np.random.default_rng(6)
    heat, tags = rng.normal(0, 0.003, (2, 2, 17, 48, 64))
    for joint in range(4):
        for y in range(3, 48, 7):
            for x in range(3, 64, 7):
                add_peak(heat, tags, joint, y, x, rng.integers(0, 20), rng)
    assert len(tally.compare(*outputs_of(heat, tags), rng)) >= 20


@pytest.mark.parametrize("shape", [(1, 200), (200, 1), (2, 64), (48, 3), (1, 40), (40, 1)])
def test_maps_a_few_samples_thin(tally, shape):
    """Along such a map all peaks come in equal pairs. The two smallest are too small for torch's order."""
    rng = np.random.default_rng(7)
    for people in (0, 1, 3):
        output, flipped = crowd(rng, shape, people, missing=0.3)
        tally.compare(output, flipped, rng)


@pytest.mark.parametrize("scale", [0.03, 0.3])
def test_pure_noise(tally, scale):
    rng = np.random.default_rng(8)
    heat, tags = rng.normal(0, scale, (2, 2, 17, 16, 24))
    tally.compare(*outputs_of(heat, tags), rng, max_num_people=4)


def test_noise_without_tags(tally):
    rng = np.random.default_rng(9)
    heat, tags = rng.uniform(0, 1, (2, 17, 16, 24)), np.zeros((2, 17, 16, 24))
    assert len(tally.compare(*outputs_of(heat, tags), rng, max_num_people=4)) == 1  # one tag, one person


def test_equal_peaks_below_a_negative_plateau(tally):
    """On a plateau every pixel is a peak, and below zero it comes after the zeros of what is no peak."""
    rng = np.random.default_rng(10)
    heat, tags = blank((32, 48), -0.5)
    heat[:, :, 20, 10:40:10] = 0.5
    tags[:] = np.arange(48)
    assert len(tally.compare(*outputs_of(heat, tags), rng)) >= 3


@pytest.mark.parametrize("seed", range(4))
def test_equal_peaks_below_negative_plateaus_at_the_top(tally, seed):
    """All the first pixels are peaks, so that zeros from farther down come in among the best 30."""
    rng = np.random.default_rng(seed)
    heat, tags = rng.normal(-0.3, 0.05, (2, 2, 17, 32, 48))
    heat[:, :, :2, :24] = -0.2
    heat[:, :, :2, 24:] = -0.1
    for y, x in rng.permutation([(y, x) for y in range(8, 29, 5) for x in range(6, 46, 7)])[:9]:
        heat[:, :, y - 1 : y + 2, x - 1 : x + 2] = -0.3
        heat[:, :, y, x] = rng.choice((0.5, 0.6))
    tags[:] = np.arange(48)
    assert len(tally.compare(*outputs_of(heat, tags), rng)) >= 3


def test_of_equally_likely_places_the_first_is_taken(tally):
    """The search meets later ones first, where hot samples of someone else's raise its hopes."""
    rng = np.random.default_rng(15)
    heat, tags = blank((48, 64), 0.05)
    heat[:, 0, 20, 20] = 0.9
    heat[:, 1:, 30::6, ::6] = 0.09
    tags[:, 1:, 30::6, ::6] = 100
    found = tally.compare(*outputs_of(heat, tags), rng)
    np.testing.assert_array_equal(found.keypoints[0, 1:, 2], np.float32(0.05))


@pytest.mark.parametrize("factor", [1e-4, 1e4, 1e12])
def test_tags_of_any_size(tally, factor):
    rng = np.random.default_rng(11)
    output, flipped = crowd(rng, (32, 48), 3)
    output[17:] *= factor
    flipped[17:] *= factor
    with np.errstate(over="ignore"):
        assert len(tally.compare(output, flipped, rng)) >= 1


def test_heat_of_any_size(tally):
    rng = np.random.default_rng(12)
    output, flipped = crowd(rng, (32, 48), 3)
    output[:17] *= 1e5
    flipped[:17] *= 1e5
    assert len(tally.compare(output, flipped, rng, max_num_people=4))


def test_joints_nobody_shows_are_not_filled(tally):
    rng = np.random.default_rng(13)
    heat, tags = blank((32, 48), -0.2)
    add_peak(heat, tags, 0, 10, 20, 1, rng)
    found = tally.compare(*outputs_of(heat, tags), rng)
    assert (found.keypoints[0, 1:, 2] == 0).all()


def test_enough_was_compared(tally, pytestconfig):
    """The last of those who use the tally, so that its report is no report about nothing."""
    if pytestconfig.getoption("keyword") or pytestconfig.getoption("lf", False):
        pytest.skip("only a part of this file was selected")
    assert tally.maps >= 200
    assert tally.mismatches == 0


# --- Single steps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(128, 192), (33, 47), (1, 40), (40, 1)])
def test_enlarged_map_has_torchs_bits(shape):
    rng = np.random.default_rng(14)
    output = rng.normal(0, 1, (34, *shape)) * 10 ** rng.normal(0, 2, (34, *shape))
    output = output.astype(np.float32)
    size = [4 * side for side in shape]
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(output)[None, :17], size=size, mode="bilinear", align_corners=False
    )
    ours = room.enlarge_heatmap(room.align_maps(output), 7)
    np.testing.assert_array_equal(ours, theirs[0, 7].numpy())


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_top_values_in_torchs_order(levels):
    rng = np.random.default_rng(levels)
    for count in (1, 2, 7, 30):
        for size in (64 * count, 5000, 20000):
            values = (rng.integers(0, levels, size) - levels // 2).astype(np.float32)
            heat, index = room._TopK(values, count).best_first()
            theirs = torch.from_numpy(values).topk(count)
            np.testing.assert_array_equal(index, theirs.indices.numpy())
            np.testing.assert_array_equal(heat, theirs.values.numpy())


@pytest.mark.parametrize("levels", [2, 4, 50])
def test_assignment_as_munkres_chooses(levels):
    """As mmpose builds its costs: whole hundreds minus heat, and columns of 1e10 for candidates to spare."""
    rng = np.random.default_rng(levels)
    for _ in range(60):
        rows, people = rng.integers(1, 14, 2)
        cost = rng.integers(0, levels, (rows, people)) * 100 - rng.choice((0.25, 0.5, rng.random()), (rows, 1))
        cost = np.pad(cost, ((0, 0), (0, max(0, rows - people))), constant_values=1e10)
        theirs = Munkres().compute(cost.tolist())
        assert list(enumerate(room._assign(cost))) == theirs
