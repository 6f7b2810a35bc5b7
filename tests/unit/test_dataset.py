"""The COCO-format folder: what it gives, and what it says when something is wrong with it."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from helpers.dataset import CocoDataset
from helpers.errors import DataError, UsageError

ANNOTATIONS = "annotations/person_keypoints_val2017.json"


def rewrite(root, change) -> None:
    """Applies `change` to the annotation file's content."""
    path = root / ANNOTATIONS
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_images_come_in_order_of_their_ids(coco_root):
    dataset = CocoDataset(coco_root)
    assert dataset.image_ids == [3, 7, 10, 25]
    assert len(dataset) == 4
    names = {3: "a.jpg", 7: "c.jpg", 10: "b.jpg", 25: "d.jpg"}
    assert list(dataset) == [(image_id, coco_root / "val2017" / name) for image_id, name in names.items()]
    assert dataset.size(25) == (320, 240)


def test_people_are_those_who_are_scored(coco_root):
    dataset = CocoDataset(str(coco_root))
    pair = dataset.people(3)
    assert len(pair) == 2
    assert pair.keypoints.shape == (2, 17, 3) and pair.bbox.shape == (2, 4) and pair.area.shape == (2,)
    assert pair.keypoints[1, 10, 2] == 2 and not pair.keypoints[1, 11:].any()  # eleven keypoints are labeled
    np.testing.assert_array_equal(pair.bbox[0], [20, 10, 100, 200])
    nobody = dataset.people(7)
    assert len(nobody) == 0 and nobody.keypoints.shape == (0, 17, 3) and nobody.bbox.shape == (0, 4)
    assert len(dataset.people(10)) == 0  # a crowd region and a person without labeled keypoints


def test_another_split_is_another_folder(coco_root):
    (coco_root / "val2017").rename(coco_root / "calibration")
    (coco_root / ANNOTATIONS).rename(coco_root / "annotations/person_keypoints_calibration.json")
    assert len(CocoDataset(coco_root, split="calibration")) == 4


def test_sample_is_seeded_nested_and_without_repeats(coco_root):
    def make_many(document):
        document["images"] = [{**document["images"][0], "id": image_id} for image_id in range(1, 101)]
        document["annotations"] = []

    rewrite(coco_root, make_many)
    dataset = CocoDataset(coco_root)
    ten, thirty = dataset.sample(10), dataset.sample(30)
    assert ten == sorted(set(ten)) and len(ten) == 10 and len(thirty) == 30
    assert set(ten) < set(thirty)
    assert ten == CocoDataset(coco_root).sample(10, seed=0)
    assert ten != dataset.sample(10, seed=1)
    assert ten != list(range(1, 11))  # not a prefix
    assert dataset.sample(100) == dataset.sample(None) == list(range(1, 101))
    assert ten == [2, 8, 9, 12, 14, 24, 49, 55, 92, 95]  # on every machine and Python version


@pytest.mark.parametrize("count", [0, -1, 5])
def test_sample_of_no_possible_size(coco_root, count):
    with pytest.raises(UsageError, match=f"from 1 to 4, .* not {count}"):
        CocoDataset(coco_root).sample(count)


def test_sample_of_a_negative_seed(coco_root):
    with pytest.raises(UsageError, match="seed must be 0 or more, not -1"):
        CocoDataset(coco_root).sample(2, seed=-1)


def test_unknown_image(coco_root):
    dataset = CocoDataset(coco_root)
    for method in (dataset.path, dataset.size, dataset.people):
        with pytest.raises(UsageError, match=r"no image 4 in .*person_keypoints_val2017.json"):
            method(4)


def test_coco_object_is_quiet(coco_root, capsys):
    coco = CocoDataset(coco_root).coco
    assert sorted(coco.getImgIds()) == [3, 7, 10, 25]
    assert len(coco.getAnnIds(imgIds=3)) == 2
    assert capsys.readouterr() == ("", "")


