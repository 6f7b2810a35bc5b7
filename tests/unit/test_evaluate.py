"""The ten numbers where the answer is known, the results file, the journal."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.dataset import CocoDataset
from helpers.errors import DataError, UsageError
from helpers.measure import evaluate as evaluation
from helpers.measure import machine
from helpers.measure.evaluate import STAT_NAMES, Journal, evaluate, fingerprint, resampled_ap, run
from helpers.pose.decode import DecodeConfig, Poses
from helpers.pose.estimator import STAGES, PoseEstimator, PoseResult
from tests.unit.conftest import write_coco

NOBODY = np.zeros((0, 17, 3))


def poses(keypoints, scores=None) -> Poses:
    """Poses with keypoint scores of 0.9 and, unless given, person scores of 0.8."""
    keypoints = np.array(keypoints, np.float32).reshape(-1, 17, 3)
    keypoints[..., 2] = 0.9
    scores = np.full(len(keypoints), 0.8) if scores is None else scores
    return Poses(keypoints, np.asarray(scores, np.float32), np.zeros((len(keypoints), 2), np.float32))


@pytest.fixture
def dataset(coco_root) -> CocoDataset:
    return CocoDataset(coco_root)


@pytest.fixture
def perfect(dataset) -> dict[int, Poses]:
    """What a flawless network would find."""
    return {image_id: poses(dataset.people(image_id).keypoints) for image_id in dataset.image_ids}


def test_perfect_poses_score_one(dataset, perfect, capsys):
    stats = evaluate(perfect, dataset, dataset.image_ids)
    assert stats.numbers == dict.fromkeys(STAT_NAMES, pytest.approx(1.0))
    assert list(stats.numbers) == [
        f"A{letter}{which}" for letter in "PR" for which in ("", " .5", " .75", " (M)", " (L)")
    ]
    assert (stats.images, stats.people, stats.detections, stats.dataset_images) == (4, 3, 3, 4)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("nobody", [{}, {3: poses(NOBODY), 7: poses(NOBODY)}], ids=["absent", "empty"])
def test_nobody_found_is_zero(dataset, nobody):
    stats = evaluate(nobody, dataset, dataset.image_ids)
    assert stats.numbers == dict.fromkeys(STAT_NAMES, 0.0)
    assert stats.detections == 0 and stats.people == 3


def test_nobody_to_find_is_not_measured(dataset, perfect):
    assert set(evaluate({}, dataset, [7]).numbers.values()) == {None}
    assert set(evaluate({7: perfect[3]}, dataset, [7, 10]).numbers.values()) == {None}
    medium_only = evaluate(perfect, dataset, [25, 7]).numbers
    assert medium_only["AP (M)"] == pytest.approx(1.0) and medium_only["AR (M)"] == pytest.approx(1.0)
    assert medium_only["AP (L)"] is None and medium_only["AR (L)"] is None


def test_only_images_that_were_run_count(dataset, perfect):
    assert evaluate(perfect, dataset, [3]).numbers["AR"] == pytest.approx(1.0)
    lost = evaluate({3: perfect[3]}, dataset, [3, 25]).numbers  # 25 was run and its person not found
    assert lost["AR"] == pytest.approx(2 / 3)
    assert lost["AR (L)"] == pytest.approx(1.0) and lost["AR (M)"] == 0.0


def test_poses_on_an_image_without_people_are_mistakes(dataset, perfect):
    false_alarm = {**perfect, 7: poses(dataset.people(3).keypoints, scores=[0.95, 0.9])}
    scored = evaluate(false_alarm, dataset, dataset.image_ids)
    assert scored.numbers["AR"] == pytest.approx(1.0)
    assert scored.numbers["AP"] == pytest.approx(3 / 5)  # precision at full recall, and it only rises towards it
    without_seven = evaluate(false_alarm, dataset, [3, 10, 25])
    assert without_seven.numbers["AP"] == pytest.approx(1.0)


def test_scope_and_text_say_how_many(dataset, perfect):
    stats = evaluate(perfect, dataset, [25, 3, 3])
    assert stats.scope == "2 of 4 images, 3 people"
    lines = str(evaluate(perfect, dataset, [25])).splitlines()
    assert lines[0] == "AP      1.0000" and lines[4] == "AP (L)  -"
    assert lines[-1] == "(1 of 4 images, 1 people)" and len(lines) == 11


def test_wrong_image_ids(dataset, perfect):
    with pytest.raises(UsageError, match="no image to score"):
        evaluate(perfect, dataset, [])
    with pytest.raises(UsageError, match="no image 4 "):
        evaluate(perfect, dataset, [3, 4])


def test_results_follow_cocos_format(dataset, perfect, tmp_path):
    path = evaluation.save_results(tmp_path / "results.json", evaluation.to_coco_results(perfect, dataset.category_id))
    results = json.loads(path.read_text())
    assert [result["image_id"] for result in results] == [3, 3, 25]
    assert set(results[0]) == {"image_id", "category_id", "keypoints", "score", "bbox"}
    assert results[0]["score"] == float(np.float32(0.8)) and results[0]["category_id"] == 1
    assert len(results[0]["keypoints"]) == 51 and results[0]["keypoints"][2] == float(np.float32(0.9))
    x, y = perfect[3].keypoints[0, :, 0], perfect[3].keypoints[0, :, 1]
    assert results[0]["bbox"] == pytest.approx([x.min(), y.min(), x.max() - x.min(), y.max() - y.min()])


def test_people_without_a_positive_keypoint_are_left_out(perfect):
    pair = perfect[3]
    pair.keypoints[0, :, 2] = 0
    assert [result["image_id"] for result in evaluation.to_coco_results({3: pair})] == [3]


def shaken(dataset: CocoDataset, pixels: float) -> dict[int, Poses]:
    """Annotated people, each keypoint off by so much, some of them twice."""
    rng = np.random.default_rng(1)
    found = {}
    for image_id in dataset.image_ids:
        points = np.concatenate([dataset.people(image_id).keypoints] * 2)
        points[..., :2] += rng.normal(0, pixels, points[..., :2].shape)
        found[image_id] = poses(points, rng.uniform(0.1, 1, len(points)))
    return found


def test_resampled_ap_is_the_ap_of_images_that_occur_again(dataset, tmp_path):
    """Round by round what `evaluate` says of a dataset in which the drawn images stand as often as they were drawn."""
    found, rounds = shaken(dataset, 4), 6
    ap = resampled_ap({"a": found}, dataset, dataset.image_ids, rounds)["a"]
    drawn = np.random.default_rng(0).integers(0, len(dataset), (rounds, len(dataset)))
    document = json.loads(dataset.annotation_file.read_text())
    for k, row in enumerate(drawn):
        ids = [dataset.image_ids[place] for place in row]
        annotations = [
            {key: value for key, value in {**entry, "image_id": place}.items() if key != "id"}
            for place, image_id in enumerate(ids)
            for entry in document["annotations"]
            if entry["image_id"] == image_id
        ]
        root = tmp_path / str(k)
        write_coco(root, {place: f"{place}.jpg" for place in range(len(ids))}, annotations)
        again = CocoDataset(root)
        wanted = evaluate({place: found[i] for place, i in enumerate(ids)}, again, again.image_ids).numbers["AP"]
        assert np.isnan(ap[k]) if wanted is None else ap[k] == pytest.approx(wanted)
    assert len({round(value, 6) for value in ap}) > 2


def test_runs_are_resampled_alike(dataset, perfect):
    found = shaken(dataset, 4)
    ap = resampled_ap({"a": found, "b": dict(found), "best": perfect}, dataset, dataset.image_ids, 20)
    np.testing.assert_array_equal(ap["a"], ap["b"])
    assert ap["best"][~np.isnan(ap["best"])] == pytest.approx(1.0)
    with pytest.raises(UsageError, match="no image to score"):
        resampled_ap({"a": found}, dataset, [])


# -- the journal

DECIDES = {"model": "M", "weights": "w", "backend": "b", "precision": "p", "images": [3, 7, 10, 25]}
TIMES = {stage: 0.1 + k for k, stage in enumerate(STAGES)}


def random_poses(seed: int, people: int, levels: int = 2) -> Poses:
    """Numbers of every size that float32 has."""
    generator = np.random.default_rng(seed)
    bits = generator.integers(0, 2**32, (people, 17 * 3 + 1 + levels), np.uint32)
    bits &= 0xFF7FFFFF  # neither infinity nor NaN
    values = bits.view(np.float32)
    return Poses(values[:, :51].reshape(-1, 17, 3), values[:, 51], values[:, 52:])


def write(folder, dataset: CocoDataset, *image_ids: int, decides=DECIDES, **options) -> Journal:
    """A journal of random poses, as a stopped run leaves it."""
    with Journal(folder, decides, **options) as journal:
        for image_id in image_ids:
            journal.add(image_id, dataset.path(image_id), PoseResult("x", random_poses(image_id, 2), stage_ms=TIMES))
    return journal


def read(folder, dataset: CocoDataset, decides=DECIDES, **options) -> dict[int, PoseResult]:
    with Journal(folder, decides, **options) as journal:
        return journal.results(dataset)


def assert_same(found: Poses, wanted: Poses) -> None:
    for field in dataclasses.fields(Poses):
        a, b = (np.ascontiguousarray(getattr(each, field.name)) for each in (found, wanted))
        assert (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())


def test_every_bit_comes_back(dataset, tmp_path):
    wanted = {3: (0, 40), 7: (1, 0), 10: (2, 1, 1), 25: (3, 0, 1)}
    wanted = {image_id: random_poses(*arguments) for image_id, arguments in wanted.items()}
    with Journal(tmp_path, DECIDES) as journal:
        for image_id, found in wanted.items():
            journal.add(image_id, dataset.path(image_id), PoseResult("x", found, stage_ms=TIMES))
    results = read(tmp_path, dataset)
    assert list(results) == list(wanted)
    for image_id, result in results.items():
        assert_same(result.poses, wanted[image_id])
        assert result.stage_ms == TIMES


@pytest.mark.parametrize("cut", [1, 100, 2000])
def test_a_torn_last_line_is_dropped(dataset, tmp_path, cut):
    path = write(tmp_path, dataset, 3).path
    whole = path.read_bytes()
    write(tmp_path, dataset, 7)
    path.write_bytes(path.read_bytes()[:-cut])
    assert list(read(tmp_path, dataset)) == [3]
    assert path.read_bytes() == whole
    write(tmp_path, dataset, 7)
    assert list(read(tmp_path, dataset)) == [3, 7]


def test_damaged_lines_do_not_count(dataset, tmp_path):
    path = write(tmp_path, dataset, 3, 7, 10).path
    lines = path.read_bytes().split(b"\n")
    lines[1], lines[2] = b"\x00" * 50, b'{"image_id": 7}'
    path.write_bytes(b"\n".join(lines))
    assert list(read(tmp_path, dataset)) == [10]


def test_an_image_that_changed_runs_again(dataset, tmp_path):
    write(tmp_path, dataset, 3, 7)
    dataset.path(7).write_bytes(b"another image")
    assert list(read(tmp_path, dataset)) == [3]
    dataset.path(3).unlink()
    assert list(read(tmp_path, dataset)) == []


def test_finished_begins_anew_unless_asked(dataset, tmp_path):
    write(tmp_path, dataset, 3).finish()
    with Journal(tmp_path, DECIDES, resume=True) as again:
        assert again.finished
        assert list(again.results(dataset)) == [3]
    assert read(tmp_path, dataset) == {}
    assert read(tmp_path, dataset, resume=True) == {}, "it was begun anew"
    write(tmp_path, dataset, 3)
    assert read(tmp_path, dataset, fresh=True) == read(tmp_path, dataset) == {}, "what a stopped run left, too"


def test_other_runs_have_files_of_their_own(dataset, tmp_path):
    mine = write(tmp_path, dataset, 3)
    other = {**DECIDES, "images": [3]}
    assert read(tmp_path, dataset, other) == {}
    assert len(list(tmp_path.glob("M_w_b_p_*.jsonl"))) == 2
    Journal(tmp_path, other).path.replace(mine.path)
    before = mine.path.read_bytes()
    with pytest.raises(DataError, match=rf"{mine.path.name} is not of this run; remove it, or give --fresh"):
        read(tmp_path, dataset)
    assert mine.path.read_bytes() == before
    read(tmp_path, dataset, fresh=True)
    assert read(tmp_path, dataset) == {}


def test_two_do_not_write_one_journal(dataset, tmp_path):
    """The second would cut off the line that the first is writing."""
    with Journal(tmp_path, DECIDES) as first:
        with pytest.raises(DataError, match=r"\.jsonl is in use: the same evaluation is running; wait for it, or stop"):
            read(tmp_path, dataset, fresh=True)
        first.add(3, dataset.path(3), PoseResult("x", random_poses(3, 2), stage_ms=TIMES))
    assert list(read(tmp_path, dataset)) == [3]


@pytest.fixture
def estimator(demo_engine):
    return PoseEstimator(demo_engine, flip_test=False, input_size=128)


def test_everything_that_decides_the_numbers_is_told_apart(demo_engine, dataset, estimator):
    ids = dataset.image_ids
    usual = fingerprint(demo_engine, estimator, dataset, ids)
    assert json.loads(json.dumps(usual)) == usual
    newer, rebuilt = ({**demo_engine.facts, key: "0"} for key in ("backend_version", "sha256"))
    others = [
        *(fingerprint(SimpleNamespace(facts=facts), estimator, dataset, ids) for facts in (newer, rebuilt)),
        fingerprint(demo_engine, PoseEstimator(demo_engine, True, 128), dataset, ids),
        fingerprint(demo_engine, PoseEstimator(demo_engine, False, 64), dataset, ids),
        fingerprint(demo_engine, PoseEstimator(demo_engine, False, 128, DecodeConfig(refine=False)), dataset, ids),
        fingerprint(demo_engine, estimator, dataset, ids[:-1]),
        fingerprint(demo_engine, estimator, dataset, ids, batch_size=2),
    ]
    document = json.loads(dataset.annotation_file.read_text())
    document["annotations"][0]["area"] += 1
    dataset.annotation_file.write_text(json.dumps(document))
    others.append(fingerprint(demo_engine, estimator, CocoDataset(dataset.root), ids))
    assert all(usual != other for other in others)
    assert len({json.dumps(each) for each in others}) == len(others)


def test_packages_that_do_not_matter_are_no_part_of_the_fingerprint(demo_engine, dataset, estimator, monkeypatch):
    """Upgrading OpenVINO leaves half a run of ONNX Runtime as it is; of NumPy, it does not."""
    usual = fingerprint(demo_engine, estimator, dataset, [3])
    for package, matters in (("openvino", False), ("torch", False), ("onnxruntime", True), ("numpy", True)):
        with monkeypatch.context() as patch:
            patch.setattr(evaluation, "versions", lambda upgraded=package: {**machine.versions(), upgraded: "99"})
            assert (fingerprint(demo_engine, estimator, dataset, [3]) != usual) == matters, package
            torch = SimpleNamespace(facts={**demo_engine.facts, "backend": "pytorch"})
            theirs = fingerprint(torch, estimator, dataset, [3])["versions"]
            assert (theirs.get("torch") == "99") == (package == "torch")


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_run_goes_on_where_it_stopped(demo_engine, estimator, dataset, tmp_path, monkeypatch, batch_size):
    """Ctrl-C after the third image; the four of the folder are one window of batches of two, which run again."""
    ids = dataset.image_ids
    decides = fingerprint(demo_engine, estimator, dataset, ids, batch_size)
    wanted = run(estimator, dataset, ids, batch_size)
    assert wanted.taken_up == ""

    def stop(done: int, _count: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(estimator, dataset, ids, batch_size, stop, Journal(tmp_path, decides))
    assert len(read(tmp_path, dataset, decides)) == 3
    kept, seen, steps = Journal(tmp_path, decides), [], []
    stream = estimator.stream
    monkeypatch.setattr(estimator, "stream", lambda paths, size: stream((seen.append(p) or p for p in paths), size))
    done = run(estimator, dataset, ids, batch_size, lambda *at: steps.append(at), kept)
    assert len(seen) == (1 if batch_size == 1 else 4)
    assert done.taken_up == ("3 of 4 images from an earlier run that stopped" if batch_size == 1 else "")
    assert steps == ([(3, 4), (4, 4)] if batch_size == 1 else [(k, 4) for k in (1, 2, 3, 4)])
    assert done.stats == wanted.stats
    assert list(done.poses) == list(wanted.poses)
    for image_id in ids:
        assert_same(done.poses[image_id], wanted.poses[image_id])

    kept.finish()
    del seen[:]
    again = run(estimator, dataset, ids, batch_size, journal=Journal(tmp_path, decides, resume=True))
    assert seen == []
    assert again.summary().splitlines()[1] == "4 of 4 images from an earlier run that finished"
    assert again.stats == wanted.stats
