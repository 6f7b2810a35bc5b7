"""What a user of mmpose 0.29.0 has today: its own chain from a picture file to poses, one picture at a time.

    chain = MMPoseChain("MobileNetv2", "demo")
    found = chain("people.jpg")                         # found.keypoints (P, 17, 3), found.scores, found.stage_ms

The notebook and the tests compare our rooms with it; nothing in `helpers` knows it.
"""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping

import numpy as np
import torch

import tests.parity.stand_ins  # noqa: F401  (before mmpose)
from helpers import zoo
from helpers.export import network
from helpers.keypoints import COCO17

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # mmcv 1.x and mmpose 0.x announce their successors
    import mmpose
    from mmcv import Config
    from mmpose.core.evaluation.bottom_up_eval import (
        aggregate_scale,
        aggregate_stage_flip,
        flip_feature_maps,
        get_group_preds,
        split_ae_outputs,
    )
    from mmpose.core.post_processing.group import HeatmapParser
    from mmpose.datasets.pipelines import Compose
    from mmpose.models import build_posenet

CONFIGS = Path(mmpose.__file__).parent / ".mim/configs/body/2d_kpt_sview_rgb_img/associative_embedding/coco"


def official_config(model: str) -> Config:
    """Mmpose's own configuration of a network in the zoo."""
    return Config.fromfile(str(CONFIGS / zoo.get(model).config))


OFFICIAL_TEST_CFG = dict(official_config("HRNet").model.test_cfg)


@dataclass(frozen=True)
class Found:
    """What mmpose found on one picture.

    Attributes:
        keypoints: (P, 17, 3) float32: x, y in pixels of the picture, joint score.
        scores: (P,) float32 person score.
        stage_ms: milliseconds in each of `helpers.pose.estimator.STAGES`.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    stage_ms: Mapping[str, float]


class MMPoseChain:
    """mmpose's test pipeline and its `AssociativeEmbedding`, as its official configuration sets them up.

    Each of mmpose's steps is mmpose's own code, called as mmpose calls it; only the clock is ours. Its `Collect` and
    data loader, which pack and unpack the same arrays, are left out: to its favour.

    Args:
        model: name of a network in `zoo`.
        weights: as in `network.load`.
    """

    def __init__(self, model: str = "MobileNetv2", weights: str = "demo") -> None:
        config = official_config(model)
        self._load, *steps, _collect = (Compose([step]) for step in config.data.test.pipeline)
        self._prepare = Compose(steps)
        config.model.pretrained = None  # it would be downloaded, and then overwritten
        self._detector = build_posenet(config.model).eval()
        self._detector.load_state_dict(network.load(model, weights).state_dict())
        self._network_s = 0.0
        self._detector.backbone.register_forward_pre_hook(self._start)
        self._detector.keypoint_head.register_forward_hook(self._stop)

    def __call__(self, path: str | os.PathLike[str]) -> Found:
        """Finds the people on one picture, with the flip test."""
        clock = [time.perf_counter()]
        sizes = {"image_size": np.array([zoo.INPUT_SIZE] * 2), "flip_index": list(COCO17.flip_index)}
        results = self._load({"image_file": str(path), "ann_info": sizes})
        clock.append(time.perf_counter())
        results = self._prepare(results)
        clock.append(time.perf_counter())
        self._network_s = 0.0
        image = torch.from_numpy(results["img"])[None]  # of which forward_test takes the device and the batch size
        with torch.no_grad():
            found = self._detector.forward_test(image, [{**results["ann_info"], "image_file": str(path)}])
        clock.append(time.perf_counter())
        load, pre, rest = np.diff(clock)
        seconds = {"load": load, "pre": pre, "infer": self._network_s, "decode": rest - self._network_s}
        stage_ms = {stage: 1e3 * float(value) for stage, value in seconds.items()}
        return Found(*_as_arrays(found["preds"], found["scores"]), stage_ms)

    def _start(self, *_) -> None:
        self._network_s -= time.perf_counter()

    def _stop(self, *_) -> None:
        self._network_s += time.perf_counter()


def mmpose_decode(output, flipped, transform, **changes) -> tuple[np.ndarray, np.ndarray]:
    """What `AssociativeEmbedding.forward_test` does after the network, as a function of the network's outputs.

    Args:
        output, flipped: (34, h, w) float32 of an image and of its mirror image (None: no flip test).
        transform: with `base_size`, `center` and `scale`, as `helpers.pose.preprocess.ResizeTransform`.
        **changes: of the official `test_cfg`.

    Returns:
        (P, 17, 3) and (P,) float32.
    """
    cfg = {**OFFICIAL_TEST_CFG, **changes}
    aligned = []
    for array in (output, flipped):
        if array is None:
            aligned.append((None, None))
            continue
        outputs = [torch.from_numpy(np.ascontiguousarray(array))[None]]
        heat, tags = split_ae_outputs(outputs, 17, cfg["with_heatmaps"], cfg["with_ae"], [0])
        if array is flipped:
            heat, tags = (flip_feature_maps(maps, flip_index=list(COCO17.flip_index)) for maps in (heat, tags))
        aligned.append((heat, tags))
    (heat, tags), (flipped_heat, flipped_tags) = aligned
    where = {"project2image": True, "size_projected": transform.base_size, "align_corners": False}
    heat = aggregate_stage_flip(heat, flipped_heat, aggregate_stage="average", aggregate_flip="average", **where)
    tags = aggregate_stage_flip(tags, flipped_tags, aggregate_stage="concat", aggregate_flip="concat", **where)
    heat = aggregate_scale(heat, align_corners=False, aggregate_scale="average")
    tags = aggregate_scale(tags, align_corners=False, aggregate_scale="unsqueeze_concat")
    grouped, scores = HeatmapParser(cfg).parse(heat, tags, cfg["adjust"], cfg["refine"])
    people = get_group_preds(grouped, transform.center, transform.scale, [heat.size(3), heat.size(2)])
    return _as_arrays(people, scores)


def _as_arrays(people, scores) -> tuple[np.ndarray, np.ndarray]:
    """Lists of mmpose's people and scores -> (P, 17, 3) and (P,) float32."""
    keypoints = [person[:, :3] for person in people]
    return np.array(keypoints, np.float32).reshape(-1, 17, 3), np.array(scores, np.float32)
