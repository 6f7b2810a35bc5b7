"""What rounding costs: which layers suffer, which to leave in float, how many pictures to calibrate with.

    rows = sensitivity.rank(onnx_path, "qint8_mixed_float16", pictures)        # worst first
    gains = sensitivity.leave_one_out(onnx_path, spec, pictures, dataset, [row.layer for row in rows[:8]])
    rows = sensitivity.by_count(onnx_path, "qint8_mixed_float16", pictures, [1, 8, 32])
    spec, drop = sensitivity.within(0.005, onnx_path, spec, pictures, dataset)  # a spec that names float layers

Everything is measured on calibration pictures: choosing layers by the scored set would be learning the exam. ONNX
Runtime does the measuring, also for other engines; the layers' names are those of the ONNX file.
"""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Sequence

import numpy as np

from helpers import backends
from helpers.backends import quantize
from helpers.errors import UsageError
from helpers.keypoints import COCO17
from helpers.measure import evaluate
from helpers.pose.estimator import PoseEstimator

if TYPE_CHECKING:
    from pathlib import Path

    from onnxruntime.quantization.calibrate import TensorsData

    from helpers.backends import BuildSpec
    from helpers.backends.calibration import CalibrationSet
    from helpers.dataset import CocoDataset

_PICTURES = 3  # that outputs are compared on
_AT_ONCE = 4  # layers that go back to float between two measurements of AP


@dataclass(frozen=True)
class LayerRow:
    """What rounding one layer alone does to the output.

    Attributes:
        layer: its name in the ONNX file.
        heatmaps_db, tags_db: signal-to-noise ratio of both halves of the output, decibels; the lower the worse.
    """

    layer: str
    heatmaps_db: float
    tags_db: float

    @property
    def worst_db(self) -> float:
        """That of the half that suffers more."""
        return min(self.heatmaps_db, self.tags_db)


@dataclass(frozen=True)
class CountRow:
    """What a network calibrated with so many pictures, all layers rounded, gives on others.

    Attributes:
        count: pictures calibrated with.
        narrowest: the least width of a tensor's range, as a share of the width that all pictures together give it.
            Values outside are cut off.
        heatmaps_db, tags_db: signal-to-noise ratio of both halves of the output, decibels.
    """

    count: int
    narrowest: float
    heatmaps_db: float
    tags_db: float


