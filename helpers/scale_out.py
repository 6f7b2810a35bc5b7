"""One engine per device, on this machine or a cluster, and a stream of images through all of them.

    setup = Setup("onnxruntime", built)
    with Fleet(setup, devices=[0, 1]) as fleet:                       # Ray, started here and stopped at the end
        for outcome in fleet.stream(files, batch_size=8): ...         # as PoseEstimator.stream: in order, one per file
        run = evaluate.run(fleet, dataset, image_ids, journal=kept)   # a fleet stands where an estimator does
        fleet.save(files, "poses.jsonl")                              # an archive: lines are copied, never parsed
        print(tables.align(fleet.table()))

Images travel in chunks of a few dozen. A worker, one process per device, answers a chunk with a *shard*, a file of JSON
lines that gets its name when it is complete. A chunk whose worker was lost is given to another one, under the same
name, so however often it is tried it counts once. Chunks are cut where `PoseEstimator` ends its batches: pictures share
runs of the network as they do in one process, and the poses are the same to the last bit. So many chunks are on
their way and no more, however many images there are and however slow the consumer is.

Ray (https://docs.ray.io) starts, watches and restarts the workers; it is imported when a fleet starts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import itertools
import json
import logging
import os
import shutil
import socket
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Callable, Iterable, Iterator, Mapping, Sequence

from helpers import artifacts, backends, paths, zoo
from helpers.errors import DataError, UsageError, first_line
from helpers.measure.evaluate import from_line, to_line
from helpers.pose import decode
from helpers.pose.estimator import PoseEstimator, PoseResult

if TYPE_CHECKING:
    from types import ModuleType

    from helpers.pose.decode import DecodeConfig

INSTALL = "pip install -r requirements-scale.txt"

_MOST_IMAGES = 64  # in a chunk: some seconds of work, to be done again if the worker is lost
_SHARE = 16  # chunks per device, if there are fewer images than that fills: the last to finish keeps others waiting
_QUEUED = 2  # chunks at a worker: it never waits for the next
_AHEAD = 8  # chunks per device beyond the oldest that is not handed out, complete ones on the disk included
_ATTEMPTS = 3  # workers that a chunk may take with it
_START_S = 300.0  # for a worker to get a place and load its engine
_STORE_BYTES = 100_000_000  # Ray's shared memory; images and poses do not go through it


@dataclass(frozen=True)
class Setup:
    """What every worker loads.

    Attributes:
        backend: name of the engine.
        built: the built model, where every machine finds it.
        flip_test, input_size, config: as of `PoseEstimator`.
        options: of the backend, as for `backends.get`.
    """

    backend: str
    built: str | os.PathLike[str]
    flip_test: bool = True
    input_size: int = zoo.INPUT_SIZE
    config: DecodeConfig = decode.OFFICIAL
    options: Mapping[str, Any] = field(default_factory=dict)

    def estimator(self, device: int) -> PoseEstimator:
        """Loads the engine in the process that calls, for good.

        Args:
            device: number of the card. Where the CPU computes, a core, which all threads of the process then share.

        Raises:
            UsageError: there is no such core or card.
            DataError: the engine cannot be loaded.
        """
        on_cpu = self.backend != "magicmind" or bool(self.options.get("simulate"))
        if on_cpu:
            _stay_on(device)
        engine = backends.get(self.backend, **self.options).load(self.built, 0 if on_cpu else device)
        decode.warm_up()
        return PoseEstimator(engine, self.flip_test, self.input_size, self.config)


@dataclass
class _Chunk:
    """Consecutive images, the unit of work.

    Attributes:
        index: its place among all, from 0.
        images: paths.
        shard: the file to be.
        lost: workers that were lost while they had it in hand.
    """

    index: int
    images: list[str]
    shard: Path
    lost: int = 0


class _Worker:
    """What runs in the process of a device."""

    def load(self, setup: Setup, device: int) -> tuple[str, int]:
        """Gets the engine ready; where that is: machine and process."""
        self.estimator = setup.estimator(device)
        return socket.gethostname(), os.getpid()

    def window(self, batch_size: int) -> int:
        """As `PoseEstimator.window`."""
        return self.estimator.window(batch_size)

    def run(self, images: list[str], folder: str, batch_size: int, shard: Path) -> float:
        """Writes the shard of a chunk, whose paths may be relative to a folder; the seconds it took."""
        start = time.perf_counter()
        files = [Path(folder, image) for image in images]
        write_shard(shard, images, self.estimator.stream(files, batch_size))
        return time.perf_counter() - start


@dataclass
class _Device:
    """A worker as its fleet sees it.

    Attributes:
        number: of the device on its machine.
        node: Ray's name of the machine.
        actor: Ray's handle of the worker; None if there is none.
        machine, pid: where the worker runs, once it has loaded.
        pending: what it has to do, in order: Ray's reference -> the chunk, None for loading.
        images, busy_s, lost: so far: images done, seconds of work, workers lost.
    """

    number: int
    node: str
    actor: Any = None
    machine: str = ""
    pid: int = 0
    pending: dict[Any, _Chunk | None] = field(default_factory=dict)
    images: int = 0
    busy_s: float = 0.0
    lost: int = 0

    @property
    def loading(self) -> bool:
        return None in self.pending.values()


class Fleet:
    """Workers on devices, which together do what a `PoseEstimator` does; a context manager.

    Attributes:
        flip_test, input_size, config: as of `PoseEstimator`.
        facts: as of `Engine`, of the built model.
    """

    def __init__(
        self,
        setup: Setup,
        devices: Sequence[int] = (0,),
        address: str | None = None,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        """Starts nothing yet.

        Args:
            setup: what every worker loads.
            devices: numbers of cards, or of cores where the CPU computes; on a cluster, of each machine.
            address: of a Ray cluster to join (`host:6379`, or `auto` for the one on this machine); None starts one
                here, for as long as the fleet lasts.
            folder: where shards lie until they are handed out: on storage that all machines share, by default
                data/output.

        Raises:
            UsageError: no device, or one twice or below 0.
            DataError: Ray is not installed.
        """
        self.flip_test, self.input_size, self.config = setup.flip_test, setup.input_size, setup.config
        self.facts = artifacts.read_sidecar(setup.built)
        self._setup = dataclasses.replace(setup, built=str(Path(setup.built).absolute()))
        self._address = address
        self._numbers = check_devices(devices)
        self._folder = Path(folder or paths.output()).absolute()
        self._ray = _import_ray()
        self._devices: list[_Device] = []
        self._scratch = ""
        self._shards_folder = Path()
        self._runs = 0
        self._windows: dict[int, int] = {}

    def __enter__(self) -> Fleet:
        """Joins or starts the cluster, and loads every engine.

        Raises:
            UsageError: as `Setup.estimator`; or this process uses Ray already.
            DataError: there is no such cluster, or an engine could not be loaded.
        """
        if self._ray.is_initialized():
            raise UsageError("This process uses Ray already: leave the other fleet first, or call ray.shutdown().")
        try:
            self._join()
            self._folder.mkdir(parents=True, exist_ok=True)
            self._shards_folder = Path(tempfile.mkdtemp(prefix="shards-", dir=str(self._folder)))
            nodes = [node["NodeID"] for node in self._ray.nodes() if node["Alive"]]
            self._devices = [_Device(number, node) for node in nodes for number in self._numbers]
            for device in self._devices:
                self._start(device)
            while any(device.loading for device in self._devices):
                self._advance(deque())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stops what was started, whatever happened."""
        self._stop()

    def window(self, batch_size: int = 1) -> int:
        """As `PoseEstimator.window`.

        Raises:
            DataError: no worker can be asked.
        """
        self._start_missing()
        for device in self._devices if batch_size not in self._windows else ():
            with contextlib.suppress(self._ray.exceptions.RayError):  # that one is lost; the next one knows as well
                self._windows[batch_size] = self._ray.get(device.actor.window.remote(batch_size))
                break
        if batch_size not in self._windows:
            raise DataError("All workers were lost before they began; try again.")
        return self._windows[batch_size]

    def stream(self, images: Iterable[str | os.PathLike[str]], batch_size: int = 1) -> Iterator[PoseResult]:
        """As `PoseEstimator.stream`, for files: one outcome per image, in order, on as many devices as there are.

        Args:
            images: paths that every machine can read; taken as they are needed.
            batch_size: most pictures in one run of the network.

        Yields:
            One `PoseResult` per image.

        Raises:
            UsageError: an image is no path, or `batch_size` is below 1.
            DataError: no worker is left, or some images end every worker that tries them.
            RuntimeError: as `PoseEstimator.stream`.
        """
        for chunk in self._done(images, batch_size):
            yield from read_shard(chunk.shard, chunk.images)

    def save(
        self,
        images: Iterable[str | os.PathLike[str]],
        path: str | os.PathLike[str],
        batch_size: int = 1,
        progress: Callable[[int], None] | None = None,
    ) -> tuple[int, list[str]]:
        """Writes what is found in images as JSON lines, in their order, copying shards as they are.

        A line is an object with `image`, the path, and either `error` or `keypoints` (P x 17 x 3), `scores` (P),
        `tags` (P x L), `tag_count` (L) and `stage_ms`.

        Args:
            images, batch_size: as of `stream`.
            path: the file, complete or not there.
            progress: called with the number of images written.

        Returns:
            (count, failures): all images, and a sentence for each that could not be used.

        Raises:
            UsageError, DataError, RuntimeError: as `stream`; DataError also if the file cannot be written.
        """
        count, failures = 0, []
        with artifacts.atomic_write(path) as part, part.open("wb") as merged:
            for chunk in self._done(images, batch_size):
                failures += append_shard(merged, chunk.shard, len(chunk.images))
                count += len(chunk.images)
                if progress is not None:
                    progress(count)
        return count, failures

    def table(self) -> list[dict[str, Any]]:
        """One row per device: what it did so far, and how fast."""
        return [
            {
                "device": _label(device),
                "images": device.images,
                "busy, s": round(device.busy_s, 2),
                "images/s": round(device.images / device.busy_s, 2) if device.busy_s else None,
                "workers lost": device.lost,
            }
            for device in self._devices
        ]

    def processes(self) -> dict[str, int]:
        """The process id of each worker that is ready, by device."""
        return {_label(device): device.pid for device in self._ready()}

    # -- the cluster ---------------------------------------------------------------------------------------------

    def _join(self) -> None:
        """Connects to a cluster, or starts one in a folder that goes with it."""
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self._address is not None:
            try:
                _knock(self._address)
                self._ray.init(address=self._address, **quiet)
            except (OSError, ValueError, RuntimeError) as error:
                reason = first_line(error)
                raise DataError(
                    f"Cannot join a Ray cluster at {self._address}: {reason}. Is it up (`ray status` there)? Is Ray's "
                    "version the same? Does it want a token (RAY_AUTH_MODE=token, see docs/scale.md)?"
                ) from error
            return
        # Not where TMPDIR says: the path of a socket has 107 characters at most, and Ray's own part of it 60.
        self._scratch = tempfile.mkdtemp(prefix="ray-", dir="/tmp" if Path("/tmp").is_dir() else None)
        self._ray.init(
            address="local",  # whatever RAY_ADDRESS says
            num_cpus=len(self._numbers),
            include_dashboard=False,
            object_store_memory=_STORE_BYTES,
            _temp_dir=self._scratch,
            **quiet,
        )

    def _start(self, device: _Device) -> None:
        """Begins a worker, which loads; on the device's own machine, with one core for what the host does."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # One thread per worker: NumPy and the engines take their number from OMP_NUM_THREADS when they are loaded.
        environment = {"PYTHONPATH": str(paths.root()), "OMP_NUM_THREADS": "1"}
        device.actor = (
            self._ray.remote(_Worker)
            .options(
                num_cpus=1,
                max_restarts=0,  # a restarted one would have to load again, and the chunk is ours to give
                scheduling_strategy=NodeAffinitySchedulingStrategy(device.node, soft=False),
                runtime_env={"env_vars": environment},
            )
            .remote()
        )
        device.pending[device.actor.load.remote(self._setup, device.number)] = None

    def _end(self, device: _Device) -> None:
        """Ends a worker, alive or not."""
        device.pending.clear()
        if device.actor is not None:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(device.actor)
        device.actor = None

    def _stop(self) -> None:
        if self._ray.is_initialized():
            for device in self._devices:
                self._end(device)
            self._ray.shutdown()
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)
        if self._shards_folder.name:
            shutil.rmtree(str(self._shards_folder), ignore_errors=True)

    # -- the work ------------------------------------------------------------------------------------------------

    def _done(self, images: Iterable[str | os.PathLike[str]], batch_size: int) -> Iterator[_Chunk]:
        """Yields chunks in order, each with its complete shard, which goes when the next one is asked for."""
        if batch_size < 1:
            raise UsageError(f"The batch size must be 1 or more, not {batch_size}.")
        self._start_missing()
        todo: Iterator[_Chunk] = self._chunks(images, batch_size)
        again: deque[_Chunk] = deque()
        complete: dict[int, _Chunk] = {}
        oldest, given, here = 0, 0, str(Path.cwd())
        try:
            while True:
                for device in self._idle():
                    chunk = again.popleft() if again else None
                    if chunk is None and given - oldest < _AHEAD * len(self._devices):
                        chunk = next(todo, None)
                        given += chunk is not None
                    if chunk is None:
                        break
                    job = device.actor.run.remote(chunk.images, here, batch_size, chunk.shard)
                    device.pending[job] = chunk
                if oldest in complete:
                    chunk = complete.pop(oldest)
                    yield chunk
                    with contextlib.suppress(OSError):
                        chunk.shard.unlink()
                    oldest += 1
                elif again or any(device.pending for device in self._devices):
                    for chunk in self._advance(again):
                        complete[chunk.index] = chunk
                else:
                    return
        finally:
            for device in self._devices:
                if device.pending:
                    self._end(device)

    def _start_missing(self) -> None:
        """Begins the workers that were ended because an earlier stream was left while they worked."""
        for device in self._devices:
            if device.actor is None:
                self._start(device)

    def _chunks(self, images: Iterable[str | os.PathLike[str]], batch_size: int) -> Iterator[_Chunk]:
        """Cuts images into chunks of one length, which depends on how many there are, as far as one can see."""
        self._runs += 1
        names = (_name(image) for image in images)
        seen = list(itertools.islice(names, _MOST_IMAGES * _SHARE * len(self._devices)))
        length = chunk_length(len(seen), len(self._devices), self.window(batch_size))
        for index, some in enumerate(cut(itertools.chain(seen, names), length)):
            yield _Chunk(index, some, self._shards_folder / f"{self._runs}-{index:08}.jsonl")

    def _ready(self) -> list[_Device]:
        """Devices whose worker has loaded."""
        return [device for device in self._devices if device.actor is not None and not device.loading]

    def _idle(self) -> list[_Device]:
        """Devices that have room for a chunk, those with least to do first; one twice if it has nothing."""
        rooms = [(held, device) for device in self._ready() for held in range(len(device.pending), _QUEUED)]
        return [device for _, device in sorted(rooms, key=lambda room: room[0])]

    def _advance(self, again: deque[_Chunk]) -> list[_Chunk]:
        """Waits until a worker has done something, or is lost: then its chunks go to `again`, and a new one begins.

        Returns:
            Chunks whose shard is complete.
        """
        at_work = {ref: device for device in self._devices for ref in device.pending}
        waits = None if any(not device.loading and device.pending for device in self._devices) else _START_S
        ready = self._ray.wait(list(at_work), num_returns=1, timeout=waits)[0] if at_work else []
        if not ready:
            raise DataError(
                f"No worker was ready within {_START_S:.0f} s; is a core free for each on every machine of the cluster?"
            )
        done = []
        for ref in ready:
            device = at_work[ref]
            try:
                result = self._ray.get(ref)
            except self._ray.exceptions.RayTaskError as error:  # the worker lives: the code raised it there
                raise error.cause from error
            except self._ray.exceptions.RayError as error:
                self._replace(device, again, error)
                continue
            chunk = device.pending.pop(ref)
            if chunk is None:
                device.machine, device.pid = result
                continue
            device.images += len(chunk.images)
            device.busy_s += result
            if chunk.shard.is_file():
                done.append(chunk)
            else:
                _count_loss(chunk, f"{chunk.shard} is not to be seen here: {self._folder} must be shared storage")
                again.append(chunk)
        return done

    def _replace(self, device: _Device, again: deque[_Chunk], error: Exception) -> None:
        """Gives a lost worker's chunks to others, and begins a new one, unless it was lost while it loaded."""
        chunks = list(device.pending.values())
        self._end(device)
        device.lost += 1
        if None not in chunks:
            if chunks:
                _count_loss(chunks[0], f"they ended {_ATTEMPTS} workers; look at them, or leave them out")
            again.extend(chunks)
            self._start(device)
            return
        self._devices.remove(device)
        if not self._devices:
            reason = first_line(error)
            raise DataError(f"No worker is left: that of {_label(device)} was lost while it loaded ({reason}).")


