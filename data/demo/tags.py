"""Measures whether a network's tags keep people apart: AP hides it, a look at the skeletons does not.

    python data/demo/tags.py --model MobileNetv2                       # the shipped weights, val2017 and hard2017
    python data/demo/tags.py --weights data/train/MobileNetv2.ckpt     # the average in a checkpoint of train.py

Decoding fills in the keypoints that a person lacks from the likeliest place on the whole map, whoever's it is. Where
the tags of two people are alike, that place is on the other one, and the skeleton gets a bone across the image.

* absurd: share of images with at least one absurd bone, drawn longer than four medians of that person's drawn
  bones and than a quarter of the image's short side. Drawn are people with a score of at least 0.2, and their
  keypoints with a score above 0.1.
* separation: share of pairs of annotated people of an image whose mean tags, read off the tag maps at the labelled
  keypoints, are further apart than the grouping threshold (Euclidean distance; two tags with the flip test).
* spread: root mean square distance of a labelled keypoint's tag from its person's mean.
* drawn: people drawn for each annotated one.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Sequence

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from helpers.dataset import CocoDataset, GroundTruth
from helpers.images import read_image
from helpers.keypoints import COCO17
from helpers.measure import evaluate
from helpers.pose.decode import OFFICIAL, Poses, align_maps, decode_poses, warm_up

if TYPE_CHECKING:
    from helpers.pose.estimator import PoseEstimator

HERE = Path(__file__).resolve().parent
PERSON_SCORE, KEYPOINT_SCORE = 0.2, 0.1
BONES = np.array(COCO17.skeleton)


def absurd_bones(poses: Poses, size: tuple[int, int]) -> np.ndarray:
    """Which people are drawn with an absurd bone: (P,) bool; `size` is the image's (width, height)."""
    found = np.zeros(len(poses), bool)
    for k, (points, score) in enumerate(zip(poses.keypoints, poses.scores)):
        if score < PERSON_SCORE:
            continue
        drawn = (points[BONES, 2] > KEYPOINT_SCORE).all(1)
        if drawn.any():
            lengths = np.linalg.norm(np.diff(points[BONES[drawn], :2], axis=1)[:, 0], axis=1)
            found[k] = ((lengths > 4 * np.median(lengths)) & (lengths > min(size) / 4)).any()
    return found


def person_tags(tagmaps: np.ndarray, keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean tag of each annotated person, and how far its keypoints' tags are from it.

    Args:
        tagmaps: (S, 17, h, w) float32.
        keypoints: (P, 17, 3), x and y in samples of the maps, visibility.

    Returns:
        (P, S) means and (P,) mean squared distances.
    """
    height, width = tagmaps.shape[2:]
    labelled = keypoints[..., 2] > 0
    column = np.clip(np.rint(keypoints[..., 0]), 0, width - 1).astype(int)
    row = np.clip(np.rint(keypoints[..., 1]), 0, height - 1).astype(int)
    values = tagmaps[:, np.arange(17), row, column]  # (S, P, 17)
    count = np.maximum(labelled.sum(1), 1)
    mean = (values * labelled).sum(2) / count
    spread = (((values - mean[..., None]) ** 2).sum(0) * labelled).sum(1) / count
    return mean.T, spread


@dataclass
class Tally:
    """What was seen of a number of images.

    Attributes:
        absurd: per image, whether a person has an absurd bone.
        people: per image, how many are annotated.
        drawn: people drawn in all.
        gaps: distances between the mean tags of the pairs.
        spreads: per annotated person, mean squared distance of its keypoints' tags from their mean.
        poses: image id -> decoded people.
    """

    absurd: list[bool] = field(default_factory=list)
    people: list[int] = field(default_factory=list)
    drawn: int = 0
    gaps: list[float] = field(default_factory=list)
    spreads: list[float] = field(default_factory=list)
    poses: dict[int, Poses] = field(default_factory=dict)

    def separation(self, threshold: float = OFFICIAL.tag_threshold) -> float:
        """Share of the pairs that are further apart than `threshold`."""
        return float(np.mean(np.array(self.gaps) > threshold)) if self.gaps else float("nan")

    def absurd_share(self, least_people: int = 0) -> float:
        """Share of the images with at least so many annotated people that hold an absurd bone."""
        chosen = np.array(self.people) >= least_people
        return float(np.array(self.absurd)[chosen].mean()) if chosen.any() else float("nan")

    def __str__(self) -> str:
        """All figures in one line."""
        crowded = sum(p >= 3 for p in self.people)
        return (
            f"absurd {self.absurd_share():.3f} of {len(self.absurd)} images, {self.absurd_share(3):.3f} of {crowded} "
            f"with 3 people or more; separation {self.separation():.3f} of {len(self.gaps)} pairs; "
            f"spread {np.sqrt(np.mean(self.spreads)):.2f}; drawn {self.drawn / max(sum(self.people), 1):.3f} per person"
        )


def measure(estimator: PoseEstimator, dataset: CocoDataset, image_ids: Sequence[int]) -> Tally:
    """Run the estimator's network over images of a dataset and look at tags and skeletons."""
    tally = Tally()
    warm_up()
    for image_id in image_ids:
        image = read_image(dataset.path(image_id))
        output, flipped, transform = estimator.maps(image)
        poses = decode_poses(output, flipped, transform, estimator.config)
        people: GroundTruth = dataset.people(image_id)
        tally.poses[image_id] = poses
        tally.absurd.append(bool(absurd_bones(poses, dataset.size(image_id)).any()))
        tally.people.append(len(people))
        tally.drawn += int((poses.scores >= PERSON_SCORE).sum())
        if not len(people):
            continue
        points = people.keypoints.astype(np.float64)
        points[..., :2] = points[..., :2] @ transform.matrix[:, :2].T + transform.matrix[:, 2]
        points[..., :2] = points[..., :2] / 4 - 0.5  # sample q stands for pixel 4 q + 2
        means, spreads = person_tags(align_maps(output, flipped).tagmaps, points)
        gaps = np.linalg.norm(means[:, None] - means[None], axis=2)
        tally.gaps += gaps[np.triu_indices(len(people), 1)].tolist()
        tally.spreads += spreads.tolist()
    return tally


def main() -> int:
    """Print one line per split."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="MobileNetv2")
    parser.add_argument("--weights", default="demo", help="demo, a weights file, or a checkpoint of train.py")
    parser.add_argument("--data", type=Path, default=HERE, help="folder in COCO's shape")
    parser.add_argument("--splits", nargs="+", default=["val2017", "hard2017"])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    import torch

    from helpers.backends.pytorch import engine_of
    from helpers.export import network
    from helpers.pose.estimator import PoseEstimator

    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    if args.weights.endswith(".ckpt"):
        net = network.build(args.model)
        average = torch.load(args.weights, weights_only=True)["average"]
        net.load_state_dict({k[4:]: v for k, v in average.items() if k.startswith("net.")})
        net.eval()
    else:
        net = network.load(args.model, args.weights)
    estimator = PoseEstimator(engine_of(net))
    for split in args.splits:
        dataset = CocoDataset(args.data, split)
        tally = measure(estimator, dataset, dataset.image_ids)
        ap = evaluate.evaluate(tally.poses, dataset, dataset.image_ids).numbers["AP"]
        print(f"{split}: AP {ap:.4f}; {tally}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
