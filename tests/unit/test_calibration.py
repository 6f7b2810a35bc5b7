"""A calibration set is a seeded sample of different images, none of them scored, read one at a time."""

from __future__ import annotations

import json
import shutil
import types

import cv2
import numpy as np
import pytest

from helpers import artifacts, paths
from helpers.backends import calibration
from helpers.backends.calibration import CalibrationSet
from helpers.dataset import CocoDataset
from helpers.errors import DataError, UsageError
from helpers.images import read_image
from helpers.pose.preprocess import resize_align, to_input


@pytest.fixture
def images(tmp_path):
    """A plain folder of three images of different content and shape."""
    random = np.random.default_rng(0)
    for name, (height, width) in {"a.png": (64, 64), "b.png": (64, 96), "c.png": (128, 64)}.items():
        cv2.imwrite(str(tmp_path / name), random.integers(0, 256, (height, width, 3), np.uint8))
    return tmp_path


def test_default_is_the_demo_datas_own_split():
    chosen = CalibrationSet()
    assert (len(chosen), chosen.method) == (calibration.DEFAULT_COUNT, "minmax")
    assert {path.parent for path in chosen.files} == {paths.demo_data() / "calib2017"}
    chosen.refuse(CocoDataset(paths.demo_data(), "val2017"))


def test_sample_is_seeded_and_grows():
    small, large, other = (CalibrationSet(count=n, seed=s) for n, s in ((4, 0), (9, 0), (4, 1)))
    assert small.files == CalibrationSet(count=4).files
    assert set(small.files) < set(large.files)
    assert small.files != other.files


def test_plain_folder(images):
    assert [path.name for path in CalibrationSet(images, count=None).files] == ["a.png", "b.png", "c.png"]
    assert len(CalibrationSet(images, count=2)) == 2
    with pytest.raises(UsageError, match="from 1 to 3"):
        CalibrationSet(images, count=4)
    with pytest.raises(DataError, match="no image folder"):
        CalibrationSet(images / "gone")


def test_each_image_is_read_as_the_network_sees_it(images):
    chosen = CalibrationSet(images, count=None)
    assert isinstance(chosen.batches(), types.GeneratorType)
    batches = list(chosen.batches())
    assert [batch.shape for batch in batches] == [(1, 3, 512, 512), (1, 3, 512, 768), (1, 3, 1024, 512)]
    for path, batch in zip(chosen.files, batches):
        np.testing.assert_array_equal(batch, to_input([resize_align(read_image(path))[0]]))
    assert len({batch.tobytes() for batch in batches}) == 3  # the sample's loop repeats the first


def test_fixed_shape(images):
    square = list(CalibrationSet(images, count=None, input_shape=(512, 512)).batches())
    assert {batch.shape for batch in square} == {(1, 3, 512, 512)}
    middle = resize_align(read_image(images / "b.png"))[0][:, 128:640]
    np.testing.assert_array_equal(square[1], to_input([middle]))
    [_, _, tall] = CalibrationSet(images, count=None, input_shape=(256, 512)).batches()
    assert tall.shape == (1, 3, 256, 512)
    np.testing.assert_array_equal(tall[0, :, 100, 0], to_input([np.zeros((1, 1, 3), np.uint8)])[0, :, 0, 0])


def test_description_tells_sets_apart(images):
    kinds = [{}, {"method": "entropy"}, {"count": 2}, {"seed": 1, "count": 2}, {"input_shape": (512, 512)}]
    told = [json.dumps(CalibrationSet(images, **{"count": 3, **kind}).describe()) for kind in kinds]
    assert len(set(told)) == len(kinds)
    hashes = [artifacts.sha256(path) for path in sorted(images.iterdir())]
    wanted = {"images": hashes, "count": 3, "method": "minmax", "seed": 0, "shape": "each its own"}
    assert json.loads(told[0]) == wanted
    cv2.imwrite(str(images / "a.png"), np.zeros((64, 64, 3), np.uint8))  # the same name, another image
    assert json.dumps(CalibrationSet(images, count=3).describe()) != told[0]


def test_scored_images_are_refused_under_any_name(tmp_path):
    scored = CocoDataset(paths.demo_data(), "val2017")
    with pytest.raises(UsageError, match="8 of 8 calibration images are also scored"):
        CalibrationSet(paths.demo_data(), "val2017", 8).refuse(scored)
    shutil.copy(scored.path(scored.image_ids[0]), tmp_path / "renamed.jpg")
    shutil.copy(CalibrationSet().files[0], tmp_path / "a.jpg")
    with pytest.raises(UsageError, match=r"1 of 2 calibration images are also scored, first renamed\.jpg"):
        CalibrationSet(tmp_path, count=None).refuse(scored)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"method": "min-max"}, "did you mean minmax"),
        ({"input_shape": (512, 500)}, "multiples of 32"),
        ({"count": 0}, "from 1 to 80"),
        ({"count": 81}, "from 1 to 80"),
    ],
)
def test_nonsense_is_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        CalibrationSet(**wrong)
