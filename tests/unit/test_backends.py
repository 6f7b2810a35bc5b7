"""The contract of the engines, tried on the real ones: ONNX Runtime, OpenVINO and PyTorch."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import zipfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from helpers import artifacts, backends, zoo
from helpers.backends import BuildSpec, base
from helpers.backends.calibration import CalibrationSet
from helpers.errors import DataError, UsageError
from helpers.export import network

HERE = ("onnxruntime", "openvino", "pytorch")
PLANNED = ("magicmind",)
STATIC = BuildSpec(batch_size=2, dynamic_shape=False, input_shape=(64, 96))


@pytest.fixture(scope="module", params=HERE)
def built(request, exported, tmp_path_factory):
    """A backend and its dynamic model, built once; not to be damaged."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_PATH", str(tmp_path_factory.mktemp("built")))
        backend = backends.get(request.param)
        return backend, backend.build(exported[17], BuildSpec())


@pytest.fixture(scope="module")
def engine(built):
    backend, path = built
    with backend.load(path) as engine:
        yield engine


@pytest.fixture
def ort(models):
    """The ONNX Runtime backend, with an empty folder to build in."""
    return backends.get("onnxruntime")


@pytest.fixture
def openvino(models):
    """The OpenVINO backend, with an empty folder to build in."""
    return backends.get("openvino")


def test_names():
    assert backends.names() == ("onnxruntime", "magicmind", "openvino", "pytorch")
    assert [backends.get(name).name for name in backends.names()] == list(backends.names())


def test_unknown_name():
    with pytest.raises(UsageError, match="did you mean onnxruntime"):
        backends.get("onnxruntim")
    with pytest.raises(UsageError, match="onnxruntime, magicmind, openvino, pytorch"):
        backends.get("tensorrt")


@pytest.mark.parametrize("name", HERE)
def test_available(name):
    backend = backends.get(name)
    assert backend.is_available() == (True, "")
    assert backend.version()[0].isdigit()
    assert "force_float32" in backend.precisions()


@pytest.mark.parametrize("name", PLANNED)
def test_not_available_says_why(name, exported):
    backend = backends.get(name)
    available, reason = backend.is_available()
    assert not available
    assert len(reason) > 20
    with pytest.raises(DataError, match=f"{name} backend is not available: {reason}"):
        backend.build(exported[17], BuildSpec())
    with pytest.raises(DataError, match="is not available"):
        backend.load(exported[17])


def test_requirements_are_checked_before_anything_is_made():
    backends.get("onnxruntime").require("force_float32")
    with pytest.raises(UsageError, match="does not build qint8_mixed_float16"):
        backends.get("pytorch").require("qint8_mixed_float16")
    with pytest.raises(DataError, match="no magicmind package"):
        backends.get("magicmind").require()


def test_every_precision_has_a_meaning_wherever_it_is_built():
    assert tuple(backends.MEANINGS) == zoo.PRECISIONS
    assert [row["precision"] for row in backends.meanings()] == list(zoo.PRECISIONS)
    for name in HERE:
        assert {p for p in zoo.PRECISIONS if name in backends.MEANINGS[p]} == set(backends.get(name).precisions())


def test_overview_has_a_row_for_each():
    rows = {row["backend"]: row for row in backends.overview()}
    assert tuple(rows) == backends.names()
    assert rows["onnxruntime"]["available"] == "yes"
    assert "force_float32" in rows["onnxruntime"]["builds"]
    assert rows["magicmind"]["available"] == "no"
    assert "no magicmind package" in rows["magicmind"]["version, or why not"]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"precision": "force_float23"}, "did you mean force_float32"),
        ({"batch_size": 0}, "batch size"),
        ({"batch_size": 1.0}, "batch size"),
        ({"batch_size": True}, "batch size"),
        ({"batch_size": 65}, "exceeds 64"),
        ({"dynamic_shape": "false"}, "True or False"),
        ({"input_shape": (512, 500)}, "multiples of 32"),
        ({"input_shape": (512,)}, r"\(height, width\)"),
        ({"input_shape": (0, 512)}, r"\(height, width\)"),
        ({"dim_range_min": (1, 3, 128)}, r"\(N, 3, H, W\)"),
        ({"dim_range_min": (1, 1, 128, 128)}, r"\(N, 3, H, W\)"),
        ({"dim_range_min": (1, 3, 4096, 128)}, "least first"),
    ],
)
def test_build_spec_refuses_nonsense(wrong, message):
    with pytest.raises(UsageError, match=message):
        BuildSpec(**wrong)


