"""The six precisions on ONNX Runtime: near float32, small, with a scale per channel, and built again when they must."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
import textwrap
import weakref

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization.calibrate import EntropyCalibrater, MinMaxCalibrater, PercentileCalibrater

from helpers import artifacts, backends, paths, zoo
from helpers.backends import BuildSpec, quantize, sensitivity
from helpers.backends.calibration import CalibrationSet
from helpers.dataset import CocoDataset
from helpers.errors import DataError, UsageError
from helpers.export import network
from helpers.images import read_image
from helpers.measure import evaluate
from helpers.pose.estimator import PoseEstimator
from helpers.pose.preprocess import resize_align, to_input

ROUNDED = tuple(precision for precision in zoo.PRECISIONS if precision != "force_float32")
INT8 = BuildSpec("qint8_mixed_float32")
LEAST_DB = {"force": 50, "qint8": 20, "qint16": 45}  # of heatmaps and of tags


@dataclasses.dataclass
class Small:
    """A calibration set of demo images, much smaller than the network sees them otherwise."""

    count: int = 3
    method: str = "minmax"

    def __len__(self):
        return self.count

    def describe(self):
        return dataclasses.asdict(self)

    def batches(self):
        for path in CalibrationSet(count=self.count).files:
            yield to_input([resize_align(read_image(path), 192)[0]])


@pytest.fixture(scope="module")
def scored():
    """Network inputs of demo images that nothing is calibrated with, of different shapes."""
    dataset = CocoDataset(paths.demo_data())
    paths_ = [dataset.path(image_id) for image_id in dataset.sample(3, seed=2)]
    return [to_input([resize_align(read_image(path), size)[0]]) for path, size in zip(paths_, (192, 192, 256))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for built models that all tests here share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_PATH", str(tmp_path_factory.mktemp("rounded")))
        yield


@pytest.fixture(scope="module")
def demo(demo_built):
    """MobileNetv2 with the demo weights, opset 17; random weights amplify each rounding too much."""
    return demo_built.parents[1] / "MobileNetv2_demo_opset17.onnx"


@pytest.fixture(scope="module", params=ROUNDED)
def rounded(request, demo, folder):
    """A model in each precision but float32's."""
    calibration = Small() if request.param.startswith("qint") else None
    return backends.get("onnxruntime").build(demo, BuildSpec(request.param), calibration)


@pytest.fixture(scope="module")
def document(demo):
    return quantize.load(demo)


@pytest.fixture(scope="module")
def found(document):
    return quantize.ranges(document, Small(), "qint8")


def scales(path) -> list[int]:
    """How many scales each weight has, and how many channels."""
    graph = onnx.load(str(path)).graph
    values = {weight.name: weight for weight in graph.initializer}
    return [
        (len(numpy_helper.to_array(values[node.input[1]]).ravel()), values[node.input[0]].dims[0])
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in values and len(values[node.input[0]].dims) == 4
    ]


def test_near_float32_at_any_shape(rounded, demo, folder, scored):
    ort = backends.get("onnxruntime")
    with ort.load(rounded) as engine, ort.load(ort.build(demo, BuildSpec())) as reference:
        found, wanted = ([engine.run(images) for images in scored] for engine in (engine, reference))
        assert len(engine.run(np.concatenate([scored[0], scored[0][..., ::-1]]))) == 2
    assert len({output.shape for output in found}) > 1
    assert not np.array_equal(found[0], wanted[0])
    assert min(sensitivity.signal_to_noise(found, wanted)) > LEAST_DB[engine.precision.split("_")[0]]


def test_weights_are_small_and_have_a_scale_per_channel(rounded, demo):
    size = rounded.stat().st_size / demo.stat().st_size
    assert size <= {"force": 0.51, "qint8": 0.28, "qint16": 0.52}[rounded.name.split("_model_")[1].split("_")[0]]
    if "qint" in rounded.name:
        counts = scales(rounded)
        assert len(counts) == 55  # of 57 convolutions; the last two stay in float
        assert all(scales == channels for scales, channels in counts)


