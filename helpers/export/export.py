"""Network -> ONNX file, compared with PyTorch before anybody gets to see it.

    path = export.export("MobileNetv2", "demo", opset=17)     # at once if nothing changed
    for row in export.read_checks(path): print(row)

Two opsets, because no one file suits all engines: MagicMind's parser takes opset 11 only, ONNX Runtime needs 13 or
more for int8 weights with a scale per channel. In both files the last convolution is two, one for heatmaps and one for
tags (`network.with_separate_halves`), so that each can have an int8 scale of its own. Apart from that, the opset 11
graph is the network as MMPose has it, deconvolutions included; the other one computes them as convolutions
(`network.without_deconvolutions`), which CPUs do faster. Both files are checked alike, with ONNX Runtime.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import importlib.util
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Sequence

import numpy as np

from helpers import artifacts, paths
from helpers.errors import DataError, UsageError, first_line
from helpers.export import network
from helpers.keypoints import COCO17

if TYPE_CHECKING:
    import os

    import torch

OPSETS = (11, 17)  # MagicMind; the others
INPUT, OUTPUT = "input", "output"

# Height x width (not width x height): square, landscape, and a portrait of 512 across.
CHECK_SHAPES = ((512, 512), (512, 704), (1024, 512))
CHECK_BATCHES = (1, 3)
TOLERANCE = 1e-3  # largest absolute error, as a share of the output's range

_FORMAT = 3  # to be counted up when the exported graph changes for the same network
_INPUT_DIMS = ["batch", 3, "height", "width"]
_OUTPUT_DIMS = ["batch", 2 * len(COCO17), "output_height", "output_width"]  # a quarter: not the input's symbols


@dataclass(frozen=True)
class Difference:
    """How far one half of the output, heatmaps or tags, is from PyTorch's."""

    max_abs: float  # largest absolute error
    range: float  # largest minus smallest value of PyTorch's output
    cosine: float  # of the angle between both outputs, as vectors; 1 if equal

    @property
    def relative(self) -> float:
        """The largest error as a share of the range."""
        return self.max_abs / self.range if self.range else float("inf") if self.max_abs else 0.0


@dataclass(frozen=True)
class CheckRow:
    """One comparison with PyTorch."""

    opset: int
    batch: int
    height: int
    width: int
    heatmaps: Difference
    tags: Difference  # judged apart: tags span several units, heatmaps about one
    passed: bool

    @property
    def relative(self) -> float:
        """The worse half's."""
        return max(self.heatmaps.relative, self.tags.relative)

    def as_dict(self) -> dict[str, object]:
        """Returns one flat row for a table."""
        row = {key: getattr(self, key) for key in ("opset", "batch", "height", "width")}
        for half in ("heatmaps", "tags"):
            row.update({f"{half} {key}": value for key, value in dataclasses.asdict(getattr(self, half)).items()})
        return {**row, "relative": self.relative, "passed": self.passed}


