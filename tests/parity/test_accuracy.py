"""What the whole chain is for: the exported file scores like the network it was made from."""

from __future__ import annotations

import pytest

from helpers import backends, paths
from helpers.backends.pytorch import engine_of
from helpers.dataset import CocoDataset
from helpers.export import export
from helpers.export.network import load
from helpers.measure.evaluate import run
from helpers.pose.estimator import PoseEstimator


def test_onnx_scores_like_pytorch(tmp_path, monkeypatch, parity_report):
    monkeypatch.setenv("MODEL_PATH", str(tmp_path))
    dataset = CocoDataset(paths.demo_data())
    image_ids = dataset.sample(24)
    backend = backends.get("onnxruntime")
    exported = export.export("MobileNetv2", "demo", shapes=[(128, 192)], batches=[1])
    engines = {
        "PyTorch": engine_of(load("MobileNetv2", "demo")),
        "ONNX Runtime": backend.load(backend.build(exported, backends.BuildSpec())),
    }
    stats = {name: run(PoseEstimator(engine), dataset, image_ids).stats for name, engine in engines.items()}
    scores = ", ".join(f"{name} {s.numbers['AP']:.5f}" for name, s in stats.items())
    parity_report.append(f"AP on {stats['PyTorch'].scope}: {scores}")
    for name, value in stats["PyTorch"].numbers.items():
        assert stats["ONNX Runtime"].numbers[name] == pytest.approx(value, abs=5e-4)
    assert stats["PyTorch"].numbers["AP"] > 0.5, "the target of the shipped weights"
