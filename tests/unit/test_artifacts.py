"""Names, folders, and files that are whole or not there."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from helpers import artifacts, paths
from helpers.errors import DataError, UsageError


def test_folders_honour_the_samples_variables(monkeypatch, tmp_path):
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
    assert paths.onnx_file("HRNet", "demo", 11, "uint8").name == "HRNet_demo_opset11_uint8.onnx"
    assert paths.onnx_file("HRNet", "demo", 11, "float32") == paths.onnx_file("HRNet", "demo", 11)
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


def test_atomic_write_replaces_only_on_success(tmp_path):
    path = tmp_path / "new" / "folder" / "a.npz"
    with artifacts.atomic_write(path) as part:
        assert part.parent == path.parent
        assert part.suffix == ".npz"
        assert not path.exists()
        part.write_text("first")
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), artifacts.atomic_write(path) as part:
            part.write_text("half")
            raise error
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_atomic_write_says_where_it_cannot(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/a\.txt cannot be written"), artifacts.atomic_write(
        tmp_path / "file" / "a.txt"
    ):
        pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="folder cannot be written"), artifacts.atomic_write(
        tmp_path / "folder"
    ) as part:
        part.write_text("a file cannot replace a folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_atomic_write_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="Permission denied"), artifacts.atomic_write(tmp_path / "a"):
        pass


def test_sidecar_vouches_for_content_and_bytes(tmp_path):
    path = tmp_path / "made"
    path.write_bytes(b"content")
    artifacts.write_sidecar(path, shape=(1, 2), precision="x", build_s=1.5)
    assert artifacts.read_sidecar(path)["bytes"] == 7
    assert artifacts.is_current(path, {"shape": (1, 2), "precision": "x"})
    assert not artifacts.is_current(path, {"shape": (1, 3), "precision": "x"})
    assert not artifacts.is_current(path, {"unknown": None, "other": 1})
    path.write_bytes(b"Content")
    assert not artifacts.is_current(path, {"shape": (1, 2)})
    path.unlink()
    assert not artifacts.is_current(path, {"shape": (1, 2)})


@pytest.mark.parametrize("text", [None, "", "{", "[1]", '{"sha256"', "\udcff"])
def test_damaged_sidecar(tmp_path, text):
    path = tmp_path / "made"
    path.write_bytes(b"content")
    if text is not None:
        (tmp_path / "made.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert not artifacts.is_current(path, {})
    with pytest.raises(DataError, match=r"made\.json"):
        artifacts.read_sidecar(path)


def test_sidecar_is_json_for_everybody(tmp_path):
    path = tmp_path / "made"
    path.write_bytes(b"content")
    artifacts.write_sidecar(path, a=1)
    document = json.loads((tmp_path / "made.json").read_text())
    assert document == {"a": 1, "sha256": hashlib.sha256(b"content").hexdigest(), "bytes": 7}


def test_a_readable_sidecar_has_no_none_and_no_endless_cells(tmp_path):
    path = tmp_path / "made"
    path.write_bytes(b"content")
    artifacts.write_sidecar(path, precision="x", calibration=None, images=["0" * 64] * 32)
    shown = paths.readable_sidecar(path)
    assert list(shown) == list(artifacts.read_sidecar(path))
    assert (shown["precision"], shown["calibration"], shown["bytes"]) == ("x", "none needed", "7")
    assert shown["images"].startswith("['000")
    assert shown["images"].endswith(" ...")
    assert len(shown["images"]) < 200
