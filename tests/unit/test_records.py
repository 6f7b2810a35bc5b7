"""Records come back as they went out, and say nothing that was not measured."""

from __future__ import annotations

import dataclasses
import json
import platform
import re
import socket
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from helpers import paths
from helpers.dataset import CocoDataset
from helpers.errors import DataError, UsageError
from helpers.measure import benchmark, machine, records
from helpers.measure.evaluate import evaluate, run
from helpers.measure.records import Latency, Record
from helpers.pose.estimator import PoseEstimator

SPEED = Record(
    "HRNet",
    "random",
    "onnxruntime",
    "force_float32",
    batch_size=8,
    input_shape=[8, 3, 512, 512],
    latency_ms=Latency(500.25, 510.5, 520.0, 530.0, 505.0),
    images_per_s=15.99,
    stage_ms={"load": 1.0, "infer": 60.5},
    model_bytes=114_000_000,
    build_s=3.5,
)
ACCURACY = Record(
    "HRNet",
    "official",
    "onnxruntime",
    "force_float32",
    batch_size=1,
    dataset="COCO val2017",
    images=5000,
    ap=0.654,
    ar=0.0,
    coco_stats={"AP": 0.654, "AP (L)": None},
    machine={"cpu": "x"},
    when=machine.now(),
)


def test_latency():
    latency = Latency.from_seconds(np.arange(1, 102) / 1000)
    assert latency == Latency(p50=51.0, p90=91.0, p95=96.0, p99=100.0, mean=51.0)
    assert Latency.from_seconds([0.002]) == Latency(2.0, 2.0, 2.0, 2.0, 2.0)
    with pytest.raises(UsageError, match="no times"):
        Latency.from_seconds([])


def test_fields_are_those_of_the_contract():
    contract = (
        "model weights backend precision weights_sha256 calibration input_type batch_size input_shape dataset "
        "images image_ids_sha256 ap ar ap_interval ap_change ap_change_interval coco_stats latency_ms images_per_s "
        "whole_images_per_s stage_ms model_bytes build_s load_s peak_memory_mb machine versions command when"
    )
    assert [field.name for field in dataclasses.fields(Record)] == contract.split()


def test_round_trip(tmp_path):
    path = records.save(SPEED, tmp_path / "records")
    [found], problems = records.load_all(path.parent)
    assert found == SPEED
    assert not problems
    assert list(path.parent.iterdir()) == [path]
    other_edition = {**SPEED.to_dict(), "gflops": 100.0}
    assert Record.from_json(json.dumps(other_edition)) == SPEED


def test_absent_means_not_measured(tmp_path):
    """None is left out, at any depth; 0 was measured, and stays."""
    document = json.loads(records.save(ACCURACY, tmp_path).read_text())
    assert document["ar"] == 0.0
    assert document["coco_stats"] == {"AP": 0.654}
    assert "latency_ms" not in document
    assert "null" not in records.save(SPEED, tmp_path).read_text()


def test_numpy_numbers_are_numbers():
    record = Record("HRNet", "demo", "pytorch", "force_float32", ap=np.float32(0.5), images=np.int64(3))
    assert json.loads(record.to_json())["ap"] == 0.5
    with pytest.raises(TypeError, match="item"):
        Record("HRNet", "demo", "pytorch", "force_float32", command=paths.root()).to_json()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan")])
def test_figures_must_be_finite(tmp_path, value):
    with pytest.raises(DataError, match="not finite"):
        records.save(Record("HRNet", "demo", "pytorch", "force_float32", ap=value), tmp_path)
    assert not list(tmp_path.iterdir())


def test_file_names(tmp_path, monkeypatch):
    """The same thing measured again replaces; speed and accuracy of one model stand side by side."""
    monkeypatch.setattr(paths, "output", lambda: tmp_path)
    assert records.load_all() == ([], [])
    assert records.save(SPEED) == tmp_path / "records" / "HRNet_random_onnxruntime_force_float32_b8_8x3x512x512.json"
    assert records.save(ACCURACY).name == "HRNet_official_onnxruntime_force_float32_b1_COCO-val2017_5000-images.json"
    records.save(ACCURACY)
    found, _ = records.load_all()
    assert len(found) == 2


CALIBRATED = dataclasses.replace(ACCURACY, precision="qint8_mixed_float16", calibration="32 images, minmax")


@pytest.mark.parametrize(
    "other",
    [
        {"calibration": "8 images, minmax"},
        {"calibration": "32 images, entropy"},
        {"calibration": None},
        {"input_type": "uint8"},
        {"batch_size": 2},
        {"input_shape": [1, 3, 512, 512]},
        {"dataset": "COCO val2017 without flip test"},
        {"images": 4999},
        {"image_ids_sha256": "0" * 64},
    ],
)
def test_measurements_of_different_things_stand_side_by_side(other):
    assert dataclasses.replace(CALIBRATED, **other).name != CALIBRATED.name


def test_what_a_simulator_found_says_so():
    """In its version, and its name, too."""
    card = dataclasses.replace(CALIBRATED, backend="magicmind", versions={"magicmind": "1.7.0"})
    simulator = dataclasses.replace(card, versions={"magicmind": "1.7.0+simulator"})
    assert not card.simulated and simulator.simulated
    assert not dataclasses.replace(simulator, backend="onnxruntime").simulated  # it was only on the path
    assert simulator.name == f"{card.name}_simulator"
    assert not dataclasses.replace(ACCURACY, versions=None).simulated


