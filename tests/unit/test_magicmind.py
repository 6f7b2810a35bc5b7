"""The MagicMind backend, on the simulator of a card; failures are put in from here."""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
import threading
import tracemalloc
import types

import cv2
import numpy as np
import pytest

from helpers import artifacts, backends, paths, zoo
from helpers.backends import BuildSpec, magicmind
from helpers.cli import main
from helpers.errors import DataError, UsageError
from helpers.export import export, network
from helpers.images import list_images
from helpers.measure import benchmark, records
from helpers.pose.estimator import PoseEstimator
from tests.simulator import calibration, config, device, execution, model, parser, runtime, values
from tests.simulator import network as graph

CALLS, Held, Code, Status = values.CALLS, values.Held, values.Code, values.Status
SMALL = {"dim_range_min": (1, 3, 64, 64), "dim_range_max": (4, 3, 256, 256)}
QINT8 = "qint8_mixed_float16"
NOTE = "MagicMind simulator: calls and accuracy, not speed"  # the command line's


@pytest.fixture
def backend(simulator):
    return backends.get("magicmind")


@pytest.fixture
def built(backend, tiny, models):
    return backend.build(tiny, BuildSpec(**SMALL))


@pytest.fixture
def engine(backend, built):
    with backend.load(built) as engine:
        yield engine


@pytest.fixture
def recipe(monkeypatch):
    """Recipes for the qint precisions, which compute in float32 and tell what they were given."""
    from helpers.backends import onnxruntime

    given = []

    def build(onnx_path, spec, calibration, out):
        given.append((spec, calibration.method, list(calibration.batches())))
        onnxruntime._RECIPES["force_float32"](onnx_path, spec, None, out)

    for precision in zoo.PRECISIONS:
        if precision.startswith("qint"):
            monkeypatch.setitem(onnxruntime._RECIPES, precision, build)
    return given


@pytest.fixture(autouse=True)
def right_order(monkeypatch):
    """Every test also checks that nothing on the card is let go in a wrong order."""
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda hooked: seen.append(str(hooked.exc_value)))
    yield
    gc.collect()
    assert seen == []


def steps():
    return [call.step for call in CALLS]


