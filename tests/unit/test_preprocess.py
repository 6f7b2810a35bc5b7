"""Resizing and normalizing on known cases."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from helpers.errors import DataError, UsageError
from helpers.pose import decode, preprocess
from helpers.pose.preprocess import resize_align, to_input


def test_landscape_is_placed_in_the_middle():
    resized, transform = resize_align(np.full((480, 640, 3), 200, np.uint8))
    assert resized.shape == (512, 704, 3)  # 640 / 480 * 512 = 682.7, rounded up to 704
    assert transform.image_size == (640, 480) and transform.base_size == (704, 512)
    np.testing.assert_array_equal(transform.center, [320, 240])
    np.testing.assert_allclose(transform.scale, [704 / 512 * 480 / 200, 480 / 200])
    strip = (704 - 640 * 512 / 480) / 2  # 10.7 black columns on either side
    assert (resized[:, : int(strip) - 1] == 0).all() and (resized[:, -int(strip) + 1 :] == 0).all()
    assert (resized[2:-2, int(strip) + 3 : -int(strip) - 3] == 200).all()


def test_portrait_and_square():
    assert resize_align(np.zeros((640, 480, 3), np.uint8))[1].base_size == (512, 704)
    assert resize_align(np.zeros((333, 333, 3), np.uint8))[1].base_size == (512, 512)
    assert resize_align(np.zeros((300, 400, 3), np.uint8), input_size=250)[1].base_size == (384, 256)


def test_points_map_back_to_where_the_pixels_came_from():
    """A dot drawn on the image is found on the input, and its place maps back to the dot."""
    for width, height in ((640, 480), (427, 640), (333, 501), (1000, 337)):
        image = np.zeros((height, width, 3), np.uint8)
        dot = np.array([0.3 * width, 0.7 * height]).round()
        cv2.circle(image, tuple(dot.astype(int).tolist()), 12, (255, 255, 255), -1)
        resized, transform = resize_align(image)
        rows, columns = np.nonzero(resized[..., 0] > 127)
        found = np.array([columns.mean(), rows.mean()])
        person = np.zeros((1, 17, 3), np.float32)
        person[..., :2] = found
        back = decode.to_image(person, transform)[0, 0, :2]
        np.testing.assert_allclose(back, dot, atol=0.5)
        np.testing.assert_allclose(transform.matrix @ [*back, 1], found, atol=1e-3)


def test_matrix_lays_a_heatmap_over_the_image():
    image = np.zeros((480, 640, 3), np.uint8)
    cv2.rectangle(image, (100, 200), (180, 300), (255, 255, 255), -1)
    resized, transform = resize_align(image)
    back = cv2.warpAffine(
        resized, transform.matrix, transform.image_size, flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
    )
    assert back.shape == image.shape
    assert (np.abs(back.astype(int) - image) > 100).mean() < 0.002  # the edge's own pixels


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((0, 10, 3), np.uint8),
    ],
)
def test_resize_of_what_is_not_an_image(image):
    with pytest.raises(UsageError, match=r"must be \(H, W, 3\) uint8"):
        resize_align(image)


def test_resize_to_nothing():
    with pytest.raises(UsageError, match="input size must be positive, not 0"):
        resize_align(np.zeros((10, 10, 3), np.uint8), input_size=0)


@pytest.mark.parametrize("shape", [(5000, 1), (1, 5000), (32767, 600), (600, 40000)])
def test_too_long_and_thin(shape):
    with pytest.raises(DataError, match=f"{shape[1]} x {shape[0]} pixels needs"):
        resize_align(np.zeros((*shape, 3), np.uint8))


def test_longest_side_that_works():
    resized, _ = resize_align(np.full((65, preprocess.MAX_SIDE, 3), 9, np.uint8), input_size=64)
    assert resized.shape == (64, 32320, 3)
    assert (resized[1:-1, 30:-30] == 9).all()


def test_input_is_normalised_rgb():
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 128, 3), dtype=np.uint8)
    batch = to_input(images)
    expected = (images[..., ::-1] / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert batch.shape == (2, 3, 64, 128) and batch.dtype == np.float32 and batch.flags.c_contiguous
    np.testing.assert_allclose(batch, expected.transpose(0, 3, 1, 2), atol=1e-6)
    np.testing.assert_array_equal(to_input(list(images)), batch)
    np.testing.assert_array_equal(to_input([images[1, ::2, ::2]])[0], batch[1, :, ::2, ::2])  # strided input


def test_input_of_unlike_images():
    with pytest.raises(UsageError, match="one shape"):
        to_input([np.zeros((64, 64, 3), np.uint8), np.zeros((64, 128, 3), np.uint8)])
    with pytest.raises(UsageError, match="one shape, not none"):
        to_input([])
