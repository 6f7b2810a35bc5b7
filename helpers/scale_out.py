"""One engine per device, on this machine or a cluster, and a stream of images through all of them.

    setup = Setup("onnxruntime", built)
    with Fleet(setup, devices=[0, 1]) as fleet:                       # Ray, started here and stopped at the end
        for outcome in fleet.stream(files, batch_size=8): ...         # as PoseEstimator.stream: in order, one per file
        run = evaluate.run(fleet, dataset, image_ids, journal=kept)   # a fleet stands where an estimator does
        print(tables.align(fleet.table()))

Images travel in chunks of a few dozen to workers, one process per device. [Ray](https://docs.ray.io) starts the
workers, and when one is lost it starts another and gives it the same chunks again. Chunks are cut where `PoseEstimator`
ends its batches: the poses are those of one process to the last bit. The number of chunks on their way is limited.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import itertools
import logging
import os
import shutil
import socket
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping, Sequence

from helpers import backends, paths, zoo
from helpers.errors import DataError, UsageError, first_line
from helpers.pose import decode
from helpers.pose.estimator import PoseEstimator, PoseResult

INSTALL = "pip install -r requirements-scale.txt"

_MOST_IMAGES = 64  # in a chunk: some seconds of work, to be done again if the worker is lost
_SHARE = 16  # chunks per device, if there are fewer images than that fills: the last to finish keeps others waiting
_QUEUED = 2  # chunks at a worker: it never waits for the next
_AHEAD = 8  # chunks per device that are not handed out yet
_RETRIES = 3  # workers that a chunk may take with it, and one more
_START_S = 300.0  # for all workers to get a place and load their engines
# No messages home, no warning about devices, nothing of Ray's on standard output, which is the record's with --json.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # as there: every port on 127.0.0.1


@dataclass(frozen=True)
class Setup:
    """What every worker loads."""

    backend: str
    built: str | os.PathLike[str]  # the built model, where every machine finds it
    flip_test: bool = True

    def estimator(self, device: int) -> PoseEstimator:
        """Loads the engine on a card; where the CPU computes, keeps the calling process on that core for good."""
        backend = backends.get(self.backend)
        if backend.on_cpu:
            _pin_to_core(device)
        engine = backend.load(self.built, 0 if backend.on_cpu else device)
        decode.warm_up()
        return PoseEstimator(engine, self.flip_test)


class _Worker:
    """Runs in the process of a device; Ray makes it anew in another process if that one is lost."""

    def __init__(self, setup: Setup, device: int) -> None:
        self._setup, self._device, self._estimator = setup, device, None

    def load(self) -> tuple[str, int, dict[str, Any]]:
        """Gets the engine ready; returns machine and process, and the facts of the engine."""
        if self._estimator is None:  # not in the constructor, whose errors Ray wraps beyond recognition
            self._estimator = self._setup.estimator(self._device)
        return socket.gethostname(), os.getpid(), self._estimator.engine.facts

    def window(self, batch_size: int) -> int:
        """As `PoseEstimator.window`."""
        self.load()
        return self._estimator.window(batch_size)

    def run(self, images: list[str], folder: str, batch_size: int) -> tuple[list[PoseResult], int, float]:
        """Returns the results of images, whose paths may be relative to a folder; the process; the seconds it took."""
        _, pid, _ = self.load()
        start = time.perf_counter()
        outcomes = list(self._estimator.stream([Path(folder, image) for image in images], batch_size))
        return outcomes, pid, time.perf_counter() - start


@dataclass
class _Device:
    """A worker as its fleet sees it."""

    number: int  # of the device on its machine
    actor: Any  # Ray's handle of the worker
    machine: str = ""
    pids: list[int] = field(default_factory=list)  # processes that the worker has had, the latest last
    pending: set[Any] = field(default_factory=set)  # Ray's references to what it has still to do
    images: int = 0
    busy_s: float = 0.0


class Fleet:
    """Workers on devices, which together do what a `PoseEstimator` does; a context manager.

    `flip_test`, `input_size` and `config` are as of `PoseEstimator`, `facts` as of `Engine` once the workers are there.
    """

    input_size, config = zoo.INPUT_SIZE, decode.OFFICIAL  # the defaults of `PoseEstimator`, which workers use

    def __init__(self, setup: Setup, devices: Sequence[int] = (0,), address: str | None = None) -> None:
        """Starts nothing yet.

        Args:
            setup: what every worker loads.
            devices: numbers of cards, or of cores where the CPU computes; on a cluster, of each machine.
            address: of a Ray cluster to join (`host:6379`, or `auto` for the one on this machine); None starts one
                here, for as long as the fleet lasts.
        """
        self.flip_test = setup.flip_test
        self._setup = dataclasses.replace(setup, built=str(Path(setup.built).absolute()))
        self._address, self._numbers = address, check_devices(devices)
        self._devices: list[_Device] = []
        self.facts: dict[str, Any] = {}
        self._scratch = ""
        require()

    def __enter__(self) -> Fleet:
        """Joins or starts the cluster, and loads every engine."""
        with _environment({**_QUIET, **({} if self._address else _LOOPBACK)}):
            import ray

            if ray.is_initialized():
                raise UsageError("This process uses Ray already: leave the other fleet first, or call ray.shutdown().")
            self._ray = ray
            try:
                self._join()
                nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
                self._devices = [_Device(k, self._start(node, k)) for node in nodes for k in self._numbers]
                loading = self._get([device.actor.load.remote() for device in self._devices], _START_S)
                for device, (machine, pid, facts) in zip(self._devices, loading):
                    device.machine, device.pids, self.facts = machine, [pid], facts
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stops what was started, whatever happened."""
        with contextlib.ExitStack() as last:  # all of it, in reverse, even if Ctrl-C comes between
            last.callback(shutil.rmtree, self._scratch, ignore_errors=True)
            last.callback(self._ray.shutdown)
            for device in self._devices:
                last.callback(self._ray.kill, device.actor)

    def window(self, batch_size: int = 1) -> int:
        """As `PoseEstimator.window`."""
        return self._get(self._devices[0].actor.window.remote(batch_size))

    def stream(self, images: Iterable[str | os.PathLike[str]], batch_size: int = 1) -> Iterator[PoseResult]:
        """As `PoseEstimator.stream`, for files that every machine can read.

        Raises:
            DataError: a machine is gone, or some images end every worker that tries them.
        """
        if batch_size < 1:
            raise UsageError(f"The batch size must be 1 or more, not {batch_size}.")
        chunks, here = self._chunks(images, batch_size), str(Path.cwd())
        given: deque[tuple[list[str], _Device, Any]] = deque()  # in order, not handed out yet
        try:
            while True:
                for device in self._with_room() if len(given) < _AHEAD * len(self._devices) else ():
                    for chunk in itertools.islice(chunks, 1):
                        result = device.actor.run.remote(chunk, here, batch_size)
                        device.pending.add(result)
                        given.append((chunk, device, result))
                if not given:
                    return
                pending = [result for device in self._devices for result in device.pending]
                done = self._ray.wait(pending, num_returns=1)[0] if pending else []
                for device in self._devices:
                    device.pending.difference_update(done)
                while given and given[0][2] not in given[0][1].pending:
                    chunk, device, result = given.popleft()
                    outcomes, pid, seconds = self._get(result, of=chunk)
                    device.images += len(chunk)
                    device.busy_s += seconds
                    if pid != device.pids[-1]:
                        device.pids.append(pid)
                    for image, outcome in zip(chunk, outcomes):
                        yield dataclasses.replace(outcome, name=image)
        finally:
            for device in self._devices:
                device.pending.clear()

    def table(self) -> list[dict[str, Any]]:
        """Returns one row per device: what it did so far, and how fast."""
        return [
            {
                "device": f"{device.machine}:{device.number}",
                "images": device.images,
                "busy, s": round(device.busy_s, 2),
                "images/s": round(device.images / device.busy_s, 2) if device.busy_s else None,
                "workers lost": len(device.pids) - 1,
            }
            for device in self._devices
        ]

    def processes(self) -> dict[str, int]:
        """Returns the process id of each worker, by device, as of the last chunk."""
        return {row["device"]: device.pids[-1] for row, device in zip(self.table(), self._devices)}

    def _join(self) -> None:
        """Connects to a cluster, or starts one in a folder that goes with it."""
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self._address:
            host, _, port = self._address.rpartition(":")
            try:
                if host and port.isdecimal():  # Ray itself would wait for minutes
                    socket.create_connection((host, int(port)), timeout=10).close()
                self._ray.init(address=self._address, **quiet)
            except (OSError, ValueError, RuntimeError) as error:
                raise DataError(
                    f"Cannot join the Ray cluster {self._address}: {first_line(error)}. Is it up (`ray status`), "
                    "with the same version? Does it want a token (RAY_AUTH_MODE=token, docs/scale.md)?"
                ) from error
            return
        # Not where TMPDIR says: the path of a socket has 107 characters at most, and Ray's own part of it 60.
        self._scratch = tempfile.mkdtemp(prefix="ray-", dir="/tmp" if Path("/tmp").is_dir() else None)
        self._ray.init(
            address="local",  # whatever RAY_ADDRESS says
            num_cpus=len(self._numbers),
            include_dashboard=False,
            object_store_memory=100_000_000,  # bytes that Ray takes as shared memory
            _temp_dir=str(Path(self._scratch, "r")),  # Ray opens this one to everybody
            **quiet,
        )

    def _start(self, node: str, number: int) -> Any:
        """Begins a worker on a machine, with one core for what the host does."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # One thread per worker: NumPy and the engines take their number from OMP_NUM_THREADS when they are loaded.
        found = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(paths.root())]))
        options = {
            "num_cpus": 1,
            "max_restarts": -1,  # of the worker, in all its time; each chunk has its own limit
            "max_task_retries": _RETRIES,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
            "runtime_env": {"env_vars": {"PYTHONPATH": found, "OMP_NUM_THREADS": "1"}},
        }
        return self._ray.remote(_Worker).options(**options).remote(self._setup, number)

    def _get(self, result: Any, timeout: float | None = None, of: Sequence[str] = ()) -> Any:
        """Returns results, or raises the worker's own error; `of` names the images in case it is lost."""
        try:
            return self._ray.get(result, timeout=timeout)
        except self._ray.exceptions.RayTaskError as error:  # the worker lives: the code raised it there
            raise error.cause from error
        except self._ray.exceptions.GetTimeoutError as error:
            why = f"The workers were not ready within {_START_S:.0f} s; is a core free for each on every machine?"
            raise DataError(why) from error
        except self._ray.exceptions.RayError as error:
            what = f"{f'Images {of[0]} to {of[-1]}' if of else 'Loading the engine'} ended {_RETRIES + 1} workers"
            raise DataError(f"{what}, or a machine is gone: {first_line(error)}.") from error

    def _chunks(self, images: Iterable[str | os.PathLike[str]], batch_size: int) -> Iterator[list[str]]:
        """Cuts images into chunks of one length, which depends on how many there are, as far as one can see."""
        names = map(_name, images)
        seen = list(itertools.islice(names, _MOST_IMAGES * _SHARE * len(self._devices)))
        length = chunk_length(len(seen), len(self._devices), self.window(batch_size))
        names = itertools.chain(seen, names)
        return iter(lambda: list(itertools.islice(names, length)), [])

    def _with_room(self) -> list[_Device]:
        """Returns devices that can take a chunk, those with least to do first; one twice if it has nothing."""
        return [d for held in range(_QUEUED) for d in self._devices if len(d.pending) <= held]


