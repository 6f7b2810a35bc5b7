"""Many devices: arguments by themselves; with Ray, workers that are real processes and are really killed."""

from __future__ import annotations

import importlib.util
import itertools
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

from helpers import cli, infer, paths, scale_out
from helpers.dataset import CocoDataset
from helpers.errors import DataError, UsageError
from helpers.measure import evaluate
from helpers.pose.estimator import PoseEstimator, PoseResult
from helpers.scale_out import Fleet, Setup
from tests.scale.stub import POISON, StubSetup

has_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason=f"Ray is not installed: {scale_out.INSTALL}"
)


def assert_same(found: list[PoseResult], wanted: list[PoseResult]) -> None:
    assert [each.name for each in found] == [each.name for each in wanted]
    for mine, yours in zip(found, wanted):
        assert (mine.poses is None, mine.error) == (yours.poses is None, yours.error)
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
    [(200, 2, 1, 7), (5000, 8, 1, 40), (10**6, 8, 1, 64), (0, 2, 1, 1), (200, 2, 32, 32), (10**6, 1, 24, 72)],
)
def test_chunks_share_the_work_and_hold_whole_windows(images, devices, window, length):
    assert scale_out.chunk_length(images, devices, window) == length
    assert length % window == 0


def test_a_list_of_images(tmp_path):
    (tmp_path / "list.txt").write_text(f"\N{ZERO WIDTH NO-BREAK SPACE}a b.jpg\n\n  sub/c.jpg\n{tmp_path / 'd.jpg'}\n")
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
    with pytest.raises(UsageError, match="one device"):
        list(infer.run(Fleet.__new__(Fleet), infer.with_targets([Path("walk.mp4")], None), print))


def test_importing_it_leaves_the_environment_alone():
    code = (
        "import os, cv2\n"  # which sets a variable itself
        "before = dict(os.environ)\nimport helpers.scale_out\nprint(before == dict(os.environ))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.root(), capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


# ---------------------------------------------------------------------------------------------- with Ray


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.fixture
def files(tmp_path) -> list[str]:
    """Six demo images, and one that is not an image."""
    (tmp_path / "bad.jpg").write_bytes(b"not an image")
    dataset = CocoDataset(paths.demo_data())
    names = [str(dataset.path(image_id)) for image_id in dataset.sample(6)]
    return [*names[:2], str(tmp_path / "bad.jpg"), *names[2:]]


def listening() -> set[str]:
    """Addresses, in the kernel's hexadecimal, on which anything listens."""
    lines = [line.split() for file in ("tcp", "tcp6") for line in Path(f"/proc/net/{file}").read_text().splitlines()]
    return {line[1] for line in lines if line[3] == "0A"}


@has_ray
def test_two_workers_find_what_one_process_does(demo_built, demo_engine, files):
    """Also what they leave: no process, no file, no variable; and nobody could reach them from another machine."""
    alone = PoseEstimator(demo_engine)
    ports, scratch = listening(), set(Path("/tmp").glob("ray-*"))
    with Fleet(Setup("onnxruntime", demo_built), [0, 1]) as fleet:
        assert not {*scale_out._QUIET, *scale_out._LOOPBACK, "OMP_NUM_THREADS"} & set(os.environ)
        assert {port.split(":")[0][-8:] for port in listening() - ports} == {"0100007F"}
        [folder] = set(Path("/tmp").glob("ray-*")) - scratch
        assert folder.stat().st_mode & 0o77 == 0
        for batch_size in (1, 2):
            assert fleet.window(batch_size) == alone.window(batch_size)
            assert_same(list(fleet.stream(files, batch_size)), list(alone.stream(files, batch_size)))
        dataset = CocoDataset(paths.demo_data())
        image_ids = dataset.sample(6)
        many, one = (evaluate.run(each, dataset, image_ids) for each in (fleet, alone))
        pids, rows = fleet.processes(), fleet.table()
    assert many.stats == one.stats
    assert sum(row["images"] for row in rows) == 2 * 7 + 6
    assert all(row["images"] and row["workers lost"] == 0 for row in rows)
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids.values())
    assert not folder.exists()


@has_ray
def test_workers_that_fail(capfd):
    """Killed while they work, left early, ended by an image: no image is lost, and what is wrong is named."""
    names = [f"{k}.jpg" for k in range(200)]
    with Fleet(StubSetup("stub", "x", seconds=0.01), [0, 1]) as fleet:
        found = []
        victims = list(fleet.processes().values())
        for k, each in enumerate(fleet.stream(names)):
            found.append(each.name)
            if k in (20, 60):
                os.kill(victims.pop(), signal.SIGKILL)
        assert found == names
        assert [row["workers lost"] for row in fleet.table()] == [1, 1]
        next(fleet.stream(names))
        assert [each.name for each in fleet.stream(names[:50])] == names[:50]
        with pytest.raises(DataError, match=POISON):
            list(fleet.stream(["a", POISON, "b"]))
        with pytest.raises(UsageError, match="image files, not ndarray"):
            list(fleet.stream([np.zeros((4, 4, 3), np.uint8)]))
        taken = itertools.count()
        endless = fleet.stream(f"{next(taken)}" for _ in itertools.repeat(None))
        next(endless)
        time.sleep(2)  # a slow consumer holds the workers back
        endless.close()
        share = scale_out._MOST_IMAGES * (scale_out._SHARE + scale_out._AHEAD + scale_out._QUEUED)
        assert next(taken) <= 2 * share + 1
    assert capfd.readouterr() == ("", "")


@has_ray
@pytest.mark.parametrize(
    ("setup", "device", "address", "kind", "said"),
    [
        (StubSetup("stub", "x", fault="the card is on fire"), 0, None, DataError, "^the card is on fire$"),
        (Setup("onnxruntime", "x"), 4096, None, UsageError, "no device 4096"),
        (StubSetup("stub", "x"), 0, "127.0.0.1:1", DataError, r"127\.0\.0\.1:1"),
    ],
    ids=["engine", "device", "nobody to join"],
)
def test_a_fleet_that_cannot_start_is_told_as_it_is(setup, device, address, kind, said):
    with pytest.raises(kind, match=said), Fleet(setup, [device], address):
        pass


@has_ray
def test_a_cluster_that_is_joined_goes_on():
    """With a token, as Ray wants it; joined twice by a process of its own, since Ray reads the token once."""
    scratch = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    ray = str(Path(sys.executable).with_name("ray"))
    options = f"--num-cpus=2 --port=0 --include-dashboard=false --object-store-memory=100000000 --temp-dir={scratch}"
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = {**os.environ, **token, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(paths.root())}
    code = (
        "import sys\nfrom helpers.scale_out import Fleet\nfrom tests.scale.stub import StubSetup\n"
        "for _ in range(2):\n"
        "    with Fleet(StubSetup('stub', 'x'), [0, 1], sys.argv[1]) as fleet:\n"
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
def test_interrupted_everything_stops():
    """Ctrl-C as a terminal sends it, to all processes of the group."""
    code = (
        "import sys, time\nfrom helpers.scale_out import Fleet\nfrom tests.scale.stub import StubSetup\n"
        "with Fleet(StubSetup('stub', 'x', seconds=0.05), [0]) as fleet:\n"
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
    assert set(Path("/tmp").glob("ray-*")) <= before
