"""Zoo entry + weights -> `torch.nn.Module`: mmpose's own networks, without the rest of mmpose.

    module = network.load("MobileNetv2", "demo")          # eval mode
    output = module(batch)                                # (N, 3, H, W) -> (N, 34, H/4, W/4), float32

mmpose and torch are imported when a network is first asked for, so importing this module costs nothing. A network is
the backbone and the keypoint head of mmpose's own configuration, which the wheel carries along; losses, detectors and
data pipelines stay out of the way.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.util
import os
import re
import sys
import types
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, Mapping

import numpy as np

from helpers import artifacts, paths, zoo
from helpers.errors import DataError, UsageError
from helpers.keypoints import COCO17

if TYPE_CHECKING:
    import mmcv
    import torch

STRIDE = 32  # height and width of the input must be multiples of the deepest feature map's stride

_CONFIGS = ".mim/configs/body/2d_kpt_sview_rgb_img/associative_embedding/coco"  # inside the wheel
_RANDOM_RECIPE = "random weights, recipe 1, seed 0"  # to be counted up when `_randomize` changes
_PATCHES = {2: 0.1, 8: 0.3, 32: 0.55, 128: 0.773}  # pixels: strength; their squares add up to 1
_HEATMAP_STD, _TAG_STD = 0.03, 1.0  # of random weights: few samples above the detection threshold of 0.1
_COUNTER = "num_batches_tracked"  # BatchNorm's


def build(model: str) -> torch.nn.Module:
    """Builds a network from mmpose's configuration, in train mode, with whatever weights torch starts it with.

    It makes (N, 34, H/4, W/4) float32, 17 heatmaps and then 17 tag maps, of (N, 3, H, W), multiples of 32. Its keys are
    those of the official checkpoints, `backbone.*` and `keypoint_head.*`.
    """
    zoo.get(model)
    try:
        with warnings.catch_warnings(), _torchvision_placeholder():
            warnings.simplefilter("ignore")  # mmcv 1.x and mmpose 0.x announce their successors
            from mmpose.models.builder import build_backbone, build_head

            config = official_config(model).model
            return _assemble(build_backbone(config.backbone), build_head(config.keypoint_head))
    except ImportError as error:
        raise UsageError(
            f"Networks need torch and mmpose ({error}); install requirements.txt and requirements-mmpose.txt."
        ) from error


def official_config(model: str) -> mmcv.Config:
    """Reads mmpose's own configuration of a network from its wheel."""
    import mmpose
    from mmcv import Config

    return Config.fromfile(str(Path(mmpose.__file__).parent / _CONFIGS / zoo.get(model).config))


def load(model: str, weights: str | os.PathLike[str] = "demo") -> torch.nn.Module:
    """Returns the network of `build` with weights, in eval mode.

    Args:
        model: name of a network in `zoo`.
        weights: `demo` (shipped, trained on rendered people), `official` (trained on COCO by mmpose's authors,
            to be downloaded), `random` (seeded: real speed, no sense), or a file: .npz as `save_npz` writes it,
            or a checkpoint of tensors and plain data that `torch.load` reads, such as one of mmpose's training.
    """
    return load_file(model, find_weights(model, weights).file)


def load_file(model: str, path: Path | None) -> torch.nn.Module:
    """Returns a network with the weights of a file (None: random ones), as `load`."""
    module = build(model)
    if path is None:
        _randomize(module)
    else:
        _fill(module, _read_npz(path) if path.suffix == ".npz" else _read_torch(path), model, path)
    return module.eval()


