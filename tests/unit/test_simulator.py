"""The simulator of MagicMind: no more names than are used, no laxer than what is known."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading

import numpy as np
import pytest

from helpers import paths
from helpers.backends import BuildSpec, magicmind
from tests.simulator import device, model, parser, values
from tests.simulator import runtime as mm

Misuse = values.Misuse
CONFIG = {
    "archs": [{"mtp_372": [2, 6, 8]}],
    "graph_shape_mutable": True,
    "dim_range": {"0": {"min": [1, 3, 64, 64], "max": [4, 3, 256, 256]}},
    "precision_config": {"precision_mode": "force_float32"},
}
QINT8 = {"precision_mode": "qint8_mixed_float16", "activation_quant_algo": "symmetric"}
# What the backend takes from each, of magicmind_api.md, section 2.13.
SURFACE = {
    "Builder": {"build_model"},
    "BuilderConfig": {"parse_from_string"},
    "CalibDataInterface": set(),
    "Calibrator": {"set_quantization_algorithm", "calibrate"},
    "Device": {"id", "active", "create_queue"},
    "Dims": {"GetDims"},
    "Model": {
        *("serialize_to_file", "deserialize_from_file", "create_i_engine"),
        *("get_input_data_types", "get_output_data_types"),
    },
    "Network": {"get_input_count", "get_input"},
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
        return mm.DataType[self.arrays[self.index].dtype.name.upper()]

    def reset(self):
        self.index = -1
        return mm.Status()


def parsed(tiny, dims=(1, 3, 128, 128)):
    network = mm.Network()
    assert parser.Parser(mm.ModelKind.kOnnx).parse(network, str(tiny)).ok()
    assert network.get_input(0).set_dimension(mm.Dims(dims)).ok()
    return network


def configured(**changes):
    settings = {key: value for key, value in {**CONFIG, **changes}.items() if value is not None}
    made = mm.BuilderConfig()
    status = made.parse_from_string(json.dumps(settings))
    assert status.ok(), str(status)
    return made


def built(tiny, **changes):
    found = mm.Builder().build_model("m", parsed(tiny), configured(**changes))
    assert found is not None
    return found


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

    def enqueue(self, array, outputs=None):
        status = self.inputs[0].from_numpy(array)
        assert status.ok(), str(status)
        return self.context.enqueue(self.inputs, [] if outputs is None else outputs, self.queue)

    def run(self, array):
        outputs = []
        assert self.enqueue(array, outputs).ok()
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


def failed(status, said):
    assert not status.ok()
    assert said in str(status)


# -- the package


def test_it_is_found_where_it_was_asked_for_and_in_processes_that_are_started(tmp_path):
    """As `pipeline.simulate` does it: imported, and with a version that says what it is."""
    asks = "from helpers import backends; print(backends.get('magicmind').is_available()[0])"
    code = (
        f"import subprocess, sys\n{asks}\nfrom helpers import artifacts, pipeline\npipeline.simulate()\n{asks}\n"
        f"sys.stdout.flush(); subprocess.run([sys.executable, '-c', {asks!r}], check=True)\n"
        "print(artifacts.package_version('magicmind'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.root(), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True", "1.7.0+simulator"]


def test_the_surface_is_what_the_backend_uses():
    names = {name for name in dir(mm) if not name.startswith("_")} - {"parser"}  # that appears once imported
    assert names == {*SURFACE, "Code", "DataType", "ModelKind", "QuantizationAlgorithm"}
    for name, members in SURFACE.items():
        found = {member for member in vars(getattr(mm, name)) if not member.startswith("_")}
        assert found == members, name
    with pytest.raises(AttributeError):
        mm.Device().dev_id = 0  # as in one of the samples
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
    failed(mm.Status(mm.Code.OUT_OF_RANGE, "the end"), "OUT_OF_RANGE: the end")
    assert not mm.Status(mm.Code.OUT_OF_RANGE, "").ok()


@pytest.mark.parametrize("arguments", [("text",), (None, "text"), (1, "text"), (mm.Code.OUT_OF_RANGE, 5)])
def test_a_status_is_made_properly(arguments):
    with pytest.raises(Misuse):
        mm.Status(*arguments)


def test_dims():
    dims = mm.Dims(np.zeros((2, 3)).shape)
    dims.GetDims()[0] = 9
    assert dims.GetDims() == [2, 3]
    with pytest.raises(Misuse, match="compare"):
        dims == mm.Dims([2, 3])  # noqa: B015
    with pytest.raises(Misuse, match="whole numbers"):
        mm.Dims([1.5])


# -- configuration


@pytest.mark.parametrize(
    "text, said",
    [
        ("{", "not JSON"),
        ("[]", "must be an object"),
        (json.dumps(CONFIG), "filled before"),
        ('{"arch": ["mtp_372"]}', "unknown key arch"),
        ('{"opt_config": {"conv_scale_fold": true, "tfu_enable": true}}', "unknown key opt_config.tfu_enable"),
        ('{"opt_config": {"conv_scale_fold": 1}}', "wrong value of opt_config.conv_scale_fold"),
        ('{"opt_config": true}', "opt_config must be an object"),
        ('{"precision_config": {"precision_mode": "int8"}}', "precision_mode: 'int8'"),
        ('{"precision_config": {"weight_quant_granularity": "per_channel"}}', "weight_quant_granularity"),
        ('{"archs": []}', "archs"),
        ('{"archs": [{"mtp_372": [0]}]}', "archs"),
        ('{"archs": [{"mtp_372": [6], "mtp_592": [1]}]}', "archs"),
        ('{"dim_range": {"0": {"min": [1, 3, 64, 64]}}}', "dim_range"),
        ('{"dim_range": {"0": {"min": [1, 3, 64, 64], "max": [1, 3, 32, 64]}}}', "not a range"),
        ('{"dim_range": {"0": {"min": [1, 3], "max": [1, 3, 32, 64]}}}', "not a range"),
        ('{"graph_shape_mutable": "true"}', "graph_shape_mutable"),
        ('{"computation_preference": "fastest"}', "computation_preference"),
    ],
)
def test_wrong_settings_are_refused_and_change_nothing(text, said):
    made = configured()
    before = json.dumps(made._settings)
    failed(made.parse_from_string(text), said)
    assert json.dumps(made._settings) == before


# -- parsing and building


def test_parse(tiny, tmp_path):
    with pytest.raises(Misuse, match="ModelKind"):
        parser.Parser("onnx")
    network = mm.Network()
    assert network.get_input_count() == 0
    with pytest.raises(Misuse, match="no input 0"):
        network.get_input(0)
    reader = parser.Parser(mm.ModelKind.kOnnx)
    failed(reader.parse(network, str(tmp_path / "gone.onnx")), "gone.onnx")
    assert reader.parse(network, str(tiny)).ok()
    failed(reader.parse(network, str(tiny)), "filled before")


@pytest.mark.parametrize("dims", [(1, 4, 64, 64), (3, 64, 64), (1, 3, 64, 64, 1)])
def test_dimensions_of_another_network_are_refused(tiny, dims):
    failed(parsed(tiny).get_input(0).set_dimension(mm.Dims(dims)), "cannot become")


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"precision_config": {}}, "must have precision_mode"),
        ({"archs": None}, "must have precision_mode, archs"),
        ({"graph_shape_mutable": None}, "graph_shape_mutable"),
        ({"graph_shape_mutable": False}, "beside a dim_range"),
        ({"precision_config": {"precision_mode": "qint8_mixed_float16"}}, "needs calibration"),
        ({"dim_range": {"0": {"min": [1, 3, 256, 256], "max": [4, 3, 512, 512]}}}, "outside dim_range"),
        ({"dim_range": {"0": {"min": [3, 64, 64], "max": [3, 512, 512]}}}, "outside dim_range"),
    ],
)
def test_what_cannot_be_built_is_none_with_a_reason(tiny, changes, said, caplog):
    assert mm.Builder().build_model("m", parsed(tiny), configured(**changes)) is None
    assert said in caplog.text


def test_an_unfinished_network_cannot_be_built(tiny, caplog):
    network = mm.Network()
    assert mm.Builder().build_model("m", network, configured()) is None
    assert "parse first" in caplog.text
    parser.Parser(mm.ModelKind.kOnnx).parse(network, str(tiny))
    assert mm.Builder().build_model("m", network, configured()) is None
    assert "all dimensions set" in caplog.text


def test_files_say_that_they_are_not_models_for_a_card(tiny, tmp_path):
    path = tmp_path / "model"
    first = built(tiny)
    assert first.get_input_data_types() == first.get_output_data_types() == [mm.DataType.FLOAT32]
    assert first.serialize_to_file(str(path)).ok()
    assert path.read_bytes().startswith(model.MAGIC)
    again = mm.Model()
    with pytest.raises(Misuse, match="empty"):
        again.get_input_data_types()
    assert again.deserialize_from_file(str(path)).ok()
    assert again.get_input_data_types() == [mm.DataType.FLOAT32]
    failed(again.deserialize_from_file(str(path)), "filled before")
    for content in (b"", b"a model of the real MagicMind"):
        path.write_bytes(content)
        failed(mm.Model().deserialize_from_file(str(path)), "not built by the simulator")
    failed(mm.Model().serialize_to_file(str(path)), "empty")


# -- calibration


def calibrated(tiny, data, algorithm=mm.QuantizationAlgorithm.LINEAR_ALGORITHM, **changes):
    """The network and the Status of calibrating it."""
    network, settings = parsed(tiny), configured(**{"precision_config": QINT8, **changes})
    calibrator = mm.Calibrator([data])
    if algorithm is not None:
        assert calibrator.set_quantization_algorithm(algorithm).ok()
    card = activated()
    status = calibrator.calibrate(network, settings)
    del card
    return network, status


def test_the_protocol_of_calibration(tiny):
    data = Samples([array(1, 3, 64, 128), array(2, 3, 128, 64)])
    network, status = calibrated(tiny, data)
    assert status.ok()
    assert data.asked == ["next", "get_shape", "get_data_type", "get_sample"] * 2 + ["next"]
    assert (network._learnt.method, len(network._learnt)) == ("minmax", 3)
    given = [image[None] for sample in data.arrays for image in sample]
    for _ in range(2):
        for kept, image in zip(network._learnt.batches(), given):
            np.testing.assert_array_equal(kept, image)


def test_eqnm_wants_symmetric_activations(tiny):
    algorithm = mm.QuantizationAlgorithm.EQNM_ALGORITHM
    asymmetric = {**QINT8, "activation_quant_algo": "asymmetric"}
    failed(calibrated(tiny, Samples([array(1, 3, 64, 64)]), algorithm, precision_config=asymmetric)[1], "symmetric")


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
    failed(status, said)
    assert network._learnt is None


def test_samples_that_are_not_what_they_are_said_to_be(tiny):
    wrong = {"get_shape": lambda: mm.Dims([1, 3, 512, 512]), "get_data_type": lambda: mm.DataType.INT32}
    for name, answer in wrong.items():
        data = Samples([array(1, 3, 64, 64)])
        setattr(data, name, answer)
        failed(calibrated(tiny, data)[1], "says")


def test_a_set_that_is_not_one(tiny):
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
    failed(calibrated(tiny, Samples([array(1, 3, 64, 64)]), algorithm=None)[1], "algorithm")
    failed(mm.Calibrator([Samples([])]).set_quantization_algorithm("linear"), "not a QuantizationAlgorithm")
    calibrator = mm.Calibrator([Samples([array(1, 3, 64, 64)])])
    calibrator.set_quantization_algorithm(mm.QuantizationAlgorithm.LINEAR_ALGORITHM)
    failed(calibrator.calibrate(parsed(tiny), configured(precision_config=QINT8)), "no device is active")


def test_options_must_be_set_before_calibration(tiny, caplog):
    network, status = calibrated(tiny, Samples([array(1, 3, 64, 64)]))
    assert status.ok()
    changed = configured(precision_config=QINT8, opt_config={"conv_scale_fold": True})
    assert mm.Builder().build_model("m", network, changed) is None
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
        failed(card.active(), "there is no device")
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
    failed(running.inputs[0].from_numpy(wrong), said)


@pytest.mark.parametrize("shape", [(1, 3, 32, 64), (5, 3, 64, 64), (1, 3, 64, 512)])
def test_outside_dim_range_is_a_status(running, shape):
    failed(running.enqueue(array(*shape)), "outside dim_range")


def test_a_fixed_shape_takes_no_other(tiny):
    with Running(built(tiny, graph_shape_mutable=False, dim_range=None)) as parts:
        failed(parts.inputs[0].from_numpy(array(1, 3, 64, 64)), "shape")


def test_enqueue_wants_filled_inputs_and_an_empty_list(running):
    inputs, queue = running.inputs, running.queue
    failed(running.context.enqueue(inputs, [], queue), "from_numpy first")
    inputs[0].from_numpy(array(1, 3, 64, 64))
    for wrong in (inputs[0], []):
        failed(running.context.enqueue(wrong, [], queue), "list of one tensor")
    for wrong in ([None], None):
        failed(running.context.enqueue(inputs, wrong, queue), "empty list")
    assert inputs[0].to(running.device) is None
    with pytest.raises(Misuse, match="Device"):
        inputs[0].to(0)


def test_nothing_is_there_before_sync(running):
    outputs = []
    assert running.enqueue(array(1, 3, 64, 64), outputs).ok()
    with pytest.raises(Misuse, match="before Queue"):
        outputs[0].asnumpy()
    assert running.queue.sync().ok()
    assert np.isfinite(outputs[0].asnumpy()).all()


def test_the_input_is_read_when_the_queue_is_waited_for(running):
    batch, outputs = array(1, 3, 64, 64), []
    wanted = running.run(batch)
    assert running.enqueue(batch, outputs).ok()
    batch[:] = 0  # too early
    running.queue.sync()
    assert np.abs(outputs[0].asnumpy() - wanted).max() > 0.1


def test_results_are_good_until_the_next_run_or_until_they_go(running):
    for spoil in (lambda outputs: running.run(array(1, 3, 64, 64)), lambda outputs: outputs.clear()):
        outputs = []
        running.enqueue(array(1, 3, 64, 64), outputs)
        running.queue.sync()
        kept = outputs[0].asnumpy()
        assert np.isfinite(kept).all()
        spoil(outputs)
        assert np.isnan(kept).all()


def test_another_thread_chooses_its_card_first(running):
    said = []
    thread = threading.Thread(target=lambda: said.append(str(running.enqueue(array(1, 3, 64, 64)))))
    thread.start()
    thread.join()
    assert said == ["device 0 is not active in this thread"]


def test_the_card_chosen_last_is_the_one_in_use(running, monkeypatch):
    monkeypatch.setattr(device, "COUNT", 2)
    other = activated(1)
    failed(running.enqueue(array(1, 3, 64, 64)), "device 0 is not active")
    assert running.device.active().ok()
    assert running.enqueue(array(1, 3, 64, 64)).ok()
    del other


@pytest.mark.parametrize(
    "part, said",
    [
        ("context", "IContext went before its Tensor"),
        ("engine", "IEngine went before its IContext"),
        ("model", "Model went before its IEngine"),
        ("device", "Device went before its IEngine and Queue"),
        ("queue", "Queue went before its IContext"),
        ("nothing", None),
    ],
)
def test_letting_go_in_the_wrong_order_is_shown(tiny, unraisable, part, said):
    with Running(built(tiny)) as parts:
        parts.run(array(1, 3, 64, 64))
        setattr(parts, part, None)
        gc.collect()
    gc.collect()
    assert unraisable == ([] if said is None else [f"{said}; let go of those first"])


def test_a_context_without_its_engine(tiny, unraisable):
    with Running(built(tiny)) as parts:
        parts.engine = None
        with pytest.raises(Misuse, match="engine is gone"):
            parts.context.create_inputs()


def test_a_card_that_normalizes(tiny):
    settings = magicmind.builder_config(BuildSpec(), magicmind.Options(uint8_input=True))
    eight_bit = built(tiny, **{key: settings[key] for key in ("insert_bn_before_firstnode", "convert_input_layout")})
    with Running(eight_bit) as parts:
        failed(parts.inputs[0].from_numpy(array(1, 64, 64, 3)), "float32 values for uint8")
        failed(parts.enqueue(np.zeros((1, 32, 64, 3), np.uint8)), "outside dim_range")
