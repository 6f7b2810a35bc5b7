"""The simulator, imported once for all tests of a process, and not left where `import magicmind` would find it."""

from __future__ import annotations

import importlib
import sys

from helpers import paths

FOLDER = str(paths.root() / "simulator")


def _imported() -> dict:
    sys.path.insert(0, FOLDER)
    try:
        importlib.import_module("magicmind.python.runtime.parser")
    finally:
        sys.path.remove(FOLDER)
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "magicmind"}


MODULES = _imported()
runtime, parser = (MODULES[f"magicmind.python.{name}"] for name in ("runtime", "runtime.parser"))
calibration, config, device, execution, model, network, values = (
    MODULES[f"magicmind.{name}"]
    for name in ("calibration", "config", "device", "execution", "model", "network", "values")
)