def batch(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


# -- choosing it


def test_without_magicmind_one_line_says_what_to_do(capsys, models):
    available, reason = backends.get("magicmind").is_available()
    assert not available
    assert "no magicmind package" in reason
    for argv in (["eval"], ["build"], ["perf"], ["infer", "x.jpg"]):
        assert main([*argv, "--backend", "magicmind"]) == 1
        [line] = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("error: The magicmind backend is not available: there is no magicmind package")
        assert "docs/mlu.md" in line
        assert "--simulate" in line


def test_models_of_another_version_are_refused(backend, built, monkeypatch):
    """Such as the simulator's on a card."""
    assert artifacts.read_sidecar(built)["backend_version"] == "1.7.0+simulator"
    monkeypatch.setattr(magicmind.MagicMindBackend, "version", lambda self: "1.7.0")
    with pytest.raises(DataError, match=r"built by magicmind 1\.7\.0\+simulator, not 1\.7\.0; build it again"):
        backend.load(built)


def test_unknown_options():
    with pytest.raises(UsageError, match="no option batch"):
        backends.get("magicmind", batch=3)


@pytest.mark.parametrize(
    "error, said",
    [
        (ImportError("libcnrt.so: cannot open shared object file"), "libcnrt.so.*LD_LIBRARY_PATH"),
        (ModuleNotFoundError("No module named 'magicmind.python'", name="magicmind.python"), "as Cambricon ships it"),
        (RuntimeError("driver version is too low"), "RuntimeError at counting the cards: driver version is too low"),
    ],
)
def test_a_magicmind_that_does_not_load(monkeypatch, error, said):
    def fail(*args):
        raise error

    backend = backends.get("magicmind")
    broken = fail if isinstance(error, ImportError) else lambda: types.SimpleNamespace(System=fail)
    monkeypatch.setattr(magicmind, "_runtime", broken)
    available, reason = backend.is_available()
    assert not available
    assert re.search(said, reason)


def test_no_card(monkeypatch, card, tiny, models):
    monkeypatch.setattr(device, "COUNT", 0)
    available, reason = card.is_available()
    assert not available
    assert "/dev/cambricon_ctl" in reason
    with pytest.raises(DataError, match="sees no MLU card"):
        card.build(tiny, BuildSpec())


# -- what is built


# magicmind_api.md, section 3.3: what the sample's own scripts amount to, as they were run with a recorder.
SAMPLE = {
    "archs": [{"mtp_372": [2, 6, 8]}],
    "graph_shape_mutable": True,
    "dim_range": {"0": {"min": [1, 3, 128, 128], "max": [64, 3, 2560, 2560]}},
    "precision_config": {"precision_mode": "force_float32"},
    "computation_preference": "fast",
    "opt_config": {"type64to32_conversion": True, "conv_scale_fold": True},
}
SAMPLE_QINT8 = {"weight_quant_granularity": "per_tensor", "activation_quant_algo": "symmetric"}


def sample(precision: str, dynamic_shape: bool) -> dict:
    wanted = json.loads(json.dumps(SAMPLE))
    wanted["precision_config"]["precision_mode"] = precision
    if precision == QINT8:
        wanted["precision_config"].update(SAMPLE_QINT8)
    if not dynamic_shape:
        wanted["graph_shape_mutable"] = False
        del wanted["dim_range"]
    return wanted


@pytest.mark.parametrize("dynamic_shape", [True, False])
@pytest.mark.parametrize("precision", ["force_float32", "force_float16", QINT8])
def test_the_configuration_is_the_samples(
    recipe, simulator, tiny, models, pictures, monkeypatch, precision, dynamic_shape
):
    """Of what really reaches BuilderConfig, with the sample's options; force_float16 stands in for its recipe."""
    from helpers.backends import onnxruntime

    monkeypatch.setitem(onnxruntime._RECIPES, "force_float16", onnxruntime._RECIPES["force_float32"])
    backend = backends.get("magicmind", weight_granularity="per_tensor")
    spec = BuildSpec(precision, dynamic_shape=dynamic_shape, input_shape=(512, 512) if dynamic_shape else (128, 128))
    CALLS.clear()
    backend.build(tiny, spec, pictures(square=not dynamic_shape) if precision == QINT8 else None)
    [settings] = [call.arguments["settings"] for call in CALLS if call.step == "BuilderConfig.parse_from_string"]
    assert settings == sample(precision, dynamic_shape)
    [dims] = [call.arguments["dims"] for call in CALLS if call.step == "ITensor.set_dimension"]
    assert dims == [1, 3, *spec.input_shape]


def test_weights_have_a_scale_per_channel_unless_asked_otherwise():
    inner = magicmind.builder_config(BuildSpec(QINT8))["precision_config"]
    assert inner["weight_quant_granularity"] == "per_axis"
    with pytest.raises(UsageError, match="did you mean per_axis"):
        magicmind.Options(weight_granularity="per_axes")


@pytest.mark.parametrize("precision", zoo.PRECISIONS)
@pytest.mark.parametrize("uint8_input", [False, True])
def test_every_setting_is_known_and_explained(precision, uint8_input):
    settings = magicmind.builder_config(BuildSpec(precision), magicmind.Options(uint8_input=uint8_input))
    assert runtime.BuilderConfig().parse_from_string(json.dumps(settings)).ok()
    rows = magicmind.explained(settings)
    assert len(rows) == len({row["key"] for row in rows}) >= 7
    assert all(len(row["what it does"]) > 20 for row in rows)
    assert ("insert_bn_before_firstnode" in settings) == uint8_input


@pytest.mark.parametrize(
    "archs, wanted",
    [
        (["mtp_372"], [{"mtp_372": [2, 6, 8]}]),
        ("mtp_372:6,8", [{"mtp_372": [6, 8]}]),
        (["mtp_372:4", "mtp_592"], [{"mtp_372": [4]}, {"mtp_592": [1]}]),
    ],
)
def test_architectures(archs, wanted, simulator, tiny, models):
    backend = backends.get("magicmind", mlu_arch=archs)
    facts = artifacts.read_sidecar(backend.build(tiny, BuildSpec()))
    assert facts["builder_config"]["archs"] == wanted
    backend.load(backend.build(tiny, BuildSpec())).close()  # the card is one of them


@pytest.mark.parametrize("archs", [["mtp372"], ["mtp_372:"], ["mtp_372:0"], ["mtp_372:a"], ["mtp_372", "mtp_372:6"]])
def test_wrong_architectures(archs):
    with pytest.raises(UsageError, match=r"architecture|clusters"):
        backends.get("magicmind", mlu_arch=archs)


def test_changed_settings_build_again(backend, tiny, models):
    """Not only the file's name decides: whatever goes into the model does."""
    path = backend.build(tiny, BuildSpec())
    first = path.stat().st_mtime_ns
    assert backend.build(tiny, BuildSpec()).stat().st_mtime_ns == first
    again = backend.configured(mlu_arch=("mtp_372:6",)).build(tiny, BuildSpec())
    assert (again, again.stat().st_mtime_ns > first) == (path, True)
    second = path.stat().st_mtime_ns
    assert backend.configured(mlu_arch=("mtp_372:6",)).build(tiny, BuildSpec(**SMALL)).stat().st_mtime_ns > second
    path.write_bytes(b"")
    assert backend.build(tiny, BuildSpec()).stat().st_size > 100


def test_only_opset_11_is_given_to_the_parser(backend, exported, models):
    with pytest.raises(UsageError, match="--opset 11"):
        backend.build(exported[17], BuildSpec())


# -- order of calls


def test_the_order_of_a_build(recipe, backend, tiny, models, pictures):
    CALLS.clear()
    backend.build(tiny, BuildSpec(QINT8), pictures())
    order = [step for step in steps() if not step.startswith("System")]
    assert order == [
        *("Parser", "Network", "Parser.parse", "ITensor.set_dimension"),
        *("BuilderConfig", "BuilderConfig.parse_from_string"),
        *("Calibrator", "Calibrator.set_quantization_algorithm"),
        *("Device", "Device.id", "Device.active", "Calibrator.calibrate"),
        *("Builder", "Builder.build_model", "Model.serialize_to_file"),
    ]
    assert "System.__exit__" not in steps()[steps().index("Device") : steps().index("Calibrator.calibrate")]


def test_the_order_of_a_run(backend, built):
    CALLS.clear()
    with backend.load(built) as engine:
        loading = [step for step in steps() if not step.startswith("System")]
        CALLS.clear()
        engine.run(batch(1, 3, 64, 64))
    assert loading == [
        *("Model.deserialize_from_file", "Device", "Device.id", "Device.active"),
        *("Model.create_i_engine", "IEngine.create_i_context", "Device.create_queue", "IContext.create_inputs"),
    ]
    assert steps() == ["Tensor.from_numpy", "IContext.enqueue", "Queue.sync", "Tensor.asnumpy"]


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "forgotten"])
def test_the_order_of_letting_go(backend, built, monkeypatch, closed):
    gone = []
    before = Held.__del__
    monkeypatch.setattr(Held, "__del__", lambda self: gone.append(type(self).__name__) or before(self))
    engine = backend.load(built)
    gone.clear()
    engine.run(batch(1, 3, 64, 64))
    assert gone == ["Tensor"]  # the result, which was copied
    gone.clear()
    if closed:
        engine.close()
        engine.close()
    del engine
    assert gone == ["Tensor", "IContext", "IEngine", "Model", "Queue", "Device"]


