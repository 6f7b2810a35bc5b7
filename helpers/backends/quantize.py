"""ONNX -> the same network rounded to 8 or 16 bits, again as an ONNX file: for every CPU engine that reads ONNX.

    quantize.quantize_file(onnx_path, BuildSpec("qint8_mixed_float16"), calibration, out)

The result is in QDQ form: each tensor that is rounded passes a QuantizeLinear and a DequantizeLinear operator that
carry its scale, and an engine replaces what lies between them by its integer kernels. Weights have one scale per
output channel, symmetric; activations one per tensor, unsigned with a zero point (ONNX Runtime's kernels for signed
activations are slower, and the layers that end in a ReLU would waste half their steps). The last operators, which only
bring heatmaps and tags together, stay in float, and so do the layers that a `BuildSpec` names.

Of `onnxruntime.quantization.quantize_static` only the second half, `QDQQuantizer`, is used. The first one keeps every
tensor of every image until all have run, and passes over values that are not finite.
"""

from __future__ import annotations

import contextlib
import copy
import io
from typing import TYPE_CHECKING, Any, Collection, Iterable, Iterator, Sequence

import numpy as np

from helpers.errors import DataError, UsageError, first_line

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    from onnxruntime.quantization.calibrate import TensorsData

    from helpers.backends.base import BuildSpec, Calibration

# Activations and weights, by the first part of a precision's name, as onnxruntime.quantization calls them.
_TYPES = {"qint8": ("QUInt8", "QInt8"), "qint16": ("QUInt16", "QInt16")}
_OPERATORS = ("Add", "Clip", "Conv", "MaxPool", "Relu", "Resize")
_ACTIVATIONS = ("Clip", "Relu")
_COMPUTING = (*_OPERATORS, "BatchNormalization", "Concat", "ConvTranspose", "Mul", "Sub")  # the others move values
_OPSET = 17
_BINS = {"percentile": 2048, "entropy": 128}  # ONNX Runtime's own defaults, as is the percentile
_PERCENTILE = 99.999
# A histogram's bins keep the width that suits the first image; if a tensor was all but zero there, it needs millions.
_MOST_BINS = 1 << 16
_SHOWN_BINS = 120  # of `histograms`


def quantize_file(onnx_path: Path, spec: BuildSpec, calibration: Calibration | None, out: Path) -> None:
    """Writes an exported network in QDQ form to `out`, whatever its suffix."""
    document = load(onnx_path)
    save(quantize(document, spec, ranges(document, calibration, spec.precision)), spec, out)


def load(path: Path) -> onnx.ModelProto:
    """Reads an exported network, with the shapes of all tensors, which rounding needs to know."""
    try:
        import onnx
        import onnx.version_converter

        document = onnx.load(str(path))
        if document.opset_import[0].version < _OPSET:  # opset 11 has no scale per channel
            document = onnx.version_converter.convert_version(document, _OPSET)
        return onnx.shape_inference.infer_shapes(_without_zeros(document))
    except ImportError as error:
        raise DataError(f"Building this precision needs onnx ({error}); install it, or build elsewhere.") from error
    except Exception as error:  # protobuf and ONNX have a dozen kinds, without a common ancestor
        raise DataError(f"{path} is not a readable ONNX file: {first_line(error)}; export it again.") from error


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
    """Returns the names of a network's convolutions, which a `BuildSpec` may leave in float, from input to output."""
    return [node.name for node in document.graph.node if node.op_type == "Conv"]


def ranges(document: onnx.ModelProto, calibration: Calibration | None, precision: str) -> TensorsData:
    """Finds the range of every tensor that is to be rounded, in the form that ONNX Runtime's quantizer takes.

    Of an image's tensors only two numbers or a histogram stay. `precision` is named in errors.
    """
    if calibration is None:
        raise UsageError(f"{precision} needs images to calibrate with; give the build a calibration.CalibrationSet.")
    method = calibration.method
    if method == "eqnm":
        raise UsageError(
            "The calibration method eqnm is MagicMind's own and not public, so it exists on a card only; "
            "use minmax, percentile, entropy or linear."
        )
    if method not in _BINS:  # `linear` differs on a card only: a symmetric range wastes half of the unsigned steps
        return union_ranges(document, tensor_ranges(document, calibration.batches()))

    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import HistogramCollector

    collector = HistogramCollector(method, False, _BINS[method], 128, _PERCENTILE, "same")
    with contextlib.redirect_stdout(io.StringIO()):  # the collector tells its progress with print()
        for tensors in activations(document, calibration.batches()):
            collector.collect(tensors)
            _bound(collector.histogram_dict)
        found = collector.compute_collection_result()
    return _tensors_data(document, CalibrationMethod[method.capitalize()], found)


def tensor_ranges(document: onnx.ModelProto, batches: Iterable[np.ndarray]) -> list[dict[str, tuple[float, float]]]:
    """Finds the range of every tensor that is to be rounded image by image: name -> (lowest, highest)."""
    return [
        {name: (values.min(), values.max()) for name, values in tensors.items()}
        for tensors in activations(document, batches)
    ]


