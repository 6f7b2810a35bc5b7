"""What a newcomer meets first: pins, the Makefile, and a README whose links and commands exist."""

from __future__ import annotations

import re
import shlex

import pytest

from helpers import paths
from helpers.cli import build_parser

ROOT = paths.root()
README, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
PAGES = [ROOT / name for name in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md")] + sorted(ROOT.glob("docs/*.md"))


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-mmpose.txt"])
def test_everything_is_pinned(name):
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    loose = [line for line in lines if line and not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    assert loose == []


def test_ci_runs_make_test_and_nothing_else():
    commands = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and not line.startswith("#")]
    assert commands == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "make test"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not link.startswith("http") and not (page.parent / link).exists()] == []


def test_both_readmes_say_the_same():
    """Sections, commands, pictures and links, and every figure of every table."""
    for pattern in (r"^(#+) ", r"^(\.venv/bin/python .+?)(?:\s+#.*)?$", r"`([^`\n]*helpers[^`\n]*)`"):
        found = [re.findall(pattern, page, re.MULTILINE) for page in (README, CHINESE)]
        assert found[0] == found[1] and found[0]
    links = [sorted(re.findall(r"\]\(([^)]+)\)", page)) for page in (README, CHINESE)]
    assert sorted(set(links[0]) | {"README.md"}) == sorted(set(links[1]) | {"README.zh-CN.md"})
    tables = [[line for line in page.splitlines() if line.startswith("|")] for page in (README, CHINESE)]
    figures = [[re.findall(r"\d[\d.]*", line) for line in lines] for lines in tables]
    assert figures[0] == figures[1]


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