# -- running


def test_it_computes_what_onnx_runtime_does(engine, tiny):
    """In shapes that change between runs."""
    ort = backends.get("onnxruntime")
    with ort.load(ort.build(tiny, BuildSpec())) as reference:
        for shape in ((1, 64, 64), (2, 128, 192), (4, 64, 256), (1, 64, 64)):
            images = network.image_like(*shape)
            np.testing.assert_allclose(engine.run(images), reference.run(images), rtol=1e-5, atol=1e-5)


def test_results_outlive_the_next_run_and_the_engine(backend, built):
    with backend.load(built) as engine:
        first = engine.run(batch(1, 3, 64, 64))
        kept = first.copy()
        engine.run(batch(2, 3, 64, 64))
    np.testing.assert_array_equal(first, kept)


def test_two_engines_at_once(backend, built):
    one, two = backend.load(built), backend.load(built)
    wanted = one.run(batch(1, 3, 64, 64))
    np.testing.assert_array_equal(two.run(batch(1, 3, 64, 64)), wanted)
    one.close()
    np.testing.assert_array_equal(two.run(batch(1, 3, 64, 64)), wanted)
    two.close()


def test_two_engines_on_two_cards_take_turns(backend, built, monkeypatch):
    monkeypatch.setattr(device, "COUNT", 2)
    with backend.load(built, device_id=0) as one, backend.load(built, device_id=1) as two:
        wanted = one.run(batch(1, 3, 64, 64))
        CALLS.clear()
        for engine in (two, one, one, two):
            np.testing.assert_array_equal(engine.run(batch(1, 3, 64, 64)), wanted)
        chosen = [call.arguments["number"] for call in CALLS if call.step == "Device.active"]
    assert chosen == [1, 0, 1]


