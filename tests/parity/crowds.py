"""Many people who never stood together: network outputs made up, and images put together, to test and time decoders."""

from __future__ import annotations

import cv2
import numpy as np

from helpers.dataset import CocoDataset
from helpers.images import read_image
from helpers.keypoints import COCO17


def outputs_of(heat: np.ndarray, tags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(2, 17, h, w) aligned heatmaps and tag maps -> the network's outputs for the image and the flipped image."""
    output, flipped = np.concatenate((heat, tags), axis=1).astype(np.float32)
    order = [*COCO17.flip_index, *(17 + keypoint for keypoint in COCO17.flip_index)]
    return output, np.ascontiguousarray(flipped[order, :, ::-1])


def add_peak(heat: np.ndarray, tags: np.ndarray, keypoint: int, y: float, x: float, tag: float, rng) -> None:
    """Adds one keypoint to (2, 17, h, w) maps: a Gaussian of sigma 2 and a round plateau of its tag."""
    rows, columns = np.mgrid[: heat.shape[2], : heat.shape[3]]
    height = rng.uniform(0.2, 1)
    for source in range(2):
        off_y, off_x = rng.normal(0, 0.15, 2)
        distance = (rows - y - off_y) ** 2 + (columns - x - off_x) ** 2
        peak = height * np.exp(-distance / 8)
        heat[source, keypoint] = np.maximum(heat[source, keypoint], peak + rng.normal(0, 0.003, peak.shape))
        near = distance < 16
        tags[source, keypoint][near] = tag + rng.normal(0, 0.05, near.sum()) + 0.1 * source


def crowd(
    rng: np.random.Generator,
    shape: tuple[int, int],
    people: int,
    noise: float = 0.01,
    missing: float = 0.15,
    at_border: float = 0.2,
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs with `people` people; the share `at_border` of the keypoints outside the image sits on its border."""
    height, width = shape
    heat = rng.normal(0, noise, (2, 17, height, width))
    tags = rng.normal(0, 0.3, (2, 17, height, width))
    for person in range(people):
        tag = person * rng.uniform(0.8, 2.5) + rng.normal(0, 0.2)
        center, spread = rng.uniform(0, shape), rng.uniform(0.1, 0.35) * min(shape)
        for keypoint in np.flatnonzero(rng.random(17) > missing):
            y, x = rng.normal(center, (spread, 0.6 * spread))
            inside = 0 <= y < height and 0 <= x < width
            if inside or rng.random() < at_border:
                add_peak(heat, tags, keypoint, np.clip(y, 0, height - 1), np.clip(x, 0, width - 1), tag, rng)
    return outputs_of(heat, tags)


def mosaic(dataset: CocoDataset, people: int, width: int = 768, height: int = 512) -> np.ndarray:
    """An image with so many people, put together from images with one; the first ones again if they run out."""
    alone = [image_id for image_id in dataset.image_ids if len(dataset.people(image_id)) == 1]
    columns = max(range(1, people + 1), key=lambda n: min(width / n, height / -(-people // n)))
    wide, tall = width // columns, height // -(-people // columns)
    mosaic = np.zeros((height, width, 3), np.uint8)
    for k in range(people):
        image_id = alone[k % len(alone)]
        row, column = divmod(k, columns)
        cell = _around_person(read_image(dataset.path(image_id)), dataset.people(image_id).bbox[0], wide, tall)
        mosaic[row * tall : (row + 1) * tall, column * wide : (column + 1) * wide] = cell
    return mosaic


def _around_person(image: np.ndarray, box: np.ndarray, width: int, height: int) -> np.ndarray:
    """Cuts out a person with some background, scaled to (height, width); gray where the image is too small."""
    left, top, wide, tall = box
    scale = min(width / wide, height / tall) / 1.35
    start = []
    for corner, extent, side, whole in ((left, wide, width, image.shape[1]), (top, tall, height, image.shape[0])):
        middle = corner + extent / 2 - side / scale / 2
        start.append(np.clip(middle, min(whole - side / scale, 0) / 2, max(whole - side / scale, 0)))
    matrix = np.array([[scale, 0, -scale * start[0]], [0, scale, -scale * start[1]]])
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_AREA, borderValue=(128, 128, 128))
