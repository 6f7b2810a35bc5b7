"""The double of MagicMind: no more names than are known, no laxer than what is known."""

from __future__ import annotations

import gc
import importlib
import json
import sys
import threading

import numpy as np
import pytest

from helpers.backends import simulator
from helpers.backends.simulator import CALLS, Misuse, device
from helpers.backends.simulator.python import runtime as mm
from helpers.backends.simulator.python.common import types
from helpers.backends.simulator.python.runtime.parser import Parser

ROOM = {"0": {"min": [1, 3, 64, 64], "max": [4, 3, 256, 256]}}
CONFIG = {
    "archs": [{"mtp_372": [2, 6, 8]}],
    "graph_shape_mutable": True,
    "dim_range": ROOM,
    "precision_config": {"precision_mode": "force_float32"},
}
# magicmind_api.md, section 2.13, and what it takes from each.
SURFACE = {
    "Builder": {"build_model"},
    "BuilderConfig": {"mlu_archs", "parse_from_string"},
    "CalibDataInterface": set(),
    "Calibrator": {"set_quantization_algorithm", "calibrate"},
    "Code": {"OUT_OF_RANGE"},
    "DataType": {
        *("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32"),
        *("FLOAT16", "FLOAT32", "FLOAT64", "BOOL", "QINT8", "QINT16"),
    },
    "Device": {"id", "active", "create_queue"},
    "Dims": {"GetDims", "GetDimValue"},
    "Model": {
        *("serialize_to_file", "deserialize_from_file", "create_i_engine", "EngineConfig"),
        *("get_input_num", "get_input_names", "get_input_data_types", "get_input_dimensions"),
        *("get_output_num", "get_output_names", "get_output_data_types", "get_output_dimensions"),
    },
    "ModelKind": {"kOnnx"},
    "Network": {"get_input_count", "get_input"},
    "QuantizationAlgorithm": {"LINEAR_ALGORITHM", "EQNM_ALGORITHM"},
    "RemoteConfig": {"address"},
    "Status": {"OK", "ok"},
    "System": {"device_count"},
}


class Samples(mm.CalibDataInterface):
    """A set of arrays, as a careful caller would offer it."""

    def __init__(self, arrays):
        super().__init__()
        self.arrays, self.index, self.asked = arrays, -1, []

    def next(self):
        self.asked.append("next")
        self.index += 1
        if self.index < len(self.arrays):
            return mm.Status()
        return mm.Status(mm.Code.OUT_OF_RANGE, "end")

    def get_sample(self):
        self.asked.append("get_sample")
        return self.arrays[self.index]

    def get_shape(self):
        self.asked.append("get_shape")
        return mm.Dims(self.arrays[self.index].shape)

    def get_data_type(self):
        self.asked.append("get_data_type")
        return types.get_datatype_by_numpy(self.arrays[self.index].dtype)

    def reset(self):
        self.index = -1
        return mm.Status()


def parsed(tiny, dims=(1, 3, 128, 128)):
    network = mm.Network()
    assert Parser(mm.ModelKind.kOnnx).parse(network, str(tiny)).ok()
    assert network.get_input(0).set_dimension(mm.Dims(dims)).ok()
    return network


def configured(**changes):
    config = mm.BuilderConfig()
    config.mlu_archs = ["mtp_372"]
    settings = {key: value for key, value in {**CONFIG, **changes}.items() if value is not None}
    status = config.parse_from_string(json.dumps(settings))
    assert status.ok(), str(status)
    return config


def built(tiny, **changes):
    model = mm.Builder().build_model("m", parsed(tiny), configured(**changes))
    assert model is not None
    return model


def activated(number=0):
    card = mm.Device()
    card.id = number
    assert card.active().ok()
    return card


class Running:
    """A model on the card, let go in the right order."""

    def __init__(self, model):
        self.device = activated()
        self.model = model
        self.engine = model.create_i_engine()
        self.context = self.engine.create_i_context()
        self.queue = self.device.create_queue()
        self.inputs = self.context.create_inputs()

    def run(self, array):
        outputs = []
        assert self.inputs[0].from_numpy(array).ok()
        assert self.context.enqueue(self.inputs, outputs, self.queue).ok()
        assert self.queue.sync().ok()
        return np.array(outputs[0].asnumpy())

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for part in ("inputs", "context", "engine", "model", "queue", "device"):
            setattr(self, part, None)


