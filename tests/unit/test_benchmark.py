"""Timing: when it stops, what it reports, and what the closing table says."""

from __future__ import annotations

import time

import numpy as np
import pytest

from helpers import benchmark, paths, records, zoo
from helpers.dataset import CocoDataset
from helpers.estimator import STAGES, PoseEstimator
from helpers.evaluate import run
from helpers.records import Latency, Record


def test_measure_needs_both_enough_runs_and_enough_seconds():
    calls = []
    samples = benchmark.measure(lambda: calls.append(time.sleep(0.002)), min_runs=5, min_seconds=0.0, warm_up=2)
    assert len(samples) == 5
    assert len(calls) == 7, "two more to warm up"
    samples = benchmark.measure(lambda: time.sleep(0.002), min_runs=1, min_seconds=0.2)
    assert samples.sum() >= 0.2
    assert samples[:-1].sum() < 0.2, "and no longer"
    assert len(samples) > 1


def test_network_only_counts_a_batch_as_its_pictures(demo_engine):
    timing = benchmark.network_only(demo_engine, batch_size=2, height=128, width=192, min_runs=3, min_seconds=0)
    assert timing.input_shape == (2, 3, 128, 192)
    assert timing.images_per_s == pytest.approx(2 / np.median(timing.samples_s))
    assert timing.latency.p50 == pytest.approx(np.median(timing.samples_s) * 1e3)
    assert timing.latency.p50 <= timing.latency.p90 <= timing.latency.p99


def test_network_only_feeds_bytes_to_an_engine_for_bytes(demo_engine_uint8):
    timing = benchmark.network_only(demo_engine_uint8, batch_size=2, height=128, width=192, min_runs=3, min_seconds=0)
    assert timing.input_shape == (2, 128, 192, 3)
    assert timing.images_per_s > 0


def test_end_to_end_adds_up_the_stages(demo_engine):
    dataset = CocoDataset(paths.demo_data())
    timing = benchmark.end_to_end(PoseEstimator(demo_engine), [dataset.path(k) for k in dataset.sample(2)])
    assert set(timing.stage_ms) == set(STAGES)
    assert timing.samples_s.sum() == pytest.approx(2 * sum(timing.stage_ms.values()) / 1e3)
    assert timing.images_per_s == pytest.approx(2 / timing.samples_s.sum())


class Static:
    """As much of an engine as `sample_pictures` looks at."""

    dynamic_shape = False


def test_pictures_to_time_fit_the_engine(demo_engine):
    dataset = CocoDataset(paths.demo_data())
    sizes = {dataset.path(k): dataset.size(k) for k in dataset.image_ids}
    free = benchmark.sample_pictures(dataset, demo_engine, 20)
    assert len(set(free)) == 20
    assert len({sizes[p] for p in free}) > 3
    assert free == benchmark.sample_pictures(dataset, demo_engine, 20), "the same for the same seed"
    square = benchmark.sample_pictures(dataset, Static(), 1000)
    assert {width == height for width, height in (sizes[p] for p in square)} == {True}
    assert len(square) == sum(width == height for width, height in sizes.values())


def test_records_tell_what_was_run(demo_built, demo_engine):
    dataset = CocoDataset(paths.demo_data())
    done = run(PoseEstimator(demo_engine), dataset, dataset.sample(3))
    record = benchmark.accuracy_record(demo_built, done, dataset, command="a test")
    assert (record.model, record.weights, record.backend) == ("MobileNetv2", "demo", "onnxruntime")
    assert record.model_bytes == demo_built.stat().st_size
    assert record.images == 3
    assert record.ap == done.stats.numbers["AP"]
    assert record.latency_ms is None, "one figure of the whole call is not the network's latency"
    assert records.Record.from_json(record.to_json()) == record


def test_a_record_of_uint8_input_does_not_replace_that_of_floats(demo_built, demo_built_uint8, demo_engine_uint8):
    dataset = CocoDataset(paths.demo_data())
    done = run(PoseEstimator(demo_engine_uint8), dataset, dataset.sample(3))
    floats, as_bytes = (benchmark.accuracy_record(path, done, dataset) for path in (demo_built, demo_built_uint8))
    assert as_bytes.dataset == f"{floats.dataset} with uint8 input"
    assert as_bytes.name != floats.name


def row(model: str, **figures) -> Record:
    return Record(model, figures.pop("weights", "demo"), "onnxruntime", "force_float32", **figures)


def test_comparison_says_when_accuracy_was_not_measured():
    latency = Latency(100.0, 110.0, 115.0, 120.0, 101.0)
    stages = {"load": 1.0, "pre": 2.0, "infer": 200.0, "decode": 10.0}
    timed = {"latency_ms": latency, "images_per_s": 10.0, "stage_ms": stages, "batch_size": 1}
    rows = [
        row("MobileNetv2", ap=0.5, ar=0.6, images=256, dataset="demo val2017", when="2026-01-01"),
        row("MobileNetv2", ap=0.4, ar=0.5, images=60, dataset="demo val2017", when="2026-01-02"),
        row("MobileNetv2", **timed),
        row("HRNet", weights="random", **timed),
        row("HRNet", weights="random", ap=0.01, ar=0.01, images=3),
    ]
    table = {line["model"]: line for line in benchmark.comparison(rows, "force_float32")}
    assert list(table) == list(zoo.NETWORKS)
    measured = table["MobileNetv2"]["AP here"]
    assert measured == "0.500 (demo weights, 256 images of demo val2017)", "most images count"
    assert table["MobileNetv2"]["whole call ms"] == "213"
    assert table["HRNet"]["AP here"] == "needs official weights", "random weights have no accuracy"
    assert "whole call ms" not in table["HRNet"], "nor does decoding their noise mean anything"
    assert table["HRNet"]["AP published"] == "0.6542"
    assert "p50 ms" not in table["ResNet50"]
    assert benchmark.comparison(rows, "qint16_mixed_float16")[0]["AP published"] == "-"
