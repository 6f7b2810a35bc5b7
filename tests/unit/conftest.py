"""What several test files share: a small COCO-format folder, made from nothing, and an exported network."""

from __future__ import annotations

import json
import os
import sys

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from helpers import artifacts, backends, images, paths
from helpers.backends import magicmind
from helpers.dataset import CocoDataset
from helpers.export import export
from helpers.pose import preprocess
from tests.simulator import FOLDER, MODULES

# A standing person, arms down, in a box of 1 x 1, joints in COCO's order.
STANDING = np.array(
    [
        *[(0.50, 0.08), (0.55, 0.05), (0.45, 0.05), (0.62, 0.07), (0.38, 0.07)],
        *[(0.75, 0.22), (0.25, 0.22), (0.85, 0.38), (0.15, 0.38), (0.90, 0.52), (0.10, 0.52)],
        *[(0.65, 0.52), (0.35, 0.52), (0.65, 0.76), (0.35, 0.76), (0.65, 0.97), (0.35, 0.97)],
    ]
)


def person(image_id: int, left: float, top: float, width: float, height: float, labelled: int = 17) -> dict:
    """A COCO annotation without its `id`; the joints from `labelled` on are not labelled."""
    keypoints = np.zeros((17, 3))
    keypoints[:labelled, :2] = STANDING[:labelled] * (width, height) + (left, top)
    keypoints[:labelled, 2] = 2
    return {
        "image_id": image_id,
        "category_id": 1,
        "keypoints": keypoints.ravel().tolist(),
        "num_keypoints": labelled,
        "bbox": [left, top, width, height],
        "area": width * height * 0.6,
        "iscrowd": 0,
    }


def write_coco(root, images: dict[int, str], annotations: list[dict], split: str = "val2017") -> None:
    """Writes the folder; every image is 320 x 240 and grey."""
    (root / split).mkdir(parents=True)
    (root / "annotations").mkdir()
    for name in images.values():
        cv2.imwrite(str(root / split / name), np.full((240, 320, 3), 128, np.uint8))
    document = {
        "images": [{"id": i, "file_name": name, "width": 320, "height": 240} for i, name in images.items()],
        "annotations": [{"id": index + 1, **each} for index, each in enumerate(annotations)],
        "categories": [{"id": 1, "name": "person"}],
    }
    (root / "annotations" / f"person_keypoints_{split}.json").write_text(json.dumps(document))


@pytest.fixture
def coco_root(tmp_path):
    """Four images: 3 with two large people, 7 empty, 10 with a crowd region, 25 with one medium person."""
    root = tmp_path / "coco"
    crowd = {
        **person(10, 20, 20, 200, 100, labelled=3),
        "iscrowd": 1,
        "segmentation": {"counts": [0], "size": [1, 1]},
    }
    annotations = [
        person(3, 20, 10, 100, 200),
        person(3, 180, 20, 90, 210, labelled=11),
        crowd,
        person(10, 240, 40, 60, 120, labelled=0),
        person(25, 100, 100, 50, 80),
    ]
    write_coco(root, {10: "b.jpg", 3: "a.jpg", 7: "c.jpg", 25: "d.jpg"}, annotations)
    return root


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> dict:
    """Opset -> ONNX file of MobileNetv2 with random weights, compared with PyTorch at a small size only."""
    folder = tmp_path_factory.mktemp("exported")
    return {
        opset: export.export("MobileNetv2", "random", opset, folder / f"{opset}.onnx", shapes=[(128, 192)], batches=[2])
        for opset in export.OPSETS
    }


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """An ONNX file of opset 11 as exported, with one convolution instead of a network: (N, 34, H/4, W/4) at once."""
    path = tmp_path_factory.mktemp("tiny") / "tiny_opset11.onnx"
    weight = np.random.default_rng(0).standard_normal((34, 3, 4, 4)).astype(np.float32)
    ends = [
        helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, "height", "width"]),
        helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 34, "output_height", "output_width"]),
    ]
    node = helper.make_node("Conv", ["input", "weight"], ["output"], strides=[4, 4], kernel_shape=[4, 4])
    graph = helper.make_graph([node], "tiny", ends[:1], ends[1:], [numpy_helper.from_array(weight, "weight")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), str(path))
    facts = {
        "model": "MobileNetv2",
        "weights": "random",
        "weights_sha256": "",
        "weights_file": None,
        "opset": 11,
    }
    artifacts.write_sidecar(path, **facts)
    return path


class Pictures:
    """Pictures of data/demo/calib2017 as a calibration set, small."""

    def __init__(self, count: int = 3, method: str = "minmax", square: bool = False) -> None:
        self.method = method
        dataset = CocoDataset(paths.demo_data(), "calib2017")
        self._files = [dataset.path(image_id) for image_id in dataset.sample(count)] if count else []
        self._square = square

    def describe(self) -> dict:
        return {"images": [path.name for path in self._files], "count": len(self), "method": self.method}

    def __len__(self) -> int:
        return len(self._files)

    def batches(self):
        for path in self._files:
            image = images.read_image(path)
            image = cv2.resize(image, (128, 128)) if self._square else image
            yield preprocess.to_input([preprocess.resize_align(image, 128)[0]])


@pytest.fixture
def pictures():
    """Makes small calibration sets."""
    return Pictures


@pytest.fixture
def simulator(monkeypatch):
    """The simulator in the place of MagicMind, as `pipeline.simulate` puts it there, for one test."""
    monkeypatch.setattr(sys, "path", [FOLDER, *sys.path])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([FOLDER, str(paths.root())]))
    for name, module in MODULES.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def card(simulator, monkeypatch):
    """The same, but it passes for a card."""
    monkeypatch.setattr(magicmind.MagicMindBackend, "version", lambda self: "1.7.0")
    return backends.get("magicmind")


@pytest.fixture
def models(tmp_path, monkeypatch):
    """An empty folder for whatever is made from checkpoints."""
    monkeypatch.setenv("MODEL_PATH", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture(scope="session")
def demo_built(tmp_path_factory):
    """MobileNetv2 with the shipped demo weights, exported and built for ONNX Runtime."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_PATH", str(folder))
        exported = export.export("MobileNetv2", "demo", shapes=[(128, 192)], batches=[1])
        return backends.get("onnxruntime").build(exported, backends.BuildSpec())


@pytest.fixture(scope="module")
def home(tmp_path_factory, demo_built):
    """Models and output in a temporary place; the demo network is exported and built there already.

    Exports are checked at one small size only: that is not what is tested with it.
    """
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_PATH", str(demo_built.parents[2]))
        patch.setattr(paths, "output", lambda: home / "output")
        patch.setattr("helpers.export.export.CHECK_SHAPES", [(128, 192)])
        checks = {**export.export.__kwdefaults__, "shapes": [(128, 192)], "batches": [1]}
        patch.setattr(export.export, "__kwdefaults__", checks)
        yield home


@pytest.fixture(scope="session")
def demo_engine(demo_built):
    """The engine of `demo_built`."""
    return backends.get("onnxruntime").load(demo_built)
