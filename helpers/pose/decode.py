"""Heatmaps and tags in, poses out: associative-embedding decoding with the bits of MMPose 0.29.0.

The network gives 17 heatmaps ("how likely is a left knee here?") and 17 tag maps ("whose is it?": the keypoints of
one person carry about the same number). Decoding takes five steps, in pixels of the upsampled maps:

    maps = align_maps(output, flipped_output)      # flip the second output back
    peaks = find_peaks(maps)                       # local maxima, at most 30 per keypoint
    people = group_peaks(peaks)                    # peaks with similar tags form one person
    people = adjust_keypoints(maps, people)        # a quarter pixel towards the higher neighbor
    people = fill_missing_keypoints(maps, people)  # the most likely pixel of the whole map

`decode_poses` does them all and returns to the pixels of the original image; `decode_steps` keeps the results between.
This file is written to be read: it makes the large maps and searches all of them. `decode_numba` has the same steps
compiled, which search only where a winner can be. After `warm_up` they take over; the bits are the same.

The method: Newell, Huang, Deng, "Associative Embedding" (2017). Reproduced: mmpose 0.29.0,
core/post_processing/group.py and core/evaluation/bottom_up_eval.py.
"""

from __future__ import annotations

import functools
import heapq
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from munkres import Munkres

from helpers.errors import UsageError
from helpers.keypoints import COCO17
from helpers.pose.maps import UPSCALE, Maps, align_maps, check_finite, check_shapes, enlarge_heatmap, upsample

if TYPE_CHECKING:
    from types import ModuleType

    from helpers.pose.preprocess import ResizeTransform

NMS_SIZE = 5  # a peak is the highest pixel of its 5x5 neighborhood; `decode_numba` takes odd numbers from 5
NO_MATCH_COST = 1e10  # of leaving a candidate to nobody: above any real distance between tags
_TOPK_BLOCK = 4096  # pixels compared at once with the lowest of the best


@dataclass(frozen=True)
class DecodeConfig:
    """Thresholds and steps of decoding; the defaults are the official `test_cfg` of all three networks."""

    max_num_people: int = 30  # most candidates per keypoint (and people, if `ignore_too_much`)
    detection_threshold: float = 0.1  # a peak must exceed this heat, >= 0
    tag_threshold: float = 1.0  # a keypoint joins a person if its tag is nearer than this to the person's mean tag
    use_detection_val: bool = True  # match by rounded tag distance, hotter keypoints first; else by distance only
    ignore_too_much: bool = False  # nobody joins or founds a person beyond the first `max_num_people`
    adjust: bool = True  # move keypoints a quarter pixel towards the higher neighbor
    refine: bool = True  # fill in missing keypoints at the most likely place

    def __post_init__(self) -> None:
        """Raises UsageError if a number is out of range."""
        if self.max_num_people < 1:
            raise UsageError(f"max_num_people must be 1 or more, not {self.max_num_people}.")
        if not self.detection_threshold >= 0:
            raise UsageError(f"detection_threshold must be 0 or more, not {self.detection_threshold}.")


OFFICIAL = DecodeConfig()


@dataclass(frozen=True)
class Poses:
    """The people of one image, in MMPose's order."""

    keypoints: np.ndarray  # (P, 17, 3) float32: x, y in pixels of the original image, keypoint score (0: not found)
    scores: np.ndarray  # (P,) float32: mean keypoint score before missing keypoints were filled in
    tags: np.ndarray  # (P, S) float32 mean tag of each person; S is 2 with the flip test, else 1

    def __len__(self) -> int:
        """Number of people."""
        return len(self.scores)


@dataclass(frozen=True)
class Steps:
    """The result of every step for one image; x and y are pixels of the upsampled maps."""

    maps: Maps
    peaks: list[np.ndarray]  # 17 arrays (M, 3 + S)
    grouped: np.ndarray  # (P, 17, 3 + S) float32, as the next two
    adjusted: np.ndarray  # `grouped` if `adjust` is off
    filled: np.ndarray  # `adjusted` if `refine` is off
    poses: Poses


