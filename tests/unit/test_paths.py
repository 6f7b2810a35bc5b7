"""Names and folders."""

from __future__ import annotations

import hashlib

import pytest

from helpers import paths
from helpers.errors import DataError, UsageError


def test_folders_obey_the_samples_variables(monkeypatch, tmp_path):
    monkeypatch.delenv("MODEL_PATH", raising=False)
    monkeypatch.setenv("COCO_DATASETS_PATH", "")
    assert paths.models() == paths.root() / "data" / "models"
    assert paths.coco() == paths.root() / "data" / "coco"
    assert (paths.root() / "helpers" / "paths.py").is_file()
    monkeypatch.setenv("MODEL_PATH", str(tmp_path))
    monkeypatch.setenv("COCO_DATASETS_PATH", "~/coco")
    assert paths.models() == tmp_path
    assert paths.coco().is_absolute()


def test_file_names(models):
    assert paths.onnx_file("HRNet", "demo", 11) == models / "HRNet_demo" / "HRNet_demo_opset11.onnx"
    folder = models / "HRNet_demo" / "magicmind"
    dynamic = paths.engine_file("HRNet", "demo", "magicmind", "force_float16", True, 8)
    static = paths.engine_file("HRNet", "demo", "magicmind", "force_float16", False, 8)
    assert dynamic == folder / "HRNet_mmpose_model_force_float16_true"
    assert static == folder / "HRNet_mmpose_model_force_float16_false_8"
    facts = ("HRNet", "demo", "magicmind", "force_float16")
    assert paths.engine_file(*facts, True, 8, "uint8") == dynamic.with_name(f"{dynamic.name}_uint8")
    assert paths.engine_file(*facts, False, 8, "uint8") == static.with_name(f"{static.name}_uint8")
    assert paths.checkpoint("https://a.b/c/net-12.pth") == models / "checkpoints" / "net-12.pth"


def test_weights_tag(tmp_path):
    assert [paths.weights_tag(word) for word in ("demo", "official", "random")] == ["demo", "official", "random"]
    file = tmp_path / "latest best.pth"
    file.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert paths.weights_tag(file) == paths.weights_tag(str(file)) == f"latest-best-{digest[:8]}"
    with pytest.raises(UsageError, match=r"'oficial'.*demo, official, random"):
        paths.weights_tag("oficial")
    with pytest.raises(DataError, match=r"gone\.pth"):
        paths.weights_tag(tmp_path / "gone.pth")
