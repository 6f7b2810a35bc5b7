"""MMPose 0.29.0's own chain from an image file to poses, one image at a time: the baseline.

    chain = MMPoseChain("MobileNetv2", "demo")
    found = chain("people.jpg")                         # found.keypoints (P, 17, 3), found.scores, found.stage_ms

Notebook 4 and the parity tests compare our modules with it; nothing in `helpers` knows it.
"""

from __future__ import annotations

import functools
import importlib
import sys
import time
import types
import warnings
from dataclasses import dataclass
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any, Mapping, Sequence

import numpy as np

from helpers import zoo
from helpers.export import network
from helpers.keypoints import COCO17

if TYPE_CHECKING:
    import os

    import torch


@dataclass(frozen=True)
class Found:
    """What MMPose found on one image."""

    keypoints: np.ndarray  # (P, 17, 3) float32: x, y in pixels of the image, keypoint score
    scores: np.ndarray  # (P,) float32: person score
    stage_ms: Mapping[str, float]  # for each of `helpers.pose.estimator.STAGES`


class MMPoseChain:
    """MMPose's test pipeline and its `AssociativeEmbedding`, as its official configuration sets them up.

    Only the clock is ours. Its `Collect` and data loader, which pack and unpack the same arrays, are left out: to its
    favor. Takes model and weights as `network.load`.
    """

    def __init__(self, model: str = "MobileNetv2", weights: str = "demo") -> None:
        make_importable()
        from mmpose.datasets.pipelines import Compose
        from mmpose.models import build_posenet

        config = network.official_config(model)
        self._load, *steps, _collect = (Compose([step]) for step in config.data.test.pipeline)
        self._prepare = Compose(steps)
        config.model.pretrained = None  # it would be downloaded, and then overwritten
        self._detector = build_posenet(config.model).eval()
        self._detector.load_state_dict(network.load(model, weights).state_dict())
        self._detector.backbone.register_forward_pre_hook(self._start)
        self._detector.keypoint_head.register_forward_hook(self._stop)

    def __call__(self, path: str | os.PathLike[str]) -> Found:
        """Finds the people on one image, with the flip test."""
        import torch

        self._network_s = 0.0
        clock = [time.perf_counter()]
        sizes = {"image_size": np.array([zoo.INPUT_SIZE] * 2), "flip_index": list(COCO17.flip_index)}
        results = self._load({"image_file": str(path), "ann_info": sizes})
        clock.append(time.perf_counter())
        results = self._prepare(results)
        clock.append(time.perf_counter())
        image = torch.from_numpy(results["img"])[None]  # of which forward_test takes the device and the batch size
        with torch.no_grad():
            found = self._detector.forward_test(image, [{**results["ann_info"], "image_file": str(path)}])
        clock.append(time.perf_counter())
        load, pre, rest = np.diff(clock)
        seconds = {"load": load, "pre": pre, "infer": self._network_s, "decode": rest - self._network_s}
        stage_ms = {stage: 1e3 * float(value) for stage, value in seconds.items()}
        return Found(*_as_arrays(found["preds"], found["scores"]), stage_ms)

    def _start(self, *_: object) -> None:
        self._network_s -= time.perf_counter()

    def _stop(self, *_: object) -> None:
        self._network_s += time.perf_counter()


def mmpose_decode(
    output: np.ndarray, flipped: np.ndarray | None, transform: Any, **changes: object
) -> tuple[np.ndarray, np.ndarray]:
    """Does what `AssociativeEmbedding.forward_test` does after the network; returns (P, 17, 3) and (P,) float32.

    Outputs are (34, h, w) float32 of an image and of the flipped image (None: no flip test), `transform` is a
    `helpers.pose.preprocess.ResizeTransform` or the like, and `changes` are of the official `test_cfg`.
    """
    make_importable()
    import torch
    from mmpose.core.evaluation import bottom_up_eval as steps
    from mmpose.core.post_processing.group import HeatmapParser

    config = {**_official_test_cfg(), **changes}

    def split(array: np.ndarray) -> tuple[Any, Any]:
        outputs = [torch.from_numpy(np.ascontiguousarray(array))[None]]
        return steps.split_ae_outputs(outputs, len(COCO17), config["with_heatmaps"], config["with_ae"], [0])

    heat, tags = split(output)
    flipped_heat = flipped_tags = None
    if flipped is not None:
        index = list(COCO17.flip_index)
        flipped_heat, flipped_tags = (steps.flip_feature_maps(maps, flip_index=index) for maps in split(flipped))
    where = {"project2image": True, "size_projected": transform.base_size, "align_corners": False}
    heat = steps.aggregate_stage_flip(heat, flipped_heat, aggregate_stage="average", aggregate_flip="average", **where)
    tags = steps.aggregate_stage_flip(tags, flipped_tags, aggregate_stage="concat", aggregate_flip="concat", **where)
    heat = steps.aggregate_scale(heat, align_corners=False, aggregate_scale="average")
    tags = steps.aggregate_scale(tags, align_corners=False, aggregate_scale="unsqueeze_concat")
    grouped, scores = HeatmapParser(config).parse(heat, tags, config["adjust"], config["refine"])
    people = steps.get_group_preds(grouped, transform.center, transform.scale, [heat.size(3), heat.size(2)])
    return _as_arrays(people, scores)


def _as_arrays(people: Sequence[np.ndarray], scores: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Turns MMPose's lists of people and scores into (P, 17, 3) and (P,) float32."""
    keypoints = [person[:, :3] for person in people]
    return np.array(keypoints, np.float32).reshape(-1, 17, 3), np.array(scores, np.float32)


@functools.lru_cache(maxsize=None)
def _official_test_cfg() -> dict[str, Any]:
    """Returns the decoder's settings, the same for all networks."""
    return dict(network.official_config("HRNet").model.test_cfg)


@functools.lru_cache(maxsize=None)
def make_importable() -> None:
    """Lets all of mmpose 0.29.0 and mmcv 1.7.0 be imported, without notices about their age, from now on.

    Both ask for torchvision and xtcocotools, which are not installed (the reasons are in requirements-mmpose.txt).
    torchvision's modules are empty here but for `normalize`; pycocotools is what xtcocotools was forked from.
    """
    functional = _module("torchvision.transforms.functional", normalize=normalize)
    transforms = _module("torchvision.transforms", functional=functional)
    torchvision = [_module("torchvision", transforms=transforms), transforms, functional]
    names = ("pycocotools", "pycocotools.coco", "pycocotools.cocoeval", "pycocotools.mask")
    xtcocotools = {f"xt{name[2:]}": importlib.import_module(name) for name in names}
    for package in ({module.__name__: module for module in torchvision}, xtcocotools):
        if PathFinder.find_spec(next(iter(package))) is None:
            for name, module in package.items():
                sys.modules.setdefault(name, module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mmcv 1.x and mmpose 0.x announce their successors
        import mmpose.datasets.pipelines
        import mmpose.models  # noqa: F401


def normalize(tensor: torch.Tensor, mean: Sequence[float], std: Sequence[float], inplace: bool) -> torch.Tensor:
    """Does what torchvision's function of that name does, as MMPose asks for it: (C, H, W) float32, in place."""
    import torch

    means, stds = (torch.tensor(each, dtype=tensor.dtype).view(-1, 1, 1) for each in (mean, std))
    return tensor.sub_(means).div_(stds)


def _module(name: str, **content: object) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__version__ = "0.0.0"  # mmcv asks whether it is below 0.13
    module.__path__ = []
    vars(module).update(content)
    return module
