"""BGR image -> network input, exactly as MMPose 0.29's bottom-up test pipeline makes it.

    resized, transform = resize_align(image)      # (h, w, 3) uint8, short side 512, multiples of 64
    batch = to_input([resized])                   # (1, 3, h, w) float32

Results equal mmpose's own to the last bit (tests/parity/test_preprocess.py); the way back is `decode.to_image`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Sequence

import cv2
import numpy as np

from helpers.errors import DataError, UsageError

SIZE_MULTIPLE = 64  # what the deepest network's strides and its up-sampling need
MEAN_RGB = (0.485, 0.456, 0.406)  # ImageNet statistics, which the backbones were trained with
STD_RGB = (0.229, 0.224, 0.225)
MAX_SIDE = 32766  # cv2.warpAffine addresses pixels with 16 signed bits
SCALE_UNIT = 200.0  # MMPose gives `scale` in units of 200 pixels
_MEAN, _STD = np.array([MEAN_RGB, STD_RGB], np.float32)[..., None]
_NORMALIZED = (np.arange(256, dtype=np.float32) / np.float32(255) - _MEAN) / _STD  # (3, 256): of each byte, RGB


@dataclass(frozen=True, eq=False)
class ResizeTransform:
    """How an image was placed on the network's input, in MMPose's words."""

    image_size: tuple[int, int]  # (w, h) of the original image
    base_size: tuple[int, int]  # (w, h) of the network's input
    center: np.ndarray  # (2,) int64, x and y of the original pixel that the middle of the input shows
    scale: np.ndarray  # (2,) float64, extent of the original image that the input shows, in units of 200 pixels

    @property
    def matrix(self) -> np.ndarray:
        """(2, 3) float64 affine, original pixels -> network-input pixels, as `cv2.warpAffine` takes it.

        To lay a heatmap of the input's size over the image:
        `cv2.warpAffine(heatmap, transform.matrix, transform.image_size, flags=cv2.WARP_INVERSE_MAP)`.
        """
        width, height = self.base_size
        # Like MMPose, from the width alone: the scale is the same along both axes.
        return cv2.getAffineTransform(
            _three_corners(self.center, self.scale[0] * SCALE_UNIT),
            _three_corners((width * 0.5, height * 0.5), width),
        )


def resize_align(image: np.ndarray, input_size: int = 512) -> tuple[np.ndarray, ResizeTransform]:
    """Scales an image so that its short side is `input_size`, and pads it to multiples of 64 with black.

    Takes and returns (H, W, 3) uint8. The long side keeps the aspect ratio and is rounded up to a multiple of 64; the
    strip that this adds is split between both ends. Source: mmpose 0.29.0's `BottomUpGetImgSize` and
    `BottomUpResizeAlign` (mmpose/datasets/pipelines/bottom_up_transform.py) with `test_scale_factor=[1]`.

    Raises:
        DataError: the image is too long, or too long and thin, to be resized.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise UsageError(f"An image must be (H, W, 3) uint8, not {image.shape} {image.dtype}.")
    if input_size < 1:
        raise UsageError(f"The input size must be positive, not {input_size}.")
    transform = _place(image.shape[1], image.shape[0], input_size)
    return cv2.warpAffine(image, transform.matrix, transform.base_size), transform


def to_input(resized_images: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Turns images of one shape, (h, w, 3) uint8 BGR, into the networks' input, (N, 3, h, w) float32 RGB, normalized.

    Equal to mmpose's `ToTensor` and `NormalizeTensor` to the last bit: a channel has 256 possible values, so each is
    computed once, in mmpose's order of float32 operations, and looked up.
    """
    shapes = sorted({image.shape for image in resized_images})
    if len(shapes) != 1:
        raise UsageError(f"A batch needs one or more images of one shape, not {shapes or 'none'}.")
    height, width, _ = shapes[0]
    batch = np.empty((len(resized_images), 3, height, width), np.float32)
    for image, planes in zip(resized_images, batch):
        for channel_bgr, plane, table in zip(cv2.split(image), planes[::-1], _NORMALIZED[::-1]):
            cv2.LUT(channel_bgr, table, dst=plane)
    return batch


def _place(width: int, height: int, input_size: int) -> ResizeTransform:
    """Does what MMPose's `_get_multi_scale_size` does, in its order of float operations, for equality."""
    short = _round_up(input_size)
    if width < height:
        base_size = short, _round_up(short / width * height)
        scale = width / SCALE_UNIT, base_size[1] / base_size[0] * width / SCALE_UNIT
    else:
        base_size = _round_up(short / height * width), short
        scale = base_size[0] / base_size[1] * height / SCALE_UNIT, height / SCALE_UNIT
    if max(width, height, *base_size) > MAX_SIDE:
        raise DataError(
            f"An image of {width} x {height} pixels needs a {base_size[0]} x {base_size[1]} network input, "
            f"and {MAX_SIDE} is the longest side that works; crop or shrink it."
        )
    # round() takes halves to the even neighbour, so the center of odd sizes may lie half a pixel either way.
    center = np.array([round(width / 2), round(height / 2)])
    return ResizeTransform((width, height), base_size, center, np.array(scale))


def _round_up(length: float) -> int:
    return math.ceil(length / SIZE_MULTIPLE) * SIZE_MULTIPLE


def _three_corners(center: Sequence[float], width: float) -> np.ndarray:
    """Returns the center, the point half a width above it, and its neighbor at a right angle, (3, 2) float32."""
    # Three points fix an affine map. MMPose's `get_affine_transform` takes these and rounds them to float32, which
    # decides the last bits of the map.
    corners = np.empty((3, 2), np.float32)
    corners[0] = center
    corners[1] = center[0], center[1] - width * 0.5
    corners[2] = corners[1] + (corners[1, 1] - corners[0, 1], 0)
    return corners