def test_half_rounds_what_operators_give(demo, document, found):
    """To the last bit: every output is a float16 number, also that of an int8 model whose rest is float16."""
    images = [network.image_like(1, 128, 128)]
    fresh = quantize.load(demo)
    mixed = quantize.quantize(document, BuildSpec("qint8_mixed_float16"), found)
    for halved in (quantize.to_float16(fresh), mixed):
        [output] = quantize.outputs(halved, images)
        np.testing.assert_array_equal(output, output.astype(np.float16).astype(np.float32))
    assert not [w for w in fresh.graph.initializer if w.data_type == TensorProto.FLOAT and len(w.dims) == 4]


def test_integer_kernels_do_the_work(document, found, tmp_path):
    """Nothing between two convolutions goes back to float."""
    import onnxruntime

    quantize.save(quantize.quantize(document, INT8, found), INT8, tmp_path / "a.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "b.onnx")
    onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(str(tmp_path / "b.onnx")).graph.node]
    count = {kind: operators.count(kind) for kind in ("QLinearConv", "Conv", "QLinearAdd", "Add", "QuantizeLinear")}
    assert count == {"QLinearConv": 55, "Conv": 2, "QLinearAdd": 10, "Add": 0, "QuantizeLinear": 1}
    assert operators.count("DequantizeLinear") <= 2


@pytest.mark.parametrize("precision", ["force_float16", "qint8_mixed_float16"])
def test_static_shape_is_in_the_graph(exported, models, precision):
    spec = BuildSpec(precision, 2, False, (64, 96))
    path = backends.get("onnxruntime").build(exported[17], spec, Small(1))
    graph = onnx.load(str(path)).graph
    shapes = [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.input, *graph.output)]
    assert shapes == [[2, 3, 64, 96], [2, 34, 16, 24]]
    assert backends.get("onnxruntime").load(path).run(network.image_like(2, 64, 96)).shape == (2, 34, 16, 24)


def test_opset_11_serves_too(exported):
    """As the simulator of a card needs it: all convolutions rounded, deconvolutions in float."""
    document = quantize.load(exported[11])
    images = [network.image_like(1, 128, 128, seed=9)]
    wanted = quantize.outputs(onnx.load(str(exported[11])), images)
    np.testing.assert_allclose(quantize.outputs(document, images)[0], wanted[0], atol=1e-3)
    rounded = quantize.quantize(document, INT8, quantize.ranges(document, Small(1), "qint8"))
    assert min(sensitivity.signal_to_noise(quantize.outputs(rounded, images), wanted)) > 0
    kept = {w.name for w in rounded.graph.initializer if w.data_type == TensorProto.FLOAT and len(w.dims) == 4}
    floats = [node.op_type for node in rounded.graph.node if kept & set(node.input)]
    assert sorted(floats) == ["Conv", "Conv", "ConvTranspose", "ConvTranspose", "ConvTranspose"]
    [half] = quantize.outputs(quantize.to_float16(document), images)
    np.testing.assert_array_equal(half, half.astype(np.float16).astype(np.float32))
    assert not [w for w in document.graph.initializer if w.data_type == TensorProto.FLOAT and len(w.dims) == 4]


def test_additions_of_zero_go(tmp_path):
    """HRNet's sums begin with a constant 0, which has no range to be rounded by."""
    node = onnx.helper.make_node
    ends = [onnx.helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, "h", "w"]) for n in ("input", "output")]
    arrays = {name: numpy_helper.from_array(np.float32(value)) for name, value in (("zero", 0), ("two", 2))}
    nodes = [node("Constant", [], [name], value=value) for name, value in arrays.items()]
    sums = [("zero", "input", "a"), ("a", "zero", "b"), ("b", "two", "output")]
    nodes += [node("Add", [x, y], [z], z) for x, y, z in sums]
    graph = onnx.helper.make_graph(nodes, "graph", ends[:1], ends[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "a.onnx"))
    document = quantize.load(tmp_path / "a.onnx")
    [left] = [(list(n.input), list(n.output)) for n in document.graph.node if n.op_type == "Add"]
    assert left == (["input", "two"], ["output"])
    assert [n.output[0] for n in document.graph.node if n.op_type == "Constant"] == ["two"]
    images = np.ones((1, 3, 4, 4), np.float32)
    np.testing.assert_array_equal(quantize.outputs(document, [images])[0], images + 2)