def test_an_engine_serves_several_threads(engine):
    wanted = engine.run(batch(1, 3, 64, 64))
    found, errors = [], []

    def work():
        try:
            for _ in range(20):
                found.append(engine.run(batch(1, 3, 64, 64)))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(found) == 80
    assert all(np.array_equal(output, wanted) for output in found)


def test_a_thousand_runs_need_no_more_memory(engine):
    images = batch(1, 3, 64, 64)
    for _ in range(CALLS.maxlen // 4 + 10):  # until the record of calls is full
        engine.run(images)
    tracemalloc.start()
    try:
        engine.run(images)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(1000):
            engine.run(images)
        growth = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert growth < 500_000  # the record of calls is exchanged; one leaked output would be 35 MB


@pytest.mark.parametrize("batch_size", [1, 2])
def test_fixed_shape(backend, tiny, models, batch_size):
    spec = BuildSpec(batch_size=batch_size, dynamic_shape=False, input_shape=(64, 96))
    with backend.load(backend.build(tiny, spec)) as engine:
        assert engine.run(batch(batch_size, 3, 64, 96)).shape == (batch_size, 34, 16, 24)
        with pytest.raises(UsageError, match="for which it was built"):
            engine.run(batch(batch_size, 3, 96, 64))


def test_an_image_outside_the_range_is_refused_by_name_and_the_rest_goes_on(backend, built, tmp_path):
    rng = np.random.default_rng(0)
    for name, shape in {"a.png": (64, 64, 3), "wide.png": (64, 320, 3), "z.png": (64, 96, 3)}.items():
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 256, shape, np.uint8))
    with backend.load(built) as engine:
        CALLS.clear()
        estimator = PoseEstimator(engine, input_size=64)
        outcomes = list(estimator.stream(list_images(tmp_path), batch_size=2))
    assert [outcome.poses is not None for outcome in outcomes] == [True, False, True]
    assert "wide.png: An input of 64 x 320 (height x width)" in outcomes[1].error
    assert "is outside 1 x 3 x 64 x 64 to 4 x 3 x 256 x 256" in outcomes[1].error
    sent = [call.arguments["shape"] for call in CALLS if call.step == "Tensor.from_numpy"]
    assert sent
    assert all(shape[3] <= 256 for shape in sent)  # it never reached the card


def test_a_batch_outside_the_range_is_refused(engine):
    with pytest.raises(DataError, match="5 at once, is outside"):
        engine.run(batch(5, 3, 64, 64))


def test_mirror_images_do_not_leave_the_range(engine):
    """They double a batch; the estimator asks the engine how much it takes."""
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    CALLS.clear()
    PoseEstimator(engine, input_size=64)([image] * 3, batch_size=3)
    assert [call.arguments["shape"][0] for call in CALLS if call.step == "Tensor.from_numpy"] == [4, 2]


# -- bytes in, normalised on the card


