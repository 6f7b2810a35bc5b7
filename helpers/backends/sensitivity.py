"""Measures what rounding costs: which layers suffer, which to leave in float, how many images to calibrate with.

    rows = sensitivity.rank(onnx_path, "qint8_mixed_float16", images)                  # worst first
    rows = sensitivity.by_count(onnx_path, "qint8_mixed_float16", images, [1, 8, 32], others)
    spec, drop = sensitivity.within(0.005, onnx_path, spec, images, score)             # a spec that names float layers

Everything is measured on calibration images, and with ONNX Runtime, also for other engines. Similar things are done by
`onnxruntime.quantization.qdq_loss_debug` and `nncf.quantize_with_accuracy_control`.
"""

from __future__ import annotations

import dataclasses
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Sequence

import numpy as np

from helpers import backends
from helpers.backends import quantize
from helpers.errors import UsageError
from helpers.keypoints import COCO17

if TYPE_CHECKING:
    from onnxruntime.quantization.calibrate import TensorsData

    from helpers.backends import BuildSpec, Engine
    from helpers.backends.calibration import CalibrationSet

_IMAGES = 3  # that outputs are compared on
_DRAWS = 3  # of other images, for a count below that of all
_AT_ONCE = 4  # layers that go back to float between two scores
_MOST_LAYERS = 12  # in float, before `within` gives up


@dataclass(frozen=True)
class LayerRow:
    """What rounding one layer alone does to the output."""

    layer: str  # its name in the ONNX file
    heatmaps_db: float  # signal-to-noise ratio, as `signal_to_noise`
    tags_db: float

    @property
    def worst_db(self) -> float:
        """Signal-to-noise ratio of the worse half, decibels."""
        return min(self.heatmaps_db, self.tags_db)


@dataclass(frozen=True)
class CountRow:
    """What a network calibrated with so many images gives on others."""

    count: int
    narrowest: float  # the least width of a tensor's range, as a share of the width that all images together give it
    heatmaps_db: float
    tags_db: float


def signal_to_noise(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> tuple[float, float]:
    """Returns the ratio of power to that of the error in decibels, for heatmaps and for tags.

    20 dB more is an error a tenth as large. Outputs are (N, 34, h, w) float32, one per image, of any sizes.
    """
    ratios = []
    for half in (slice(len(COCO17)), slice(len(COCO17), None)):
        signal = sum(float(np.square(b[:, half], dtype=np.float64).sum()) for b in wanted)
        noise = sum(float(np.square(a[:, half] - b[:, half], dtype=np.float64).sum()) for a, b in zip(found, wanted))
        ratios.append(10 * float(np.log10(signal / noise)) if noise else float("inf"))
    return ratios[0], ratios[1]


def agreement(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Returns `signal_to_noise` of one image's output (34, h, w) float32 as part of a table's row, to one digit."""
    heatmaps, tags = signal_to_noise([found[None]], [wanted[None]])
    return {"heatmaps dB": round(heatmaps, 1), "tags dB": round(tags, 1)}


def rank(onnx_path: Path, precision: str, calibration: CalibrationSet, most: int | None = None) -> list[LayerRow]:
    """Rounds one convolution at a time and compares the output with float32's; the worst comes first.

    Args:
        onnx_path: from `export.export`.
        precision: a qint one.
        calibration: ranges come from all of its images, outputs from the first few.
        most: so many layers, spread evenly from input to output; None for all. HRNet's 294 take many minutes.
    """
    if most is not None and most < 1:
        raise UsageError(f"The number of layers to rank must be 1 or more, not {most}.")
    document = quantize.load(onnx_path)
    found = quantize.ranges(document, calibration, precision)
    images = [batch for batch, _ in zip(calibration.batches(), range(_IMAGES))]
    wanted = quantize.outputs(document, images)
    spec = backends.BuildSpec(precision, float_layers=())
    names = quantize.layers(document)
    if most is not None and most < len(names):
        names = [names[k] for k in np.linspace(0, len(names) - 1, most).round().astype(int)]
    rows = []
    for name in names:
        rounded = quantize.quantize(document, spec, found, only=[name])
        rows.append(LayerRow(name, *signal_to_noise(quantize.outputs(rounded, images), wanted)))
    return sorted(rows, key=lambda row: row.worst_db)


def by_count(
    onnx_path: Path, precision: str, calibration: CalibrationSet, counts: Sequence[int], scored: Sequence[np.ndarray]
) -> list[CountRow]:
    """Calibrates (minmax) with few and with many images, several times with different ones, and looks at others.

    Counts above the number of images mean all of them. `scored` are (1, 3, h, w) float32 each.
    """
    if min(counts) < 1:
        raise UsageError(f"Numbers of images to calibrate with must be 1 or more, not {list(counts)}.")
    document = quantize.load(onnx_path)
    images = quantize.tensor_ranges(document, calibration.batches())
    most = _widths(quantize.union_ranges(document, images))
    wanted = quantize.outputs(document, scored)
    random.Random(0).shuffle(images)
    draws = min(_DRAWS, len(images))
    rows = []
    for count in dict.fromkeys(min(count, len(images)) for count in counts):
        for draw in range(draws if count < len(images) else 1):
            start = draw * len(images) // draws  # far from the other draws' images, and so never the same ones
            found = quantize.union_ranges(document, (images[start:] + images[:start])[:count])
            rounded = quantize.quantize(document, backends.BuildSpec(precision), found)
            narrowest = min(width / most[name] for name, width in _widths(found).items() if most[name])
            rows.append(CountRow(count, narrowest, *signal_to_noise(quantize.outputs(rounded, scored), wanted)))
    return rows


def _widths(found: TensorsData) -> dict[str, float]:
    """Returns the width of each tensor's range by name."""
    return {name: float(span.range_value[1] - span.range_value[0]) for name, span in found.items()}


def within(
    max_drop: float, onnx_path: Path, spec: BuildSpec, calibration: CalibrationSet, score: Callable[[Engine], float]
) -> tuple[BuildSpec, float]:
    """Leaves as few of the worst layers in float as it takes to lose no more than so much AP (0.005: half a percent).

    Args:
        spec: what to build; a qint precision, dynamic.
        score: gives the AP of a loaded engine, measured on annotated images that will not be scored.

    Returns:
        The spec with the layers named, and the drop that is left.
    """
    if not max_drop >= 0:
        raise UsageError(f"The drop of AP that is allowed must be 0 or more, not {max_drop:g}.")
    with tempfile.TemporaryDirectory() as folder:  # the reader's engine stays as it is
        backend, trial = backends.get("onnxruntime"), Path(folder) / "trial"

        def measure(spec: BuildSpec) -> float:
            with backend.load(backend.build(onnx_path, spec, calibration, trial)) as engine:
                return score(engine)

        best = measure(backends.BuildSpec())
        left = quantize.float_layers(quantize.load(onnx_path), spec)
        worst: list[str] | None = None
        while True:
            spec = dataclasses.replace(spec, float_layers=tuple(left))
            drop = best - measure(spec)
            if drop <= max_drop:
                return spec, drop
            if worst is None:  # now, as it takes minutes that most networks do not need
                worst = [row.layer for row in rank(onnx_path, spec.precision, calibration) if row.layer not in left]
            if len(left) >= _MOST_LAYERS or not worst:
                raise UsageError(
                    f"With {len(left)} layers in float, {spec.precision} still loses {drop:.4f} AP, more than "
                    f"{max_drop:g}; allow more, or use a qint16 precision or force_float16."
                )
            left, worst = left + worst[:_AT_ONCE], worst[_AT_ONCE:]