def decode_poses(
    output: np.ndarray,
    flipped_output: np.ndarray | None,
    transform: ResizeTransform,
    config: DecodeConfig = OFFICIAL,
    compiled: bool | None = None,
) -> Poses:
    """Decodes one image: the people, order and numbers of MMPose 0.29.0. Threads may call it at the same time.

    Args:
        output: (34, h, w) network output: 17 heatmaps, then 17 tag maps.
        flipped_output: The same for the flipped image, as the network gave it; None without flip test.
        transform: How the image became the network's input; `base_size` must be (4w, 4h).
        config: The thresholds and which steps are taken.
        compiled: True for the steps compiled by numba, False for NumPy; None: compiled once `warm_up` is through.

    Raises:
        UsageError: An array's shape or `transform.base_size` does not fit, or `compiled` is True without numba.
        DataError: An output holds NaN or infinity; the message names the channel.
    """
    if compiled is None:
        compiled = _warm.is_set()
    if not compiled:
        return decode_steps(output, flipped_output, transform, config).poses
    numba_steps = _numba_steps()
    if numba_steps is None:
        raise UsageError("compiled=True needs numba: `pip install numba`, or leave it out.")
    output, flipped_output = check_shapes(output, flipped_output)
    _check_base_size(output, transform)
    found = numba_steps.decode(output, flipped_output, config, COCO17, NMS_SIZE, NO_MATCH_COST)
    if found is None:
        check_finite(output, flipped_output)
    people, scores, tags = found
    return Poses(to_image(people, transform), scores, tags)


def decode_steps(
    output: np.ndarray, flipped_output: np.ndarray | None, transform: ResizeTransform, config: DecodeConfig = OFFICIAL
) -> Steps:
    """Decodes one image in NumPy and keeps the result of every step; arguments and errors as in `decode_poses`."""
    maps = align_maps(output, flipped_output)
    _check_base_size(output, transform)
    peaks = find_peaks(maps, config)
    grouped = group_peaks(peaks, config)
    adjusted = adjust_keypoints(maps, grouped) if config.adjust else grouped
    filled = fill_missing_keypoints(maps, adjusted) if config.refine else adjusted
    scores = np.array([person[:, 2].mean() for person in adjusted], dtype=np.float32)
    poses = Poses(to_image(filled, transform), scores, mean_tags(adjusted))
    return Steps(maps, peaks, grouped, adjusted, filled, poses)


def _check_base_size(output: np.ndarray, transform: ResizeTransform) -> None:
    """Raises UsageError if the output is not of the image of the transform."""
    _, height, width = output.shape
    given, needed = tuple(transform.base_size), (UPSCALE * width, UPSCALE * height)
    if given != needed:
        raise UsageError(
            f"transform.base_size must be {needed} for an output of width {width} and height {height}, "
            f"not {given}: give the transform of the same image."
        )


def warm_up() -> bool:
    """Makes the compiled steps ready: from then on `decode_poses` uses them; returns whether numba is installed.

    Compiling takes half a minute once per machine, loading the compiled code from disk a second or two. Another
    thread may call it while NumPy decodes.
    """
    numba_steps = _numba_steps()
    if numba_steps is not None:
        with _warming:
            if not _warm.is_set():
                blank = np.zeros((2 * len(COCO17), 8, 8), np.float32)
                numba_steps.decode(blank, blank, OFFICIAL, COCO17, NMS_SIZE, NO_MATCH_COST)
        _warm.set()
    return numba_steps is not None


_warming, _warm = threading.Lock(), threading.Event()


@functools.lru_cache(maxsize=None)
def _numba_steps() -> ModuleType | None:
    """Imports the compiled steps; None if numba is not installed or does not work with this NumPy."""
    try:
        from helpers.pose import decode_numba
    except ImportError:
        return None
    return decode_numba


# --- Step 2: peaks --------------------------------------------------------------------------------------


