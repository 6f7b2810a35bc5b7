"""URL -> verified local file, and the files that the official figures need.

    fetch.checkpoint("HRNet")       # MMPose's weights -> data/models/checkpoints/
    fetch.coco()                    # val2017, its annotations, images to calibrate with -> data/coco/

A download lies beside its target as `<name>.part`, goes on where it stopped if a checksum vouches for the whole, and is
renamed when length and checksum are right. Proxies (`https_proxy`) and certificates (`SSL_CERT_FILE`) are those of the
environment. COCO comes from Amazon S3 under the name of its bucket: its own host name has no certificate.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Callable, Iterator

from helpers import artifacts, paths, zoo
from helpers.dataset import seeded_sample
from helpers.errors import DataError, UsageError
from helpers.images import read_image

MMPOSE = "https://download.openmmlab.com/mmpose"  # or the URL in the variable MMPOSE_MIRROR
COCO = "https://s3.amazonaws.com/images.cocodataset.org"  # or in COCO_MIRROR
CALIBRATION_IMAGES = 80

_WAITS = (1, 2, 4, 8)  # seconds before another attempt
_TIMEOUT = 30  # seconds without a byte
_BLOCK = 1 << 18
_MOST = 1 << 30  # bytes of a file whose length nobody knows

# Place below COCO, bytes, SHA-256. COCO publishes neither of the last two; these were compared among ten projects that
# pin them independently.
VAL_IMAGES = ("zips/val2017.zip", 815585330, "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05")
ANNOTATIONS = (
    "annotations/annotations_trainval2017.zip",
    252907541,
    "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
)


@dataclass(frozen=True)
class Fetched:
    """A file or folder that is here now."""

    path: Path
    bytes: int
    received: int  # over the network, 0 if it was there
    seconds: float
    checked: str  # what vouches for it

    def __str__(self) -> str:
        """Returns one line."""
        came = f"{_mb(self.received)} in {self.seconds:.1f} s" if self.received else "nothing to fetch"
        return f"{self.path}: {_mb(self.bytes)}, {came}, {self.checked}"


def checkpoint(model: str) -> Fetched:
    """Fetches the official weights of a network, checked by the digits of their SHA-256 in the file's name."""
    network = zoo.get(model)  # eight digits are enough against damage; against an attacker stands HTTPS
    url = _mirrored(network.checkpoint_url, MMPOSE, "MMPOSE_MIRROR")
    return download(url, paths.checkpoint(network.checkpoint_url), network.sha256_prefix)


def coco() -> list[Fetched]:
    """Makes sure that COCO val2017 and images to calibrate with are in `paths.coco()`; what is there is used.

        annotations/person_keypoints_val2017.json    val2017/*.jpg      5000 images, to be scored
        annotations/person_keypoints_calib2017.json  calib2017/*.jpg    80 of train2017 with people, never scored

    The calibration images are a seeded sample, taken from a `train2017` folder if there is one; else each is fetched on
    its own, as train2017 has 19 GB.
    """
    found = []
    people = partial(_unzipped, ANNOTATIONS, "annotations/person_keypoints_val2017.json")
    for split, *make in (
        ("val2017", people, partial(_unzipped, VAL_IMAGES, "val2017/")),
        ("calib2017", _calibration_annotations, _calibration_images),
    ):
        annotations, folder = _annotation_file(split), paths.coco() / split
        found += map(_once, (annotations, folder), make)
        names = _image_names(annotations)
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise DataError(
                f"{folder} lacks {len(missing)} of {len(names)} images, first {missing[0]}; move the folder away and "
                "fetch again."
            )
    return found


