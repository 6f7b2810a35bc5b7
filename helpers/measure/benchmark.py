"""How long things take: the network only, and the whole way from file to poses, side by side.

A measurement stops only when it has run often enough *and* long enough, and keeps every sample.

    network = network_only(engine, batch_size=8)            # network.latency.p50, network.images_per_s
    whole = end_to_end(PoseEstimator(engine), files)        # whole.stage_ms, whole.images_per_s
    turns = compare({"old": old, "new": new})               # A B A B ...: a busy machine is as hard on both
    turns.speedup("new")                                    # the median of the rounds' ratios
"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence

import numpy as np

from helpers import zoo
from helpers.backends.base import Latency
from helpers.dataset import seeded_sample
from helpers.errors import DataError, UsageError
from helpers.pose import decode
from helpers.pose.estimator import ImageLike, PoseEstimator
from helpers.pose.preprocess import resize_align

if TYPE_CHECKING:
    from helpers.backends.base import Engine
    from helpers.dataset import CocoDataset


@dataclass(frozen=True)
class _Timing:
    samples_s: np.ndarray

    @property
    def runs(self) -> int:
        """How many runs, or images, were timed."""
        return len(self.samples_s)

    @property
    def latency(self) -> Latency:
        """Percentiles of one of them, milliseconds."""
        return Latency.from_seconds(self.samples_s)


@dataclass(frozen=True)
class NetworkTiming(_Timing):
    """Runs of the network only: `samples_s` are (runs,) float64 seconds per run of a whole batch."""

    batch_size: int
    input_shape: tuple[int, int, int, int]  # (N, 3, H, W), or (N, H, W, 3) if the engine takes uint8

    @property
    def images_per_s(self) -> float:
        """Throughput at the median run."""
        return self.batch_size / float(np.median(self.samples_s))


@dataclass(frozen=True)
class EndToEndTiming(_Timing):
    """From file (or array) to poses; `samples_s` are (images,) float64 seconds of work per image, all stages.

    While one image is decoded the next ones may be loaded and run, so the stages of an image add up to more than it
    adds to the wait. Throughput is therefore taken from the clock on the wall.
    """

    stage_ms: dict[str, float]  # means per image; images of a batch share the network's time
    wall_s: float  # from the start until the last image was done

    @classmethod
    def from_stages(cls, stages: Sequence[Mapping[str, float]], wall_s: float | None = None) -> EndToEndTiming:
        """Joins the milliseconds of each stage of single images; without `wall_s` nothing overlapped."""
        samples = np.array([sum(each.values()) for each in stages]) / 1e3
        means = {stage: float(np.mean([each[stage] for each in stages])) for stage in stages[0]}
        return cls(samples, means, float(samples.sum()) if wall_s is None else wall_s)

    @property
    def images_per_s(self) -> float:
        """Throughput: images over seconds on the wall."""
        return len(self.samples_s) / self.wall_s


@dataclass(frozen=True)
class PairedTimings:
    """Calls that took turns."""

    samples_s: dict[str, np.ndarray]  # (rounds,) float64; entry k of every label is from round k

    @property
    def median_ms(self) -> dict[str, float]:
        """Label -> median milliseconds."""
        return {label: float(np.median(samples)) * 1e3 for label, samples in self.samples_s.items()}

    def speedup(self, label: str) -> float:
        """Returns how many times as fast as the first a call is: the median of the ratios of each round."""
        first = next(iter(self.samples_s.values()))
        return float(np.median(first / self.samples_s[label]))


def measure(call: Callable[[], object], min_runs: int = 10, min_seconds: float = 2.0, warm_up: int = 2) -> np.ndarray:
    """Times a call until it has run `min_runs` times and for `min_seconds`; returns (runs,) float64 seconds.

    First runs allocate, choose kernels, fill caches: the `warm_up` ones before timing starts.
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


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Runs something once; returns what it returned, and the seconds it took."""
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def compare(
    calls: Mapping[str, Callable[[], object]], rounds: int = 5, warm_up: int = 1, turn_seconds: float = 0.0
) -> PairedTimings:
    """Times calls in turns, A B A B ..., in this one process.

    What disturbs the machine for longer than a round disturbs all of them, and drops out of the ratios. The first call
    is what the others are compared with. A call that is quicker than `turn_seconds` is repeated in its turn for so
    long, and its median counts: a millisecond right after somebody else's second is spent on cold caches.
    """
    if not calls or rounds < 1:
        raise UsageError("There is nothing to compare; give one call or more, and one round or more.")
    for _ in range(warm_up):
        for call in calls.values():
            call()
    samples = [
        [float(np.median(measure(call, 1, turn_seconds, warm_up=0))) for call in calls.values()] for _ in range(rounds)
    ]
    return PairedTimings(dict(zip(calls, np.array(samples).T)))


def network_only(
    engine: Engine,
    batch_size: int = 1,
    height: int = zoo.INPUT_SIZE,
    width: int = zoo.INPUT_SIZE,
    min_runs: int = 10,
    min_seconds: float = 2.0,
) -> NetworkTiming:
    """Times the network on one batch of noise, without flip test; an engine of a fixed shape at its only one."""
    if not engine.dynamic_shape:
        batch_size, (height, width) = engine.batch_size, engine.input_shape
    shape, random = engine.batch_shape(batch_size, height, width), np.random.default_rng(0)
    if engine.input_type == "uint8":
        batch = random.integers(0, 256, shape, dtype=np.uint8)
    else:
        batch = random.standard_normal(shape, dtype=np.float32)
    samples = measure(lambda: engine.run(batch), min_runs, min_seconds)
    return NetworkTiming(samples, len(batch), batch.shape)


def end_to_end(estimator: PoseEstimator, images: Sequence[ImageLike], batch_size: int = 1) -> EndToEndTiming:
    """Times all stages of every image, after one to warm up."""
    decode.warm_up()
    estimator(images[:1])
    stages = []
    start = time.perf_counter()
    for result in estimator.stream(images, batch_size):
        if result.poses is None:
            raise DataError(result.error)
        stages.append(result.stage_ms)
    return EndToEndTiming.from_stages(stages, time.perf_counter() - start)


def sample_ids(dataset: CocoDataset, engine: Engine, count: int, seed: int = 0) -> list[int]:
    """Draws a seeded sample of the images whose shape an engine takes, fewer if there are not so many."""
    if engine.dynamic_shape:
        return dataset.sample(count, seed)
    among = [k for k in dataset.image_ids if _input_shape(*dataset.size(k)) == engine.input_shape]
    if not among:
        shape = "{} x {}".format(*engine.input_shape)
        raise DataError(f"{dataset.root / dataset.split} has no image for the input {shape}; build a dynamic engine.")
    return seeded_sample(among, min(count, len(among)), seed, dataset.root)


def forget_peak_memory() -> None:
    """Makes `peak_memory_mb` count from here on, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory_mb() -> float | None:
    """Returns the most memory that this process held at once, libraries included, 10^6 bytes; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak if sys.platform == "darwin" else peak * 1024) / 1e6


@functools.lru_cache(maxsize=None)
def _input_shape(width: int, height: int) -> tuple[int, int]:
    """(height, width) of the network's input for an image of that size."""
    return resize_align(np.zeros((height, width, 3), np.uint8), zoo.INPUT_SIZE)[0].shape[:2]
