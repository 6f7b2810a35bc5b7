"""The same poses scored by mmpose's own BottomUpCocoDataset and by us: same list, same ten numbers."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
from pathlib import Path

import cv2
import mmcv
import mmpose
import numpy as np
import pytest
from mmcv import Config
from mmpose.datasets import DatasetInfo
from mmpose.datasets.datasets.bottom_up import bottom_up_coco
from pycocotools.cocoeval import COCOeval

from helpers.dataset import CocoDataset
from helpers.keypoints import COCO17
from helpers.measure.evaluate import evaluate, save_pickle, to_coco_results
from helpers.pose.decode import Poses

CONFIGS = Path(mmpose.__file__).parent / ".mim/configs/body/2d_kpt_sview_rgb_img/associative_embedding/coco"
OFFICIAL = ("hrnet_w32_coco_512x512.py", "res50_coco_512x512.py", "mobilenetv2_coco_512x512.py")


class XtCOCOeval(COCOeval):
    """xtcocotools' evaluation, which mmpose calls and which does not import with numpy 2.

    xtcocotools is a fork of pycocotools. Read side by side (jin-s13/xtcocoapi, xtcocotools/cocoeval.py), it
    differs for `keypoints` in three things: it takes the sigmas as an argument; it drops found people without
    a keypoint of positive score; and it counts labeled keypoints itself instead of reading `num_keypoints`.
    """

    def __init__(self, truth, found, kind, sigmas):
        super().__init__(truth, found, kind)
        self.params.kpt_oks_sigmas = np.asarray(sigmas)

    def _prepare(self):
        super()._prepare()
        for people in self._dts.values():
            people[:] = [each for each in people if (np.array(each["keypoints"][2::3]) > 0).any()]
        for people in self._gts.values():
            for each in people:
                unlabeled = not (np.array(each["keypoints"][2::3]) > 0).any()
                each["ignore"] = unlabeled or each["iscrowd"]


# ------------------------------------------------------------------------------------------- made-up data


def annotate(generator, image_id: int) -> list[dict]:
    """Random people of all sizes, some partly or not at all labeled, at times a crowd region."""
    people = []
    for _ in range(generator.integers(0, 6)):
        size = np.exp(generator.uniform(np.log(15), np.log(400)))
        left, top = generator.uniform(0, 500, 2)
        visible = generator.choice(3, 17, p=[0.25, 0.15, 0.6]) * (generator.random() > 0.1)
        points = np.round([left, top] + generator.random((17, 2)) * [size * 0.5, size]) * (visible > 0)[:, None]
        people.append(
            {
                "keypoints": np.column_stack([points, visible]).astype(int).ravel().tolist(),
                "num_keypoints": int((visible > 0).sum()),
                "bbox": [left, top, size * 0.5, size],
                "area": size * size * 0.3,
                "iscrowd": 0,
            }
        )
    if generator.random() < 0.15:
        region = {
            "keypoints": [0] * 51,
            "num_keypoints": 0,
            "bbox": [100, 100, 300, 200],
            "area": 6e4,
            "iscrowd": 1,
        }
        people.append(region)
    return [{**each, "image_id": image_id, "category_id": 1} for each in people]


def write_dataset(root: Path, seed: int, images: int, annotated: bool = True) -> CocoDataset:
    """A COCO-format folder; the images are one pixel each, since nobody looks at them."""
    generator = np.random.default_rng(seed)
    image_ids = generator.choice(10_000, images, replace=False).tolist()
    annotations = [each for image_id in image_ids for each in annotate(generator, image_id) if annotated]
    document = {
        "images": [{"id": i, "file_name": f"{i:012}.jpg", "width": 640, "height": 640} for i in image_ids],
        "annotations": [{"id": index, **each} for index, each in enumerate(annotations, start=1)],
        "categories": [{"id": 1, "name": "person"}],
    }
    (root / "annotations").mkdir(parents=True)
    (root / "val2017").mkdir()
    for image in document["images"]:
        cv2.imwrite(str(root / "val2017" / image["file_name"]), np.zeros((1, 1, 3), np.uint8))
    (root / "annotations/person_keypoints_val2017.json").write_text(json.dumps(document))
    return CocoDataset(root)


def find(generator, dataset: CocoDataset, image_id: int) -> Poses:
    """What a fair network would find: shaken people, some missed, some twice, and up to 27 false ones."""
    people = dataset.people(image_id)
    kept = np.flatnonzero(generator.random(len(people)) > 0.2)
    kept = np.concatenate([kept, kept[generator.random(len(kept)) < 0.2]])
    shake = generator.normal(0, 1, (len(kept), 17, 2)) * np.sqrt(people.area[kept])[:, None, None]
    seen = people.keypoints[kept, :, :2] + shake * generator.choice([0.01, 0.05, 0.15], (len(kept), 1, 1))
    false = generator.uniform(0, 600, (generator.choice([0, 0, 1, 3, 27]), 1, 2)) + generator.uniform(0, 150, (17, 2))
    keypoints = np.concatenate([seen, false]).astype(np.float32)
    keypoint_scores = generator.uniform(0, 1, keypoints.shape[:2]).astype(np.float32)
    keypoint_scores[generator.random(keypoint_scores.shape) < 0.1] = 0  # keypoints that were not found
    keypoint_scores[generator.random(len(keypoints)) < 0.02] = 0  # and whole people
    scores = np.round(keypoint_scores.mean(axis=1), 2)  # rounded: some people tie
    tags = generator.normal(size=(len(keypoints), 2)).astype(np.float32)
    return Poses(np.dstack([keypoints, keypoint_scores]), scores.astype(np.float32), tags)


def find_in_some(dataset: CocoDataset, seed: int) -> dict[int, Poses]:
    generator = np.random.default_rng(seed + 1000)
    found = {image_id: find(generator, dataset, image_id) for image_id in dataset.image_ids}
    for image_id in dataset.image_ids[:2]:
        found[image_id] = Poses(*(array[:0] for array in vars(found[image_id]).values()))
    return found


# ----------------------------------------------------------------------------------------- mmpose's side


@pytest.fixture
def mmpose_evaluate(monkeypatch, tmp_path):
    """`BottomUpCocoDataset.evaluate` under an official config -> (the ten numbers, the results list)."""
    monkeypatch.setattr(bottom_up_coco, "COCOeval", XtCOCOeval)

    def run(
        annotation_file: Path, found: dict[int, Poses], config: str = OFFICIAL[0], pickled: Path | None = None
    ) -> tuple[dict, list]:
        settings = Config.fromfile(str(CONFIGS / config)).data.test
        outputs = [
            {
                # mmpose's decoder gives x, y, score and the tags of image and flipped image
                "preds": [
                    np.concatenate([kpts, np.zeros((17, 2))], axis=1, dtype=np.float32) for kpts in each.keypoints
                ],
                "scores": list(each.scores),
                "image_paths": [f"val2017/{image_id:012}.jpg"],
            }
            for image_id, each in found.items()
        ]
        if pickled is not None:
            outputs = mmcv.load(str(pickled))
        with contextlib.redirect_stdout(io.StringIO()):
            theirs = bottom_up_coco.BottomUpCocoDataset(
                str(annotation_file), "val2017", settings.data_cfg, [], settings.dataset_info, test_mode=True
            )
            numbers = theirs.evaluate(outputs, res_folder=str(tmp_path), metric="mAP")
        return dict(numbers), json.loads((tmp_path / "result_keypoints.json").read_text())

    return run


def assert_same_numbers(ours: dict[str, float | None], theirs: dict[str, float]) -> None:
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        if value == -1:  # nobody of that size
            assert ours[name] is None, name
        else:
            assert ours[name] == pytest.approx(value, abs=1e-9), name


# ------------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("seed", range(12))
def test_same_ten_numbers(tmp_path, mmpose_evaluate, seed):
    dataset = write_dataset(tmp_path / "coco", seed, images=30)
    found = find_in_some(dataset, seed)
    ours = evaluate(found, dataset, dataset.image_ids).numbers
    theirs, _ = mmpose_evaluate(dataset.annotation_file, found, OFFICIAL[seed % 3])
    assert 0.02 < theirs["AP"] < 0.9 and len(set(theirs.values())) > 7  # the case is worth something
    assert_same_numbers(ours, theirs)


def test_same_results_list(tmp_path, mmpose_evaluate):
    dataset = write_dataset(tmp_path / "coco", 3, images=30)
    found = find_in_some(dataset, 3)
    _, theirs = mmpose_evaluate(dataset.annotation_file, found)
    # mmpose writes out even people without a keypoint of positive score; xtcocotools then drops them
    counted = [each for each in theirs if any(score > 0 for score in each["keypoints"][2::3])]
    assert len(theirs) > len(counted) > 50
    assert json.loads(json.dumps(to_coco_results(found))) == counted


def test_mmpose_scores_our_pickle(tmp_path, mmpose_evaluate):
    """The file that the sample's `--out x.pkl` writes."""
    dataset = write_dataset(tmp_path / "coco", 3, images=30)
    found = find_in_some(dataset, 3)
    pickled = save_pickle(tmp_path / "x.pkl", found, dataset)
    numbers, results = mmpose_evaluate(dataset.annotation_file, {}, pickled=pickled)
    assert (numbers, results) == mmpose_evaluate(dataset.annotation_file, found)
    assert_same_numbers(evaluate(found, dataset, dataset.image_ids).numbers, numbers)
    with pickled.open("rb") as file:
        first = pickle.load(file)[2]
    assert set(first) == {"preds", "scores", "image_paths", "output_heatmap"}
    assert first["preds"][0].shape == (17, 3 + found[dataset.image_ids[2]].tags.shape[1])
    assert first["preds"][0].dtype == np.float32