def _once(target: Path, make: Callable[[Path], tuple[Path, int, str]]) -> Fetched:
    """Uses what is there; else calls `make(scratch) -> (made, received, checked)` and gives what it made its name."""
    start, received, checked = time.monotonic(), 0, "was there"
    scratch = target.with_name(f".part-{target.name}")  # stays if the run fails: the next one goes on or replaces it
    with _on_disk(target):
        if not target.exists():
            with _alone_in(paths.coco()):
                if not target.exists():  # another process may have made it meanwhile
                    target.parent.mkdir(parents=True, exist_ok=True)
                    made, received, checked = make(scratch)
                    made.replace(target)
                    shutil.rmtree(str(scratch), ignore_errors=True)
        size = sum(file.stat().st_size for file in (target.iterdir() if target.is_dir() else [target]))
    return Fetched(target, size, received, time.monotonic() - start, checked)


def _calibration_annotations(scratch: Path) -> tuple[Path, int, str]:
    """Draws `CALIBRATION_IMAGES` images of train2017 with labeled people, always the same."""
    train, received = _annotation_file("train2017"), 0
    if not train.is_file():
        train, received, _ = _unzipped(ANNOTATIONS, f"annotations/{train.name}", scratch)
    scratch.mkdir(exist_ok=True)
    document = _read_annotations(train)
    ids = sorted({entry["image_id"] for entry in document["annotations"] if entry.get("num_keypoints")})
    chosen = set(seeded_sample(ids, min(CALIBRATION_IMAGES, len(ids)), 0, train))
    sample = {
        **{key: document[key] for key in ("info", "categories") if key in document},
        "images": [image for image in document["images"] if image["id"] in chosen],
        "annotations": [entry for entry in document["annotations"] if entry["image_id"] in chosen],
    }
    (scratch / "sample.json").write_text(json.dumps(sample), encoding="utf-8")
    return scratch / "sample.json", received, f"{len(sample['images'])} images of train2017, seed 0"


def _calibration_images(scratch: Path) -> tuple[Path, int, str]:
    """Fetches images one by one; those of an earlier run that stopped stay."""
    names, received = _image_names(_annotation_file("calib2017")), 0
    scratch.mkdir(exist_ok=True)
    for name in names:
        image, local, copy = scratch / name, paths.coco() / "train2017" / name, scratch / ".copy"
        if not image.is_file() and local.is_file():
            shutil.copyfile(str(local), str(copy))
            copy.replace(image)
        url = _mirrored(f"{COCO}/train2017/{name}", COCO, "COCO_MIRROR")
        received += _download(url, image).received
        try:
            read_image(image)
        except DataError as error:
            image.unlink()
            raise DataError(f"{url} did not give an image that can be read ({error}); try again.") from error
    return scratch, received, f"{len(names)} images, each decoded"


def _unzipped(archive: tuple[str, int, str], prefix: str, scratch: Path) -> tuple[Path, int, str]:
    """Fetches an archive and unpacks the members that begin with `prefix`."""
    place, size, sha256 = archive
    path = paths.coco() / place.rsplit("/", 1)[-1]
    fetched = _download(_mirrored(f"{COCO}/{place}", COCO, "COCO_MIRROR"), path, sha256, size)
    shutil.rmtree(str(scratch), ignore_errors=True)  # of a run that was killed
    with zipfile.ZipFile(str(path)) as opened:
        members = [info for info in opened.infolist() if info.filename.startswith(prefix)]
        _require_space(scratch.parent, sum(info.file_size for info in members))
        for info in members:
            opened.extract(info, str(scratch))
    return scratch / prefix, fetched.received, fetched.checked


def _annotation_file(split: str) -> Path:
    return paths.coco() / "annotations" / f"person_keypoints_{split}.json"


def _read_annotations(path: Path) -> dict[str, Any]:
    """Returns annotations without outlines, which take most of the memory and mean nothing to keypoints."""
    try:
        with path.open("rb") as file:
            document = json.load(file, object_hook=lambda e: {**e, "segmentation": []} if "segmentation" in e else e)
        if any(Path(image["file_name"]).name != image["file_name"] for image in document["images"]):
            raise ValueError("an image's file_name is a path")
        return document
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a COCO annotation file ({error!r}); move it away and fetch again.") from error


