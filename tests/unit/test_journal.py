"""What a stopped evaluation leaves, and what the next one makes of it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from helpers.dataset import CocoDataset
from helpers.errors import DataError
from helpers.measure import evaluate
from helpers.measure.journal import Journal, decisive
from helpers.pose.decode import DecodeConfig, Poses
from helpers.pose.estimator import STAGES, PoseEstimator, PoseResult

DECIDES = {"model": "M", "weights": "w", "backend": "b", "precision": "p", "images": [3, 7, 10, 25]}
TIMES = {stage: 0.1 + k for k, stage in enumerate(STAGES)}


@pytest.fixture
def dataset(coco_root) -> CocoDataset:
    return CocoDataset(coco_root)


def random_poses(seed: int, people: int, levels: int = 2) -> Poses:
    """Numbers of every size that float32 has."""
    generator = np.random.default_rng(seed)
    bits = generator.integers(0, 2**32, (people, 17 * 3 + 1 + levels), np.uint32)
    bits &= 0xFF7FFFFF  # neither infinity nor NaN
    values = bits.view(np.float32)
    return Poses(values[:, :51].reshape(-1, 17, 3), values[:, 51], values[:, 52:])


def add(journal: Journal, dataset: CocoDataset, image_id: int, poses: Poses) -> None:
    journal.add(image_id, dataset.path(image_id), PoseResult("x", poses, stage_ms=TIMES))


def assert_same(found: Poses, wanted: Poses) -> None:
    for field in dataclasses.fields(Poses):
        a, b = (np.ascontiguousarray(getattr(each, field.name)) for each in (found, wanted))
        assert (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())


def test_every_bit_comes_back(dataset, tmp_path):
    wanted = {
        3: random_poses(0, 40),
        7: random_poses(1, 0),
        10: random_poses(2, 1, levels=1),
        25: random_poses(3, 0, 1),
    }
    first = Journal(tmp_path, DECIDES)
    for image_id, poses in wanted.items():
        add(first, dataset, image_id, poses)
    found = Journal(tmp_path, DECIDES).results(dataset)
    assert list(found) == list(wanted)
    for image_id, result in found.items():
        assert_same(result.poses, wanted[image_id])
        assert result.stage_ms == TIMES


@pytest.mark.parametrize("cut", [1, 100, 2000])
def test_a_torn_last_line_is_dropped(dataset, tmp_path, cut):
    first = Journal(tmp_path, DECIDES)
    add(first, dataset, 3, random_poses(0, 2))
    whole = first.path.read_bytes()
    add(first, dataset, 7, random_poses(1, 2))
    first.path.write_bytes(first.path.read_bytes()[:-cut])
    again = Journal(tmp_path, DECIDES)
    assert first.path.read_bytes() == whole
    assert list(again.results(dataset)) == [3]
    add(again, dataset, 7, random_poses(1, 2))
    assert list(Journal(tmp_path, DECIDES).results(dataset)) == [3, 7]


def test_damaged_lines_do_not_count(dataset, tmp_path):
    first = Journal(tmp_path, DECIDES)
    for image_id in (3, 7, 10):
        add(first, dataset, image_id, random_poses(image_id, 2))
    lines = first.path.read_bytes().split(b"\n")
    lines[1], lines[2] = b"\x00" * 50, b'{"image_id": 7}'
    first.path.write_bytes(b"\n".join(lines))
    assert list(Journal(tmp_path, DECIDES).results(dataset)) == [10]


def test_an_image_that_changed_runs_again(dataset, tmp_path):
    first = Journal(tmp_path, DECIDES)
    for image_id in (3, 7):
        add(first, dataset, image_id, random_poses(image_id, 2))
    dataset.path(7).write_bytes(b"another picture")
    assert list(Journal(tmp_path, DECIDES).results(dataset)) == [3]
    dataset.path(3).unlink()
    assert list(Journal(tmp_path, DECIDES).results(dataset)) == []


def test_finished_begins_anew_unless_asked(dataset, tmp_path):
    first = Journal(tmp_path, DECIDES)
    add(first, dataset, 3, random_poses(0, 2))
    assert not Journal(tmp_path, DECIDES).finished
    first.finish()
    again = Journal(tmp_path, DECIDES, resume=True)
    assert again.finished
    assert list(again.results(dataset)) == [3]
    assert Journal(tmp_path, DECIDES).results(dataset) == {}
    assert Journal(tmp_path, DECIDES, resume=True).results(dataset) == {}, "it was begun anew"


def test_fresh_forgets_what_a_stopped_run_left(dataset, tmp_path):
    add(Journal(tmp_path, DECIDES), dataset, 3, random_poses(0, 2))
    assert Journal(tmp_path, DECIDES, fresh=True).results(dataset) == {}
    assert Journal(tmp_path, DECIDES).results(dataset) == {}


def test_other_runs_have_files_of_their_own(dataset, tmp_path):
    add(Journal(tmp_path, DECIDES), dataset, 3, random_poses(0, 2))
    other = Journal(tmp_path, {**DECIDES, "images": [3]})
    assert other.results(dataset) == {}
    assert len(list(tmp_path.glob("M_w_b_p_*.jsonl"))) == 2


def test_a_file_of_another_run_under_this_name_is_refused(tmp_path):
    mine, other = Journal(tmp_path, DECIDES), Journal(tmp_path, {**DECIDES, "images": [3]})
    other.path.replace(mine.path)
    before = mine.path.read_bytes()
    with pytest.raises(DataError, match=rf"{mine.path.name} is not of this run; remove it, or give --fresh"):
        Journal(tmp_path, DECIDES)
    assert mine.path.read_bytes() == before
    Journal(tmp_path, DECIDES, fresh=True)
    Journal(tmp_path, DECIDES)


@pytest.fixture
def estimator(demo_engine):
    return PoseEstimator(demo_engine, flip_test=False, input_size=128)


def test_everything_that_decides_the_numbers_is_told_apart(demo_built, demo_engine, dataset, estimator, tmp_path):
    ids = dataset.image_ids
    usual = decisive(demo_built, estimator, dataset, ids)
    assert json.loads(json.dumps(usual)) == usual
    built = tmp_path / "built"
    built.write_bytes(b"")
    facts = json.loads(demo_built.with_name(demo_built.name + ".json").read_text())
    (tmp_path / "built.json").write_text(json.dumps({**facts, "sha256": "0"}))
    others = [
        decisive(built, estimator, dataset, ids),
        decisive(demo_built, PoseEstimator(demo_engine, True, 128), dataset, ids),
        decisive(demo_built, PoseEstimator(demo_engine, False, 64), dataset, ids),
        decisive(demo_built, PoseEstimator(demo_engine, False, 128, DecodeConfig(refine=False)), dataset, ids),
        decisive(demo_built, estimator, dataset, ids[:-1]),
        decisive(demo_built, estimator, dataset, ids, batch_size=2),
    ]
    document = json.loads(dataset.annotation_file.read_text())
    document["annotations"][0]["area"] += 1
    dataset.annotation_file.write_text(json.dumps(document))
    others.append(decisive(demo_built, estimator, CocoDataset(dataset.root), ids))
    assert all(usual != other for other in others)
    assert len({json.dumps(each) for each in others}) == len(others)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_run_goes_on_where_it_stopped(demo_built, estimator, dataset, tmp_path, monkeypatch, batch_size):
    """Ctrl-C after the third image; the four of the folder are one window of batches of two, which run again."""
    ids = dataset.image_ids
    decides = decisive(demo_built, estimator, dataset, ids, batch_size)
    wanted = evaluate.run(estimator, dataset, ids, batch_size)
    assert wanted.taken_up == ""

    def stop(done: int, _count: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate.run(estimator, dataset, ids, batch_size, stop, Journal(tmp_path, decides))
    kept, seen, steps = Journal(tmp_path, decides), [], []
    assert len(kept.results(dataset)) == 3
    stream = estimator.stream
    monkeypatch.setattr(estimator, "stream", lambda paths, size: stream((seen.append(p) or p for p in paths), size))
    run = evaluate.run(estimator, dataset, ids, batch_size, lambda *at: steps.append(at), kept)
    assert len(seen) == (1 if batch_size == 1 else 4)
    assert run.taken_up == ("3 of 4 images from an earlier run that stopped" if batch_size == 1 else "")
    assert steps == ([(3, 4), (4, 4)] if batch_size == 1 else [(k, 4) for k in (1, 2, 3, 4)])
    assert run.stats == wanted.stats
    assert list(run.poses) == list(wanted.poses)
    for image_id in ids:
        assert_same(run.poses[image_id], wanted.poses[image_id])

    kept.finish()
    del seen[:]
    again = evaluate.run(estimator, dataset, ids, batch_size, journal=Journal(tmp_path, decides, resume=True))
    assert seen == []
    assert again.summary().splitlines()[1] == "4 of 4 images from an earlier run that finished"
    assert again.stats == wanted.stats
