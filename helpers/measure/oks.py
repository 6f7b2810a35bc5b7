"""Who is who between two sets of poses of one image: found and annotated, or of two precisions.

match(poses, dataset.people(image_id))      # which pose is whose, by the rule that COCO counts hits with
compare_poses(float32_poses, int8_poses)    # how far people moved; no annotation needed
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Sequence

import numpy as np

from helpers.dataset import GroundTruth
from helpers.keypoints import COCO17

if TYPE_CHECKING:
    from helpers.pose.decode import Poses

_HIT = 0.5  # least OKS of a pose and the person it belongs to
_SURE, _SURE_PERSON = 0.1, 0.2  # scores of keypoints and people whose changes count
_SMALLEST = 32.0**2  # square pixels: COCO's keypoints are of people from this size on


def oks(predicted: np.ndarray, truth: np.ndarray, area: np.ndarray | float) -> np.ndarray:
    """Returns the object keypoint similarity: 1 for a perfect pose, near 0 for somebody else's, NaN without labels.

    The mean over labeled keypoints of exp(-d^2 / (2 area (2 sigma)^2)), as `COCOeval.computeOks`: 0.61 when each is
    off by twice the annotators' own spread. Leading dimensions broadcast: (P, 1, 17, 3) with (G, 17, 3) gives (P, G).

    Args:
        predicted: (..., 17, 2 or more) x, y in pixels.
        truth: (..., 17, 3) x, y in pixels and visibility, of which 0 means not labeled.
        area: (...) square pixels of the annotated people.
    """
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    squared = ((predicted[..., :2] - truth[..., :2]) ** 2).sum(axis=-1)
    spread = 2 * (2 * np.array(COCO17.sigmas)) ** 2 * (np.asarray(area, np.float64)[..., None] + np.spacing(1))
    labeled = truth[..., 2] > 0
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing is labeled
        return (np.exp(-squared / spread) * labeled).sum(axis=-1) / labeled.sum(axis=-1)


@dataclass(frozen=True)
class Matches:
    """Who is who between found and annotated people of one image."""

    truth: np.ndarray  # (P,) int64: index of the annotated person each pose belongs to; -1 for a false one
    oks: np.ndarray  # (P,) float64: how well it fits; NaN for a false one


def match(poses: Poses, people: GroundTruth) -> Matches:
    """Gives each pose, best score first, the free person it fits best, as COCO counts hits (`COCOeval.evaluateImg`)."""
    found = Matches(truth=np.full(len(poses), -1), oks=np.full(len(poses), np.nan))
    if not len(people):
        return found
    similarity = np.nan_to_num(oks(poses.keypoints[:, None], people.keypoints, people.area), nan=-1.0)
    for index in np.argsort(-poses.scores, kind="stable"):
        best = int(np.argmax(similarity[index]))
        if similarity[index, best] >= _HIT:
            found.truth[index], found.oks[index] = best, similarity[index, best]
            similarity[:, best] = -1.0
    return found


@dataclass(frozen=True)
class PoseChanges:
    """How far poses moved from those of a reference, person by person of the reference."""

    partner: np.ndarray  # (P,) int64: index of the same person among the other poses; -1 if they were lost
    oks: np.ndarray  # (P,) float64: similarity to the reference's pose; 0 for the lost
    pixels: np.ndarray  # (P,) float64: mean distance of the sure keypoints; NaN for the lost


def compare_poses(reference: Poses, other: Poses) -> PoseChanges:
    """Compares two decodings of one image; the sure keypoints of `reference` stand for the ground truth."""
    sure = reference.keypoints[..., 2] > _SURE
    keypoints = np.dstack([reference.keypoints[..., :2], 2 * sure]).astype(np.float64)
    boxes = [np.ptp(points[seen, :2], axis=0) if seen.any() else (0, 0) for points, seen in zip(keypoints, sure)]
    # Keypoints on one line, or a single one, span no area; without a least one, any move would lose the person.
    area = np.array([max(width * height, _SMALLEST) for width, height in boxes])
    people = GroundTruth(keypoints, np.zeros((len(area), 4)), area)
    found = match(other, people)
    partner = np.full(len(reference), -1)
    partner[found.truth[found.truth >= 0]] = np.flatnonzero(found.truth >= 0)
    similarity, pixels = np.zeros(len(reference)), np.full(len(reference), np.nan)
    for person in np.flatnonzero(partner >= 0):
        similarity[person] = found.oks[partner[person]]
        away = other.keypoints[partner[person], :, :2] - reference.keypoints[person, :, :2]
        pixels[person] = np.linalg.norm(away[sure[person]], axis=1).mean()
    return PoseChanges(partner, similarity, pixels)


def rank_by_change(reference: Sequence[Poses], other: Sequence[Poses]) -> list[int]:
    """Returns the indices of images by how far poses strayed from a reference, farthest first.

    That is the mean OKS over the sure people of the reference, the lost count 0; where nobody was, nothing strayed.
    """
    kept = []
    for mine, yours in zip(reference, other):
        sure = mine.scores >= _SURE_PERSON
        kept.append(float(compare_poses(mine, yours).oks[sure].mean()) if sure.any() else 1.0)
    return [int(index) for index in np.argsort(kept, kind="stable")]