def test_built_again_exactly_when_the_calibration_changes(exported, models):
    ort = backends.get("onnxruntime")

    def run(calibration, spec=INT8):
        path = ort.build(exported[17], spec, calibration)
        return path.stat().st_mtime_ns, artifacts.read_sidecar(path)

    first, facts = run(Small(1))
    assert facts["calibration"] == {"count": 1, "method": "minmax"}
    assert run(Small(1))[0] == first
    second, _ = run(Small(2))
    third, _ = run(Small(2, "linear"))
    spec = dataclasses.replace(INT8, float_layers=("/backbone/conv1/conv/Conv",))
    fourth, facts = run(Small(2, "linear"), spec)
    assert first < second < third < fourth
    assert facts["float_layers"] == ["/backbone/conv1/conv/Conv"]
    assert run(Small(2, "linear"), spec)[0] == fourth


def test_refusals(exported, models):
    ort = backends.get("onnxruntime")
    with pytest.raises(UsageError, match="qint8_mixed_float32 needs images to calibrate with"):
        ort.build(exported[17], INT8)
    with pytest.raises(UsageError, match="eqnm is MagicMind's own"):
        ort.build(exported[17], INT8, Small(method="eqnm"))
    with pytest.raises(UsageError, match="no layer 'conv9' to leave in float"):
        ort.build(exported[17], dataclasses.replace(INT8, float_layers=("conv9",)), Small(1))
    broken = Small(1)
    broken.batches = lambda: iter([np.full((1, 3, 64, 64), np.nan, np.float32)])
    with pytest.raises(DataError, match="is not finite"):
        ort.build(exported[17], INT8, broken)
    assert not [path for path in models.rglob("*") if path.is_file()]


class Reader:
    """What ONNX Runtime's calibrators take."""

    def __init__(self, batch):
        self.waiting = [{"input": batch}]

    def get_next(self):
        return self.waiting.pop() if self.waiting else None


