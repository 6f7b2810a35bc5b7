"""Many devices: chunks and shards by themselves; with Ray, workers that are real processes and are really killed."""

from __future__ import annotations

import importlib.util
import io
import itertools
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from helpers import cli, paths, scale_out
from helpers.dataset import CocoDataset
from helpers.errors import DataError, UsageError
from helpers.measure import evaluate
from helpers.pose.decode import Poses
from helpers.pose.estimator import PoseEstimator, PoseResult
from helpers.scale_out import Fleet, Setup
from tests.scale.stub import POISON, StubSetup

has_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason=f"Ray is not installed: {scale_out.INSTALL}"
)


def outcome(name: str, seed: int, people: int = 2) -> PoseResult:
    points = np.random.default_rng(seed).normal(100, 50, (people, 17, 3)).astype(np.float32)
    poses = Poses(points, points[:, 0, 2], points[:, :1, 0])
    return PoseResult(name, poses, stage_ms={"load": 1.25, "infer": 0.1})


def assert_same(found: list[PoseResult], wanted: list[PoseResult]) -> None:
    assert [each.name for each in found] == [each.name for each in wanted]
    for mine, yours in zip(found, wanted):
        assert (mine.poses is None) == (yours.poses is None)
        if mine.poses is not None:
            for name in ("keypoints", "scores", "tags"):
                np.testing.assert_array_equal(getattr(mine.poses, name), getattr(yours.poses, name))


# ------------------------------------------------------------------------------------------- without Ray


@pytest.mark.parametrize("given", [[], [-1], [0, 0], ["1"], [True], [0.5]])
def test_devices_that_are_none(given):
    with pytest.raises(UsageError):
        scale_out.check_devices(given)