def test_uint8_input_gives_the_same_maps(backend, engine, tiny):
    from helpers.pose.preprocess import to_input

    images = np.random.default_rng(0).integers(0, 256, (2, 64, 128, 3), np.uint8)
    eight_bit = backend.configured(uint8_input=True)
    path = eight_bit.build(tiny, BuildSpec(**SMALL))
    assert path.name == "MobileNetv2_mmpose_model_force_float32_true_uint8"
    with eight_bit.load(path) as taking_bytes:
        assert taking_bytes.input_type == "uint8"
        np.testing.assert_allclose(taking_bytes.run(images), engine.run(to_input(images)), rtol=1e-3, atol=1e-3)
        with pytest.raises(UsageError, match="uint8"):
            taking_bytes.run(to_input(images))
        with pytest.raises(DataError, match=r"An input of 64 x 320 .* is outside"):
            taking_bytes.run(np.zeros((1, 64, 320, 3), np.uint8))


def test_uint8_input_that_is_not_known(recipe, backend, tiny, models, pictures):
    with pytest.raises(UsageError, match="use float32 input"):
        backend.configured(uint8_input=True).build(tiny, BuildSpec(QINT8), pictures())


# -- calibration


@pytest.mark.parametrize("method, kind", [("minmax", "minmax"), ("linear", "minmax"), ("eqnm", "entropy")])
def test_calibration_gets_every_picture_once(recipe, backend, tiny, models, pictures, method, kind):
    given = pictures(4, method)
    CALLS.clear()
    backend.build(tiny, BuildSpec(QINT8), given)
    [call] = [call for call in CALLS if call.step == "Calibrator.set_quantization_algorithm"]
    assert call.arguments["algorithm"] == ("EQNM_ALGORITHM" if method == "eqnm" else "LINEAR_ALGORITHM")
    [(spec, seen_method, seen)] = recipe
    assert (spec.precision, seen_method) == (QINT8, kind)
    wanted = list(given.batches())
    assert len({picture.tobytes() for picture in seen}) == len(wanted) == 4
    for one, other in zip(seen, wanted):
        np.testing.assert_array_equal(one, other)


def test_calibration_of_a_fixed_shape_comes_in_whole_batches(recipe, backend, tiny, models, pictures):
    spec = BuildSpec(QINT8, batch_size=2, dynamic_shape=False, input_shape=(128, 128))
    backend.build(tiny, spec, pictures(3, square=True))
    [(_, _, seen)] = recipe
    assert [picture.shape for picture in seen] == [(1, 3, 128, 128)] * 4
    np.testing.assert_array_equal(seen[2], seen[3])
    with pytest.raises(UsageError, match=r"A calibration image fills 128 x .*; make the set of that shape"):
        backend.configured(mlu_arch=("mtp_372:8",)).build(tiny, spec, pictures(8))


@pytest.mark.parametrize("precision", [p for p in zoo.PRECISIONS if p.startswith("qint")])
def test_qint_needs_calibration(recipe, backend, tiny, models, precision):
    with pytest.raises(UsageError, match=f"{precision} needs images"):
        backend.build(tiny, BuildSpec(precision))


def test_other_methods_are_refused(recipe, backend, tiny, models, pictures):
    with pytest.raises(UsageError, match="cannot calibrate by 'percentile'; choose one of linear, minmax, eqnm"):
        backend.build(tiny, BuildSpec(QINT8), pictures(method="percentile"))


def test_an_empty_set(recipe, backend, tiny, models, pictures):
    with pytest.raises(DataError, match="calibration set is empty"):
        backend.build(tiny, BuildSpec(QINT8), pictures(0))


def test_a_picture_that_cannot_be_read_is_named(recipe, backend, tiny, models, pictures):
    given = pictures(3)
    given._files[1] = given._files[1].with_name("gone.jpg")
    with pytest.raises(DataError, match=r"gone\.jpg"):
        backend.build(tiny, BuildSpec(QINT8), given)
    assert not [path for path in models.rglob("*") if path.is_file()]


def test_a_picture_outside_the_range(recipe, backend, tiny, models, pictures):
    spec = BuildSpec(QINT8, dim_range_min=(1, 3, 64, 64), dim_range_max=(1, 3, 128, 128))
    with pytest.raises(DataError, match=r"at calibrating: calibration sample .*, outside dim_range"):
        backend.build(tiny, spec, pictures(8))