@pytest.fixture
def running(tiny):
    with Running(built(tiny)) as parts:
        yield parts


@pytest.fixture
def unraisable(monkeypatch):
    """What was raised where nobody can catch it."""
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda hooked: seen.append(str(hooked.exc_value)))
    return seen


def array(*shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


# -- names


def test_the_surface_is_what_public_code_uses():
    names = {name for name in dir(mm) if not name.startswith("_")}
    assert names - {"parser", "model"} == set(SURFACE) == set(mm.__all__)  # those two appear once imported, as there
    for name, members in SURFACE.items():
        found = {member for member in vars(getattr(mm, name)) if not member.startswith("_")}
        assert found == members, name


@pytest.mark.parametrize(
    "module, names",
    [
        ("runtime.parser", ["Parser"]),
        ("runtime.model", ["Model"]),
        ("common.types", ["get_datatype_by_numpy", "get_numpy_dtype_by_datatype"]),
        ("cc._pywrap_runtime", ["ITensor"]),
        ("cc._pywrap_runtime.enums", ["DataType"]),
    ],
)
def test_the_other_modules(module, names):
    found = importlib.import_module(f"helpers.backends.simulator.python.{module}")
    assert found.__all__ == names
    if module == "runtime.model":
        assert found.Model is mm.Model
    if module.endswith("enums"):
        assert found.DataType is mm.DataType


@pytest.mark.parametrize("name", ["Tensor", "Profiler", "IRpcSession", "Layout", "Parser", "TensorLocation", "remote"])
def test_any_other_name_is_refused(name):
    with pytest.raises(AttributeError):
        getattr(mm, name)


def test_misspelt_members_are_refused(tiny):
    with pytest.raises(AttributeError):
        mm.Device().dev_id = 0  # as in one of the samples
    with pytest.raises(AttributeError):
        mm.System().destory()
    with pytest.raises(AttributeError):
        mm.BuilderConfig().mlu_arch = ["mtp_372"]
    with pytest.raises(AttributeError):
        mm.ModelKind.kCaffe  # noqa: B018


# -- values


def test_a_status_has_no_truth_value():
    for status in (mm.Status(), mm.Status.OK(), mm.Status(mm.Code.OUT_OF_RANGE, "end")):
        with pytest.raises(Misuse, match="truth value"):
            assert status
        with pytest.raises(Misuse, match="compared"):
            status == mm.Status.OK()  # noqa: B015
    assert mm.Status.OK().ok()
    assert not mm.Status(mm.Code.OUT_OF_RANGE, "").ok()
    assert str(mm.Status(mm.Code.OUT_OF_RANGE, "the end")) == "OUT_OF_RANGE: the end"


@pytest.mark.parametrize("arguments", [("text",), (None, "text"), (1, "text"), (mm.Code.OUT_OF_RANGE, 5)])
def test_a_status_is_made_properly(arguments):
    with pytest.raises(Misuse):
        mm.Status(*arguments)


def test_dims():
    dims = mm.Dims(np.zeros((2, 3)).shape)
    assert dims.GetDims() == [2, 3]
    assert dims.GetDimValue(1) == 3
    dims.GetDims()[0] = 9
    assert dims.GetDims() == [2, 3]
    with pytest.raises(Misuse, match="compare"):
        dims == mm.Dims([2, 3])  # noqa: B015
    with pytest.raises(Misuse, match="whole numbers"):
        mm.Dims([1.5])


def test_types_go_to_numpy_and_back():
    for name in ("float32", "uint8", "int64", "bool"):
        assert types.get_numpy_dtype_by_datatype(types.get_datatype_by_numpy(np.dtype(name))) == np.dtype(name)
    with pytest.raises(Misuse):
        types.get_datatype_by_numpy(np.complex64)
    with pytest.raises(Misuse):
        types.get_numpy_dtype_by_datatype(mm.DataType.QINT8)


# -- configuration


def test_json_is_merged_key_by_key():
    config = mm.BuilderConfig()
    for piece in (
        {"opt_config": {"conv_scale_fold": True}},
        {"precision_config": {"precision_mode": "force_float16"}},
        {"opt_config": {"type64to32_conversion": True}},
        {"precision_config": {"precision_mode": "force_float32"}},
    ):
        assert config.parse_from_string(json.dumps(piece)).ok()
    assert config._settings == {
        "opt_config": {"conv_scale_fold": True, "type64to32_conversion": True},
        "precision_config": {"precision_mode": "force_float32"},
    }


@pytest.mark.parametrize(
    "text, said",
    [
        ("{", "no JSON"),
        ("[]", "must be an object"),
        ('{"arch": ["mtp_372"]}', "unknown key arch"),
        ('{"builder_config": {"archs": ["mtp_372"]}}', "unknown key builder_config"),
        ('{"opt_config": {"conv_scale_fold": true, "tfu_enable": true}}', "unknown key opt_config.tfu_enable"),
        ('{"opt_config": {"conv_scale_fold": 1}}', "wrong value of opt_config.conv_scale_fold"),
        ('{"opt_config": true}', "opt_config must be an object"),
        ('{"precision_config": {"precision_mode": "int8"}}', "precision_mode: 'int8'"),
        ('{"precision_config": {"weight_quant_granularity": "per_channel"}}', "weight_quant_granularity"),
        ('{"archs": []}', "archs"),
        ('{"archs": [{"mtp_372": [0]}]}', "archs"),
        ('{"archs": [{"mtp_372": [6], "mtp_592": [1]}]}', "archs"),
        ('{"dim_range": {"0": {"min": [1, 3, 64, 64]}}}', "dim_range"),
        ('{"dim_range": {"0": {"min": [1, 3, 64, 64], "max": [1, 3, 32, 64]}}}', "no range"),
        ('{"dim_range": {"0": {"min": [1, 3], "max": [1, 3, 32, 64]}}}', "no range"),
        ('{"graph_shape_mutable": "true"}', "graph_shape_mutable"),
        ('{"computation_preference": "fastest"}', "computation_preference"),
    ],
)
def test_wrong_settings_are_refused_and_change_nothing(text, said):
    config = configured()
    before = json.dumps(config._settings)
    status = config.parse_from_string(text)
    assert not status.ok()
    assert said in str(status)
    assert json.dumps(config._settings) == before


def test_archs_come_in_both_spellings(tiny):
    assert built(tiny, archs=["mtp_372"]) is not None
    assert built(tiny, archs=[{"mtp_372": [6, 8]}]) is not None


# -- parsing and building


def test_parse(tiny, tmp_path):
    with pytest.raises(Misuse, match="ModelKind"):
        Parser("onnx")
    network = mm.Network()
    assert network.get_input_count() == 0
    with pytest.raises(Misuse, match="no input 0"):
        network.get_input(0)
    parser = Parser(mm.ModelKind.kOnnx)
    status = parser.parse(network, str(tmp_path / "gone.onnx"))
    assert not status.ok()
    assert "gone.onnx" in str(status)
    assert parser.parse(network, str(tiny)).ok()
    assert network.get_input(0).get_dimension().GetDims() == [-1, 3, -1, -1]
    assert "filled before" in str(parser.parse(network, str(tiny)))


@pytest.mark.parametrize("dims", [(1, 4, 64, 64), (3, 64, 64), (1, 3, 64, 64, 1)])
def test_dimensions_of_another_network_are_refused(tiny, dims):
    status = parsed(tiny).get_input(0).set_dimension(mm.Dims(dims))
    assert not status.ok()
    assert "cannot become" in str(status)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"precision_config": {}}, "no precision_mode"),
        ({"archs": None}, "do not name the same"),
        ({"archs": ["mtp_592"]}, "do not name the same"),
        ({"graph_shape_mutable": None}, "graph_shape_mutable"),
        ({"graph_shape_mutable": False}, "beside a dim_range"),
        ({"precision_config": {"precision_mode": "qint8_mixed_float16"}}, "needs calibration"),
        ({"precision_config": {"precision_mode": "qint16_mixed_float32"}}, "needs calibration"),
        ({"dim_range": {"0": {"min": [1, 3, 256, 256], "max": [4, 3, 512, 512]}}}, "outside dim_range"),
        ({"dim_range": {"0": {"min": [3, 64, 64], "max": [3, 512, 512]}}}, "outside dim_range"),
    ],
)
def test_what_cannot_be_built_is_none_with_a_reason(tiny, changes, said, caplog):
    assert mm.Builder().build_model("m", parsed(tiny), configured(**changes)) is None
    assert said in caplog.text