def export(
    model: str,
    weights: str | os.PathLike[str] = "demo",
    opset: int = 17,
    out: str | os.PathLike[str] | None = None,
    *,
    shapes: Sequence[tuple[int, int]] = CHECK_SHAPES,
    batches: Sequence[int] = CHECK_BATCHES,
) -> Path:
    """Makes the ONNX file of a network, and its sidecar, or finds the one made before.

    The file has input `input`, (batch, 3, height, width) float32 normalized RGB, and output `output` (batch, 34,
    height/4, width/4) float32, batch, height and width free. It is used again if its sidecar tells of the same weights,
    versions and (at least) checks, and if it was not changed since. It appears only after it has passed.

    Args:
        model, weights: as in `network.load`.
        opset: 11 or 17.
        out: the file to write; by default `paths.onnx_file`.
        shapes, batches: (height, width), multiples of 32, to compare at, each with each number of images.

    Raises:
        DataError: the weights do not fit, or the exported graph is wrong or computes something else.
    """
    if not all(importlib.util.find_spec(package) for package in ("onnx", "onnxruntime")):
        raise DataError("Exporting needs onnx and onnxruntime; install requirements.txt.")
    if opset not in OPSETS:
        raise UsageError(f"Opset {opset} is not supported; use 11 (for MagicMind) or 17 (for the others).")
    found = network.find_weights(model, weights)
    path = paths.onnx_file(model, found.tag, opset) if out is None else Path(out)
    if path.suffix != ".onnx":
        raise UsageError(f"An exported network is called something.onnx, not {path.name}.")
    versions = {package: artifacts.package_version(package) for package in ("torch", "onnx", "mmpose")}
    decides = {"model": model, "weights": found.tag, "weights_sha256": found.sha256, "opset": opset}
    decides.update(versions=versions, format=_FORMAT)
    weights_file = None if found.file is None else str(found.file.resolve())
    cases = [(batch, height, width) for height, width in shapes for batch in batches]
    if artifacts.is_current(path, decides) and _covers(path, cases):
        _follow(path, weights_file)
        return path

    start = time.perf_counter()
    module = network.load_file(model, found.file)
    with artifacts.atomic_write(path) as part:
        _write(module, part, opset)
        _check_graph(part, opset, path.name)
        rows = _verify(part, module, opset, cases, path.name)
    artifacts.write_sidecar(
        path,
        **decides,
        weights_file=weights_file,
        checked=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        checks=[dataclasses.asdict(row) for row in rows],
        export_s=round(time.perf_counter() - start, 3),
    )
    return path


def read_checks(path: str | os.PathLike[str]) -> list[CheckRow]:
    """Reads the comparisons that an exported file has passed from its sidecar."""
    try:
        return [
            CheckRow(**{**row, "heatmaps": Difference(**row["heatmaps"]), "tags": Difference(**row["tags"])})
            for row in artifacts.read_sidecar(path)["checks"]
        ]
    except (KeyError, TypeError) as error:
        raise DataError(f"{artifacts.sidecar(path)} is damaged; export {Path(path).name} again.") from error


def operators(path: str | os.PathLike[str]) -> dict[str, int]:
    """Counts the operators of each kind in an ONNX file, the most frequent first."""
    import onnx

    try:
        document = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # what protobuf makes of damaged bytes has several types
        raise DataError(f"{path} cannot be read as ONNX; export it again ({first_line(error)}).") from error
    return dict(collections.Counter(node.op_type for node in document.graph.node).most_common())


def _verify(
    path: Path, module: torch.nn.Module, opset: int, cases: Sequence[tuple[int, int, int]], name: str
) -> list[CheckRow]:
    """Compares an ONNX file, which messages call `name`, with the network it was made from; all rows have passed."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    rows = []
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for batch, height, width in cases:
            images = network.image_like(batch, height, width, seed=height * width + batch)
            [found] = session.run([OUTPUT], {INPUT: images})
            with torch.inference_mode():
                wanted = module(torch.from_numpy(images)).numpy()
            rows.append(_compare(found, wanted, opset, (batch, height, width)))
    except Exception as error:  # protobuf and ONNX Runtime have a dozen kinds, without a common ancestor
        raise DataError(f"{name} does not run in ONNX Runtime: {first_line(error)}.") from error
    for row in rows:
        if not row.passed:
            raise DataError(
                f"{name} does not compute what PyTorch does: at {row.batch}x3x{row.height}x{row.width} the largest "
                f"error is {row.heatmaps.relative:.2g} of the heatmaps' range and {row.tags.relative:.2g} of the "
                f"tags' ({TOLERANCE:g} is allowed); export it again."
            )
    return rows


def _compare(found: np.ndarray, wanted: np.ndarray, opset: int, shape: tuple[int, int, int]) -> CheckRow:
    """Judges one output (N, 34, h, w) float32 by PyTorch's."""
    heatmaps, tags = map(_difference, *(np.split(output, [len(COCO17)], axis=1) for output in (found, wanted)))
    passed = all(half.max_abs <= TOLERANCE * half.range for half in (heatmaps, tags))  # not so for NaN
    return CheckRow(opset, *shape, heatmaps=heatmaps, tags=tags, passed=passed)