def _image_names(annotations: Path) -> list[str]:
    return [image["file_name"] for image in _read_annotations(annotations)["images"]]


def _mirrored(url: str, origin: str, variable: str) -> str:
    """Returns the URL on the mirror that an environment variable names instead of the origin."""
    mirror = os.environ.get(variable)
    if not mirror:
        return url
    if not mirror.startswith(("https://", "http://")):
        raise UsageError(f"{variable} must be a URL, not {mirror!r}; it stands for {origin}.")
    return mirror.rstrip("/") + url[len(origin) :]


def download(url: str, path: str | os.PathLike[str], sha256: str = "", size: int | None = None) -> Fetched:
    """Fetches a file, or finds it there; a file at `path` that is not the one wanted is replaced.

    A second process that wants the same file waits for the first (not on Windows, which lacks the lock). A connection
    that drops, stalls or answers with 5xx is tried again, five times in all; other errors are raised at once.

    Args:
        sha256: hex digits of the file's SHA-256, or the first of them; without any, its length alone is checked.
        size: bytes, if known beforehand.

    Raises:
        DataError: the file cannot be fetched or written, or is not the one that was wanted.
    """
    if not url.startswith(("https://", "http://")):
        raise UsageError(f"{url!r} is not an http or https URL.")
    path = Path(path).absolute()
    with _alone_in(path.parent):
        return _download(url, path, sha256, size)


