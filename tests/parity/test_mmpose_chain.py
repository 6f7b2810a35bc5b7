"""mmpose's whole chain against ours, from file to AP: what the benchmark compares finds the same people."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from helpers import paths
from helpers.backends.pytorch import engine_of
from helpers.dataset import CocoDataset
from helpers.export.mmpose_chain import MMPoseChain, normalize
from helpers.export.network import load
from helpers.measure.evaluate import evaluate
from helpers.pose.estimator import STAGES, PoseEstimator


def test_same_people_and_same_ap(parity_report):
    dataset = CocoDataset(paths.demo_data())
    image_ids = dataset.sample(8)
    files = [dataset.path(image_id) for image_id in image_ids]
    chain = MMPoseChain("MobileNetv2", "demo")
    theirs = dict(zip(image_ids, map(chain, files)))
    ours = dict(zip(image_ids, PoseEstimator(engine_of(load("MobileNetv2", "demo")))(files)))
    apart = 0.0
    for image_id in image_ids:
        their, our = theirs[image_id], ours[image_id]
        assert our.keypoints.shape == their.keypoints.shape
        apart = max(apart, np.abs(our.keypoints - their.keypoints).max(initial=0))
        np.testing.assert_allclose(our.scores, their.scores, rtol=0, atol=1e-5)
    assert apart < 1e-3
    assert sum(len(their.scores) for their in theirs.values()) >= 8
    ap = [evaluate(found, dataset, image_ids).numbers["AP"] for found in (theirs, ours)]
    parity_report.append(f"whole chain on 8 images: AP {ap[0]:.5f} (mmpose) and {ap[1]:.5f}, {apart:.1e} px apart")
    assert ap[0] > 0.5
    assert ap[1] == pytest.approx(ap[0], abs=1e-3)


def test_stages_add_up_to_the_call():
    dataset = CocoDataset(paths.demo_data())
    chain = MMPoseChain("MobileNetv2", "demo")
    start = time.perf_counter()
    found = chain(dataset.path(dataset.image_ids[0]))
    took = 1e3 * (time.perf_counter() - start)
    assert tuple(found.stage_ms) == STAGES
    assert all(ms > 0 for ms in found.stage_ms.values())
    assert 0.9 * took < sum(found.stage_ms.values()) <= took


def test_normalize_is_that_of_torchvision():
    image = torch.full((3, 4, 5), 0.5)
    done = normalize(image, [0.1, 0.2, 0.3], [1.0, 0.5, 0.1], inplace=True)
    for channel, value in enumerate((0.4, 0.6, 2.0)):
        torch.testing.assert_close(done[channel], torch.full((4, 5), value))
    assert done is image