def limits(
    stage_ms: Mapping[str, float], network_ms: float, bytes_per_image: float, cards: int, cores: int, storage_mbs: float
) -> dict[str, float]:
    """How many images per second each part of a machine with cards can do at most; the least is what it does.

    A model, no measurement: stages overlap perfectly and nothing else takes time.

    Args:
        stage_ms: milliseconds of one core per image in `estimator.STAGES`; that of the network does not count.
        network_ms: milliseconds of one card per image, mirror image included.
        bytes_per_image: of the file.
        cards, cores: how many the machine has. Each card has one process, in which one thread reads and resizes and
            another one decodes.
        storage_mbs: 10^6 bytes per second that the storage gives to the machine.
    """
    read, decoded = stage_ms["load"] + stage_ms["pre"], stage_ms["decode"]
    return {
        "network, on the cards": cards * 1e3 / network_ms,
        "reading JPEG, a thread per card": cards * 1e3 / read,
        "all host work, on the cores": cores * 1e3 / (read + decoded),
        "storage": storage_mbs * 1e6 / bytes_per_image,
    }


def check_devices(devices: Sequence[int]) -> list[int]:
    """Device numbers, as they should be.

    Raises:
        UsageError: none, or one that is twice there, below 0 or no whole number.
    """
    numbers = list(devices)
    if not numbers or any(type(number) is not int or number < 0 for number in numbers):
        raise UsageError(f"Devices are whole numbers from 0, such as 0,1, not {numbers}.")
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"Each device can be given once, not {','.join(map(str, numbers))}.")
    return numbers