@pytest.mark.parametrize(
    "method, calibrator, options",
    [
        ("minmax", MinMaxCalibrater, {}),
        ("percentile", PercentileCalibrater, {"percentile": 99.999}),
        ("entropy", EntropyCalibrater, {}),
    ],
)
def test_ranges_equal_onnx_runtimes_own(demo, document, tmp_path, method, calibrator, options):
    """Given one image at a time: given all at once, its histograms begin with other bins, and need all memory."""
    chosen = Small(2, method)
    theirs = calibrator(demo, augmented_model_path=str(tmp_path / "augmented.onnx"), **options)
    theirs.augment_graph()
    theirs.create_inference_session()
    for batch in chosen.batches():
        theirs.collect_data(Reader(batch))
    wanted = theirs.compute_data().data
    ours = quantize.ranges(document, chosen, "qint8").data
    compared = [name for name in quantize._rounded(document) if name in wanted]
    assert len(compared) > 60
    for name in compared:
        bounds = [np.ravel([float(np.ravel(x)[0]) for x in data[name].range_value]) for data in (ours, wanted)]
        np.testing.assert_allclose(*bounds, rtol=2e-2, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_histograms_count_what_layers_give(document, method):
    names = [quantize.layers(document)[0], quantize.layers(document)[-1]]
    seen = quantize.histograms(document, Small(1, method), "qint8_mixed_float32", names)
    last = next(node.output[0] for node in document.graph.node if node.name == names[1])
    values = next(quantize.activations(document, Small(1).batches()))[last]
    counts, edges, low, high = seen[names[1]]
    assert counts.sum() == values.size
    assert (edges[0], edges[-1]) == (values.min(), values.max())
    assert ((low, high) == (edges[0], edges[-1])) == (method == "minmax")
    assert seen[names[0]][1][0] >= 0, "after the activation"


def test_methods_differ(document):
    widths = {}
    for method in ("minmax", "percentile", "entropy", "linear"):
        ranges = quantize.ranges(document, Small(2, method), "q").data.values()
        widths[method] = np.mean([np.ptp(data.range_value) for data in ranges])
    assert widths["percentile"] < widths["minmax"] == widths["linear"]
    assert widths["entropy"] <= widths["minmax"]


def test_histograms_stay_bounded():
    """A tensor that was all but zero in the first image makes ONNX Runtime's collector add millions of bins."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    collector = HistogramCollector("percentile", False, 2048, 128, 99.9, "same")
    values = np.linspace(-1, 1, 1000, dtype=np.float32)
    for factor in (1e-2, 1.0):
        collector.collect({"a": values * np.float32(factor)})
        quantize._bound(collector.histogram_dict)
    counts, edges, _, high, threshold = collector.histogram_dict["a"]
    assert len(counts) <= quantize._MOST_BINS
    assert len(edges) == len(counts) + 1
    assert counts.sum() == 2000
    assert edges[0] == pytest.approx(-threshold) and threshold >= high == 1
    collector.collect({"a": values * 2})
    assert collector.histogram_dict["a"][0].sum() == 3000


def test_memory_does_not_grow_with_the_number_of_images(document):
    """Each image's tensors are let go of before the next image is run."""
    earlier = []

    def batches():
        for batch in Small(3).batches():
            assert not any(reference() is not None for reference in earlier)
            yield batch

    for tensors in quantize.activations(document, batches()):
        assert len(tensors) > 60
        earlier[:] = [weakref.ref(values) for values in tensors.values()]
    assert earlier


def test_killed_build_leaves_nothing_that_counts(exported, models):
    """Killed outright, so that nothing is cleared away: the next build must not take the rest for a model."""
    code = f"""
        import os, signal
        from helpers import backends
        from helpers.backends import BuildSpec, quantize
        from tests.unit.test_quantize import INT8, Small
        save = quantize.save
        def killed(document, spec, out):
            save(document, spec, out)
            os.kill(os.getpid(), signal.SIGKILL)
        quantize.save = killed
        backends.get("onnxruntime").build({str(exported[17])!r}, INT8, Small(1))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=paths.root(), check=False)
    assert done.returncode == -9
    made = [path for path in models.rglob("*") if path.is_file()]
    assert made and all(path.name.startswith(".part-") for path in made)
    ort = backends.get("onnxruntime")
    assert ort.load(ort.build(exported[17], INT8, Small(1))).precision == INT8.precision


def test_rank_finds_the_layer_that_suffers(exported, monkeypatch):
    document = quantize.load(exported[17])
    some = quantize.layers(document)[:1] + quantize.layers(document)[-3:]
    monkeypatch.setattr(quantize, "layers", lambda document: some)
    monkeypatch.setattr(sensitivity, "_IMAGES", 1)
    rows = sensitivity.rank(exported[17], "qint8_mixed_float32", Small(1))
    assert {row.layer for row in rows} == set(some)
    assert [row.worst_db for row in rows] == sorted(row.worst_db for row in rows)
    by_name = {row.layer: row for row in rows}
    assert by_name[some[-2]].heatmaps_db < by_name[some[-2]].tags_db  # to the tags, only its input is rounded
    assert by_name[some[-1]].tags_db < by_name[some[-1]].heatmaps_db


@pytest.fixture
def score(models):
    """AP of a loaded engine on four of the calibration images."""
    dataset = CocoDataset(paths.demo_data(), "calib2017")
    dataset.image_ids = dataset.sample(4, seed=3)
    return lambda engine: evaluate.run(PoseEstimator(engine), dataset, dataset.image_ids).stats.numbers["AP"]


@pytest.fixture
def unsure(demo, document, score, monkeypatch):
    """What `sensitivity.within` is to decide: int8 with all layers rounded, few candidates, and what it costs."""
    monkeypatch.setattr(sensitivity, "_IMAGES", 1)
    some = quantize.layers(document)[:1] + quantize._last_layers(document)
    ort, spec = backends.get("onnxruntime"), dataclasses.replace(INT8, float_layers=())
    ap = [score(ort.load(ort.build(demo, each, Small(1)))) for each in (BuildSpec(), spec)]
    monkeypatch.setattr(quantize, "layers", lambda document: some)
    return spec, ap[0] - ap[1], some


def test_no_layer_stays_in_float_that_need_not(demo, score, unsure):
    spec, drop, _ = unsure
    assert drop > 0.01
    assert sensitivity.within(drop + 1e-9, demo, spec, Small(1), score) == (spec, drop)


def test_layers_stay_in_float_until_ap_holds(demo, models, score, unsure):
    spec, drop, some = unsure
    before = {path: path.stat().st_mtime_ns for path in models.rglob("*")}
    found, left = sensitivity.within(drop / 2, demo, spec, Small(1), score)
    assert left <= drop / 2
    assert found.float_layers
    assert set(found.float_layers) <= set(some)
    after = {path: path.stat().st_mtime_ns for path in models.rglob("*")}
    assert before and after == before, "the reader's engines stay as they were"


def test_too_small_a_drop_is_said(demo, score, unsure, monkeypatch):
    spec, drop, _ = unsure
    monkeypatch.setattr(sensitivity, "_MOST_LAYERS", 0)
    with pytest.raises(UsageError, match=f"With 0 layers in float, qint8_mixed_float32 still loses {drop:.4f} AP"):
        sensitivity.within(drop / 2, demo, spec, Small(1), score)


def test_signal_to_noise():
    wanted = np.ones((1, 34, 2, 2), np.float32)
    found = wanted.copy()
    found[:, :17] += 0.1
    heatmaps, tags = sensitivity.signal_to_noise([found], [wanted])
    assert heatmaps == pytest.approx(20, abs=1e-3)
    assert tags == float("inf")
    assert sensitivity.agreement(found[0], wanted[0]) == {"heatmaps dB": 20.0, "tags dB": float("inf")}


def test_rank_spreads_over_the_network(exported, monkeypatch):
    monkeypatch.setattr(sensitivity, "_IMAGES", 1)
    rows = sensitivity.rank(exported[17], "qint8_mixed_float32", Small(1), most=2)
    names = quantize.layers(quantize.load(exported[17]))
    assert {row.layer for row in rows} == {names[0], names[-1]}
    with pytest.raises(UsageError, match="must be 1 or more, not 0"):
        sensitivity.rank(exported[17], "qint8_mixed_float32", Small(1), most=0)


def test_ranges_of_some_images_are_those_of_a_calibration_with_them(document):
    images = quantize.tensor_ranges(document, Small(2).batches())
    assert len(images) == 2
    both, wanted = quantize.union_ranges(document, images), quantize.ranges(document, Small(2), INT8.precision)
    one = quantize.union_ranges(document, images[:1])
    assert set(both) == set(wanted)
    assert [both[name].range_value for name in both] == [wanted[name].range_value for name in both]
    assert any(one[name].range_value != both[name].range_value for name in both)


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-1.0, 4.0), (0.5, 2.0), (-3.7, -0.1), (-0.11, 1.07)])
def test_scale_and_zero_point_are_onnx_runtimes(low, high):
    from onnxruntime.quantization.quant_utils import compute_scale_zp

    zero, scale = compute_scale_zp(np.float32(low), np.float32(high), np.array(0), np.array(255))
    assert quantize.scale_and_zero_point(low, high) == (pytest.approx(float(scale), rel=1e-6), int(zero))


def test_calibrating_with_few_images_and_with_many(exported, scored, monkeypatch):
    monkeypatch.setattr(sensitivity, "_DRAWS", 2)
    rows = sensitivity.by_count(exported[17], INT8.precision, Small(3), [1, 3, 9], scored[:1])
    assert [row.count for row in rows] == [1, 1, 3], "9 means all, which is done once"
    assert rows[-1].narrowest == 1
    assert all(0 <= row.narrowest < 1 for row in rows[:-1])
    assert rows[0] != rows[1], "other images"
    document = quantize.load(exported[17])
    rounded = quantize.quantize(
        document, BuildSpec(INT8.precision), quantize.ranges(document, Small(3), INT8.precision)
    )
    same = sensitivity.signal_to_noise(quantize.outputs(rounded, scored[:1]), quantize.outputs(document, scored[:1]))
    assert (rows[-1].heatmaps_db, rows[-1].tags_db) == same, "as a build with all of them"
    with pytest.raises(UsageError, match="must be 1 or more"):
        sensitivity.by_count(exported[17], INT8.precision, Small(1), [0], scored[:1])


def test_quantizing_is_quiet_and_leaves_logging_alone(document, found, capfd):
    """Of 16 bits too, which ONNX Runtime would warn about."""
    logging.disable(logging.INFO)
    try:
        quantize.quantize(document, BuildSpec("qint16_mixed_float32"), found)
        assert logging.root.manager.disable == logging.INFO
    finally:
        logging.disable(logging.NOTSET)
    assert capfd.readouterr() == ("", "")
