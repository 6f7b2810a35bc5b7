"""A disk that is full or read-only: one line that says so, nothing half-written, and a run that can go on later."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest

from helpers import paths
from helpers.backends import BuildSpec, get
from helpers.errors import DataError
from helpers.measure import records
from helpers.measure.evaluate import Journal
from tests.faults import command
from tests.faults.sets import repeat_demo

FULL = "No space left on device"
LOCKED = "Read-only file system"


def mounted(folder: Path, options: str) -> bool:
    """Puts a small disk of its own at a folder; False if this process may not."""
    folder.mkdir(parents=True, exist_ok=True)
    argv = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture
def disk(tmp_path):
    """Makes the folder `disk` a disk with so many bytes free."""
    folder, count = tmp_path / "disk", []

    def make(size: int) -> Path:
        if not mounted(folder, f"size={size}"):
            pytest.skip("mounting a small disk needs root")
        count.append(size)
        return folder

    yield make
    for _ in count:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def lock(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("backend", "precision"),
    [
        ("onnxruntime", "force_float32"),
        ("onnxruntime", "force_float16"),
        ("openvino", "force_float32"),
        ("openvino", "force_float16"),
        ("pytorch", "force_float32"),
    ],
)
def test_build_on_a_full_disk(demo_built, disk, monkeypatch, backend, precision):
    """Each library words it in its own way, or not at all."""
    [exported] = demo_built.parents[1].glob("*.onnx")
    folder = disk(4 << 20)
    monkeypatch.setattr(paths, "models", lambda: folder)
    with pytest.raises(DataError, match=f"{precision}_true cannot be written: {FULL}"):
        get(backend).build(exported, BuildSpec(precision))
    assert files(folder) == []


def test_export_on_a_full_disk_and_on_a_read_only_one(disk, tmp_path):
    home = command.Home(disk(4 << 20), tmp_path / "output")
    argv = ("export", "--weights", "random", "--opset", "17")
    end = command.run(home, *argv)
    assert (end.status, end.out, len(end.err.splitlines())) == (1, "", 1)
    assert f"MobileNetv2_random_opset17.onnx cannot be written: {FULL}" in end.err
    assert files(home.models) == []
    lock(home.models)
    end = command.run(home, *argv)
    assert (end.status, end.out, len(end.err.splitlines())) == (1, "", 1)
    assert LOCKED in end.err
    assert "MobileNetv2_random_opset17.onnx" in end.err


def test_eval_on_a_disk_that_fills_up_goes_on_once_there_is_room(home, disk, tmp_path):
    repeat_demo(tmp_path / "coco", 6, distinct=6)
    argv = ("eval", "--data", str(tmp_path / "coco"), "--no-flip", "--json")
    wanted = command.run(home, *argv, "--out", str(tmp_path / "wanted.json"))
    assert wanted.status == 0, wanted.err
    needed = next((home.output / "runs").iterdir()).stat().st_size
    size = 2 * needed // 4096 * 4096  # whole pages
    small = dataclasses.replace(home, output=disk(size))
    (small.output / "ballast").write_bytes(bytes(size - needed * 2 // 3))
    end = command.run(small, *argv)
    assert end.status == 1
    [error] = end.err.splitlines()
    assert f".jsonl cannot be written: {FULL}; what it holds is kept" in error
    assert not (small.output / "records").exists()
    [journal] = (small.output / "runs").iterdir()
    kept = journal.read_bytes().count(b"\n") - 1
    assert 1 <= kept < 6

    (small.output / "ballast").unlink()
    end = command.run(small, *argv, "--out", str(tmp_path / "found.json"))
    assert end.status == 0, end.err
    assert f"{kept} of 6 images from an earlier run that stopped" in end.err
    assert json.loads(end.out)["coco_stats"] == json.loads(wanted.out)["coco_stats"]
    assert (tmp_path / "found.json").read_bytes() == (tmp_path / "wanted.json").read_bytes()


def test_eval_with_a_read_only_output_folder_says_so_before_it_runs(home, disk, tmp_path):
    repeat_demo(tmp_path / "coco", 2, distinct=2)
    locked = dataclasses.replace(home, output=disk(1 << 20))
    lock(locked.output)
    end = command.run(locked, "eval", "--data", str(tmp_path / "coco"), "--no-flip")
    assert (end.status, end.out) == (1, "")
    [error] = end.err.splitlines()
    assert f".jsonl cannot be written: {LOCKED}" in error
    assert files(locked.output) == []


DECIDES = {"model": "M", "weights": "w", "backend": "b", "precision": "p"}


def test_record_and_journal_on_a_full_disk(disk):
    folder = disk(8 << 10)
    (folder / "ballast").write_bytes(bytes(4 << 10))
    with Journal(folder / "runs", DECIDES) as kept:
        pass
    with pytest.raises(DataError, match=f"cannot be written: {FULL}"):
        records.save(records.Record("M", "w", "b", "p", command="x" * 5000), folder)
    assert set(files(folder)) == {"ballast", kept.path.name}
