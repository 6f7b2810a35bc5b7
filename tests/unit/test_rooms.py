"""Arrows run one way: a room imports earlier rooms only, in the order that `helpers` itself states."""

from __future__ import annotations

import ast
import re

import pytest

import helpers
from helpers import paths

FOLDER = paths.root() / "helpers"
ORDER = re.findall(r"`(\w+)`", helpers.__doc__.split("A room imports")[0])


def imported(path) -> set[str]:
    """The rooms that a file imports when it runs; what only type checkers see does not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    unseen = {id(inner) for block in typing_only for inner in ast.walk(block)}
    rooms = set()
    for node in ast.walk(tree):
        if id(node) in unseen or not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("helpers"):
            continue
        parts = node.module.split(".")
        rooms |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return rooms


def test_every_room_has_its_place():
    rooms = {p.stem for p in FOLDER.iterdir() if (p.suffix == ".py" and p.stem.strip("_") == p.stem)} | {"backends"}
    assert rooms == set(ORDER)


@pytest.mark.parametrize("room", ORDER)
def test_a_room_imports_earlier_rooms_only(room):
    files = sorted((FOLDER / room).glob("*.py")) if (FOLDER / room).is_dir() else [FOLDER / f"{room}.py"]
    for path in files:
        allowed = set(ORDER[: ORDER.index(room)]) | ({room} if len(files) > 1 else set())
        assert imported(path) <= allowed, path.name
