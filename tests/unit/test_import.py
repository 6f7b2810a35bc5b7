"""Everything but the export half of `helpers` imports without torch and mmpose, on Python 3.7, and quickly."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest

from helpers import paths

EXPORT_HALF = ("helpers.export.", "helpers.backends.pytorch")
OPTIONAL = ("helpers.pose.decode_numba",)  # `decode` does without
MAX_CPU_SECONDS = 1.0

_HELPERS = paths.root() / "helpers"
_FILES = {
    ".".join(path.relative_to(_HELPERS.parent).with_suffix("").parts): path
    for path in sorted(_HELPERS.rglob("*.py"))
    if path.name != "__main__.py"  # runs the command line
}
DEPLOYMENT_HALF = {name: path for name, path in _FILES.items() if not name.startswith(EXPORT_HALF)}

# Imports modules in turn, with some packages as good as not installed; prints the CPU seconds of each.
_PROBE = """
import importlib, json, sys, time

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError("No module named " + repr(name) + " (blocked)", name=name)

BLOCKED, LIBRARIES, MODULES = json.loads(sys.argv[1])
sys.meta_path.insert(0, Blocker())
for name in LIBRARIES:
    importlib.import_module(name)
seconds = {}
for name in MODULES:
    start = time.process_time()
    importlib.import_module(name)
    seconds[name] = time.process_time() - start
print(json.dumps([seconds, sorted(sys.modules)]))
"""


def probe(blocked, libraries, modules) -> tuple[dict[str, float], set[str]]:
    """Runs the probe in a fresh interpreter; returns CPU seconds by module, and all modules loaded in the end."""
    arguments = json.dumps([list(blocked), list(libraries), list(modules)])
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, arguments], cwd=paths.root(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seconds, loaded = json.loads(done.stdout)
    return seconds, set(loaded)


def test_the_deployment_half_needs_what_it_says_alone():
    """As requirements-deploy.txt promises."""
    assert len(DEPLOYMENT_HALF) > 10
    export_half = ["torch", "torchvision", "mmpose", "mmcv", "onnx", "pandas", "papermill"]
    optional = ["scipy", "matplotlib", "pycocotools", "PIL", "numba"]
    probe([*export_half, *optional], [], [name for name in DEPLOYMENT_HALF if name not in OPTIONAL])


def test_engines_are_optional_too():
    """Without any engine's library the modules still import; `is_available` then says what is missing."""
    code = (
        "import sys; sys.modules['onnxruntime'] = sys.modules['openvino'] = None\n"
        "from helpers import backends\n"
        "print(*(backends.get(name).is_available() for name in ('onnxruntime', 'openvino')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.root(), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("(False, ")
    assert "install onnxruntime" in done.stdout
    assert "install openvino" in done.stdout


def test_imports_are_quick_and_lazy():
    """Apart from NumPy and OpenCV, which nearly every module needs, and Matplotlib, which figures are made of."""
    seconds, loaded = probe([], ["numpy", "cv2", "matplotlib.pyplot"], ["helpers", *(set(_FILES) - set(OPTIONAL))])
    assert {name: value for name, value in seconds.items() if value > MAX_CPU_SECONDS} == {}
    assert not {"torch", "mmpose", "mmcv", "onnxruntime", "openvino", "onnx", "numba"} & loaded


@pytest.mark.parametrize("name", DEPLOYMENT_HALF)
def test_syntax_is_that_of_python_37(name):
    """As far as Python's own parser tells; the standard library is not looked at."""
    source = DEPLOYMENT_HALF[name].read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 7))
    assert "from __future__ import annotations" in source or name.endswith("__init__")
