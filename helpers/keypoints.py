"""Sets of keypoints as data: names, flip pairs, skeleton, sigmas and grouping order, each written once.

    COCO17.names[0], len(COCO17)       # "nose", 17
    flipped = keypoints[:, COCO17.flip_index]

Another set of keypoints, of a hand say, would be another value here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class KeypointSet:
    """What decoding, drawing and evaluation need to know about a dataset's keypoints.

    Attributes:
        names: in the order of the network's heatmaps.
        flip_pairs: indices of the left and the right keypoint of a kind, which a horizontal flip exchanges.
        skeleton: bones to draw, pairs of indices.
        sigmas: (K,) float64: how far apart careful annotators put a keypoint, relative to the person's size; for OKS.
        grouping_order: in which keypoints are assigned to people, the most reliable first.
    """

    names: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    skeleton: tuple[tuple[int, int], ...]
    sigmas: np.ndarray
    grouping_order: tuple[int, ...]

    def __len__(self) -> int:
        """Number of keypoints."""
        return len(self.names)

    @property
    def flip_index(self) -> tuple[int, ...]:
        """Index, for each keypoint, of the one in its place in the flipped image."""
        exchanged = {**dict(self.flip_pairs), **{right: left for left, right in self.flip_pairs}}
        return tuple(exchanged.get(index, index) for index in range(len(self)))


COCO17 = KeypointSet(
    names=(
        *("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
        *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
        *("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
    ),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    # COCO's own file counts from 1.
    skeleton=(
        *((15, 13), (13, 11), (16, 14), (14, 12)),  # legs
        *((11, 12), (5, 11), (6, 12), (5, 6)),  # trunk
        *((5, 7), (6, 8), (7, 9), (8, 10)),  # arms
        *((1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),  # head, and ears to shoulders
    ),
    # As measured by the authors of COCO, and as in `pycocotools.cocoeval.Params`.
    sigmas=np.array(
        [
            *(0.026, 0.025, 0.025, 0.035, 0.035),  # nose, eyes, ears
            *(0.079, 0.079, 0.072, 0.072, 0.062, 0.062),  # shoulders, elbows, wrists
            *(0.107, 0.107, 0.087, 0.087, 0.089, 0.089),  # hips, knees, ankles
        ]
    ),
    # As in MMPose's `HeatmapParser`: head and trunk before limbs.
    grouping_order=(0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13, 14, 15, 16),
)