def test_an_empty_network_cannot_be_built(caplog):
    assert mm.Builder().build_model("m", mm.Network(), configured()) is None
    assert "parse first" in caplog.text


def test_open_dimensions_cannot_be_built(tiny, caplog):
    network = mm.Network()
    Parser(mm.ModelKind.kOnnx).parse(network, str(tiny))
    assert mm.Builder().build_model("m", network, configured()) is None
    assert "all dimensions set" in caplog.text


def test_a_model_describes_itself(tiny):
    model = built(tiny)
    assert (model.get_input_num(), model.get_output_num()) == (1, 1)
    assert (model.get_input_names(), model.get_output_names()) == (["input"], ["output"])
    assert model.get_input_data_types() == model.get_output_data_types() == [mm.DataType.FLOAT32]
    assert [dims.GetDims() for dims in model.get_input_dimensions()] == [[-1, 3, -1, -1]]
    assert [dims.GetDims() for dims in model.get_output_dimensions()] == [[-1, 34, -1, -1]]
    fixed = built(tiny, graph_shape_mutable=False, dim_range=None)
    assert fixed.get_input_dimensions()[0].GetDims() == [1, 3, 128, 128]
    assert fixed.get_output_dimensions()[0].GetDims() == [1, 34, 32, 32]


def test_files_say_that_they_are_no_models_for_a_card(tiny, tmp_path):
    path = tmp_path / "model"
    assert built(tiny).serialize_to_file(str(path)).ok()
    assert path.read_bytes().startswith(simulator.LABEL.encode())
    again = mm.Model()
    with pytest.raises(Misuse, match="empty"):
        again.get_input_names()
    assert again.deserialize_from_file(str(path)).ok()
    assert again.get_input_names() == ["input"]
    assert not again.deserialize_from_file(str(path)).ok()
    for content in (b"", b"a model of the real MagicMind"):
        path.write_bytes(content)
        status = mm.Model().deserialize_from_file(str(path))
        assert "not built by the simulated MLU" in str(status)
    assert not mm.Model().deserialize_from_file(str(tmp_path / "gone")).ok()
    assert not mm.Model().serialize_to_file(str(path)).ok()
    assert not built(tiny).serialize_to_file(str(tmp_path / "gone" / "model")).ok()


