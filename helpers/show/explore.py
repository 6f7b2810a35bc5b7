"""Controls for a notebook: another network, engine, precision or picture, and thresholds that follow the mouse.

    explorer = Explorer(Choice("MobileNetv2", "onnxruntime", "force_float32"), pictures, weights="demo")
    display(explorer.panel())                # drop-down lists and sliders
    explorer.figure(choice)                  # the same as a plain figure, which a run without a browser keeps

A drop-down list builds what it takes and decodes again, in seconds; a threshold only paints again what is decoded,
with OpenCV, in milliseconds. Callbacks are plain `observe`: `interact` would catch what cells print.
"""

from __future__ import annotations

import html
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping, Sequence

import cv2
import numpy as np

from helpers import backends, paths, zoo
from helpers.backends.calibration import CalibrationSet
from helpers.errors import DataError, UsageError
from helpers.images import read_image
from helpers.pose.estimator import PoseEstimator
from helpers.show import draw

if TYPE_CHECKING:
    from ipywidgets import VBox

    from helpers.pose.decode import Poses

_JPEG_QUALITY = 80  # a widget's picture is kept in the notebook's file, too


@dataclass(frozen=True)
class Choice:
    """What the controls stand at.

    Attributes:
        model, backend, precision: names, as everywhere.
        picture: index among the explorer's pictures.
        joint_threshold: joints with a lower score are not shown.
        person_threshold: people with a lower score are not shown.
    """

    model: str
    backend: str
    precision: str
    picture: int = 0
    joint_threshold: float = draw.JOINT_THRESHOLD
    person_threshold: float = draw.PERSON_THRESHOLD


