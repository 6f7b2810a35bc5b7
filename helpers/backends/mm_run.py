"""Cambricon's own timing tool `mm_run`, which lies in a MagicMind container: how fast a model is on the card alone.

    tool = mm_run.find()                                   # None outside a container
    timing = mm_run.measure(tool, built, (8, 3, 512, 512), device_id=0)
    timing.images_per_s, timing.latency.p50, timing.log

Two releases are in use, with another flag and other output; both are understood. A run counts only if the tool ended
well, printed its figures, and these agree with each other.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

from helpers import artifacts, paths
from helpers.backends.base import Latency
from helpers.errors import DataError

_NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"  # C++ streams print large ones as 1.2e+06
_SUMMARY = (
    rf"\s*min:\s*{_NUMBER}\s+max:\s*{_NUMBER}\s+mean:\s*{_NUMBER}\s+median:\s*{_NUMBER}"
    rf"\s+percentile:\s*\(90%\)\s*{_NUMBER}\s+\(95%\)\s*{_NUMBER}\s+\(99%\)\s*{_NUMBER}"
)
# What is looked for, older release first. Labels begin their line: the older one repeats one of them, indented, with
# other content. Columns differ between builds of the tool, so nothing depends on them.
_THROUGHPUT = re.compile(rf"^Throughput \(qps\):\s*{_NUMBER}", re.MULTILINE)
_RUNS = re.compile(rf"^(?:Total iterations|Iterations):\s*{_NUMBER}", re.MULTILINE)
_WALL = re.compile(rf"^Host [Ww]all [Tt]ime ?\(s\):\s*{_NUMBER}", re.MULTILINE)
_LATENCY = (
    re.compile(rf"^MLU Compute Latency \(ms\):{_SUMMARY}", re.MULTILINE),
    *(
        re.compile(
            r"^MLU Compute \(Launch jobs\) Summary:[ \t]*\n(?:[ \t]+.*\n)*?"
            rf"[ \t]*Latency ?\({clock} clock, ms\):{_SUMMARY}",
            re.MULTILINE,
        )
        for clock in ("host", "dev")
    ),
)

RUNS = 1000  # as many as the sample asks for

_AGREEMENT = 0.05  # by how much throughput may differ from runs x batch / time: figures have 5 or 6 digits
_LIMIT_S = 1800  # thousand runs of the largest network take a minute


@dataclass(frozen=True)
class CardTiming:
    """The figures of `mm_run`."""

    latency: Latency  # of one run on the card, without copies to and from it
    images_per_s: float  # with copies and runs overlapped
    batch_size: int
    input_shape: tuple[int, int, int, int]  # (N, 3, H, W), or (N, H, W, 3) if the model takes uint8
    runs: int  # those that were timed
    log: Path  # what the tool printed


def find() -> Path | None:
    """Returns the tool: in `MM_RUN_PATH` (itself or its folder), `$NEUWARE_HOME/bin`, or on `PATH`."""
    home = Path(os.environ.get("NEUWARE_HOME", "/usr/local/neuware"))
    for place in filter(None, (os.environ.get("MM_RUN_PATH"), home / "bin")):
        for candidate in (Path(place), Path(place) / "mm_run"):
            if candidate.is_file() and os.access(str(candidate), os.X_OK):
                return candidate
    found = shutil.which("mm_run")
    return None if found is None else Path(found)


def log_file(built: str | os.PathLike[str], shape: Sequence[int]) -> Path:
    """Returns where a run's output goes: a file for each network, weights, precision and input shape."""
    built = Path(built)
    size = "x".join(str(side) for side in shape)
    return paths.output() / "mm_run" / f"{built.parent.parent.name}_{built.name}_{size}.log"


def measure(
    tool: Path, built: str | os.PathLike[str], shape: tuple[int, int, int, int], device_id: int = 0, runs: int = RUNS
) -> CardTiming:
    """Times a built model with input of a shape, (N, 3, H, W), or (N, H, W, 3) if it takes uint8.

    The tool goes on for at least three seconds. Its output is kept in `log_file`, whether or not the run went well.

    Raises:
        DataError: the tool failed, took too long, or printed no or contradictory figures; names the log.
    """
    command = [
        *(str(tool), "--magicmind_model", str(built), "--iterations", str(runs)),
        *(_batch_flag(tool), str(shape[0]), "--input_dims", ",".join(str(size) for size in shape)),
        *("--devices", str(device_id)),
    ]
    log = log_file(built, shape)
    status = _run(command, log)
    text = log.read_text(encoding="utf-8", errors="replace")
    if status is None:
        raise DataError(f"mm_run did not end within {_LIMIT_S} s; what it printed is in {log}.")
    if status:
        reason = f"was stopped by signal {-status}" if status < 0 else f"ended with status {status}"
        raise DataError(f"mm_run {reason}: {_last_line(text)}; all of it is in {log}.")
    try:
        return parse(text, shape, log)
    except DataError as error:
        raise DataError(f"{str(error).rstrip('.')}; all that mm_run printed is in {log}.") from error


def parse(text: str, shape: tuple[int, int, int, int], log: Path) -> CardTiming:
    """Reads the output of a run, of either release.

    Raises:
        DataError: a figure is missing, or throughput is not what runs and time make of it.
    """
    throughput = _figure(_THROUGHPUT, text, "throughput")
    runs, seconds = _figure(_RUNS, text, "number of runs"), _figure(_WALL, text, "wall time")
    found = next(filter(None, (pattern.search(text) for pattern in _LATENCY)), None)
    if found is None:
        raise DataError("mm_run printed no latency.")
    _, _, mean, median, p90, p95, p99 = (float(group) for group in found.groups())
    expected = runs * shape[0] / seconds if seconds > 0 else 0.0
    if not expected or abs(throughput - expected) > _AGREEMENT * expected:
        raise DataError(
            f"mm_run printed {throughput:g} images/s, but {runs:g} runs of {shape[0]} in {seconds:g} s make "
            f"{expected:g}: it did not run that batch."
        )
    latency = Latency(p50=median, p90=p90, p95=p95, p99=p99, mean=mean)
    return CardTiming(latency, throughput, shape[0], shape, int(runs), log)


def _batch_flag(tool: Path) -> str:
    """`--batch_size`, or `--batch` of the older release. Both end, and not well, at a flag that they do not know."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        done = subprocess.run([str(tool), "--help"], **pipes, timeout=_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"{tool} does not run: {error}.") from error
    synopsis = done.stdout.decode("utf-8", errors="replace")
    return "--batch" if "--batch" in synopsis and "--batch_size" not in synopsis else "--batch_size"


def _run(command: Sequence[str], log: Path) -> int | None:
    """Runs a command, with it and all that it prints in a file; returns its exit status, None if too slow."""
    with artifacts.atomic_write(log) as part, part.open("wb") as file:
        file.write((" ".join(command) + "\n").encode("utf-8"))
        file.flush()
        try:
            return subprocess.call(command, stdout=file, stderr=subprocess.STDOUT, timeout=_LIMIT_S)
        except subprocess.TimeoutExpired:
            return None


def _figure(pattern: re.Pattern, text: str, name: str) -> float:
    found = pattern.search(text)
    if found is None:
        raise DataError(f"mm_run printed no {name}.")
    return float(found.group(1))


def _last_line(text: str) -> str:
    """Returns what was printed last, after the line with the command itself."""
    lines = [line.strip() for line in text.splitlines()[1:] if line.strip()]
    return lines[-1].rstrip(".") if lines else "it printed nothing"
