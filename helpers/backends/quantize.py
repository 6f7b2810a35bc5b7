"""ONNX -> the same network rounded to 8 or 16 bits, again as an ONNX file: for every CPU engine that reads ONNX.

The result is in QDQ form: each tensor that is rounded passes a QuantizeLinear and a DequantizeLinear operator that
carry its scale, and an engine replaces what lies between them by its integer kernels. Weights have one scale per
output channel, symmetric; activations one per tensor, unsigned with a zero point (ONNX Runtime's kernels for signed
activations are slower, and the layers that end in a ReLU would waste half their steps).

What is rounded: convolutions with the activation that follows them, additions, pooling and enlarging. What stays in
float: the last few operators, which only bring heatmaps and tags together, and the layers that a `BuildSpec` names.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
from typing import TYPE_CHECKING, Any, Collection, Iterable, Iterator, Sequence

import numpy as np

from helpers.errors import DataError, UsageError, first_line
from helpers.pose import preprocess

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    from onnxruntime.quantization.calibrate import TensorsData

    from helpers.backends.base import BuildSpec, Calibration

# Activations and weights, by the first part of a precision's name, as onnxruntime.quantization calls them.
_TYPES = {"qint8": ("QUInt8", "QInt8"), "qint16": ("QUInt16", "QInt16")}
_OPERATORS = ("Add", "Clip", "Conv", "MaxPool", "Relu", "Resize")
_ACTIVATIONS = ("Clip", "Relu")
_COMPUTING = (*_OPERATORS, "Concat", "Mul", "Sub")  # the others only move values about
_OPSET = 17
_BINS = {"percentile": 2048, "entropy": 128}  # ONNX Runtime's own defaults
_MOST_BINS = 1 << 16  # a histogram grows with the values that it sees; this much at most


def write(onnx_path: Path, spec: BuildSpec, calibration: Calibration | None, out: Path) -> None:
    """Writes a network in QDQ form.

    Args:
        onnx_path: from `export.export`, opset 17.
        spec: the precision, one of the qint ones, the shapes, and the layers to leave in float.
        calibration: pictures to learn ranges from.
        out: the file to write; need not end in `.onnx`.

    Raises:
        UsageError: there is no calibration, its method cannot be used here, or there is no such layer.
        DataError: the file cannot be run, or a range is not finite.
    """
    document = load(onnx_path)
    quantised = quantise(document, spec, ranges(document, calibration, spec.precision))
    save(quantised, spec, out)


def load(path: Path) -> onnx.ModelProto:
    """An exported network with the shapes of all tensors, which rounding needs to know.

    One of an opset that has no scale per channel yet (MagicMind's, 11) is brought up to 17. The normalisation after its
    deconvolutions becomes part of them, since before it channels differ too much in range to share a scale, and they
    become convolutions, as in the opset 17 file: the same layers are rounded in both.

    Raises:
        DataError: it is no ONNX file, or onnx is not installed.
    """
    try:
        import onnx
        import onnx.version_converter
    except ImportError as error:
        raise DataError(f"Building this precision needs onnx ({error}); install it, or build elsewhere.") from error

    try:
        document = onnx.load(str(path))
        if document.opset_import[0].version < _OPSET:
            document = onnx.version_converter.convert_version(document, _OPSET)
            document = _without_deconvolutions(_fold_norms(document))
        return onnx.shape_inference.infer_shapes(_without_zeros(document))
    except Exception as error:  # protobuf and ONNX have a dozen kinds, without a common ancestor
        raise DataError(f"{path} is no readable ONNX file: {first_line(error)}; export it again.") from error


def save(document: onnx.ModelProto, spec: BuildSpec, out: Path) -> None:
    """Writes a network, with the shape in it if the spec has one."""
    from onnxruntime.tools.onnx_model_utils import fix_output_shapes, make_dim_param_fixed

    if not spec.dynamic_shape:
        for axis, size in zip(("batch", "height", "width"), (spec.batch_size, *spec.input_shape)):
            make_dim_param_fixed(document.graph, axis, size)
        del document.graph.value_info[:]  # what was inferred for free shapes
        fix_output_shapes(document)
    with out.open("wb") as file:
        file.write(document.SerializeToString())


def layers(document: onnx.ModelProto) -> list[str]:
    """Names of the convolutions of a network, which a `BuildSpec` may leave in float, from input to output."""
    return [node.name for node in document.graph.node if node.op_type == "Conv"]


def ranges(document: onnx.ModelProto, calibration: Calibration | None, precision: str) -> TensorsData:
    """The smallest and largest value of every tensor that is to be rounded.

    One picture at a time goes through the network. Of its tensors only what the method needs stays: two numbers, or a
    histogram (`onnxruntime.quantization`'s), so memory depends on one picture's size, not on their number.

    Args:
        document: from `load`.
        calibration: the pictures, and the method.
        precision: that it is for, to be named in errors.

    Returns:
        As `onnxruntime.quantization`'s calibrators give it.

    Raises:
        UsageError: no calibration, or a method that cannot be used here.
        DataError: ONNX Runtime cannot run the network, or a value is not finite.
    """
    if calibration is None:
        raise UsageError(f"{precision} needs pictures to calibrate with; give the build a calibration.CalibrationSet.")
    if calibration.method == "eqnm":
        raise UsageError(
            "The calibration method eqnm is MagicMind's own and not public, so it exists on a card only; "
            "use minmax, percentile, entropy or linear."
        )
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import HistogramCollector, TensorsData

    method = calibration.method
    if method in _BINS:
        percentile = getattr(calibration, "percentile", 100.0)
        collector = HistogramCollector(method, False, _BINS[method], 128, percentile, "same")
        kind = CalibrationMethod.Percentile if method == "percentile" else CalibrationMethod.Entropy
    else:  # `linear` differs on a card only: a range that is symmetric wastes half of the unsigned steps
        collector, kind = _MinMax(), CalibrationMethod.MinMax
    with contextlib.redirect_stdout(io.StringIO()):  # the collector tells its progress with print()
        for tensors in activations(document, calibration.batches()):
            collector.collect(tensors)
            _bound(getattr(collector, "histogram_dict", {}))
        found = collector.compute_collection_result()
    return TensorsData(kind, _with_replaced(document, found))


def tensor_ranges(document: onnx.ModelProto, batches: Iterable[np.ndarray]) -> list[dict[str, tuple[float, float]]]:
    """The smallest and largest value of every tensor that is to be rounded, for each picture by itself.

    Args:
        document: from `load`.
        batches: (1, 3, h, w) float32 each.

    Returns:
        Per picture, name -> (lowest, highest).

    Raises:
        DataError: as `activations`.
    """
    return [
        {name: (values.min(), values.max()) for name, values in tensors.items()}
        for tensors in activations(document, batches)
    ]


def union_ranges(document: onnx.ModelProto, pictures: Sequence[dict[str, tuple[float, float]]]) -> TensorsData:
    """What `ranges` finds by minmax on these pictures, without running any again.

    Args:
        document: from `load`.
        pictures: some of what `tensor_ranges` gave, one at least.
    """
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import TensorsData

    found = {
        name: (min(each[name][0] for each in pictures), max(each[name][1] for each in pictures)) for name in pictures[0]
    }
    return TensorsData(CalibrationMethod.MinMax, _with_replaced(document, found))


def step(low: float, high: float, bits: int = 8) -> tuple[float, int]:
    """How an unsigned tensor is rounded whose values lie between two: as ONNX Runtime's quantiser does it.

    A value x becomes q = round(x / scale) + zero point, kept from 0 to 2**bits - 1, and is read as
    scale * (q - zero point). The range is widened to hold 0, which then is a step of its own: padding and what a ReLU
    cuts off stay exactly 0.

    Args:
        low, high: the range, `low < high`.
        bits: of the whole numbers.

    Returns:
        (scale, zero point): the width of a step, and the whole number that means 0.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (2**bits - 1)
    return scale, round(-low / scale)


def activations(document: onnx.ModelProto, batches: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """Runs pictures through a network and yields all tensors that are to be rounded, by name.

    Args:
        document: from `load`.
        batches: (1, 3, h, w) float32 each; turned back into bytes for a network that takes bytes.

    Yields:
        One dictionary per picture, emptied before the next picture is run.

    Raises:
        DataError: ONNX Runtime cannot run the network, or a value is not finite; names the tensor.
    """
    import onnx

    names = _rounded(document)
    probed = onnx.ModelProto()
    probed.CopyFrom(document)
    known = {value.name: value for value in (*document.graph.value_info, *document.graph.input)}
    del probed.graph.output[:]
    probed.graph.output.extend(known[name] for name in names)
    for found in _run(probed, batches):
        tensors = dict(zip(names, found))
        broken = [name for name, values in tensors.items() if not np.isfinite(values.sum())]
        if broken:
            raise DataError(f"The tensor {broken[0]} is not finite for a calibration picture; check the weights.")
        yield tensors
        found.clear()  # whoever still holds the dictionary, too: the next picture needs the room
        tensors.clear()


def histograms(
    document: onnx.ModelProto, calibration: Calibration, precision: str, names: Sequence[str], bins: int = 120
) -> dict[str, tuple[np.ndarray, np.ndarray, float, float]]:
    """What layers give on calibration pictures, and the range that was chosen for it.

    Args:
        document: from `load`.
        calibration: the pictures, and the method.
        precision: one of the qint ones.
        names: of layers (`layers`); of one that an activation follows at once, what that makes of it counts.
        bins: of the histograms.

    Returns:
        Name -> (counts (bins,), edges (bins + 1,), low, high): values from low to high keep their own step.

    Raises:
        UsageError, DataError: as `ranges`.
    """
    replaced = _replaced(document)
    gives = {node.name: replaced.get(node.output[0], node.output[0]) for node in document.graph.node}
    wide = ranges(document, _as_minmax(calibration), precision)
    chosen = wide if calibration.method in ("minmax", "linear") else ranges(document, calibration, precision)
    ends = {name: [float(v) for v in wide[gives[name]].range_value] for name in names}
    counts = {name: np.zeros(bins, np.int64) for name in names}
    for tensors in activations(document, calibration.batches()):
        for name in names:
            counts[name] += np.histogram(tensors[gives[name]], bins, ends[name])[0]
    found = {}
    for name in names:
        low, high = (float(v) for v in chosen[gives[name]].range_value)
        found[name] = counts[name], np.linspace(*ends[name], bins + 1), low, high
    return found


def _with_replaced(document: onnx.ModelProto, found: dict[str, Any]) -> dict[str, Any]:
    """The same by name, also for the tensors that an activation replaces by one of these."""
    replaced = {before: after for before, after in _replaced(document).items() if after in found}
    return {**found, **{before: found[after] for before, after in replaced.items()}}


def _as_minmax(calibration: Calibration) -> Calibration:
    """The same pictures with another method."""
    twin = copy.copy(calibration)
    twin.method = "minmax"
    return twin


def outputs(document: onnx.ModelProto, batches: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Runs pictures through a network, rounded or not.

    Args:
        document: from `load` or `quantise`.
        batches: (1, 3, h, w) float32 each.

    Returns:
        (1, 34, h/4, w/4) float32 each.

    Raises:
        DataError: ONNX Runtime cannot run the network.
    """
    return [found[0] for found in _run(document, batches)]


def _run(document: onnx.ModelProto, batches: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """All outputs of a network in memory, batch by batch."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    takes_bytes = document.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    try:
        session = onnxruntime.InferenceSession(
            document.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # a dozen kinds, without a common ancestor
        raise DataError(f"ONNX Runtime cannot read the network: {first_line(error)}.") from error
    for batch in batches:
        try:
            yield session.run(None, {"input": _as_bytes(batch) if takes_bytes else batch})
        except (GeneratorExit, MemoryError):
            raise
        except Exception as error:
            raise DataError(f"ONNX Runtime failed on a picture of {batch.shape}: {first_line(error)}.") from error


def quantise(
    document: onnx.ModelProto, spec: BuildSpec, found: TensorsData, only: Sequence[str] = ()
) -> onnx.ModelProto:
    """A network in QDQ form.

    Args:
        document: from `load`; stays as it is.
        spec: the precision, and the layers to leave in float.
        found: from `ranges`.
        only: the layers to round, if not all: for measuring what each of them costs.

    Raises:
        UsageError: there is no such layer.
    """
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    left = in_float(document, spec)
    bits, _, rest = spec.precision.partition("_mixed_")
    activation, weight = (getattr(QuantType, kind) for kind in _TYPES[bits])
    copied = onnx.ModelProto()
    copied.CopyFrom(document)
    options = {"QuantizeBias": bits == "qint8"}  # of 16 x 16 bits, the scale is too fine for a bias of 32
    with _quiet():
        quantizer = QDQQuantizer(
            copied, True, False, weight, activation, found, list(only), left, list(_OPERATORS), options
        )
        quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantised = quantizer.model.model
    _drop_unused_constants(quantised.graph)
    return to_float16(quantised, _with_activations(quantised, left)) if rest == "float16" else quantised


def in_float(document: onnx.ModelProto, spec: BuildSpec) -> list[str]:
    """The layers that stay in float: those that the spec names, else the last ones, which give heatmaps and tags.

    The last ones take 2 % of the operations, and their outputs are what decoding looks at: rounded to 8 bits,
    neighbouring samples of a heatmap become equal, and noise passes the detection threshold. On the demo set with
    MobileNetv2, leaving them in float raises the heatmaps' signal-to-noise ratio from 25 to 30 dB.

    Raises:
        UsageError: there is no such layer.
    """
    known = layers(document)
    if spec.float_layers is None:
        return _last_layers(document)
    for name in spec.float_layers:
        if name not in known:
            raise UsageError(f"The network has no layer {name!r} to leave in float; its layers are {', '.join(known)}.")
    return list(spec.float_layers)


def _last_layers(document: onnx.ModelProto) -> list[str]:
    """Names of the convolutions after which the output is only put together."""
    makers = {name: node for node in document.graph.node for name in node.output}
    found: dict[str, None] = {}
    waiting = [output.name for output in document.graph.output]
    while waiting:
        node = makers.get(waiting.pop(0))
        if node is None or node.op_type == "Constant":
            continue
        if node.op_type in _COMPUTING and node.op_type != "Concat":
            found.update({node.name: None} if node.op_type == "Conv" else {})
        else:
            waiting += node.input
    return list(found)


class _MinMax:
    """Collects as `HistogramCollector` does, but keeps the extremes only."""

    def __init__(self) -> None:
        self._extremes: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def collect(self, tensors: dict[str, np.ndarray]) -> None:
        """Takes in one picture's tensors."""
        for name, values in tensors.items():
            low, high = self._extremes.get(name, (np.float32("inf"), np.float32("-inf")))
            self._extremes[name] = np.minimum(low, values.min()), np.maximum(high, values.max())

    def compute_collection_result(self) -> dict[str, Any]:
        """(lowest, highest) by name."""
        return self._extremes


def _bound(histograms: dict[str, tuple[Any, ...]]) -> None:
    """Merges neighbouring bins of histograms that have grown too fine, in place.

    ONNX Runtime's collector keeps the width of the first picture's bins and adds bins for larger values; a tensor that
    was all but zero in the first picture would need millions.
    """
    for name, (counts, edges, low, high, threshold) in histograms.items():
        while len(counts) > _MOST_BINS:
            pad = -len(counts) % 4  # the middle stays an edge, and the number of bins even
            width = edges[1] - edges[0]
            threshold = threshold + width * pad / 2
            counts = np.pad(counts, pad // 2).reshape(-1, 2).sum(axis=1)
            edges = np.linspace(-threshold, threshold, len(counts) + 1, dtype=edges.dtype)
            histograms[name] = counts, edges, low, high, threshold


def _rounded(document: onnx.ModelProto) -> list[str]:
    """Names of the tensors that may be rounded: ends of operators, but for what an activation at once replaces."""
    import onnx

    graph = document.graph
    floats = {
        value.name
        for value in (*graph.value_info, *graph.input)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    } - {weight.name for weight in graph.initializer}
    floats -= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    ends: dict[str, None] = {}
    for node in graph.node:
        if node.op_type in _OPERATORS:
            ends.update((name, None) for name in (*node.input, *node.output) if name in floats)
    replaced = _replaced(document)
    return [name for name in ends if name not in replaced]


def _replaced(document: onnx.ModelProto) -> dict[str, str]:
    """Tensors that nothing but an activation takes -> what that makes of them; rounding can do its work for it."""
    takers: dict[str, list[onnx.NodeProto]] = {}
    for node in document.graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    return {
        name: nodes[0].output[0]
        for name, nodes in takers.items()
        if len(nodes) == 1 and nodes[0].op_type in _ACTIVATIONS and nodes[0].input[0] == name
    }


def _without_zeros(document: onnx.ModelProto) -> onnx.ModelProto:
    """Takes out additions of a constant 0, with which mmpose begins HRNet's sums; changes the document in place."""
    graph = document.graph
    zeros = {node.output[0] for node in graph.node if node.op_type == "Constant" and _is_zero(node)}
    ends = {output.name for output in graph.output}
    same: dict[str, str] = {}
    for node in list(graph.node):
        terms = [name for name in node.input if name not in zeros]
        if node.op_type == "Add" and len(terms) == 1 and node.output[0] not in ends:
            same[node.output[0]] = same.get(terms[0], terms[0])
            graph.node.remove(node)
            continue
        for k, name in enumerate(node.input):
            node.input[k] = same.get(name, name)
    _drop_unused_constants(graph)
    return document


def _is_zero(constant: onnx.NodeProto) -> bool:
    from onnx import numpy_helper

    return any(each.name == "value" and not numpy_helper.to_array(each.t).any() for each in constant.attribute)


def _drop_unused_constants(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [node for node in graph.node if node.op_type != "Constant" or node.output[0] in used]
    del graph.node[:]
    graph.node.extend(kept)


def _fold_norms(document: onnx.ModelProto) -> onnx.ModelProto:
    """Has deconvolutions do the normalisation that follows them; changes the document in place."""
    from onnx import numpy_helper

    graph = document.graph
    weights = {weight.name: weight for weight in graph.initializer}
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in weights:  # the exporter keeps one of several equal weights
            weights[node.output[0]] = weights[node.input[0]]
    makers = {name: node for node in graph.node for name in node.output}
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        layer = makers[norm.input[0]]
        if layer.op_type != "ConvTranspose":
            continue
        scale, shift, mean, variance = (numpy_helper.to_array(weights[name]) for name in norm.input[1:])
        factor = scale / np.sqrt(variance + _epsilon(norm))
        kernel = numpy_helper.to_array(weights[layer.input[1]]) * factor[:, None, None]
        bias = numpy_helper.to_array(weights[layer.input[2]]) if len(layer.input) > 2 else 0
        for name, values in (("kernel", kernel), ("bias", (bias - mean) * factor + shift)):
            graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), f"{layer.name}.{name}"))
        layer.input[:] = [layer.input[0], f"{layer.name}.kernel", f"{layer.name}.bias"]
        layer.output[0] = norm.output[0]
        graph.node.remove(norm)
    return document


def _without_deconvolutions(document: onnx.ModelProto) -> onnx.ModelProto:
    """`network.without_deconvolutions` for a graph: convolution, ReLU, interleaving; changes the document in place.

    Raises:
        ValueError: a deconvolution that no official network has: other sizes, or no ReLU after it.
    """
    from onnx import helper, numpy_helper

    graph = document.graph
    weights = {weight.name: weight for weight in graph.initializer}
    steps = {"starts": [1, 1], "ends": [-1, -1], "axes": [2, 3]}
    taps = np.array([[2, 0], [3, 1]])  # of the kernel: [phase, input t - 1 or t], see `network._convolution_of`
    for layer in [node for node in graph.node if node.op_type == "ConvTranspose"]:
        sizes = {each.name: list(each.ints) for each in layer.attribute if each.ints}
        if (sizes["kernel_shape"], sizes["strides"], sizes["pads"]) != ([4, 4], [2, 2], [1, 1, 1, 1]):
            raise ValueError(f"the deconvolution {layer.name} has sizes {sizes}")
        (activation,) = (node for node in graph.node if layer.output[0] in node.input)
        if activation.op_type != "Relu":
            raise ValueError(f"after the deconvolution {layer.name} comes no ReLU but {activation.op_type}")
        kernel, bias = (numpy_helper.to_array(weights[name]) for name in layer.input[1:])
        kernel = kernel[:, :, taps][..., taps]  # (C, C', row phase, row input, column phase, column input)
        kernel = kernel.transpose(1, 2, 4, 0, 3, 5).reshape(-1, kernel.shape[0], 2, 2)
        constants = {"phases": kernel, "phases_bias": bias.repeat(4), **{k: np.array(v) for k, v in steps.items()}}
        names = {key: f"{layer.name}.{key}" for key in constants}
        graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(value), names[key]) for key, value in constants.items()
        )
        end, whole, inner = activation.output[0], f"{layer.name}.whole", f"{layer.name}.inner"
        activation.output[0] = inner
        made = [
            helper.make_node(
                "Conv",
                [layer.input[0], names["phases"], names["phases_bias"]],
                [layer.output[0]],
                layer.name,
                kernel_shape=[2, 2],
                pads=[1, 1, 1, 1],
            ),
            activation,
            helper.make_node("DepthToSpace", [inner], [whole], f"{layer.name}.interleave", blocksize=2, mode="CRD"),
            helper.make_node("Slice", [whole, *(names[key] for key in steps)], [end], f"{layer.name}.crop"),
        ]
        at = list(graph.node).index(layer)
        rest = [node for node in graph.node if node not in (layer, activation)]
        del graph.node[:]
        graph.node.extend([*rest[:at], *made, *rest[at:]])
    used = {name for node in graph.node for name in node.input}
    kept = [weight for weight in graph.initializer if weight.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return document


def _epsilon(norm: onnx.NodeProto) -> float:
    return next((attribute.f for attribute in norm.attribute if attribute.name == "epsilon"), 1e-5)


def _as_bytes(batch: np.ndarray) -> np.ndarray:
    """Undoes `preprocess.to_input`, exactly: (N, 3, h, w) float32 -> (N, h, w, 3) uint8 BGR."""
    std, mean = (np.array(each, np.float32) for each in (preprocess.STD_RGB, preprocess.MEAN_RGB))
    rgb = (batch.transpose(0, 2, 3, 1) * std + mean) * 255
    return np.ascontiguousarray(rgb[..., ::-1].round().astype(np.uint8))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the quantiser's advice to preprocess, which does not apply, out of notebooks."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def to_float16(document: onnx.ModelProto, names: Collection[str] | None = None) -> onnx.ModelProto:
    """Rounds weights, and what operators give, to float16, with casts there and back around float32 operators.

    That is the arithmetic of an engine whose kernels take and give float16 and add up in float32, as accelerators' do.
    A plain float16 graph (onnxruntime.transformers.float16) would not show it: having no such kernels for x86, ONNX
    Runtime computes in float32 and takes out all roundings on the way, so that only the weights are rounded.

    Args:
        document: from `load` or `quantise`; changed in place.
        names: of the operators to treat so; all if None.

    Returns:
        `document`; weights take half the room.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = document.graph
    weights = {weight.name: weight for weight in graph.initializer if weight.data_type == TensorProto.FLOAT}
    fused = _replaced(document)
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()

    def cast(source: str, target: str, to: int) -> None:
        nodes.append(helper.make_node("Cast", [source], [target], f"{target}_cast", to=to))

    for node in graph.node:
        if node.op_type not in _COMPUTING or (names is not None and node.name not in names):
            nodes.append(node)
            continue
        for name in node.input:
            if name in weights and name not in done:
                done.add(name)
                values = numpy_helper.to_array(weights[name]).astype(np.float16)
                graph.initializer.remove(weights[name])
                graph.initializer.append(numpy_helper.from_array(values, f"{name}_float16"))
                cast(f"{name}_float16", name, TensorProto.FLOAT)
        nodes.append(node)
        [name] = node.output
        if name not in fused:  # else what follows is part of the same kernel
            node.output[0] = f"{name}_float32"
            cast(node.output[0], f"{name}_float16", TensorProto.FLOAT16)
            cast(f"{name}_float16", name, TensorProto.FLOAT)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return document


def _with_activations(document: onnx.ModelProto, names: Collection[str]) -> set[str]:
    """Layers, the activations that follow them at once, and what brings both halves of the output together."""
    found = set(names) | {node.name for node in document.graph.node if node.op_type == "Concat"}
    makers = {name: node.name for node in document.graph.node for name in node.output}
    return found | {
        node.name for node in document.graph.node if node.op_type in _ACTIVATIONS and makers.get(node.input[0]) in found
    }
