"""Weights -> ONNX -> engine -> estimator: the front door that notebooks, commands, controls and workers share.

    estimator = pipeline.load("HRNet", backend="openvino", precision="qint8_mixed_float16")
    [poses] = estimator(["people.jpg"])

What is there already and current is used again; what is missing is exported, calibrated and built on the way.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import backends, paths, zoo
from helpers.backends.calibration import DEFAULT_COUNT, DEFAULT_SPLIT, CalibrationSet
from helpers.dataset import CocoDataset
from helpers.errors import DataError, UsageError
from helpers.measure import evaluate
from helpers.pose.estimator import PoseEstimator

if TYPE_CHECKING:
    from helpers.backends import Backend, BuildSpec, Engine


@dataclass(frozen=True)
class Job:
    """One engine, and what it runs on: all that decides it, in one value that travels.

    Raises:
        UsageError: on construction, if there is no such network.
    """

    model: str = "MobileNetv2"
    weights: str = "demo"  # or official, random, or a checkpoint file
    backend: str = "onnxruntime"
    spec: BuildSpec = field(default_factory=backends.BuildSpec)  # precision and shapes
    device_id: int = 0  # number of the card; 0 on a CPU
    mlu_arch: tuple[str, ...] = ()  # what MagicMind compiles for; () for its default
    calibration_data: Path | None = None  # COCO-format or plain folder; None for what the weights were trained for
    calibration_split: str = DEFAULT_SPLIT  # part of a COCO-format folder
    calibration_num: int = DEFAULT_COUNT
    calibration_method: str = "minmax"  # one of `calibration.METHODS`
    max_drop: float | None = None  # AP that a qint precision may lose; its worst layers stay in float
    data: Path | None = None  # COCO-format folder to measure on; None for what the weights were trained for
    split: str = "val2017"

    def __post_init__(self) -> None:
        """Checks the name."""
        zoo.get(self.model)

    def __str__(self) -> str:
        """Returns the job in a few words, for progress and errors."""
        return f"{self.model}, {self.weights} weights, {self.spec.precision}, batch {self.spec.batch_size}"

    def library(self) -> Backend:
        """Returns the backend, whether or not it can run here; a UsageError if it has no such device."""
        library = backends.get(self.backend, mlu_arch=self.mlu_arch)
        if not library.on_cpu:
            return library.configured(device_id=self.device_id)  # calibration needs the card too
        library.require_device(self.device_id)
        return library

    def dataset(self) -> CocoDataset:
        """Opens the dataset to measure on; a DataError if it is not there, or is damaged."""
        home = self._home()
        if self.data is None and not home.is_dir():
            raise DataError(f"COCO is not at {home}; `python -m helpers fetch --coco`, or set COCO_DATASETS_PATH.")
        return CocoDataset(self.data or home, self.split)

    def calibration(self, scored: CocoDataset | None = None) -> CalibrationSet | None:
        """Returns the images to calibrate with; None for precisions that need none.

        Raises:
            UsageError: images of `scored`, on which accuracy is measured, are among them.
        """
        if not self.spec.needs_calibration:
            return None
        shape = None if self.spec.dynamic_shape else self.spec.input_shape
        images = CalibrationSet(
            *self._calibration_source(), self.calibration_num, self.calibration_method, input_shape=shape
        )
        if scored is not None:
            images.refuse(scored)
        return images

    def _home(self) -> Path:
        """Returns the folder of the dataset that the weights were trained for."""
        return paths.coco() if self.weights == "official" else paths.demo_data()

    def _calibration_source(self) -> tuple[Path, str]:
        return self.calibration_data or self._home(), self.calibration_split


def onnx_file(job: Job) -> Path:
    """Exports the network of a job, of the opset that its backend parses, or finds the file exported before.

    Where torch and mmpose are missing, as in a MagicMind container, the file has to have been copied there.
    """
    opset = job.library().opset
    if can_export():
        from helpers.export import export

        return export.export(job.model, job.weights, opset)
    return paths.onnx_file(job.model, paths.weights_tag(job.weights), opset)


def build(job: Job, scored: CocoDataset | None = None) -> Path:
    """Builds the engine of a job, or finds the one built before; returns the file, with its sidecar.

    Raises:
        UsageError: the backend does not build that, or calibration would use images of `scored`.
        DataError: something that is needed is missing or damaged.
    """
    library = job.library()
    if job.max_drop is not None and not library.on_cpu:
        raise UsageError("--max-drop is for CPU engines; MagicMind takes no layers to leave in float.")
    library.require(job.spec.precision)  # before the export, which takes longer
    images = job.calibration(scored)
    source, spec = onnx_file(job), job.spec
    if images is not None and job.max_drop is not None:
        from helpers.backends import sensitivity

        dataset = CocoDataset(*job._calibration_source())
        spec, _ = sensitivity.within(job.max_drop, source, spec, images, lambda engine: _ap(engine, dataset))
    return library.build(source, spec, images)


def load_engine(job: Job, scored: CocoDataset | None = None) -> Engine:
    """Builds, if need be, and loads the engine of a job; see `build`."""
    return job.library().load(build(job, scored), job.device_id)


def load(
    model: str = "MobileNetv2",
    weights: str = "demo",
    backend: str = "onnxruntime",
    precision: str = "force_float32",
    *,
    batch_size: int = 1,
    dynamic_shape: bool = True,
    flip_test: bool = True,
    scored: CocoDataset | None = None,
    **choices: object,
) -> PoseEstimator:
    """Returns an estimator of a network; exports, calibrates and builds what is not there yet.

    Args:
        model: `HRNet`, `ResNet50`, `MobileNetv2`, or another name in `zoo`.
        weights: `demo`, `official`, `random`, or a checkpoint file.
        backend: one of `backends.names()`.
        precision: one of `zoo.PRECISIONS`.
        batch_size: images in one run of the network, if the shape is not dynamic.
        dynamic_shape: whether batch, height and width are left open.
        flip_test: also run the flipped image and average, as the official accuracy figures do.
        scored: a dataset that accuracy will be measured on; calibration images must not be among it.
        **choices: other fields of `Job`, such as `device_id=1` or `calibration_num=80`.

    Raises:
        UsageError: there is no such network, precision or backend, or the backend does not build that.
        DataError: weights, images or a library are missing or damaged.
    """
    spec = backends.BuildSpec(precision, batch_size, dynamic_shape)
    job = Job(model, weights, backend, spec, **choices)
    return PoseEstimator(load_engine(job, scored), flip_test=flip_test)


def simulate() -> None:
    """Puts the simulator in the place of MagicMind, for this process and those that it starts."""
    folder = str(paths.root() / "simulator")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    others = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each and each != folder]
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *others])


def can_export() -> bool:
    """Tells whether torch and mmpose are installed."""
    return all(importlib.util.find_spec(package) for package in ("torch", "mmcv", "mmpose"))


def _ap(engine: Engine, dataset: CocoDataset) -> float:
    """Average precision of an engine on all of a dataset, with flip test."""
    with engine:
        ap = evaluate.run(PoseEstimator(engine), dataset, dataset.image_ids).stats.numbers["AP"]
    if ap is None:
        raise UsageError(f"{dataset.root / dataset.split} has no annotated people, so AP cannot be measured on it.")
    return ap