# -- calibration

QINT8 = {"precision_mode": "qint8_mixed_float16", "activation_quant_algo": "symmetric"}


def calibrated(tiny, data, algorithm=mm.QuantizationAlgorithm.LINEAR_ALGORITHM, **changes):
    """The network and the Status of calibrating it."""
    network, config = parsed(tiny), configured(**{"precision_config": QINT8, **changes})
    calibrator = mm.Calibrator([data])
    if algorithm is not None:
        assert calibrator.set_quantization_algorithm(algorithm).ok()
    card = activated()
    status = calibrator.calibrate(network, config)
    del card
    return network, status


def test_the_protocol_of_calibration(tiny):
    data = Samples([array(1, 3, 64, 128), array(1, 3, 128, 64)])
    network, status = calibrated(tiny, data)
    assert status.ok()
    assert data.asked == ["next", "get_shape", "get_data_type", "get_sample"] * 2 + ["next"]
    learnt = network._learnt
    assert (learnt.method, len(learnt)) == ("minmax", 2)
    for _ in range(2):
        for kept, given in zip(learnt.batches(), data.arrays):
            np.testing.assert_array_equal(kept, given)


def test_batches_are_kept_as_single_pictures(tiny):
    network, status = calibrated(tiny, Samples([array(4, 3, 64, 64)]))
    assert status.ok()
    assert [picture.shape for picture in network._learnt.batches()] == [(1, 3, 64, 64)] * 4


