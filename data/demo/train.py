"""Trains an MMPose bottom-up network on the rendered people; stops and resumes at any time.

    python data/demo/make_set.py --validation                  # pictures to judge by
    python data/demo/render.py --scenes 8000                   # the training pool
    export OMP_WAIT_POLICY=PASSIVE MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184
    python data/demo/train.py --model MobileNetv2 --crops 90000
    python data/demo/train.py --model MobileNetv2 --export     # write the demo weights
    python data/demo/train.py --model HRNet --teacher MobileNetv2 --batch 8 --lr 1e-3    # the others learn from those

The MALLOC pair keeps glibc from giving every large tensor back to the system: without it half of the time
goes into page faults (vmstat: 50 % system time with the defaults, 3 % with it).

The network is mmpose's own module (`helpers.export.network.build`), its loss the associative-embedding one (Newell et
al. 2017, as in mmpose's AELoss) with three aids that are thrown away or fade:

* a part-segmentation head on the last features (the renderer knows every pixel's body part);
* tags start as a saddle where all are equal, so they are first pulled towards a number for the colour family of
  the person's outfit; at 60 % of the run a twentieth of the pull is left;
* peaks weigh more than background in the heatmap loss.

A network that is trained already can teach another one: the features of every stride, on the way down and up again,
and the tags are drawn to the teacher's, in the last fifth of the run less and less.

HRNet's hundred BatchNorm layers in a row make it touchy: statistics that lag a few steps behind the weights are enough
to spoil its maps, although the loss, computed with those of the batch, looks fine. `--freeze-norm` ends that.

bfloat16 autocast needs a CPU with AVX512-BF16 (or AMX) to pay; `--float32` turns it off.
"""

from __future__ import annotations

import argparse
import copy
import math
import queue
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import tags
import torch
import torch.nn.functional as F
from make_set import HARD_VALIDATION, TAG_VALIDATION
from people import FAMILIES, PARTS
from render import POOL, SCENE_KEYS

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from helpers.backends.pytorch import engine_of
from helpers.dataset import CocoDataset
from helpers.export import network
from helpers.keypoints import COCO17
from helpers.measure import evaluate
from helpers.pose.estimator import PoseEstimator
from helpers.pose.preprocess import MEAN_RGB, STD_RGB

MEAN = torch.tensor(MEAN_RGB).view(1, 3, 1, 1)
STD = torch.tensor(STD_RGB).view(1, 3, 1, 1)
WEIGHTS = Path(__file__).resolve().parent / "weights"
MAX_PEOPLE = 10
# Share of the colour pull that stays to the end: without it the tags of neighbours drift together again (MobileNetv2).
KICK_FLOOR = 0.05
# Weight of what a teacher says. ResNet50's heatmap loss on crops of 192 pixels fell to 1.65 at crop 16 744 with weight
# 1, falling, and only the head's features watched, and at crop 5 300 with all of `WATCHED`.
HINT = 4.0
COARSE = ("backbone.layer3", "backbone.layer4", "backbone.stage3", "backbone.stage4")  # what `--bound` looks at
# Features that a teacher's are held against: name and stride, layer, which of its outputs where it has several.
# "up4", what the last layer takes, is watched in all of them.
HEAD = {"up16": ("keypoint_head.deconv_layers.2", None), "up8": ("keypoint_head.deconv_layers.5", None)}
WATCHED: dict[str, dict[str, tuple[str, int | None]]] = {
    "MobileNetv2": {
        "down4": ("backbone.layer2", None),
        "down8": ("backbone.layer3", None),
        "down16": ("backbone.layer5", None),
        "down32": ("backbone.conv2", None),
        **HEAD,
    },
    "ResNet50": {
        "down4": ("backbone.layer1", None),
        "down8": ("backbone.layer2", None),
        "down16": ("backbone.layer3", None),
        "down32": ("backbone.layer4", None),
        **HEAD,
    },
    "HRNet": {
        "down4": ("backbone.layer1", None),
        "down8": ("backbone.stage2.0", 1),
        "down16": ("backbone.stage3.3", 2),
        "down32": ("backbone.stage4.0", 3),
        "up16": ("backbone.stage4.1", 2),
        "up8": ("backbone.stage4.1", 1),
    },
}
# Part map with left and right exchanged: 0 background, 1 + index into PARTS.
_SWAP = {p: p.replace("left", "?").replace("right", "left").replace("?", "right") for p in PARTS}
PART_FLIP = np.array([0] + [1 + PARTS.index(_SWAP[p]) for p in PARTS], np.uint8)


