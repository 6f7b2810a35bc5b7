"""Why a network is as fast as it is: what it asks of a machine, and what the machine has to give.

    cost = cost(onnx_path)                    # cost.gflop, cost.megabytes, cost.intensity
    gemm_gflops(), memory_gbs()               # the roof and the slope, measured here

Williams, Waterman, Patterson: "Roofline: an insightful visual performance model" (2009).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from helpers import zoo
from helpers.errors import UsageError
from helpers.measure.benchmark import measure
from helpers.measure.machine import cores

if TYPE_CHECKING:
    import os

_COPIED = 1 << 25  # float32 numbers, 134 MB: far more than any cache holds
_FUSED = ("Constant", "Clip", "Relu")  # nodes that engines compute within the layer before, with no way to memory


@dataclass(frozen=True)
class Cost:
    """What one run of a network asks of a machine, counted on its ONNX graph."""

    gflop: float  # 10^9 operations of its convolutions, two per multiply-add
    megabytes: float  # 10^6 bytes of float32 if each layer reads inputs and weights once, writes once; activations: 0

    @property
    def intensity(self) -> float:
        """Operations per byte: the more, the less a network waits for memory."""
        return 1e3 * self.gflop / self.megabytes


def cost(
    onnx_path: str | os.PathLike[str], batch_size: int = 1, height: int = zoo.INPUT_SIZE, width: int = zoo.INPUT_SIZE
) -> Cost:
    """Counts what a network asks for, from its graph and the shapes that ONNX infers."""
    try:
        import onnx
    except ImportError as error:
        raise UsageError("Counting operations needs the onnx package; `pip install onnx`.") from error
    document = onnx.load(str(onnx_path))
    for axis, size in zip(document.graph.input[0].type.tensor_type.shape.dim, (batch_size, 3, height, width)):
        axis.dim_value = size
    for output in document.graph.output:
        output.type.tensor_type.ClearField("shape")  # with its names of variable axes
    graph = onnx.shape_inference.infer_shapes(document, data_prop=True).graph
    shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    for tensor in (*graph.value_info, *graph.input, *graph.output):
        shapes[tensor.name] = tuple(axis.dim_value for axis in tensor.type.tensor_type.shape.dim)
    operations = numbers = 0
    for node in graph.node:
        if node.op_type in _FUSED:
            continue
        numbers += sum(int(np.prod(shapes[name])) for name in (*node.input, *node.output) if name)
        if node.op_type in ("Conv", "ConvTranspose"):
            # A multiply-add for each weight of a channel, at each place of the output, or of the input if transposed.
            places = shapes[node.output[0] if node.op_type == "Conv" else node.input[0]]
            operations += 2 * int(np.prod(places)) * int(np.prod(shapes[node.input[1]][1:]))
    return Cost(operations / 1e9, 4 * numbers / 1e6)


def gemm_gflops(size: int = 1536, min_seconds: float = 1.0) -> float:
    """Measures 10^9 operations per second in practice: the best of several products of two float32 matrices.

    By default of 9 MB each, larger than most caches of a core. ONNX Runtime computes them, with the kernels that
    networks use; NumPy's OpenBLAS goes by the processor's name, and is slow on one that it does not know.
    """
    import onnxruntime
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [size, size]) for name in "abc"]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "gemm", ends[:2], ends[2:])
    document = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    session = onnxruntime.InferenceSession(document.SerializeToString(), options, ["CPUExecutionProvider"])
    inputs = dict(zip("ab", np.random.default_rng(0).random((2, size, size), dtype=np.float32)))
    samples = measure(lambda: session.run(None, inputs), min_runs=3, min_seconds=min_seconds, warm_up=1)
    return 2 * size**3 / samples.min() / 1e9


def memory_gbs(min_seconds: float = 0.5) -> float:
    """Measures 10^9 bytes per second, read and written as in STREAM, copied with a thread per core; the best time."""
    source, threads = np.ones(_COPIED, np.float32), cores()
    halves = [np.array_split(array, threads) for array in (np.empty_like(source), source)]
    with ThreadPoolExecutor(threads) as pool:
        samples = measure(lambda: list(pool.map(np.copyto, *halves)), min_runs=3, min_seconds=min_seconds, warm_up=1)
    return 2 * source.nbytes / samples.min() / 1e9
