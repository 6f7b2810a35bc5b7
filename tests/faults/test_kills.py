"""Killed outright (SIGKILL) at random moments: nothing broken lies about, and the same command then ends right."""

from __future__ import annotations

import json
import random

import onnx
import pytest

from helpers import artifacts
from tests.faults import command
from tests.faults.command import Home
from tests.faults.sets import repeat_demo

EXPORT = ("export", "--weights", "random", "--opset", "17")
BUILD = ("build", "--weights", "random", "--json")
INT8 = (*BUILD, "--precision", "qint8_mixed_float32", "--calibration-num", "1")


def visible(folder) -> list:
    """Every file that has its final name."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def hidden(folder) -> list:
    return [path for path in folder.rglob(".*") if path.is_file()]


def assert_whole(home: Home) -> None:
    """What bears its final name can be read to its end; a journal up to its last line end."""
    for path in [*visible(home.models), *visible(home.output)]:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".jsonl":
            for line in path.read_bytes().split(b"\n")[:-1]:
                json.loads(line.decode("utf-8"))
        else:
            onnx.checker.check_model(onnx.load(str(path)))


def kill_often(home: Home, argv: tuple[str, ...], count: int, longest: float, seed: int) -> None:
    """Kills a command so often while it runs, at moments up to `longest` seconds after its start."""
    moments, before, killed = random.Random(seed), visible(home.models), 0
    for _ in range(3 * count):
        end = command.run(home, *argv, kill_after=moments.uniform(0, longest))
        killed += end.status == -9
        assert end.status in (-9, 0), end.err
        assert_whole(home)
        if killed == count:
            return
        if end.status == 0:  # it was quicker than that: earlier, then, and there has to be something to do again
            longest *= 0.8
            for path in set(visible(home.models)) - set(before):
                path.unlink()
    pytest.fail(f"{argv} was over before it could be killed")


def made(home: Home, *argv: str) -> tuple[dict[str, str], float]:
    """Runs a command to its end: the models it leaves, by name, with their hashes; and the seconds it took."""
    end = command.run(home, *argv)
    assert end.status == 0, end.err
    assert_whole(home)
    files = [path for path in visible(home.models) if path.suffix != ".json"]
    for path in files:
        assert artifacts.read_sidecar(path)["sha256"] == artifacts.sha256(path)
    return {path.name: artifacts.sha256(path) for path in files}, end.seconds


def test_export_and_build_killed(tmp_path):
    """4 + 6 + 2 kills."""
    calm, rough = (Home(tmp_path / name / "models", tmp_path / name / "output") for name in ("calm", "rough"))
    for seed, (argv, count) in enumerate([(EXPORT, 4), (BUILD, 6), (INT8, 2)]):
        wanted, took = made(calm, *argv)
        kill_often(rough, argv, count, took, seed)
        assert made(rough, *argv)[0] == wanted


def record_of(home: Home) -> dict:
    [file] = (home.output / "records").glob("*.json")
    return json.loads(file.read_text())


def kept_images(home: Home) -> int:
    """How many images the run that was killed last had kept; 0 if the kill came too late, after its end."""
    [file] = (home.output / "runs").glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    return 0 if any("finished" in line for line in lines) else sum("image_id" in line for line in lines)


@pytest.mark.parametrize(("batch_size", "count"), [(1, 6), (2, 3)])
def test_eval_killed(home, tmp_path, batch_size, count):
    """Taken up again and again, it gives the numbers of a run that nobody disturbed, to the last bit."""
    repeat_demo(tmp_path / "coco", 6, distinct=6)
    argv = ("eval", "--data", str(tmp_path / "coco"), "--no-flip", "--batch-size", str(batch_size))
    calm = Home(home.models, tmp_path / "calm")
    end = command.run(calm, *argv, "--out", str(tmp_path / "calm.json"))
    assert end.status == 0, end.err

    argv += ("--out", str(tmp_path / "rough.json"))
    kill_often(home, argv, count, end.seconds, batch_size)
    kept = kept_images(home)
    last = command.run(home, *argv)
    assert last.status == 0, last.err
    if batch_size == 1:  # else all six are one window, which runs again unless it was complete
        assert (f"{kept} of 6 images from an earlier run that stopped" in last.err) == bool(kept)
    for key in ("coco_stats", "ap", "ar", "images"):
        assert record_of(home)[key] == record_of(calm)[key]
    assert 0 < record_of(home)["ap"] < 1
    assert (tmp_path / "rough.json").read_bytes() == (tmp_path / "calm.json").read_bytes()
    assert hidden(home.output) == []


def test_report_killed(home, tmp_path):
    """3 kills; what it reads stays, and it prints the same again."""
    repeat_demo(tmp_path / "coco", 2, distinct=2)
    assert command.run(home, "eval", "--data", str(tmp_path / "coco"), "--no-flip").status == 0
    calm = command.run(home, "report")
    assert "2 images" in calm.out
    page = home.output / "report.html"
    before = {path: path.read_bytes() for path in visible(home.output) if path != page}
    for share in (0.1, 0.4, 0.7):
        command.run(home, "report", kill_after=share * calm.seconds)
        assert {path: path.read_bytes() for path in visible(home.output) if path != page} == before
        assert page.read_text().rstrip().endswith("</html>"), (
            "the old one, or the new one of a run that was quicker than its kill"
        )
    assert command.run(home, "report").out == calm.out