@pytest.mark.parametrize(("text", "told"), [("0,0", "once"), ("a", "whole numbers"), ("-1", "whole numbers"), ("", "")])
def test_devices_on_the_command_line(capsys, text, told):
    assert cli.main(["eval", f"--devices={text}"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert told in line


@pytest.mark.parametrize(
    ("images", "devices", "window", "length"),
    [
        (200, 2, 1, 7),
        (5000, 8, 1, 40),
        (10**6, 8, 1, 64),
        (3, 2, 1, 1),
        (0, 2, 1, 1),
        (200, 2, 32, 32),
        (10**6, 1, 24, 72),
    ],
)
def test_chunks_share_the_work_and_hold_whole_windows(images, devices, window, length):
    assert scale_out.chunk_length(images, devices, window) == length
    assert length % window == 0


def test_cutting_is_lazy_and_loses_nothing():
    cuts = scale_out.cut(map(str, itertools.count()), 3)
    assert [next(cuts), next(cuts)] == [["0", "1", "2"], ["3", "4", "5"]]
    assert list(scale_out.cut("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]


def test_a_shard_keeps_every_bit(tmp_path):
    wanted = [outcome("a.jpg", 0), PoseResult("b.jpg", error="b.jpg is no image."), outcome("c.jpg", 1, people=0)]
    scale_out.write_shard(tmp_path / "0.jsonl", ["a.jpg", "b.jpg", "c.jpg"], wanted)
    found = scale_out.read_shard(tmp_path / "0.jsonl", ["a.jpg", "b.jpg", "c.jpg"])
    assert_same(found, wanted)
    assert found[1].error == wanted[1].error
    assert found[0].stage_ms == wanted[0].stage_ms


def test_a_half_written_shard_does_not_count(tmp_path):
    """A worker that ends half-way leaves nothing under the shard's name; the second try replaces what a first left."""

    def broken():
        yield outcome("a.jpg", 0)
        raise RuntimeError("lost")

    shard = tmp_path / "0.jsonl"
    with pytest.raises(RuntimeError):
        scale_out.write_shard(shard, ["a.jpg", "b.jpg"], broken())
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):
        scale_out.write_shard(shard, ["a.jpg", "b.jpg"], [outcome("a.jpg", 0), outcome("b.jpg", 1)])
    assert [path.name for path in tmp_path.iterdir()] == ["0.jsonl"]
    assert len(scale_out.read_shard(shard, ["a.jpg", "b.jpg"])) == 2


@pytest.mark.parametrize("harm", ["cut", "lines", "twice", "other"])
def test_a_damaged_shard_is_refused(tmp_path, harm):
    shard, names = tmp_path / "0.jsonl", ["a.jpg", "b.jpg"]
    scale_out.write_shard(shard, names, [outcome("a.jpg", 0), outcome("b.jpg", 1)])
    text = shard.read_text()
    lines = text.splitlines(keepends=True)
    shard.write_text(
        {"cut": text[:-9], "lines": lines[0], "twice": text + lines[1], "other": text.replace("b.", "c.")}[harm]
    )
    with pytest.raises(DataError, match=r"0\.jsonl"):
        scale_out.read_shard(shard, names)
    if harm != "other":
        with pytest.raises(DataError, match=r"0\.jsonl"):
            scale_out.append_shard(io.BytesIO(), shard, len(names))


def test_shards_are_merged_as_they_are(tmp_path):
    """A name with "error" in it is no failure."""
    scale_out.write_shard(tmp_path / "0", ['x "error": .jpg'], [outcome('x "error": .jpg', 0)])
    scale_out.write_shard(tmp_path / "1", ["b.jpg"], [PoseResult("b.jpg", error="b.jpg is no image.")])
    merged = io.BytesIO()
    assert scale_out.append_shard(merged, tmp_path / "0", 1) == []
    assert scale_out.append_shard(merged, tmp_path / "1", 1) == ["b.jpg is no image."]
    assert merged.getvalue() == (tmp_path / "0").read_bytes() + (tmp_path / "1").read_bytes()
    with pytest.raises(DataError, match="cannot be read"):
        scale_out.append_shard(merged, tmp_path / "2", 1)


def test_a_list_of_images(tmp_path):
    (tmp_path / "list.txt").write_text(f"a b.jpg\n\n  sub/c.jpg\n{tmp_path / 'd.jpg'}\n")
    assert list(scale_out.read_list(tmp_path / "list.txt")) == [tmp_path / n for n in ("a b.jpg", "sub/c.jpg", "d.jpg")]
    with pytest.raises(DataError, match=r"gone\.txt"):
        list(scale_out.read_list(tmp_path / "gone.txt"))


def test_without_ray_there_is_one_line_with_the_command(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
    for words in (["eval", "--devices", "0,1"], ["infer", "x.jpg", "--devices", "0", "--out", "x.jsonl"]):
        assert cli.main(words) == 1
        told = capsys.readouterr()
        assert told.err == f"error: Work on several devices needs Ray: {scale_out.INSTALL}\n"
        assert not told.out
    with pytest.raises(DataError, match="requirements-scale"):
        Fleet(Setup("onnxruntime", "x"))


@pytest.mark.parametrize(
    "words",
    [
        ["eval", "--ray-address", "auto"],
        ["infer", "x.jpg", "--out", "x.jsonl"],
    ],
)
def test_arguments_that_need_devices(capsys, words):
    assert cli.main(words) == 2
    assert "--devices" in capsys.readouterr().err


def test_requirements_name_the_package_that_is_needed():
    lines = (paths.root() / "requirements-scale.txt").read_text().splitlines()
    assert {line.split("==")[0] for line in lines if line and not line.startswith("#")} == {"ray"}


# ---------------------------------------------------------------------------------------------- with Ray


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.fixture
def files(tmp_path) -> list[str]:
    """Six demo pictures, and one that is none."""
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    dataset = CocoDataset(paths.demo_data())
    names = [str(dataset.path(image_id)) for image_id in dataset.sample(6)]
    return [*names[:2], str(tmp_path / "bad.jpg"), *names[2:]]


@has_ray
def test_two_workers_find_what_one_process_does(demo_built, demo_engine, files, tmp_path):
    """Also what they leave: no process, no file."""
    alone = PoseEstimator(demo_engine)
    with Fleet(Setup("onnxruntime", demo_built), [0, 1], folder=tmp_path / "work") as fleet:
        for batch_size in (1, 2):
            assert fleet.window(batch_size) == alone.window(batch_size)
            assert_same(list(fleet.stream(files, batch_size)), list(alone.stream(files, batch_size)))
        count, failures = fleet.save(iter(files), tmp_path / "poses.jsonl")
        dataset = CocoDataset(paths.demo_data())
        image_ids = dataset.sample(6)
        many, one = (evaluate.run(each, dataset, image_ids) for each in (fleet, alone))
        pids, rows = fleet.processes(), fleet.table()
    assert many.stats == one.stats
    assert (count, len(failures)) == (7, 1)
    lines = [json.loads(line) for line in (tmp_path / "poses.jsonl").read_text().splitlines()]
    assert [line["image"] for line in lines] == files
    assert "bad.jpg" in failures[0] == lines[2]["error"]
    assert sum(row["images"] for row in rows) == 3 * 7 + 6
    assert all(row["images"] and row["workers lost"] == 0 for row in rows)
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids.values())
    assert list((tmp_path / "work").iterdir()) == []


@has_ray
def test_lost_workers_lose_no_image(tmp_path, capfd):
    """Killed while they work; then the stream is left early, and the next one is whole again."""
    names = [f"{k}.jpg" for k in range(200)]
    with Fleet(StubSetup("stub", "x", seconds=0.01), [0, 1], folder=tmp_path) as fleet:
        found = []
        for k, each in enumerate(fleet.stream(names)):
            found.append(each.name)
            if k in (20, 90):
                os.kill(next(iter(fleet.processes().values())), signal.SIGKILL)
        assert found == names
        assert sum(row["workers lost"] for row in fleet.table()) == 2
        next(fleet.stream(names))
        assert [each.name for each in fleet.stream(names[:50])] == names[:50]
    assert capfd.readouterr() == ("", "")


@has_ray
def test_images_that_end_every_worker_are_named(tmp_path):
    with Fleet(StubSetup("stub", "x"), [0], folder=tmp_path) as fleet, pytest.raises(DataError, match=POISON):
        list(fleet.stream(["a", POISON, "b"]))
    assert list(tmp_path.iterdir()) == []


@has_ray
def test_an_engine_that_cannot_be_loaded_is_told_as_it_is(tmp_path):
    with pytest.raises(DataError, match=r"^the card is on fire$"), Fleet(
        StubSetup("stub", "x", fault="the card is on fire")
    ):
        pass
    with pytest.raises(UsageError, match="no device 4096"), Fleet(Setup("onnxruntime", "x"), [4096], folder=tmp_path):
        pass


@has_ray
def test_a_slow_consumer_holds_the_workers_back(tmp_path):
    taken = itertools.count()
    with Fleet(StubSetup("stub", "x"), [0], folder=tmp_path) as fleet:
        endless = fleet.stream(f"{next(taken)}" for _ in itertools.repeat(None))
        next(endless)
        time.sleep(2)
        [folder] = tmp_path.iterdir()
        assert len(list(folder.iterdir())) <= scale_out._AHEAD
        endless.close()
    assert next(taken) <= scale_out._MOST_IMAGES * (scale_out._SHARE + scale_out._AHEAD) + 1


@has_ray
def test_a_cluster_that_is_joined_goes_on(tmp_path):
    """With a token, as Ray wants it; joined twice by a process of its own, since Ray reads the token once."""
    scratch = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    ray = str(Path(sys.executable).with_name("ray"))
    options = f"--num-cpus=2 --port=0 --include-dashboard=false --object-store-memory=100000000 --temp-dir={scratch}"
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = {**os.environ, **token, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(paths.root())}
    code = (
        "import sys\nfrom helpers.scale_out import Fleet\nfrom tests.scale.stub import StubSetup\n"
        "for _ in range(2):\n"
        f"    with Fleet(StubSetup('stub', 'x'), [0, 1], sys.argv[1], {str(tmp_path)!r}) as fleet:\n"
        "        print(*(each.name for each in fleet.stream('abc')))\n"
    )
    head = subprocess.Popen(
        [ray, "start", "--head", "--block", *options.split()],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        address = next(line.split("'")[1] for line in head.stdout if "--address=" in line)
        done = subprocess.run(
            [sys.executable, "-c", code, address], env=environment, capture_output=True, text=True, timeout=120
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "a b c\na b c\n", "")
        assert head.poll() is None
    finally:
        head.terminate()
        head.wait(60)
        shutil.rmtree(scratch, ignore_errors=True)


@has_ray
def test_nobody_to_join(tmp_path):
    with pytest.raises(DataError, match=r"127\.0\.0\.1:1"), Fleet(StubSetup("stub", "x"), [0], "127.0.0.1:1", tmp_path):
        pass


@has_ray
def test_interrupted_everything_stops(tmp_path):
    """Ctrl-C as a terminal sends it, to all processes of the group."""
    code = (
        "import sys, time\nfrom helpers.scale_out import Fleet\nfrom tests.scale.stub import StubSetup\n"
        f"with Fleet(StubSetup('stub', 'x', seconds=0.05), [0], folder={str(tmp_path)!r}) as fleet:\n"
        "    for outcome in fleet.stream(map(str, range(10**6))):\n"
        "        print(*fleet.processes().values(), flush=True)\n"
    )
    before = set(Path("/tmp").glob("ray-*"))
    environment = {**os.environ, "PYTHONPATH": str(paths.root())}
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        start_new_session=True,
    )  # fmt: skip
    pid = int(child.stdout.readline())
    os.killpg(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert err.strip().splitlines()[-1] == "KeyboardInterrupt"
    assert not alive(pid)
    assert list(tmp_path.iterdir()) == []
    assert set(Path("/tmp").glob("ray-*")) <= before
