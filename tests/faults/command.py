"""The command line in processes that can be killed at any moment, a hundredth of a second after their start.

They are forked from one process that has imported everything and has done nothing yet (multiprocessing's fork server):
a start of Python, with torch, would take seconds each time.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.faults.warm"])
# Comparing with PyTorch at one small size: how long that takes is not what is tested.
CHECKS = {"shapes": [(64, 64)], "batches": [1]}


@dataclass(frozen=True)
class Home:
    """Where a command finds and puts things.

    Attributes:
        models: `MODEL_PATH`.
        output: instead of data/output.
    """

    models: Path
    output: Path


@dataclass(frozen=True)
class End:
    """How a process ended.

    Attributes:
        status: exit status; -9 if it was killed.
        seconds: that it took.
        out, err: what it printed.
    """

    status: int
    seconds: float
    out: str
    err: str


def run(home: Home, *argv: str, kill_after: float | None = None) -> End:
    """Runs `python -m helpers` with these arguments; kills it so many seconds after its start, if it is not over."""
    with tempfile.TemporaryDirectory() as folder:
        printed = [Path(folder) / "out", Path(folder) / "err"]
        ready, begun = _FORKS.Pipe(duplex=False)
        process = _FORKS.Process(target=_main, args=(home, argv, printed, begun))
        process.start()
        ready.recv()
        start = time.perf_counter()
        if kill_after is not None:
            process.join(kill_after)
            process.kill()
        process.join(120)
        seconds = time.perf_counter() - start
        return End(process.exitcode, seconds, *(file.read_text(encoding="utf-8") for file in printed))


def _main(home: Home, argv: tuple[str, ...], printed: list[Path], begun) -> None:
    """What the process does."""
    from helpers import cli, paths
    from helpers.export import export

    assert "tests.faults.warm" in sys.modules, "multiprocessing does not say so when it could not be imported"
    for stream, file in zip((sys.stdout, sys.stderr), printed):
        handle = os.open(str(file), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, stream.fileno())
    os.environ["MODEL_PATH"] = str(home.models)
    paths.output = lambda: home.output
    export.export.__kwdefaults__.update(CHECKS)
    begun.send(True)
    sys.exit(cli.main(list(argv)))