def test_eqnm_wants_symmetric_activations(tiny):
    algorithm = mm.QuantizationAlgorithm.EQNM_ALGORITHM
    network, status = calibrated(tiny, Samples([array(1, 3, 64, 64)]), algorithm)
    assert status.ok()
    assert network._learnt.method == "entropy"
    asymmetric = {**QINT8, "activation_quant_algo": "asymmetric"}
    _, status = calibrated(tiny, Samples([array(1, 3, 64, 64)]), algorithm, precision_config=asymmetric)
    assert "symmetric" in str(status)


@pytest.mark.parametrize(
    "arrays, said",
    [
        ([], "no calibration sample"),
        ([array(1, 3, 64, 64), array(1, 3, 32, 64)], "sample 1: a shape of [1, 3, 32, 64], outside dim_range"),
        ([array(1, 3, 64, 64, dtype=np.float64)], "FLOAT64, the array has float64, the input FLOAT32"),
        ([array(1, 3, 64, 128)[..., ::2]], "C-contiguous"),
        ([array(3, 64, 64)], "outside dim_range"),
    ],
)
def test_samples_that_do_not_fit(tiny, arrays, said):
    network, status = calibrated(tiny, Samples(arrays))
    assert said in str(status)
    assert network._learnt is None


@pytest.mark.parametrize("what", ["shape", "type"])
def test_samples_that_are_not_what_they_are_said_to_be(tiny, what):
    data = Samples([array(1, 3, 64, 64)])
    if what == "shape":
        data.get_shape = lambda: mm.Dims([1, 3, 512, 512])
    else:
        data.get_data_type = lambda: mm.DataType.INT32
    assert "says" in str(calibrated(tiny, data)[1])


def test_a_failing_set_of_samples(tiny):
    data = Samples([array(1, 3, 64, 64)])
    data.next = lambda: True
    with pytest.raises(Misuse, match="Status"):
        calibrated(tiny, data)
    with pytest.raises(Misuse, match=r"super\(\)"):
        mm.Calibrator([type("Lazy", (Samples,), {"__init__": lambda self: None})()])
    with pytest.raises(Misuse, match="no next, get_sample, get_shape"):
        mm.Calibrator([type("Half", (mm.CalibDataInterface,), {"next": None, "reset": lambda self: None})()])
    with pytest.raises(Misuse, match="list of CalibDataInterface"):
        mm.Calibrator([object()])


def test_calibration_needs_an_algorithm_and_a_card(tiny):
    assert "algorithm" in str(calibrated(tiny, Samples([array(1, 3, 64, 64)]), algorithm=None)[1])
    assert not mm.Calibrator([Samples([])]).set_quantization_algorithm("linear").ok()
    calibrator = mm.Calibrator([Samples([array(1, 3, 64, 64)])])
    calibrator.set_quantization_algorithm(mm.QuantizationAlgorithm.LINEAR_ALGORITHM)
    assert "no device is active" in str(calibrator.calibrate(parsed(tiny), configured(precision_config=QINT8)))
    _, status = calibrated(tiny, Samples([array(1, 3, 64, 64)]), precision_config={})
    assert "precision_mode" in str(status)


def test_options_must_be_set_before_calibration(tiny, caplog):
    network, status = calibrated(tiny, Samples([array(1, 3, 64, 64)]))
    assert status.ok()
    config = configured(precision_config=QINT8, opt_config={"conv_scale_fold": True})
    assert mm.Builder().build_model("m", network, config) is None
    assert "opt_config was changed after calibration" in caplog.text


# -- device and engine


def test_devices():
    with pytest.raises(Misuse, match="with System"):
        mm.System().device_count()
    with mm.System() as system:
        assert system.device_count() == 1
    for number in (-1, 1, "0"):
        card = mm.Device()
        card.id = number
        assert not card.active().ok()
    assert mm.Device().create_queue() is None
    card = activated()
    with pytest.raises(Misuse, match="after active"):
        card.id = 0


def test_no_engine_without_an_active_device(tiny, caplog):
    assert built(tiny).create_i_engine() is None
    assert "no device is active" in caplog.text
    card = activated()
    del card  # goes, and with it the choice
    assert built(tiny).create_i_engine() is None


