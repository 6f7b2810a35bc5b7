"""Our network input against mmpose's: same pixels, same transform, same float32 values."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from mmpose.datasets.pipelines import BottomUpGetImgSize, BottomUpResizeAlign, Compose, shared_transform
from PIL import Image

from helpers import zoo
from helpers.export.network import official_config
from helpers.images import read_image
from helpers.pose.preprocess import resize_align, to_input

EDGES = [(1, 1), (1, 2), (2, 1), (3, 2), (7, 5), (1, 3), (9, 4), (64, 64), (63, 65), (65, 64)]
MULTIPLES = [
    (512, 512),
    (512, 1024),
    (1024, 512),
    (576, 512),
    (512, 576),
    (256, 256),
    (1024, 1024),
    (513, 512),
]
THIN = [(300, 100), (100, 300), (901, 300), (97, 293), (1500, 491), (200, 641), (50, 400)]
PHOTOS = [
    (640, 480),
    (480, 640),
    (640, 427),
    (427, 640),
    (640, 426),
    (500, 375),
    (333, 500),
    (1280, 720),
    (1920, 1080),
]
PRIMES = [(w, h) for w in (17, 101, 211, 307, 499, 641) for h in (13, 103, 223, 311, 503, 599)]
SIZES = [(w, h) for w, h in EDGES + MULTIPLES + THIN + PHOTOS + PRIMES if max(w, h) <= 20 * min(w, h)]


def noise(width: int, height: int) -> np.ndarray:
    """An image in which every wrong pixel shows."""
    return np.random.default_rng(width * 10_000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def as_tensor(results: dict) -> dict:
    """Takes the place of ToTensor and NormalizeTensor, to look at the resized pixels themselves."""
    return {**results, "img": torch.from_numpy(results["img"].copy())}


def mmpose_resize(image: np.ndarray, input_size: int) -> tuple[np.ndarray, dict]:
    """mmpose's resized image and `ann_info`. (Two equal sides: of one it makes two with np.int, now gone.)"""
    results = {"img": image, "ann_info": {"image_size": np.array([input_size, input_size])}}
    results = BottomUpResizeAlign([as_tensor])(BottomUpGetImgSize([1])(results))
    return results["ann_info"]["aug_data"][0][0].numpy(), results["ann_info"]


def assert_same_transform(transform, info: dict) -> None:
    assert transform.base_size == info["base_size"]
    for ours, theirs in ((transform.center, info["center"]), (transform.scale, info["scale"])):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape


def test_enough_sizes():
    assert len(set(SIZES)) >= 60


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_resized_image_is_bit_identical(width, height):
    image = noise(width, height)
    resized, transform = resize_align(image)
    theirs, info = mmpose_resize(image[..., ::-1].copy(), 512)  # mmpose resizes RGB
    assert_same_transform(transform, info)
    assert resized.dtype == theirs.dtype
    np.testing.assert_array_equal(resized[..., ::-1], theirs)


@pytest.mark.parametrize("input_size", [64, 100, 192, 256, 448, 640])
def test_other_input_sizes(input_size):
    for width, height in [*PHOTOS[:4], *PRIMES[::4], (97, 89)]:
        image = noise(width, height)
        resized, transform = resize_align(image, input_size)
        theirs, info = mmpose_resize(image, input_size)
        assert_same_transform(transform, info)
        np.testing.assert_array_equal(resized, theirs)


@pytest.fixture(scope="module")
def image_files(tmp_path_factory):
    """JPEG as in COCO, one that was taken sideways, gray, PNG with alpha and with 16 bits."""
    folder = tmp_path_factory.mktemp("images")
    smooth = cv2.resize(noise(40, 30), (320, 241), interpolation=cv2.INTER_CUBIC)
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(smooth).save(folder / "plain.jpg", quality=90)
    Image.fromarray(smooth).save(folder / "sideways.jpg", quality=90, exif=exif)
    Image.fromarray(smooth[..., 0]).save(folder / "gray.jpg")
    Image.fromarray(np.dstack([smooth, smooth[..., 0]])).save(folder / "alpha.png")
    cv2.imwrite(str(folder / "deep.png"), noise(211, 307).astype(np.uint16) * 251)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("model", zoo.NETWORKS)
def test_network_input_from_file_is_bit_identical(model, image_files):
    """File to tensor through the official config's own test pipeline; its last step only collects."""
    *steps, collect = official_config(model).data.test.pipeline
    assert collect.type == "Collect"
    pipeline = Compose(steps)
    assert len(image_files) == 5
    for path in image_files:
        results = pipeline({"image_file": str(path), "ann_info": {"image_size": np.array([512, 512])}})
        theirs = results["ann_info"]["aug_data"][0]
        resized, transform = resize_align(read_image(path))
        batch = to_input([resized])
        assert_same_transform(transform, results["ann_info"])
        assert batch.dtype == np.float32 and theirs.dtype == torch.float32
        np.testing.assert_array_equal(batch, theirs.numpy())
        np.testing.assert_array_equal(to_input([cv2.flip(resized, 1)]), torch.flip(theirs, [3]).numpy())


def test_every_byte_is_normalised_alike():
    all_bytes = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    normalize = shared_transform.NormalizeTensor(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    theirs = normalize(shared_transform.ToTensor()({"img": all_bytes}))["img"]
    np.testing.assert_array_equal(to_input([all_bytes])[0], theirs.numpy())
