"""The machine and the packages that a figure belongs to: `machine()`, `versions()`."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path
from typing import Any

from helpers import artifacts

_PACKAGES = ("numpy", "scipy", "opencv-python-headless", "opencv-python", "numba", "pycocotools", "onnx")
_PACKAGES += ("onnxruntime", "openvino", "magicmind", "torch", "mmpose")
# What decides how fast a CPU computes in low precision.
_CPU_FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm")


def now() -> str:
    """Returns this moment for `Record.when`: UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def machine() -> dict[str, Any]:
    """Describes what a speed belongs to, as far as it can be found out; nothing that tells whose machine it is."""
    cpu_info = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", cpu_info, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpu_info, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    system = re.search(r'^PRETTY_NAME="?([^"\n]+)', _read("/etc/os-release"), re.MULTILINE)
    facts = {
        "cpu": model.group(1).strip() if model else platform.processor() or platform.machine(),
        "cores": cores(),
        "cpu_flags": [flag for flag in _CPU_FLAGS if flag in flags.group(1).split()] if flags else None,
        "memory_gb": round(int(memory.group(1)) / 2**20, 1) if memory else None,
        "os": system.group(1) if system else platform.system(),
        "python": platform.python_version(),
    }
    return {key: value for key, value in facts.items() if value is not None}


def cores() -> int:
    """Returns how many cores this process may use, which in a container may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Returns versions of the installed packages that figures depend on; those not installed are absent."""
    found = {package: artifacts.package_version(package) for package in _PACKAGES}
    return {package: version for package, version in found.items() if version}


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
