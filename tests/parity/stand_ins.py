"""Stand-ins for two packages that mmpose 0.29.0 and mmcv 1.7.0 import at their top level.

We install neither torchvision nor xtcocotools (the reasons are in requirements-mmpose.txt), and next to nothing that
is called here needs them: torchvision's modules are empty but for `normalize`, and xtcocotools is the pycocotools of
which it is a fork. Importing this module puts them in place, so it comes before mmpose.
"""

from __future__ import annotations

import sys
import types
from importlib.machinery import PathFinder

import pycocotools
import pycocotools.coco
import pycocotools.cocoeval
import pycocotools.mask
import torch


def normalize(tensor: torch.Tensor, mean: list[float], std: list[float], inplace: bool = False) -> torch.Tensor:
    """As `torchvision.transforms.functional.normalize`: (..., C, H, W) minus mean, over std, channel by channel."""
    if not tensor.is_floating_point():
        raise TypeError(f"Input tensor should be a float tensor. Got {tensor.dtype}.")
    if tensor.ndim < 3:
        raise ValueError(f"Expected tensor to be a tensor image of size (..., C, H, W). Got {tuple(tensor.shape)}.")
    if not inplace:
        tensor = tensor.clone()
    mean, std = (torch.as_tensor(each, dtype=tensor.dtype, device=tensor.device) for each in (mean, std))
    if (std == 0).any():
        raise ValueError(f"std evaluated to zero after conversion to {tensor.dtype}, leading to division by zero.")
    mean, std = (each.view(-1, 1, 1) if each.ndim == 1 else each for each in (mean, std))
    return tensor.sub_(mean).div_(std)


def _module(name: str, **content) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__version__ = "0.0.0"  # mmcv asks whether it is below 0.13
    module.__path__ = []
    vars(module).update(content)
    return module


def _stand_in(package: str, modules: dict[str, types.ModuleType]) -> None:
    """Serves `import package` and its submodules from `modules`, unless the real package is installed."""
    if PathFinder.find_spec(package) is not None:
        return
    for name, module in modules.items():
        sys.modules.setdefault(name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, sys.modules[name])


_stand_in(
    "torchvision",
    {
        "torchvision": _module("torchvision"),
        "torchvision.transforms": _module("torchvision.transforms"),
        "torchvision.transforms.functional": _module("torchvision.transforms.functional", normalize=normalize),
    },
)
_stand_in(
    "xtcocotools",
    {
        "xtcocotools": pycocotools,
        "xtcocotools.coco": pycocotools.coco,
        "xtcocotools.cocoeval": pycocotools.cocoeval,
        "xtcocotools.mask": pycocotools.mask,
    },
)
