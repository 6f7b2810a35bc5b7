"""Skeletons on pixels: painted where the people are, and only what is sure."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.dataset import GroundTruth
from helpers.pose.decode import Poses
from helpers.show import draw


def standing(x: float = 100, y: float = 40, score: float = 0.9) -> Poses:
    grid = np.stack([x + 20 * (np.arange(17) % 3), y + 12 * np.arange(17), np.full(17, score)], axis=1)
    return Poses(grid[None].astype(np.float32), np.float32([score]), np.float32([[1.0]]))


@pytest.fixture
def image():
    return np.full((300, 240, 3), 200, np.uint8)


def test_paints_a_copy_where_the_keypoints_are(image):
    painted = draw.draw_poses(image, standing())
    assert (image == 200).all(), "the input stays as it was"
    changed = (painted != 200).any(axis=2)
    for x, y, _ in standing().keypoints[0]:
        assert changed[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2].all()
    assert not changed[:, 180:].any()
    assert not changed[:20].any()


def test_leaves_out_faint_people_and_faint_or_broken_keypoints(image):
    assert (draw.draw_poses(image, standing(score=0.05)) == 200).all()
    poses = standing()
    poses.keypoints[0, :, 2] = 0
    poses.keypoints[0, 5] = [np.nan, np.inf, 0.9]
    assert (draw.draw_poses(image, poses) == 200).all()


def test_annotated_people_show_what_is_labelled(image):
    points = standing().keypoints.astype(float)
    points[..., 2] = 0
    points[0, 0, 2] = 2
    people = GroundTruth(points, np.zeros((1, 4)), np.ones(1))
    changed = (draw.draw_poses(image, people) != 200).any(axis=2)
    x, y = points[0, 0, :2].astype(int)
    assert changed[y, x]
    assert not changed[y + 20 :].any()


def test_far_away_keypoints_do_not_crash(image):
    poses = standing()
    poses.keypoints[0, 3, :2] = [1e9, -1e9]
    assert draw.draw_poses(image, poses).shape == image.shape


def test_people_have_colors_of_their_own_and_the_right_side_is_darker(image):
    pairs = zip(*((each.keypoints, each.scores, each.tags) for each in (standing(40), standing(160))))
    painted = draw.draw_poses(image, Poses(*map(np.concatenate, pairs))).astype(int)
    left_eye, right_eye = standing(40).keypoints[0, 1, :2].astype(int), standing(40).keypoints[0, 2, :2].astype(int)
    other = standing(160).keypoints[0, 1, :2].astype(int)
    assert painted[right_eye[1], right_eye[0]].sum() < painted[left_eye[1], left_eye[0]].sum()
    assert (painted[left_eye[1], left_eye[0]] != painted[other[1], other[0]]).any()


def test_unsure_keypoints_are_hollow(image):
    poses = standing(score=0.9)
    poses.keypoints[0, :, 2] = draw.SURE - 0.05
    x, y = poses.keypoints[0, 0, :2].astype(int)
    faint, sure = draw.draw_poses(image, poses), draw.draw_poses(image, standing())
    assert faint[y, x].min() > 240 > sure[y, x].min()


def test_small_images_are_enlarged_with_their_people():
    """A pixel's middle stays its middle."""
    image = np.zeros((160, 320, 3), np.uint8)
    image[40, 80] = 255
    poses = standing(80, 40)
    big, [scaled] = draw.enlarged(image, poses)
    assert big.shape == (640, 1280, 3)
    brightest = np.unravel_index(big[..., 0].argmax(), big.shape[:2])
    assert scaled.keypoints[0, 0, 1::-1] == pytest.approx(brightest, abs=1)
    assert poses.keypoints[0, 0, 0] == 80, "the input stays as it was"
