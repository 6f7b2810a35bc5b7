"""How long things take: the network alone, and the whole way from file to poses, side by side.

Users time the whole call, tools time the network; both are right, so both are measured. A measurement stops only
when it has run often enough *and* long enough, keeps every sample, and reports percentiles, not just a mean.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Sequence

import numpy as np

from helpers.errors import DataError
from helpers.estimator import STAGES, ImageLike, PoseEstimator
from helpers.records import Latency

if TYPE_CHECKING:
    from helpers.backends.base import Engine


@dataclass(frozen=True)
class NetworkTiming:
    """Runs of the network alone.

    Attributes:
        samples_s: (runs,) float64 seconds per run of a whole batch.
        batch_size: pictures per run.
        input_shape: (N, 3, H, W).
    """

    samples_s: np.ndarray
    batch_size: int
    input_shape: tuple[int, int, int, int]

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
    """Whole calls, from file (or array) to poses.

    Attributes:
        samples_s: (images,) float64 seconds per picture, all stages.
        stage_ms: mean milliseconds per picture and stage.
        people: mean number of people found per picture.
    """

    samples_s: np.ndarray
    stage_ms: dict[str, float]
    people: float

    @property
    def latency(self) -> Latency:
        """Percentiles over pictures, milliseconds."""
        return Latency.from_seconds(self.samples_s)

    @property
    def images_per_s(self) -> float:
        """Throughput: pictures over the sum of their times."""
        return len(self.samples_s) / float(self.samples_s.sum())


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
    while len(samples) < min_runs or sum(samples) < min_seconds:
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
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
    shape = (batch_size, 3, height, width)
    batch = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    samples = measure(lambda: engine.run(batch), min_runs, min_seconds)
    return NetworkTiming(samples, batch_size, shape)


def end_to_end(estimator: PoseEstimator, images: Sequence[ImageLike], batch_size: int = 1) -> EndToEndTiming:
    """Times every picture through all stages, after one to warm up.

    Args:
        estimator: ready to run.
        images: files or (H, W, 3) uint8 BGR arrays.
        batch_size: most pictures in one run of the network.

    Returns:
        Per-picture sums of stage times, and the mean of each stage.

    Raises:
        DataError: a picture cannot be read.
    """
    estimator(images[:1])
    outcomes = list(estimator.stream(images, batch_size))
    broken = [o.error for o in outcomes if o.poses is None]
    if broken:
        raise DataError(broken[0])
    return EndToEndTiming(
        samples_s=np.array([sum(o.stage_ms.values()) for o in outcomes]) / 1e3,
        stage_ms={s: float(np.mean([o.stage_ms[s] for o in outcomes])) for s in STAGES},
        people=float(np.mean([len(o.poses) for o in outcomes])),
    )