def test_same_numbers_on_some_of_the_images(tmp_path, mmpose_evaluate):
    """mmpose scores all images of its file, so its file holds the sample alone; ours holds all."""
    dataset = write_dataset(tmp_path / "coco", 5, images=40)
    found = find_in_some(dataset, 5)
    sample = dataset.sample(15)
    document = json.loads(dataset.annotation_file.read_text())
    document["images"] = [each for each in document["images"] if each["id"] in sample]
    document["annotations"] = [each for each in document["annotations"] if each["image_id"] in sample]
    of_the_sample = tmp_path / "sample.json"
    of_the_sample.write_text(json.dumps(document))
    theirs, _ = mmpose_evaluate(of_the_sample, {image_id: found[image_id] for image_id in sample})
    assert_same_numbers(evaluate(found, dataset, sample).numbers, theirs)
    assert evaluate(found, dataset, dataset.image_ids).numbers["AP"] != theirs["AP"]


def test_same_numbers_when_nobody_is_found(tmp_path, mmpose_evaluate):
    dataset = write_dataset(tmp_path / "coco", 6, images=10)
    theirs, _ = mmpose_evaluate(dataset.annotation_file, {})
    assert_same_numbers(evaluate({}, dataset, dataset.image_ids).numbers, theirs)


def test_same_numbers_when_nobody_is_annotated(tmp_path, mmpose_evaluate):
    dataset = write_dataset(tmp_path / "coco", 7, images=10, annotated=False)
    nobody = write_dataset(tmp_path / "people", 7, images=10)  # same ids, with people to find
    found = find_in_some(nobody, 7)
    theirs, _ = mmpose_evaluate(dataset.annotation_file, found)
    assert set(theirs.values()) == {-1}
    assert_same_numbers(evaluate(found, dataset, dataset.image_ids).numbers, theirs)


@pytest.mark.parametrize("config", OFFICIAL)
def test_no_suppression_of_overlapping_people(config):
    assert not Config.fromfile(str(CONFIGS / config)).data.test.data_cfg.get("use_nms", False)


def test_keypoint_constants_are_mmposes():
    info = DatasetInfo(Config.fromfile(str(CONFIGS / OFFICIAL[0])).data.test.dataset_info)
    assert [info.keypoint_id2name[keypoint] for keypoint in range(17)] == list(COCO17.names)
    assert info.flip_index == list(COCO17.flip_index)
    assert {frozenset(bone) for bone in info.skeleton} == {frozenset(bone) for bone in COCO17.skeleton}
    np.testing.assert_array_equal(info.sigmas, COCO17.sigmas)