def union_ranges(document: onnx.ModelProto, images: Sequence[dict[str, tuple[float, float]]]) -> TensorsData:
    """Merges the ranges of single images, one at least, from `tensor_ranges`: the method minmax."""
    from onnxruntime.quantization import CalibrationMethod

    found = {name: (min(each[name][0] for each in images), max(each[name][1] for each in images)) for name in images[0]}
    return _tensors_data(document, CalibrationMethod.MinMax, found)


def scale_and_zero_point(low: float, high: float, bits: int = 8) -> tuple[float, int]:
    """Returns how ONNX Runtime's quantizer rounds an unsigned tensor with values from `low` to `high`.

    A value x becomes q = round(x / scale) + zero point, kept from 0 to 2**bits - 1, and is read as
    scale * (q - zero point). The range is widened to hold 0: padding and what a ReLU cuts off stay exactly 0.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (2**bits - 1)
    return scale, round(-low / scale)


def activations(document: onnx.ModelProto, batches: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """Runs images, (1, 3, h, w) float32 each, through a network and yields all tensors to be rounded by name."""
    names = _rounded(document)
    probed = copy.deepcopy(document)
    known = {value.name: value for value in (*document.graph.value_info, *document.graph.input)}
    del probed.graph.output[:]
    probed.graph.output.extend(known[name] for name in names)
    for found in _run(probed, batches):
        tensors = dict(zip(names, found))
        broken = [name for name, values in tensors.items() if not np.isfinite(values.sum())]
        if broken:
            raise DataError(f"The tensor {broken[0]} is not finite for a calibration image; check the weights.")
        yield tensors
        found.clear()  # whoever still holds the dictionary, too: the next image needs the room
        tensors.clear()


def histograms(
    document: onnx.ModelProto, calibration: Calibration, precision: str, names: Sequence[str]
) -> dict[str, tuple[np.ndarray, np.ndarray, float, float]]:
    """Counts the values that layers, with their activations, give on calibration images.

    Returns:
        Name -> (counts (B,), edges (B + 1,), low, high): calibration chooses the range from low to high.
    """
    replaced = _replaced(document)
    gives = {node.name: replaced.get(node.output[0], node.output[0]) for node in document.graph.node}
    chosen = ranges(document, calibration, precision)
    seen = union_ranges(document, tensor_ranges(document, calibration.batches()))
    ends = {name: [float(v) for v in seen[gives[name]].range_value] for name in names}
    counts = {name: np.zeros(_SHOWN_BINS, np.int64) for name in names}
    for tensors in activations(document, calibration.batches()):
        for name in names:
            counts[name] += np.histogram(tensors[gives[name]], _SHOWN_BINS, ends[name])[0]
    return {
        name: (counts[name], np.linspace(*ends[name], _SHOWN_BINS + 1), *map(float, chosen[gives[name]].range_value))
        for name in names
    }


def outputs(document: onnx.ModelProto, batches: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Runs images, (1, 3, h, w) float32 each, through a network, rounded or not; returns (1, 34, h/4, w/4) each."""
    return [found[0] for found in _run(document, batches)]