def signal_to_noise(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> tuple[float, float]:
    """Ratio of power to that of the error, for heatmaps and for tags.

    Args:
        found, wanted: network outputs (N, 34, h, w) float32, one per picture, of any sizes.

    Returns:
        Decibels: 20 more is an error a tenth as large. Infinite if there is none.
    """
    ratios = []
    for half in (slice(len(COCO17)), slice(len(COCO17), None)):
        signal = sum(float(np.square(b[:, half], dtype=np.float64).sum()) for b in wanted)
        noise = sum(float(np.square(a[:, half] - b[:, half], dtype=np.float64).sum()) for a, b in zip(found, wanted))
        ratios.append(10 * float(np.log10(signal / noise)) if noise else float("inf"))
    return ratios[0], ratios[1]


def agreement(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Part of a table's row: the signal-to-noise ratio of one picture's output, decibels to one digit.

    Args:
        found, wanted: (34, h, w) float32.
    """
    heatmaps, tags = signal_to_noise([found[None]], [wanted[None]])
    return {"heatmaps dB": round(heatmaps, 1), "tags dB": round(tags, 1)}


def rank(
    onnx_path: Path,
    precision: str,
    calibration: CalibrationSet,
    progress: Callable[[int, int], None] | None = None,
    most: int | None = None,
) -> list[LayerRow]:
    """Rounds one layer at a time and compares the output with float32's.

    Args:
        onnx_path: from `export.export`.
        precision: one of the qint ones.
        calibration: the pictures; ranges come from all of them, outputs from the first few.
        progress: called after every layer with (done, all).
        most: so many layers, spread evenly from input to output; None for all. HRNet's 294 take many minutes.

    Returns:
        A row per convolution, the worst first.

    Raises:
        UsageError: `most` is below 1; or as `quantize.write`.
        DataError: as `quantize.write`.
    """
    if most is not None and most < 1:
        raise UsageError(f"The number of layers to rank must be 1 or more, not {most}.")
    document = quantize.load(onnx_path)
    found = quantize.ranges(document, calibration, precision)
    pictures = [batch for batch, _ in zip(calibration.batches(), range(_PICTURES))]
    wanted = quantize.outputs(document, pictures)
    spec = backends.BuildSpec(precision, float_layers=())
    names = quantize.layers(document)
    if most is not None and most < len(names):
        names = [names[k] for k in np.linspace(0, len(names) - 1, most).round().astype(int)]
    rows = []
    for done, name in enumerate(names, 1):
        rounded = quantize.quantise(document, spec, found, only=[name])
        rows.append(LayerRow(name, *signal_to_noise(quantize.outputs(rounded, pictures), wanted)))
        if progress is not None:
            progress(done, len(names))
    return sorted(rows, key=lambda row: row.worst_db)


def leave_one_out(
    onnx_path: Path, spec: BuildSpec, calibration: CalibrationSet, dataset: CocoDataset, layers: Sequence[str]
) -> dict[str, float]:
    """The AP that each layer would give back if it alone stayed in float as well.

    Minutes per layer where `rank` takes seconds, and AP on few pictures is noisy: for the worst few of `rank`.

    Args:
        onnx_path: from `export.export`.
        spec: what to build; a qint precision, dynamic. What it leaves in float stays there.
        calibration: pictures to calibrate with.
        dataset: what AP is measured on: the calibration split with its annotations, never the scored one.
        layers: their names in the ONNX file.

    Returns:
        Layer -> AP gained, the largest gain first; below 0 where the rounding did good, by chance.

    Raises:
        UsageError: there is no such layer, or nobody annotated in the dataset.
        DataError: as a build.
    """
    backend = backends.get("onnxruntime")
    left = quantize.in_float(quantize.load(onnx_path), spec)
    without = _ap(backend.build(onnx_path, dataclasses.replace(spec, float_layers=tuple(left)), calibration), dataset)
    gains = {}
    for name in layers:
        alone = dataclasses.replace(spec, float_layers=(*left, name))
        gains[name] = _ap(backend.build(onnx_path, alone, calibration), dataset) - without
    return dict(sorted(gains.items(), key=lambda item: -item[1]))


def by_count(
    onnx_path: Path,
    precision: str,
    calibration: CalibrationSet,
    counts: Sequence[int],
    scored: Sequence[np.ndarray],
    draws: int = 3,
) -> list[CountRow]:
    """Calibrates with few and with many pictures, several times with different ones, and looks at others.

    Each picture goes through the network once, whatever the counts: the range of some pictures is that from the least
    of their least values to the greatest of their greatest (minmax).

    Args:
        onnx_path: from `export.export`.
        precision: one of the qint ones.
        calibration: the pictures to draw from; their method is not looked at.
        counts: how many to calibrate with; those above the number of pictures mean all of them, and are done once.
        scored: other pictures, to compare outputs on: (1, 3, h, w) float32 each.
        draws: how often other pictures are drawn for a count below that of all.

    Returns:
        A row per draw, in the order of the counts.

    Raises:
        UsageError: a count or `draws` is below 1.
        DataError: ONNX Runtime cannot run the network.
    """
    if min([*counts, draws]) < 1:
        raise UsageError(f"Pictures to calibrate with, and draws, must be 1 or more, not {list(counts)} and {draws}.")
    document = quantize.load(onnx_path)
    pictures = quantize.tensor_ranges(document, calibration.batches())
    most = _widths(quantize.union_ranges(document, pictures))
    wanted = quantize.outputs(document, scored)
    spec = backends.BuildSpec(precision)
    random.Random(0).shuffle(pictures)
    draws = min(draws, len(pictures))
    rows = []
    for count in dict.fromkeys(min(count, len(pictures)) for count in counts):
        for draw in range(draws if count < len(pictures) else 1):
            start = draw * len(pictures) // draws  # far from the other draws' pictures, and so never the same ones
            found = quantize.union_ranges(document, (pictures[start:] + pictures[:start])[:count])
            rounded = quantize.quantise(document, spec, found)
            narrowest = min(width / most[name] for name, width in _widths(found).items() if most[name])
            rows.append(CountRow(count, narrowest, *signal_to_noise(quantize.outputs(rounded, scored), wanted)))
    return rows


def _widths(found: TensorsData) -> dict[str, float]:
    """Width of each tensor's range by name."""
    return {name: float(span.range_value[1] - span.range_value[0]) for name, span in found.items()}


def within(
    max_drop: float,
    onnx_path: Path,
    spec: BuildSpec,
    calibration: CalibrationSet,
    dataset: CocoDataset,
    most_layers: int = 12,
) -> tuple[BuildSpec, float]:
    """Leaves as few of the worst layers in float as it takes to lose no more than so much AP.

    Args:
        max_drop: AP that may be lost against float32, 0.005 for half a percent.
        onnx_path: from `export.export`.
        spec: what to build; a qint precision, dynamic.
        calibration: pictures to calibrate with and to find the worst layers with.
        dataset: what AP is measured on: the calibration split with its annotations, never the scored one.
        most_layers: to give up after.

    Returns:
        The spec with the layers named, which a build records, and the drop that is left.

    Raises:
        UsageError: `max_drop` is negative, or cannot be met with so many layers.
        DataError: as a build.
    """
    if not max_drop >= 0:
        raise UsageError(f"The drop of AP that is allowed must be 0 or more, not {max_drop:g}.")
    backend = backends.get("onnxruntime")
    goal = _ap(backend.build(onnx_path, backends.BuildSpec()), dataset) - max_drop
    document = quantize.load(onnx_path)
    left = quantize.in_float(document, spec)
    worst: list[str] | None = None
    while True:
        spec = dataclasses.replace(spec, float_layers=tuple(left))
        reached = _ap(backend.build(onnx_path, spec, calibration), dataset)
        if reached >= goal:
            return spec, goal + max_drop - reached
        if worst is None:  # it takes minutes, and most networks do not need it
            worst = [row.layer for row in rank(onnx_path, spec.precision, calibration) if row.layer not in left]
        if len(left) >= most_layers or not worst:
            raise UsageError(
                f"With {len(left)} layers in float, {spec.precision} still loses {goal + max_drop - reached:.4f} AP, "
                f"more than {max_drop:g}; allow more, or use a qint16 precision or force_float16."
            )
        left, worst = left + worst[:_AT_ONCE], worst[_AT_ONCE:]


def _ap(built: Path, dataset: CocoDataset) -> float:
    """Average precision of a built model on all of a dataset, with flip test."""
    with backends.get("onnxruntime").load(built) as engine:
        run = evaluate.run(PoseEstimator(engine), dataset, dataset.image_ids)
    ap = run.stats.numbers["AP"]
    if ap is None:
        raise UsageError(f"{dataset.root / dataset.split} has no annotated people, so AP cannot be measured on it.")
    return ap
