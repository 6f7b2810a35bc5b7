"""Files in the shape of the official ones: checkpoints of 2020 with our weights, COCO's archives with demo people."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from collections import OrderedDict

import numpy as np
import torch

from helpers import fetch, paths, zoo
from helpers.dataset import CocoDataset
from helpers.export import network


def checkpoint(model: str, weights: str) -> bytes:
    """mmpose's own network as mmcv's runner of 2020 wrote it."""
    state = network.load(model, weights).state_dict()
    meta = {"mmpose_version": "0.6.0", "epoch": 300, "hook_msgs": {"best_score": np.float64(0.38)}, "CLASSES": None}
    document = {
        "meta": meta,
        "state_dict": OrderedDict(state),
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]},
    }
    file = io.BytesIO()
    torch.save(document, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def coco(images: int) -> dict[str, bytes]:
    """COCO's archives and the images of its train2017, by path: so many demo images to score, 80 to train on."""
    annotations, val, site = io.BytesIO(), io.BytesIO(), {}
    with zipfile.ZipFile(annotations, "w", zipfile.ZIP_DEFLATED) as archive, zipfile.ZipFile(val, "w") as images_zip:
        for split, source, count in (("val2017", "val2017", images), ("train2017", "calib2017", None)):
            dataset = CocoDataset(paths.demo_data(), source)
            chosen = set(dataset.sample(count))
            document = json.loads(dataset.annotation_file.read_text(encoding="utf-8"))
            for key, name in (("images", "id"), ("annotations", "image_id")):
                document[key] = [entry for entry in document[key] if entry[name] in chosen]
            archive.writestr(f"annotations/person_keypoints_{split}.json", json.dumps(document))
            for path in (dataset.path(image_id) for image_id in sorted(chosen)):
                if split == "val2017":
                    images_zip.write(path, f"val2017/{path.name}")
                else:
                    site[f"/train2017/{path.name}"] = path.read_bytes()
    return {
        **site,
        "/zips/val2017.zip": val.getvalue(),
        "/annotations/annotations_trainval2017.zip": annotations.getvalue(),
    }


def expect(patch, site: dict[str, bytes]) -> None:
    """Makes the tables of what is to be fetched those of a site, which serves COCO and MMPose."""
    for name in ("VAL_IMAGES", "ANNOTATIONS"):
        place = getattr(fetch, name)[0]
        content = site[f"/{place}"]
        patch.setattr(fetch, name, (place, len(content), hashlib.sha256(content).hexdigest()))
    for model, entry in zoo.NETWORKS.items():
        content = site.get(entry.checkpoint_url[len(fetch.MMPOSE) :])
        if content is not None:
            digest = hashlib.sha256(content).hexdigest()
            patch.setitem(zoo.NETWORKS, model, dataclasses.replace(entry, sha256_prefix=digest[:8]))
