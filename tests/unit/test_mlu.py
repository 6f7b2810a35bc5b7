"""What a card owner runs, tried without a card: the marked tests, `make mlu`, and what docs/mlu.md promises."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from helpers import paths
from helpers.cli import build_parser
from helpers.export import export
from tests.simulator import FOLDER

ROOT = paths.root()
DOCS = ("docs/mlu.md", "docs/mlu.zh-CN.md")
TEXT = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCS}


def marked_tests(*arguments, **environment):
    """Runs the marked tests as a card owner does; what pytest printed."""
    command = [sys.executable, "-m", "pytest", "-m", "mlu", "tests/mlu", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    return done.returncode, done.stdout + done.stderr


def test_marked_tests_are_skipped_without_a_card_and_say_why():
    status, text = marked_tests()
    assert status == 0, text
    assert "passed" not in text
    assert "no MLU card to run on: there is no magicmind package in this Python" in text


def test_marked_tests_go_through_on_the_simulator(tmp_path, monkeypatch):
    """So that on a card they fail because of the card."""
    monkeypatch.setenv("MODEL_PATH", str(tmp_path / "models"))
    export.export("MobileNetv2", "demo", 11, shapes=[(128, 192)], batches=[1])
    (tmp_path / "elsewhere.py").write_text(
        f"from helpers import paths\npaths.output = lambda: paths.Path({str(tmp_path / 'output')!r})\n"
    )
    path = os.pathsep.join([FOLDER, str(ROOT), str(tmp_path)])
    # Without what test_magicmind.py does quicker; it has AP in every precision, too.
    arguments = ("-p", "elsewhere", "-k", "not thousand and not (people and 16)")
    status, text = marked_tests(*arguments, PYTHONPATH=path, NEUWARE_HOME=str(tmp_path))
    assert status == 0, text
    skipped = [line for line in text.splitlines() if line.startswith("SKIPPED")]
    assert all("mm_run is not in this container" in line for line in skipped), text
    assert int(re.search(r"(\d+) passed", text).group(1)) >= 9, text
    assert "went before its" not in text, text
    facts = json.loads((tmp_path / "output" / "mlu_facts.json").read_text())
    assert facts["truth of an OK Status"].startswith("raises Misuse")


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
@pytest.mark.parametrize("fails", ["", "HRNet force_float16 eval"])
def test_make_mlu_does_the_whole_job(tmp_path, fails):
    """Three networks, three precisions: build, eval, perf with batch 1 and 8; one failure does not end it."""
    stand_in = tmp_path / "python"
    stand_in.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        f"open({str(tmp_path / 'log')!r}, 'a').write(repr(sys.argv[1:]) + chr(10))\n"
        f"words = {fails.split()!r}\n"
        "sys.exit(bool(words) and all(word in sys.argv for word in words))\n"
    )
    stand_in.chmod(0o755)
    done = subprocess.run(["make", "mlu", f"PYTHON={stand_in}"], cwd=ROOT, capture_output=True, text=True, check=False)
    commands = [ast.literal_eval(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert commands[0][:3] == ["-m", "pip", "install"]
    verbs = [command[2:] for command in commands if command[:2] == ["-m", "helpers"]]
    for command in verbs:
        build_parser().parse_args(command)
    assert [command[0] for command in verbs] == ["build", "eval", "perf", "perf"] * 9 + ["report"]
    perfs = {tuple(command) for command in verbs if command[0] == "perf"}
    assert len(perfs) == 18
    assert (done.returncode != 0) == bool(fails)
    assert ("failed: HRNet force_float16" in done.stdout) == bool(fails)


def test_nothing_rests_on_assert_or_distutils():
    """`python -O` drops the one, Python 3.12 the other."""
    for path in (ROOT / "helpers").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.Assert), path
            assert "distutils" not in ast.dump(node) if isinstance(node, (ast.Import, ast.ImportFrom)) else True, path


# -- docs/mlu.md


def test_names():
    names = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        names |= set(re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    for name, text in TEXT.items():
        named = set(re.findall(r"`(test_\w+)`", text))
        assert len(named) > 25
        assert named - names == set(), name


def test_every_known_defect_has_its_row():
    for name, text in TEXT.items():
        rows = re.findall(r"^\| (\d+) \|", text, re.MULTILINE)
        assert [int(row) for row in rows] == list(range(1, 52)), name


def test_commands_are_understood():
    for name, text in TEXT.items():
        commands = re.findall(r"^(?:\.venv/bin/)?python3? -m helpers (.+?)(?:\s+#.*)?$", text, re.MULTILINE)
        assert {shlex.split(command)[0] for command in commands} >= {"doctor", "export", "build", "eval", "perf"}, name
        for command in commands:
            build_parser().parse_args(shlex.split(command))


def test_both_languages_say_the_same():
    """As far as a program can tell: the same commands, tests and files."""
    code = [re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for text in TEXT.values()]
    bare = [[re.sub(r"\s*#.*", "", block) for block in blocks] for blocks in code]
    assert bare[0] == bare[1]
    tests = [sorted(re.findall(r"`(test_\w+)`", text)) for text in TEXT.values()]
    assert tests[0] == tests[1]


def test_links():
    for name, text in TEXT.items():
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert link.startswith("http") or (ROOT / "docs" / link).exists(), f"{name}: {link}"