def test_model_is_named_as_in_the_sample(built):
    backend, path = built
    assert path.name == "MobileNetv2_mmpose_model_force_float32_true"
    assert path.parent.name == backend.name
    assert path.parent.parent.name == "MobileNetv2_random"
    facts = artifacts.read_sidecar(path)
    assert facts["backend_version"] == backend.version()
    assert facts["calibration"] is None
    assert facts["bytes"] == path.stat().st_size
    assert facts["build_s"] > 0


def test_engine_describes_itself(engine, built):
    assert (engine.name, engine.precision, engine.input_type) == (built[0].name, "force_float32", "float32")
    assert (engine.dynamic_shape, engine.batch_size, engine.input_shape) == (True, None, None)


@pytest.mark.parametrize("shape", [(1, 64, 64), (2, 96, 160), (5, 64, 32)])
def test_engine_computes_the_network(engine, shape):
    import torch

    images = network.image_like(*shape)
    output = engine.run(images)
    count, height, width = shape
    assert output.shape == (count, 34, height // 4, width // 4)
    assert output.dtype == np.float32
    with torch.inference_mode():
        wanted = network.load("MobileNetv2", "random")(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(output, wanted, atol=1e-3 * np.ptp(wanted[:, :17]))


def test_layout_in_memory_does_not_matter(engine):
    images = network.image_like(2, 64, 96)
    mirrored = images[..., ::-1]
    np.testing.assert_array_equal(engine.run(mirrored), engine.run(mirrored.copy()))


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 3, 64, 64)),
        np.zeros((1, 3, 64, 64), np.uint8),
        np.zeros((1, 64, 64, 3), np.float32),
        np.zeros((3, 64, 64), np.float32),
        np.zeros((0, 3, 64, 64), np.float32),
        np.zeros((1, 3, 0, 64), np.float32),
        np.zeros((1, 3, 64, 100), np.float32),
    ],
    ids=lambda batch: f"{batch.shape} {batch.dtype}",
)
def test_wrong_input_is_refused(engine, batch):
    with pytest.raises(UsageError) as caught:
        engine.run(batch)
    assert "takes (N, 3, H, W) float32, H and W multiples of 32" in str(caught.value)
    assert f"not {batch.shape} {batch.dtype}" in str(caught.value)


@pytest.mark.parametrize("name", HERE)
def test_static_model(name, exported, models):
    backend = backends.get(name)
    path = backend.build(exported[17], STATIC)
    assert path.name == "MobileNetv2_mmpose_model_force_float32_false_2"
    engine = backend.load(path)
    assert (engine.dynamic_shape, engine.batch_size, engine.input_shape) == (False, 2, (64, 96))
    assert engine.run(network.image_like(2, 64, 96)).shape == (2, 34, 16, 24)
    for wrong in ((1, 64, 96), (2, 96, 64)):
        with pytest.raises(UsageError, match=r"takes \(2, 3, 64, 96\) float32, for which it was built"):
            engine.run(network.image_like(*wrong))


def test_static_shape_is_in_the_graph(exported, ort):
    """Not only refused by us: ONNX Runtime can plan its memory."""
    graph = onnx.load(str(ort.build(exported[17], STATIC))).graph
    shapes = [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.input, *graph.output)]
    assert shapes == [[2, 3, 64, 96], [2, 34, 16, 24]]


def test_opset_11_serves_too(exported, ort, engine):
    images = network.image_like(1, 64, 64)
    with ort.load(ort.build(exported[11], BuildSpec())) as older:
        np.testing.assert_allclose(older.run(images), engine.run(images), atol=1e-3)


def test_closed_engine(built):
    backend, path = built
    with backend.load(path) as engine:
        pass
    engine.close()
    with pytest.raises(UsageError, match="closed"):
        engine.run(network.image_like(1, 64, 64))


@pytest.mark.parametrize("device_id", [1, -1])
def test_there_is_one_cpu(built, device_id):
    backend, path = built
    with pytest.raises(UsageError, match=f"no device {device_id}"):
        backend.load(path, device_id=device_id)