def test_engine_config(tiny, caplog):
    card, model, config = activated(), built(tiny), mm.Model.EngineConfig()
    assert model.create_i_engine(config) is None
    config.device_type = "MLU"
    engine = model.create_i_engine(config)
    assert engine is not None
    del engine, model, card


@pytest.mark.parametrize("arch, clusters", [("mtp_592", 8), ("mtp_372", 1)])
def test_a_model_of_another_card(tiny, monkeypatch, caplog, arch, clusters):
    monkeypatch.setattr(device, "ARCH", arch)
    monkeypatch.setattr(device, "CLUSTERS", clusters)
    card = activated()
    assert built(tiny).create_i_engine() is None
    assert "the model was built for" in caplog.text
    del card


# -- running


def test_it_computes_the_network(tiny, running):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tiny), providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 64, 64), (2, 3, 128, 64), (1, 3, 64, 64)):
        [wanted] = session.run(None, {"input": array(*shape)})
        np.testing.assert_allclose(running.run(array(*shape)), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "wrong, said",
    [
        (array(1, 3, 64, 64, dtype=np.float64), "float64"),
        (array(1, 3, 64, 128)[..., ::2], "C-contiguous"),
        ([[0.0]], "C-contiguous"),
        (array(3, 64, 64), "shape"),
        (array(1, 4, 64, 64), "shape"),
    ],
)
def test_inputs_that_do_not_fit(running, wrong, said):
    status = running.inputs[0].from_numpy(wrong)
    assert not status.ok()
    assert said in str(status)


@pytest.mark.parametrize("shape", [(1, 3, 32, 64), (5, 3, 64, 64), (1, 3, 64, 512)])
def test_outside_dim_range_is_a_status(running, shape):
    assert running.inputs[0].from_numpy(array(*shape)).ok()
    status = running.context.enqueue(running.inputs, [], running.queue)
    assert not status.ok()
    assert "outside dim_range" in str(status)


def test_a_fixed_shape_takes_no_other(tiny):
    with Running(built(tiny, graph_shape_mutable=False, dim_range=None)) as parts:
        assert parts.run(array(1, 3, 128, 128)).shape == (1, 34, 32, 32)
        assert not parts.inputs[0].from_numpy(array(1, 3, 64, 64)).ok()


def test_enqueue_wants_filled_inputs_and_an_empty_list(running):
    assert "from_numpy first" in str(running.context.enqueue(running.inputs, [], running.queue))
    running.inputs[0].from_numpy(array(1, 3, 64, 64))
    assert "list of one tensor" in str(running.context.enqueue(running.inputs[0], [], running.queue))
    assert "list of one tensor" in str(running.context.enqueue([], [], running.queue))
    assert "empty list" in str(running.context.enqueue(running.inputs, [None], running.queue))
    assert "empty list" in str(running.context.enqueue(running.inputs, None, running.queue))


def test_nothing_is_there_before_sync(running):
    outputs = []
    running.inputs[0].from_numpy(array(1, 3, 64, 64))
    assert running.context.enqueue(running.inputs, outputs, running.queue).ok()
    with pytest.raises(Misuse, match="before Queue"):
        outputs[0].asnumpy()
    assert running.queue.sync().ok()
    assert np.isfinite(outputs[0].asnumpy()).all()


def test_the_input_is_read_when_the_queue_is_waited_for(running):
    batch, outputs = array(1, 3, 64, 64), []
    wanted = running.run(batch)
    running.inputs[0].from_numpy(batch)
    assert running.context.enqueue(running.inputs, outputs, running.queue).ok()
    batch[:] = 0  # too early
    running.queue.sync()
    assert np.abs(outputs[0].asnumpy() - wanted).max() > 0.1


def test_results_are_good_until_the_next_run_or_until_they_go(running):
    outputs = []
    running.inputs[0].from_numpy(array(1, 3, 64, 64))
    running.context.enqueue(running.inputs, outputs, running.queue)
    running.queue.sync()
    kept = outputs[0].asnumpy()
    assert np.isfinite(kept).all()
    running.run(array(1, 3, 64, 64))
    assert np.isnan(kept).all()
    another = []
    running.context.enqueue(running.inputs, another, running.queue)
    running.queue.sync()
    kept = another[0].asnumpy()
    del another
    assert np.isnan(kept).all()


