"""The layout of the repository: arrows run one way, torch stays on its side, and nothing grows too long."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Iterator

import pytest

from helpers import paths

# From the ground up: a file imports from its own floor and those below. "" is the package itself, its map.
FLOORS = (
    ("", "errors", "zoo", "paths", "artifacts", "keypoints", "images", "dataset", "fetch"),
    ("export", "backends", "pose"),
    ("measure",),
    ("show",),
    ("pipeline", "infer", "scale_out", "cli", "__main__"),
)
TRAINING = ("torch", "torchvision", "mmpose", "mmcv")
TRAINERS = ("helpers.export.", "helpers.backends.pytorch")

MOST_LINES = 600  # of a file
LINES = {  # where another number holds, of a file or of all files in a folder
    "helpers": 9700,
    "simulator": 900,
    "helpers/pose/decode_numba.py": 700,
}


def modules(root: Path) -> dict[str, Path]:
    """Name of each module in `helpers` -> its file."""
    found = {}
    for path in sorted((root / "helpers").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """Dotted names that a file imports at run time, also inside functions; `from a import b` gives a.b."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)]
    unseen = {id(inner) for block in for_types for statement in block.body for inner in ast.walk(statement)}
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows(root: Path) -> dict[str, set[str]]:
    """Module -> the modules of `helpers` that it imports."""
    files = modules(root)
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        targets = (t if t in files else t.rpartition(".")[0] for t in imported(path) if t.split(".")[0] == "helpers")
        found[name] = {target for target in targets if target in files}
    return found


def floor(module: str) -> int:
    [found] = [k for k, names in enumerate(FLOORS) if module.partition(".")[2].partition(".")[0] in names]
    return found


def arrows_up(root: Path) -> list[str]:
    return [f"{a} -> {b}" for a, targets in arrows(root).items() for b in sorted(targets) if floor(a) < floor(b)]


def circles(root: Path) -> list[str]:
    """Modules from which imports lead back to themselves."""
    graph = arrows(root)

    def reached(module: str) -> set[str]:
        seen, ahead = set(), list(graph[module])
        while ahead:
            name = ahead.pop()
            if name not in seen:
                seen.add(name)
                ahead += graph[name]
        return seen

    return [name for name in graph if name in reached(name)]


def trespassers(root: Path) -> list[str]:
    """Modules that import tests, and those on the deployment side that import torch and its like."""
    found = []
    for name, path in modules(root).items():
        refused = ("tests",) if name.startswith(TRAINERS) else ("tests", *TRAINING)
        found += [f"{name}: {target}" for target in imported(path) if target.split(".")[0] in refused]
    return found


def too_long(root: Path) -> list[str]:
    """Files and folders with more lines than they may have."""
    found = []
    for folder in ("helpers", "simulator"):
        files = sorted((root / folder).rglob("*.py"))
        lines = {str(f.relative_to(root)): len(f.read_text(encoding="utf-8").splitlines()) for f in files}
        total = {folder: sum(lines.values())} if files else {}
        for name, count in {**lines, **total}.items():
            most = LINES.get(name, MOST_LINES)
            if count > most:
                found.append(f"{name}: {count} lines, {most} at most")
    return found


RULES = (arrows_up, circles, trespassers, too_long)


@pytest.mark.parametrize("rule", RULES)
def test_the_repository(rule):
    assert len(modules(paths.root())) > 20
    assert rule(paths.root()) == []


def tree(root: Path, **files: str) -> Path:
    """Writes modules, `__` in whose names stands for a dot."""
    for name, text in files.items():
        path = root.joinpath("helpers", *name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("rule", "files", "found"),
    [
        (arrows_up, {"zoo": "from helpers import cli", "cli": ""}, ["helpers.zoo -> helpers.cli"]),
        (
            arrows_up,
            {"pose__a": "def f():\n    from helpers.show.b import c", "show__b": ""},
            ["helpers.pose.a -> helpers.show.b"],
        ),
        (arrows_up, {"pipeline": "import helpers.show.b", "show__b": "import helpers.zoo", "zoo": ""}, []),
        (
            circles,
            {"pose__a": "import helpers.pose.b", "pose__b": "def f():\n    from helpers.pose import a"},
            ["helpers.pose.a", "helpers.pose.b"],
        ),
        (
            circles,
            {"zoo": "if TYPE_CHECKING:\n    import helpers.paths\nelse:\n    import os", "paths": "import helpers.zoo"},
            [],
        ),
        (
            circles,
            {"a": "import helpers.b", "b": "import helpers.c", "c": "import helpers.b"},
            ["helpers.b", "helpers.c"],
        ),
        (trespassers, {"pose__a": "def f():\n    from torch.nn import Conv2d"}, ["helpers.pose.a: torch.nn.Conv2d"]),
        (trespassers, {"export__a": "import torch", "backends__pytorch": "import mmcv", "zoo": "import cv2"}, []),
        (trespassers, {"export__a": "import tests.parity.x"}, ["helpers.export.a: tests.parity.x"]),
        (too_long, {"zoo": "\n" * 601, "paths": "\n" * 600}, ["helpers/zoo.py: 601 lines, 600 at most"]),
        (
            too_long,
            {f"pose__a{k}": "\n" * 600 for k in range(30)},
            [f"helpers: 18000 lines, {LINES['helpers']} at most"],
        ),
    ],
)
def test_a_rule_sees_what_breaks_it(tmp_path, rule, files, found):
    assert rule(tree(tmp_path, **files)) == found