def test_build_is_repeated_only_when_needed(exported, ort):
    def run(spec=STATIC):
        return ort.build(exported[17], spec).stat().st_mtime_ns

    path = ort.build(exported[17], STATIC)
    first = run()
    assert run() == first
    path.write_bytes(path.read_bytes()[:-1])  # the file was damaged
    second = run()
    assert second > first
    other = run(BuildSpec(batch_size=2, dynamic_shape=False, input_shape=(64, 64)))  # same name, other content
    assert other > second
    facts = json.loads(artifacts.sidecar(path).read_text())
    assert facts["shapes"]["input_shape"] == [64, 64]
    third = run()
    for key, value in {"backend_version": "1.0", "onnx_sha256": "0" * 64, "format": 0}.items():
        facts = json.loads(artifacts.sidecar(path).read_text())
        artifacts.sidecar(path).write_text(json.dumps({**facts, key: value}))
        fourth = run()
        assert fourth > third, key
        third = fourth
    artifacts.sidecar(path).unlink()
    assert run() > third


def test_batch_size_is_nothing_to_a_dynamic_model(exported, ort):
    path = ort.build(exported[17], BuildSpec(batch_size=1))
    before = path.stat().st_mtime_ns
    assert ort.build(exported[17], BuildSpec(batch_size=8)) == path
    assert path.stat().st_mtime_ns == before


def test_unsupported_precision(exported, models):
    with pytest.raises(UsageError, match="does not build qint16_mixed_float16; use force_float32"):
        backends.get("pytorch").build(exported[17], BuildSpec("qint16_mixed_float16"))


def test_build_from_nothing(ort, tmp_path, exported):
    with pytest.raises(DataError, match=r"no exported network .*gone\.onnx"):
        ort.build(tmp_path / "gone.onnx", BuildSpec())
    path = tmp_path / "a.onnx"
    shutil.copy(exported[17], path)
    with pytest.raises(DataError, match=r"no a\.onnx\.json beside it"):
        ort.build(path, BuildSpec())
    shutil.copy(artifacts.sidecar(exported[17]), artifacts.sidecar(path))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"not the file that a\.onnx\.json describes"):
        ort.build(path, BuildSpec())
    facts = artifacts.read_sidecar(exported[17])
    del facts["weights_file"]  # as it was once
    artifacts.write_sidecar(path, **facts)
    with pytest.raises(DataError, match="export it again"):
        ort.build(path, BuildSpec())


def test_load_of_what_is_not_there_or_damaged(exported, ort, tmp_path):
    with pytest.raises(DataError, match="no built model"):
        ort.load(tmp_path / "gone")
    with pytest.raises(UsageError, match="not a model of the onnxruntime backend"):
        ort.load(exported[17])
    path = ort.build(exported[17], STATIC)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="cut short"):
        ort.load(path)
    artifacts.sidecar(path).unlink()
    with pytest.raises(DataError, match="has no"):
        ort.load(path)


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("key", ["model", "backend_version", "precision", "input_type", "dynamic_shape", "shapes"])
def test_load_with_a_damaged_sidecar(exported, models, name, key):
    backend = backends.get(name)
    path = backend.build(exported[17], STATIC)
    facts = artifacts.read_sidecar(path)
    damaged = [{k: value for k, value in facts.items() if k != key}]
    if key == "shapes":
        damaged += [{**facts, "shapes": {"batch_size": 2}}, {**facts, "shapes": [2, 64, 96]}]
    for document in damaged:
        artifacts.sidecar(path).write_text(json.dumps(document))
        with pytest.raises(DataError, match=r"\.json is damaged; build .* again"):
            backend.load(path)
    assert backend.load(backend.build(exported[17], STATIC)).batch_size == 2


def test_model_of_another_backend(built, ort):
    backend, path = built
    other = backends.get("pytorch" if backend.name == "onnxruntime" else "onnxruntime")
    with pytest.raises(UsageError, match=f"not a model of the {other.name} backend"):
        other.load(path)


def describe_as_exported(path):
    """Lets any ONNX file pass for an export."""
    facts = {"model": "MobileNetv2", "weights": "random", "weights_sha256": "", "weights_file": None, "opset": 17}
    artifacts.write_sidecar(path, **facts)
    return path


