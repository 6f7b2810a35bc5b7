"""Heatmaps and tags in, poses out: associative-embedding decoding, equal to MMPose 0.29.0's and much quicker.

The network gives 17 heatmaps ("how likely is a left knee here?") and 17 tag maps ("whose is it?": joints of
one person carry about the same number). Decoding is five steps, each a function that a notebook can call:

    maps = align_maps(output, flipped_output)   # the mirror image's maps turned back and laid over the others
    peaks = find_peaks(maps)                    # local maxima: up to 30 candidates per joint
    people = group_peaks(peaks)                 # candidates with like tags become one person
    people = adjust_joints(maps, people)        # a quarter pixel towards the higher neighbour
    people = fill_missing_joints(maps, people, peaks)

`decode_poses` does all of them and returns to the pixels of the original image; `decode_steps` keeps what is between.

MMPose first enlarges all maps four times by bilinear interpolation and then searches the large maps; here
hardly a large map is ever made. Between four neighbouring samples (a *cell*) lie 4x4 pixels of the large map, each a
fixed mix of the four, so the samples bound the pixels, and only cells that can win are looked at, with the
very rounding of the enlarged map. Three frames occur: *samples* (h, w) of the network's output; *pixels*
(4h, 4w) of the enlarged map, which are those of the network's input; and the original image.

The steps above are NumPy, one after the other, to be read and looked into. `decode_poses` itself takes the same
steps compiled (`decode_numba`) where numba is installed and after `warm_up`: some 15 times quicker, equal to
the last bit.

Source of the method: Newell, Huang, Deng, "Associative Embedding" (2017); what is reproduced step by step:
mmpose 0.29.0, core/post_processing/group.py and core/evaluation/bottom_up_eval.py.
"""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from helpers.errors import DataError, UsageError
from helpers.keypoints import COCO17

if TYPE_CHECKING:
    from types import ModuleType

    from helpers.pose.preprocess import ResizeTransform

FLIP_INDEX = COCO17.flip_index
"""Channel that shows joint k (COCO order) in a mirror image: left and right change places."""

GROUPING_ORDER = COCO17.grouping_order
"""Head, shoulders, hips, then the limbs: people are founded on the joints that are easiest to find."""

NUM_JOINTS = len(COCO17)
UPSCALE = 4  # the network's output is a quarter of its input, and MMPose decodes at the size of the input
NMS_SIZE = 5  # a peak is the greatest pixel of its 5x5 neighbourhood
_NMS_REACH = NMS_SIZE // 2
_NO_MATCH_COST = 1e10  # of leaving a candidate to nobody: out of reach of any real distance between tags
_SLACK = 1e-5  # by how much, relative to the greatest value, rounding may lift a pixel over its samples
_CROWD = 16  # one peak suspected per so many samples: cheaper to enlarge the map than to look at each
_TILE = 4  # cells per side of a tile, the unit of the search for missing joints
_BAND_GROWTH = 4  # each band of samples ends so many times as far down as the one before
_TOPK_STRIDE = 4096  # pixels compared in one go with the least of the best so far
_FIRST_TILES = 8  # searched in one go, best first, so that what they hold rules out others;
_MOST_TILES = 512  # then four times as many each time, up to this


@dataclass(frozen=True)
class DecodeConfig:
    """What may be set about decoding; the defaults are the official `test_cfg` of all three networks.

    Attributes:
        max_num_people: Most candidates per joint (and people, if `ignore_too_much`).
        detection_threshold: A peak must exceed this heat, >= 0.
        tag_threshold: A joint joins a person if its tag is nearer than this to the person's mean tag.
        use_detection_val: Match by rounded tag distance, hotter joints first; otherwise by distance alone.
        ignore_too_much: Let nobody join or found a person beyond the first `max_num_people`.
        adjust: Move joints a quarter pixel towards the higher neighbour.
        refine: Give people their missing joints from the likeliest place.
    """

    max_num_people: int = 30
    detection_threshold: float = 0.1
    tag_threshold: float = 1.0
    use_detection_val: bool = True
    ignore_too_much: bool = False
    adjust: bool = True
    refine: bool = True

    def __post_init__(self) -> None:
        """Refuses what has no meaning.

        Raises:
            UsageError: A number is out of range.
        """
        if self.max_num_people < 1:
            raise UsageError(f"max_num_people is {self.max_num_people}: give 1 or more.")
        if not self.detection_threshold >= 0:
            raise UsageError(f"detection_threshold is {self.detection_threshold}: give 0 or more.")


OFFICIAL = DecodeConfig()
"""The `test_cfg` of the published accuracy."""