def test_only_scoring_needs_pycocotools(coco_root, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "pycocotools"]:
        monkeypatch.setitem(sys.modules, name, None)  # what makes `import` fail
    dataset = CocoDataset(coco_root)
    assert len(dataset.people(3)) == 2
    with pytest.raises(UsageError, match="pip install pycocotools"):
        dataset.coco  # noqa: B018 (a property)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".", r"dataset folder .* is missing"),
        (ANNOTATIONS, r"person_keypoints_val2017.json: No such file"),
        ("val2017", r"image folder .*val2017 is missing"),
    ],
)
def test_missing_parts(coco_root, tmp_path_factory, name, message):
    (coco_root / name).resolve().rename(tmp_path_factory.mktemp("away") / "x")
    with pytest.raises(DataError, match=message):
        CocoDataset(coco_root)


def test_missing_images_are_counted(coco_root):
    (coco_root / "val2017/c.jpg").unlink()
    (coco_root / "val2017/d.jpg").unlink()
    with pytest.raises(DataError, match=r"2 of 4 images are missing, first .*c\.jpg"):
        CocoDataset(coco_root)


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[: len(whole) // 2], lambda whole: b"", lambda whole: b"\xff" + whole]
)
def test_damaged_annotations(coco_root, damage):
    path = coco_root / ANNOTATIONS
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"person_keypoints_val2017.json are not valid JSON"):
        CocoDataset(coco_root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.pop("annotations"), "have no 'annotations'"),
        (lambda document: document.pop("categories"), "have no 'categories'"),
        (lambda document: document["images"].clear(), "list no image"),
        (lambda document: document["categories"][0].update(name="cat"), "no category 'person'"),
        (lambda document: document["annotations"][1].pop("area"), "Annotation 2 in .* has no usable 'area'"),
        (lambda document: document["annotations"][4].update(keypoints=[0] * 42), "42 keypoint numbers instead of 51"),
        (lambda document: document["annotations"][0].update(id=0), "Annotation 0 in .* has an id below 1"),
        (lambda document: document["annotations"][0].update(keypoints=None), "1 in .* has no usable 'keypoints'"),
        (lambda document: document["annotations"][0].update(keypoints=["a"] * 51), "1 in .* that are not numbers"),
        (lambda document: document["annotations"][0].update(bbox=[1, 2]), "1 in .* has a box of 2 numbers"),
        (lambda document: document["annotations"].append("person"), "'annotations' in .* must be a list of objects"),
        (lambda document: document["categories"].insert(0, "person"), "'categories' in .* must be a list of objects"),
        (lambda document: document["categories"][0].pop("id"), "no category 'person' with an id"),
        (lambda document: document.update(images={"id": 3}), "'images' in .* must be a list of objects"),
        (lambda document: document["images"][0].pop("id"), "Image None in .* has no usable 'id'"),
        (lambda document: document["images"][0].pop("file_name"), "Image 10 in .* has no usable 'file_name'"),
        (lambda document: document["images"][0].pop("width"), "Image 10 in .* has no usable 'width'"),
        (lambda document: document["images"][0].update(height=None), "Image 10 in .* has no usable 'height'"),
    ],
)
def test_unfit_annotations(coco_root, change, message):
    rewrite(coco_root, change)
    with pytest.raises(DataError, match=message) as caught:
        CocoDataset(coco_root)
    assert str(coco_root / ANNOTATIONS) in str(caught.value)


@pytest.mark.parametrize(
    ("info", "description"),
    [({"description": "COCO 2017 Dataset"}, "COCO 2017 Dataset"), ({}, ""), (None, ""), ({"description": None}, "")],
)
def test_description(coco_root, info, description):
    assert CocoDataset(coco_root).description == "", "a file without info"
    rewrite(coco_root, lambda document: document.update(info=info))
    assert CocoDataset(coco_root).description == description


def test_a_list_is_not_an_annotation_file(coco_root):
    (coco_root / ANNOTATIONS).write_text("[1, 2]")
    with pytest.raises(DataError, match="have no 'images'"):
        CocoDataset(coco_root)


def test_other_categories_are_not_people(coco_root):
    def add_dog(document):
        document["categories"].insert(0, {"id": 18, "name": "dog"})
        document["annotations"].append({"id": 99, "image_id": 7, "category_id": 18, "bbox": [0, 0, 5, 5]})

    rewrite(coco_root, add_dog)
    dataset = CocoDataset(coco_root)
    assert dataset.category_id == 1
    assert len(dataset.people(7)) == 0
