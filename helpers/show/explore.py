"""Controls for a notebook: another network, engine, precision or image, and thresholds that follow the mouse.

    explorer = Explorer(Choice("MobileNetv2", "onnxruntime", "force_float32"), images, pipeline.load)
    display(explorer.panel())                # drop-down lists and sliders
    explorer.figure()                        # what they start with, as a plain figure, for a run without a browser

A drop-down list loads what it takes and decodes again, in seconds; a threshold only paints again what is decoded, in
milliseconds.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
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
    """What the controls stand at.

    Attributes:
        model, backend, precision: names, as everywhere.
        image: index among the explorer's images.
        keypoint_threshold, person_threshold: keypoints and people with a lower score are not shown.
    """

    model: str
    backend: str
    precision: str
    image: int = 0
    keypoint_threshold: float = draw.KEYPOINT_THRESHOLD
    person_threshold: float = draw.PERSON_THRESHOLD


@dataclass(frozen=True)
class Scene:
    """A decoded image, enlarged once, so that painting it again is quick.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        poses: the people, in pixels of `image`.
    """

    image: np.ndarray
    poses: Poses

    @classmethod
    def of(cls, image: np.ndarray, poses: Poses) -> Scene:
        """Takes an image of any size, (h, w, 3) uint8 BGR, and the people in its pixels.

        Keypoint scores end at 1, as the slider does: a network's hills may be a little higher.
        """
        big, [scaled] = draw.enlarged(image, poses)
        scaled.keypoints[..., 2] = np.minimum(scaled.keypoints[..., 2], 1)
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


class Explorer:
    """Networks, engines, precisions and images to choose from; whatever was loaded or decoded is kept.

    Args:
        start: where the controls stand at first.
        images: image files.
        load: makes an estimator of a model, a backend and a precision, given by these names.
        models: networks to offer.
    """

    def __init__(
        self,
        start: Choice,
        images: Sequence[Path],
        load: Callable[..., PoseEstimator],
        models: Sequence[str] = tuple(zoo.NETWORKS),
    ) -> None:
        self.start = start
        self.images = list(images)
        self.models = list(models)
        self._load = load
        self._estimators: dict[tuple[str, str, str], PoseEstimator] = {}
        self._scenes: dict[tuple[str, str, str, int], Scene] = {}

    def scene(self, choice: Choice) -> Scene:
        """Returns the image of a choice, decoded.

        Raises:
            UsageError, DataError: as the loader.
        """
        engine = (choice.model, choice.backend, choice.precision)
        key = (*engine, choice.image)
        if key not in self._scenes:
            if engine not in self._estimators:
                self._estimators[engine] = self._load(**dict(zip(("model", "backend", "precision"), engine)))
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
        controls: dict[str, Any] = {
            name: widgets.Dropdown(options=offered, value=getattr(self.start, name))
            for name, offered in options.items()
        }
        for name in ("keypoint_threshold", "person_threshold"):
            controls[name] = widgets.FloatSlider(getattr(self.start, name), min=0.0, max=1.0, step=0.01)
        for name, control in controls.items():
            control.description = {"model": "network", "backend": "engine"}.get(name, name.replace("_", " "))
            control.style.description_width = "130px"
            control.layout.width = "430px"
        return controls