def test_the_set_is_what_a_library_of_any_habits_can_ask(backend, pictures):
    """Getters before `next`, several passes, `reset` at any time: what the real one does is not known."""
    given = pictures(2)
    data = magicmind._calibration_data(runtime, given, BuildSpec(QINT8))
    assert data.get_shape().GetDims() == list(data.get_sample().shape)
    for _ in range(3):
        count = 0
        while data.next().ok():
            count += 1
            assert data.get_shape().GetDims() == list(data.get_sample().shape)
            assert data.get_data_type() is runtime.DataType.FLOAT32
            assert data.get_sample().flags.c_contiguous
        assert count == 2
        assert data.reset().ok()
        data.get_shape()


def test_calibration_on_a_card_that_is_not_there(recipe, simulator, tiny, models, pictures):
    backend = backends.get("magicmind", device_id=3)
    with pytest.raises(UsageError, match="no device 3; this machine has 1"):
        backend.build(tiny, BuildSpec(QINT8), pictures())


# -- failures of every call


def bad_status(*args):
    return Status(Code.OUT_OF_RANGE, "the card is on fire")


def explodes(*args):
    del args  # as in a library of C++, where a traceback holds nothing
    raise RuntimeError("the card is on fire\nsecond line")


def nothing(*args):
    return None


BUILD_STATUS = [
    (parser.Parser, "parse", "reading tiny_opset11.onnx"),
    (graph.ITensor, "set_dimension", "setting the input's dimensions"),
    (config.BuilderConfig, "parse_from_string", "taking the configuration"),
    (calibration.Calibrator, "set_quantization_algorithm", "choosing to calibrate by minmax"),
    (device.Device, "active", "activating card 0"),
    (calibration.Calibrator, "calibrate", "calibrating"),
    (model.Model, "serialize_to_file", "writing the model"),
]
LOAD_STATUS = [
    (model.Model, "deserialize_from_file", "reading MobileNetv2_mmpose_model"),
    (device.Device, "active", "activating card 0"),
    (execution.IContext, "create_inputs", "making the input"),
]
RUN_STATUS = [
    (execution.Tensor, "from_numpy", "taking an input of 1 x 3 x 64 x 64"),
    (execution.IContext, "enqueue", "starting on 1 x 3 x 64 x 64"),
    (device.Queue, "sync", "running 1 x 3 x 64 x 64"),
]
LOAD_NONE = [
    (model.Model, "create_i_engine", "loading MobileNetv2_mmpose_model"),
    (execution.IEngine, "create_i_context", "making a context"),
    (device.Device, "create_queue", "making a queue"),
]
ENTER = (device.System, "__enter__", "")


def failing(status, raising, none=()):
    """Cases of a bad Status, an exception and nothing; step "" is of those that only raise."""
    cases = [(*case[:2], bad_status, f"MagicMind failed at {case[2]}", "the card is on fire") for case in status]
    cases += [(*case[:2], explodes, "MagicMind raised RuntimeError", "the card is on fire") for case in raising]
    cases += [(*case[:2], nothing, f"MagicMind failed at {case[2]}", "printed before says why") for case in none]
    ids = [f"{case[0].__name__}.{case[1]}-{case[2].__name__}" for case in cases]
    return pytest.mark.parametrize("kind, call, answer, step, reason", cases, ids=ids)


def one_line(caught, *words):
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text


BUILDER = (model.Builder, "build_model", "building qint8_mixed_float16")


@failing(BUILD_STATUS, [*BUILD_STATUS, BUILDER, ENTER], [BUILDER])
def test_a_bad_status_while_building(
    recipe, backend, tiny, models, pictures, monkeypatch, kind, call, answer, step, reason
):
    monkeypatch.setattr(kind, call, answer)
    with pytest.raises(DataError) as caught:
        backend.build(tiny, BuildSpec(QINT8), pictures())
    one_line(caught, step, reason)
    assert not [path for path in models.rglob("*") if path.is_file()]


