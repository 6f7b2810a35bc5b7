"""The table of keypoints agrees with itself and with COCO."""

from __future__ import annotations

import numpy as np
from pycocotools.cocoeval import Params

from helpers.keypoints import COCO17


def test_flipping_exchanges_left_and_right():
    assert sorted(COCO17.flip_index) == list(range(len(COCO17))) == list(range(17))
    for keypoint, other in enumerate(COCO17.flip_index):
        name = COCO17.names[keypoint]
        assert COCO17.names[other] == name.replace("left", "LEFT").replace("right", "left").replace("LEFT", "right")
        assert COCO17.sigmas[keypoint] == COCO17.sigmas[other]
    bones = {frozenset(bone) for bone in COCO17.skeleton}
    assert len(bones) == len(COCO17.skeleton) == 19
    assert bones == {frozenset(COCO17.flip_index[keypoint] for keypoint in bone) for bone in bones}


def test_sigmas_are_those_of_coco():
    np.testing.assert_allclose(COCO17.sigmas, Params("keypoints").kpt_oks_sigmas, rtol=1e-15)


def test_every_keypoint_is_grouped_once():
    assert sorted(COCO17.grouping_order) == list(range(17))