@dataclass(frozen=True)
class Poses:
    """The people of one image, in MMPose's order.

    Attributes:
        keypoints: (P, 17, 3) float32: x, y in pixels of the original image, joint score (0: not found).
        scores: (P,) float32 person score: mean joint score before missing joints were filled.
        tags: (P, L) float32 mean tag of each person; L is 2 with the flip test, else 1.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    tags: np.ndarray

    def __len__(self) -> int:
        """Number of people."""
        return len(self.scores)


@dataclass(frozen=True)
class Maps:
    """Heatmaps and tag maps of one image (S = 1) or of image and mirror image (S = 2), aligned.

    All arrays are float32 and have a rim of repeated border samples, so that every pixel of the enlarged map
    lies in a cell: sample (i, j) is at [..., i + 1, j + 1]. Below and to the right the rim is as wide as it
    takes to cover whole tiles.

    Attributes:
        values: (S, 2, 17, h + rim, w + rim): heatmaps, then tag maps.
        mean_heat: (17, h + rim, w + rim) mean heatmaps over S.
        height: h, samples.
        width: w, samples.
        heat_slack: By how much rounding may lift a pixel over the samples that it mixes.
        tag_slack: The same for tags, up or down.
    """

    values: np.ndarray
    mean_heat: np.ndarray
    height: int
    width: int
    heat_slack: np.float32
    tag_slack: np.float32

    @property
    def heat(self) -> np.ndarray:
        """(S, 17, h + rim, w + rim) float32 heatmaps."""
        return self.values[:, 0]

    @property
    def tags(self) -> np.ndarray:
        """(S, 17, h + rim, w + rim) float32 tag maps."""
        return self.values[:, 1]

    @property
    def heatmaps(self) -> np.ndarray:
        """(17, h, w) float32 mean heatmaps without the rim."""
        return self.mean_heat[:, 1 : self.height + 1, 1 : self.width + 1]

    @property
    def tagmaps(self) -> np.ndarray:
        """(S, 17, h, w) float32 tag maps without the rim."""
        return self.tags[:, :, 1 : self.height + 1, 1 : self.width + 1]


@dataclass(frozen=True)
class Steps:
    """Everything between the maps and the poses of one image, step by step; x and y in pixels of the enlarged map.

    Attributes:
        maps: Step 1, from `align_maps`.
        peaks: Step 2, from `find_peaks`: 17 arrays (M, 3 + S).
        grouped: (P, 17, 3 + S) float32, step 3, from `group_peaks`.
        adjusted: The same after step 4, `adjust_joints`; equal to `grouped` if it is switched off.
        filled: The same after step 5, `fill_missing_joints`; equal to `adjusted` if it is switched off.
        poses: What `decode_poses` gives.
    """

    maps: Maps
    peaks: list[np.ndarray]
    grouped: np.ndarray
    adjusted: np.ndarray
    filled: np.ndarray
    poses: Poses


def decode_poses(
    output: np.ndarray,
    flipped_output: np.ndarray | None,
    transform: ResizeTransform,
    config: DecodeConfig = OFFICIAL,
    compiled: bool | None = None,
) -> Poses:
    """Decodes one image: same people, same order, same numbers as MMPose 0.29.0's chain.

    May be called from several threads at once.

    Args:
        output: (34, h, w) float32 network output: 17 heatmaps, then 17 tag maps.
        flipped_output: The same for the mirror image, as the network gave it; None for no flip test.
        transform: How the image became the network's input; `base_size` must be (4w, 4h).
        config: Thresholds and steps.
        compiled: Whether to run the loops that numba compiles, or NumPy; None: compiled once `warm_up` is through.
            The result is the same.

    Returns:
        The people found, in pixels of the original image; nobody is a `Poses` of length 0.

    Raises:
        UsageError: An array's shape or `transform.base_size` does not fit, or `compiled` is True without numba.
        DataError: An output holds NaN or infinity; the message names the channel.
    """
    if compiled is None:
        compiled = _warm.is_set()
    if not compiled:
        return decode_steps(output, flipped_output, transform, config).poses
    output, flipped_output = _shaped(output, flipped_output)
    _refuse_other_size(output, transform)
    people, scores, tags = _decode_compiled(output, flipped_output, config)
    return Poses(to_image(people, transform), scores, tags)


def decode_steps(
    output: np.ndarray,
    flipped_output: np.ndarray | None,
    transform: ResizeTransform,
    config: DecodeConfig = OFFICIAL,
) -> Steps:
    """Decodes one image in NumPy and keeps the result of every step, to be looked at.

    Args, and errors raised, are those of `decode_poses`; the poses are the same to the last bit.
    """
    output, flipped_output = _shaped(output, flipped_output)
    _refuse_other_size(output, transform)
    maps = align_maps(output, flipped_output)
    peaks = find_peaks(maps, config)
    grouped = group_peaks(peaks, config)
    adjusted = adjust_joints(maps, grouped) if config.adjust else grouped
    scores = np.array([person[:, 2].mean() for person in adjusted], dtype=np.float32)
    filled = fill_missing_joints(maps, adjusted, peaks) if config.refine else adjusted
    poses = Poses(to_image(filled, transform), scores, mean_tags(adjusted))
    return Steps(maps, peaks, grouped, adjusted, filled, poses)


def _refuse_other_size(output: np.ndarray, transform: ResizeTransform) -> None:
    """The (34, h, w) output must be that of the picture that the transform is of."""
    _, height, width = output.shape
    given, needed = tuple(transform.base_size), (UPSCALE * width, UPSCALE * height)
    if given != needed:
        raise UsageError(
            f"transform.base_size is {given}, but an output of width {width} and height {height} "
            f"needs {needed}: give the transform of the same image."
        )


def warm_up() -> bool:
    """Makes the compiled decoder ready: from then on `decode_poses` uses it.

    The first time on a machine it is compiled, which takes half a minute; after that it is loaded from a cache on
    disk within a second or two. May be called more than once, and from another thread, while NumPy decodes.

    Returns:
        Whether there is a compiled decoder, that is, whether numba is installed.
    """
    room = _numba_room()
    if room is not None:
        with _warming:
            room.warm_up()
        _warm.set()
    return room is not None


_warming, _warm = threading.Lock(), threading.Event()
_WORK = threading.local()  # arrays that a thread uses again for the next image of the same size


@functools.lru_cache(maxsize=None)
def _numba_room() -> ModuleType | None:
    """The compiled steps, or None if numba is not installed or does not go with this NumPy."""
    try:
        from helpers.pose import decode_numba
    except ImportError:
        return None
    return decode_numba


def _decode_compiled(
    output: np.ndarray, flipped_output: np.ndarray | None, config: DecodeConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All steps in one compiled call: people, scores, tags as (P, 17, 3 + S), (P,), (P, S) float32, in pixels."""
    room = _numba_room()
    if room is None:
        raise UsageError("compiled=True needs numba: `pip install numba`, or leave it out.")
    output = np.ascontiguousarray(output)
    heat, tag = _magnitudes(room, output, "output")
    if flipped_output is not None:
        flipped_output = np.ascontiguousarray(flipped_output)
        heat, tag = np.maximum((heat, tag), _magnitudes(room, flipped_output, "flipped_output"))
    shape = (NUM_JOINTS, *output.shape[1:])
    if getattr(_WORK, "means", np.empty(0)).shape != shape:
        _WORK.means = np.empty(shape, np.float32)
    return room.decode(
        output,
        output if flipped_output is None else flipped_output,
        np.array(FLIP_INDEX if flipped_output is not None else (), np.int64),
        np.array(GROUPING_ORDER),
        _WORK.means,
        (np.float32(_SLACK) * heat, np.float32(_SLACK) * tag),
        config.max_num_people,
        _float32_below(config.detection_threshold),
        float(config.tag_threshold),
        config.max_num_people if config.ignore_too_much else NUM_JOINTS * config.max_num_people,
        config.use_detection_val,
        config.adjust,
        config.refine,
    )