def check_devices(devices: Sequence[int]) -> list[int]:
    """Returns device numbers, or raises a UsageError if one is twice there, below 0 or not a whole number."""
    numbers = list(devices)
    if not numbers or any(type(number) is not int or number < 0 for number in numbers):
        raise UsageError(f"Devices must be whole numbers from 0, such as 0,1, not {numbers}.")
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"Each device can be given once, not {','.join(map(str, numbers))}.")
    return numbers


def chunk_length(images: int, devices: int, window: int = 1) -> int:
    """Returns how many images a chunk has: few enough that all devices end together, and whole windows of batches."""
    length = min(max(-(-images // (_SHARE * devices)), 1), _MOST_IMAGES)
    return -(-length // window) * window


def read_list(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields the images that a text file names, one a line, from the file's own folder if not absolute."""
    folder = Path(path).absolute().parent
    try:
        with Path(path).open(encoding="utf-8-sig") as lines:
            for line in lines:
                if line.strip():
                    yield folder / line.strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The list {path} cannot be read: {error}; give a text file with one image a line.") from error


def available() -> bool:
    """Tells whether Ray is installed."""
    return importlib.util.find_spec("ray") is not None


def require() -> None:
    """Raises a DataError that says how to get Ray if it is not here."""
    if not available():
        raise DataError(f"Work on several devices needs Ray: {INSTALL}")


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables, which Ray reads when it is imported and started, for the time of a block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


def _name(image: str | os.PathLike[str]) -> str:
    if not isinstance(image, (str, os.PathLike)):
        raise UsageError(f"Workers take image files, not {type(image).__name__}; save it, or use one device.")
    return os.fspath(image)


def _pin_to_core(core: int) -> None:
    """Keeps the calling thread, and the threads it starts, on one core: two workers never share it."""
    if not hasattr(os, "sched_setaffinity"):  # macOS, Windows: the number of threads has to do
        return
    cores = sorted(os.sched_getaffinity(0))
    if core >= len(cores):
        raise UsageError(f"There is no device {core}: on a CPU each core is one, here 0 to {len(cores) - 1}.")
    os.sched_setaffinity(0, {cores[core]})
