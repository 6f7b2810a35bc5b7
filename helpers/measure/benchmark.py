"""How long things take: the network alone, and the whole way from file to poses, side by side.

Users time the whole call, tools time the network; both are right, so both are measured. A measurement stops only
when it has run often enough *and* long enough, keeps every sample, and reports percentiles, not just a mean.

    alone = network_only(engine, batch_size=8)              # alone.latency.p50, alone.images_per_s
    whole = end_to_end(PoseEstimator(engine), files)        # whole.stage_ms, whole.images_per_s
    turns = compare({"old": old, "new": new})               # A B A B ...: a busy machine is as hard on both
    turns.speedup("new").median
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, Mapping, Sequence

import cv2
import numpy as np

from helpers import artifacts, paths, zoo
from helpers.errors import DataError, UsageError
from helpers.images import read_image
from helpers.measure import evaluate, records
from helpers.measure.records import Latency, Record
from helpers.pose import decode
from helpers.pose.decode import OFFICIAL, DecodeConfig, Poses, decode_poses
from helpers.pose.estimator import ImageLike, PoseEstimator
from helpers.pose.preprocess import resize_align

if TYPE_CHECKING:
    from helpers.backends.base import Engine
    from helpers.backends.mm_run import CardTiming
    from helpers.dataset import CocoDataset
    from helpers.measure.evaluate import Evaluation
    from helpers.pose.preprocess import ResizeTransform

# Each with its name in a table: the official way, and what it is without one of its steps.
DECODE_OPTIONS = {
    "official": (True, OFFICIAL),
    "no flip": (False, OFFICIAL),
    "no adjust": (True, dataclasses.replace(OFFICIAL, adjust=False)),
    "no refine": (True, dataclasses.replace(OFFICIAL, refine=False)),
    "none of the three": (False, dataclasses.replace(OFFICIAL, adjust=False, refine=False)),
}
_COPY_BYTES = 1 << 27  # of `memory_gbs`: far more than any cache holds
_FUSED = ("Constant", "Clip", "Relu")  # nodes that engines compute within the layer before, with no way to memory
_GEMM_SIZE = 1536  # the matrices of `gemm_gflops`: 9 MB each, larger than most caches of a core


@dataclass(frozen=True)
class NetworkTiming:
    """Runs of the network alone.

    Attributes:
        samples_s: (runs,) float64 seconds per run of a whole batch.
        batch_size: pictures per run.
        input_shape: (N, 3, H, W), or (N, H, W, 3) if the engine takes uint8.
    """

    samples_s: np.ndarray
    batch_size: int
    input_shape: tuple[int, int, int, int]

    @property
    def runs(self) -> int:
        """How many were timed."""
        return len(self.samples_s)

    @property
    def latency(self) -> Latency:
        """Percentiles of one run, milliseconds."""
        return Latency.from_seconds(self.samples_s)

    @property
    def images_per_s(self) -> float:
        """Throughput at the median run."""
        return self.batch_size / float(np.median(self.samples_s))


@dataclass(frozen=True)
class EndToEndTiming:
    """From file (or array) to poses, for a number of pictures.

    While one picture is decoded the next ones may be loaded and run, so the stages of a picture add up to more than
    it adds to the wait. Throughput is therefore taken from the clock on the wall.

    Attributes:
        samples_s: (images,) float64 seconds of work per picture, all stages; pictures of a batch share the
            network's time.
        stage_ms: mean milliseconds per picture and stage.
        wall_s: seconds from the start until the last picture was done.
    """

    samples_s: np.ndarray
    stage_ms: dict[str, float]
    wall_s: float

    @classmethod
    def from_stages(cls, stages: Sequence[Mapping[str, float]], wall_s: float) -> EndToEndTiming:
        """Puts the stage times of single pictures together.

        Args:
            stages: per picture the milliseconds of each stage; the same stages for all.
            wall_s: seconds that all of them took.
        """
        return cls(
            samples_s=np.array([sum(each.values()) for each in stages]) / 1e3,
            stage_ms={stage: float(np.mean([each[stage] for each in stages])) for stage in stages[0]},
            wall_s=wall_s,
        )

    @property
    def runs(self) -> int:
        """How many pictures were timed."""
        return len(self.samples_s)

    @property
    def latency(self) -> Latency:
        """Percentiles over pictures of the work for one, milliseconds."""
        return Latency.from_seconds(self.samples_s)

    @property
    def images_per_s(self) -> float:
        """Throughput: pictures over seconds on the wall."""
        return len(self.samples_s) / self.wall_s


@dataclass(frozen=True)
class Cost:
    """What one run of a network asks of a machine, counted on its ONNX graph.

    Attributes:
        gflop: billions of floating-point operations of its convolutions, two per multiply-add.
        megabytes: 10^6 bytes to and from memory, if every layer reads its inputs and weights once and writes its output
            once, in float32, and activation functions add nothing.
    """

    gflop: float
    megabytes: float

    @property
    def intensity(self) -> float:
        """Operations per byte: the more, the less a network waits for memory."""
        return 1e3 * self.gflop / self.megabytes


@dataclass(frozen=True)
class Speedup:
    """How a ratio came out over several rounds.

    Attributes:
        low, median, high: so that a quarter, half and three quarters of the rounds lie below.
    """

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        """`731x (702 to 740)`."""
        low, median, high = (f"{v:,.0f}" if v >= 10 else f"{v:.1f}" for v in (self.low, self.median, self.high))
        return f"{median}x ({low} to {high})"


@dataclass(frozen=True)
class PairedTimings:
    """Calls that took turns.

    Attributes:
        samples_s: label -> (rounds,) float64 seconds; entry k of every label is from round k.
    """

    samples_s: dict[str, np.ndarray]

    @property
    def median_ms(self) -> dict[str, float]:
        """Label -> median milliseconds."""
        return {label: float(np.median(samples)) * 1e3 for label, samples in self.samples_s.items()}

    def speedup(self, label: str) -> Speedup:
        """How many times as fast as the first a call is, from the ratio of each round."""
        first = next(iter(self.samples_s.values()))
        return Speedup(*(float(value) for value in np.percentile(first / self.samples_s[label], (25, 50, 75))))


@dataclass
class PeakMemory:
    """The most memory that this process held at once; filled in when the block of `peak_memory` ends.

    Attributes:
        megabytes: resident memory of the whole process, libraries included, 10^6 bytes; None if the system does
            not tell.
    """

    megabytes: float | None = None


def measure(call: Callable[[], object], min_runs: int = 10, min_seconds: float = 2.0, warm_up: int = 2) -> np.ndarray:
    """Times a call until it has run `min_runs` times and for `min_seconds`.

    Args:
        call: what to time.
        min_runs: least number of timed runs.
        min_seconds: least total of the timed runs.
        warm_up: runs before timing starts (first runs allocate, choose kernels, fill caches).

    Returns:
        (runs,) float64 seconds.
    """
    for _ in range(warm_up):
        call()
    samples: list[float] = []
    total = 0.0  # kept, because summing again takes longer than a quick call
    while len(samples) < min_runs or total < min_seconds:
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
        total += samples[-1]
    return np.array(samples)


def network_only(
    engine: Engine,
    batch_size: int = 1,
    height: int = 512,
    width: int = 512,
    min_runs: int = 10,
    min_seconds: float = 2.0,
) -> NetworkTiming:
    """Times the network on one fixed batch of noise, without flip test.

    Args:
        engine: a loaded network.
        batch_size: pictures per run.
        height, width: input size in pixels.
        min_runs, min_seconds: when to stop, see `measure`.

    Returns:
        All samples.
    """
    batch = _noise(engine, batch_size, height, width)
    samples = measure(lambda: engine.run(batch), min_runs, min_seconds)
    return NetworkTiming(samples, batch_size, batch.shape)


def end_to_end(
    estimator: PoseEstimator,
    images: Sequence[ImageLike],
    batch_size: int = 1,
    paint: Callable[[np.ndarray, Poses], object] | None = None,
) -> EndToEndTiming:
    """Times every picture through all stages, after one to warm up.

    Args:
        estimator: ready to run.
        images: files or (H, W, 3) uint8 BGR arrays.
        batch_size: most pictures in one run of the network.
        paint: draws poses on (H, W, 3) uint8 BGR, to be timed as the stage `draw`; None leaves drawing out.

    Returns:
        Per-picture sums of stage times, the mean of each stage, and the time of it all.

    Raises:
        DataError: a picture cannot be read.
    """
    decode.warm_up()
    estimator(images[:1])
    outcomes = []
    start = time.perf_counter()
    for outcome, image in zip(estimator.stream(images, batch_size), images):
        if outcome.poses is None:
            raise DataError(outcome.error)
        if paint is not None:
            pixels, reading_s = timed(functools.partial(_pixels, image))
            start += reading_s  # a program that draws has the picture at hand
            outcome.stage_ms["draw"] = timed(functools.partial(paint, pixels, outcome.poses))[1] * 1e3
        outcomes.append(outcome)
    return EndToEndTiming.from_stages([o.stage_ms for o in outcomes], time.perf_counter() - start)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Runs something once; what it returned, and the seconds it took."""
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def compare(
    calls: Mapping[str, Callable[[], object]],
    min_rounds: int = 5,
    min_seconds: float = 0.0,
    warm_up: int = 1,
    turn_seconds: float = 0.0,
) -> PairedTimings:
    """Times calls in turns, A B A B ..., in this one process.

    What disturbs the machine for longer than a round disturbs all of them, and drops out of the ratios. Figures from
    two processes, or from one call after the other, have no such comfort.

    Args:
        calls: label -> what to time. The first is what the others are compared with.
        min_rounds: least number of timed rounds.
        min_seconds: least total of the timed rounds.
        warm_up: rounds before timing starts.
        turn_seconds: a call that is quicker is repeated in its turn for so long, and its median counts: a millisecond
            right after somebody else's second is spent on cold caches.

    Raises:
        UsageError: there is nothing to compare.
    """
    if not calls or min_rounds < 1:
        raise UsageError("There is nothing to compare; give one call or more, and one round or more.")
    for _ in range(warm_up):
        for call in calls.values():
            call()
    rounds: list[list[float]] = []
    while len(rounds) < min_rounds or sum(map(sum, rounds)) < min_seconds:
        rounds.append([float(np.median(measure(call, 1, turn_seconds, warm_up=0))) for call in calls.values()])
    return PairedTimings(dict(zip(calls, np.array(rounds).T)))


