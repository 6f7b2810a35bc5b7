"""Network outputs made up: people who never stood before a camera, for tests and timings of decoders."""

from __future__ import annotations

import numpy as np

from helpers.keypoints import COCO17


def outputs_of(heat: np.ndarray, tags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(2, 17, h, w) aligned heatmaps and tag maps -> what the network would give for image and mirror image."""
    output, mirrored = np.concatenate((heat, tags), axis=1).astype(np.float32)
    order = [*COCO17.flip_index, *(17 + joint for joint in COCO17.flip_index)]
    return output, np.ascontiguousarray(mirrored[order, :, ::-1])


def add_peak(heat: np.ndarray, tags: np.ndarray, joint: int, y: float, x: float, tag: float, rng) -> None:
    """Adds one joint to (2, 17, h, w) maps: a Gaussian of sigma 2 and a round plateau of its tag."""
    rows, columns = np.mgrid[: heat.shape[2], : heat.shape[3]]
    height = rng.uniform(0.2, 1)
    for source in range(2):
        off_y, off_x = rng.normal(0, 0.15, 2)
        distance = (rows - y - off_y) ** 2 + (columns - x - off_x) ** 2
        peak = height * np.exp(-distance / 8)
        heat[source, joint] = np.maximum(heat[source, joint], peak + rng.normal(0, 0.003, peak.shape))
        near = distance < 16
        tags[source, joint][near] = tag + rng.normal(0, 0.05, near.sum()) + 0.1 * source


def crowd(
    rng: np.random.Generator,
    shape: tuple[int, int],
    people: int,
    noise: float = 0.01,
    missing: float = 0.15,
    at_border: float = 0.2,
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs with `people` people; the share `at_border` of the joints outside the image sits on its border."""
    height, width = shape
    heat = rng.normal(0, noise, (2, 17, height, width))
    tags = rng.normal(0, 0.3, (2, 17, height, width))
    for person in range(people):
        tag = person * rng.uniform(0.8, 2.5) + rng.normal(0, 0.2)
        center, spread = rng.uniform(0, shape), rng.uniform(0.1, 0.35) * min(shape)
        for joint in np.flatnonzero(rng.random(17) > missing):
            y, x = rng.normal(center, (spread, 0.6 * spread))
            inside = 0 <= y < height and 0 <= x < width
            if inside or rng.random() < at_border:
                add_peak(heat, tags, joint, np.clip(y, 0, height - 1), np.clip(x, 0, width - 1), tag, rng)
    return outputs_of(heat, tags)