def _download(url: str, path: Path, sha256: str = "", size: int | None = None) -> Fetched:
    start, transfer = time.monotonic(), _Transfer(url, path, sha256, size)
    part = transfer.part
    with _on_disk(path):
        if not path.is_file() or transfer.fault(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if part.is_symlink():  # nobody should have us write elsewhere
                part.unlink()
            try:
                with part.open("ab", buffering=0) as file:
                    transfer.run(file)
                part.replace(path)
            finally:
                with contextlib.suppress(OSError):  # it is gone if all went well
                    if not (sha256 and part.stat().st_size):
                        part.unlink()
        digits = {0: "length", 64: "SHA-256"}.get(len(sha256), f"first {len(sha256)} digits of its SHA-256")
        return Fetched(path, path.stat().st_size, transfer.received, time.monotonic() - start, f"{digits} checked")


class _Dropped(Exception):
    """An attempt that ended early; another may go on."""


class _Transfer:
    """One file on its way; an OSError that leaves it is the disk's, not the network's."""

    def __init__(self, url: str, path: Path, sha256: str, size: int | None) -> None:
        self.url, self.path, self.sha256, self.size = url, path, sha256, size
        self.part, self.received = path.with_name(f"{path.name}.part"), 0

    def refusal(self, why: str) -> DataError:
        """Returns the error that ends a download, and says what can be done without it."""
        return DataError(f"{self.url} {why}, or download it elsewhere and put it at {self.path}.")

    def run(self, file: IO[bytes]) -> None:
        """Completes and checks the part; if it is wrong, perhaps pieces of two versions, once more from the start."""
        for _ in range(2):
            for wait in (*_WAITS, None):
                try:
                    self._attempt(file)
                    break
                except _Dropped as dropped:
                    if wait is None:
                        here = self.sha256 and self.part.stat().st_size
                        again = f"run it again to go on at {_mb(here)}" if here else "try again later"
                        raise self.refusal(f"cannot be fetched: {dropped}; {again}") from dropped
                    time.sleep(wait)
            fault = self.fault(self.part)
            if not fault:
                os.fsync(file.fileno())
                return
            file.truncate(0)
        raise self.refusal(f"{fault}; nothing of it was kept; try again or another mirror")

    def fault(self, path: Path) -> str:
        """Returns what is wrong with a file; empty if it is the one that is wanted."""
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return f"gave {size} bytes, not {self.size} as expected"
        found = artifacts.sha256(path) if self.sha256 else ""
        if not found.startswith(self.sha256):
            return f"has a SHA-256 that begins with {found[:8]}, not {self.sha256[:8]} as expected"
        return ""

    def _attempt(self, file: IO[bytes]) -> None:
        """Asks for what is missing, once."""
        if not self.sha256:  # nobody would notice if the rest were another file's
            file.truncate(0)
        offset = file.seek(0, os.SEEK_END)
        if offset and offset >= (self.size or _MOST):
            return
        headers = {"User-Agent": "mmpose-notebooks", **({"Range": f"bytes={offset}-"} if offset else {})}
        try:
            request = urllib.request.Request(self.url, headers=headers)
            response = urllib.request.build_opener(_Redirects).open(request, timeout=_TIMEOUT)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and offset:  # nothing comes after it
                return
            said = " ".join(f"the server said {error.code} {error.reason}".split())  # of endless redirects: three lines
            if error.code >= 500 or error.code in (408, 429):
                raise _Dropped(said) from error
            raise self.refusal(f"cannot be fetched: {said}; check the URL or mirror") from error
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a redirect to nonsense
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                advice = "if your network has a certificate of its own, name it in SSL_CERT_FILE"
                raise self.refusal(f"cannot be trusted: {reason.verify_message}; {advice}") from error
            if isinstance(reason, socket.gaierror):
                raise self.refusal("is out of reach, this machine seems offline; connect it") from error
            raise _Dropped(getattr(reason, "strerror", None) or str(reason) or type(error).__name__) from error
        with response:
            if "html" in response.headers.get("Content-Type", ""):
                raise self.refusal("gave a web page, perhaps of your network's login; log in")
            rest = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
            if not rest:
                file.truncate(0)
                if response.status != 200:
                    raise _Dropped(f"the server said {response.status} and sent another part than was asked for")
            self._receive(response, file)

    def _receive(self, response: http.client.HTTPResponse, file: IO[bytes]) -> None:
        """Appends a response's body to the part, and no more than was announced."""
        offset = file.seek(0, os.SEEK_END)
        end = None if response.length is None else offset + response.length
        if self.size is not None and end not in (None, self.size):
            raise self.refusal(f"is {end} bytes, not {self.size} as expected; try another mirror")
        if end is None and self.size is None and not self.sha256:
            raise self.refusal("comes without a length, by which it could be checked; try another mirror")
        _require_space(self.part.parent, (end or self.size or 0) - offset)
        most = end or self.size or _MOST
        while True:
            try:
                block = response.read1(_BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise _Dropped(str(error) or type(error).__name__) from error
            if not block:
                break
            file.write(block)
            offset, self.received = file.tell(), self.received + len(block)
            if offset > most:
                file.truncate(0)
                raise self.refusal(f"is longer than the {most} bytes expected; try another mirror")
            if sys.stderr.isatty():
                line_end = "\n" if offset == end else ""
                print(f"\r{self.part.stem}: {_mb(offset)} of {_mb(most)}", end=line_end, file=sys.stderr, flush=True)
        if end is not None and offset < end:
            raise _Dropped(f"the connection ended at {offset} of {end} bytes")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from HTTPS to HTTP."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        """Returns the next request."""
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise DataError(f"{req.full_url} leads to {newurl}, which is not HTTPS; use another mirror.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextlib.contextmanager
def _on_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}; make room there and make it writable, or name "
            "another folder in MODEL_PATH or COCO_DATASETS_PATH."
        ) from error


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(str(folder)).free
    if needed > free:
        raise DataError(f"{folder} has {_mb(free)} free, of {_mb(needed)} needed; make room there and run it again.")


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keeps other processes from fetching into a folder; the system lets go of the lock however a process ends."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(ImportError, OSError):  # Windows; a read-only folder, which may have what is wanted
            import fcntl

            folder.mkdir(parents=True, exist_ok=True)
            fcntl.flock(held.enter_context((folder / ".lock").open("a")), fcntl.LOCK_EX)
        yield


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
