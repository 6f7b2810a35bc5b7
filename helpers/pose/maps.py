"""Network outputs as maps: split into heatmaps and tag maps, flipped back, upsampled to the network's input.

maps = align_maps(output, flipped_output)
heat = enlarge_heatmap(maps, 0)    # (4h, 4w): the nose
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from helpers.errors import DataError, UsageError
from helpers.keypoints import COCO17

UPSCALE = 4  # the output is a quarter of the input, and MMPose decodes at the size of the input
FAR_WEIGHTS = ((np.arange(UPSCALE) + 0.5) / UPSCALE).astype(np.float32)  # of the four pixels between two samples
NEAR_WEIGHTS = 1.0 - FAR_WEIGHTS.astype(np.float64)


@dataclass(frozen=True)
class Maps:
    """Float32 maps of one image (S = 1) or of the image and its flipped copy (S = 2), both upright."""

    sources: np.ndarray  # (S, 17, h, w) heatmaps
    tagmaps: np.ndarray  # (S, 17, h, w)

    @property
    def heatmaps(self) -> np.ndarray:
        """(17, h, w) heatmaps, averaged over the flip test."""
        return _average(self.sources)


def align_maps(output: np.ndarray, flipped_output: np.ndarray | None = None) -> Maps:
    """Splits outputs into heatmaps and tag maps, and flips those of the flipped image back.

    Args:
        output: (34, h, w) network output: 17 heatmaps, then 17 tag maps.
        flipped_output: The same for the flipped image, as the network gave it; None without flip test.
    """
    output, flipped_output = check_shapes(output, flipped_output)
    check_finite(output, flipped_output)
    halves = [output.reshape(2, len(COCO17), *output.shape[1:])]  # (2, 17, h, w)
    if flipped_output is not None:
        halves.append(flipped_output.reshape(halves[0].shape)[:, COCO17.flip_index, :, ::-1])
    sources, tagmaps = np.stack(halves, axis=1)
    return Maps(sources, tagmaps)


def enlarge_heatmap(maps: Maps, keypoint: int) -> np.ndarray:
    """Returns the heatmap of one keypoint, upsampled, then averaged over the flip test: (4h, 4w) float32."""
    return _average(upsample(maps.sources[:, keypoint]))


def upsample(maps: np.ndarray) -> np.ndarray:
    """Upsamples (S, h, w) float32 bilinearly to (S, 4h, 4w), with the bits that torch computes on a CPU with FMA.

    (For maps below 128 pixels, height plus width, torch has another kernel: there last bits differ.)
    """
    return _upsample_axis(np.ascontiguousarray(_upsample_axis(maps, 2)), 1)


def _upsample_axis(maps: np.ndarray, axis: int) -> np.ndarray:
    """Upsamples one axis: four pixels between two samples, two before the first and two behind the last."""
    lines = np.moveaxis(maps, axis, 0)
    count = len(lines)
    lines = np.concatenate((lines[:1], lines, lines[-1:]))
    large = np.empty((UPSCALE * count, *lines.shape[1:]), np.float32)
    for offset in range(UPSCALE):
        first, phase = divmod(offset + UPSCALE // 2, UPSCALE)
        near, far = lines[first : first + count], lines[first + 1 : first + 1 + count]
        # A fused multiply-add rounds one product to float32 and the other not at all; in float64 it is exact.
        large[offset::UPSCALE] = near * NEAR_WEIGHTS[phase, None] + far * FAR_WEIGHTS[phase, None]
    return np.moveaxis(large, 0, axis)


def _average(maps: np.ndarray) -> np.ndarray:
    """Averages over the flip test as torch rounds: (S, ...) -> (...)."""
    return maps[0] if len(maps) == 1 else (maps[0] + maps[1]) / np.float32(2)


def check_shapes(output: np.ndarray, flipped_output: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns both as float32; raises UsageError unless they are (34, h, w) of one size."""
    output = np.asarray(output, np.float32)
    channels = 2 * len(COCO17)
    if output.ndim != 3 or len(output) != channels or not output.size:
        raise UsageError(
            f"output must be ({channels}, h, w) of one image, heatmaps before tag maps; its shape is {output.shape}."
        )
    if flipped_output is None:
        return output, None
    flipped_output = np.asarray(flipped_output, np.float32)
    if flipped_output.shape != output.shape:
        raise UsageError(
            f"flipped_output must have the shape of output, {output.shape}, not {flipped_output.shape}: "
            "run the network on the same image, flipped."
        )
    return output, flipped_output


def check_finite(output: np.ndarray, flipped_output: np.ndarray | None) -> None:
    """Raises DataError, naming the first channel with NaN or infinity."""
    for name, array in (("output", output), ("flipped_output", flipped_output)):
        finite = np.isfinite(output if array is None else array).all(axis=(1, 2))
        if not finite.all():
            channel = int(finite.argmin())
            kind, keypoint = divmod(channel, len(COCO17))
            raise DataError(
                f"{name} holds NaN or infinity in channel {channel}, the {('heatmap', 'tag map')[kind]} of "
                f"{COCO17.names[keypoint]}: check the network's weights, or build it in a precision with a wider range."
            )
