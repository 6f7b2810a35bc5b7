"""What a newcomer meets first: pins, the Makefile, and a README whose links and commands exist."""

from __future__ import annotations

import re
import shlex

import pytest

from helpers import paths
from helpers.cli import build_parser

ROOT = paths.root()
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-mmpose.txt"])
def test_everything_is_pinned(name):
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    loose = [line for line in lines if line and not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    assert loose == []


def test_ci_runs_make_test_and_nothing_else():
    commands = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and not line.startswith("#")]
    assert commands == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "make test"]


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) >= 6
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


def test_commands_of_the_readme_are_understood():
    commands = re.findall(r"^\.venv/bin/python -m helpers (.+?)(?:\s+#.*)?$", README, re.MULTILINE)
    assert {shlex.split(command)[0] for command in commands} >= {"doctor", "export", "build", "infer", "eval", "perf"}
    for command in commands:
        build_parser().parse_args(shlex.split(command))


def test_commands_of_the_page_on_coco_are_understood():
    page = (ROOT / "docs" / "coco.md").read_text(encoding="utf-8")
    commands = re.findall(r"^(?:\w+=\S+ )*\.venv/bin/python -m helpers (.+?)(?:\s+#.*)?$", page, re.MULTILINE)
    assert {shlex.split(command)[0] for command in commands} == {"fetch", "coco"}
    assert "\ncoco: setup\n\t$(BIN)/python -m helpers coco $(COCO)\n" in (ROOT / "Makefile").read_text()
    for command in commands:
        build_parser().parse_args(shlex.split(command))


def test_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE))
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
