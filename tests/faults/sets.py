"""COCO-format folders of demo images, as many as asked for."""

from __future__ import annotations

import json
from pathlib import Path

from helpers import paths
from helpers.dataset import CocoDataset


def repeat_demo(root: Path, count: int, distinct: int = 256) -> CocoDataset:
    """A folder of `count` images under new ids: `distinct` demo images again and again, with their people."""
    demo = CocoDataset(paths.demo_data())
    document = json.loads(demo.annotation_file.read_text(encoding="utf-8"))
    sources = {image["id"]: image for image in document["images"]}
    people: dict[int, list[dict]] = {}
    for annotation in document["annotations"]:
        people.setdefault(annotation["image_id"], []).append(annotation)
    chosen = demo.sample(distinct)
    (root / "val2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    images, annotations = [], []
    for image_id in range(1, count + 1):
        source = chosen[(image_id - 1) % distinct]
        images.append({**sources[source], "id": image_id, "file_name": f"{image_id:012}.jpg"})
        (root / "val2017" / images[-1]["file_name"]).symlink_to(demo.path(source))
        annotations += [{**each, "image_id": image_id} for each in people.get(source, [])]
    document["images"] = images
    document["annotations"] = [{**each, "id": k} for k, each in enumerate(annotations, 1)]
    (root / "annotations" / demo.annotation_file.name).write_text(json.dumps(document), encoding="utf-8")
    return CocoDataset(root)
