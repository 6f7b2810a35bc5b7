"""The three networks: where each comes from, and its published accuracy. A table, no logic."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Mapping

from helpers.errors import UsageError, did_you_mean

INPUT_SIZE = 512  # pixels of the input's short side, for which all three were trained
PUBLISHED_IMAGES = 5000  # on which accuracy was published: all of COCO val2017
TOLERANCE = 0.3  # points of AP by which a reproduction may differ from the published figure

PRECISIONS = (
    "force_float32",
    "force_float16",
    "qint8_mixed_float16",
    "qint8_mixed_float32",
    "qint16_mixed_float16",
    "qint16_mixed_float32",
)


@dataclass(frozen=True)
class Accuracy:
    """A published result in percent on COCO val2017: 5000 images, batch 1, flip test, variable height and width."""

    ap: float
    ar: float


@dataclass(frozen=True)
class Network:
    """One network of MMPose 0.x's bottom-up zoo."""

    name: str
    config: str  # file inside the mmpose wheel
    checkpoint_url: str
    sha256_prefix: str  # of the checkpoint, which its publishers put into its name
    published: Mapping[str, Accuracy]  # by precision, on an MLU370 in the sample that this project re-implements


_CHECKPOINTS = "https://download.openmmlab.com/mmpose/bottom_up"

NETWORKS = {
    network.name: network
    for network in (
        Network(
            name="HRNet",
            config="hrnet_w32_coco_512x512.py",
            checkpoint_url=f"{_CHECKPOINTS}/hrnet_w32_coco_512x512-bcb8c247_20200816.pth",
            sha256_prefix="bcb8c247",
            published={
                "force_float32": Accuracy(65.42, 70.99),
                "force_float16": Accuracy(65.37, 70.95),
                "qint8_mixed_float16": Accuracy(62.49, 68.65),
            },
        ),
        Network(
            name="ResNet50",
            config="res50_coco_512x512.py",
            checkpoint_url=f"{_CHECKPOINTS}/res50_coco_512x512-5521bead_20200816.pth",
            sha256_prefix="5521bead",
            published={
                "force_float32": Accuracy(46.78, 55.30),
                "force_float16": Accuracy(46.60, 55.30),
                "qint8_mixed_float16": Accuracy(45.61, 54.21),
            },
        ),
        Network(
            name="MobileNetv2",
            config="mobilenetv2_coco_512x512.py",
            checkpoint_url=f"{_CHECKPOINTS}/mobilenetv2_coco_512x512-4d96e309_20200816.pth",
            sha256_prefix="4d96e309",
            published={
                "force_float32": Accuracy(38.13, 47.40),
                "force_float16": Accuracy(37.98, 47.29),
                "qint8_mixed_float16": Accuracy(37.83, 47.34),
            },
        ),
    )
}


def get(name: str) -> Network:
    """Returns the network of that name, written as in `NETWORKS`."""
    if name not in NETWORKS:
        raise UsageError(f"There is no model {name!r}; {did_you_mean(name, NETWORKS)}.")
    return NETWORKS[name]


def default_name() -> str:
    """Returns the network to use when none is asked for: that of the variable `MMPOSE_MODEL_NAME`, else MobileNetv2."""
    name = os.environ.get("MMPOSE_MODEL_NAME") or "MobileNetv2"
    if name not in NETWORKS:
        raise UsageError(f"MMPOSE_MODEL_NAME is {name!r}, which is not a model; {did_you_mean(name, NETWORKS)}.")
    return name
