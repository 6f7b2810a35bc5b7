"""Files that are made: complete, with a sidecar that says what decided their content, or not there at all.

    with artifacts.atomic_write(path) as part:
        part.write_text("...")
    artifacts.write_sidecar(path, opset=17)
    artifacts.is_current(path, {"opset": 17})     # True until the file, or what is wanted, changes

The sidecar of `x` is `x.json`: all that decided the file's content, and what was measured while making it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, Mapping

from helpers.errors import DataError

if TYPE_CHECKING:
    import os


def sha256(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of a file, 64 hex digits; a DataError names one that cannot be read."""
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], needs: int = 1 << 16) -> Iterator[Path]:
    """Lends an empty temporary file beside `path`, of its suffix, which replaces `path` at the end of the block.

    If the block fails or is interrupted, the temporary file is removed and `path` stays as it was. Folders are made as
    needed. `needs`: bytes that the block is about to write, to tell a full disk from other failures of a library.

    Raises:
        DataError: the file cannot be written: no permission, no space, a folder in its place.
    """
    path = Path(path).absolute()
    part = path.with_name(f".part-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}.") from error
    for left in path.parent.glob(".part-*"):
        with contextlib.suppress(OSError):  # another process may be removing it too
            if time.time() - left.stat().st_mtime > 24 * 3600:  # its process was killed
                left.unlink()
    try:
        yield part
        part.replace(path)
    except Exception as error:
        if isinstance(error, OSError) and error.filename in (None, str(part)):  # not something that the block reads
            raise DataError(f"{path} cannot be written: {error.strerror or error}.") from error
        if shutil.disk_usage(str(part.parent)).free < needs:
            raise DataError(f"{path} cannot be written: No space left on device.") from error
        raise
    finally:
        with contextlib.suppress(OSError):  # it is gone if all went well
            part.unlink()


def sidecar(path: str | os.PathLike[str]) -> Path:
    """Returns the path of the JSON file that describes a made file."""
    path = Path(path)
    return path.with_name(f"{path.name}.json")


def write_sidecar(path: Path, **facts: Any) -> None:
    """Describes a file that was just made; comes last, so that an unfinished one has no valid sidecar."""
    document = {**facts, "sha256": sha256(path), "bytes": path.stat().st_size}
    with atomic_write(sidecar(path)) as part:
        part.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def read_sidecar(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the sidecar of a made file; a DataError says if it is missing or damaged."""
    try:
        document = json.loads(sidecar(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} has no {sidecar(path).name} beside it; make the file again.") from error
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise DataError(f"{sidecar(path)} is damaged; make {Path(path).name} again.")
    return document


def package_version(name: str) -> str | None:
    """Returns the version of an installed package; None if it is not installed."""
    try:
        from importlib import metadata
    except ImportError:  # Python 3.7
        import pkg_resources

        found = pkg_resources.working_set.by_key.get(name)
        return found and found.version
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def is_current(path: Path, wanted: Mapping[str, Any]) -> bool:
    """Tells whether a made file can be used again: its sidecar has the `wanted` facts, and the file that hash."""
    try:
        found = read_sidecar(path)
        wanted = json.loads(json.dumps(wanted))  # as after a round trip: tuples are lists
        return all(found.get(key) == value for key, value in wanted.items()) and found["sha256"] == sha256(path)
    except (DataError, KeyError):
        return False
