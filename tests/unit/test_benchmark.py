"""Timing: when it stops, what it reports, and which images it takes."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers import paths
from helpers.dataset import CocoDataset
from helpers.errors import DataError, UsageError
from helpers.images import read_image
from helpers.measure import benchmark
from helpers.pose.decode import Poses
from helpers.pose.estimator import STAGES, PoseEstimator, PoseResult


@pytest.fixture(scope="module")
def dataset() -> CocoDataset:
    return CocoDataset(paths.demo_data())


def test_measure_needs_both_enough_runs_and_enough_seconds():
    calls = []
    samples = benchmark.measure(lambda: calls.append(time.sleep(0.002)), min_runs=5, min_seconds=0.0, warm_up=2)
    assert len(samples) == 5
    assert len(calls) == 7, "two more to warm up"
    samples = benchmark.measure(lambda: time.sleep(0.002), min_runs=1, min_seconds=0.2)
    assert samples.sum() >= 0.2
    assert samples[:-1].sum() < 0.2, "and no longer"
    assert len(samples) > 1


def test_measuring_costs_little_however_quick_the_call():
    start = time.perf_counter()
    samples = benchmark.measure(lambda: None, min_runs=1, min_seconds=0.02)
    assert len(samples) > 10_000
    assert time.perf_counter() - start < 50 * samples.sum(), "adding them all up after each takes hundreds of times"


def test_network_only_counts_a_batch_as_its_images(demo_engine):
    timing = benchmark.network_only(demo_engine, batch_size=2, height=128, width=192, min_runs=3, min_seconds=0)
    assert timing.input_shape == (2, 3, 128, 192)
    assert timing.images_per_s == pytest.approx(2 / np.median(timing.samples_s))
    assert timing.latency.p50 == pytest.approx(np.median(timing.samples_s) * 1e3)
    assert timing.latency.p50 <= timing.latency.p90 <= timing.latency.p99


def test_end_to_end_adds_up_the_stages_and_looks_at_the_clock(dataset, demo_engine):
    images = [dataset.path(k) for k in dataset.sample(3)]
    start = time.perf_counter()
    timing = benchmark.end_to_end(PoseEstimator(demo_engine), images)
    took = time.perf_counter() - start
    assert set(timing.stage_ms) == set(STAGES)
    assert timing.samples_s.sum() == pytest.approx(3 * sum(timing.stage_ms.values()) / 1e3)
    assert timing.images_per_s == pytest.approx(3 / timing.wall_s)
    assert timing.samples_s.max() <= timing.wall_s < took, "the image that warmed up is not counted"


class Overlapping:
    """An estimator that says it worked 3 s on each image in the 10 ms it took, as one with many threads could."""

    def __call__(self, images):
        return list(self.stream(images))

    def stream(self, images, batch_size=1):
        for image in images:
            time.sleep(0.01)
            yield PoseResult(str(image), NOBODY, stage_ms={"load": 1000.0, "infer": 1000.0, "decode": 1000.0})


NOBODY = Poses(np.zeros((0, 17, 3), np.float32), np.zeros(0, np.float32), np.zeros((0, 2), np.float32))


def test_throughput_comes_from_the_clock_and_not_from_overlapping_stages():
    timing = benchmark.end_to_end(Overlapping(), ["a"] * 10)
    assert timing.samples_s.sum() == pytest.approx(30)
    assert timing.latency.p50 == pytest.approx(3000)
    assert 10 / 30 < timing.images_per_s < 10 / 0.1


def test_end_to_end_stops_at_an_image_that_cannot_be_read(demo_engine, tmp_path):
    good = CocoDataset(paths.demo_data()).path(20014)
    with pytest.raises(DataError, match="nope"):
        benchmark.end_to_end(PoseEstimator(demo_engine), [good, tmp_path / "nope.png"])


def test_calls_take_turns():
    order = []
    turns = benchmark.compare(
        {"slow": lambda: order.append(time.sleep(0.02) or "slow"), "quick": lambda: order.append("quick")},
        rounds=4,
        warm_up=1,
    )
    assert order == ["slow", "quick"] * 5
    assert [len(samples) for samples in turns.samples_s.values()] == [4, 4]
    assert turns.median_ms["slow"] >= 20
    assert turns.speedup("slow") == 1
    assert turns.speedup("quick") > 5
    with pytest.raises(UsageError, match="nothing to compare"):
        benchmark.compare({})


def test_speedup_is_the_ratio_of_each_round():
    """A disturbance of a whole round leaves the ratio alone, though it moves both times."""
    turns = benchmark.PairedTimings({"a": np.array([2.0, 20.0, 4.0]), "b": np.array([1.0, 10.0, 1.0])})
    assert turns.speedup("b") == 2.0
    assert turns.median_ms == {"a": 4000.0, "b": 1000.0}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").is_file(), reason="the system keeps its peak for good")
def test_peak_memory_sees_what_was_held_and_given_back():
    benchmark.forget_peak_memory()
    before = benchmark.peak_memory_mb()
    block = np.ones(50_000_000, np.float32)
    del block
    peak = benchmark.peak_memory_mb()
    assert 150 < peak - before < 260
    benchmark.forget_peak_memory()
    assert benchmark.peak_memory_mb() < peak - 100


def test_images_fit_the_engine(dataset, demo_engine):
    free = benchmark.sample_ids(dataset, demo_engine, 20)
    assert free == dataset.sample(20), "an evaluation of so many takes the same"
    with pytest.raises(UsageError, match="seed must be 0 or more, not -1"):
        benchmark.sample_ids(dataset, demo_engine, 20, seed=-1)
    fixed = SimpleNamespace(dynamic_shape=False, input_shape=(512, 704))
    chosen = benchmark.sample_ids(dataset, fixed, 1000)
    assert 20 < len(chosen) < len(dataset)
    for image_id in chosen[:3]:
        image = read_image(dataset.path(image_id))
        assert benchmark.resize_align(image)[0].shape == (512, 704, 3)
    assert len(benchmark.sample_ids(dataset, fixed, 5)) == 5
    with pytest.raises(DataError, match="no image for the input 64 x 64; build a dynamic engine"):
        benchmark.sample_ids(dataset, SimpleNamespace(dynamic_shape=False, input_shape=(64, 64)), 1)
    with pytest.raises(UsageError, match="must be from 1 to"):
        benchmark.sample_ids(dataset, fixed, 0)


def test_an_engine_of_one_shape_is_timed_at_it(demo_engine):
    fixed = SimpleNamespace(dynamic_shape=False, batch_size=2, input_shape=(128, 192), input_type="float32")
    fixed.batch_shape, fixed.run = demo_engine.batch_shape, demo_engine.run
    timing = benchmark.network_only(fixed, min_runs=1, min_seconds=0)
    assert (timing.batch_size, timing.input_shape) == (2, (2, 3, 128, 192))
