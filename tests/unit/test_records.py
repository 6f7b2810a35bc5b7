"""Records come back as they went out, and say nothing that was not measured."""

from __future__ import annotations

import dataclasses
import json
import platform
import re
import socket

import numpy as np
import onnxruntime
import pytest

from helpers import paths
from helpers.errors import DataError, UsageError
from helpers.measure import records
from helpers.measure.records import Latency, Record

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
    when=records.now(),
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
        "images ap ar ap_interval ap_change ap_change_interval coco_stats latency_ms images_per_s "
        "whole_images_per_s stage_ms gflops gemm_gflops model_bytes build_s load_s peak_memory_mb"
        " machine versions command when"
    )
    assert [field.name for field in dataclasses.fields(Record)] == contract.split()


def test_round_trip(tmp_path):
    path = records.save(SPEED, tmp_path / "records")
    [found], problems = records.load_all(path.parent)
    assert found == SPEED
    assert not problems
    assert list(path.parent.iterdir()) == [path]


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
    with pytest.raises(TypeError, match="no place in a record"):
        Record("HRNet", "demo", "pytorch", "force_float32", command=paths.root()).to_json()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan")])
def test_figures_must_be_finite(tmp_path, value):
    with pytest.raises(DataError, match="not finite"):
        records.save(Record("HRNet", "demo", "pytorch", "force_float32", ap=value), tmp_path)
    assert not list(tmp_path.iterdir())


def test_file_names(tmp_path, monkeypatch):
    """The same thing measured again replaces; speed and accuracy of one model stand side by side."""
    monkeypatch.setattr(paths, "output", lambda: tmp_path)
    assert records.save(SPEED) == tmp_path / "records" / "HRNet_random_onnxruntime_force_float32_b8_8x3x512x512.json"
    assert records.save(ACCURACY).name == "HRNet_official_onnxruntime_force_float32_b1_COCO-val2017_5000-images.json"
    records.save(ACCURACY)
    found, _ = records.load_all()
    assert len(found) == 2


def test_broken_files_are_told_and_skipped(tmp_path):
    records.save(SPEED, tmp_path)
    broken = {
        "cut.json": SPEED.to_json()[:50],
        "list.json": "[1]",
        "number.json": "3",
        "lacks.json": '{"model": "HRNet"}',
        "other.json": '{"model": "", "weights": "", "backend": "", "precision": "", "fps": 3}',
        "latency.json": '{"model": "", "weights": "", "backend": "", "precision": "", "latency_ms": 3}',
        "null.json": '{"model": null, "weights": "", "backend": "", "precision": ""}',
        "text.json": '{"model": "", "weights": "", "backend": "", "precision": "", "ap": "high"}',
        "nan.json": '{"model": "", "weights": "", "backend": "", "precision": "", "ap": NaN}',
        "huge.json": '{"model": "", "weights": "", "backend": "", "precision": "", "stage_ms": {"load": 1e999}}',
        "bool.json": '{"model": "", "weights": "", "backend": "", "precision": "", "images": true}',
    }
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


def test_no_folder_no_records(tmp_path):
    assert records.load_all(tmp_path / "gone") == ([], [])


def test_align_fills_what_a_row_lacks():
    rows = [{"model": "HRNet", "AR": 0.0}, {"model": "ResNet50", "AR": None, "p50 ms": 12.0}]
    assert records.align(rows).split("\n") == [
        "| model    | AR | p50 ms |",
        "|----------|----|--------|",
        "| HRNet    | 0  |        |",
        "| ResNet50 |    | 12     |",
    ]
    assert records.align([]) == "(no records)"


def test_large_figures_are_not_in_powers_of_ten():
    assert "| 123457 " in records.align([{"images/s": 123456.7}])


def test_now_is_utc():
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", records.now())


def test_machine_tells_what_and_not_whose():
    facts = records.machine()
    assert facts["cpu"]
    assert facts["cores"] >= 1
    assert facts["python"] == platform.python_version()
    assert socket.gethostname() not in json.dumps(facts)


def test_versions():
    found = records.versions()
    assert found["onnxruntime"] == onnxruntime.__version__
    assert found["numpy"] == np.__version__
    assert "magicmind" not in found