def test_broken_files_are_told_and_skipped(tmp_path):
    records.save(SPEED, tmp_path)
    broken = {"cut.json": SPEED.to_json()[:50], "list.json": "[1]", "number.json": "3", "lacks.json": '{"model": ""}'}
    wrong = (
        '"latency_ms": 3',
        '"model": null',
        '"ap": "high"',
        '"ap": NaN',
        '"stage_ms": {"load": 1e999}',
        '"ar": true',
    )
    for count, field in enumerate(wrong):
        broken[f"{count}.json"] = '{"model": "", "weights": "", "backend": "", "precision": "", ' + field + "}"
    for name, text in broken.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / ".part-1-x.json").write_text("{")  # somebody is writing it right now
    found, problems = records.load_all(tmp_path)
    assert found == [SPEED]
    assert len(problems) == len(broken) + 2
    assert all(any(name in problem for problem in problems) for name in (*broken, "binary.json", "folder.json"))
    assert not any("\n" in problem for problem in problems)


@pytest.fixture(scope="module")
def dataset() -> CocoDataset:
    return CocoDataset(paths.demo_data())


def test_accuracy_of_an_engine(dataset, demo_built, demo_engine):
    done = run(PoseEstimator(demo_engine), dataset, dataset.sample(3))
    record = records.accuracy_record(demo_engine, done, dataset, command="a test")
    assert (record.model, record.weights, record.backend) == ("MobileNetv2", "demo", "onnxruntime")
    assert record.model_bytes == demo_built.stat().st_size
    assert (record.images, record.ap, record.stage_ms) == (3, done.stats.numbers["AP"], done.stage_ms)
    assert record.image_ids_sha256 == records.ids_sha256(dataset.sample(3)[::-1])
    assert record.latency_ms is None, "one figure of the whole call is not the network's latency"
    assert Record.from_json(record.to_json()) == record
    low, high = record.ap_interval
    assert 0 <= low <= high <= 1
    assert record.ap_change is None, "there was nothing to compare with"
    nobody = dataclasses.replace(done, poses={}, stats=evaluate({}, dataset, done.image_ids))
    worse = records.accuracy_record(demo_engine, nobody, dataset, flip_test=False, reference=done)
    assert worse.ap_change == -record.ap
    assert worse.ap_change_interval == pytest.approx([-high, -low]), "the same samples"
    assert record.flip_test and not worse.flip_test
    assert (record.dataset, worse.dataset) == ("demo val2017", "demo val2017 without flip test")


def with_facts(**facts) -> SimpleNamespace:
    """As much of an engine as records are made from."""
    usual = {"model": "HRNet", "weights": "demo", "backend": "magicmind", "precision": "qint8_mixed_float16"}
    usual.update(input_type="float32", backend_version="1.7.0", build_s=1.5, bytes=10)
    return SimpleNamespace(facts={**usual, **facts}, path="x.mm")


@pytest.mark.parametrize(
    ("learnt", "layers", "told"),
    [
        ({"count": 8, "method": "entropy", "seed": 0}, (), "8 images, entropy"),
        ({"count": 80, "method": "percentile", "percentile": 99.9}, (), "80 images, percentile, 99.9 percent"),
        ({"count": 8, "method": "minmax", "seed": 3}, ["a", "b"], "8 images, minmax, seed 3, 2 layers in float"),
        (None, (), None),
    ],
)
def test_calibration_is_told(learnt, layers, told):
    engine = with_facts(calibration=learnt, float_layers=layers)
    assert records.speed_record(engine, NETWORK, WHOLE).calibration == told


NETWORK = benchmark.NetworkTiming(np.array([0.5]), 2, (2, 3, 512, 512))
WHOLE = benchmark.EndToEndTiming(np.array([0.2, 0.2]), {"infer": 150.0, "decode": 50.0}, 0.25)


def test_a_speed_record_has_what_was_measured_and_nothing_else(dataset, demo_engine):
    bare = records.speed_record(demo_engine, NETWORK, WHOLE)
    assert (bare.whole_images_per_s, bare.images_per_s, bare.batch_size) == (8, 4, 2)
    assert bare.stage_ms == WHOLE.stage_ms
    assert not {"load_s", "peak_memory_mb", "ap", "calibration"} & set(bare.to_dict())
    done = run(PoseEstimator(demo_engine), dataset, dataset.sample(2))
    full = records.speed_record(demo_engine, NETWORK, WHOLE, "x", 0.5, 321.0, done, dataset)
    assert (full.load_s, full.peak_memory_mb, full.command) == (0.5, 321.0, "x")
    assert (full.images, full.ap, full.latency_ms) == (2, done.stats.numbers["AP"], bare.latency_ms)
    assert Record.from_json(full.to_json()).to_dict() == full.to_dict()


def test_a_simulator_has_accuracy_and_no_speed(dataset, demo_engine):
    simulator = with_facts(backend="magicmind", backend_version="1.7.0+simulator")
    with pytest.raises(UsageError, match=r"x\.mm is a simulator's model, which has no speed; measure on a real card"):
        records.speed_record(simulator, NETWORK, WHOLE)
    done = run(PoseEstimator(demo_engine, flip_test=False, input_size=128), dataset, dataset.sample(1))
    record = records.accuracy_record(simulator, done, dataset)
    assert record.simulated and record.images == 1
    assert not {"stage_ms", "build_s", "model_bytes"} & set(record.to_dict())


def test_machine_tells_what_and_not_whose():
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", machine.now())
    facts = machine.machine()
    assert facts["cpu"]
    assert facts["cores"] >= 1
    assert facts["python"] == platform.python_version()
    assert socket.gethostname() not in json.dumps(facts)
    found = machine.versions()
    assert found["onnxruntime"] == onnxruntime.__version__
    assert found["numpy"] == np.__version__
    assert "magicmind" not in found