def one_node_model(path, op: str, *weights: onnx.TensorProto, **attributes):
    """An ONNX file of a single operator between `input` and `output`, described as exported."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [*"nchw"]) for name in ("input", "output")]
    node = helper.make_node(op, ["input", *(weight.name for weight in weights)], ["output"], **attributes)
    graph = helper.make_graph([node], "graph", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return describe_as_exported(path)


def test_failed_build_leaves_nothing(ort, models, tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no network")
    with pytest.raises(DataError, match=r"ONNX Runtime cannot read .*a\.onnx"):
        ort.build(describe_as_exported(tmp_path / "a.onnx"), BuildSpec())
    assert not [path for path in models.rglob("*") if path.is_file()]


def test_interrupted_build_leaves_nothing(exported, ort, models, monkeypatch):
    def interrupt(onnx_path, spec, calibration, out):
        out.write_bytes(b"half a model")
        raise KeyboardInterrupt

    monkeypatch.setattr(ort, "_build", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ort.build(exported[17], BuildSpec())
    assert not [path for path in models.rglob("*") if path.is_file()]


def test_folder_that_cannot_be_written(exported, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MODEL_PATH", str(tmp_path / "file"))
    with pytest.raises(DataError, match="cannot be written"):
        backends.get("onnxruntime").build(exported[17], BuildSpec())


def test_output_of_another_shape_is_refused(ort, tmp_path):
    """A network that returns its input: 3 channels of full size."""
    engine = ort.load(ort.build(one_node_model(tmp_path / "a.onnx", "Relu"), BuildSpec()))
    with pytest.raises(DataError, match=r"returned \(1, 3, 64, 64\) float32 instead of \(1, 34, 16, 16\)"):
        engine.run(network.image_like(1, 64, 64))


def test_failure_inside_the_engine_is_one_line(ort, tmp_path):
    """A network of grey pictures."""
    weight = helper.make_tensor("weight", TensorProto.FLOAT, (34, 1, 4, 4), np.zeros(34 * 16))
    engine = ort.load(ort.build(one_node_model(tmp_path / "a.onnx", "Conv", weight, strides=[4, 4]), BuildSpec()))
    with pytest.raises(DataError, match=r"ONNX Runtime failed on \(1, 3, 64, 64\)") as caught:
        engine.run(network.image_like(1, 64, 64))
    assert "\n" not in str(caught.value)


def test_pytorch_wants_the_weights_that_were_exported(models, tmp_path):
    from helpers.export import export

    module = network.load("MobileNetv2", "random")
    weights = network.save_npz(module, tmp_path / "a.npz")
    onnx_path = export.export("MobileNetv2", weights, shapes=[(64, 64)], batches=[1])
    engine = backends.get("pytorch").load(backends.get("pytorch").build(onnx_path, BuildSpec()))
    reference = backends.get("onnxruntime").load(backends.get("onnxruntime").build(onnx_path, BuildSpec()))
    images = network.image_like(1, 64, 64)
    np.testing.assert_allclose(engine.run(images), reference.run(images), atol=1e-3)
    network.save_npz({key: value * 2 for key, value in module.state_dict().items()}, weights)
    with pytest.raises(DataError, match="have changed since"):
        backends.get("pytorch").build(onnx_path, STATIC)


def test_engine_of_a_network_that_was_not_exported(engine):
    from helpers.backends.pytorch import engine_of

    images = network.image_like(2, 64, 96)
    with engine_of(network.load("MobileNetv2", "random")) as direct:
        assert direct.dynamic_shape
        np.testing.assert_allclose(direct.run(images), engine.run(images), atol=1e-3)


@pytest.mark.parametrize("value, good", [("", True), ("1", True), ("two", False), ("-1", False)])
def test_threads_come_from_the_environment(exported, ort, monkeypatch, value, good):
    path, other = ort.build(exported[17], STATIC), backends.get("openvino").build(exported[17], STATIC)
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    if good:
        assert ort.load(path)._session.get_session_options().intra_op_num_threads == int(value or 0)
        used = backends.get("openvino").load(other)._model.get_property("INFERENCE_NUM_THREADS")
        assert used == int(value) if value else used >= 1
    else:
        with pytest.raises(UsageError, match="OMP_NUM_THREADS"):
            ort.load(path)
        with pytest.raises(UsageError, match="OMP_NUM_THREADS"):
            backends.get("openvino").load(other)


def test_openvino_model_is_one_file(exported, openvino):
    path = openvino.build(exported[17], STATIC)
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name, f"{path.name}.json"]
    with zipfile.ZipFile(path) as file:
        assert file.namelist() == ["model.xml", "model.bin"]


def test_openvino_container_that_is_damaged_though_its_hash_fits(exported, openvino):
    path = openvino.build(exported[17], STATIC)
    facts, whole = artifacts.read_sidecar(path), path.read_bytes()
    with zipfile.ZipFile(path) as file:
        description = file.read("model.xml")
    for members in (None, {}, {"model.xml": b"<net", "model.bin": b""}, {"model.xml": description, "model.bin": b""}):
        path.write_bytes(whole[:1000])
        if members is not None:
            with zipfile.ZipFile(path, "w") as file:
                for name, content in members.items():
                    file.writestr(name, content)
        artifacts.write_sidecar(path, **facts)
        with pytest.raises(DataError, match=r"OpenVINO cannot read .*; build it again\.$") as caught:
            openvino.load(path)
        assert "\n" not in str(caught.value)


def test_openvino_computes_in_float32_unless_told_otherwise(exported, openvino):
    """By itself it takes bfloat16 on processors that have it."""
    images = network.image_like(1, 64, 64)
    full, half = (openvino.build(exported[17], BuildSpec(name)) for name in ("force_float32", "force_float16"))
    assert half.stat().st_size < 0.55 * full.stat().st_size
    with openvino.load(full) as exact, openvino.load(half) as rounded:
        assert exact._model.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
        assert rounded.run(images).dtype == np.float32
        assert np.abs(rounded.run(images) - exact.run(images)).max() > 0


def test_openvino_static_shape_is_in_the_graph(exported, openvino):
    import openvino as library

    with zipfile.ZipFile(openvino.build(exported[17], STATIC)) as file:
        model = library.Core().read_model(file.read("model.xml"), file.read("model.bin"))
    assert [list(model.input(0).shape), list(model.output(0).shape)] == [[2, 3, 64, 96], [2, 34, 16, 24]]


def test_outputs_are_the_callers(engine):
    """Not memory of the engine that the next run overwrites."""
    first = engine.run(network.image_like(1, 64, 64, 1))
    before = first.copy()
    engine.run(network.image_like(1, 64, 64, 2))
    np.testing.assert_array_equal(first, before)


def test_engines_run_from_several_threads(built):
    backend, path = built
    batches = [network.image_like(1, 64, 64, seed) for seed in range(3)]
    with backend.load(path) as one, backend.load(path) as other:
        wanted = [one.run(batch) for batch in batches]
        found = {}

        def run(key):
            found[key] = [(one, other)[key % 2].run(batch) for batch in batches for _ in range(3)]

        threads = [threading.Thread(target=run, args=(key,)) for key in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 4
    for outputs in found.values():
        for k, output in enumerate(outputs):
            np.testing.assert_allclose(output, wanted[k // 3], atol=1e-3)


def test_openvino_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    available, reason = backends.get("openvino").is_available()
    assert not available
    assert "install openvino" in reason


def test_openvino_runs_the_int8_that_onnx_runtime_runs(exported, models):
    pictures, spec = CalibrationSet(count=2, input_shape=(128, 128)), BuildSpec("qint8_mixed_float32")
    built = {name: backends.get(name).build(exported[17], spec, pictures) for name in ("openvino", "onnxruntime")}
    whole = backends.get("openvino").build(exported[17], BuildSpec())
    assert built["openvino"].stat().st_size < 0.3 * whole.stat().st_size
    [batch, _] = pictures.batches()
    outputs = []
    for name, path in built.items():
        with backends.get(name).load(path) as engine:
            outputs.append(engine.run(batch).ravel())
    assert 0.7 < np.corrcoef(*outputs)[0, 1] < 1, "other kernels, other roundings, which random weights amplify"


def test_openvino_failures_are_one_line(openvino, models, tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no network")
    with pytest.raises(DataError, match=r"OpenVINO cannot convert .*a\.onnx: ") as caught:
        openvino.build(describe_as_exported(tmp_path / "a.onnx"), BuildSpec())
    assert "\n" not in str(caught.value)
    assert not [*models.rglob("*.*"), *models.rglob(".part-*")]
    weight = helper.make_tensor("weight", TensorProto.FLOAT, (34, 1, 4, 4), np.zeros(34 * 16))  # of grey pictures
    path = openvino.build(one_node_model(tmp_path / "b.onnx", "Conv", weight, strides=[4, 4]), BuildSpec())
    with pytest.raises(DataError, match=r"OpenVINO (failed on|cannot read)|openvino engine returned") as caught:
        openvino.load(path).run(network.image_like(1, 64, 64))
    assert "\n" not in str(caught.value)


def test_stride_is_the_networks():
    """Two rooms say it, because one of them must do without torch."""
    assert base.STRIDE == network.STRIDE
