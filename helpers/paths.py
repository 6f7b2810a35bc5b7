"""Where things live and how files are named.

    data/models/ (or $MODEL_PATH)
      checkpoints/                                    the official weights, as downloaded
      MobileNetv2_demo/                               <model>_<weights tag>
        MobileNetv2_demo_opset17.onnx  (+ .json)
        onnxruntime/MobileNetv2_mmpose_model_force_float32_true  (+ .json)

`artifacts` describes the `.json` files.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from helpers import zoo
from helpers.artifacts import sha256
from helpers.errors import UsageError

WEIGHTS = ("demo", "official", "random")  # or the path of a checkpoint


def root() -> Path:
    """Returns the folder of the repository."""
    return Path(__file__).resolve().parent.parent


def demo_data() -> Path:
    """Returns the folder of the shipped COCO-format set and the demo weights."""
    return root() / "data" / "demo"


def models() -> Path:
    """Returns the folder of everything made from checkpoints: the variable `MODEL_PATH`, else data/models."""
    return _from_environment("MODEL_PATH", root() / "data" / "models")


def coco() -> Path:
    """Returns the folder of the COCO dataset: the variable `COCO_DATASETS_PATH`, else data/coco."""
    return _from_environment("COCO_DATASETS_PATH", root() / "data" / "coco")


def output() -> Path:
    """Returns the folder of executed notebooks, figures, records and results."""
    return root() / "data" / "output"


def demo_scores() -> Path:
    """Returns the folder of the shipped records: the demo weights on all of the demo set."""
    return demo_data() / "scores"


def demo_models() -> list[str]:
    """Lists the networks with shipped demo weights, in the zoo's order."""
    return [name for name in zoo.NETWORKS if demo_weights(name).is_file()]


def demo_weights(model: str) -> Path:
    """Returns the file of a network's shipped weights."""
    return demo_data() / "weights" / f"{model}.npz"


def checkpoint(url: str) -> Path:
    """Returns the place of an official checkpoint, under the name that its publishers gave it."""
    return models() / "checkpoints" / url.rsplit("/", 1)[-1]


def weights_tag(weights: str | os.PathLike[str], digest: str | None = None) -> str:
    """Returns the short name of some weights, part of folder and file names.

    A checkpoint file is named by its stem and the first 8 hex digits of its SHA-256 (`digest`, if it is known), so that
    two checkpoints called `latest.pth` do not mix.
    """
    if weights in WEIGHTS:
        return str(weights)
    path = Path(weights)
    if not path.is_file() and not path.suffix and len(path.parts) == 1:
        raise UsageError(f"There are no weights {str(weights)!r}; use {', '.join(WEIGHTS)} or a checkpoint file.")
    return f"{re.sub(r'[^A-Za-z0-9.-]+', '-', path.stem)}-{(digest or sha256(path))[:8]}"


def onnx_file(model: str, tag: str, opset: int) -> Path:
    """Returns the ONNX file of a network; `tag` is a `weights_tag`."""
    return models() / f"{model}_{tag}" / f"{model}_{tag}_opset{opset}.onnx"


def engine_file(
    model: str,
    tag: str,
    backend: str,
    precision: str,
    dynamic_shape: bool,
    batch_size: int,
    input_type: str = "float32",
) -> Path:
    """Returns the file of a built model, named as in the sample."""
    name = f"{model}_mmpose_model_{precision}_{str(dynamic_shape).lower()}"
    name += "" if dynamic_shape else f"_{batch_size}"  # a dynamic one takes any
    name += "" if input_type == "float32" else f"_{input_type}"  # the sample has no other
    return models() / f"{model}_{tag}" / backend / name


def _from_environment(variable: str, otherwise: Path) -> Path:
    """Returns a folder from the environment; a relative one starts at the repository, wherever the caller stands."""
    value = os.environ.get(variable)
    return root() / Path(value).expanduser() if value else otherwise