def image_like(batch: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Returns seeded input with the statistics of normalized photographs, (batch, 3, height, width) float32.

    White noise would not do: a network that averages neighbors sees next to nothing in it. Patches from 2x2 to
    128x128, the larger the stronger, have edges and flat regions as photographs have.
    """
    random = np.random.default_rng(seed)
    images = np.zeros((batch, 3, height, width), np.float32)
    for size, strength in _PATCHES.items():
        patches = random.standard_normal((batch, 3, -(-height // size), -(-width // size)), dtype=np.float32)
        images += strength * patches.repeat(size, axis=2).repeat(size, axis=3)[:, :, :height, :width]
    return images


def describe(module: torch.nn.Module) -> str:
    """Returns parameters and operations for one 512x512 image, two per multiply-add, as they are usually given."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.empty(1, 3, zoo.INPUT_SIZE, zoo.INPUT_SIZE, device="meta")  # a shape without content
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(module).to("meta").eval()(image)
    parameters = sum(each.numel() for each in module.parameters())
    return f"{parameters / 1e6:.2f} M parameters, {counter.get_total_flops() / 1e9:.1f} GFLOP"


def with_separate_halves(module: torch.nn.Module) -> torch.nn.Module:
    """Returns a copy of a network with its last convolution as two, one for the heatmaps and one for the tags.

    It is the same arithmetic. But engines that quantize give a layer's output one scale, and heatmaps from 0 to 1 have
    few steps left on a scale that is made for tags of several units.
    """
    import torch

    class Halves(torch.nn.Module):
        """The last layer's upper and lower half of output channels."""

        def __init__(self, last: torch.nn.Conv2d) -> None:
            super().__init__()
            halves = zip(last.weight.split(len(COCO17)), last.bias.split(len(COCO17)))
            self.heatmaps, self.tags = (_convolution(*half) for half in halves)

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.heatmaps(features), self.tags(features)], dim=1)  # (N, C, h, w) -> (N, 34, h, w)

    network = copy.deepcopy(module).eval()
    network.keypoint_head.final_layer = Halves(network.keypoint_head.final_layer)
    return network


def _convolution(weight: torch.Tensor, bias: torch.Tensor, padding: int = 0, groups: int = 1) -> torch.nn.Conv2d:
    """Returns the convolution with a copy of these weights, (C', C / groups, h, w) and (C',)."""
    import torch

    size = weight.shape[2:]
    layer = torch.nn.Conv2d(groups * weight.shape[1], len(weight), size, padding=padding, groups=groups)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def without_deconvolutions(module: torch.nn.Module) -> torch.nn.Module:
    """Returns a copy of a network with its head's deconvolutions, if any, as convolutions of a quarter of the size.

    An output pixel of such a deconvolution (stride 2, kernel 4) has but 2 x 2 inputs, and which weights they meet
    depends on whether its row and column are even: four convolutions of kernel 2, whose outputs are interleaved. It is
    the same arithmetic, in a form for which CPU engines have their quickest kernels, and int8 ones: ONNX Runtime has
    none for deconvolutions. The last layer works pixel by pixel, so it comes before the interleaving, which then has
    little to move.
    """
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    class Interleaved(torch.nn.Module):
        """Convolution -> ReLU (-> last layers, side by side) for each of four phases -> interleave them."""

        def __init__(self, deconvolution: torch.nn.ConvTranspose2d, last: list[torch.nn.Conv2d]) -> None:
            super().__init__()
            self.convolution = _convolution_of(deconvolution, phases_first=bool(last))
            self.last = torch.nn.ModuleList(
                _convolution(layer.weight.repeat(4, 1, 1, 1), layer.bias.repeat(4), groups=4) for layer in last
            )
            # From phase by phase to channel by channel.
            sizes = [layer.out_channels for layer in self.last] or [0]
            parts = torch.arange(sum(sizes)).split(sizes)
            self.order = torch.cat([part.view(4, -1).T.reshape(-1) for part in parts])

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            phases = torch.relu(self.convolution(features))  # (N, C, h, w) -> (N, 4 C', h + 1, w + 1)
            if self.last:
                phases = torch.cat([layer(phases) for layer in self.last], dim=1)[:, self.order]
            return torch.nn.functional.pixel_shuffle(phases, 2)[:, :, 1:-1, 1:-1]  # (N, C', 2h, 2w)

    network = copy.deepcopy(module).eval()
    head = network.keypoint_head
    layers = list(head.deconv_layers) if isinstance(head.deconv_layers, torch.nn.Sequential) else []
    blocks = []
    for k in range(0, len(layers), 3):
        deconvolution, norm, _relu = layers[k : k + 3]
        last = (list(head.final_layer.children()) or [head.final_layer]) if k + 3 == len(layers) else []
        blocks.append(Interleaved(fuse_conv_bn_eval(deconvolution, norm, transpose=True), last))
    if blocks:
        head.deconv_layers, head.final_layer = torch.nn.Sequential(*blocks), torch.nn.Identity()
    return network