def _run(document: onnx.ModelProto, batches: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Yields all outputs of a network in memory, batch by batch."""
    import onnxruntime

    options, network = onnxruntime.SessionOptions(), document.SerializeToString()
    options.log_severity_level = 3  # errors only
    try:
        session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a dozen kinds, without a common ancestor
        raise DataError(f"ONNX Runtime cannot read the network: {first_line(error)}.") from error
    for batch in batches:
        try:
            found = session.run(None, {"input": batch})
        except Exception as error:
            raise DataError(f"ONNX Runtime failed on an image of {batch.shape}: {first_line(error)}.") from error
        yield found


def _tensors_data(document: onnx.ModelProto, method: Any, found: dict[str, Any]) -> TensorsData:
    """Packs ranges for the quantizer; a tensor fused into the activation after it gets that one's range."""
    from onnxruntime.quantization.calibrate import TensorsData

    fused = {before: found[after] for before, after in _replaced(document).items() if after in found}
    return TensorsData(method, {**found, **fused})


def _bound(histograms: dict[str, tuple[Any, ...]]) -> None:
    """Merges neighboring bins of histograms that have grown too fine, in place."""
    for name, (counts, edges, low, high, threshold) in histograms.items():
        while len(counts) > _MOST_BINS:
            pad = -len(counts) % 4  # the middle stays an edge, and the number of bins even
            width = edges[1] - edges[0]
            threshold = threshold + width * pad / 2
            counts = np.pad(counts, pad // 2).reshape(-1, 2).sum(axis=1)
            edges = np.linspace(-threshold, threshold, len(counts) + 1, dtype=edges.dtype)
            histograms[name] = counts, edges, low, high, threshold


def _rounded(document: onnx.ModelProto) -> list[str]:
    """Returns the names of the tensors that may be rounded: ends of operators that are not fused into another."""
    import onnx

    graph = document.graph
    values = (*graph.value_info, *graph.input)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    floats -= {weight.name for weight in graph.initializer}
    floats -= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    floats -= set(_replaced(document))
    ends = [name for node in graph.node if node.op_type in _OPERATORS for name in (*node.input, *node.output)]
    return [name for name in dict.fromkeys(ends) if name in floats]


def _replaced(document: onnx.ModelProto) -> dict[str, str]:
    """Maps tensors that only an activation takes to what it makes of them; rounding can do its work for it."""
    takers: dict[str, list[onnx.NodeProto]] = {}
    for node in document.graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    return {
        name: nodes[0].output[0]
        for name, nodes in takers.items()
        if len(nodes) == 1 and nodes[0].op_type in _ACTIVATIONS and nodes[0].input[0] == name
    }


def quantize(
    document: onnx.ModelProto, spec: BuildSpec, found: TensorsData, only: Sequence[str] = ()
) -> onnx.ModelProto:
    """Returns a network in QDQ form, by ranges from `ranges`; `only` names the layers to round, if not all."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    left = float_layers(document, spec)
    bits, _, rest = spec.precision.partition("_mixed_")
    activation, weight = (getattr(QuantType, kind) for kind in _TYPES[bits])
    wide = bits == "qint16"  # its bias stays in float: 32 bits are too few for the scale of 16 x 16
    options = {"QuantizeBias": not wide, "UseQDQContribOps": wide}  # ONNX has 16-bit operators from opset 21 only
    quantizer = QDQQuantizer(
        copy.deepcopy(document), True, False, weight, activation, found, list(only), left, list(_OPERATORS), options
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized = quantizer.model.model
    _drop_unused_constants(quantized.graph)
    return to_float16(quantized, _with_activations(quantized, left)) if rest == "float16" else quantized


def float_layers(document: onnx.ModelProto, spec: BuildSpec) -> list[str]:
    """Returns the layers that stay in float: those that the spec names, else the ones that give heatmaps and tags.

    These take 2 % of the operations. On the demo set with MobileNetv2, leaving them in float raises the heatmaps'
    signal-to-noise ratio from 25 to 30 dB.
    """
    if spec.float_layers is None:
        return _last_layers(document)
    known = layers(document)
    for name in spec.float_layers:
        if name not in known:
            raise UsageError(f"The network has no layer {name!r} to leave in float; its layers are {', '.join(known)}.")
    return list(spec.float_layers)


def _last_layers(document: onnx.ModelProto) -> list[str]:
    """Returns the names of the convolutions after which the output is only put together."""
    makers = {name: node for node in document.graph.node for name in node.output}
    found: dict[str, None] = {}
    waiting = [output.name for output in document.graph.output]
    for name in waiting:  # which grows
        node = makers.get(name)
        if node is not None and node.op_type == "Conv":
            found[node.name] = None
        elif node is not None and (node.op_type == "Concat" or node.op_type not in _COMPUTING):
            waiting += node.input
    return list(found)


def _without_zeros(document: onnx.ModelProto) -> onnx.ModelProto:
    """Takes out additions of a constant 0, with which mmpose begins HRNet's sums; changes the document in place."""
    from onnx import numpy_helper

    graph = document.graph
    zeros = {
        node.output[0]
        for node in graph.node
        for each in node.attribute
        if node.op_type == "Constant" and each.name == "value" and not numpy_helper.to_array(each.t).any()
    }
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


def _drop_unused_constants(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [node for node in graph.node if node.op_type != "Constant" or node.output[0] in used]
    del graph.node[:]
    graph.node.extend(kept)


def to_float16(document: onnx.ModelProto, names: Collection[str] | None = None) -> onnx.ModelProto:
    """Rounds weights, and what operators give, to float16, with casts there and back around float32 operators.

    That is the arithmetic of an engine whose kernels take and give float16 and add up in float32, as accelerators' do.
    A plain float16 graph would not show it: having no such kernels for x86, ONNX Runtime computes in float32 and takes
    out all roundings on the way. Changes the document in place; `names` are of the operators to treat, None for all.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = document.graph
    weights = {weight.name: weight for weight in graph.initializer if weight.data_type == TensorProto.FLOAT}
    fused = _replaced(document)
    nodes: list[onnx.NodeProto] = []

    def cast(source: str, target: str, to: int) -> None:
        nodes.append(helper.make_node("Cast", [source], [target], f"{target}_cast", to=to))

    for node in graph.node:
        if node.op_type not in _COMPUTING or (names is not None and node.name not in names):
            nodes.append(node)
            continue
        for name in node.input:
            if name in weights:
                weight = weights.pop(name)
                half = numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), f"{name}_float16")
                graph.initializer.remove(weight)
                graph.initializer.append(half)
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
    """Returns layers, the activations that follow them at once, and what joins both halves of the output."""
    found = set(names) | {node.name for node in document.graph.node if node.op_type == "Concat"}
    makers = {name: node.name for node in document.graph.node for name in node.output}
    return found | {
        node.name for node in document.graph.node if node.op_type in _ACTIVATIONS and makers.get(node.input[0]) in found
    }
