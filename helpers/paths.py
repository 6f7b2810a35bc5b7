"""Where things live, how files are named, and how a file comes to be: complete with its sidecar, or not at all.

    data/models/ (or $MODEL_PATH)
      checkpoints/                                    the official weights, as downloaded
      MobileNetv2_demo/                               <model>_<weights tag>
        MobileNetv2_demo_opset17.onnx  (+ .json)
        onnxruntime/MobileNetv2_mmpose_model_force_float32_true  (+ .json)

The `.json` beside a made file is its sidecar: everything that decided the file's content, the file's own SHA-256,
and what was found out while making it. A file is used again only when both agree with what is wanted now.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import IO, Any, Iterator, Mapping

from helpers import zoo
from helpers.errors import DataError, UsageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_SHOWN = 160  # characters of a fact in a table
WEIGHTS = ("demo", "official", "random")  # or the path of a checkpoint


def root() -> Path:
    """The repository."""
    return Path(__file__).resolve().parent.parent


def demo_data() -> Path:
    """The shipped COCO-format set and the demo weights."""
    return root() / "data" / "demo"


def models() -> Path:
    """Everything made from checkpoints: the variable `MODEL_PATH`, else data/models."""
    return _from_environment("MODEL_PATH", root() / "data" / "models")


def coco() -> Path:
    """The COCO dataset: the variable `COCO_DATASETS_PATH`, else data/coco."""
    return _from_environment("COCO_DATASETS_PATH", root() / "data" / "coco")


def output() -> Path:
    """Executed notebooks, pictures, records, results."""
    return root() / "data" / "output"


def demo_scores() -> Path:
    """Records of the demo weights on all of the demo set, that come with the repository."""
    return demo_data() / "scores"


def demo_models() -> list[str]:
    """The networks that demo weights are shipped of, in the zoo's order."""
    return [name for name in zoo.NETWORKS if demo_weights(name).is_file()]


def demo_weights(model: str) -> Path:
    """The file of the shipped weights of a network."""
    return demo_data() / "weights" / f"{model}.npz"


def checkpoint(url: str) -> Path:
    """Where an official checkpoint is expected: under the name that its publishers gave it."""
    return models() / "checkpoints" / url.rsplit("/", 1)[-1]


def weights_tag(weights: str | os.PathLike[str]) -> str:
    """The short name of some weights, part of folder and file names.

    Args:
        weights: `demo`, `official`, `random`, or a checkpoint file.

    Returns:
        The word itself; for a file its stem and the first 8 hex digits of its SHA-256, so that two checkpoints
        called `latest.pth` do not mix.

    Raises:
        UsageError: `weights` is none of these words, nor does it look like a file.
        DataError: there is no such file.
    """
    if weights in WEIGHTS:
        return str(weights)
    path = Path(weights)
    if not path.is_file() and not path.suffix and len(path.parts) == 1:
        raise UsageError(f"There are no weights {str(weights)!r}; use {', '.join(WEIGHTS)} or a checkpoint file.")
    return f"{re.sub(r'[^A-Za-z0-9.-]+', '-', path.stem)}-{sha256(path)[:8]}"


def onnx_file(model: str, tag: str, opset: int, input_type: str = "float32") -> Path:
    """The ONNX file of a network; `tag` is a `weights_tag`, `input_type` one of `zoo.INPUT_TYPES`."""
    return models() / f"{model}_{tag}" / f"{model}_{tag}_opset{opset}{_ending(input_type)}.onnx"


def engine_file(
    model: str,
    tag: str,
    backend: str,
    precision: str,
    dynamic_shape: bool,
    batch_size: int,
    input_type: str = "float32",
) -> Path:
    """The file of a built model, named as in the sample.

    Args:
        model: name of the network.
        tag: a `weights_tag`.
        backend: name of the engine that runs it.
        precision: one of `zoo.PRECISIONS`.
        dynamic_shape: whether it takes any batch, height and width.
        batch_size: the batch it takes if not; otherwise not part of the name.
        input_type: one of `zoo.INPUT_TYPES`; the sample's float32 is not part of the name.
    """
    name = f"{model}_mmpose_model_{precision}_{str(dynamic_shape).lower()}"
    if not dynamic_shape:
        name += f"_{batch_size}"
    return models() / f"{model}_{tag}" / backend / (name + _ending(input_type))


def sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file, 64 hex digits.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Lends a temporary file beside `path`, which becomes `path` at the end of the block.

        with paths.atomic_write(path) as part:
            part.write_text("...")

    Whoever looks at `path` finds the old file or the whole new one. If the block fails, or is interrupted, the
    temporary file goes and `path` stays as it was. What an earlier, killed process left of the same file goes too.
    Folders are made as needed.

    Args:
        path: the file to be.

    Yields:
        The temporary file, which exists and is empty. Its name ends like that of `path`, because some writers
        look at the ending.

    Raises:
        DataError: the file cannot be written: no permission, no space, a folder in its place.
    """
    path = Path(path).absolute()
    part = path.parent / f".part-{uuid.uuid4().hex[:8]}-{path.name}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:
            with _alone_in(path.parent):
                _remove_leftovers(path)
                _lock(held.enter_context(part.open("xb")))
            try:
                yield part
            except Exception:
                try_disk(part)
                raise
            part.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):  # it is gone when all went well
            part.unlink()


def try_disk(part: Path, size: int = 1 << 16) -> None:
    """Appends bytes to a file whose writer failed: libraries turn "no space left" into all sorts of errors.

    Args:
        part: the file, of no more use.
        size: how many bytes, for a writer that has made room again by removing what it wrote.

    Raises:
        OSError: it cannot be written, and why.
    """
    with part.open("ab") as file:
        file.write(bytes(size))


def sidecar(path: str | os.PathLike[str]) -> Path:
    """The JSON file that describes a made file."""
    path = Path(path)
    return path.with_name(f"{path.name}.json")


def write_sidecar(path: Path, **facts: Any) -> None:
    """Describes a file that was just made; to be called last, so that an unfinished file has no valid sidecar.

    Args:
        path: the made file.
        **facts: JSON types: what decided its content, and what was found out on the way. `sha256` and `bytes`
            of the file are added.
    """
    document = {**facts, "sha256": sha256(path), "bytes": path.stat().st_size}
    with atomic_write(sidecar(path)) as part:
        part.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def read_sidecar(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a made file's sidecar says.

    Raises:
        DataError: the sidecar is missing or damaged.
    """
    try:
        document = json.loads(sidecar(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} has no {sidecar(path).name} beside it; make the file again.") from error
    except ValueError as error:
        raise DataError(f"{sidecar(path)} is damaged; make {Path(path).name} again.") from error
    if not isinstance(document, dict):
        raise DataError(f"{sidecar(path)} is damaged; make {Path(path).name} again.")
    return document


def readable_sidecar(path: str | os.PathLike[str]) -> dict[str, str]:
    """The sidecar as text, to be looked at: long values are cut, and those that do not apply say so.

    Args:
        path: the made file.

    Raises:
        DataError: as `read_sidecar`.
    """
    text = {key: "none needed" if value is None else str(value) for key, value in read_sidecar(path).items()}
    return {key: value if len(value) <= _SHOWN else f"{value[:_SHOWN]} ..." for key, value in text.items()}


def is_current(path: Path, decides: Mapping[str, Any]) -> bool:
    """Whether a made file can be used again.

    Args:
        path: the made file.
        decides: facts of the sidecar that decide the file's content, as they have to be now.

    Returns:
        True if the sidecar says the same, and the file is still the one that it describes.
    """
    try:
        found = read_sidecar(path)
        wanted = json.loads(json.dumps(decides))  # as it looks after a round trip: tuples are lists
        return all(found.get(key) == value for key, value in wanted.items()) and found["sha256"] == sha256(path)
    except (DataError, KeyError):
        return False


def _remove_leftovers(path: Path) -> None:
    """Removes temporary files of `path`, and what lies beside them under their names, that no process holds."""
    for part in path.parent.glob(f".part-{8 * '[0-9a-f]'}-{glob.escape(path.name)}"):
        with contextlib.suppress(OSError), part.open("rb") as file:  # another one may be removing it too
            if not _lock(file):
                continue
            for left in path.parent.glob(f"{glob.escape(part.name)}?*"):
                shutil.rmtree(str(left), ignore_errors=True)
            part.unlink()


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Makes other processes wait that want to begin a file there: one just begun has no lock yet."""
    if fcntl is None:
        yield
        return
    handle = os.open(str(folder), os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a network drive without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _lock(file: IO[bytes]) -> bool:
    """Marks a temporary file as being written, until it is closed, which a killed process's files are.

    Returns:
        False if another process holds it, or if there are no such locks here (Windows, some network drives): then
        nobody's files are removed.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _ending(input_type: str) -> str:
    return "" if input_type == "float32" else f"_{input_type}"


def _from_environment(variable: str, otherwise: Path) -> Path:
    """A folder from the environment; a relative one is taken from the repository, wherever the caller stands."""
    value = os.environ.get(variable)
    return root() / Path(value).expanduser() if value else otherwise
