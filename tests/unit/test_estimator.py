"""The whole walk on the shipped pictures and weights: mixed sizes, batches, faults, static engines."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from helpers import backends, paths
from helpers.backends import BuildSpec
from helpers.dataset import CocoDataset
from helpers.errors import DataError, UsageError
from helpers.images import read_image
from helpers.measure.evaluate import match
from helpers.pose import decode
from helpers.pose.estimator import STAGES, PoseEstimator


@pytest.fixture(scope="module")
def dataset():
    return CocoDataset(paths.demo_data())


@pytest.fixture(scope="module")
def estimator(demo_engine):
    return PoseEstimator(demo_engine)


def some(dataset, count: int) -> list:
    return [dataset.path(image_id) for image_id in dataset.sample(count, seed=3)]


def test_finds_the_annotated_people(estimator, dataset):
    """Not a statistic: on a picture in which four people stand apart, each is found where the annotation has it."""
    [poses] = estimator([dataset.path(20155)])
    found = match(poses, dataset.people(20155))
    assert {t for t in found.truth if t >= 0} == {0, 1, 2, 3}
    assert np.nanmin(found.oks) >= 0.5


def test_batches_change_nothing(estimator, dataset):
    files = some(dataset, 9)
    assert len({dataset.size(k) for k in dataset.sample(9, seed=3)}) > 3, "the sample must mix sizes"
    one_by_one, batched = estimator(files), estimator(files, batch_size=3)
    for a, b in zip(one_by_one, batched):
        assert len(a) == len(b)
        np.testing.assert_allclose(a.keypoints, b.keypoints, atol=1e-2)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)


@pytest.mark.parametrize("flip_test", [True, False])
def test_bytes_give_the_same_poses(demo_engine, demo_engine_uint8, dataset, flip_test):
    files = some(dataset, 6)
    assert len({dataset.size(k) for k in dataset.sample(6, seed=3)}) > 3, "the sample must mix sizes"
    floats, as_bytes = (PoseEstimator(e, flip_test)(files, batch_size=2) for e in (demo_engine, demo_engine_uint8))
    assert sum(len(poses) for poses in floats) > 6
    for a, b in zip(floats, as_bytes):
        assert len(a) == len(b)
        np.testing.assert_allclose(a.keypoints, b.keypoints, atol=1e-2)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)


def test_order_is_that_of_the_input(estimator, dataset):
    files = some(dataset, 6)
    assert [o.name for o in estimator.stream(files, batch_size=4)] == [str(f) for f in files]
    assert [len(p) for p in estimator(files[::-1], batch_size=4)] == [len(p) for p in estimator(files)][::-1]


def test_a_picture_that_cannot_be_read_does_not_stop_the_others(estimator, dataset, tmp_path):
    good = some(dataset, 2)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(good[0].read_bytes()[:2000])
    outcomes = list(estimator.stream([good[0], cut, tmp_path / "missing.jpg", good[1]], batch_size=2))
    assert [o.poses is not None for o in outcomes] == [True, False, False, True]
    assert "cut.jpg" in outcomes[1].error
    assert "missing.jpg" in outcomes[2].error
    with pytest.raises(DataError, match=r"cut\.jpg"):
        estimator([good[0], cut])


def test_flip_test_averages_and_costs_a_second_run(demo_engine, dataset):
    image = read_image(dataset.path(20014))
    output, flipped, _ = PoseEstimator(demo_engine).maps(image)
    alone, none, _ = PoseEstimator(demo_engine, flip_test=False).maps(image)
    assert none is None
    np.testing.assert_array_equal(output, alone)
    assert not np.allclose(output, flipped)


def test_stages_are_timed(estimator, dataset):
    for batch_size in (1, 2):
        for outcome in estimator.stream(some(dataset, 2), batch_size):
            assert set(outcome.stage_ms) == set(STAGES)
            assert all(ms > 0 for ms in outcome.stage_ms.values())


def test_nothing_in_nothing_out(estimator):
    assert estimator([]) == []


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_size_must_be_positive(estimator, batch_size):
    with pytest.raises(UsageError, match="batch size"):
        estimator([np.zeros((64, 64, 3), np.uint8)], batch_size)


def test_an_array_that_is_no_picture_is_refused(estimator):
    with pytest.raises(UsageError, match="uint8"):
        estimator([np.zeros((64, 64), np.uint8)])


def test_a_static_engine_fills_up_its_last_batch(exported, models):
    backend = backends.get("onnxruntime")
    spec = BuildSpec(batch_size=2, dynamic_shape=False, input_shape=(128, 128))
    static = PoseEstimator(backend.load(backend.build(exported[17], spec)), input_size=128)
    free = PoseEstimator(backend.load(backend.build(exported[17], BuildSpec())), input_size=128)
    images = list(np.random.default_rng(0).integers(0, 255, (3, 100, 100, 3), dtype=np.uint8))
    for image, output in zip(images, (static.maps(image)[0] for image in images)):
        np.testing.assert_allclose(output, free.maps(image)[0], atol=1e-4)
    assert [len(p) for p in static(images)] == [len(p) for p in free(images)], "its batch, whatever was asked for"


def test_a_static_engine_for_bytes_fills_up_its_last_batch(exported_uint8, models):
    backend = backends.get("onnxruntime")
    spec = BuildSpec(batch_size=2, dynamic_shape=False, input_shape=(128, 128))
    static = PoseEstimator(backend.load(backend.build(exported_uint8[17], spec)), input_size=128)
    free = PoseEstimator(backend.load(backend.build(exported_uint8[17], BuildSpec())), input_size=128)
    images = list(np.random.default_rng(0).integers(0, 255, (3, 100, 100, 3), dtype=np.uint8))
    for image in images:
        for found, wanted in zip(static.maps(image)[:2], free.maps(image)[:2]):
            np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_static_engine_names_the_picture_it_cannot_take(exported, models):
    backend = backends.get("onnxruntime")
    spec = BuildSpec(dynamic_shape=False, input_shape=(128, 128))
    static = PoseEstimator(backend.load(backend.build(exported[17], spec)), input_size=128)
    square, wide = np.zeros((100, 100, 3), np.uint8), np.zeros((100, 180, 3), np.uint8)
    first, second = static.stream([square, wide])
    assert first.poses is not None
    assert "image 1" in second.error
    assert "128 x 256" in second.error


# -- stages that overlap -------------------------------------------------------------------------------------------


@pytest.fixture
def small(demo_engine):
    """An estimator that is quick, on small inputs."""
    return PoseEstimator(demo_engine, input_size=128)


def grey(count: int) -> list[np.ndarray]:
    return [np.full((100, 100 + 40 * (k % 3), 3), 100 + k % 100, np.uint8) for k in range(count)]


def pose_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("pose-")}


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_slow_consumer_holds_the_pictures_back(small, batch_size):
    """However long the caller takes over a picture, only so many are fetched ahead of it; the source may be endless."""
    taken = itertools.count()
    source = ((next(taken), image)[1] for image in itertools.cycle(grey(5)))
    outcomes = small.stream(source, batch_size)
    for yielded in range(1, 15):
        next(outcomes)
        time.sleep(0.02)
        ahead = next(taken)
        taken = itertools.count(ahead)
        assert ahead - yielded <= 12 * batch_size
    outcomes.close()


def test_stages_overlap(small, monkeypatch):
    """With 20 ms more in the engine and 20 ms more in the decoder, ten pictures do not take 400 ms."""
    monkeypatch.setattr(small.engine, "run", slowed(small.engine.run))
    monkeypatch.setattr("helpers.pose.estimator.decode_poses", slowed(decode.decode_poses))
    images = grey(1) * 10
    list(small.stream(images[:1]))
    start = time.perf_counter()
    outcomes = list(small.stream(images))
    took_ms = 1e3 * (time.perf_counter() - start)
    work_ms = sum(sum(outcome.stage_ms.values()) for outcome in outcomes)
    assert work_ms > 400
    assert took_ms < 0.8 * work_ms


def slowed(call):
    def slow(*args):
        time.sleep(0.02)
        return call(*args)

    return slow


def test_leaving_early_ends_the_threads(small):
    before = pose_threads()
    for _ in small.stream(itertools.cycle(grey(3)), batch_size=2):
        break
    outcomes = small.stream(itertools.cycle(grey(3)))
    next(outcomes)
    assert pose_threads() > before
    outcomes.close()
    assert pose_threads() == before


def test_an_error_in_a_stage_comes_up_once_with_the_pictures_name(small, monkeypatch):
    images = grey(6)
    images[3] = np.zeros((10, 10), np.uint8)  # no picture
    outcomes = small.stream(images, batch_size=2)
    assert [next(outcomes).name for _ in range(3)] == ["image 0", "image 1", "image 2"]
    with pytest.raises(UsageError, match=r"^image 3: An image must be"):
        next(outcomes)
    assert list(outcomes) == [], "and then it is over"
    monkeypatch.setattr("helpers.pose.estimator.decode_poses", lambda *_: 1 / 0)
    with pytest.raises(RuntimeError, match=r"^image 0: division by zero \(ZeroDivisionError\)$"):
        small(grey(2))
    monkeypatch.setattr(small.engine, "run", lambda batch: 1 / 0)
    with pytest.raises(RuntimeError, match=r"^image 0: division by zero"):
        small(grey(2))
    assert not pose_threads()


def test_an_error_of_the_source_comes_through(small):
    def source():
        yield from grey(2)
        raise KeyError("the list is over")

    with pytest.raises(KeyError, match="the list is over"):
        small(source())


def test_output_that_is_no_number_names_the_picture(small, monkeypatch):
    run = small.engine.run

    def spoilt(batch):
        output = run(batch)
        output[0, 20, 3, 3] = np.nan
        return output

    images = grey(2)
    monkeypatch.setattr(small.engine, "run", spoilt)
    outcomes = list(small.stream(images[:1] * 2, batch_size=2))
    assert "image 0: output holds NaN or infinity in channel 20, the tag map of joint 3" in outcomes[0].error
    assert outcomes[1].poses is not None, "its neighbour in the batch"


def test_picture_and_mirror_image_share_a_run(small, monkeypatch):
    runs = []
    run = small.engine.run
    monkeypatch.setattr(small.engine, "run", lambda batch: runs.append(len(batch)) or run(batch))
    small(grey(1) * 5, batch_size=2)
    assert runs == [4, 4, 2]
    monkeypatch.setattr(small.engine, "max_batch", 3)
    small(grey(1) * 2, batch_size=2)
    assert runs[3:] == [3, 1], "no run exceeds what the engine takes"


INTERRUPTED = """
import itertools, sys
import numpy as np
from helpers import backends
from helpers.pose.estimator import PoseEstimator
engine = backends.get("onnxruntime").load(sys.argv[1])
try:
    for k, _ in enumerate(PoseEstimator(engine, input_size=128).stream(itertools.repeat(np.zeros((99, 99, 3), "u1")))):
        print(k, flush=True)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def test_ctrl_c_stops_cleanly(demo_built):
    command = [sys.executable, "-c", INTERRUPTED, str(demo_built)]
    process = subprocess.Popen(
        command,
        cwd=paths.root(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # `make test &` has it ignored
    )
    while process.stdout.readline().strip() != "5":
        assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert out.split()[-1] == "stopped"
    assert err == ""
    assert process.returncode == 0
