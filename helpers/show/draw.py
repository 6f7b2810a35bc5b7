"""Skeletons on pixels, with OpenCV alone: for a container, a folder of images, or a video.

drawn = draw_poses(image, poses)
cv2.imwrite("drawn.jpg", drawn)

One hue per person, from a palette that color-blind readers can tell apart; a person's right side is darker, and unsure
keypoints are hollow, their bones thin.
"""

from __future__ import annotations

from typing import Sequence

import cv2
import numpy as np

from helpers.dataset import GroundTruth
from helpers.keypoints import COCO17
from helpers.pose.decode import Poses

# Okabe and Ito (2008), "Color Universal Design", RGB; yellow last, it is the weakest on light ground.
PERSON_COLORS = ("#E69F00", "#56B4E9", "#CC79A7", "#009E73", "#D55E00", "#0072B2", "#F0E442")
PERSON_THRESHOLD = 0.2  # people with a lower score are not drawn
KEYPOINT_THRESHOLD = 0.1  # nor keypoints
SURE = 0.3  # keypoints of a lower score are hollow, and their bones thin
_RIGHT = 0.62  # brightness of a person's right side
_SHORT_SIDE = 640  # pixels, to which small images are enlarged before painting
_RIGHT_SIDE = [name.startswith("right_") for name in COCO17.names]


def draw_poses(
    image: np.ndarray,
    poses: Poses | GroundTruth,
    keypoint_threshold: float = KEYPOINT_THRESHOLD,
    person_threshold: float = PERSON_THRESHOLD,
    colors: Sequence[str] = PERSON_COLORS,
) -> np.ndarray:
    """Returns a drawn copy of an image, (H, W, 3) uint8 BGR, with the people and keypoints that reach the thresholds.

    Of annotated people all labeled keypoints are drawn, hidden ones as unsure. Colors are hex, one per person.
    """
    drawn = np.ascontiguousarray(image).copy()
    annotated = isinstance(poses, GroundTruth)
    for k, points in enumerate(poses.keypoints):
        if annotated or poses.scores[k] >= person_threshold:
            shown = np.isfinite(points).all(axis=1) & (points[:, 2] > (0 if annotated else keypoint_threshold))
            sure = points[:, 2] >= (2 if annotated else SURE)
            _draw_person(drawn, points, shown, sure, np.array(_bgr(colors[k % len(colors)])))
    return drawn


def confident(poses: Poses, threshold: float = PERSON_THRESHOLD) -> Poses:
    """Returns the people with at least that score; fainter ones cost little AP, as COCO ranks by score, but clutter."""
    keep = poses.scores >= threshold
    return Poses(poses.keypoints[keep], poses.scores[keep], poses.tags[keep])


def enlarged(image: np.ndarray, *groups: Poses | GroundTruth) -> tuple[np.ndarray, list[Poses | GroundTruth]]:
    """Scales a small image up to a short side of 640 pixels, and the people in it, so that drawn lines are fine."""
    scale = max(_SHORT_SIDE / min(image.shape[:2]), 1.0)
    big = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    scaled = []
    for group in groups:
        points = np.array(group.keypoints, np.float64)
        points[..., :2] = (points[..., :2] + 0.5) * scale - 0.5
        if isinstance(group, GroundTruth):
            scaled.append(GroundTruth(points, group.bbox * scale, group.area * scale**2))
        else:
            scaled.append(Poses(points, group.scores, group.tags))
    return big, scaled


def _draw_person(image: np.ndarray, points: np.ndarray, shown: np.ndarray, sure: np.ndarray, color: np.ndarray) -> None:
    """Paints one person, (17, 3) keypoints in BGR `color`; `shown` and `sure` are (17,) bool."""
    thick = max(1, round(min(image.shape[:2]) / 170))
    for a, b in COCO17.skeleton:
        if shown[a] and shown[b]:
            tone = color * (_RIGHT if _RIGHT_SIDE[a] and _RIGHT_SIDE[b] else 1)
            width = thick if sure[a] and sure[b] else max(1, thick // 3)
            _line(image, points[a], points[b], (20, 20, 20), width + 2)
            _line(image, points[a], points[b], tone, width)
    for k in np.flatnonzero(shown):
        tone = color * (_RIGHT if _RIGHT_SIDE[k] else 1)
        outer, inner = ((255, 255, 255), tone) if sure[k] else (tone, (255, 255, 255))
        _dot(image, points[k], outer, thick * 1.25 + 1)
        _dot(image, points[k], inner, thick * (1.25 if sure[k] else 0.8))


def _bgr(hex_color: str) -> tuple[int, int, int]:
    red, green, blue = (int(hex_color[k : k + 2], 16) for k in (1, 3, 5))
    return blue, green, red


def _fixed(point: np.ndarray) -> tuple[int, int]:
    """Returns OpenCV's fixed point with four binary digits; far-away points are kept in its range."""
    x, y = np.clip(np.asarray(point[:2], float), -40000, 40000) * 16
    return round(float(x)), round(float(y))


def _line(image: np.ndarray, a: np.ndarray, b: np.ndarray, color: Sequence[float], thick: int) -> None:
    cv2.line(image, _fixed(a), _fixed(b), [float(c) for c in color], thick, cv2.LINE_AA, 4)


def _dot(image: np.ndarray, point: np.ndarray, color: Sequence[float], radius: float) -> None:
    cv2.circle(image, _fixed(point), round(radius * 16), [float(c) for c in color], -1, cv2.LINE_AA, 4)