def _difference(found: np.ndarray, wanted: np.ndarray) -> Difference:
    a, b = found.astype(np.float64).ravel(), wanted.astype(np.float64).ravel()
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return Difference(float(np.abs(a - b).max()), float(np.ptp(b)), float(a @ b / lengths) if lengths else 1.0)


def _covers(path: Path, cases: Sequence[tuple[int, int, int]]) -> bool:
    """Tells whether an exported file has passed these checks; one whose sidecar cannot tell has not."""
    try:
        return set(cases) <= {(row.batch, row.height, row.width) for row in read_checks(path)}
    except DataError:
        return False


def _follow(path: Path, weights_file: str | None) -> None:
    """Has the sidecar say where the weights are now, if the same ones were somewhere else at the export."""
    facts = artifacts.read_sidecar(path)
    if facts.get("weights_file") != weights_file:
        with contextlib.suppress(DataError):  # a read-only folder: the file is good, only PyTorch looks for the weights
            artifacts.write_sidecar(path, **{**facts, "weights_file": weights_file})


def _write(module: torch.nn.Module, path: Path, opset: int) -> None:
    """Traces the network into an ONNX file."""
    import torch

    module = network.with_separate_halves(module)
    if opset != OPSETS[0]:
        module = network.without_deconvolutions(module)
    side = 4 * network.STRIDE  # the trace does not depend on it
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of the exporter's own age
        torch.onnx.export(
            module,
            (torch.zeros(1, 3, side, side),),
            str(path),
            opset_version=opset,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={
                name: {axis: dim for axis, dim in enumerate(dims) if isinstance(dim, str)}
                for name, dims in ((INPUT, _INPUT_DIMS), (OUTPUT, _OUTPUT_DIMS))
            },
            dynamo=False,  # torch's newer exporter writes opset 18 whatever it is asked for
        )


def _check_graph(path: Path, opset: int, name: str) -> None:
    """Checks what can be checked without running: opset, validity, types, free axes, and a quarter of an odd size."""
    import onnx
    from onnx.shape_inference import infer_shapes

    try:
        document = onnx.load(str(path))
        onnx.checker.check_model(document, full_check=True)
        free = infer_shapes(document, check_type=True, strict_mode=True, data_prop=True)
        sized = copy.deepcopy(document)
        for axis, size in zip((0, 2, 3), (2, 512, 704)):
            sized.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
        for dim in sized.graph.output[0].type.tensor_type.shape.dim:
            dim.Clear()  # so that the graph itself arrives at a quarter of the input
        sized = infer_shapes(sized, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise DataError(f"{name} is not a valid ONNX graph: {first_line(error)}") from error
    ends = [*free.graph.input, *free.graph.output]
    found = next(entry.version for entry in document.opset_import if entry.domain in ("", "ai.onnx"))
    free_input, free_output, output = (
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (free.graph.input[0], free.graph.output[0], sized.graph.output[0])
    )
    for what, is_, wanted in (
        ("opset", found, opset),
        ("inputs and outputs", [value.name for value in ends], [INPUT, OUTPUT]),
        ("types", [value.type.tensor_type.elem_type for value in ends], [onnx.TensorProto.FLOAT] * 2),
        ("free input", free_input, _INPUT_DIMS),
        ("free output", free_output, _OUTPUT_DIMS),
        ("output for 2x3x512x704", output, [2, 2 * len(COCO17), 128, 176]),
    ):
        if is_ != wanted:
            raise DataError(f"{name} has the wrong {what}: {is_}, not {wanted}; the exporter has changed.")
