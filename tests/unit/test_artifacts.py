"""Files that are complete or not there, and the sidecars that vouch for them."""

from __future__ import annotations

import hashlib
import json
import os
import time

import pytest

from helpers import artifacts
from helpers.errors import DataError


def test_atomic_write_replaces_only_on_success(tmp_path):
    path = tmp_path / "new" / "folder" / "a.npz"
    with artifacts.atomic_write(path) as part:
        assert part.parent == path.parent
        assert part.suffix == ".npz"
        assert not path.exists()
        part.write_text("first")
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), artifacts.atomic_write(path) as part:
            part.write_text("half")
            raise error
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_atomic_write_removes_what_a_killed_process_left(tmp_path):
    for name, hours in (("young", 1), ("old", 25)):
        (tmp_path / f".part-{name}").touch()
        os.utime(tmp_path / f".part-{name}", (time.time() - hours * 3600,) * 2)
    with artifacts.atomic_write(tmp_path / "a"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".part-young", "a"]


def test_atomic_write_says_where_it_cannot(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "a.txt", tmp_path / "file" / "deep" / "a.txt", "/proc/none/deep/a.txt"):
        with pytest.raises(DataError, match=f"{path} cannot be written"), artifacts.atomic_write(path):
            pass
    with pytest.raises(DataError, match="folder cannot be written"), artifacts.atomic_write(
        tmp_path / "folder"
    ) as part:
        part.write_text("a file cannot replace a folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_a_missing_input_is_not_blamed_on_the_output(tmp_path):
    """The block reads files too."""
    with pytest.raises(FileNotFoundError, match=r"input\.txt"), artifacts.atomic_write(tmp_path / "out.txt") as part:
        part.write_text((tmp_path / "input.txt").read_text())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_atomic_write_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="Permission denied"), artifacts.atomic_write(tmp_path / "a"):
        pass


def test_sidecar_vouches_for_content_and_bytes(tmp_path):
    path = tmp_path / "made"
    path.write_bytes(b"content")
    artifacts.write_sidecar(path, shape=(1, 2), precision="x", build_s=1.5)
    assert artifacts.read_sidecar(path)["bytes"] == 7
    assert artifacts.is_current(path, {"shape": (1, 2), "precision": "x"})
    assert not artifacts.is_current(path, {"shape": (1, 3), "precision": "x"})
    assert not artifacts.is_current(path, {"unknown": None, "other": 1})
    path.write_bytes(b"Content")
    assert not artifacts.is_current(path, {"shape": (1, 2)})
    path.unlink()
    assert not artifacts.is_current(path, {"shape": (1, 2)})


@pytest.mark.parametrize("text", [None, "", "{", "[1]", '{"sha256"', "\udcff"])
def test_damaged_sidecar(tmp_path, text):
    path = tmp_path / "made"
    path.write_bytes(b"content")
    if text is not None:
        (tmp_path / "made.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert not artifacts.is_current(path, {})
    with pytest.raises(DataError, match=r"made\.json"):
        artifacts.read_sidecar(path)


def test_sidecar_is_json_for_everybody(tmp_path):
    path = tmp_path / "made"
    path.write_bytes(b"content")
    artifacts.write_sidecar(path, a=1)
    document = json.loads((tmp_path / "made.json").read_text())
    assert document == {"a": 1, "sha256": hashlib.sha256(b"content").hexdigest(), "bytes": 7}