@contextlib.contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Watches how much memory this process holds while the block runs.

        with peak_memory() as peak:
            ...
        peak.megabytes

    Linux counts the peak itself (`VmHWM`), from here on if /proc/self/clear_refs may be written, otherwise since the
    process began. Without /proc it is `getrusage`'s, since the process began.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    peak = PeakMemory()
    yield peak
    peak.megabytes = _peak_megabytes()


def gemm_gflops(size: int = _GEMM_SIZE, min_seconds: float = 1.0) -> float:
    """What this machine reaches in practice: the best of several products of two float32 matrices in NumPy.

    A yardstick for `achieved_gflops`, not the data sheet's figure: it is as good as the BLAS that NumPy was built
    with, on as many threads as that takes. OpenBLAS chooses its kernels by the processor's name; on one that it does
    not know, or with `OPENBLAS_CORETYPE` set, it may be far below what the machine can do, and a network above 100 %.

    Args:
        size: rows and columns.
        min_seconds: how long to try, at least three times.

    Returns:
        Billions of floating-point operations per second, two per multiply-add.
    """
    left, right = np.random.default_rng(0).random((2, size, size), dtype=np.float32)
    out = np.empty_like(left)
    samples = measure(lambda: np.matmul(left, right, out=out), min_runs=3, min_seconds=min_seconds, warm_up=1)
    return 2 * size**3 / samples.min() / 1e9


