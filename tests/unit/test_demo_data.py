"""The shipped demo set: whole, consistent, and made by the scripts beside it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from helpers import artifacts, paths, zoo
from helpers.dataset import CocoDataset
from helpers.export import network
from helpers.keypoints import COCO17
from helpers.measure import records

DEMO = paths.demo_data()
SPLITS = ("val2017", "calib2017", "hard2017")
sys.path.insert(0, str(DEMO))


def test_every_file_is_the_one_in_the_manifest():
    lines = (DEMO / "MANIFEST.sha256").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    present = {p.relative_to(DEMO).as_posix(): p for kind in ("*.jpg", "*.json", "*.npz") for p in DEMO.rglob(kind)}
    assert set(listed) == set(present)
    changed = [n for n, p in present.items() if hashlib.sha256(p.read_bytes()).hexdigest() != listed[n]]
    assert changed == []
    assert sum(p.stat().st_size for p in present.values()) < 150e6


def test_shipped_scores_are_those_of_the_shipped_weights():
    """All precisions, on all of the scored split, with what chance does."""
    rows, problems = records.load_all(paths.demo_scores())
    assert not problems
    assert {f"{row.name}.json" for row in rows} == {path.name for path in paths.demo_scores().iterdir()}
    cells = [(name, precision) for name in paths.demo_models() for precision in zoo.get(name).published]
    assert sorted((row.model, row.precision) for row in rows) == sorted(cells)
    for row in rows:
        assert row.weights_sha256 == artifacts.sha256(paths.demo_weights(row.model)), (
            "`coco --weights demo` scores anew"
        )
        assert (row.dataset, row.images) == ("demo val2017", len(CocoDataset(DEMO)))
        low, high = row.ap_interval
        assert low < row.ap < high
        assert (row.ap_change is None) == (row.precision == "force_float32")


def test_calibration_pictures_are_never_scored():
    ids = [set(CocoDataset(DEMO, split).image_ids) for split in SPLITS]
    assert sum(map(len, ids)) == len(set.union(*ids))
    digests = [hashlib.sha256(p.read_bytes()).digest() for split in SPLITS for _, p in CocoDataset(DEMO, split)]
    assert len(digests) == len(set(digests))


@pytest.mark.parametrize("split", SPLITS)
def test_annotations_describe_the_pictures(split):
    dataset = CocoDataset(DEMO, split)
    for image_id, path in dataset:
        height, width = cv2.imread(str(path)).shape[:2]
        assert dataset.size(image_id) == (width, height)
        people = dataset.people(image_id)
        labelled = people.keypoints[people.keypoints[..., 2] > 0]
        assert ((labelled[:, :2] >= 0) & (labelled[:, :2] <= [width, height])).all()
        boxes = people.bbox
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 0] + boxes[:, 2] <= width).all()
        assert (boxes[:, 1] + boxes[:, 3] <= height).all()
        assert (people.area <= boxes[:, 2] * boxes[:, 3]).all()


def test_the_scored_split_is_large_and_mixed():
    dataset = CocoDataset(DEMO)
    counts = np.array([len(dataset.people(k)) for k in dataset.image_ids])
    assert len(dataset) >= 200
    assert (counts == 0).sum() >= 10
    assert set(range(1, 6)) <= set(counts)
    assert len({dataset.size(k) for k in dataset.image_ids}) >= 8
    areas = np.concatenate([dataset.people(k).area for k in dataset.image_ids])
    assert ((areas > 32**2) & (areas < 96**2)).sum() > 100
    assert (areas > 96**2).sum() > 100


def test_scenes_are_seeded_and_labels_are_on_the_people():
    from people import PARTS
    from scenes import OCCLUDER, compose, person_masks

    scenes = [compose(np.random.default_rng(5), 480, 360) for _ in range(2)]
    np.testing.assert_array_equal(scenes[0].image, scenes[1].image)
    scene = compose(np.random.default_rng(11), 640, 480)
    for points, mask in zip(scene.keypoints, person_masks(scene)):
        seen = points[points[:, 2] == 2].astype(int)
        near = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))) > 0
        assert near[seen[:, 1], seen[:, 0]].all()
    assert (scene.ids == OCCLUDER).any(), "furniture, whose number is no person's"
    assert scene.ids[scene.ids != OCCLUDER].max() <= len(scene.keypoints) * len(PARTS)


def test_the_body_has_cocos_joints_and_left_is_left():
    from body import KEYPOINTS, Build, Pose, solve

    assert COCO17.names == KEYPOINTS
    points = solve(Pose(), Build())
    for name in KEYPOINTS:
        if name.startswith("left"):
            assert points[name][0] > 0 > points[name.replace("left", "right")][0]
    assert points["nose"][2] > points["head"][2], "the nose is in front"
    assert points["left_ankle"][1] < points["left_knee"][1] < points["left_hip"][1] < points["left_shoulder"][1]


def test_a_crop_keeps_labels_and_parts_on_the_people():
    from people import PARTS
    from render import render_scene
    from train import sample_crop

    scene = render_scene(1)
    rng = np.random.default_rng(3)
    own = wrong = empty = 0  # windows around a joint: with its own side's parts, with the other's alone, with none
    for _ in range(30):
        crop = sample_crop(rng, scene, 256)
        for points in crop["keypoints"]:
            for name, (x, y, seen) in zip(COCO17.names, points):
                if seen and name.endswith(("knee", "elbow")):
                    side = name.split("_")[0]
                    window = crop["parts"][
                        max(int(y / 4) - 2, 0) : int(y / 4) + 3, max(int(x / 4) - 2, 0) : int(x / 4) + 3
                    ]
                    sides = {PARTS[k - 1].split("_")[0] for k in np.unique(window) if k} & {"left", "right"}
                    own += side in sides
                    wrong += bool(sides) and side not in sides
                    empty += not sides
    assert own > 50
    assert wrong == 0
    assert empty < 0.1 * own


def test_training_stops_resumes_and_keeps_the_best(tmp_path, monkeypatch):
    import make_set
    from render import POOL_SEED, write_shard
    from train import export

    write_shard(tmp_path / f"scenes_{POOL_SEED}.npz", POOL_SEED, count=4)
    for split in (make_set.TAG_VALIDATION, make_set.HARD_VALIDATION):
        seed, _, _, recipe = make_set.SPLITS[split]
        monkeypatch.setitem(make_set.SPLITS, split, (seed, 2, 0, recipe))
        make_set.make_split(split, tmp_path)
    command = [sys.executable, "-W", "ignore", str(DEMO / "train.py"), "--pool", str(tmp_path), "--size", "64"]
    command += ["--late-size", "64", "--batch", "2", "--threads", "1", "--float32"]
    for arguments, status, said in (
        ("4", 0, "validation_tags: AP 0.0"),
        ("8 --freeze-norm --bound 1", 0, "resumed at 4 crops"),
        ("10 --teacher MobileNetv2", 1, "learns from None: go on with that --teacher, or move it away"),
    ):
        done = subprocess.run([*command, "--crops", *arguments.split()], capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert said in done.stdout + done.stderr
    checkpoint = tmp_path / "MobileNetv2.ckpt"
    said = export("MobileNetv2", checkpoint, folder=tmp_path)
    assert "average after 4 crops, AP less absurd share 0.000 on validation_tags" in said, "the later were no better"
    best = network.load("MobileNetv2", tmp_path / "MobileNetv2.npz").state_dict()
    assert "as it is after 8 crops" in export("MobileNetv2", checkpoint, raw=True, folder=tmp_path)
    last = network.load("MobileNetv2", tmp_path / "MobileNetv2.npz").state_dict()
    assert any(not value.equal(best[key]) for key, value in last.items())


@pytest.mark.parametrize("model", ["HRNet", "ResNet50"])
def test_a_teacher_reaches_every_layer(model):
    """Its hints alone give a gradient to all but what only heatmaps and parts train."""
    import torch
    from train import Teacher, Trainee, hint_losses

    teacher = Teacher("MobileNetv2")
    trainee = Trainee(model, teacher).train()
    x = torch.from_numpy(network.image_like(2, 64, 64))
    y, told = trainee(x), teacher(x)
    terms = hint_losses(trainee, y, teacher, told, torch.zeros(2, 17, 16, 16))
    sum(terms.values()).backward()
    silent = {name.split(".")[0] for name, p in trainee.named_parameters() if p.grad is None or not p.grad.any()}
    assert silent == {"parts"}
    same = torch.equal(trainee.net.keypoint_head.final_layer.weight, teacher.net.keypoint_head.final_layer.weight)
    assert same == (model == "ResNet50"), "heads of one form begin where the teacher's ended"


def test_annotation_files_name_their_licence():
    for split in SPLITS:
        document = json.loads((DEMO / "annotations" / f"person_keypoints_{split}.json").read_text())
        assert document["licenses"][0]["name"] == "CC0 1.0"