def _convolution_of(deconvolution: torch.nn.ConvTranspose2d, phases_first: bool) -> torch.nn.Conv2d:
    """Returns the convolution that gives a deconvolution's four phases, (N, C, h, w) -> (N, 4 C', h + 1, w + 1).

    Output t of the first phase along an axis is the deconvolution's output 2t - 1, that of the second phase 2t; both
    come from inputs t - 1 and t. The output channels are C' of the first phase, C' of the next ... (`phases_first`), or
    four phases of the first channel, four of the next ..., as interleaving takes them.
    """
    import torch

    taps = torch.tensor([[2, 0], [3, 1]])  # of the deconvolution's kernel: [phase, input t - 1 or t]
    # (C, C', 4, 4) -> (C, C', row phase, row input, column phase, column input)
    weight = deconvolution.weight.detach()[:, :, taps][..., taps]
    weight = weight.permute(1, 2, 4, 0, 3, 5)  # (C', row phase, column phase, C, row input, column input)
    weight, bias = weight.flatten(1, 2), deconvolution.bias.detach()[:, None].expand(-1, 4)
    if phases_first:
        weight, bias = weight.transpose(0, 1), bias.T
    return _convolution(weight.flatten(0, 1), bias.flatten(), padding=1)


@dataclass(frozen=True)
class Weights:
    """Some weights of a network, found and identified."""

    tag: str  # short name, see `paths.weights_tag`
    sha256: str  # of the file; for `random` of the recipe, although sums differ in the last bits between machines
    file: Path | None  # None for `random`


def find_weights(model: str, weights: str | os.PathLike[str]) -> Weights:
    """Finds the weights of a network, as in `load`, and reads their file once, for its hash."""
    network = zoo.get(model)
    if weights == "random":
        return Weights("random", hashlib.sha256(_RANDOM_RECIPE.encode()).hexdigest(), None)
    if weights == "demo":
        path = paths.demo_weights(model)
        if not path.is_file():
            raise DataError(f"There are no demo weights for {model} ({path}); use official or random weights.")
    elif weights == "official":
        path = paths.checkpoint(network.checkpoint_url)
        if not path.is_file():
            raise DataError(
                f"The official weights of {model} are not at {path}; `python -m helpers fetch --model {model}`, or "
                f"copy {network.checkpoint_url} there from elsewhere, or use demo or random weights."
            )
    else:
        path = Path(weights)
    digest = artifacts.sha256(path) if path.is_file() else None
    if weights == "official" and not digest.startswith(network.sha256_prefix):
        raise DataError(
            f"{path} is not the official checkpoint of {model}: its SHA-256 begins with {digest[:8]}, "
            f"not {network.sha256_prefix}; download it again."
        )
    return Weights(paths.weights_tag(weights, digest), digest, path)  # says what is wrong with a file, if anything is


def save_npz(module_or_state: torch.nn.Module | Mapping[str, torch.Tensor], path: str | os.PathLike[str]) -> Path:
    """Writes weights as float16 arrays by key: less than half the size, and readable without torch or unpickling.

    float16 and not int8, although int8 would be smaller: weights that already lie on an int8 grid would make
    quantization look lossless later on. Of a kernel's 10 bits after the leading one 8 are kept, which zip packs a tenth
    smaller; training in bfloat16 computes with 7. BatchNorm's batch counters are left out; nothing needs them.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise UsageError(f"Weights are saved as .npz, not as {path.name}.")
    state = module_or_state if isinstance(module_or_state, Mapping) else module_or_state.state_dict()
    arrays = {}
    for key, value in state.items():
        if key.endswith(_COUNTER):
            continue
        with np.errstate(over="ignore"):  # reported below
            half = value.detach().cpu().numpy().astype(np.float16)
        if half.ndim > 1:  # of the vectors, BatchNorm's among them, every bit
            half = (half.view(np.uint16) + 2 & 0xFFFC).view(np.float16)  # the sign is a bit of its own
        if not np.isfinite(half).all():
            raise DataError(f"{path} cannot be written: {key} holds values that float16 has no room for.")
        arrays[key] = half
    with artifacts.atomic_write(path) as part:
        np.savez_compressed(part, **arrays)
    return path


@contextlib.contextmanager
def _torchvision_placeholder() -> Iterator[None]:
    """Lets mmcv's `import torchvision`, of which it only wants the list of downloads, succeed without it."""
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is not None:
        yield
        return
    sys.modules["torchvision"] = types.ModuleType("torchvision")
    try:
        yield
    finally:
        del sys.modules["torchvision"]  # else other libraries would believe that it is installed