def read_scenes(folder: Path, pattern: str) -> list[dict[str, np.ndarray]]:
    """The rendered scenes of all shards that match, pictures still as JPEG bytes; see `render.render_scene`."""
    scenes = []
    for path in sorted(folder.glob(pattern)):
        with np.load(path, allow_pickle=False) as shard:
            count = sum(k.startswith("jpeg_") for k in shard.files)
            scenes += [{key: shard[f"{key}_{k}"] for key in SCENE_KEYS} for k in range(count)]
    if not scenes:
        raise SystemExit(f"no scenes {folder / pattern}: run data/demo/render.py first")
    return scenes


def sample_crop(rng: np.random.Generator, scene: dict, size: int) -> dict[str, np.ndarray]:
    """One augmented crop of a scene.

    Args:
        rng: the only source of chance.
        scene: see `render.render_scene`.
        size: side of the square crop in pixels.

    Returns:
        dict of `image` (3, size, size) uint8 RGB, `parts` (size/4, size/4) uint8, `keypoints` (MAX_PEOPLE, 17, 3)
        float32 in crop pixels (visibility 0 outside), `families` (MAX_PEOPLE,) int64.
    """
    image = cv2.imdecode(scene["jpeg"], cv2.IMREAD_COLOR)
    parts = cv2.imdecode(scene["parts"], cv2.IMREAD_GRAYSCALE)
    h, w = image.shape[:2]
    people = scene["keypoints"]
    centre = np.array([rng.uniform(0, w), rng.uniform(0, h)])
    if len(people) and rng.random() < 0.92:
        p = people[rng.integers(len(people))]
        inside = p[p[:, 2] > 0, :2]
        if len(inside):
            centre = inside.mean(0) + rng.normal(0, size * 0.16, 2)
    zoom, turn, flip = float(np.exp(rng.normal(-0.05, 0.2))), float(rng.normal(0, 5)), rng.random() < 0.5
    half = size / 2 / zoom * 0.85  # crops reach a little over the picture's edge, not more
    centre = [np.clip(c, min(half, n / 2), max(n - half, n / 2)) for c, n in zip(centre, (w, h))]
    a = np.deg2rad(turn)
    m = zoom * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    if flip:
        m = np.diag([-1.0, 1.0]) @ m
    # Pixel (x, y) is a point sample at its index, as in cv2.warpAffine and in the decoder.
    m = np.column_stack([m, (size - 1) / 2 - m @ centre])
    out = cv2.warpAffine(image, m, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    quarter = m.copy()
    # A quarter-size index q stands for pixel 4 q + 1.5.
    quarter[:, 2] = (m[:, :2] @ np.array([1.5, 1.5]) + m[:, 2] - 1.5) / 4
    parts = cv2.warpAffine(parts, quarter, (size // 4, size // 4), flags=cv2.INTER_NEAREST)
    keypoints = np.zeros((MAX_PEOPLE, 17, 3), np.float32)
    families = np.zeros(MAX_PEOPLE, np.int64)
    for k, p in enumerate(people[:MAX_PEOPLE]):
        xy = p[:, :2] @ m[:, :2].T + m[:, 2]
        ok = (p[:, 2] > 0) & (xy >= 0).all(1) & (xy < size - 1).all(1)
        keypoints[k, :, :2], keypoints[k, :, 2] = xy, ok
        if flip:
            keypoints[k] = keypoints[k, list(COCO17.flip_index)]
        families[k] = scene["families"][k]
    if flip:
        parts = PART_FLIP[parts]
    gain = rng.uniform(0.75, 1.25) * (1 + rng.normal(0, 0.04, 3))
    out = np.clip(out * gain + rng.uniform(-14, 14), 0, 255).astype(np.uint8)
    return {
        "image": np.ascontiguousarray(out[:, :, ::-1].transpose(2, 0, 1)),
        "parts": parts,
        "keypoints": keypoints,
        "families": families,
    }


def batches(scenes: list, rng: np.random.Generator, batch: int, size: int, depth: int = 6):
    """An endless stream of batches (dict of tensors), made in one background thread."""
    ready: queue.Queue = queue.Queue(depth)

    def work() -> None:
        while True:
            crops = [sample_crop(rng, scenes[rng.integers(len(scenes))], size) for _ in range(batch)]
            most = max(int((c["keypoints"][..., 2] > 0).any(1).sum()) for c in crops)
            for c in crops:  # people in view first, and no more rows than the fullest crop needs
                order = np.argsort(~(c["keypoints"][..., 2] > 0).any(1), kind="stable")[: max(most, 1)]
                c["keypoints"], c["families"] = c["keypoints"][order], c["families"][order]
            ready.put({k: torch.from_numpy(np.stack([c[k] for c in crops])) for k in crops[0]})

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    while True:
        try:
            yield ready.get(timeout=60)
        except queue.Empty:
            if not worker.is_alive():  # its traceback is on the terminal already
                raise SystemExit("the thread that makes batches died") from None


def heat_targets(keypoints: torch.Tensor, size: int, sigma: float = 2.0) -> torch.Tensor:
    """Gaussian heatmaps (B, 17, size/4, size/4); cell q stands for pixel 4 q + 2, as in decoding."""
    n = size // 4
    grid = torch.arange(n, dtype=torch.float32)
    centre = keypoints[..., :2] / 4 - 0.5
    g = torch.exp(-((grid - centre[..., None]) ** 2) / (2 * sigma**2))  # (B, P, 17, 2, n)
    blobs = g[:, :, :, 1, :, None] * g[:, :, :, 0, None, :] * (keypoints[..., 2] > 0)[..., None, None]
    return blobs.amax(1)


def tag_loss(
    tags: torch.Tensor,
    keypoints: torch.Tensor,
    families: torch.Tensor,
    kick: float,
    margin: float = 0.0,
    elsewhere: float = 0.0,
    weight: float = 1.0,
) -> torch.Tensor:
    """Pull a person's tags together, push people apart (Newell et al. 2017), and the early kick.

    Args:
        tags: (B, 17, h, w) float32 tag maps.
        keypoints: (B, P, 17, 3) in input pixels.
        families: (B, P) colour families.
        kick: weight of the early target.
        margin: how far apart two people have to be before the push ends; 0: Newell's push, which fades with the
            distance, as a mean over the pairs.
        elsewhere: with a margin, weight of the tags that the maps of other keypoints have at a keypoint.
        weight: of the pull.
    """
    _, _, h, w = tags.shape
    people = keypoints.shape[1]
    valid = keypoints[..., 2] > 0
    count = valid.sum(2)
    present = count > 0
    both = present[:, :, None] & present[:, None, :] & ~torch.eye(people, dtype=torch.bool)

    def read(places: torch.Tensor, channel: list[int] | slice = slice(None)) -> torch.Tensor:
        """Tags (B, P, 17) at places (B, P, 17, 2), in samples; `channel`: whose tag map for each of the keypoints."""
        col = places[..., 0].long().clamp(0, w - 1)
        row = places[..., 1].long().clamp(0, h - 1)
        at = (row * w + col).permute(0, 2, 1)  # (B, 17, P)
        return tags[:, channel].flatten(2).gather(2, at).permute(0, 2, 1)

    def mean_over_people(error: torch.Tensor) -> torch.Tensor:
        """(B, P, 17) -> (B,): over the keypoints of each person, then over the people of each image."""
        return ((error * valid).sum(2) / count.clamp(min=1)).sum(1) / present.sum(1).clamp(min=1)

    places = keypoints[..., :2] / 4
    if margin:
        places = scattered(places, valid)
    values = read(places)
    mean = (values * valid).sum(2) / count.clamp(min=1)
    pull = mean_over_people((values - mean[..., None]) ** 2)
    if margin:

        def intrusion(values: torch.Tensor) -> torch.Tensor:
            """How far keypoints intrude on everybody else, in a sum: one collision among many counts as among few."""
            gap = (values[:, :, None] - mean[:, None, :, None]).abs()  # (B, P, other, 17)
            return mean_over_people((F.relu(margin - gap) ** 2 * both[..., None]).sum(2))

        push = 0.5 * intrusion(values)
        if elsewhere:
            # A left wrist suspected at somebody's right one, or at the elbow, is still that person's.
            channel = list(COCO17.flip_index) if torch.rand(()) < 0.5 else torch.randperm(17).tolist()
            others = read(scattered(keypoints[..., :2] / 4, valid), channel)
            pull = pull + elsewhere * mean_over_people((others - mean[..., None]) ** 2)
            push = push + elsewhere * 0.5 * intrusion(others)
    else:
        close = torch.exp(-((mean[:, :, None] - mean[:, None, :]) ** 2)) * both
        push = 0.5 * close.sum((1, 2)) / both.sum((1, 2)).clamp(min=1)
    loss = (weight * pull + push).mean()
    if kick > 0:
        target = (families.float() - (len(FAMILIES) - 1) / 2) * 1.2
        loss = loss + kick * ((values - target[..., None]) ** 2 * valid).sum() / valid.sum().clamp(min=1)
    return loss


def scattered(places: torch.Tensor, valid: torch.Tensor, sigma: float = 1.5) -> torch.Tensor:
    """Places near keypoints, where heat is still high, but nearer to no other person's keypoint of that kind.

    Decoding reads tags at the peaks it finds, and fills in keypoints anywhere on a peak's slope, so a tag has to be
    right around the keypoint as well.

    Args:
        places: (B, P, 17, 2) in samples of the maps.
        valid: (B, P, 17) bool.
        sigma: in samples.
    """
    moved = places + torch.randn_like(places) * sigma
    distance = (moved[:, :, None] - places[:, None]).square().sum(-1)  # (B, P, other, 17)
    distance = distance.masked_fill(~valid[:, None], torch.inf)
    own = distance.diagonal(dim1=1, dim2=2).permute(0, 2, 1)  # (B, P, 17)
    return torch.where((own <= distance.amin(2))[..., None], moved, places)


class Watched(torch.nn.Module):
    """A network that keeps what it saw on the way, in its forward pass before; see `WATCHED`."""

    def __init__(self, model: str, net: torch.nn.Module):
        super().__init__()
        self.net = net
        self.features: dict[str, torch.Tensor] = {}
        net.keypoint_head.final_layer.register_forward_pre_hook(lambda _, inputs: self._keep("up4", inputs[0]))
        for name, (layer, branch) in WATCHED[model].items():
            net.get_submodule(layer).register_forward_hook(
                lambda _, __, out, name=name, branch=branch: self._keep(name, out if branch is None else out[branch])
            )

    def _keep(self, name: str, feature: torch.Tensor) -> None:
        self.features[name] = feature

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Network output (B, 34, h, w)."""
        return self.net(x)

    def channels(self) -> dict[str, int]:
        """How many channels each feature has."""
        self.eval()
        with torch.no_grad():
            self(torch.zeros(1, 3, 64, 64))
        return {name: feature.shape[1] for name, feature in self.features.items()}


class Trainee(Watched):
    """The network with what helps it to learn and is thrown away: heads for body parts and for a teacher's features."""

    def __init__(self, model: str, teacher: Watched | None = None, bound: float | None = None):
        super().__init__(model, network.build(model))
        mine = self.channels()
        self.excess: list[torch.Tensor] = []
        for name, layer in self.net.named_modules() if bound else ():
            if name.startswith(COARSE) and isinstance(layer, torch.nn.BatchNorm2d):
                layer.register_forward_hook(
                    lambda _, __, out: self.excess.append(F.relu(out.clone().abs() - bound).float())
                )
        self.parts = torch.nn.Conv2d(mine["up4"], 1 + len(PARTS), 1)
        self.hints = torch.nn.ModuleDict()
        if teacher is None:
            return
        theirs = teacher.channels()
        self.hints.update({k: torch.nn.Conv2d(n, theirs[k], 1) for k, n in mine.items() if n != theirs[k]})
        head, other = self.net.keypoint_head, teacher.net.keypoint_head
        if isinstance(head.deconv_layers, torch.nn.Sequential):  # all but the first deconvolution fits as it is
            head.deconv_layers[3:].load_state_dict(other.deconv_layers[3:].state_dict())
            head.final_layer.load_state_dict(other.final_layer.state_dict())


class Teacher(Watched):
    """A trained network, whose features and tags a trainee is drawn to (hints: Romero et al. 2015, "FitNets")."""

    def __init__(self, model: str):
        super().__init__(model, network.load(model, "demo"))
        self.to(memory_format=torch.channels_last).requires_grad_(False)


def hint_losses(trainee: Trainee, y: torch.Tensor, teacher: Teacher, told: torch.Tensor, target: torch.Tensor) -> dict:
    """How far features are from the teacher's (in units of their variance), and tags near keypoints from its tags.

    Args:
        trainee, teacher: both have just seen the same pictures.
        y, told: their outputs (B, 34, h, w) float32.
        target: heatmaps (B, 17, h, w) as they should be.
    """
    features = torch.zeros(())
    for name, theirs in teacher.features.items():
        mine = trainee.features[name]
        if name.endswith("4"):  # the finest have the most to compute: every second row and column, now these, now those
            row, col = torch.randint(2, (2,)).tolist()
            mine, theirs = (f[:, :, row::2, col::2] for f in (mine, theirs))
        if name in trainee.hints:
            mine = trainee.hints[name](mine)
        mine, theirs = mine.float(), theirs.float()
        features = features + ((mine - theirs) ** 2).mean() / theirs.var()
    near = target + 0.02
    tags = (near * (y[:, 17:] - told[:, 17:]) ** 2).sum() / near.sum()
    return {"hints": features, "told": 0.5 * tags}


def losses(
    trainee: Trainee,
    batch: dict,
    size: int,
    kick: float,
    bf16: bool,
    teacher: Teacher | None = None,
    hint: float = 0,
    margin: float = 0,
    elsewhere: float = 0,
    pull: float = 1,
    ghosts: float = 0,
    parts: float = 0.25,
) -> dict[str, torch.Tensor]:
    """Every term of the loss for one batch, already weighted; `hint` is the weight of what the teacher says."""
    x = ((batch["image"].float() / 255 - MEAN) / STD).contiguous(memory_format=torch.channels_last)
    trainee.excess.clear()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = trainee(x)
        part_maps = trainee.parts(trainee.features["up4"]).float() if parts else None
        if hint:
            with torch.no_grad():
                told = teacher(x).float()
    y = y.float()
    target = heat_targets(batch["keypoints"], size)
    heat = y[:, :17]
    # Nine-fold weight of peaks makes one out of ten suspicions worth a half: `ghosts` makes false ones dearer as well.
    false = ghosts * ((heat.detach() > 0.05) & (target < 0.05)) if ghosts else 0
    terms = {
        "heat": ((1 + 9 * target + false) * (heat - target) ** 2).mean() * 150,
        "tags": 0.5 * tag_loss(y[:, 17:], batch["keypoints"], batch["families"], kick, margin, elsewhere, pull),
    }
    if parts:
        terms["parts"] = parts * F.cross_entropy(part_maps, batch["parts"].long())
    if trainee.excess:
        terms["excess"] = sum(e.square().mean() for e in trainee.excess)
    if hint:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            terms.update({k: hint * v for k, v in hint_losses(trainee, y, teacher, told, target).items()})
    return terms


def learning_rate(done: float, peak: float) -> float:
    """Warm-up over 1 %, flat, cosine over the last 40 % (share `done` of the run in 0..1)."""
    if done < 0.01:
        return peak * (0.02 + done / 0.01)
    return peak * (1 if done < 0.6 else 0.5 * (1 + math.cos(math.pi * min((done - 0.6) / 0.4, 1))) + 0.003)


class Quick(torch.nn.Module):
    """A network in bfloat16 where that is enough, for a judgement on the way."""

    def __init__(self, net: torch.nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Network output (B, 34, h, w) float32."""
        with torch.autocast("cpu", torch.bfloat16):
            return self.net(x.contiguous(memory_format=torch.channels_last)).float()


def validate(net: torch.nn.Module, pool: Path, bf16: bool) -> tuple[float, str]:
    """How good a network is on images that are neither trained on nor calibrated with nor scored, with flip test.

    Returns:
        AP less the share of images with an absurd bone, to choose the best by, and figures to be printed.
    """
    estimator = PoseEstimator(engine_of(Quick(net.eval()) if bf16 else net.eval()))
    lines, score = [], 0.0
    for split in (TAG_VALIDATION, HARD_VALIDATION):
        dataset = CocoDataset(pool, split)
        tally = tags.measure(estimator, dataset, dataset.image_ids)
        ap = evaluate.evaluate(tally.poses, dataset, dataset.image_ids).numbers["AP"]
        lines.append(f"{split}: AP {ap:.3f}; {tally}")
        if split == TAG_VALIDATION:
            score = ap - tally.absurd_share()
    net.train()
    return score, "\n".join(lines)


def export(model: str, checkpoint: Path, raw: bool = False, folder: Path = WEIGHTS) -> str:
    """Writes the best average of a checkpoint, or its last weights as they are, as demo weights; says so."""
    saved = torch.load(checkpoint, weights_only=True)
    best = saved["best"]
    net = network.build(model)
    if raw:
        net.load_state_dict({k[4:]: v for k, v in saved["trainee"].items() if k.startswith("net.")})
        return f"wrote {network.save_npz(net, folder / f'{model}.npz')} (as it is after {saved['crops']} crops)"
    net.load_state_dict(best["state"])
    path = network.save_npz(net, folder / f"{model}.npz")
    score = f"AP less absurd share {best['score']:.3f} on {TAG_VALIDATION}"
    return f"wrote {path} (average after {best['crops']} crops, {score})"


def main() -> int:
    """Train until `--crops` crops have been seen; save on the way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="MobileNetv2")
    parser.add_argument("--crops", type=int, default=120_000, help="crops to see in all")
    parser.add_argument("--size", type=int, default=256, help="side of a crop in pixels")
    parser.add_argument(
        "--late-size", type=int, default=384, help="side of a crop in the last part of the run, in smaller batches"
    )
    parser.add_argument("--late", type=float, default=0.15, help="how much of the run that part is, 0..1")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--start", help="weights to begin with where there is no checkpoint: demo, or a file")
    parser.add_argument("--margin", type=float, default=0.0, help="push people's tags this far apart, and no further")
    parser.add_argument("--elsewhere", type=float, default=0.0, help="weight of tags at other keypoints' places")
    parser.add_argument("--pull", type=float, default=1.0, help="weight of the pull of a person's tags to their mean")
    parser.add_argument("--ghosts", type=float, default=0.0, help="extra weight of heat where nobody is")
    parser.add_argument("--kick", type=float, default=0.5, help="weight of the early tag target")
    parser.add_argument("--parts", type=float, default=0.25, help="weight of the body-part segmentation")
    parser.add_argument("--stretch", type=float, default=1.0, help="with --start, multiply the tags by this")
    parser.add_argument("--teacher", default=None, help="a network with demo weights, to learn from as well")
    parser.add_argument(
        "--freeze-norm", action="store_true", help="go on from the average, BatchNorm's statistics fixed"
    )
    parser.add_argument(
        "--bound", type=float, help="what BatchNorm gives deep inside costs beyond this: int8 has 256 steps"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--float32", action="store_true", help="no bfloat16 autocast")
    parser.add_argument("--judge", type=int, default=3000, help="crops between two looks at AP; the best is kept")
    parser.add_argument("--export", action="store_true", help="only write the best weights so far as demo weights")
    parser.add_argument(
        "--raw", action="store_true", help="with --export: the last weights instead of the best average"
    )
    parser.add_argument("--pool", type=Path, default=POOL, help="folder of scenes and checkpoints")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    torch.manual_seed(args.seed)
    checkpoint = args.pool / f"{args.model}.ckpt"
    if args.export:
        print(export(args.model, checkpoint, args.raw))
        return 0
    teacher = Teacher(args.teacher) if args.teacher else None
    trainee, average = Trainee(args.model, teacher, args.bound), Trainee(args.model, teacher)
    if args.start:
        trainee.net.load_state_dict(network.load(args.model, args.start).state_dict())
        with torch.no_grad():
            for part in (trainee.net.keypoint_head.final_layer.weight, trainee.net.keypoint_head.final_layer.bias):
                part[17:] *= args.stretch
    average.load_state_dict(trainee.state_dict())
    trainee.to(memory_format=torch.channels_last).train()
    average.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(trainee.parameters(), lr=args.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    crops, best = 0, {"score": -1.0}
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        crops, best = saved["crops"], saved["best"]
        if saved["teacher"] != args.teacher:
            raise SystemExit(f"{checkpoint} learns from {saved['teacher']}: go on with that --teacher, or move it away")
        trainee.load_state_dict(saved["average" if args.freeze_norm and not saved["frozen"] else "trainee"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        print(f"resumed at {crops} crops", flush=True)
    if args.freeze_norm:
        for layer in trainee.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.eval()
    scenes = read_scenes(args.pool, "scenes_??????.npz")
    print(f"{len(scenes)} scenes", flush=True)

    def save() -> None:
        part = checkpoint.with_suffix(".part")
        state = {"trainee": trainee, "average": average, "optimiser": optimiser}
        facts = {"crops": crops, "teacher": args.teacher, "frozen": args.freeze_norm, "best": best}
        torch.save({**{k: v.state_dict() for k, v in state.items()}, **facts}, part)
        part.replace(checkpoint)

    aims = {name: getattr(args, name) for name in ("margin", "elsewhere", "pull", "ghosts", "parts")}
    stream, side = None, 0
    began = spoke = saved_at = time.time()
    first = crops
    recent: dict[str, float] = {}
    while crops < args.crops:
        done = crops / args.crops
        late = done >= 1 - args.late
        if side != (args.late_size if late else args.size):
            side = args.late_size if late else args.size
            count = max(1, round(args.batch * (args.size / side) ** 2))  # as many pixels
            stream = batches(scenes, np.random.default_rng([args.seed, crops]), count, side)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(done, args.lr)
        batch = next(stream)
        hint = HINT * min(1, (1 - done) / 0.2) if teacher else 0.0
        kick = args.kick * max(KICK_FLOOR, 1 - done / 0.6)
        terms = losses(trainee, batch, side, kick, not args.float32, teacher, hint, **aims)
        optimiser.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        torch.nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
        optimiser.step()
        crops += len(batch["image"])
        steps = (crops - first) / args.batch
        decay = min(0.998, (1 + steps) / (10 + steps)) if first == 0 else 0.998
        with torch.no_grad():
            for a, b in zip(average.state_dict().values(), trainee.state_dict().values()):
                if a.dtype.is_floating_point:
                    a.lerp_(b, 1 - decay)
                else:
                    a.copy_(b)
        for k, v in terms.items():
            recent[k] = 0.98 * recent.get(k, v.item()) + 0.02 * v.item()
        now = time.time()
        if now - spoke > 60:
            rate = (crops - first) / (now - began)
            figures = "  ".join(f"{k} {v:.3f}" for k, v in recent.items())
            print(f"{crops} crops  {rate:.1f}/s  {figures}", flush=True)
            spoke = now
        if crops // args.judge > (crops - len(batch["image"])) // args.judge or crops >= args.crops:
            score, lines = validate(average.net, args.pool, not args.float32)
            print(f"{crops} crops, {time.time() - began:.0f} s\n{lines}", flush=True)
            if score > best["score"]:
                best = {"score": score, "crops": crops, "state": copy.deepcopy(average.net.state_dict())}
        if now - saved_at > 300 or crops >= args.crops:
            save()
            saved_at = time.time()
    return 0


if __name__ == "__main__":
    sys.exit(main())