def find_peaks(maps: Maps, config: DecodeConfig = OFFICIAL) -> list[np.ndarray]:
    """Finds the `max_num_people` highest local maxima of each heatmap that exceed `detection_threshold`.

    Returns 17 arrays (M, 3 + S) float64, highest first: x and y (whole numbers), heat, S tags.
    """
    found = []
    for keypoint in range(len(COCO17)):
        heat = enlarge_heatmap(maps, keypoint)  # (4h, 4w)
        values, pixels = _topk((heat * (heat == _highest_around(heat))).ravel(), config.max_num_people)
        seen = values > config.detection_threshold  # in float64, as in MMPose
        values, (y, x) = values[seen], np.divmod(pixels[seen], heat.shape[1])
        tags = upsample(maps.tagmaps[:, keypoint])[:, y, x] if len(x) else np.empty((len(maps.tagmaps), 0))
        found.append(np.column_stack((x, y, values, *tags)))
    return found


def _highest_around(heat: np.ndarray) -> np.ndarray:
    """Maximum of the NMS_SIZE x NMS_SIZE pixels around each pixel, (H, W) -> (H, W)."""
    height, width = heat.shape
    padded = np.pad(heat, NMS_SIZE // 2, mode="constant", constant_values=-np.inf)
    rows = functools.reduce(np.maximum, (padded[k : k + height] for k in range(NMS_SIZE)))
    return functools.reduce(np.maximum, (rows[:, k : k + width] for k in range(NMS_SIZE)))


class _Ranked(tuple):
    """(value, index), compared by value."""

    def __lt__(self, other: _Ranked) -> bool:
        return self[0] < other[0]


def _topk(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The highest of (N,) values and their indices, highest first, equal ones in the order of `torch.topk` on a CPU.

    torch uses C++'s `partial_sort`: a heap of the best so far, whose lowest is replaced by whatever exceeds it, and
    which is sorted at the end. heapq takes the steps of libstdc++'s heap. (Below 64 values for each one asked for,
    fewer than any real map has, torch sorts otherwise, and equal values may change places.)
    """
    heap = [_Ranked(pair) for pair in zip(values[:count].tolist(), range(count))]
    heapq.heapify(heap)
    for start in range(count, len(values), _TOPK_BLOCK):  # most values are 0 and not worth a look
        for index in np.flatnonzero(values[start : start + _TOPK_BLOCK] > heap[0][0]) + start:
            if values[index] > heap[0][0]:
                heapq.heapreplace(heap, _Ranked((float(values[index]), index)))
    best = [heapq.heappop(heap) for _ in range(len(heap))][::-1]
    return np.array([value for value, _ in best]), np.array([index for _, index in best], dtype=np.intp)


# --- Step 3: people -------------------------------------------------------------------------------------


def group_peaks(peaks: list[np.ndarray], config: DecodeConfig = OFFICIAL) -> np.ndarray:
    """Groups peaks into people: keypoint after keypoint, each peak joins the person with the nearest mean tag.

    A peak that joins nobody founds a person, known by the peak's first tag. If two people are founded on exactly
    the same tag, the second replaces the first one's keypoint and tags (a dictionary in MMPose).

    Returns (P, 17, 3 + S) float32: x, y, heat (0: no such keypoint), S tags.
    """
    limit = config.max_num_people if config.ignore_too_much else None
    people: list[np.ndarray] = []
    members: list[list[np.ndarray]] = []  # the tags that joined each person, in this order
    founded: dict[float, int] = {}
    for keypoint in COCO17.grouping_order:
        candidates = peaks[keypoint].astype(np.float32)  # (M, 3 + S)
        if not len(candidates):
            continue
        owners = _match(candidates, [np.mean(tags, axis=0) for tags in members[:limit]], config)
        for candidate, owner in zip(candidates, owners):
            tag = candidate[3:]
            if owner >= 0:
                members[owner].append(tag)
            else:
                owner = founded.setdefault(float(tag[0]), len(people))
                if owner == len(people):
                    people.append(np.zeros((len(COCO17), len(candidate)), dtype=np.float32))
                    members.append([])
                members[owner] = [tag]
            people[owner][keypoint] = candidate
    return np.array(people[:limit], dtype=np.float32).reshape(-1, len(COCO17), peaks[0].shape[1])


def _match(candidates: np.ndarray, mean_tags: list[np.ndarray], config: DecodeConfig) -> np.ndarray:
    """Index of the person whom each of (M, 3 + S) candidates joins, -1 for nobody: (M,)."""
    owners = np.full(len(candidates), -1)
    if not mean_tags:
        return owners
    gap = candidates[:, None, 3:].astype(np.float64) - np.stack(mean_tags)  # (M, P, S)
    distance = np.sqrt((gap * gap).sum(axis=2))
    cost = np.round(distance) * 100 - candidates[:, 2:3] if config.use_detection_val else distance
    surplus = max(0, len(candidates) - len(mean_tags))
    cost = np.pad(cost, ((0, 0), (0, surplus)), mode="constant", constant_values=NO_MATCH_COST)
    # Rounded distances are often equal; then the solver decides, and this is MMPose's (munkres 1.1.4).
    for candidate, person in Munkres().compute(cost.tolist()):
        if person < len(mean_tags) and distance[candidate, person] < config.tag_threshold:
            owners[candidate] = person
    return owners


# --- Steps 4 and 5: precision and missing keypoints -----------------------------------------------------


def adjust_keypoints(maps: Maps, people: np.ndarray) -> np.ndarray:
    """Moves keypoints of (P, 17, 3 + S) people a quarter pixel towards the higher neighbor, and to pixel centers."""
    people = people.copy()
    for keypoint in np.flatnonzero((people[..., 2] > 0).any(axis=0)):
        found = np.flatnonzero(people[:, keypoint, 2] > 0)
        x, y = people[found, keypoint, :2].astype(np.intp).T
        people[found, keypoint, :2] += _quarter_steps(enlarge_heatmap(maps, keypoint), y, x) + 0.5
    return people


def _quarter_steps(heat: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Steps in x and y from (N,) pixels: 0.25 where the heat rises, else -0.25, also on level ground; (N, 2)."""
    bottom, right = heat.shape[0] - 1, heat.shape[1] - 1
    rises_x = heat[y, np.minimum(x + 1, right)] > heat[y, np.maximum(x - 1, 0)]
    rises_y = heat[np.minimum(y + 1, bottom), x] > heat[np.maximum(y - 1, 0), x]
    return np.where([rises_x, rises_y], 0.25, -0.25).T


def mean_tags(people: np.ndarray) -> np.ndarray:
    """Mean tag of the keypoints that each person has: (P, 17, 3 + S) -> (P, S) float32."""
    means = [person[person[:, 2] > 0][:, 3:].mean(axis=0) for person in people]
    return np.array(means, dtype=np.float32).reshape(len(people), people.shape[2] - 3)


def fill_missing_keypoints(maps: Maps, people: np.ndarray) -> np.ndarray:
    """Puts each missing keypoint where heat minus rounded tag distance is highest, if the heat there is positive."""
    people = people.copy()
    tags = mean_tags(people)  # (P, S)
    for keypoint in np.flatnonzero((people[..., 2] == 0).any(axis=0)):
        heat, tagmaps = enlarge_heatmap(maps, keypoint), upsample(maps.tagmaps[:, keypoint])  # (4h, 4w), (S, 4h, 4w)
        for person in np.flatnonzero(people[:, keypoint, 2] == 0):
            gap = tagmaps - tags[person][:, None, None]
            affinity = heat - np.rint(np.sqrt((gap * gap).sum(axis=0)))
            y, x = np.divmod(affinity.argmax(), heat.shape[1])  # the first, if several are equal
            if heat[y, x] > 0:
                people[person, keypoint, :2] = (x, y) + _quarter_steps(heat, y[None], x[None])[0] + 0.5
                people[person, keypoint, 2] = heat[y, x]
    return people


def to_image(people: np.ndarray, transform: ResizeTransform) -> np.ndarray:
    """Takes (P, 17, 3 + S) people from pixels of the network's input to those of the original image.

    Missing keypoints stand at (0, 0) and are taken along, as in MMPose. Returns (P, 17, 3): x, y, keypoint score.
    """
    extent = np.asarray(transform.scale, dtype=np.float64) * 200.0  # MMPose's unit of scale is 200 pixels
    factor = extent / np.asarray(transform.base_size)
    keypoints = people[..., :3].copy()
    keypoints[..., :2] = people[..., :2] * factor + np.asarray(transform.center) - extent * 0.5
    return keypoints
