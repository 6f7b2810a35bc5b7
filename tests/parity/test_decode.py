"""Our decoder against mmpose 0.29.0's own chain: same people, same order, same numbers.

Every map is decoded three times, by mmpose, by our NumPy steps and by our compiled ones; the latter two must agree
to the last bit. torch's bilinear upsampling uses a fused multiply-add on any x86-64 CPU with AVX2, which
`maps.upsample` reproduces; on such a machine mmpose's bits are equal too, as the report at the end says.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from munkres import Munkres

from helpers.export import mmpose_chain
from helpers.export.mmpose_chain import mmpose_decode
from helpers.pose import decode
from helpers.pose.decode import DecodeConfig, Poses, decode_poses
from helpers.pose.decode_numba import _assign
from helpers.pose.maps import upsample
from tests.parity.crowds import add_peak, crowd, outputs_of


def transform_for(output: np.ndarray, rng: np.random.Generator) -> SimpleNamespace:
    """The three attributes of `helpers.pose.preprocess.ResizeTransform` that decoding uses."""
    _, height, width = output.shape
    base_size = (4 * width, 4 * height)
    return SimpleNamespace(base_size=base_size, center=rng.integers(50, 500, 2), scale=rng.uniform(0.5, 5, 2))


def decoded_alike(output, flipped, transform, config) -> Poses:
    """Decodes with NumPy and compiled: equal to the last bit."""
    ours, compiled = (decode_poses(output, flipped, transform, config, compiled=way) for way in (False, True))
    for name in ("keypoints", "scores", "tags"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(compiled, name))
    return ours


class Tally:
    """Counts what was compared; pytest prints it at the end (see conftest.py)."""

    def __init__(self):
        self.maps = self.people = self.same_bits = self.ties = self.mismatches = 0

    def compare(self, output, flipped, rng, **options) -> Poses:
        """Decodes in all ways; every person, coordinate and score must be equal.

        The one exception: below 64 pixels per candidate, torch.topk sorts in a way that we do not follow, so
        equally high peaks may come in another order. There the coordinates alone may differ.
        """
        transform = transform_for(output, rng)
        config = DecodeConfig(**options)
        ours = decoded_alike(output, flipped, transform, config)
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


# --- Random maps ----------------------------------------------------------------------------------------

SMALL = ((32, 48), (48, 32), (64, 64), (33, 47))


@pytest.mark.parametrize("seed", range(28))
def test_random_people(tally, seed):
    rng = np.random.default_rng(seed)
    for number in range(15):
        shape = SMALL[number % len(SMALL)]
        noise = (0, 0.004, 0.01, 0.03)[number // 4]
        output, flipped = crowd(rng, shape, rng.integers(0, 7), noise, missing=rng.choice((0, 0.15, 0.5)))
        tally.compare(output, flipped, rng)


@pytest.mark.parametrize("seed", range(9))
def test_random_people_without_flip_test(tally, seed):
    rng = np.random.default_rng(100 + seed)
    for number in range(10):
        output, _ = crowd(rng, SMALL[number % len(SMALL)], rng.integers(0, 7))
        assert tally.compare(output, None, rng).tags.shape[1] == 1


@st.composite
def maps_with_ties(draw) -> tuple[np.ndarray, np.ndarray]:
    """Outputs in which few different values occur, so that equals meet everywhere: plateaus, ridges, pairs."""
    height, width = draw(st.integers(17, 28)), draw(st.integers(17, 28))  # below, torch enlarges by another kernel
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    step = draw(st.sampled_from([0.02, 0.1, 0.3]))
    heat = np.round(rng.normal(0, draw(st.sampled_from([0.05, 0.2])), (2, 17, height, width)) / step) * step
    tags = np.round(rng.normal(0, draw(st.sampled_from([0.5, 3.0])), (2, 17, height, width)))
    if draw(st.booleans()):
        tags = np.repeat(np.repeat(tags[..., ::4, ::4], 4, 2), 4, 3)[..., :height, :width]
    if draw(st.booleans()):
        heat[1], tags[1] = heat[0], tags[0]
    return outputs_of(heat, tags)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(maps=maps_with_ties(), seed=st.integers(0, 1000))
def test_ties_everywhere(tally, maps, seed):
    tally.compare(*maps, np.random.default_rng(seed), max_num_people=4)


@st.composite
def wild_maps(draw) -> tuple[np.ndarray, np.ndarray | None]:
    """Anything finite: from one sample up, tiny and huge numbers, denormals and both zeros."""
    shape = (2, 34, draw(st.integers(1, 20)), draw(st.integers(1, 20)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([1e-40, 1e-3, 1.0, 50.0, 1e15]))
    both = (rng.standard_normal(shape) * scale).astype(np.float32)
    both[rng.random(shape) < draw(st.sampled_from([0.0, 0.5, 0.95]))] = draw(st.sampled_from([0.0, -0.0, 0.5]))
    return both[0], both[1] if draw(st.booleans()) else None


@settings(max_examples=150, deadline=None)
@given(
    maps=wild_maps(),
    config=st.builds(
        DecodeConfig,
        max_num_people=st.sampled_from([1, 2, 7, 30]),
        detection_threshold=st.sampled_from([0.0, 0.1, 0.5]),
        tag_threshold=st.sampled_from([0.2, 1.0, 30.0]),
        use_detection_val=st.booleans(),
        ignore_too_much=st.booleans(),
        adjust=st.booleans(),
        refine=st.booleans(),
    ),
)
def test_numpy_and_numba_agree_on_anything(maps, config):
    rng = np.random.default_rng(0)
    with np.errstate(over="ignore"):
        poses = decoded_alike(*maps, transform_for(maps[0], rng), config)
    assert np.isfinite(poses.scores).all()


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
        for keypoint in range(17):
            along = rng.integers(0, 47 if side < 2 else 31)
            y, x = ((0, along), (31, along), (along, 0), (along, 47))[side]
            add_peak(heat, tags, keypoint, y, x, 2 * person, rng)
    assert len(tally.compare(*outputs_of(heat, tags), rng)) >= 3


def test_corners(tally):
    rng = np.random.default_rng(5)
    heat, tags = rng.normal(0, 0.01, (2, 2, 17, 32, 48))
    for keypoint in range(17):
        for y, x in ((0, 0), (0, 47), (31, 0), (31, 47)):
            add_peak(heat, tags, keypoint, y, x, y / 10 + x / 5, rng)
    assert len(tally.compare(*outputs_of(heat, tags), rng)) >= 4


def test_more_candidates_than_may_be(tally):
    rng = np.random.default_rng(6)
    heat, tags = rng.normal(0, 0.003, (2, 2, 17, 48, 64))
    for keypoint in range(4):
        for y in range(3, 48, 7):
            for x in range(3, 64, 7):
                add_peak(heat, tags, keypoint, y, x, rng.integers(0, 20), rng)
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


def test_keypoints_nobody_shows_are_not_filled(tally):
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


def test_size_of_a_peak(tally, monkeypatch):
    monkeypatch.setattr(decode, "NMS_SIZE", 7)
    rng = np.random.default_rng(16)
    heat, tags = rng.uniform(0, 0.2, (2, 2, 17, 33, 47))
    for y, x in ((10, 10), (10, 11.5), (20, 30)):
        add_peak(heat, tags, 0, y, x, x, rng)
    theirs = {**mmpose_chain._official_test_cfg(), "nms_kernel": 7, "nms_padding": 3}
    monkeypatch.setattr(mmpose_chain, "_official_test_cfg", lambda: theirs)
    assert len(tally.compare(*outputs_of(heat, tags), rng, max_num_people=6)) >= 2


@pytest.mark.parametrize("shape", [(128, 192), (33, 47), (1, 40), (40, 1)])
def test_upsampled_maps_have_torchs_bits(shape):
    rng = np.random.default_rng(14)
    maps = (rng.normal(0, 1, (17, *shape)) * 10 ** rng.normal(0, 2, (17, *shape))).astype(np.float32)
    size = [4 * side for side in shape]
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[None], size=size, mode="bilinear", align_corners=False
    )
    np.testing.assert_array_equal(upsample(maps), theirs[0].numpy())


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_top_values_in_torchs_order(levels):
    rng = np.random.default_rng(levels)
    for count in (1, 2, 7, 30):
        for size in (64 * count, 5000, 20000):
            values = (rng.integers(0, levels, size) - levels // 2).astype(np.float32)
            heat, index = decode._topk(values, count)
            theirs = torch.from_numpy(values).topk(count)
            np.testing.assert_array_equal(index, theirs.indices.numpy())
            np.testing.assert_array_equal(heat, theirs.values.numpy())


@pytest.mark.parametrize("levels", [2, 4, 50])
def test_compiled_assignment_is_that_of_munkres(levels):
    """As mmpose builds its costs: whole hundreds minus heat, and columns of 1e10 for candidates to spare."""
    rng = np.random.default_rng(levels)
    for _ in range(60):
        rows, people = rng.integers(1, 14, 2)
        cost = rng.integers(0, levels, (rows, people)) * 100 - rng.choice((0.25, 0.5, rng.random()), (rows, 1))
        cost = np.pad(cost, ((0, 0), (0, max(0, rows - people))), constant_values=1e10)
        square = np.pad(cost, ((0, cost.shape[1] - rows), (0, 0)))
        assert list(enumerate(_assign(square)[:rows])) == Munkres().compute(cost.tolist())
