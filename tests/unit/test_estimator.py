"""Images to poses with the shipped images and weights: mixed sizes, batches, faults, static engines."""

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
from helpers.measure.oks import match
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
    """Not a statistic: on an image in which four people stand apart, each is found where the annotation has it."""
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


def test_order_is_that_of_the_input(estimator, dataset):
    files = some(dataset, 6)
    assert [o.name for o in estimator.stream(files, batch_size=4)] == [str(f) for f in files]
    assert [len(p) for p in estimator(files[::-1], batch_size=4)] == [len(p) for p in estimator(files)][::-1]


def test_an_image_that_cannot_be_read_does_not_stop_the_others(estimator, dataset, tmp_path):
    good = some(dataset, 2)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(good[0].read_bytes()[:2000])
    results = list(estimator.stream([good[0], cut, tmp_path / "missing.jpg", good[1]], batch_size=2))
    assert [o.poses is not None for o in results] == [True, False, False, True]
    assert "cut.jpg" in results[1].error
    assert "missing.jpg" in results[2].error
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
        for result in estimator.stream(some(dataset, 2), batch_size):
            assert set(result.stage_ms) == set(STAGES)
            assert all(ms > 0 for ms in result.stage_ms.values())


def test_nothing_in_nothing_out(estimator):
    assert estimator([]) == []


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_size_must_be_positive(estimator, batch_size):
    with pytest.raises(UsageError, match="batch size"):
        estimator([np.zeros((64, 64, 3), np.uint8)], batch_size)


def test_an_array_that_is_not_an_image_is_refused(estimator):
    with pytest.raises(UsageError, match="uint8"):
        estimator([np.zeros((64, 64), np.uint8)])


def test_a_static_engine_fills_up_its_last_batch(tiny, models):
    backend = backends.get("onnxruntime")
    spec = BuildSpec(batch_size=2, dynamic_shape=False, input_shape=(128, 128))
    static = PoseEstimator(backend.load(backend.build(tiny, spec)), input_size=128)
    free = PoseEstimator(backend.load(backend.build(tiny, BuildSpec())), input_size=128)
    images = list(np.random.default_rng(0).integers(0, 255, (3, 100, 100, 3), dtype=np.uint8))
    for image, output in zip(images, (static.maps(image)[0] for image in images)):
        np.testing.assert_allclose(output, free.maps(image)[0], atol=1e-4)
    assert [len(p) for p in static(images)] == [len(p) for p in free(images)], "its batch, whatever was asked for"


def test_a_static_engine_names_the_image_it_cannot_take(tiny, models):
    backend = backends.get("onnxruntime")
    spec = BuildSpec(dynamic_shape=False, input_shape=(128, 128))
    static = PoseEstimator(backend.load(backend.build(tiny, spec)), input_size=128)
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


def gray(count: int) -> list[np.ndarray]:
    return [np.full((100, 100 + 40 * (k % 3), 3), 100 + k % 100, np.uint8) for k in range(count)]


def pose_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("pose-")}


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_slow_consumer_holds_the_images_back(small, batch_size):
    """However long the caller takes over an image, only so many are fetched ahead of it; the source may be endless."""
    taken = itertools.count()
    source = ((next(taken), image)[1] for image in itertools.cycle(gray(5)))
    results = small.stream(source, batch_size)
    for yielded in range(1, 15):
        next(results)
        time.sleep(0.02)
        ahead = next(taken)
        taken = itertools.count(ahead)
        assert ahead - yielded <= 12 * batch_size
    results.close()


def test_stages_overlap(small, monkeypatch):
    """With 50 ms in the engine and 50 ms in the decoder, ten images do not take a second."""

    def run(batch):
        time.sleep(0.05)
        return np.zeros((len(batch), 34, batch.shape[2] // 4, batch.shape[3] // 4), np.float32)

    def decode_poses(*args):
        time.sleep(0.05)
        return decode.decode_poses(*args)

    monkeypatch.setattr(small.engine, "run", run)
    monkeypatch.setattr("helpers.pose.estimator.decode_poses", decode_poses)
    start = time.perf_counter()
    results = list(small.stream(gray(1) * 10))
    took_ms = 1e3 * (time.perf_counter() - start)
    work_ms = sum(sum(result.stage_ms.values()) for result in results)
    assert work_ms > 1000
    assert took_ms < 0.8 * work_ms


def test_leaving_early_ends_the_threads(small):
    before = pose_threads()
    for _ in small.stream(itertools.cycle(gray(3)), batch_size=2):
        break
    results = small.stream(itertools.cycle(gray(3)))
    next(results)
    assert pose_threads() > before
    results.close()
    assert pose_threads() == before


def test_an_error_in_a_stage_comes_up_once_with_the_images_name(small, monkeypatch):
    images = gray(6)
    images[3] = np.zeros((10, 10), np.uint8)  # not an image
    results = small.stream(images, batch_size=2)
    assert [next(results).name for _ in range(3)] == ["image 0", "image 1", "image 2"]
    with pytest.raises(UsageError, match=r"^image 3: An image must be"):
        next(results)
    assert list(results) == [], "and then it is over"
    monkeypatch.setattr("helpers.pose.estimator.decode_poses", lambda *_: 1 / 0)
    with pytest.raises(RuntimeError, match=r"^image 0: division by zero \(ZeroDivisionError\)$"):
        small(gray(2))
    monkeypatch.setattr(small.engine, "run", lambda batch: 1 / 0)
    with pytest.raises(RuntimeError, match=r"^image 0: division by zero"):
        small(gray(2))
    assert not pose_threads()


def test_an_error_of_the_source_comes_through(small):
    def source():
        yield from gray(2)
        raise KeyError("the list is over")

    with pytest.raises(KeyError, match="the list is over"):
        small(source())


def test_output_that_is_not_a_number_names_the_image(small, monkeypatch):
    run = small.engine.run

    def spoilt(batch):
        output = run(batch)
        output[0, 20, 3, 3] = np.nan
        return output

    images = gray(2)
    monkeypatch.setattr(small.engine, "run", spoilt)
    results = list(small.stream(images[:1] * 2, batch_size=2))
    assert "image 0: output holds NaN or infinity in channel 20, the tag map of left_ear" in results[0].error
    assert results[1].poses is not None, "its neighbour in the batch"


def test_an_image_and_its_flipped_one_share_a_run(small, monkeypatch):
    runs = []
    run = small.engine.run
    monkeypatch.setattr(small.engine, "run", lambda batch: runs.append(batch) or run(batch))
    ramp = np.repeat(np.arange(100, dtype=np.uint8)[None, :, None], 100, axis=0).repeat(3, axis=2)
    small([ramp] * 5, batch_size=2)
    assert [len(batch) for batch in runs] == [4, 4, 2]
    for batch in runs:
        image, flipped = np.split(batch, 2)
        np.testing.assert_array_equal(flipped, image[..., ::-1])
        assert not np.array_equal(flipped, image)
    monkeypatch.setattr(small.engine, "max_batch", 3)
    small(gray(1) * 2, batch_size=2)
    assert [len(batch) for batch in runs[3:]] == [3, 1], "no run exceeds what the engine takes"


def test_compiling_waits_for_the_first_image(demo_engine, monkeypatch):
    """A constructor starts no thread."""
    calls = []
    monkeypatch.setattr(decode, "warm_up", lambda: calls.append("compiled"))
    estimator = PoseEstimator(demo_engine, input_size=64)
    estimator.maps(gray(1)[0])
    assert calls == []
    estimator(gray(1))
    estimator(gray(1))
    assert calls == ["compiled"]


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