def memory_gbs(min_seconds: float = 0.5) -> float:
    """How quickly this machine copies memory, with a thread per core: the best of several times.

    Args:
        min_seconds: how long to try, at least three times.

    Returns:
        10^9 bytes per second, read and written ones together, as the STREAM benchmark counts a copy.
    """
    cores = os.cpu_count() or 1
    source = np.ones(_COPY_BYTES // 4, np.float32)
    parts = list(zip(np.array_split(np.empty_like(source), cores), np.array_split(source, cores)))
    with ThreadPoolExecutor(cores) as pool:
        samples = measure(lambda: list(pool.map(lambda part: np.copyto(*part), parts)), 3, min_seconds, warm_up=1)
    return 2 * source.nbytes / samples.min() / 1e9


def cost(onnx_path: str | Path, batch_size: int = 1, height: int = 512, width: int = 512) -> Cost:
    """Counts what a network asks for, from its graph and the shapes that ONNX infers.

    Args:
        onnx_path: an exported network of float32 input.
        batch_size: pictures in a run.
        height, width: of the input, pixels.

    Raises:
        UsageError: the onnx package is not installed.
    """
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
            # A multiply-add for each weight of a channel, at each place of the output, or of the input if turned round.
            places = shapes[node.output[0] if node.op_type == "Conv" else node.input[0]]
            operations += 2 * int(np.prod(places)) * int(np.prod(shapes[node.input[1]][1:]))
    return Cost(operations / 1e9, 4 * numbers / 1e6)


def achieved_gflops(model: str, timing: NetworkTiming) -> float:
    """Billions of floating-point operations per second that a network ran at, counted for its float32 form.

    Args:
        model: name of a network in `zoo`, where the operations of one 512 x 512 picture stand.
        timing: of that network alone; other sizes count by their pixels.
    """
    pixels = np.prod(timing.input_shape[1:]) / 3  # the channels are the first or the last of the three
    return float(zoo.get(model).gflops * pixels / zoo.INPUT_SIZE**2 * timing.images_per_s)


def by_batch_size(engine: Engine, batch_sizes: Sequence[int], rounds: int = 2) -> dict[int, NetworkTiming]:
    """Times the network alone at several batch sizes, in turns.

    Args:
        engine: a loaded network; one built for a fixed shape is timed at its only batch and size.
        batch_sizes: pictures per run, of 512 x 512.
        rounds: timed runs of each, after one to warm up.
    """
    sizes = batch_sizes if engine.dynamic_shape else [engine.batch_size]
    height, width = (zoo.INPUT_SIZE, zoo.INPUT_SIZE) if engine.dynamic_shape else engine.input_shape
    batches = {size: _noise(engine, size, height, width) for size in sizes}
    turns = compare({str(size): functools.partial(engine.run, batch) for size, batch in batches.items()}, rounds)
    return {size: NetworkTiming(turns.samples_s[str(size)], size, batch.shape) for size, batch in batches.items()}


def compare_stages(
    calls: Mapping[str, Callable[[Path], Mapping[str, float]]], pictures: Sequence[Path]
) -> dict[str, EndToEndTiming]:
    """Times whole calls in turns, picture by picture, after one to warm up.

    Args:
        calls: label -> function that takes a file through all stages and returns the milliseconds of each.
        pictures: files.

    Returns:
        Label -> timing; with one picture at a time nothing overlaps.
    """
    decode.warm_up()
    for call in calls.values():
        call(pictures[0])
    found: dict[str, list[tuple[Mapping[str, float], float]]] = {label: [] for label in calls}
    for picture in pictures:
        for label, call in calls.items():
            found[label].append(timed(functools.partial(call, picture)))
    return {
        label: EndToEndTiming.from_stages([stages for stages, _ in each], sum(seconds for _, seconds in each))
        for label, each in found.items()
    }


def mosaic(dataset: CocoDataset, people: int, width: int = 768, height: int = 512) -> np.ndarray:
    """A picture with so many people, put together from pictures with one: what decoders can be timed on.

    Args:
        dataset: where from; the first pictures in which exactly one person is annotated, again if they run out.
        people: how many.
        width, height: of the picture, pixels.

    Returns:
        (height, width, 3) uint8 BGR.

    Raises:
        DataError: there is no picture with exactly one person.
    """
    alone = [image_id for image_id in dataset.image_ids if len(dataset.people(image_id)) == 1]
    if not alone:
        raise DataError(f"{dataset.annotation_file} has no picture with exactly one person; use another dataset.")
    columns = max(range(1, people + 1), key=lambda n: min(width / n, height / -(-people // n)))
    wide, tall = width // columns, height // -(-people // columns)
    picture = np.zeros((height, width, 3), np.uint8)
    for k in range(people):
        image_id = alone[k % len(alone)]
        row, column = divmod(k, columns)
        cell = _around_person(read_image(dataset.path(image_id)), dataset.people(image_id).bbox[0], wide, tall)
        picture[row * tall : (row + 1) * tall, column * wide : (column + 1) * wide] = cell
    return picture


def decode_times(
    decoders: Mapping[str, Callable[[np.ndarray, np.ndarray, ResizeTransform], object]],
    outputs: Mapping[int, tuple[np.ndarray, np.ndarray]],
    rounds: int = 2,
) -> dict[int, PairedTimings]:
    """Times decoders on the same outputs, in turns.

    Args:
        decoders: label -> function of (output, flipped_output, transform), as `decode_poses`.
        outputs: number of people -> (34, h, w) float32 outputs for a picture of them and for its mirror image;
            h and w are multiples of 16.
        rounds: timed rounds each; before the first there is one to warm up.

    Returns:
        Number of people -> times.
    """
    found = {}
    for people, (output, flipped) in outputs.items():
        _, height, width = output.shape
        _, transform = resize_align(np.zeros((4 * height, 4 * width, 3), np.uint8), 4 * min(height, width))
        calls = {label: functools.partial(call, output, flipped, transform) for label, call in decoders.items()}
        found[people] = compare(calls, rounds, warm_up=0 if found else 1, turn_seconds=0.3)
    return found


def decode_options(
    engine: Engine,
    dataset: CocoDataset,
    image_ids: Sequence[int],
    options: Mapping[str, tuple[bool, DecodeConfig]] = DECODE_OPTIONS,
) -> list[dict[str, Any]]:
    """What the steps around the network cost and bring: the same outputs, decoded in several ways.

    Every option decodes the very same outputs of a picture, so nothing but the option differs between rows.

    Args:
        engine: a loaded network, with trained weights.
        dataset: pictures and annotations.
        image_ids: which pictures (`sample_ids`).
        options: label -> (whether the mirror image is used, how to decode).

    Returns:
        One dict per option, for `pandas.DataFrame`: AP and AR, and medians of milliseconds per picture, where
        `network ms` is all from the picture to the network's output, of the mirror image too if it is used.
    """
    decode.warm_up()
    estimators = {flip: PoseEstimator(engine, flip) for flip in (False, True)}
    found: dict[str, dict[int, Poses]] = {label: {} for label in options}
    times: dict[str, list[tuple[float, float]]] = {label: [] for label in options}
    for index, image_id in enumerate(image_ids):
        image = read_image(dataset.path(image_id))
        if index == 0:  # once without the clock
            _decoded(estimators[True].maps(image), options)
        (output, flipped, transform), both_s = timed(functools.partial(estimators[True].maps, image))
        _, one_s = timed(functools.partial(estimators[False].maps, image))
        for label, (poses, decode_s) in _decoded((output, flipped, transform), options).items():
            found[label][image_id] = poses
            times[label].append((both_s if options[label][0] else one_s, decode_s))
    return [_option_row(label, evaluate.evaluate(found[label], dataset, image_ids), times[label]) for label in options]


def trade_offs(
    loaded: Mapping[str, Engine], dataset: CocoDataset, image_ids: Sequence[int], rounds: int = 5
) -> list[dict[str, Any]]:
    """Accuracy and latency of engines side by side: of one network, say, in several precisions.

    Engines take turns in being timed, and AP is drawn again on the same samples of the pictures for all.

    Args:
        loaded: label -> engine; the first is what the others are compared with.
        dataset: pictures and annotations.
        image_ids: which pictures.
        rounds: timed runs of each, after one to warm up.

    Returns:
        One dict per engine: `label`; `ms` for one picture of 512 x 512, median; `speedup` over the first; `ap`, and
        `low` and `high` between which it lies on 95 % of the samples; `change` of AP against the first, with
        `change_low` and `change_high`.
    """
    batches = {label: _noise(engine, 1, zoo.INPUT_SIZE, zoo.INPUT_SIZE) for label, engine in loaded.items()}
    turns = compare({label: functools.partial(loaded[label].run, batch) for label, batch in batches.items()}, rounds)
    runs = {label: evaluate.run(PoseEstimator(engine), dataset, image_ids) for label, engine in loaded.items()}
    drawn = evaluate.resampled_ap({label: run.poses for label, run in runs.items()}, dataset, image_ids)
    first = next(iter(loaded))
    points = []
    for label, run in runs.items():
        low, high = evaluate.interval(drawn[label])
        change_low, change_high = evaluate.interval(drawn[label] - drawn[first])
        point = {"label": label, "ms": turns.median_ms[label], "speedup": turns.speedup(label).median}
        point.update(ap=run.stats.numbers["AP"], low=low, high=high)
        point["change"] = run.stats.numbers["AP"] - runs[first].stats.numbers["AP"]
        points.append({**point, "change_low": change_low, "change_high": change_high})
    return points


def sample_ids(dataset: CocoDataset, engine: Engine, count: int, seed: int = 0) -> list[int]:
    """Pictures to try an engine on: a seeded sample of those whose shape it takes.

    Args:
        dataset: where from.
        engine: one built for a fixed shape gets square pictures only.
        count: how many; fewer if there are not so many.
        seed: of the sample.

    Returns:
        Ids in ascending order.

    Raises:
        DataError: there is none of that shape.
    """
    fits = [k for k in dataset.image_ids if engine.dynamic_shape or dataset.size(k)[0] == dataset.size(k)[1]]
    if not fits:
        raise DataError(f"{dataset.root / dataset.split} holds no square picture; build a dynamic engine.")
    chosen = np.random.default_rng(seed).permutation(len(fits))[:count]
    return [fits[k] for k in sorted(chosen)]


def sample_pictures(dataset: CocoDataset, engine: Engine, count: int, seed: int = 0) -> list[Path]:
    """The files of `sample_ids`."""
    return [dataset.path(image_id) for image_id in sample_ids(dataset, engine, count, seed)]


def accuracy_record(
    built: str | Path,
    run: Evaluation,
    dataset: CocoDataset,
    batch_size: int = 1,
    flip_test: bool = True,
    command: str = "",
    reference: Evaluation | None = None,
) -> Record:
    """One row: how accurate a built model is, and the times of its run.

    Args:
        built: the built model, with its sidecar.
        run: from `evaluate.run`.
        dataset: what was scored.
        batch_size: most images in one run of the network.
        flip_test: whether the mirror image was used; if not, the record's `dataset` says so.
        command: how to do it again.
        reference: that of float32 over the same images, to say what this precision changes.
    """
    facts, circumstances = artifacts.read_sidecar(built), _circumstances(command)
    if facts.get("simulated"):
        circumstances["versions"][facts["backend"]] = facts["backend_version"]
    return Record(
        **_built_facts(built),
        batch_size=batch_size,
        **_accuracy(run, dataset, flip_test, reference),
        stage_ms=None if facts.get("simulated") else run.stage_ms,
        **circumstances,
    )


def speed_record(
    built: str | Path,
    alone: NetworkTiming | CardTiming,
    whole: EndToEndTiming,
    command: str = "",
    load_s: float | None = None,
    peak: PeakMemory | None = None,
    gemm: float | None = None,
) -> Record:
    """One row: how fast a built model is, alone and with all stages.

    The maps of random weights are noise, and decoding noise is no measure of decoding people: neither that stage nor
    the throughput of the whole call becomes part of their record.

    Args:
        built: the built model, with its sidecar.
        alone: from `network_only`, or from `mm_run.measure`.
        whole: from `end_to_end`.
        command: how to do it again.
        load_s: seconds that loading the built model took.
        peak: from `peak_memory`, around all of it.
        gemm: from `gemm_gflops`.

    Raises:
        UsageError: the model is one of a simulated card, which has no speed.
    """
    if artifacts.read_sidecar(built).get("simulated"):
        raise UsageError(f"{built} is a model of a simulated card, which has no speed; measure a real one.")
    facts = _built_facts(built)
    noise = facts["weights"] == "random"
    return Record(
        **facts,
        batch_size=alone.batch_size,
        input_shape=alone.input_shape,
        latency_ms=alone.latency,
        images_per_s=alone.images_per_s,
        whole_images_per_s=None if noise else whole.images_per_s,
        stage_ms={stage: ms for stage, ms in whole.stage_ms.items() if not (noise and stage in ("decode", "draw"))},
        gflops=achieved_gflops(facts["model"], alone),
        gemm_gflops=gemm,
        load_s=load_s,
        peak_memory_mb=None if peak is None else peak.megabytes,
        **_circumstances(command),
    )


def with_accuracy(speed: Record, run: Evaluation, dataset: CocoDataset) -> Record:
    """A row of speeds, completed with how accurate the same built model is.

    Args:
        speed: from `speed_record`.
        run: from `evaluate.run`, with the flip test.
        dataset: what was scored.
    """
    return dataclasses.replace(speed, **_accuracy(run, dataset))


def sweep_table(rows: Iterable[Record]) -> list[dict[str, Any]]:
    """The table that closes a sweep over networks, batch sizes and precisions.

    Args:
        rows: from `speed_record` or `with_accuracy`.

    Returns:
        One dict per record, for `records.align` or `pandas.DataFrame`; what was not measured is absent.
    """
    return [_sweep_row(row) for row in rows]


def weights_for_all(model: str, weights: str) -> dict[str, str]:
    """Weights for every network of the zoo: of the kind asked for, where that is a kind.

    Args:
        model: name of a network.
        weights: `demo`, `official`, `random`, or a checkpoint file, which fits this network only.

    Returns:
        Network name -> weights; `random` for another network that has none of that kind.
    """
    model = zoo.get(model).name
    of_that_kind = {"demo": paths.demo_models(), "official": list(zoo.NETWORKS)}.get(weights, [])
    return {name: weights if name in (model, *of_that_kind) else "random" for name in zoo.NETWORKS}


def comparison(rows: Sequence[Record], precision: str, shipped: Sequence[Record] = ()) -> list[dict[str, Any]]:
    """The closing table: every network of the zoo, measured here and published.

    Args:
        rows: records, of which those of `precision` are taken. Of several accuracies the one on most images
            counts, of several speeds the latest. Those of a simulated card do not count.
        precision: one of `zoo.PRECISIONS`.
        shipped: records of accuracy that were measured elsewhere: they stand for what was not measured here.

    Returns:
        One dict per network, for `pandas.DataFrame`. Accuracy that was not measured says what it needs.
    """
    table = []
    for name, network in zoo.NETWORKS.items():
        mine, elsewhere = (
            [r for r in some if (r.model, r.precision) == (name, precision) and not r.simulated]
            for some in (rows, shipped)
        )
        mine.sort(key=lambda r: r.when or "")
        scored = [r for r in mine if r.ap is not None and r.weights != "random"] or elsewhere
        timed = [r for r in mine if r.latency_ms is not None]
        missing = "not measured yet" if name in paths.demo_models() else "needs official weights"
        row = {"model": name, "AP here": missing, "AR here": missing}
        if scored:
            best = max(scored, key=lambda r: r.images or 0)
            where = ", shipped figure" if scored is elsewhere else ""
            row["AP here"] = f"{best.ap:.3f} ({best.weights} weights, {best.images} images of {best.dataset}{where})"
            row["AR here"] = "-" if best.ar is None else f"{best.ar:.3f}"
        published = network.published.get(precision)
        row["AP published"] = f"{published.ap / 100:.4f}" if published else "-"
        row["AR published"] = f"{published.ar / 100:.4f}" if published else "-"
        if timed:
            last = timed[-1]
            row.update({"p50 ms": f"{last.latency_ms.p50:.0f}", "p99 ms": f"{last.latency_ms.p99:.0f}"})
            if last.images_per_s is not None:
                row["images/s"] = f"{last.images_per_s:.1f}"
            if last.whole_images_per_s is not None:
                row["whole call ms"] = f"{1e3 / last.whole_images_per_s:.0f}"
            row["timed with"] = f"{last.weights} weights, {last.backend}, batch {last.batch_size}"
        table.append(row)
    return table


def published_table(rows: Iterable[Record], cells: Sequence[tuple[str, str]] | None = None) -> list[dict[str, Any]]:
    """The published table with ours beside it, and whether ours holds.

    float32 and float16 hold if AP is within `zoo.TOLERANCE` of the published float32; int8 if it loses less against
    our float32 than was lost there. A sample of the images decides nothing, nor do weights that are not the official.

    Args:
        rows: those that were measured, one for a cell at most.
        cells: (model, precision), in the table's order; by default all that are published.

    Returns:
        One dict per cell, for `records.align`: figures in percent, and a `verdict` that begins with `yes:` or `no:`
        where there is one.
    """
    table, measured = [], {(row.model, row.precision): row for row in rows}
    if cells is None:
        cells = [(name, precision) for name, network in zoo.NETWORKS.items() for precision in network.published]
    for model, precision in cells:
        published, row = zoo.get(model).published, measured.get((model, precision))
        ours = None if row is None or row.ap is None else row
        cell: dict[str, Any] = {"model": model, "precision": precision}
        if ours is not None:
            cell["images"] = ours.images
        for name in ("AP", "AR"):
            there, value = getattr(published[precision], name.lower()), getattr(ours, name.lower(), None)
            if value is not None:
                cell[name] = f"{100 * value:.2f}"
            cell[f"{name} published"] = f"{there:.2f}"
            if value is not None and ours.weights == "official":
                cell[f"{name} difference"] = f"{100 * value - there:+.2f}"
        if ours is not None:
            cell.update(_percent_of(ours))
            if ours.calibration:
                cell["calibrated with"] = ours.calibration
        table.append({**cell, "verdict": _verdict(row, measured.get((model, "force_float32")), published)})
    return table


def _percent_of(row: Record) -> dict[str, str]:
    """How far AP depends on the sample of images, and what the precision changes, in percent."""
    found = {}
    if row.ap_interval:
        found["AP, 95 %"] = "{:.1f} to {:.1f}".format(*(100 * value for value in row.ap_interval))
        found["change"] = ""  # so that all rows have their columns in one order
    if row.ap_change is not None:
        low, high = (100 * value for value in row.ap_change_interval)
        found["change"] = f"{100 * row.ap_change:+.2f} ({low:+.2f} to {high:+.2f})"
    return found


def _verdict(row: Record | None, float32: Record | None, published: Mapping[str, zoo.Accuracy]) -> str:
    """Whether a cell holds beside what is published; `float32` is ours of the same network."""
    if row is None or row.ap is None:
        return "not measured"
    if row.weights != "official":
        return f"none: {row.weights} weights"
    there = published["force_float32"].ap
    if row.precision.startswith("qint"):
        if float32 is None or float32.ap is None:
            return "needs float32, to see the loss"
        loss, lost_there = 100 * (float32.ap - row.ap), there - published[row.precision].ap
        holds, text = loss < lost_there, f"loses {loss:.2f}, published {lost_there:.2f}"
    else:
        away = abs(100 * row.ap - there)
        holds, text = away <= zoo.TOLERANCE, f"{away:.2f} from {there:.2f}, allowed {zoo.TOLERANCE}"
    if row.images != zoo.PUBLISHED_IMAGES:
        return f"none on {row.images} of {zoo.PUBLISHED_IMAGES} images ({text})"
    return f"{'yes' if holds else 'no'}: {text}"


def _built_facts(built: str | Path) -> dict[str, Any]:
    facts = artifacts.read_sidecar(built)
    same = {key: facts[key] for key in ("model", "weights", "backend", "precision", "input_type")}
    same["weights_sha256"] = facts.get("weights_sha256") or None
    pictures = facts.get("calibration")
    if pictures:
        same["calibration"] = f"{pictures['count']} pictures, {pictures['method']}"
    if facts.get("simulated"):  # neither is the card's
        return same
    return {**same, "build_s": facts["build_s"], "model_bytes": facts["bytes"]}


def _accuracy(
    run: Evaluation, dataset: CocoDataset, flip_test: bool = True, reference: Evaluation | None = None
) -> dict[str, Any]:
    """The fields of a record that say how accurate a model is, and on what."""
    ap, image_ids = run.stats.numbers["AP"], run.image_ids
    runs = {"this": run.poses} if reference is None else {"this": run.poses, "float32": reference.poses}
    drawn = evaluate.resampled_ap(runs, dataset, image_ids) if ap is not None else {}
    fields = {
        "dataset": records.scored_on(f"{dataset.root.resolve().name} {dataset.split}", flip_test),
        "images": run.stats.images,
        "ap": ap,
        "ar": run.stats.numbers["AR"],
        "coco_stats": run.stats.numbers,
    }
    if drawn:
        fields["ap_interval"] = list(evaluate.interval(drawn["this"]))
    if drawn and reference is not None:
        fields["ap_change"] = ap - reference.stats.numbers["AP"]
        fields["ap_change_interval"] = list(evaluate.interval(drawn["this"] - drawn["float32"]))
    return fields


def _circumstances(command: str) -> dict[str, Any]:
    where = {"machine": records.machine(), "versions": records.versions()}
    return {**where, "command": command or None, "when": records.now()}


def _noise(engine: Engine, count: int, height: int, width: int) -> np.ndarray:
    """What a network is timed on: a batch of the shape and type that it takes."""
    shape, random = engine.batch_shape(count, height, width), np.random.default_rng(0)
    if engine.input_type == "uint8":
        return random.integers(0, 256, shape, dtype=np.uint8)
    return random.standard_normal(shape, dtype=np.float32)


def _around_person(image: np.ndarray, box: np.ndarray, width: int, height: int) -> np.ndarray:
    """Cuts out a person with some ground about, scaled to (height, width); grey where the picture is too small."""
    left, top, wide, tall = box
    scale = min(width / wide, height / tall) / 1.35
    start = []
    for corner, extent, side, whole in ((left, wide, width, image.shape[1]), (top, tall, height, image.shape[0])):
        centred = corner + extent / 2 - side / scale / 2
        start.append(np.clip(centred, min(whole - side / scale, 0) / 2, max(whole - side / scale, 0)))
    matrix = np.array([[scale, 0, -scale * start[0]], [0, scale, -scale * start[1]]])
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_AREA, borderValue=(128, 128, 128))


def _pixels(image: ImageLike) -> np.ndarray:
    return image if isinstance(image, np.ndarray) else read_image(Path(image))


def _peak_megabytes() -> float | None:
    """The process's peak so far; None where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak if sys.platform == "darwin" else peak * 1024) / 1e6


def _decoded(
    maps: tuple[np.ndarray, np.ndarray, ResizeTransform], options: Mapping[str, tuple[bool, DecodeConfig]]
) -> dict[str, tuple[Poses, float]]:
    """Poses and seconds under each option; `maps` as `PoseEstimator.maps` gives them, with flip test."""
    output, flipped, transform = maps
    return {
        label: timed(functools.partial(decode_poses, output, flipped if flip else None, transform, config))
        for label, (flip, config) in options.items()
    }


def _option_row(label: str, stats: evaluate.CocoStats, times: Sequence[tuple[float, float]]) -> dict[str, Any]:
    network_ms, decode_ms = np.median(np.array(times), axis=0) * 1e3
    accuracy = {name: "-" if stats.numbers[name] is None else f"{stats.numbers[name]:.3f}" for name in ("AP", "AR")}
    return {"decoding": label, **accuracy, "network ms": f"{network_ms:.0f}", "decode ms": f"{decode_ms:.1f}"}


def _sweep_row(row: Record) -> dict[str, Any]:
    figures = {
        "AP": row.ap,
        "AR": row.ar,
        "p50 ms": row.latency_ms and row.latency_ms.p50,
        "p99 ms": row.latency_ms and row.latency_ms.p99,
        "images/s": row.images_per_s,
        "whole call images/s": row.whole_images_per_s,
        "GFLOP/s": row.gflops,
        "% of GEMM": row.gflops and row.gemm_gflops and 100 * row.gflops / row.gemm_gflops,
        "memory MB": row.peak_memory_mb,
        "load s": row.load_s,
        "build s": row.build_s,
        "model MB": row.model_bytes and row.model_bytes / 1e6,
    }
    what = {"model": row.model, "weights": row.weights, "precision": row.precision, "batch": row.batch_size}
    return {**what, **{name: value for name, value in figures.items() if value is not None}}