def chunk_length(images: int, devices: int, window: int = 1) -> int:
    """Images in a chunk: few enough that all devices end at about the same time, and whole windows of batches.

    Args:
        images: how many there are, as far as is known.
        devices: how many there are.
        window: from `PoseEstimator.window`.
    """
    length = min(max(-(-images // (_SHARE * devices)), 1), _MOST_IMAGES)
    return -(-length // window) * window


def cut(items: Iterable[str], length: int) -> Iterator[list[str]]:
    """Consecutive items, `length` at a time; the last ones may be fewer."""
    items = iter(items)
    while True:
        some = list(itertools.islice(items, length))
        if not some:
            return
        yield some


def read_list(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields the images that a text file names, one a line, from the file's own folder if not absolute.

    Lines are read as they are needed; empty ones do not count.

    Raises:
        DataError: the file cannot be read.
    """
    folder = Path(path).absolute().parent
    try:
        with Path(path).open(encoding="utf-8") as lines:
            for line in lines:
                if line.strip():
                    yield folder / line.strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The list {path} cannot be read: {error}; give a text file with one image a line.") from error


def write_shard(path: Path, images: Sequence[str], outcomes: Iterable[PoseResult]) -> None:
    """Writes what became of a chunk's images, a JSON line each; the file is complete or not there.

    Args:
        path: the file.
        images: their paths.
        outcomes: one for each.

    Raises:
        DataError: it cannot be written.
    """
    with artifacts.atomic_write(path) as part, part.open("w", encoding="utf-8") as lines:
        for image, outcome in zip(images, outcomes):
            found = {"error": outcome.error} if outcome.poses is None else to_line(outcome)
            lines.write(json.dumps({"image": image, **found}) + "\n")


def read_shard(path: Path, images: Sequence[str]) -> list[PoseResult]:
    """Reads what `write_shard` wrote, equal to the last bit.

    Args:
        path: the file.
        images: those it should be about.

    Raises:
        DataError: it is damaged, or not about just these.
    """
    outcomes = []
    try:
        for text in path.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            if "error" in line:
                outcomes.append(PoseResult(line["image"], error=line["error"]))
            else:
                outcomes.append(from_line(line, line["image"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"The shard {path} cannot be read ({error}); run again, and check the disk.") from error
    if [outcome.name for outcome in outcomes] != list(images):
        raise DataError(f"The shard {path} is not about the images it should be; run again, and check the disk.")
    return outcomes


def append_shard(merged: IO[bytes], path: Path, count: int) -> list[str]:
    """Copies the lines of a shard behind those of others.

    Args:
        merged: the file of all.
        path: the shard.
        count: lines that it should have.

    Returns:
        The sentence of each image that could not be used.

    Raises:
        DataError: the shard cannot be read or has another number of lines.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"The shard {path} cannot be read: {error.strerror}; run again.") from error
    lines = data.splitlines(keepends=True)
    if len(lines) != count or not data.endswith(b"\n"):
        raise DataError(f"The shard {path} has {len(lines)} lines instead of {count}; run again, and check the disk.")
    merged.write(data)
    failed = (json.loads(line.decode("utf-8")) for line in lines if b'"error": ' in line)
    return [line["error"] for line in failed if "error" in line]  # a file's name may have the word in it


def available() -> bool:
    """Whether Ray is installed."""
    return importlib.util.find_spec("ray") is not None


def require() -> None:
    """Says how to get Ray if it is not here.

    Raises:
        DataError: it is not installed.
    """
    if not available():
        raise DataError(f"Work on several devices needs Ray: {INSTALL}")


# ------------------------------------------------------------------------------------------------- parts


def _import_ray() -> ModuleType:
    """Ray, without its messages home and its warnings; both have to be off before it is imported."""
    require()
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    import ray
    from ray._private import worker

    # Whatever its options say, Ray tells of a lost worker on standard output, which is the record's with --json.
    worker.print_to_stdstream = lambda *_, **__: None
    return ray


def _knock(address: str) -> None:
    """Tries the port of a cluster's head: Ray itself would wait for minutes.

    Raises:
        OSError: nobody answers there.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():  # not `auto`
        socket.create_connection((host, int(port)), timeout=10).close()


def _name(image: str | os.PathLike[str]) -> str:
    if not isinstance(image, (str, os.PathLike)):
        raise UsageError(f"Workers take image files, not {type(image).__name__}; save it, or use one device.")
    return os.fspath(image)


def _label(device: _Device) -> str:
    """As people say it: `1`, or with the machine's name where there are several."""
    return f"{device.machine or device.node[:8]}:{device.number}"


def _count_loss(chunk: _Chunk, otherwise: str) -> None:
    """Notes that a chunk came to nothing, and gives it up after some times."""
    chunk.lost += 1
    if chunk.lost == _ATTEMPTS:
        raise DataError(f"Images {chunk.images[0]} to {chunk.images[-1]}: {otherwise}.")


def _stay_on(core: int) -> None:
    """Keeps the calling thread, and the threads it starts, on one core: two workers never share it.

    Raises:
        UsageError: there are not so many.
    """
    if not hasattr(os, "sched_setaffinity"):  # macOS, Windows: the number of threads has to do
        return
    cores = sorted(os.sched_getaffinity(0))
    if core >= len(cores):
        raise UsageError(f"There is no device {core}: on a CPU each core is one, here 0 to {len(cores) - 1}.")
    os.sched_setaffinity(0, {cores[core]})