@dataclass(frozen=True)
class Scene:
    """A decoded picture, enlarged once, so that painting it again is quick.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        poses: the people, in pixels of `image`.
    """

    image: np.ndarray
    poses: Poses

    @classmethod
    def of(cls, image: np.ndarray, poses: Poses) -> Scene:
        """Takes a picture (h, w, 3) uint8 BGR of any size, and the people in its pixels.

        Joint scores end at 1, as the slider does: a network's hills may be a little higher.
        """
        big, [scaled] = draw.enlarged(image, poses)
        scaled.keypoints[..., 2] = np.minimum(scaled.keypoints[..., 2], 1)
        return cls(big, scaled)

    def jpeg(self, joint_threshold: float, person_threshold: float) -> bytes:
        """The picture with the people and joints of at least these scores, as a JPEG file."""
        painted = draw.draw_poses(self.image, self.poses, joint_threshold, person_threshold)
        return cv2.imencode(".jpg", painted, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()

    def counts(self, joint_threshold: float, person_threshold: float) -> str:
        """How many people and joints these thresholds show, and how many they hide, in words."""
        people = self.poses.scores >= person_threshold
        joints = int((self.poses.keypoints[people, :, 2] > joint_threshold).sum())
        return (
            f"{people.sum()} of {len(people)} people score {person_threshold:.2f} or more, "
            f"{joints} of their {17 * people.sum()} joints above {joint_threshold:.2f}"
        )


class Explorer:
    """Networks, engines, precisions and pictures to choose from; whatever was loaded or decoded is kept.

    Args:
        start: where the controls stand at first.
        pictures: image files.
        weights: `demo`, `official`, `random`, or a checkpoint file.
        simulate: whether the magicmind backend runs on its double.
    """

    def __init__(self, start: Choice, pictures: Sequence[Path], weights: str = "demo", simulate: bool = False) -> None:
        self.start = start
        self.pictures = list(pictures)
        self.weights = weights
        self.simulate = simulate
        self._estimators: dict[tuple[str, str, str], PoseEstimator] = {}
        self._scenes: dict[tuple[str, str, str, int], Scene] = {}

    def scene(self, choice: Choice) -> Scene:
        """The picture of a choice, decoded; exported and built on the way if need be.

        Raises:
            UsageError, DataError: there is no such network, weights, engine or precision; or as a build.
        """
        engine = (choice.model, choice.backend, choice.precision)
        key = (*engine, choice.picture)
        if key not in self._scenes:
            if engine not in self._estimators:
                self._estimators[engine] = self._load(*engine)
            image = read_image(self.pictures[choice.picture])
            self._scenes[key] = Scene.of(image, self._estimators[engine]([image])[0])
        return self._scenes[key]

    def figure(self, choice: Choice | None = None) -> Any:
        """A choice, by default the one to start with, as a matplotlib figure."""
        choice = choice or self.start
        scene = self.scene(choice)
        thresholds = (choice.joint_threshold, choice.person_threshold)
        title = f"{choice.model}, {choice.backend}, {choice.precision}: {self.pictures[choice.picture].name}"
        painted = draw.draw_poses(scene.image, scene.poses, *thresholds)
        return draw.pictures_figure([painted], [scene.counts(*thresholds)], title=title)

    def panel(self) -> VBox:
        """The controls over the picture, for a notebook to display.

        A choice that does not work is told in one line below the picture, which stays as it was.
        """
        return _Panel(self).box

    def models(self) -> list[str]:
        """The networks that there are such weights for."""
        return paths.demo_models() if self.weights == "demo" else list(zoo.NETWORKS)

    def engines(self) -> list[str]:
        """The engines that are installed here."""
        return [name for name in backends.names() if self._backend(name).is_available()[0]]

    def precisions(self, backend: str) -> list[str]:
        """The precisions that an engine builds."""
        return list(self._backend(backend).precisions())

    def _backend(self, name: str) -> backends.Backend:
        return backends.get(name, simulate=self.simulate and name == "magicmind")

    def _load(self, model: str, name: str, precision: str) -> PoseEstimator:
        backend = self._backend(name)
        backend.require(precision)
        if importlib.util.find_spec("mmpose"):
            from helpers.export import export

            onnx_file = export.export(model, self.weights, backend.opset)
        else:
            onnx_file = paths.onnx_file(model, paths.weights_tag(self.weights), backend.opset)
        built = backend.build(onnx_file, backends.BuildSpec(precision), CalibrationSet())
        return PoseEstimator(backend.load(built))


class _Panel:
    """The widgets of an explorer and what they do to each other."""

    def __init__(self, explorer: Explorer) -> None:
        import ipywidgets as widgets

        self.explorer, start = explorer, explorer.start
        wide = {"description_width": "120px"}
        names = {path.name: index for index, path in enumerate(explorer.pictures)}

        def choose(description: str, options: Sequence[str] | Mapping[str, int], value: object) -> widgets.Dropdown:
            return widgets.Dropdown(description=description, options=options, value=value, style=wide)

        def slide(description: str, value: float) -> widgets.FloatSlider:
            layout = widgets.Layout(width="420px")
            limits = {"min": 0.0, "max": 1.0, "step": 0.01}
            return widgets.FloatSlider(description=description, value=value, style=wide, layout=layout, **limits)

        self.controls = {
            "model": choose("network", _with(explorer.models(), start.model), start.model),
            "backend": choose("engine", _with(explorer.engines(), start.backend), start.backend),
            "precision": choose("precision", explorer.precisions(start.backend), start.precision),
            "picture": choose("picture", names, start.picture),
            "joint_threshold": slide("joint threshold", start.joint_threshold),
            "person_threshold": slide("person threshold", start.person_threshold),
        }
        self.picture = widgets.Image(format="jpeg", layout=widgets.Layout(max_width="100%"))
        self.told = widgets.HTML()
        rows = [widgets.HBox(list(self.controls.values())[at : at + 2]) for at in (0, 2, 4)]
        self.box = widgets.VBox([*rows, self.picture, self.told])
        self.shown = explorer.scene(start)
        self._repaint()
        self.controls["backend"].observe(self._offer_precisions, names="value")  # before it is looked at
        for name, control in self.controls.items():
            slow = name in ("model", "backend", "precision", "picture")
            control.observe(self._look if slow else self._repaint, names="value")

    def _choice(self) -> Choice:
        return Choice(**{name: control.value for name, control in self.controls.items()})

    def _look(self, _change: object) -> None:
        """Another network, engine, precision or picture: decode, then paint."""
        self.told.value = "one moment ..."
        try:
            self.shown = self.explorer.scene(self._choice())
        except (UsageError, DataError) as error:
            self.told.value = f"<b>{html.escape(str(error))}</b>"
            return
        self._repaint()

    def _repaint(self, _change: object = None) -> None:
        """Other thresholds: paint what is decoded."""
        choice = self._choice()
        thresholds = (choice.joint_threshold, choice.person_threshold)
        self.picture.value = self.shown.jpeg(*thresholds)
        self.told.value = self.shown.counts(*thresholds)

    def _offer_precisions(self, change: Any) -> None:
        """An engine offers what it builds; the chosen precision stays if it is among that."""
        control = self.controls["precision"]
        offered = self.explorer.precisions(change.new)
        kept = control.value if control.value in offered else offered[0]
        with control.hold_trait_notifications():
            control.options = offered
            control.value = kept


def _with(offered: Sequence[str], chosen: str) -> list[str]:
    """What is offered, and what was asked for even if it is not."""
    return list(dict.fromkeys([*offered, chosen]))