def _assemble(backbone: torch.nn.Module, keypoint_head: torch.nn.Module) -> torch.nn.Module:
    """Returns backbone and head as one module with one tensor as its output, as every engine wants it."""
    import torch

    class BottomUpNetwork(torch.nn.Module):
        """Image -> 17 heatmaps and 17 tag maps at a quarter of its size."""

        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.keypoint_head = backbone, keypoint_head

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            [output] = self.keypoint_head(self.backbone(images))  # a list, for networks of several resolutions
            return output  # (N, 3, H, W) -> (N, 34, H/4, W/4) float32

    return BottomUpNetwork()


def _randomize(module: torch.nn.Module) -> None:
    """Fills a network with seeded weights under which signals neither die nor explode (He et al. 2015).

    BatchNorm's statistics are those of one batch of image-like input, as if trained. The last convolution is scaled so
    that heatmaps vary by 0.03 about 0 and tags by 1: decoding then has a little to do, not a million candidates.
    """
    import torch

    generator = torch.Generator().manual_seed(0)  # torch's global one stays as it is
    norms = [layer for layer in module.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for layer in module.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                torch.nn.init.zeros_(layer.bias)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_parameters()
        norm.momentum = None  # the plain mean over all batches, of which there is one
    images = torch.from_numpy(image_like(4, 256, 256))
    with torch.no_grad():
        module.train()(images)
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
        output = module.eval()(images)
        last = module.keypoint_head.final_layer
        wanted = torch.tensor([_HEATMAP_STD] * len(COCO17) + [_TAG_STD] * len(COCO17))
        factor = wanted / output.std(dim=(0, 2, 3))
        last.weight.mul_(factor[:, None, None, None])
        last.bias.copy_(-output.mean(dim=(0, 2, 3)) * factor)


def _fill(module: torch.nn.Module, state: Mapping[str, torch.Tensor], model: str, path: Path) -> None:
    """Copies weights into a network if every key and shape fits; BatchNorm's counters, for training, may be absent."""
    own = module.state_dict()
    faults = {
        "missing": [key for key in own if key not in state and not key.endswith(_COUNTER)],
        "unexpected": [key for key in state if key not in own],
        "of another shape": [
            f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
        ],
    }
    if any(faults.values()):
        told = "; ".join(
            f"{len(keys)} {what}: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"
            for what, keys in faults.items()
            if keys
        )
        raise DataError(f"{path} does not fit {model} ({told}); is this a checkpoint of another network?")
    module.load_state_dict(state, strict=False)


def _read_npz(path: Path) -> dict[str, torch.Tensor]:
    import torch

    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: torch.from_numpy(archive[key].astype(np.float32)) for key in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is not a readable .npz of weights (cut short?); copy or make it again.") from error


def _read_torch(path: Path) -> dict[str, torch.Tensor]:
    """Reads a torch file with the loader that knows tensors and plain data only."""
    import torch

    # Checkpoints of mmcv's runner may hold a NumPy number, such as the best score. Unpickling it calls a constructor
    # from dtype and bytes, under its old or new name.
    make = np.float64(0).__reduce__()[0]
    numbers = [(make, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    numbers += [np.dtype, *(type(np.dtype(name)) for name in ("f8", "f4", "i8", "i4", "bool"))]
    try:
        with torch.serialization.safe_globals(numbers):
            document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch raise nearly anything
        foreign = re.search(r"\bGLOBAL ([\w.]+)", str(error))  # the pickle instruction that names a function or class
        if foreign:
            raise DataError(
                f"{path} holds {foreign.group(1)}, which could run code when loaded; only checkpoints of tensors "
                "and plain data are read."
            ) from error
        raise DataError(
            f"{path} is not a readable checkpoint (cut short, or not a torch file?); copy or download it again."
        ) from error
    state = document.get("state_dict", document) if isinstance(document, dict) else None
    if not isinstance(state, dict) or not state or not all(torch.is_tensor(value) for value in state.values()):
        raise DataError(f"{path} is not a checkpoint: it has no `state_dict` of tensors.")
    return state
