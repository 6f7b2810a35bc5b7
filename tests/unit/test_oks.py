"""OKS and matching as in pycocotools; how far poses moved."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from helpers.dataset import CocoDataset, GroundTruth
from helpers.keypoints import COCO17
from helpers.measure.oks import compare_poses, match, oks, rank_by_change
from helpers.pose.decode import Poses
from tests.unit.test_evaluate import NOBODY, poses


@pytest.fixture
def dataset(coco_root) -> CocoDataset:
    return CocoDataset(coco_root)


def random_people(generator, count: int) -> GroundTruth:
    keypoints = np.dstack([generator.uniform(0, 200, (count, 17, 2)), generator.integers(0, 3, (count, 17))])
    keypoints[:, 0, 2] = 2  # somebody with a labeled keypoint, as CocoDataset gives them
    return GroundTruth(keypoints, np.tile([0.0, 0, 200, 200], (count, 1)), generator.uniform(500, 30000, count))


def coco_scorer(found: Poses, people: GroundTruth) -> COCOeval:
    """pycocotools' own evaluation of one image, after its matching step."""
    same = {"image_id": 1, "category_id": 1}
    true = zip(people.keypoints, people.bbox, people.area)
    same_truth = {**same, "iscrowd": 0, "num_keypoints": 17}
    annotations = [
        {**same_truth, "id": i, "keypoints": keypoints.ravel(), "bbox": bbox, "area": area}
        for i, (keypoints, bbox, area) in enumerate(true, start=1)
    ]
    detected = [
        {**same, "id": i, "area": 5000.0, "keypoints": keypoints.ravel(), "score": score}
        for i, (keypoints, score) in enumerate(zip(found.keypoints, found.scores), start=1)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        scorer = COCOeval(as_coco(annotations), as_coco(detected), "keypoints")
        scorer.evaluate()
    return scorer


def as_coco(annotations: list[dict]) -> COCO:
    coco = COCO()
    coco.dataset = {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": annotations}
    coco.createIndex()
    return coco


def test_oks_equals_pycocotools():
    generator = np.random.default_rng(1)
    people = random_people(generator, 5)
    near = people.keypoints[[0, 1, 2, 3, 4, 0, 2]] + generator.normal(0, 8, (7, 17, 3))
    found = poses(near, scores=np.linspace(0.9, 0.2, 7))  # best first, the order of pycocotools' rows
    expected = coco_scorer(found, people).ious[1, 1]
    np.testing.assert_allclose(oks(found.keypoints[:, None], people.keypoints, people.area), expected, rtol=1e-12)


def test_oks_of_known_distances():
    truth = np.full((3, 17, 3), 2.0)
    truth[1, 5:, 2] = 0  # five keypoints labeled
    truth[2, :, 2] = 0
    area = np.array([100.0, 400.0, 100.0])
    shifted = truth.copy()
    shifted[..., 0] += 2 * np.array(COCO17.sigmas) * np.sqrt(area)[:, None]
    shifted[1, 5:, :2] = 1e6  # not labeled, so it does not matter where
    similarity = oks(shifted, truth, area)
    np.testing.assert_allclose(similarity[:2], np.exp(-0.5))
    assert np.isnan(similarity[2])
    np.testing.assert_allclose(oks(truth[0], truth[0], 100.0), 1.0)


@pytest.mark.parametrize("seed", range(20))
def test_match_equals_pycocotools(seed):
    generator = np.random.default_rng(seed)
    people = random_people(generator, 6)
    chosen = generator.integers(0, 6, 9)
    noise = generator.normal(0, 1, (9, 17, 3)) * generator.uniform(1, 25, (9, 1, 1))
    found = poses(people.keypoints[chosen] + noise, scores=generator.permutation(np.linspace(0.1, 0.9, 9)))
    matches = match(found, people)
    theirs = coco_scorer(found, people).evalImgs[0]  # the first is of all sizes; its first row is OKS 0.5
    expected = np.full(9, -1)
    expected[np.array(theirs["dtIds"]) - 1] = theirs["dtMatches"][0].astype(int) - 1
    np.testing.assert_array_equal(matches.truth, expected)
    assert (matches.truth >= 0).any() and (matches.truth < 0).any()
    assert (matches.oks[matches.truth >= 0] >= 0.5).all() and np.isnan(matches.oks[matches.truth < 0]).all()


def test_match_with_nobody():
    people = random_people(np.random.default_rng(0), 2)
    assert len(match(poses(NOBODY), people).truth) == 0
    nobody = random_people(np.random.default_rng(0), 0)
    assert match(poses(people.keypoints), nobody).truth.tolist() == [-1, -1]


def people_apart(dataset: CocoDataset) -> Poses:
    return poses(dataset.people(3).keypoints, [0.9, 0.5])


def test_shift_finds_the_same_people_in_another_order(dataset):
    reference = people_apart(dataset)
    points = reference.keypoints[::-1].copy()
    points[0, :, 0] += 3
    points[0, :, 1] += 4
    moved = compare_poses(reference, poses(points, [0.4, 0.8]))
    assert moved.partner.tolist() == [1, 0]
    np.testing.assert_allclose(moved.pixels, [0, 5], atol=1e-5)
    assert moved.oks[0] == pytest.approx(1)
    assert 0.5 < moved.oks[1] < 1


def test_shift_of_somebody_who_got_lost(dataset):
    reference = people_apart(dataset)
    moved = compare_poses(reference, poses(reference.keypoints[:1], [0.9]))
    assert moved.partner.tolist() == [0, -1]
    assert moved.oks.tolist() == [pytest.approx(1), 0]
    assert np.isnan(moved.pixels).tolist() == [False, True]
    assert len(compare_poses(poses(NOBODY), reference).oks) == 0


@pytest.mark.parametrize("sure", [range(17), [0]], ids=["a line", "one keypoint"])
def test_people_without_a_box_are_not_lost(dataset, sure):
    """Keypoints on one line, or a single one, span no area to measure errors against."""
    reference = people_apart(dataset)
    reference.keypoints[..., 0] = [[50], [200]]
    reference.keypoints[..., 2] = 0
    reference.keypoints[:, list(sure), 2] = 0.9
    near, far = (poses(reference.keypoints + np.array([pixels, 0, 0]), reference.scores) for pixels in (0.5, 100))
    moved = compare_poses(reference, near)
    assert moved.partner.tolist() == [0, 1]
    assert (moved.oks > 0.9).all()
    np.testing.assert_allclose(moved.pixels, 0.5, atol=1e-5)
    assert compare_poses(reference, far).partner.tolist() == [-1, -1]


def test_somebody_without_sure_keypoints_keeps_nobody_else_from_being_found(dataset):
    reference = people_apart(dataset)
    reference.keypoints[0, :, 2] = 0.05
    assert compare_poses(reference, people_apart(dataset)).partner.tolist() == [-1, 1]


def test_the_image_that_suffers_most(dataset):
    reference = people_apart(dataset)
    near, far = (poses(reference.keypoints + np.array([pixels, 0, 0]), reference.scores) for pixels in (1, 8))
    assert rank_by_change([reference] * 3, [near, far, reference]) == [1, 0, 2]
    assert rank_by_change([reference, poses(NOBODY)], [poses(NOBODY), reference]) == [0, 1], "the lost count 0"
    faint = Poses(reference.keypoints, np.full(2, 0.1, np.float32), reference.tags)
    assert rank_by_change([faint, reference], [poses(NOBODY), near]) == [1, 0], "faint people do not count"