def test_an_empty_model_is_no_model(backend, tiny, models, monkeypatch):
    monkeypatch.setattr(model.Model, "serialize_to_file", lambda *args: Status.OK())
    with pytest.raises(DataError, match="wrote an empty model"):
        backend.build(tiny, BuildSpec())
    assert not [path for path in models.rglob("*") if path.is_file()]


def test_calibration_that_asks_for_nothing(recipe, backend, tiny, models, pictures, monkeypatch):
    monkeypatch.setattr(calibration.Calibrator, "calibrate", lambda *args: Status.OK())
    with pytest.raises(DataError, match="without asking for an image"):
        backend.build(tiny, BuildSpec(QINT8), pictures())


@failing(LOAD_STATUS, [*LOAD_STATUS, *LOAD_NONE, ENTER], LOAD_NONE)
def test_a_bad_status_while_loading(backend, built, monkeypatch, kind, call, answer, step, reason):
    monkeypatch.setattr(kind, call, answer)
    with pytest.raises(DataError) as caught:
        backend.load(built)
    one_line(caught, step, reason)


@failing(RUN_STATUS, [*RUN_STATUS, (execution.Tensor, "to", ""), (execution.Tensor, "asnumpy", "")])
def test_a_bad_status_while_running(engine, monkeypatch, kind, call, answer, step, reason):
    wanted = engine.run(batch(1, 3, 64, 64))
    with monkeypatch.context() as patch:
        patch.setattr(kind, call, answer)
        with pytest.raises(DataError) as caught:
            engine.run(batch(1, 3, 64, 64))
    one_line(caught, step, reason)
    np.testing.assert_array_equal(engine.run(batch(1, 3, 64, 64)), wanted)  # the next one is not harmed


def test_two_outputs_are_not_expected(engine, monkeypatch):
    before = execution.IContext.enqueue

    def twice(self, inputs, outputs, queue):
        status = before(self, inputs, outputs, queue)
        outputs.append(outputs[0])
        return status

    monkeypatch.setattr(execution.IContext, "enqueue", twice)
    with pytest.raises(DataError, match="returned 2 outputs instead of one"):
        engine.run(batch(1, 3, 64, 64))


def test_a_model_of_other_types_is_refused(backend, built, monkeypatch):
    monkeypatch.setattr(model.Model, "get_input_data_types", lambda self: [runtime.DataType.UINT8])
    with pytest.raises(DataError, match=r"takes and gives .* build it again"):
        backend.load(built)


def test_two_inputs_are_not_expected(backend, tiny, models, monkeypatch):
    monkeypatch.setattr(graph.Network, "get_input_count", lambda self: 2)
    with pytest.raises(DataError, match="sees 2 inputs"):
        backend.build(tiny, BuildSpec())


@pytest.mark.parametrize("device_id", [1, -1, 7])
def test_a_card_that_is_not_there(backend, built, device_id):
    with pytest.raises(UsageError, match=f"no device {device_id}; this machine has 1 MLU card"):
        backend.load(built, device_id=device_id)


def test_another_card_of_several(backend, built, monkeypatch):
    monkeypatch.setattr(device, "COUNT", 3)
    CALLS.clear()
    with backend.load(built, device_id=2) as engine:
        engine.run(batch(1, 3, 64, 64))
    assert [call.arguments for call in CALLS if call.step == "Device.active"] == [{"number": 2}]


@pytest.mark.parametrize("archs", [["mtp_592"], ["mtp_372:16"]])
def test_a_model_for_another_card(simulator, tiny, models, archs):
    backend = backends.get("magicmind", mlu_arch=archs)
    path = backend.build(tiny, BuildSpec())
    with pytest.raises(DataError) as caught:
        backend.load(path)
    one_line(caught, f"built for {json.dumps(magicmind.builder_config(BuildSpec(), backend.options)['archs'])}")


def test_a_damaged_model(backend, built):
    content = built.read_bytes()
    built.write_bytes(content[:-1])
    with pytest.raises(DataError, match="cut short"):
        backend.load(built)
    built.write_bytes(b"another program's file")
    facts = {**artifacts.read_sidecar(built), "sha256": artifacts.sha256(built)}
    artifacts.sidecar(built).write_text(json.dumps(facts))
    with pytest.raises(DataError, match="not built by the simulator"):
        backend.load(built)
    artifacts.sidecar(built).write_text(json.dumps({**facts, "shapes": {}}))
    with pytest.raises(DataError, match=r"json is damaged; build .* again"):
        backend.load(built)