def _magnitudes(room: ModuleType, output: np.ndarray, name: str) -> tuple[np.float32, np.float32]:
    """The largest magnitudes among heatmaps and among tags; refuses NaN and infinity, which exceed all numbers."""
    bits = output.view(np.uint32).reshape(2, NUM_JOINTS, -1)
    heat, tag = (np.array(room.largest_magnitude(half), np.uint32).view(np.float32) for half in bits)
    if not (np.isfinite(heat) and np.isfinite(tag)):
        _refuse_infinite(output, name)
    return heat[()], tag[()]


# --- Step 1: maps ---------------------------------------------------------------------------------------


def align_maps(output: np.ndarray, flipped_output: np.ndarray | None = None) -> Maps:
    """Splits outputs into heatmaps and tag maps, and turns the mirror image's back.

    Args:
        output: (34, h, w) float32 network output.
        flipped_output: (34, h, w) float32 for the mirror image, as the network gave it, or None.

    Returns:
        Maps with S = 2, or S = 1 without `flipped_output`.

    Raises:
        UsageError: A shape is not (34, h, w), or the two differ.
        DataError: NaN or infinity in an output.
    """
    output, flipped_output = _shaped(output, flipped_output)
    _refuse_infinite(output, "output")
    _, height, width = output.shape
    sources = 1
    if flipped_output is not None:
        _refuse_infinite(flipped_output, "flipped_output")
        sources = 2
    tall, wide = (_tiles_along(size) * _TILE + 1 for size in (height, width))
    values = np.empty((sources, 2, NUM_JOINTS, tall, wide), dtype=np.float32)
    inner = values[..., 1 : height + 1, 1 : width + 1]
    inner[0] = output.reshape(inner.shape[1:])
    if flipped_output is not None:
        mirrored = flipped_output.reshape(inner.shape[1:])[..., ::-1]
        for joint, twin in enumerate(FLIP_INDEX):
            inner[1, :, joint] = mirrored[:, twin]
    values[..., 1 : height + 1, 0] = inner[..., 0]
    values[..., 1 : height + 1, width + 1 :] = inner[..., -1:]
    values[..., 0, :] = values[..., 1, :]
    values[..., height + 1 :, :] = values[..., height : height + 1, :]
    heat_slack, tag_slack = (np.float32(_SLACK) * max(kind.max(), -kind.min()) for kind in (values[:, 0], values[:, 1]))
    return Maps(values, _mean_over_sources(values[:, 0]), height, width, heat_slack, tag_slack)