def test_another_thread_chooses_its_card_first(running):
    said = []

    def use(choose):
        card = activated() if choose else None
        running.inputs[0].from_numpy(array(1, 3, 64, 64))
        said.append(str(running.context.enqueue(running.inputs, [], running.queue)))
        del card

    for choose in (False, True):
        thread = threading.Thread(target=use, args=[choose])
        thread.start()
        thread.join()
    assert said == ["device 0 is not active in this thread", "OK"]


def test_the_card_chosen_last_is_the_one_in_use(running, monkeypatch):
    monkeypatch.setattr(device, "COUNT", 2)
    other = activated(1)
    running.inputs[0].from_numpy(array(1, 3, 64, 64))
    assert "device 0 is not active" in str(running.context.enqueue(running.inputs, [], running.queue))
    assert running.device.active().ok()
    assert running.context.enqueue(running.inputs, [], running.queue).ok()
    del other


def test_move_to_a_device(running):
    assert running.inputs[0].to(running.device) is None
    with pytest.raises(Misuse, match="Device"):
        running.inputs[0].to(0)


@pytest.mark.parametrize(
    "part, users",
    [("context", "Tensor"), ("engine", "IContext"), ("model", "IEngine"), ("device", "IEngine and Queue")],
)
def test_letting_go_in_the_wrong_order_is_shown(tiny, unraisable, part, users):
    with Running(built(tiny)) as parts:
        setattr(parts, part, None)
        gc.collect()
        assert unraisable == [
            f"{ {'context': 'IContext', 'engine': 'IEngine'}.get(part, part.title()) } went before its {users}; "
            "let go of those first"
        ]
    assert len(unraisable) == 1


def test_the_queue_goes_after_the_context_that_used_it(tiny, unraisable):
    with Running(built(tiny)) as parts:
        parts.run(array(1, 3, 64, 64))
        parts.queue = None
    assert unraisable == ["Queue went before its IContext; let go of those first"]


def test_letting_go_in_the_right_order_is_silent(tiny, unraisable):
    with Running(built(tiny)) as parts:
        parts.run(array(1, 3, 64, 64))
    gc.collect()
    assert unraisable == []


def test_a_context_without_its_engine(tiny, unraisable):
    with Running(built(tiny)) as parts:
        parts.engine = None
        with pytest.raises(Misuse, match="engine is gone"):
            parts.context.create_inputs()


# -- eight-bit input


def test_the_card_can_normalise(tiny, running):
    from helpers.backends import BuildSpec, magicmind
    from helpers.pose.preprocess import to_input

    config = magicmind.builder_config(BuildSpec(), magicmind.Options(uint8_input=True))
    eight_bit = built(tiny, **{key: config[key] for key in ("insert_bn_before_firstnode", "convert_input_layout")})
    assert eight_bit.get_input_data_types() == [mm.DataType.UINT8]
    assert eight_bit.get_input_dimensions()[0].GetDims() == [-1, -1, -1, 3]
    image = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    wanted = running.run(to_input([image]))
    with Running(eight_bit) as parts:
        rgb = np.ascontiguousarray(image[None, ..., ::-1])
        np.testing.assert_allclose(parts.run(rgb), wanted, rtol=1e-3, atol=1e-3)
        assert not parts.inputs[0].from_numpy(to_input([image])).ok()
        parts.inputs[0].from_numpy(np.zeros((1, 32, 64, 3), np.uint8))
        assert "outside dim_range" in str(parts.context.enqueue(parts.inputs, [], parts.queue))


# -- the record of calls


def test_calls_are_noted_and_forgotten(tiny, running):
    CALLS.clear()
    running.run(array(1, 3, 64, 64))
    assert [call.step for call in CALLS] == [
        *("Tensor.from_numpy", "IContext.enqueue", "Queue.sync", "Tensor.asnumpy"),
    ]
    assert CALLS[1].arguments == {"shapes": [[1, 3, 64, 64]]}
    for _ in range(2000):
        running.inputs[0].from_numpy(array(1, 3, 64, 64))
    assert len(CALLS) == CALLS.maxlen
