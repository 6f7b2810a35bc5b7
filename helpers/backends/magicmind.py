"""MagicMind, Cambricon's inference compiler for MLU cards.

    backend = backends.get("magicmind")     # inside a MagicMind container with a card, or after `pipeline.simulate()`
    path = backend.build(onnx_path, BuildSpec("qint8_mixed_float16"), calibration)
    with backend.load(path, device_id=0) as engine: ...

The calls, their order and their ways to report a failure are gathered from public code (docs/mlu.md). Where that does
not tell, this module checks every result, catches whatever a call raises, copies what comes out of the card, and lets
go of everything in the order of Cambricon's own samples.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import itertools
import json
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterator, Mapping, Sequence

import numpy as np

from helpers import artifacts, zoo
from helpers.backends.base import Backend, BuildSpec, Engine, exported
from helpers.errors import DataError, UsageError, did_you_mean, first_line
from helpers.pose.preprocess import MEAN_RGB, STD_RGB

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from helpers.backends.base import Calibration

# Architecture -> numbers of clusters to compile for, where none are given. A card takes its own number from the list,
# else the nearest; one that has fewer than the least cannot load the model.
ARCHS: Mapping[str, tuple[int, ...]] = {"mtp_372": (2, 6, 8), "mtp_592": (1,)}
GRANULARITIES = ("per_axis", "per_tensor")

# What MagicMind calls the ways to choose a range. Our minmax is its linear one.
_ALGORITHMS = {"linear": "LINEAR_ALGORITHM", "minmax": "LINEAR_ALGORITHM", "eqnm": "EQNM_ALGORITHM"}
_NAME = "mmpose"  # of the network inside a built model
_THREAD = threading.local()  # `engine`: of those that run in a thread, the last one that chose its card

EXPLAINED: Mapping[str, str] = {
    "archs": "card architectures to compile for, each with the numbers of clusters that cards of it may have",
    "graph_shape_mutable": "whether batch, height and width stay open after the build",
    "dim_range": "by input: least and most of (N, 3, H, W) that will be run; outside it the model is not valid",
    "precision_config.precision_mode": "what is computed in which type; qint modes need calibration",
    "precision_config.weight_quant_granularity": "one scale per output channel (per_axis) or per layer (per_tensor)",
    "precision_config.activation_quant_algo": "whether ranges of activations lie around zero; eqnm needs symmetric",
    "computation_preference": "which kernels to choose where there are several: fast, high_precision, auto",
    "opt_config.type64to32_conversion": "64-bit types become 32-bit ones, which the card computes",
    "opt_config.conv_scale_fold": "scales and biases after a convolution go into its weights; set before calibrating",
    "insert_bn_before_firstnode": "(x - mean) / sqrt(var) is put in front and the input becomes 8-bit",
    "convert_input_layout": "the input is taken in this layout; dim_range keeps the network's own",
}


@dataclass(frozen=True)
class Options:
    """The options of this backend alone; a UsageError if one makes no sense."""

    mlu_arch: str | Sequence[str] = "mtp_372"  # one or several to compile for; with numbers of clusters: mtp_372:6,8
    device_id: int = 0  # the card that calibration runs on
    weight_granularity: str = "per_axis"  # of the qint precisions; the sample's is per_tensor
    uint8_input: bool = False  # the card normalizes: the engine takes images as they are, (N, H, W, 3) uint8 BGR

    def __post_init__(self) -> None:
        """Checks everything."""
        if self.weight_granularity not in GRANULARITIES:
            meant = did_you_mean(self.weight_granularity, GRANULARITIES)
            raise UsageError(f"There is no weight granularity {self.weight_granularity!r}; {meant}.")
        names = [name for name, _ in self.archs()]
        if not names or len(set(names)) < len(names):
            raise UsageError(f"The MLU architectures must be one or more, each once, not {self.mlu_arch}.")

    def archs(self) -> list[tuple[str, list[int]]]:
        """Returns the architectures with their numbers of clusters."""
        return [_arch(text) for text in ([self.mlu_arch] if isinstance(self.mlu_arch, str) else self.mlu_arch)]


def builder_config(spec: BuildSpec, options: Options | None = None) -> dict[str, Any]:
    """Returns the settings of MagicMind's BuilderConfig, which goes to the card as JSON."""
    options = options or Options()
    config: dict[str, Any] = {
        "archs": [{name: clusters} for name, clusters in options.archs()],
        "graph_shape_mutable": spec.dynamic_shape,
    }
    if spec.dynamic_shape:
        config["dim_range"] = {"0": {"min": list(spec.dim_range_min), "max": list(spec.dim_range_max)}}
    config["precision_config"] = {"precision_mode": spec.precision}
    if spec.needs_calibration:
        config["precision_config"]["weight_quant_granularity"] = options.weight_granularity
        config["precision_config"]["activation_quant_algo"] = "symmetric"
    config["computation_preference"] = "fast"
    config["opt_config"] = {"type64to32_conversion": True, "conv_scale_fold": True}
    if options.uint8_input:
        mean = [255 * value for value in MEAN_RGB]
        config["insert_bn_before_firstnode"] = {"0": {"mean": mean, "var": [(255 * value) ** 2 for value in STD_RGB]}}
        config["convert_input_layout"] = {"0": {"src": "NCHW", "dst": "NHWC"}}
    return config