def _shaped(output: np.ndarray, flipped_output: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns both as float32 if they are (34, h, w) of one size."""
    arrays = []
    for array, name in ((output, "output"), (flipped_output, "flipped_output")):
        if array is None:
            arrays.append(None)
            continue
        array = np.asarray(array)
        if array.ndim != 3 or array.shape[0] != 2 * NUM_JOINTS or array.size == 0:
            raise UsageError(
                f"{name} has shape {array.shape}: give the (34, h, w) of one image, heatmaps before tag maps."
            )
        arrays.append(array.astype(np.float32, copy=False))
    output, flipped_output = arrays
    if flipped_output is not None and flipped_output.shape != output.shape:
        raise UsageError(
            f"flipped_output has shape {flipped_output.shape} but output {output.shape}: "
            "run the network on the same image, mirrored."
        )
    return output, flipped_output


def _refuse_infinite(output: np.ndarray, name: str) -> None:
    """Refuses NaN and infinity, and says where the first is."""
    finite = np.isfinite(output)
    if not finite.all():
        channel = int(np.flatnonzero(~finite.all(axis=(1, 2)))[0])
        kind = "heatmap" if channel < NUM_JOINTS else "tag map"
        raise DataError(
            f"{name} holds NaN or infinity in channel {channel}, the {kind} of joint {channel % NUM_JOINTS}: "
            "check the network's weights, or build it in a precision with a wider range."
        )


def _tiles_along(samples: int) -> int:
    """Number of tiles that cover the `samples + 1` cells of one axis."""
    return samples // _TILE + 1


def _mean_over_sources(values: np.ndarray) -> np.ndarray:
    """Averages image and mirror image, (S, ...) -> (...), as `(a + b) / 2` in float32."""
    return values[0] if len(values) == 1 else (values[0] + values[1]) / np.float32(2)


# --- The enlarged map, one value at a time ---------------------------------------------------------------


def _lerp(near: np.ndarray, far: np.ndarray, far_weight: np.ndarray) -> np.ndarray:
    """Mixes two float32 arrays as torch's bilinear upsampling does on a CPU, to the last bit.

    torch (UpSampleKernel.cpp) computes `near * (1 - w) + far * w` with a fused multiply-add: the second
    product is rounded to float32, the first is not. With weights in eighths the float64 sum here is as good
    as exact, so its rounding to float32 is the fused one. (For maps below 128 pixels, height plus width, torch
    has another kernel, and on a CPU without FMA other roundings: last bits differ there.)
    """
    return (near * (1.0 - far_weight) + far * far_weight.astype(np.float32)).astype(np.float32)


def _cell_of(pixel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Locates pixels of the enlarged map along one axis.

    Two pixels lie before the first sample and two behind the last. torch repeats the sample before the first;
    mixing it with its copy in the rim comes to the same, as the sum of its eighths rounds back to the sample.

    Args:
        pixel: Integer coordinates, any shape.

    Returns:
        (cell, far_weight): index of the near sample in the rimmed maps, and float64 weight of the next one.
    """
    cell, phase = np.divmod(pixel + UPSCALE // 2, UPSCALE)
    return cell, 0.125 + 0.25 * phase


def _read_pixels(maps: np.ndarray, joint: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Values of single pixels of the enlarged maps.

    Args:
        maps: (S, 17, ...) float32 rimmed maps.
        joint: Integer channel.
        y: Integer pixel row.
        x: Integer pixel column; the three broadcast together to a shape (...).

    Returns:
        (S, ...) float32.
    """
    row, far_y = _cell_of(y)
    column, far_x = _cell_of(x)
    above = _lerp(maps[:, joint, row, column], maps[:, joint, row, column + 1], far_x)
    below = _lerp(maps[:, joint, row + 1, column], maps[:, joint, row + 1, column + 1], far_x)
    return _lerp(above, below, far_y)


def _gather(maps: np.ndarray, joint: np.ndarray | int, row: np.ndarray, column: np.ndarray, side: int) -> np.ndarray:
    """Cuts out N square patches of samples: (..., 17, H, W) -> (..., N, side, side).

    Args:
        maps: Rimmed maps.
        joint: (N,) integer channels, or one for all.
        row: (N,) integer row of each patch's first corner.
        column: (N,) integer column of it.
        side: Samples per side.
    """
    steps = np.arange(side)
    rows, columns = row[:, None, None] + steps[:, None], column[:, None, None] + steps
    return maps[..., np.broadcast_to(joint, row.shape)[:, None, None], rows, columns]


def _enlarge_cells(
    maps: np.ndarray, joint: np.ndarray | int, row: np.ndarray, column: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pixels of N blocks of side x side cells.

    Args:
        maps: (..., 17, H, W) float32 rimmed maps.
        joint: (N,) integer channels, or one for all.
        row: (N,) integer, first cell of each block.
        column: (N,) integer, first cell of each block.
        side: Cells per side.

    Returns:
        (values, y, x): (..., N, 4 side, 4 side) float32; (N, 4 side) integer pixel rows and columns, which
        reach beyond the map in cells at its border.
    """
    patch = _gather(maps, joint, row, column, side + 1)
    steps = np.arange(UPSCALE * side) - UPSCALE // 2
    y, x = UPSCALE * row[:, None] + steps, UPSCALE * column[:, None] + steps
    far_y, far_x = _cell_of(y)[1], _cell_of(x)[1]
    near = np.arange(UPSCALE * side) // UPSCALE
    lines = _lerp(patch[..., near], patch[..., near + 1], far_x[:, None, :])
    return _lerp(lines[..., near, :], lines[..., near + 1, :], far_y[:, :, None]), y, x


def enlarge_heatmap(maps: Maps, joint: int, stop: int | None = None) -> np.ndarray:
    """The enlarged mean heatmap of one joint, which the other functions do their best to avoid.

    Args:
        maps: From `align_maps`.
        joint: Channel.
        stop: Number of pixel rows wanted, from the top; None for all 4h.

    Returns:
        (stop, 4w) float32.
    """
    row, far_y = _cell_of(np.arange(UPSCALE * maps.height)[:stop])
    column, far_x = _cell_of(np.arange(UPSCALE * maps.width))
    heat = maps.heat[:, joint, : row[-1] + 2]
    lines = _lerp(heat[..., column], heat[..., column + 1], far_x)
    return _mean_over_sources(_lerp(lines[:, row], lines[:, row + 1], far_y[:, None]))


# --- Step 2: peaks --------------------------------------------------------------------------------------


def find_peaks(maps: Maps, config: DecodeConfig = OFFICIAL) -> list[np.ndarray]:
    """Finds each joint's candidates: maxima of 5x5 pixels above the threshold, the best `max_num_people`.

    Args:
        maps: From `align_maps`.
        config: `detection_threshold` and `max_num_people` apply.

    Returns:
        17 arrays (M, 3 + S) float64, best first: x and y in pixels (whole numbers), heat, S tags.
    """
    threshold = _float32_below(config.detection_threshold)
    joint, row, column = _samples_near_peaks(maps, threshold)
    crowded = np.bincount(joint, minlength=NUM_JOINTS) > _crowd(maps)
    few = ~crowded[joint]
    joint, y, x, heat = _peaks_around(maps, joint[few], row[few], column[few], threshold)
    best_first = np.lexsort((-heat, joint))
    bounds = np.searchsorted(joint[best_first], np.arange(NUM_JOINTS + 1))
    found = []
    for channel in range(NUM_JOINTS):
        best = best_first[bounds[channel] : bounds[channel + 1]][: config.max_num_people + 1]
        if crowded[channel] or (np.diff(heat[best]) == 0).any():
            found.append(_peaks_in_torch_order(maps, channel, threshold, config.max_num_people))
        else:
            best = best[: config.max_num_people]
            found.append((y[best], x[best], heat[best]))
    counts = [len(heat) for _, _, heat in found]
    y, x, heat = (np.concatenate(parts) for parts in zip(*found))
    tags = _read_pixels(maps.tags, np.repeat(np.arange(NUM_JOINTS), counts), y, x)
    table = np.column_stack((x, y, heat, *tags)).astype(np.float64)
    return np.split(table, np.cumsum(counts)[:-1])


def _float32_below(number: float) -> np.float32:
    """The greatest float32 not above `number`: heat exceeds both or neither, however NumPy compares them.

    (0.1 as float32 is greater than 0.1, and MMPose compares in float64.)
    """
    nearest = np.float32(number)
    return nearest if float(nearest) <= number else np.nextafter(nearest, np.float32(-np.inf))


def _samples_near_peaks(
    maps: Maps, threshold: float, joints: slice = slice(NUM_JOINTS), rows: slice = slice(None)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples whose own 4x4 pixels may hold a peak: (joint, row, column), each (N,) integer.

    These pixels are mixes of the sample and its eight neighbours, so one of the nine must exceed the
    threshold. And along a line of pixels the enlarged map is straight between two samples: a pixel beside
    sample j can be the greatest of five only if, on that line, sample j is no lower than both its neighbours.
    A line of pixels mixes two lines of samples, 1/8 or 3/8 of the one above or below: four mixes to try.
    """
    first, last, _ = rows.indices(maps.height)
    rim = maps.mean_heat[joints, first : last + 2, : maps.width + 2]
    joint, row, column = np.nonzero(_reduce_windows(np.maximum, rim, 3) > threshold - maps.heat_slack)
    joint, row = joint + joints.indices(NUM_JOINTS)[0], row + first
    patch = _gather(maps.mean_heat, joint, row, column, 3)
    mixes = np.array([[1 / 8, 7 / 8, 0], [3 / 8, 5 / 8, 0], [0, 7 / 8, 1 / 8], [0, 5 / 8, 3 / 8]], dtype=np.float32)
    possible = np.ones(len(joint), dtype=bool)
    for lines in (patch, patch.transpose(0, 2, 1)):
        over_left = (lines[..., 1] - lines[..., 0]) @ mixes.T
        over_right = (lines[..., 1] - lines[..., 2]) @ mixes.T
        possible &= (np.minimum(over_left, over_right) >= -maps.heat_slack).any(axis=1)
    return joint[possible], row[possible], column[possible]


def _crowd(maps: Maps) -> int:
    """Number of samples near peaks in one channel above which it is cheaper to enlarge the whole map."""
    return maps.height * maps.width // _CROWD


def _peaks_around(
    maps: Maps, joint: np.ndarray, row: np.ndarray, column: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Peaks among the 4x4 pixels of each of N samples: (joint, y, x, heat), each (M,), in pixels."""
    values, y, x = _enlarge_cells(maps.heat, joint, row, column, 2)  # the four cells that meet in the sample
    heat = _mean_over_sources(values)
    heat[~_inside(maps, y, x)] = -np.inf
    highest = _reduce_windows(np.maximum, heat, NMS_SIZE)
    own = slice(_NMS_REACH, _NMS_REACH + UPSCALE)
    heat, y, x = heat[:, own, own], y[:, own], x[:, own]
    block, dy, dx = np.nonzero((heat == highest) & (heat > threshold))
    return joint[block], y[block, dy], x[block, dx], heat[block, dy, dx]


def _peaks_in_torch_order(
    maps: Maps, joint: int, threshold: float, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The `count` best peaks of one joint as `torch.topk` orders them: (y, x, heat), each (M,), in pixels.

    Needed where two peaks are equally high, as at the image's border, where two pixels repeat one sample.
    Which of them torch puts first depends on all it has sorted before, not only on what is over the
    threshold: the first `count` pixels of the map, and from there on whatever exceeded the best so far. So
    this goes down the map in bands of samples, with a threshold that rises on the way.
    """
    width = UPSCALE * maps.width
    stop = min(-(-count // (UPSCALE * width)), maps.height)
    top = _TopK(_suppressed(maps, joint, UPSCALE * stop).ravel(), count)
    while stop < maps.height:
        start, stop = stop, min(_BAND_GROWTH * stop, maps.height)
        near = _samples_near_peaks(maps, top.least, slice(joint, joint + 1), slice(start, stop))
        if top.least < 0 or len(near[0]) > _crowd(maps):  # whatever is no peak counts too, as 0; or a plateau
            top = _TopK(_suppressed(maps, joint, UPSCALE * maps.height).ravel(), count)
            break
        _, y, x, heat = _peaks_around(maps, *near, top.least)
        order = np.lexsort((x, y))
        top.push((y * width + x)[order], heat[order])
    heat, pixel = top.best_first()
    seen = heat > threshold
    return (*np.divmod(pixel[seen], width), heat[seen])


def _suppressed(maps: Maps, joint: int, stop: int) -> np.ndarray:
    """The first rows of the enlarged heatmap with 0 wherever is no peak: (stop, 4w) float32."""
    heat = enlarge_heatmap(maps, joint, stop + _NMS_REACH)
    padded = np.full((stop + 2 * _NMS_REACH, heat.shape[1] + 2 * _NMS_REACH), -np.inf, dtype=np.float32)
    padded[_NMS_REACH : _NMS_REACH + len(heat), _NMS_REACH:-_NMS_REACH] = heat
    heat = heat[:stop]
    return heat * (heat == _reduce_windows(np.maximum, padded, NMS_SIZE))


class _TopK:
    """The greatest of a stream of values, equal ones in the order that `torch.topk` leaves them in on a CPU.

    torch calls C++'s `std::partial_sort`, comparing values alone. This is libstdc++'s: a heap of the best so
    far with the least on top, which is replaced by whatever exceeds it; sorted in the end. (Below 64 values
    for each one asked for, fewer than any real map has, torch sorts otherwise, and equal values may differ.)
    """

    def __init__(self, values: np.ndarray, count: int):
        self._heap = [(float(value), index) for index, value in enumerate(values[:count])]
        for hole in range(len(self._heap) // 2 - 1, -1, -1):
            self._sift(hole, len(self._heap), self._heap[hole])
        for start in range(count, len(values), _TOPK_STRIDE):  # most values are 0 and not worth a look
            index = np.flatnonzero(values[start : start + _TOPK_STRIDE] > self.least) + start
            self.push(index, values[index])

    @property
    def least(self) -> float:
        """What a value must exceed to come in."""
        return self._heap[0][0]

    def push(self, indices: np.ndarray, values: np.ndarray) -> None:
        """Takes in more of the stream, (N,) each."""
        for index, value in zip(indices.tolist(), values.tolist()):
            if value > self.least:
                self._sift(0, len(self._heap), (value, index))

    def best_first(self) -> tuple[np.ndarray, np.ndarray]:
        """Ends the stream: (values, indices) of the best, in torch's order."""
        heap = self._heap
        for size in range(len(heap) - 1, 0, -1):
            last, heap[size] = heap[size], heap[0]
            self._sift(0, size, last)
        values, indices = zip(*heap)
        return np.array(values, dtype=np.float32), np.array(indices, dtype=np.intp)

    def _sift(self, hole: int, size: int, item: tuple[float, int]) -> None:
        """Puts `item` into the free place `hole` of the first `size`, as libstdc++'s `__adjust_heap` does.

        That is: the hole sinks to the bottom along the lesser children, then the item climbs from there.
        """
        heap, top = self._heap, hole
        while 2 * hole + 1 < size:
            child = 2 * hole + 2
            if child == size or heap[child][0] > heap[child - 1][0]:
                child -= 1
            heap[hole] = heap[child]
            hole = child
        while hole > top and heap[(hole - 1) // 2][0] > item[0]:
            heap[hole] = heap[(hole - 1) // 2]
            hole = (hole - 1) // 2
        heap[hole] = item


def _reduce_windows(pick: np.ufunc, values: np.ndarray, size: int, step: int = 1) -> np.ndarray:
    """Extremes of size x size windows over the last two axes, one window every `step`.

    Args:
        pick: np.maximum or np.minimum.
        values: (..., a, b).
        size: Length of a window's side.
        step: From one window to the next.

    Returns:
        (..., (a - size) // step + 1, (b - size) // step + 1).
    """
    rows, columns = ((length - size) // step * step + 1 for length in values.shape[-2:])
    values = functools.reduce(pick, (values[..., shift : shift + rows : step, :] for shift in range(size)))
    return functools.reduce(pick, (values[..., shift : shift + columns : step] for shift in range(size)))


def _inside(maps: Maps, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Which pixels of N blocks lie on the map: rows (N, a) and columns (N, b) -> (N, a, b) bool."""
    rows = (y >= 0) & (y < UPSCALE * maps.height)
    columns = (x >= 0) & (x < UPSCALE * maps.width)
    return rows[:, :, None] & columns[:, None, :]


# --- Step 3: people -------------------------------------------------------------------------------------


def group_peaks(peaks: list[np.ndarray], config: DecodeConfig = OFFICIAL) -> np.ndarray:
    """Makes people of candidates: joint after joint, each goes to the person with the nearest mean tag.

    A candidate that no person takes founds a person, known by this first tag. Should two people be founded on
    exactly the same tag, the second replaces the first one's joint and tags (a dictionary in MMPose).

    Args:
        peaks: From `find_peaks`.
        config: `tag_threshold`, `use_detection_val`, `ignore_too_much` and `max_num_people` apply.

    Returns:
        (P, 17, 3 + S) float32: x and y in pixels, heat (0: no such joint), S tags.
    """
    limit = config.max_num_people if config.ignore_too_much else None
    people: list[np.ndarray] = []
    members: list[list[np.ndarray]] = []  # the tags that joined each person, in that order
    founded: dict[float, int] = {}
    for joint in GROUPING_ORDER:
        candidates = peaks[joint]
        if not len(candidates):
            continue
        owners = _match(candidates, [np.mean(tags, axis=0) for tags in members[:limit]], config)
        for candidate, owner in zip(candidates, owners):
            tag = candidate[3:].astype(np.float32)
            if owner >= 0:
                members[owner].append(tag)
            else:
                owner = founded.setdefault(float(tag[0]), len(people))
                if owner == len(people):
                    people.append(np.zeros((NUM_JOINTS, len(candidate)), dtype=np.float32))
                    members.append([])
                members[owner] = [tag]
            people[owner][joint] = candidate
    shape = (-1, NUM_JOINTS, peaks[0].shape[1])
    return np.array(people[:limit], dtype=np.float32).reshape(shape)


def _match(candidates: np.ndarray, person_tags: list[np.ndarray], config: DecodeConfig) -> np.ndarray:
    """Finds each candidate's person by their (S,) mean tags: (M, 3 + S) -> (M,) index, -1: none of them."""
    if not person_tags:
        return np.full(len(candidates), -1)
    difference = candidates[:, None, 3:] - np.stack(person_tags)
    distance = np.sqrt((difference * difference).sum(axis=2))
    cost = distance
    if config.use_detection_val:
        cost = np.round(distance) * 100 - candidates[:, 2:3]
    surplus = max(0, len(candidates) - len(person_tags))
    owner = _assign(np.pad(cost, ((0, 0), (0, surplus)), constant_values=_NO_MATCH_COST))
    taken = owner < len(person_tags)
    taken[taken] = distance[taken, owner[taken]] < config.tag_threshold
    return np.where(taken, owner, -1)


def _assign(cost: np.ndarray) -> np.ndarray:
    """Hungarian assignment: the column of each row of (r, c >= r) float64 costs, least in sum.

    Rounded distances are often equal, then several assignments are best, and which one comes out decides who
    gets which joint. So this takes the steps of munkres 1.1.4, MMPose's solver, in its order and with its
    rounding (Munkres, "Algorithms for the Assignment and Transportation Problems", 1957). A *starred* zero is
    an assignment so far, a *primed* one might become one; lines already dealt with are *covered*.
    """
    size = cost.shape[1]
    matrix = np.zeros((size, size))
    matrix[: len(cost)] = cost
    matrix -= matrix.min(axis=1, keepdims=True)
    star = _star_greedily(matrix == 0)
    while (star < 0).any():
        _star_one_more(matrix, star)
    return star[: len(cost)]


def _star_greedily(zero: np.ndarray) -> np.ndarray:
    """Stars the first zero of each row that is in no column starred before; (n,) column per row, -1: none."""
    star = np.full(len(zero), -1)
    free = np.ones(len(zero), dtype=bool)
    for row, open_zeros in enumerate(zero):
        columns = np.flatnonzero(open_zeros & free)
        if len(columns):
            star[row] = columns[0]
            free[columns[0]] = False
    return star


def _star_one_more(matrix: np.ndarray, star: np.ndarray) -> None:
    """Primes zeros until one has no starred zero in its row, then stars one row more; changes both in place.

    Args:
        matrix: (n, n) float64 reduced costs.
        star: (n,) starred column of each row, -1 if none.
    """
    prime = np.full(len(star), -1)
    row_covered = np.zeros(len(star), dtype=bool)
    column_open = np.ones(len(star), dtype=bool)
    column_open[star[star >= 0]] = False
    zero = matrix == 0
    row = column = 0
    while True:
        row, column = _next_open_zero(zero & column_open, row_covered, row, column)
        if row < 0:
            least = matrix[~row_covered][:, column_open].min()
            matrix[row_covered] += least
            matrix[:, column_open] -= least
            zero = matrix == 0
            row = column = 0
            continue
        prime[row] = column
        if star[row] < 0:
            break
        column = star[row]
        row_covered[row] = True
        column_open[column] = True
    while row >= 0:  # primes along the path become stars, and displace the stars in their columns
        column = prime[row]
        displaced = np.flatnonzero(star == column)
        star[row] = column
        row = displaced[0] if len(displaced) else -1


def _next_open_zero(zero: np.ndarray, row_covered: np.ndarray, first_row: int, first_column: int) -> tuple[int, int]:
    """The uncovered zero that munkres finds next: (row, column), or (-1, -1).

    It goes through the rows from `first_row` on, round the end, and takes the first that has one; in it, the
    last in the order that begins at `first_column` and goes round the end.
    """
    rows = np.flatnonzero(zero.any(axis=1) & ~row_covered)
    if not len(rows):
        return -1, -1
    row = rows[np.searchsorted(rows, first_row) % len(rows)]
    columns = np.flatnonzero(zero[row])
    return row, columns[np.searchsorted(columns, first_column) - 1]


# --- Step 4: a quarter pixel ----------------------------------------------------------------------------


def adjust_joints(maps: Maps, people: np.ndarray) -> np.ndarray:
    """Moves each joint by a quarter pixel towards its higher neighbour, and from pixel corner to centre.

    Args:
        maps: From `align_maps`.
        people: (P, 17, 3 + S) float32 from `group_peaks`.

    Returns:
        The same people, x and y changed.
    """
    people = people.copy()
    person, joint = np.nonzero(people[..., 2] > 0)
    x, y = people[person, joint, :2].astype(np.intp).T
    people[person, joint, :2] += _quarter_steps(maps, joint, y, x) + 0.5
    return people


def _quarter_steps(maps: Maps, joint: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Where the heat rises from (N,) pixels: (N, 2) of +0.25 or, also when level, -0.25, for x and y."""
    bottom, right = UPSCALE * maps.height - 1, UPSCALE * maps.width - 1
    beside_y = np.stack((y, y, np.minimum(y + 1, bottom), np.maximum(y - 1, 0)))
    beside_x = np.stack((np.minimum(x + 1, right), np.maximum(x - 1, 0), x, x))
    heat = _mean_over_sources(_read_pixels(maps.heat, joint, beside_y, beside_x))
    return np.where(heat[::2] > heat[1::2], 0.25, -0.25).T


# --- Step 5: missing joints -----------------------------------------------------------------------------


def mean_tags(people: np.ndarray) -> np.ndarray:
    """Mean tag of each person's joints: (P, 17, 3 + S) -> (P, S) float32."""
    means = [person[person[:, 2] > 0][:, 3:].mean(axis=0) for person in people]
    return np.array(means, dtype=np.float32).reshape(len(people), people.shape[2] - 3)


def fill_missing_joints(maps: Maps, people: np.ndarray, peaks: list[np.ndarray]) -> np.ndarray:
    """Puts each joint that a person lacks where heat minus rounded tag distance is greatest on the whole map.

    Args:
        maps: From `align_maps`.
        people: (P, 17, 3 + S) float32 from `group_peaks` or `adjust_joints`.
        peaks: From `find_peaks`: good places to begin the search at.

    Returns:
        The same people; a joint is filled if the heat at its place is positive.
    """
    people = people.copy()
    tags = mean_tags(people)
    missing = people[..., 2] == 0
    if not missing.any():
        return people
    tiles = _bounds_of(maps, maps.mean_heat, maps.tags, _TILE)
    for joint in np.flatnonzero(missing.any(axis=0)):
        person = np.flatnonzero(missing[:, joint])
        y, x = _likeliest_pixels(maps, tiles, joint, tags[person], peaks[joint])
        heat = _mean_over_sources(_read_pixels(maps.heat, joint, y, x))
        place = np.column_stack((x, y)) + 0.5 + _quarter_steps(maps, joint, y, x)
        seen = heat > 0
        people[person[seen], joint, :2] = place[seen]
        people[person[seen], joint, 2] = heat[seen]
    return people


def to_image(people: np.ndarray, transform: ResizeTransform) -> np.ndarray:
    """Takes people from pixels of the network's input to those of the original image.

    Args:
        people: (P, 17, 3 + S) float32; a missing joint stands at (0, 0) and is taken along, as in MMPose.
        transform: Its `base_size`, `center` and `scale` are used.

    Returns:
        (P, 17, 3) float32: x, y, joint score.
    """
    extent = np.asarray(transform.scale, dtype=np.float64) * 200.0  # MMPose's unit of scale is 200 pixels
    factor = extent / np.asarray(transform.base_size)
    keypoints = people[..., :3].copy()
    keypoints[..., :2] = people[..., :2] * factor + np.asarray(transform.center) - extent * 0.5
    return keypoints


# --- The search behind step 5: branch and bound -----------------------------------------------------------


class _Best:
    """The best pixel so far for each of P people: highest affinity, of equal ones the first in the map."""

    def __init__(self, people: int):
        self.affinity = np.full(people, -np.inf, dtype=np.float32)
        self.pixel = np.zeros(people, dtype=np.intp)

    def offer(self, person: np.ndarray, affinity: np.ndarray, pixel: np.ndarray) -> None:
        """Takes in (N,) proposals; `pixel` is y * width + x."""
        order = np.lexsort((pixel, -affinity, person))
        first = np.flatnonzero(np.diff(person[order], prepend=-1))
        person, affinity, pixel = (values[order[first]] for values in (person, affinity, pixel))
        better = (affinity > self.affinity[person]) | (
            (affinity == self.affinity[person]) & (pixel < self.pixel[person])
        )
        self.affinity[person[better]] = affinity[better]
        self.pixel[person[better]] = pixel[better]


@dataclass(frozen=True)
class _Bounds:
    """Between what the pixels of squares of cells lie.

    Attributes:
        heat: (...) float32, greatest heat.
        low_tag: (S, ...) float32, least tag.
        high_tag: (S, ...) float32, greatest tag.
    """

    heat: np.ndarray
    low_tag: np.ndarray
    high_tag: np.ndarray

    def of_joint(self, joint: int) -> _Bounds:
        """Those of one channel: (17, ...) -> (1, ...), one for whatever number of people."""
        return _Bounds(self.heat[joint, None], self.low_tag[:, joint, None], self.high_tag[:, joint, None])

    def affinity(self, person_tags: np.ndarray) -> np.ndarray:
        """Upper bound of `_affinity` for people whose tags (S, ...) broadcast with the squares."""
        gap = np.maximum(self.low_tag - person_tags, person_tags - self.high_tag)
        return self.heat - _rounded_norm(np.maximum(gap, 0))


def _bounds_of(maps: Maps, mean_heat: np.ndarray, tags: np.ndarray, cells: int) -> _Bounds:
    """Bounds of squares of cells x cells, side by side, in (..., H, W) heat and (S, ..., H, W) tags."""
    corners = cells + 1
    return _Bounds(
        _reduce_windows(np.maximum, mean_heat, corners, cells) + maps.heat_slack,
        _reduce_windows(np.minimum, tags, corners, cells) - maps.tag_slack,
        _reduce_windows(np.maximum, tags, corners, cells) + maps.tag_slack,
    )


def _affinity(heat: np.ndarray, tags: np.ndarray, person_tags: np.ndarray) -> np.ndarray:
    """How well pixels suit people: (...) heat, (S, ...) tags of pixels and of people -> (...) float32."""
    return heat - _rounded_norm(tags - person_tags)


def _rounded_norm(gap: np.ndarray) -> np.ndarray:
    """Euclidean length over the first axis, rounded half to even: (S, ...) -> (...) float32."""
    return np.rint(np.sqrt((gap * gap).sum(axis=0)))


def _likeliest_pixels(
    maps: Maps, tiles: _Bounds, joint: int, person_tags: np.ndarray, seeds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where on the whole enlarged map one joint of each person is likeliest: (y, x), each (P,), in pixels.

    Args:
        maps: From `align_maps`.
        tiles: Bounds of all tiles of all joints.
        joint: Channel.
        person_tags: (P, S) float32.
        seeds: (M, 3 + S) the joint's peaks; the better the first guess, the fewer tiles are searched.

    Returns:
        Rows and columns; of equally likely pixels the first, as `argmax` has it.
    """
    width = UPSCALE * maps.width
    everybody = np.arange(len(person_tags))
    best = _Best(len(person_tags))
    if len(seeds):
        heat, *tags = seeds[:, 2:].T.astype(np.float32)
        affinity = _affinity(heat, np.stack(tags)[:, None, :], person_tags.T[:, :, None])
        pixel = (seeds[:, 1] * width + seeds[:, 0]).astype(np.intp)
        best.offer(np.repeat(everybody, len(seeds)), affinity.ravel(), np.tile(pixel, len(everybody)))
    bound = tiles.of_joint(joint).affinity(person_tags.T[:, :, None, None])
    person, row, column = np.nonzero(bound >= best.affinity[:, None, None])
    bound = bound[person, row, column]
    order = np.argsort(-bound)
    at_once = _FIRST_TILES
    while len(order):
        now, order = order[:at_once], order[at_once:]
        _search_tiles(maps, joint, person_tags, person[now], row[now], column[now], best)
        order = order[bound[order] >= best.affinity[person[order]]]
        at_once = min(4 * at_once, _MOST_TILES)
    return np.divmod(best.pixel, width)


def _search_tiles(
    maps: Maps,
    joint: int,
    person_tags: np.ndarray,
    person: np.ndarray,
    tile_row: np.ndarray,
    tile_column: np.ndarray,
    best: _Best,
) -> None:
    """Looks at N tiles, each for one person, and offers `best` the pixels of cells that can beat it."""
    row, column = _TILE * tile_row, _TILE * tile_column
    wanted = person_tags[person].T[:, :, None, None]
    patch = _gather(maps.values, joint, row, column, _TILE + 1)
    cells = _bounds_of(maps, _mean_over_sources(patch[:, 0]), patch[:, 1], 1)
    tile, down, right = np.nonzero(cells.affinity(wanted) >= best.affinity[person][:, None, None])
    row, column = row[tile] + down, column[tile] + right
    values, y, x = _enlarge_cells(maps.values, joint, row, column, 1)
    affinity = _affinity(_mean_over_sources(values[:, 0]), values[:, 1], wanted[:, tile])
    affinity[~_inside(maps, y, x)] = -np.inf
    affinity = affinity.reshape(len(tile), UPSCALE * UPSCALE)
    first = affinity.argmax(axis=1)
    each = np.arange(len(tile))
    down, right = np.divmod(first, UPSCALE)
    best.offer(person[tile], affinity[each, first], y[each, down] * UPSCALE * maps.width + x[each, right])
