"""The whole walk on the shipped pictures and weights: mixed sizes, batches, faults, static engines."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import backends, paths
from helpers.backends import BuildSpec
from helpers.dataset import CocoDataset
from helpers.errors import DataError, UsageError
from helpers.estimator import STAGES, PoseEstimator
from helpers.evaluate import match
from helpers.preprocess import read_image


@pytest.fixture(scope="module")
def dataset():
    return CocoDataset(paths.demo_data())


@pytest.fixture(scope="module")
def estimator(demo_engine):
    return PoseEstimator(demo_engine)


def some(dataset, count: int) -> list:
    return [dataset.path(image_id) for image_id in dataset.sample(count, seed=3)]


def test_finds_the_annotated_people(estimator, dataset):
    """Not a statistic: on a picture in which four people stand apart, each is found where the annotation has it."""
    [poses] = estimator([dataset.path(20155)])
    found = match(poses, dataset.people(20155))
    assert {t for t in found.truth if t >= 0} == {0, 1, 2, 3}
    assert np.nanmin(found.oks) >= 0.5


def test_batches_change_nothing(estimator, dataset):
    files = some(dataset, 9)
    assert len({dataset.size(k) for k in dataset.sample(9, seed=3)}) > 3, "the sample must mix sizes"
    one_by_one, batched = estimator(files), estimator(files, batch_size=3)
    for a, b in zip(one_by_one, batched):
        assert len(a) == len(b)
        np.testing.assert_allclose(a.keypoints, b.keypoints, atol=1e-2)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)


@pytest.mark.parametrize("flip_test", [True, False])
def test_bytes_give_the_same_poses(demo_engine, demo_engine_uint8, dataset, flip_test):
    files = some(dataset, 6)
    assert len({dataset.size(k) for k in dataset.sample(6, seed=3)}) > 3, "the sample must mix sizes"
    floats, as_bytes = (PoseEstimator(e, flip_test)(files, batch_size=2) for e in (demo_engine, demo_engine_uint8))
    assert sum(len(poses) for poses in floats) > 6
    for a, b in zip(floats, as_bytes):
        assert len(a) == len(b)
        np.testing.assert_allclose(a.keypoints, b.keypoints, atol=1e-2)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)


def test_order_is_that_of_the_input(estimator, dataset):
    files = some(dataset, 6)
    assert [o.name for o in estimator.stream(files, batch_size=4)] == [str(f) for f in files]
    assert [len(p) for p in estimator(files[::-1], batch_size=4)] == [len(p) for p in estimator(files)][::-1]


def test_a_picture_that_cannot_be_read_does_not_stop_the_others(estimator, dataset, tmp_path):
    good = some(dataset, 2)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(good[0].read_bytes()[:2000])
    outcomes = list(estimator.stream([good[0], cut, tmp_path / "missing.jpg", good[1]], batch_size=2))
    assert [o.poses is not None for o in outcomes] == [True, False, False, True]
    assert "cut.jpg" in outcomes[1].error
    assert "missing.jpg" in outcomes[2].error
    with pytest.raises(DataError, match=r"cut\.jpg"):
        estimator([good[0], cut])


def test_flip_test_averages_and_costs_a_second_run(demo_engine, dataset):
    image = read_image(dataset.path(20014))
    output, flipped, _ = PoseEstimator(demo_engine).maps(image)
    alone, none, _ = PoseEstimator(demo_engine, flip_test=False).maps(image)
    assert none is None
    np.testing.assert_array_equal(output, alone)
    assert not np.allclose(output, flipped)


def test_stages_are_timed(estimator, dataset):
    [outcome] = estimator.stream(some(dataset, 1))
    assert set(outcome.stage_ms) == set(STAGES)
    assert all(ms > 0 for ms in outcome.stage_ms.values())


def test_nothing_in_nothing_out(estimator):
    assert estimator([]) == []


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_size_must_be_positive(estimator, batch_size):
    with pytest.raises(UsageError, match="batch size"):
        estimator([np.zeros((64, 64, 3), np.uint8)], batch_size)


def test_an_array_that_is_no_picture_is_refused(estimator):
    with pytest.raises(UsageError, match="uint8"):
        estimator([np.zeros((64, 64), np.uint8)])


def test_a_static_engine_fills_up_its_last_batch(exported, models):
    backend = backends.get("onnxruntime")
    spec = BuildSpec(batch_size=2, dynamic_shape=False, input_shape=(128, 128))
    static = PoseEstimator(backend.load(backend.build(exported[17], spec)), input_size=128)
    free = PoseEstimator(backend.load(backend.build(exported[17], BuildSpec())), input_size=128)
    images = list(np.random.default_rng(0).integers(0, 255, (3, 100, 100, 3), dtype=np.uint8))
    for image, output in zip(images, (static.maps(image)[0] for image in images)):
        np.testing.assert_allclose(output, free.maps(image)[0], atol=1e-4)
    assert [len(p) for p in static(images)] == [len(p) for p in free(images)], "its batch, whatever was asked for"


def test_a_static_engine_for_bytes_fills_up_its_last_batch(exported_uint8, models):
    backend = backends.get("onnxruntime")
    spec = BuildSpec(batch_size=2, dynamic_shape=False, input_shape=(128, 128))
    static = PoseEstimator(backend.load(backend.build(exported_uint8[17], spec)), input_size=128)
    free = PoseEstimator(backend.load(backend.build(exported_uint8[17], BuildSpec())), input_size=128)
    images = list(np.random.default_rng(0).integers(0, 255, (3, 100, 100, 3), dtype=np.uint8))
    for image in images:
        for found, wanted in zip(static.maps(image)[:2], free.maps(image)[:2]):
            np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_static_engine_names_the_picture_it_cannot_take(exported, models):
    backend = backends.get("onnxruntime")
    spec = BuildSpec(dynamic_shape=False, input_shape=(128, 128))
    static = PoseEstimator(backend.load(backend.build(exported[17], spec)), input_size=128)
    square, wide = np.zeros((100, 100, 3), np.uint8), np.zeros((100, 180, 3), np.uint8)
    first, second = static.stream([square, wide])
    assert first.poses is not None
    assert "image 1" in second.error
    assert "128 x 256" in second.error