# -- from the command line, on the demo set


def run_json(capsys, *argv):
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("precision", ["force_float32", QINT8])
def test_eval_tells_the_ap_of_onnx_runtime(capsys, home, simulator, precision):
    argv = ["eval", "--precision", precision, "--image-num", "6"]
    wanted = run_json(capsys, *argv)
    found = run_json(capsys, *argv, "--backend", "magicmind", "--simulate")
    assert wanted["ap"] > 0.3
    most = 0.002 if precision == "force_float32" else 0.01  # deconvolutions stay in float
    assert abs(found["ap"] - wanted["ap"]) <= most
    assert abs(found["ar"] - wanted["ar"]) <= most
    assert found["backend"] == "magicmind"
    assert found["versions"]["magicmind"] == "1.7.0+simulator"
    assert not {"stage_ms", "latency_ms", "images_per_s", "build_s", "model_bytes"} & set(found)


def test_a_simulator_has_no_speed(capsys, home, backend, built):
    for verb in ("perf", "bench"):
        assert main([verb, "--backend", "magicmind", "--simulate"]) == 2
        assert "unrecognized arguments: --simulate" in capsys.readouterr().err
    with pytest.raises(UsageError, match="has no speed"):
        timing = benchmark.NetworkTiming(np.array([0.5]), 1, (1, 3, 512, 512))
        whole = benchmark.EndToEndTiming(np.array([0.5]), {}, 0.5)
        records.speed_record(backend.load(built), timing, whole)


def test_a_card_is_enough_for_doctor(capsys, home, card, monkeypatch):
    """In a container there is no ONNX Runtime, and the file for it was not exported."""
    from helpers.backends import onnxruntime

    monkeypatch.setattr(onnxruntime.BACKEND, "is_available", lambda: (False, "not here"))
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["backends"]["magicmind"]["available"]
    monkeypatch.setattr(device, "COUNT", 0)
    assert main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["missing"] == ["onnxruntime: not here"]


def test_infer_and_build_say_so(capsys, home, simulator, tmp_path):
    picture = str(paths.demo_data() / "val2017" / "000000020014.jpg")
    assert main(["infer", picture, "--backend", "magicmind", "--simulate", "--out", str(tmp_path)]) == 0
    assert f"people, {NOTE}" in capsys.readouterr().out
    [entry] = json.loads((tmp_path / "poses.json").read_text())
    assert entry["note"] == NOTE
    assert "stage_ms" not in entry
    assert main(["build", "--backend", "magicmind", "--simulate", "--mlu-arch", "mtp_372:8"]) == 0
    assert NOTE in capsys.readouterr().out
    assert main(["infer", picture, "--backend", "magicmind", "--simulate", "--device-id", "1"]) == 2
    assert "no device 1; this machine has 1 MLU card" in capsys.readouterr().err
    assert main(["build", "--backend", "onnxruntime", "--simulate"]) == 2
    assert "--simulate is for --backend magicmind" in capsys.readouterr().err
    assert main(["build", "--backend", "magicmind", "--simulate", "--mlu-arch", "mtp_37"]) == 2
    assert "did you mean mtp_372" in capsys.readouterr().err


def test_the_deployment_half_walks_without_torch_and_mmpose(home, tmp_path):
    """As in a container: the ONNX file was exported elsewhere; the double stands for the card."""
    export.export("MobileNetv2", "demo", 11)
    picture = str(paths.demo_data() / "val2017" / "000000020014.jpg")
    blocked = ["torch", "torchvision", "mmpose", "mmcv", "papermill", "onnx"]
    code = (
        "import sys\n"
        f"for name in {blocked}: sys.modules[name] = None\n"
        "from helpers.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    argv = ["infer", picture, "--backend", "magicmind", "--simulate", "--mlu-arch", "mtp_372:6,8"]
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], cwd=paths.root(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"people, {NOTE}" in done.stdout
    assert done.stderr == ""
