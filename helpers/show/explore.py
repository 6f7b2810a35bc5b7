"""Controls for a notebook: another network, engine, precision or image, and thresholds that follow the mouse.

    explorer = Explorer(Choice("MobileNetv2", "onnxruntime", "force_float32"), images, pipeline.load, models)
    display(explorer.panel())                # drop-down lists and sliders
    explorer.figure()                        # what they start with, as a plain figure, for a run without a browser

A drop-down list loads and decodes again, in seconds; a threshold only paints again, in milliseconds.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Sequence

import cv2
import numpy as np

from helpers import backends, zoo
from helpers.errors import DataError, UsageError
from helpers.images import read_image
from helpers.show import draw, figures

if TYPE_CHECKING:
    from ipywidgets import VBox
    from matplotlib.figure import Figure

    from helpers.pose.decode import Poses
    from helpers.pose.estimator import PoseEstimator

_JPEG_QUALITY = 80  # a widget's image is kept in the notebook's file, too


@dataclass(frozen=True)
class Choice:
    """What the controls stand at."""

    model: str
    backend: str
    precision: str
    image: int = 0  # index among the explorer's images
    keypoint_threshold: float = draw.KEYPOINT_THRESHOLD
    person_threshold: float = draw.PERSON_THRESHOLD


@dataclass(frozen=True)
class Scene:
    """A decoded image, enlarged once, so that painting it again is quick."""

    image: np.ndarray  # (H, W, 3) uint8 BGR
    poses: Poses  # in pixels of `image`

    @classmethod
    def of(cls, image: np.ndarray, poses: Poses) -> Scene:
        """Enlarges an image, (h, w, 3) uint8 BGR, and the people in its pixels."""
        big, [scaled] = draw.enlarged(image, poses)
        scaled.keypoints[..., 2] = np.minimum(
            scaled.keypoints[..., 2], 1
        )  # as the slider; hills may be a little higher
        return cls(big, scaled)

    def paint(self, choice: Choice) -> np.ndarray:
        """Paints the people and keypoints that reach the thresholds, (H, W, 3) uint8 BGR."""
        return draw.draw_poses(self.image, self.poses, choice.keypoint_threshold, choice.person_threshold)

    def counts(self, choice: Choice) -> str:
        """Says how many people and keypoints the thresholds show."""
        likely = self.poses.scores >= choice.person_threshold
        keypoints = int((self.poses.keypoints[likely, :, 2] > choice.keypoint_threshold).sum())
        return (
            f"{likely.sum()} of {len(likely)} people score {choice.person_threshold:.2f} or more, "
            f"{keypoints} of their {17 * likely.sum()} keypoints above {choice.keypoint_threshold:.2f}"
        )


@dataclass
class Explorer:
    """Networks, engines, precisions and images to choose from; whatever was loaded or decoded is kept.

    `load` makes an estimator of a model, a backend and a precision, given by these names.
    """

    start: Choice
    images: Sequence[Path]
    load: Callable[..., PoseEstimator]
    models: Sequence[str]
    _estimators: dict[tuple[str, str, str], PoseEstimator] = field(default_factory=dict, init=False)
    _scenes: dict[tuple[str, str, str, int], Scene] = field(default_factory=dict, init=False)

    def scene(self, choice: Choice) -> Scene:
        """Returns the image of a choice, decoded."""
        engine = (choice.model, choice.backend, choice.precision)
        key = (*engine, choice.image)
        if key not in self._scenes:
            if engine not in self._estimators:
                self._estimators[engine] = self.load(**dict(zip(("model", "backend", "precision"), engine)))
            image = read_image(self.images[choice.image])
            self._scenes[key] = Scene.of(image, self._estimators[engine]([image])[0])
        return self._scenes[key]

    def figure(self) -> Figure:
        """Returns the choice to start with as a figure."""
        scene, at = self.scene(self.start), self.start
        title = f"{at.model}, {at.backend}, {at.precision}: {self.images[at.image].name}"
        return figures.gallery([scene.paint(at)], captions=[scene.counts(at)], title=title)

    def panel(self) -> VBox:
        """Returns the controls over the image, for a notebook to display.

        A choice that does not work is told in one line below the image, which stays as it was.
        """
        import ipywidgets as widgets

        picture = widgets.Image(format="jpeg", layout=widgets.Layout(max_width="100%"))
        told = widgets.HTML()

        def show(**values: Any) -> None:
            choice = Choice(**values)
            try:
                scene = self.scene(choice)
            except (UsageError, DataError) as error:
                told.value = f"<b>{html.escape(str(error))}</b>"
                return
            quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
            picture.value = cv2.imencode(".jpg", scene.paint(choice), quality)[1].tobytes()
            told.value = scene.counts(choice)

        controls = self._controls()
        output = widgets.interactive_output(show, controls)  # shows what a fault of the code prints
        rows = [widgets.HBox(list(controls.values())[at : at + 2]) for at in (0, 2, 4)]
        return widgets.VBox([*rows, picture, told, output])

    def _controls(self) -> dict[str, Any]:
        import ipywidgets as widgets

        here = [name for name in backends.names() if backends.get(name).is_available()[0]]
        builds = {each for name in here for each in backends.get(name).precisions()}
        options = {
            "model": self.models,
            "backend": here,
            "precision": [name for name in zoo.PRECISIONS if name in builds],
            "image": [(path.name, index) for index, path in enumerate(self.images)],
        }
        controls: dict[str, Any] = {}
        for name, value in vars(self.start).items():
            if name in options:
                controls[name] = control = widgets.Dropdown(options=options[name], value=value)
            else:
                controls[name] = control = widgets.FloatSlider(value, min=0.0, max=1.0, step=0.01)
            control.description = {"model": "network", "backend": "engine"}.get(name, name.replace("_", " "))
            control.style.description_width = "130px"
            control.layout.width = "430px"
        return controls
