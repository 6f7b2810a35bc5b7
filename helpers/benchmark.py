"""How long things take: the network alone, and the whole way from file to poses, side by side.

Users time the whole call, tools time the network; both are right, so both are measured. A measurement stops only
when it has run often enough *and* long enough, keeps every sample, and reports percentiles, not just a mean.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Sequence

import numpy as np

from helpers import paths, records, zoo
from helpers.errors import DataError, UsageError
from helpers.estimator import STAGES, ImageLike, PoseEstimator
from helpers.records import Latency, Record

if TYPE_CHECKING:
    from helpers.backends.base import Engine
    from helpers.dataset import CocoDataset
    from helpers.evaluate import Run
    from helpers.mm_run import CardTiming


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
    """From file (or array) to poses: the sum of the stages, where pictures of a batch share the network's time.

    Attributes:
        samples_s: (images,) float64 seconds per picture, all stages.
        stage_ms: mean milliseconds per picture and stage.
    """

    samples_s: np.ndarray
    stage_ms: dict[str, float]

    @property
    def runs(self) -> int:
        """How many pictures were timed."""
        return len(self.samples_s)

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
    shape, random = engine.batch_shape(batch_size, height, width), np.random.default_rng(0)
    if engine.input_type == "uint8":
        batch = random.integers(0, 256, shape, dtype=np.uint8)
    else:
        batch = random.standard_normal(shape, dtype=np.float32)
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
    )


def sample_pictures(dataset: CocoDataset, engine: Engine, count: int, seed: int = 0) -> list[Path]:
    """Pictures to time a whole call on: a seeded sample of those whose shape the engine takes.

    Args:
        dataset: where from.
        engine: one built for a fixed shape gets square pictures only.
        count: how many; fewer if there are not so many.
        seed: of the sample.

    Raises:
        DataError: there is none of that shape.
    """
    fits = [k for k in dataset.image_ids if engine.dynamic_shape or dataset.size(k)[0] == dataset.size(k)[1]]
    if not fits:
        raise DataError(f"{dataset.root / dataset.split} holds no square picture; build a dynamic engine.")
    chosen = np.random.default_rng(seed).permutation(len(fits))[:count]
    return [dataset.path(fits[k]) for k in sorted(chosen)]


def accuracy_record(
    built: str | Path,
    run: Run,
    dataset: CocoDataset,
    batch_size: int = 1,
    flip_test: bool = True,
    command: str = "",
) -> Record:
    """One row: how accurate a built model is, and the times of its run.

    Args:
        built: the built model, with its sidecar.
        run: from `evaluate.run`.
        dataset: what was scored.
        batch_size: most images in one run of the network.
        flip_test: whether the mirror image was used; if not, the record's `dataset` says so, as it does of uint8
            input.
        command: how to do it again.
    """
    facts, circumstances = paths.read_sidecar(built), _circumstances(command)
    if facts.get("simulated"):
        circumstances["versions"][facts["backend"]] = facts["backend_version"]
    how = "" if flip_test else " without flip test"
    if facts["input_type"] == "uint8":
        how += " with uint8 input"
    return Record(
        **_built_facts(built),
        batch_size=batch_size,
        dataset=f"{dataset.root.resolve().name} {dataset.split}{how}",
        images=run.stats.images,
        ap=run.stats.numbers["AP"],
        ar=run.stats.numbers["AR"],
        coco_stats=run.stats.numbers,
        stage_ms=None if facts.get("simulated") else run.stage_ms,
        **circumstances,
    )


def speed_record(
    built: str | Path, alone: NetworkTiming | CardTiming, whole: EndToEndTiming, command: str = ""
) -> Record:
    """One row: how fast a built model is, alone and with all stages.

    Args:
        built: the built model, with its sidecar.
        alone: from `network_only`, or from `mm_run.measure`.
        whole: from `end_to_end`.
        command: how to do it again.

    Raises:
        UsageError: the model is one of a simulated card, which has no speed.
    """
    if paths.read_sidecar(built).get("simulated"):
        raise UsageError(f"{built} is a model of a simulated card, which has no speed; measure a real one.")
    return Record(
        **_built_facts(built),
        batch_size=alone.batch_size,
        input_shape=alone.input_shape,
        latency_ms=alone.latency,
        images_per_s=alone.images_per_s,
        stage_ms=whole.stage_ms,
        **_circumstances(command),
    )


def comparison(rows: Sequence[Record], precision: str) -> list[dict[str, Any]]:
    """The closing table: every network of the zoo, measured here and published.

    Args:
        rows: records, of which those of `precision` are taken. Of several accuracies the one on most images
            counts, of several speeds the latest. Those of a simulated card do not count.
        precision: one of `zoo.PRECISIONS`.

    Returns:
        One dict per network, for `pandas.DataFrame`. Accuracy that was not measured says what it needs.
    """
    table = []
    for name, network in zoo.NETWORKS.items():
        mine = [r for r in rows if (r.model, r.precision) == (name, precision) and not r.simulated]
        mine.sort(key=lambda r: r.when or "")
        scored = [r for r in mine if r.ap is not None and r.weights != "random"]
        timed = [r for r in mine if r.latency_ms is not None]
        missing = "not measured yet" if paths.demo_weights(name).is_file() else "needs official weights"
        row = {"model": name, "AP here": missing, "AR here": missing}
        if scored:
            best = max(scored, key=lambda r: r.images or 0)
            row["AP here"] = f"{best.ap:.3f} ({best.weights} weights, {best.images} images of {best.dataset})"
            row["AR here"] = "-" if best.ar is None else f"{best.ar:.3f}"
        published = network.published.get(precision)
        row["AP published"] = f"{published.ap / 100:.4f}" if published else "-"
        row["AR published"] = f"{published.ar / 100:.4f}" if published else "-"
        if timed:
            last = timed[-1]
            row.update({"p50 ms": f"{last.latency_ms.p50:.0f}", "p99 ms": f"{last.latency_ms.p99:.0f}"})
            if last.images_per_s is not None:
                row["images/s"] = f"{last.images_per_s:.1f}"
            if last.stage_ms and last.weights != "random":  # decoding noise is no measure of decoding people
                row["whole call ms"] = f"{sum(last.stage_ms.values()):.0f}"
            row["timed with"] = f"{last.weights} weights, {last.backend}, batch {last.batch_size}"
        table.append(row)
    return table


def _built_facts(built: str | Path) -> dict[str, Any]:
    facts = paths.read_sidecar(built)
    same = {key: facts[key] for key in ("model", "weights", "backend", "precision")}
    if facts.get("simulated"):  # neither is the card's
        return same
    return {**same, "build_s": facts["build_s"], "model_bytes": facts["bytes"]}


def _circumstances(command: str) -> dict[str, Any]:
    where = {"machine": records.machine(), "versions": records.versions()}
    return {**where, "command": command or None, "when": records.now()}
