"""A folder in COCO's format -> image ids, image files, and the annotated people.

    <root>/annotations/person_keypoints_<split>.json
    <root>/<split>/000000000139.jpg ...

    dataset = CocoDataset("data/demo")
    people = dataset.people(image_id)   # keypoints (P, 17, 3), bbox (P, 4), area (P,)

Reading the folder needs NumPy alone; pycocotools is imported when an evaluation asks for its COCO object.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, Mapping, Sequence, TypeVar

import numpy as np

from helpers.errors import DataError, UsageError
from helpers.keypoints import COCO17

if TYPE_CHECKING:
    import os

    from pycocotools.coco import COCO

# Required keys of the file's entries, and their types; `null` is as good as absent.
_IMAGE = {"id": int, "file_name": str, "width": int, "height": int}
_ANNOTATION = {"id": int, "image_id": int, "keypoints": list, "num_keypoints": int, "bbox": list}
_ANNOTATION.update(area=(int, float), iscrowd=int)

_Item = TypeVar("_Item", int, str, Path)


@dataclass(frozen=True)
class GroundTruth:
    """The annotated people of one image, those whom the evaluation scores."""

    keypoints: np.ndarray  # (P, 17, 3) float64: x, y in pixels of the image; 0 not labeled, 1 hidden, 2 visible
    bbox: np.ndarray  # (P, 4) float64: left, top, width, height in pixels
    area: np.ndarray  # (P,) float64: square pixels of the person's outline, against which OKS measures errors

    def __len__(self) -> int:
        """Number of people."""
        return len(self.area)


class CocoDataset:
    """Images and people of one split of a COCO-format folder, all checked at once: a long run must not stop half-way.

    `image_ids` ascend; `description`, such as "COCO 2017 Dataset", and `category_id` of "person" are the file's.
    """

    def __init__(self, root: str | os.PathLike[str], split: str = "val2017") -> None:
        """Reads the annotation file; refuses what a run could stumble on: missing images, damaged entries."""
        self.root = Path(root)
        self.split = split
        self.annotation_file = self.root / "annotations" / f"person_keypoints_{split}.json"
        self._document = _read_annotations(self.root, self.annotation_file)
        people = [each["id"] for each in self._document["categories"] if each.get("name") == "person" and "id" in each]
        if not people:
            text = "have no category 'person' with an id; use a COCO person_keypoints file."
            raise DataError(f"The annotations {self.annotation_file} {text}")
        self.category_id = people[0]
        info = self._document.get("info")
        text = info.get("description") if isinstance(info, dict) else None
        self.description = text if isinstance(text, str) else ""
        self._images = _images_by_id(self._document, self.annotation_file)
        self.image_ids = sorted(self._images)
        if not (self.root / split).is_dir():
            raise DataError(f"The image folder {self.root / split} is missing; unpack the images there.")
        missing = [path for _, path in self if not path.is_file()]
        if missing:
            raise DataError(f"{len(missing)} of {len(self)} images are missing, first {missing[0]}; unpack them again.")
        self._people = self._people_by_image()
        self._coco: COCO | None = None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.image_ids)

    def __iter__(self) -> Iterator[tuple[int, Path]]:
        """Yields (image id, path) of every image, in the order of `image_ids`."""
        for image_id in self.image_ids:
            yield image_id, self.path(image_id)

    def path(self, image_id: int) -> Path:
        """Returns the file of an image."""
        return self.root / self.split / self._image(image_id)["file_name"]

    def size(self, image_id: int) -> tuple[int, int]:
        """Returns (w, h) of an image in pixels, as annotated."""
        image = self._image(image_id)
        return image["width"], image["height"]

    def people(self, image_id: int) -> GroundTruth:
        """Returns the annotated people of an image, without crowd regions and people without a labeled keypoint."""
        self._image(image_id)
        people = self._people.get(image_id, [])
        return GroundTruth(
            keypoints=np.array([person["keypoints"] for person in people], np.float64).reshape(-1, len(COCO17), 3),
            bbox=np.array([person["bbox"] for person in people], np.float64).reshape(-1, 4),
            area=np.array([person["area"] for person in people], np.float64),
        )

    def sample(self, count: int | None = None, seed: int = 0) -> list[int]:
        """Draws image ids, see `seeded_sample`."""
        return seeded_sample(self.image_ids, count, seed, self.root)

    @property
    def coco(self) -> COCO:
        """The annotations as its evaluation takes them."""
        if self._coco is None:
            try:
                from pycocotools.coco import COCO
            except ImportError as error:
                raise UsageError("COCO evaluation needs pycocotools; `pip install pycocotools`.") from error
            coco = COCO()
            coco.dataset = self._document
            with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress with print()
                coco.createIndex()
            self._coco = coco
        return self._coco

    def _image(self, image_id: int) -> dict[str, Any]:
        try:
            return self._images[image_id]
        except KeyError:
            raise UsageError(f"There is no image {image_id} in {self.annotation_file}.") from None

    def _people_by_image(self) -> dict[int, list[dict[str, Any]]]:
        """The annotations of the people who are scored, by image id, in the file's order."""
        people: dict[int, list[dict[str, Any]]] = {}
        for annotation in self._document["annotations"]:
            if annotation.get("category_id") != self.category_id:
                continue
            fault = _annotation_fault(annotation)
            if not fault and annotation["image_id"] not in self._images:
                fault = f"is of image {annotation['image_id']}, which the file does not list"
            if fault:
                raise DataError(
                    f"Annotation {annotation.get('id')} in {self.annotation_file} {fault}; correct the file."
                )
            if annotation["num_keypoints"] and not annotation["iscrowd"]:
                people.setdefault(annotation["image_id"], []).append(annotation)
        return people