def explained(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns one row per key of a `builder_config`, for a table: the key, its value, what it does."""
    rows = []
    for key, value in config.items():
        inner = value.items() if key in ("precision_config", "opt_config") else [("", value)]
        for name, setting in inner:
            dotted = f"{key}.{name}".rstrip(".")
            rows.append({"key": dotted, "value": setting, "what it does": EXPLAINED[dotted]})
    return rows


class MagicMindBackend(Backend):
    """Builds and loads models for MLU cards."""

    name = "magicmind"
    opset = 11  # the newest that MagicMind's parser is known to read
    on_cpu = False

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()

    def configured(self, **options: Any) -> MagicMindBackend:
        """Returns this backend with other options, see `Options`."""
        known = {field.name for field in dataclasses.fields(Options)}
        if set(options) - known:
            return super().configured(**{key: options[key] for key in options if key not in known})
        return MagicMindBackend(dataclasses.replace(self.options, **options))

    def is_available(self) -> tuple[bool, str]:
        """Tells whether MagicMind can be imported and sees a card."""
        try:
            cards = _device_count(_runtime())
        except ModuleNotFoundError as error:
            if error.name != "magicmind":
                return False, f"magicmind does not load, {error}; use the container as Cambricon ships it"
            cure = "work in a MagicMind container, see docs/mlu.md, or try its calls without a card by --simulate"
            return False, f"there is no magicmind package in this Python; {cure}"
        except ImportError as error:  # a library of the toolkit or of the driver
            return False, f"magicmind does not load, {error}; check NEUWARE_HOME, LD_LIBRARY_PATH and the driver"
        except DataError as error:
            return False, str(error).rstrip(".")
        if cards < 1:
            cure = "give the container --device=/dev/cambricon_dev0 and --device=/dev/cambricon_ctl"
            return False, f"magicmind sees no MLU card; {cure}, and check the driver with cnmon"
        return True, ""

    def version(self) -> str:
        """Returns the version of the magicmind package; that of the simulator says what it is."""
        return artifacts.package_version("magicmind") or "unknown"

    def precisions(self) -> tuple[str, ...]:
        """Returns all."""
        return zoo.PRECISIONS

    def require_device(self, device_id: int) -> None:
        """Raises a UsageError if there is no such card."""
        cards = _device_count(_runtime())
        if not 0 <= device_id < cards:
            raise UsageError(f"There is no device {device_id}; this machine has {cards} MLU card(s), counted from 0.")

    def _decides(self, spec: BuildSpec) -> dict[str, Any]:
        input_type = {"input_type": "uint8"} if self.options.uint8_input else {}
        return {"builder_config": builder_config(spec, self.options), **input_type}

    def _build(self, onnx_path: Path, spec: BuildSpec, calibration: Calibration | None, out: Path) -> None:
        """Parses, sets input dimensions and configuration, calibrates if the precision needs it, builds, writes."""
        self._refuse(onnx_path, spec, calibration)
        with _calls(f"building {spec.precision} from {onnx_path.name}"):
            mm = _runtime()
            parser = importlib.import_module("magicmind.python.runtime.parser").Parser(mm.ModelKind.kOnnx)
            network = mm.Network()
            _ok(parser.parse(network, str(onnx_path)), f"reading {onnx_path.name}")
            inputs = network.get_input_count()
            if inputs != 1:
                raise DataError(f"MagicMind sees {inputs} inputs in {onnx_path.name} instead of one; export it again.")
            _ok(network.get_input(0).set_dimension(mm.Dims(_input_dims(spec))), "setting the input's dimensions")
            config, settings = mm.BuilderConfig(), json.dumps(builder_config(spec, self.options))
            _ok(config.parse_from_string(settings), f"taking the configuration {settings}")
            if spec.needs_calibration:
                self.require_device(self.options.device_id)
                _calibrate(mm, network, config, calibration, spec, self.options.device_id)
            model = _made(mm.Builder().build_model(_NAME, network, config), f"building {spec.precision}")
            _ok(model.serialize_to_file(str(out)), "writing the model")
        if not out.stat().st_size:
            raise DataError(f"MagicMind wrote an empty model of {onnx_path.name}; is the disk full?")

    def _refuse(self, onnx_path: Path, spec: BuildSpec, calibration: Calibration | None) -> None:
        """Refuses what would only fail, or mislead, after minutes."""
        facts = exported(onnx_path)
        if facts["opset"] != self.opset:
            raise UsageError(f"{onnx_path} is of another opset than {self.opset}; export it with --opset {self.opset}.")
        if spec.float_layers:
            raise UsageError("Single layers stay in float on CPU engines only; leave float_layers out for MagicMind.")
        if spec.needs_calibration and calibration is None:
            raise UsageError(f"Building {spec.precision} needs images to calibrate with; give a calibration set.")
        if spec.needs_calibration and self.options.uint8_input:  # before or after normalizing?
            raise UsageError(f"How {spec.precision} calibrates uint8 input is not known; use float32 input.")

    def _load(self, path: Path, facts: dict[str, Any], device_id: int) -> Engine:
        if facts["backend_version"] != self.version():  # public code never loads a model of another version
            versions = f"{facts['backend_version']}, not {self.version()}"
            raise DataError(f"{path} was built by magicmind {versions}; build it again.")
        return MagicMindEngine(facts, _runtime(), path, device_id)


class MagicMindEngine(Engine):
    """A model on a card, with the queue that feeds it."""

    # In this order they are let go: tensors before the context, that before the engine, and so on.
    _PARTS = ("_inputs", "_context", "_engine", "_model", "_queue", "_device")

    def __init__(self, facts: dict[str, Any], mm: ModuleType, path: Path, device_id: int) -> None:
        """Reads the model and prepares a card that exists."""
        for part in self._PARTS:
            setattr(self, part, None)
        super().__init__(facts)
        self._lock = threading.Lock()
        try:
            with _calls(f"loading {path.name}"):
                self._open(mm, path, device_id)
        except BaseException:
            self.close()
            raise

    def __del__(self) -> None:
        """Closes what nobody closed: left to chance, the parts would go in any order."""
        self._close()

    def _open(self, mm: ModuleType, path: Path, device_id: int) -> None:
        self._model = mm.Model()
        _ok(self._model.deserialize_from_file(str(path)), f"reading {path.name}")
        found = [*self._model.get_input_data_types(), *self._model.get_output_data_types()]
        wanted = [getattr(mm.DataType, self.input_type.upper()), mm.DataType.FLOAT32]
        if found != wanted:
            raise DataError(f"{path} takes and gives {found} instead of {wanted}; build it again.")
        with mm.System():  # the samples, too, go on using what was made inside after the block
            self._device = mm.Device()
            self._device.id = device_id
            self._activate()
            archs = json.dumps(self.facts.get("builder_config", {}).get("archs"))
            self._engine = _made(self._model.create_i_engine(), f"loading {path.name}, built for {archs},")
            self._context = _made(self._engine.create_i_context(), "making a context")
            self._queue = _made(self._device.create_queue(), "making a queue")
            self._inputs = _made(self._context.create_inputs(), "making the input")

    def _activate(self) -> None:
        """Chooses the card for this thread, unless this engine was the last to do so."""
        last = getattr(_THREAD, "engine", None)
        if last is None or last() is not self:
            _ok(self._device.active(), f"activating card {self._device.id}")
            _THREAD.engine = weakref.ref(self)

    def _check(self, batch: np.ndarray) -> None:
        """Refuses also what the card would: sizes outside the range that the model was built for."""
        super()._check(batch)
        if not self.dynamic_shape:
            return
        least, most = self.facts["shapes"]["dim_range_min"], self.facts["shapes"]["dim_range_max"]
        count, height, width = self._sizes(batch)
        if any(not low <= size <= high for low, size, high in zip(least, (count, 3, height, width), most)):
            raise DataError(
                f"An input of {height} x {width} (height x width), {count} at once, is outside {_by(least)} to "
                f"{_by(most)}, for which the model was built; crop the image, or build with another dim_range."
            )

    def _run(self, batch: np.ndarray) -> np.ndarray:
        size = _by(batch.shape)
        if self.input_type == "uint8":
            batch = np.ascontiguousarray(batch[..., ::-1])  # the inserted normalization cannot swap BGR to RGB
        with self._lock, _calls(f"running {size}"):  # one context and one set of input tensors for all threads
            self._activate()
            outputs: list[Any] = []  # fresh for every run: the card fills it, and sizes follow the input's
            try:
                _ok(self._inputs[0].from_numpy(batch), f"taking an input of {size}")
                self._inputs[0].to(self._device)
                _ok(self._context.enqueue(self._inputs, outputs, self._queue), f"starting on {size}")
                _ok(self._queue.sync(), f"running {size}")
                if len(outputs) != 1:
                    raise DataError(f"MagicMind returned {len(outputs)} outputs instead of one; build the model again.")
                return np.array(outputs[0].asnumpy())  # a copy: the original may go with its tensor
            finally:
                outputs.clear()

    def _close(self) -> None:
        for part in self._PARTS:
            setattr(self, part, None)


def _calibrate(
    mm: ModuleType, network: Any, config: Any, calibration: Calibration, spec: BuildSpec, device_id: int
) -> None:
    """Lets MagicMind learn the ranges of activations; they become part of the network."""
    method = calibration.method
    if method not in _ALGORITHMS:
        raise UsageError(f"MagicMind cannot calibrate by {method!r}; {did_you_mean(method, _ALGORITHMS)}.")
    images = _calibration_data(mm, calibration, spec)
    calibrator = mm.Calibrator([images])
    algorithm = getattr(mm.QuantizationAlgorithm, _ALGORITHMS[method])
    _ok(calibrator.set_quantization_algorithm(algorithm), f"choosing to calibrate by {method}")
    with mm.System():
        device = mm.Device()
        device.id = device_id
        _ok(device.active(), f"activating card {device_id}")
        status = calibrator.calibrate(network, config)
    _THREAD.engine = None  # whoever runs next has to choose its card again
    if images.error is not None:  # the cause of a failure that MagicMind can only tell as "no more images"
        raise images.error
    _ok(status, "calibrating")
    if not images.given:
        raise DataError("MagicMind calibrated without asking for an image; report it, see docs/mlu.md.")


def _calibration_data(mm: ModuleType, calibration: Calibration, spec: BuildSpec) -> Any:
    """Returns the set as MagicMind asks for it: image after image, from the start again after `reset`."""

    class Images(mm.CalibDataInterface):
        """One (N, 3, h, w) float32 sample at a time."""

        def __init__(self) -> None:
            super().__init__()
            self.error: DataError | UsageError | None = None
            self.given = 0
            self._samples = _samples(calibration, spec)
            self._sample = next(_samples(calibration, spec), None)  # from the start: no order of calls finds none
            if self._sample is None:
                raise DataError("The calibration set is empty; give it images.")

        def next(self) -> Any:
            try:
                sample = next(self._samples, None)
            except (DataError, UsageError) as error:  # must not travel through MagicMind
                self.error, sample = error, None
            if sample is None:
                return mm.Status(mm.Code.OUT_OF_RANGE, "no more calibration images")
            self._sample = sample
            self.given += 1
            return mm.Status.OK()

        def get_sample(self) -> np.ndarray:
            return self._sample

        def get_shape(self) -> Any:
            return mm.Dims(list(self._sample.shape))

        def get_data_type(self) -> Any:
            return mm.DataType.FLOAT32

        def reset(self) -> Any:
            self._samples = _samples(calibration, spec)
            return mm.Status.OK()

    return Images()


def _samples(calibration: Calibration, spec: BuildSpec) -> Iterator[np.ndarray]:
    """Yields samples that fit the network, (N, 3, h, w) float32, C-contiguous.

    A network of variable shape takes each image in its own shape. One of fixed shape takes whole batches; the last is
    filled up by its own last image.
    """
    images = iter(calibration.batches())
    size = 1 if spec.dynamic_shape else spec.batch_size
    for waiting in iter(lambda: list(itertools.islice(images, size)), []):
        for image in waiting:
            if not spec.dynamic_shape and image.shape[2:] != tuple(spec.input_shape):
                raise UsageError(
                    f"A calibration image fills {_by(image.shape[2:])}, but the model is to be built for "
                    f"{_by(spec.input_shape)} (height x width) only; make the set of that shape."
                )
        waiting += waiting[-1:] * (size - len(waiting))
        yield np.ascontiguousarray(np.concatenate(waiting), np.float32)


def _ok(status: Any, step: str) -> None:
    """Checks the Status of a call for a step, "reading x.onnx"."""
    if not status.ok():
        raise DataError(f"MagicMind failed at {step}: {str(status).rstrip('.')}.")


def _made(thing: Any, step: str) -> Any:
    """Checks what a call made: after a failure that is None or, from `create_inputs`, a Status."""
    if thing is None:
        raise DataError(f"MagicMind failed at {step} and answered with nothing; what it printed before says why.")
    if hasattr(thing, "ok"):
        raise DataError(f"MagicMind failed at {step}: {str(thing).rstrip('.')}.")
    return thing


@contextlib.contextmanager
def _calls(step: str) -> Iterator[None]:
    """Turns whatever MagicMind raises inside into a DataError; whether it ever does is not documented."""
    try:
        yield
    except (DataError, UsageError):
        raise
    except Exception as error:
        raise DataError(f"MagicMind raised {type(error).__name__} at {step}: {first_line(error)}.") from error


def _runtime() -> ModuleType:
    return importlib.import_module("magicmind.python.runtime")


def _device_count(mm: ModuleType) -> int:
    with _calls("counting the cards"), mm.System() as system:
        return system.device_count()


def _input_dims(spec: BuildSpec) -> list[int]:
    """Returns the input's dimensions before the build; of a dynamic shape some inside its range, as in the sample."""
    if not spec.dynamic_shape:
        return [spec.batch_size, 3, *spec.input_shape]
    usual = (1, 3, zoo.INPUT_SIZE, zoo.INPUT_SIZE)
    return [min(max(low, size), high) for low, size, high in zip(spec.dim_range_min, usual, spec.dim_range_max)]


def _arch(text: str) -> tuple[str, list[int]]:
    """Reads `mtp_372` or `mtp_372:6,8`."""
    name, _, clusters = text.partition(":")
    if name not in ARCHS:
        raise UsageError(f"There is no MLU architecture {name!r}; {did_you_mean(name, ARCHS)}.")
    if ":" not in text:
        return name, list(ARCHS[name])
    numbers = clusters.split(",")
    if not all(number.isdigit() and int(number) for number in numbers):
        raise UsageError(f"The clusters of {text!r} must be whole numbers from 1, such as mtp_372:6,8.")
    return name, [int(number) for number in numbers]


def _by(shape: Sequence[int]) -> str:
    return " x ".join(str(size) for size in shape)


BACKEND = MagicMindBackend()