def seeded_sample(items: Sequence[_Item], count: int | None, seed: int, source: str | os.PathLike[str]) -> list[_Item]:
    """Draws images without replacement: the same ones for the same seed, on any machine.

    A larger sample contains every smaller one of the same seed. The first N would not be a fair choice: a dataset's
    order need not be random. `count` None draws all; `source` is the folder that an error names.
    """
    if seed < 0:  # Python would draw the same ones as for the positive number
        raise UsageError(f"The seed must be 0 or more, not {seed}.")
    if count is None:
        return sorted(items)
    if not 1 <= count <= len(items):
        raise UsageError(f"The number of images must be from 1 to {len(items)}, the size of {source}, not {count}.")
    shuffled = sorted(items)
    random.Random(seed).shuffle(shuffled)
    return sorted(shuffled[:count])


def _read_annotations(root: Path, path: Path) -> dict[str, Any]:
    if not root.is_dir():
        raise DataError(f"The dataset folder {root} is missing; check the path.")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        text = f"Cannot read the annotations {path}: {error.strerror}; unpack COCO's annotations there."
        raise DataError(text) from error
    except ValueError as error:  # also text that is not UTF-8
        text = f"The annotations {path} are not valid JSON ({error}); unpack or download them again."
        raise DataError(text) from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(document, dict) or key not in document:
            raise DataError(f"The annotations {path} have no {key!r}; use a COCO person_keypoints file.")
        entries = document[key]
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DataError(f"The {key!r} in {path} must be a list of objects; use a COCO person_keypoints file.")
    if not document["images"]:
        raise DataError(f"The annotations {path} list no image; use a COCO person_keypoints file.")
    return document


def _images_by_id(document: dict[str, Any], path: Path) -> dict[int, dict[str, Any]]:
    for image in document["images"]:
        fault = _entry_fault(image, _IMAGE)
        if fault:
            raise DataError(f"Image {image.get('id')} in {path} {fault}; correct the file.")
    return {image["id"]: image for image in document["images"]}


def _annotation_fault(annotation: dict[str, Any]) -> str:
    """Why pycocotools would fail on an annotation or score it wrongly; empty if it would not."""
    fault = _entry_fault(annotation, _ANNOTATION)
    if fault:
        return fault
    if len(annotation["keypoints"]) != 3 * len(COCO17):
        return f"has {len(annotation['keypoints'])} keypoint numbers instead of {3 * len(COCO17)}"
    if len(annotation["bbox"]) != 4:
        return f"has a box of {len(annotation['bbox'])} numbers instead of 4"
    if not all(isinstance(number, (int, float)) for number in (*annotation["keypoints"], *annotation["bbox"])):
        return "has keypoints or a box that are not numbers"
    if annotation["id"] < 1:
        return "has an id below 1, which COCO's evaluation takes for 'not matched'"
    return ""


def _entry_fault(entry: dict[str, Any], wanted: Mapping[str, Any]) -> str:
    """What an entry lacks; empty if nothing. `wanted`: key -> its type or types."""
    return next((f"has no usable {key!r}" for key, kind in wanted.items() if not isinstance(entry.get(key), kind)), "")
