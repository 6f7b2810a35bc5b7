"""URL -> verified local file: resumed, checked, complete or not there; and what the official figures need.

    fetch.checkpoint("HRNet")       # MMPose's weights -> data/models/checkpoints/
    fetch.coco()                    # val2017, its annotations, pictures to calibrate with -> data/coco/
    fetch.download(url, path, sha256="4f7e2ccb...", size=815585330)

A download lies beside its target as `<name>.part` with `<name>.part.json`, which tells the version of the file it is
part of. It goes on where it stopped, after a kill as after a dropped connection, and is renamed when its length and
checksum are right. Needs the standard library alone; proxies (`https_proxy`) and certificates (`SSL_CERT_FILE`) are
those of the environment.

COCO's own host name has no certificate of its own: `images.cocodataset.org` is a bucket of Amazon S3, which answers
for `s3.amazonaws.com` only. So files come from there under the bucket's name, over HTTPS: the same bytes.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import shutil
import socket
import ssl
import stat
import sys
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Callable, Iterator, Mapping

from helpers import artifacts, paths, zoo
from helpers.errors import DataError, UsageError

Progress = Callable[[int, "int | None"], None]  # bytes that are here, bytes in all if known

MMPOSE = "https://download.openmmlab.com/mmpose"  # or what the variable MMPOSE_MIRROR says
COCO = "https://s3.amazonaws.com/images.cocodataset.org"  # or COCO_MIRROR

CALIBRATION_IMAGES = 80
CALIBRATION_SPLIT = "calib2017"
MOST_UNPACKED = 2 << 30  # bytes; COCO's archives have less than half of it

_WAITS = (1, 2, 4, 8)  # seconds before another attempt
_TIMEOUT = 30  # seconds without a byte
_SLOWEST = 1 << 10  # bytes per second, over as long: a connection below it is taken for dropped
_GAIN = 1 << 20  # bytes after which an attempt counts as a success, and the waits begin anew
_BLOCK = 1 << 18
_ELSEWHERE = "; make the folder writable, or name another in MODEL_PATH or COCO_DATASETS_PATH."
_PLAIN_SECONDS = 10  # between two lines where no bar can be shown


@dataclass(frozen=True)
class Archive:
    """A file of COCO's.

    Neither size nor checksum is published by COCO; those here were compared among ten projects that pin them
    independently, one of them a library of data sets.

    Attributes:
        place: below `COCO`.
        size: bytes.
        sha256: of the file.
    """

    place: str
    size: int
    sha256: str


VAL_IMAGES = Archive("zips/val2017.zip", 815585330, "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05")
ANNOTATIONS = Archive(
    "annotations/annotations_trainval2017.zip",
    252907541,
    "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
)


@dataclass(frozen=True)
class Fetched:
    """What became of one file or folder.

    Attributes:
        path: where it is.
        bytes: its size.
        received: bytes that came over the network for it, 0 if it was there.
        seconds: that it took.
        checked: what vouches for it.
    """

    path: Path
    bytes: int
    received: int
    seconds: float
    checked: str

    def __str__(self) -> str:
        """One line."""
        came = f"{_mb(self.received)} in {self.seconds:.1f} s" if self.received else "nothing to fetch"
        return f"{self.path}: {_mb(self.bytes)}, {came}, {self.checked}"


# ------------------------------------------------------------------------------------------ what to fetch


def checkpoint(model: str) -> Fetched:
    """Fetches the official weights of a network.

    Of their SHA-256 eight digits are known, from the name that the publishers gave the file: enough against damage;
    against an attacker stands HTTPS.

    Args:
        model: name of a network in `zoo`.

    Raises:
        UsageError: there is no such network; a mirror is no URL.
        DataError: as `download`.
    """
    network = zoo.get(model)
    url = _mirrored(network.checkpoint_url, MMPOSE, "MMPOSE_MIRROR")
    path = paths.checkpoint(network.checkpoint_url)
    with _shown(path.name) as tell:
        return download(url, path, network.sha256_prefix, progress=tell)


def coco() -> list[Fetched]:
    """Makes sure that COCO val2017 and pictures to calibrate with are in `paths.coco()`; what is there is used.

        annotations/person_keypoints_val2017.json    val2017/*.jpg      5000 pictures, to be scored
        annotations/person_keypoints_calib2017.json  calib2017/*.jpg    80 of train2017 with people, never scored

    The calibration pictures are a seeded sample, each fetched on its own: train2017 as a whole is 19 GB. They are
    taken from a `train2017` folder if there is one.

    Returns:
        A line for each of the four.

    Raises:
        UsageError: a mirror is no URL.
        DataError: as `download` and `unpack`; or what is there already is incomplete.
    """
    root = paths.coco()
    return [*_scored(root), *_calibration(root)]


def _scored(root: Path) -> list[Fetched]:
    annotations = _annotation_file(root, "val2017")
    people = _present(annotations) or _from_annotations(root, annotations)
    folder = root / "val2017"
    pictures = _present(folder)
    if pictures is None:
        archive = _archive(root, VAL_IMAGES)
        pictures = _unpacked(archive, unpack(archive.path, "val2017", folder))
    _require_pictures(folder, annotations)
    return [people, pictures]


def _calibration(root: Path) -> list[Fetched]:
    """A small COCO-format split of its own; its annotation file, written first, says which pictures belong to it."""
    annotations, folder = _annotation_file(root, CALIBRATION_SPLIT), root / CALIBRATION_SPLIT
    people = _present(annotations)
    if people is None:
        people = _write_calibration(root, annotations)
    pictures = _present(folder)
    if pictures is None:
        pictures = _fetch_pictures(annotations, folder, root / "train2017")
    _require_pictures(folder, annotations)
    return [people, pictures]


def _write_calibration(root: Path, path: Path) -> Fetched:
    whole, received, start = _annotation_file(root, "train2017"), 0, time.monotonic()
    if whole.is_file():
        with whole.open("rb") as file:
            document = _sample_of(_read_annotations(file, whole))
    else:
        archive = _archive(root, ANNOTATIONS)
        received = archive.received
        with _opened(archive.path) as (opened, members):
            member = _member(members, f"annotations/{whole.name}", archive.path)
            with opened.open(member) as file:
                document = _sample_of(_read_annotations(file, archive.path))
    with artifacts.atomic_write(path) as part:
        part.write_text(json.dumps(document), encoding="utf-8")
    checked = f"{len(document['images'])} pictures of train2017, seed 0"
    return Fetched(path, path.stat().st_size, received, time.monotonic() - start, checked)


def _read_annotations(file: IO[bytes], path: Path) -> dict[str, Any]:
    """Annotations without outlines, which take most of the memory and mean nothing to keypoints."""

    def without_outline(entry: dict[str, Any]) -> dict[str, Any]:
        if "segmentation" in entry:
            entry["segmentation"] = []
        return entry

    try:
        return json.load(file, object_hook=without_outline)
    except (ValueError, zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
        raise DataError(f"The annotations in {path} are damaged ({error}); delete it and fetch it again.") from error


def _sample_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """The annotations of `CALIBRATION_IMAGES` images with labelled people, drawn with a seed."""
    peopled = {entry["image_id"] for entry in document["annotations"] if entry.get("num_keypoints")}
    ids = sorted(peopled)
    random.Random(0).shuffle(ids)
    chosen = set(ids[:CALIBRATION_IMAGES])
    return {
        **{key: document[key] for key in ("info", "categories") if key in document},
        "images": [image for image in document["images"] if image["id"] in chosen],
        "annotations": [entry for entry in document["annotations"] if entry["image_id"] in chosen],
    }


def _fetch_pictures(annotations: Path, folder: Path, local: Path) -> Fetched:
    """Pictures one by one into a folder that gets its name in the end; of an earlier run's, the whole ones stay."""
    unfinished, start, received = folder.with_name(f".part-{folder.name}"), time.monotonic(), 0
    with _locked(folder.with_name(f".{folder.name}.lock")), _shown(folder.name, "pictures") as tell:
        names = _file_names(annotations)
        for done, name in enumerate(names if not folder.is_dir() else [], 1):
            target = unfinished / name
            if not target.is_file() and (local / name).is_file():
                _copy(local / name, target)
            received += download(_mirrored(f"{COCO}/train2017/{name}", COCO, "COCO_MIRROR"), target).received
            tell(done, len(names))
        _appear(unfinished, folder)
    return Fetched(folder, _size_of(folder), received, time.monotonic() - start, f"{len(names)} pictures, by length")


def _copy(source: Path, target: Path) -> None:
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(source), str(part))
        part.replace(target)
    except OSError as error:
        raise DataError(f"{target} cannot be written: {error.strerror}; make room there and run it again.") from error


def _from_annotations(root: Path, path: Path) -> Fetched:
    archive = _archive(root, ANNOTATIONS)
    return _unpacked(archive, unpack_file(archive.path, f"annotations/{path.name}", path))


def _archive(root: Path, archive: Archive) -> Fetched:
    path = root / archive.place.rsplit("/", 1)[-1]
    with _shown(path.name) as tell:
        url = _mirrored(f"{COCO}/{archive.place}", COCO, "COCO_MIRROR")
        return download(url, path, archive.sha256, archive.size, tell)


def _unpacked(archive: Fetched, path: Path) -> Fetched:
    return Fetched(path, _size_of(path), archive.received, archive.seconds, archive.checked)


def _annotation_file(root: Path, split: str) -> Path:
    return root / "annotations" / f"person_keypoints_{split}.json"


def _present(path: Path) -> Fetched | None:
    return Fetched(path, _size_of(path), 0, 0.0, "was there") if path.exists() else None


def _size_of(path: Path) -> int:
    """Bytes of a file, or of all files directly inside a folder."""
    return sum(entry.stat().st_size for entry in path.iterdir()) if path.is_dir() else path.stat().st_size


def _require_pictures(folder: Path, annotations: Path) -> None:
    names = _file_names(annotations)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder} lacks {len(missing)} of {len(names)} pictures, first {missing[0]}; move the folder away and "
            "fetch again."
        )


def _file_names(annotations: Path) -> list[str]:
    """Names of the pictures of an annotation file, none of which leads elsewhere."""
    try:
        with annotations.open("rb") as file:
            names = [image["file_name"] for image in _read_annotations(file, annotations)["images"]]
    except (OSError, KeyError, TypeError) as error:
        raise DataError(f"{annotations} is no file of annotations; move it away and fetch again.") from error
    odd = [name for name in names if not isinstance(name, str) or Path(name).name != name]
    if odd:
        raise DataError(f"{annotations} names a picture {odd[0]!r}, which is no file name; move it away, fetch again.")
    return names


def _mirrored(url: str, origin: str, variable: str) -> str:
    """The same file on the mirror that a variable of the environment names instead of the origin."""
    mirror = os.environ.get(variable)
    if not mirror:
        return url
    if not mirror.startswith(("https://", "http://")):
        raise UsageError(f"{variable} is {mirror!r}, which is no URL; it stands for {origin}.")
    return mirror.rstrip("/") + url[len(origin) :]


# ----------------------------------------------------------------------------------------------- download


def download(
    url: str, path: str | os.PathLike[str], sha256: str = "", size: int | None = None, progress: Progress | None = None
) -> Fetched:
    """Fetches a file, or finds it there.

    Two processes that want the same file do it once: the second waits. (Not on Windows, which lacks the lock.) A
    connection that drops, stalls or answers with 5xx is tried again, five times without headway; what is wrong for
    good (404, a certificate, a wrong checksum) is said at once.

    Args:
        url: HTTP or HTTPS; certificates are checked, and HTTPS is not left for HTTP on a redirect.
        path: where to; folders are made. A file there that is not the one wanted is replaced.
        sha256: hex digits of the file's SHA-256, or the first of them; without any, its length alone is checked.
        size: bytes, if known beforehand.
        progress: called with (bytes here, bytes in all or None).

    Returns:
        The file, and what it took.

    Raises:
        UsageError: not such a URL.
        DataError: it could not be fetched, is not the one that was wanted, or cannot be written; says where to put
            it by hand. What was received stays as `.part` if it can be gone on with.
    """
    if not url.startswith(("https://", "http://")):
        raise UsageError(f"{url!r} is no http or https URL.")
    path, start = Path(path).absolute(), time.monotonic()
    received = 0
    if not _is_whole(path, sha256, size):
        transfer = _Transfer(url, path, sha256, size, progress)
        try:
            with _locked(transfer.part) as file:
                if not _is_whole(path, sha256, size):  # another process may have fetched it meanwhile
                    transfer.run(file)
                    received = transfer.received
                    transfer.part.replace(path)
                    with contextlib.suppress(FileNotFoundError):
                        transfer.facts.unlink()
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror or error}{_ELSEWHERE}") from error
    checked = "length checked"
    if sha256:
        checked = "SHA-256 checked" if len(sha256) == 64 else f"first {len(sha256)} digits of its SHA-256 checked"
    return Fetched(path, path.stat().st_size, received, time.monotonic() - start, checked)


class _Dropped(Exception):
    """An attempt that ended early; another may go on."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait  # seconds that the server asks for


class _Transfer:
    """One file on its way.

    Attributes:
        part: what is here so far.
        facts: its sidecar: `etag`, `modified` and `size`, as the server told them.
        received: bytes that came over the network.
    """

    def __init__(self, url: str, path: Path, sha256: str, size: int | None, progress: Progress | None) -> None:
        self.url, self.path, self.sha256, self.size = url, path, sha256, size
        self.part, self.facts = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")
        self.progress = progress
        self.received = 0
        self._farthest = 0  # offset that any attempt came to; below it nothing counts as headway
        self._pieced = False  # whether the part came in pieces, perhaps of two versions of the file

    def run(self, file: IO[bytes]) -> None:
        """Completes and checks the part; `file` is it, opened for appending."""
        self._pieced = bool(file.seek(0, os.SEEK_END))
        try:
            self._complete(file)
            fault = self._fault(file)
            if fault and self._pieced:
                self._restart(file)
                self._complete(file)
                fault = self._fault(file)
            if fault:
                self._restart(file)
                raise DataError(
                    f"{self.url} {fault}; nothing of it was kept. Try again or another mirror, or {self._by_hand()}"
                )
            os.fsync(file.fileno())
        except BaseException:
            if not (file.seek(0, os.SEEK_END) and self._can_go_on()):
                for litter in (self.part, self.facts):
                    with contextlib.suppress(OSError):
                        litter.unlink()
            raise

    def _complete(self, file: IO[bytes]) -> None:
        waits = list(_WAITS)
        while True:
            before = self._farthest
            try:
                return self._attempt(file)
            except _Dropped as dropped:
                if self._farthest - before >= _GAIN:
                    waits = list(_WAITS)
                if not waits:
                    raise DataError(
                        f"{self.url} cannot be fetched: {dropped}; run it again to go on at "
                        f"{_mb(file.seek(0, os.SEEK_END))}, or {self._by_hand()}"
                    ) from dropped
                time.sleep(max(waits.pop(0), dropped.wait))

    def _attempt(self, file: IO[bytes]) -> None:
        """Asks for what is missing, once."""
        offset, told = file.seek(0, os.SEEK_END), self._told()
        size = self.size or told.get("size")
        if (size is not None and offset > size) or not self._can_go_on():
            self._restart(file)
            offset = 0
        if offset and offset == size:
            return
        headers = {}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if _version(told):
                headers["If-Range"] = _version(told)
        try:
            with contextlib.closing(self._open(headers, file)) as response:
                self._receive(response, file, offset, told)
        except (OSError, http.client.HTTPException) as error:
            raise _Dropped(_reason(error)) from error

    def _open(self, headers: Mapping[str, str], file: IO[bytes]) -> Any:
        request = urllib.request.Request(self.url, headers={"User-Agent": "mmpose-notebooks", **headers})
        secure = urllib.request.HTTPSHandler(context=ssl.create_default_context())
        try:
            return urllib.request.build_opener(secure, _Redirects).open(request, timeout=_TIMEOUT)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # the part is longer than the file is now
                self._restart(file)
            raise self._refusal(error) from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise DataError(
                    f"{self.url} cannot be trusted: {error.reason.verify_message}; if your network has a certificate "
                    f"of its own, SSL_CERT_FILE is the variable for it. Or {self._by_hand()}"
                ) from error
            if isinstance(error.reason, socket.gaierror):
                raise DataError(f"{self.url} is out of reach, this machine seems offline; {self._by_hand()}") from error
            raise

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        """What an error status means: another attempt, or the end."""
        told = " ".join(f"the server said {error.code} {error.reason}".split())  # of endless redirects: three lines
        if error.code >= 500 or error.code in (408, 416, 429):
            asked = error.headers.get("Retry-After", "")
            return _Dropped(told, min(int(asked), 60) if asked.isdigit() else 0)
        return DataError(f"{self.url} cannot be fetched: {told}; check the URL or mirror, or {self._by_hand()}")

    def _receive(self, response: Any, file: IO[bytes], offset: int, told: Mapping[str, Any]) -> None:
        """Appends a response's body to the part; from the start if it is not the rest of the same file."""
        now = {"etag": response.headers.get("ETag"), "modified": response.headers.get("Last-Modified")}
        length = response.headers.get("Content-Length")
        end = None if length is None else int(length)
        if response.status == 206:
            span = re.match(r"bytes (\d+)-(\d+)/(\d+|\*)$", response.headers.get("Content-Range", ""))
            changed = bool(now["etag"] and told.get("etag") and now["etag"] != told["etag"])
            if span is None or int(span.group(1)) != offset or changed:
                self._restart(file)
                raise _Dropped("the server sent another part than was asked for")
            end = int(span.group(2)) + 1
            if span.group(3) != "*" and int(span.group(3)) != end:
                raise _Dropped("the server sent less than the rest")
            self._pieced = True
        elif offset:
            self._restart(file)
            offset = 0
        if self.size is not None and end is not None and end != self.size:
            raise DataError(
                f"{self.url} is {end} bytes, not {self.size} as expected; try another mirror, or {self._by_hand()}"
            )
        if end is None and not self.sha256 and self.size is None:
            raise DataError(f"{self.url} comes without a length, by which it could be checked; {self._by_hand()}")
        with self._on_disk():
            _require_space(self.path.parent, (end or self.size or 0) - offset)
            if response.status != 206:
                self.facts.write_text(json.dumps({**now, "size": end}), encoding="utf-8")
        self._append(response, file, offset, end)

    def _append(self, response: Any, file: IO[bytes], offset: int, end: int | None) -> None:
        window, inside = time.monotonic(), 0
        while True:
            block = response.read1(_BLOCK)
            if not block:
                break
            with self._on_disk():
                file.write(block)
            offset, self.received, inside = offset + len(block), self.received + len(block), inside + len(block)
            self._farthest = max(self._farthest, offset)
            if self.size is not None and offset > self.size:
                self._restart(file)
                raise DataError(f"{self.url} is longer than the {self.size} bytes expected; {self._by_hand()}")
            if self.progress is not None:
                self.progress(offset, end)
            elapsed = time.monotonic() - window
            if elapsed > _TIMEOUT:
                if inside < _SLOWEST * elapsed:
                    raise _Dropped(f"slower than {_SLOWEST} bytes per second")
                window, inside = time.monotonic(), 0
        if end is not None and offset < end:
            raise _Dropped(f"the connection ended at {offset} of {end} bytes")

    @contextlib.contextmanager
    def _on_disk(self) -> Iterator[None]:
        """What fails here is not the network's fault, whose errors are OSErrors too."""
        try:
            yield
        except OSError as error:
            raise DataError(
                f"{self.part} cannot be written: {error.strerror}; make room there and run it again to go on."
            ) from error

    def _can_go_on(self) -> bool:
        """Whether a later mix-up of two versions of the file would be seen."""
        return bool(self.sha256 or _version(self._told()))

    def _restart(self, file: IO[bytes]) -> None:
        file.truncate(0)
        self._pieced = False

    def _told(self) -> dict[str, Any]:
        try:
            told = json.loads(self.facts.read_text(encoding="utf-8"))
            kinds = {"etag": (str, type(None)), "modified": (str, type(None)), "size": (int, type(None))}
            return {key: told[key] for key, kind in kinds.items() if isinstance(told[key], kind)}
        except (OSError, ValueError, KeyError, TypeError):  # missing, cut short, another program's
            return {}

    def _fault(self, file: IO[bytes]) -> str:
        """What is wrong with the completed part; empty if nothing."""
        size = file.seek(0, os.SEEK_END)
        if self.size is not None and size != self.size:
            return f"gave {size} bytes, not {self.size} as expected"
        found = artifacts.sha256(self.part) if self.sha256 else ""
        if not found.startswith(self.sha256):
            return f"has a SHA-256 that begins with {found[:8]}, not {self.sha256[:8]} as expected"
        return ""

    def _by_hand(self) -> str:
        return f"download it elsewhere and put it at {self.path}."


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from HTTPS to HTTP."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        """The next request."""
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise DataError(f"{req.full_url} leads to {newurl}, which is not HTTPS; use another mirror.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _version(told: Mapping[str, Any]) -> str | None:
    """What `If-Range` takes: a strong ETag, else the date; RFC 9110, 13.1.5."""
    etag = told.get("etag")
    return etag if etag and not etag.startswith("W/") else told.get("modified")


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return getattr(reason, "strerror", None) or str(reason) or type(error).__name__


def _is_whole(path: Path, sha256: str, size: int | None) -> bool:
    if not path.is_file() or (size is not None and path.stat().st_size != size):
        return False
    return not sha256 or artifacts.sha256(path).startswith(sha256)


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(str(folder)).free
    if needed > free:
        raise DataError(f"{folder} has {_mb(free)} free, of {_mb(needed)} needed; make room there and run it again.")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """A file opened for appending that no other process has locked; it is removed in the end if it is empty.

    The system lets go of the lock when a process dies, however it dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("ab", buffering=0)
        with contextlib.closing(file):
            with contextlib.suppress(ImportError):  # Windows
                import fcntl

                fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            try:
                same = os.path.samestat(os.fstat(file.fileno()), path.stat())
            except FileNotFoundError:
                same = False
            if not same:  # whoever had it has renamed or removed it meanwhile
                continue
            try:
                yield file
            finally:
                with contextlib.suppress(OSError):
                    if os.path.samestat(os.fstat(file.fileno()), path.stat()) and not path.stat().st_size:
                        path.unlink()
            return


# ------------------------------------------------------------------------------------------------- unpack


def unpack(archive: str | os.PathLike[str], prefix: str, folder: str | os.PathLike[str]) -> Path:
    """Unpacks one folder of a zip archive; it appears complete, or not at all.

    Args:
        archive: the zip file.
        prefix: the folder inside it.
        folder: what it is to be called; if it exists, nothing is done.

    Returns:
        `folder`.

    Raises:
        DataError: the archive is damaged, or has what no data set needs: a path that leads out of it, a link, the
            same name twice, encryption, more than `MOST_UNPACKED` bytes; it lacks the folder; no space, no permission.
    """
    archive, folder = Path(archive), Path(folder).absolute()
    unfinished = folder.with_name(f".part-{folder.name}")
    try:
        with _locked(folder.with_name(f".{folder.name}.lock")), _opened(archive) as (opened, members):
            if folder.is_dir():
                return folder
            wanted = {name: info for name, info in members.items() if name.startswith(f"{prefix}/")}
            if not wanted:
                raise DataError(f"{archive} has no folder {prefix}; is it another archive?")
            _require_space(folder.parent, sum(info.file_size for info in wanted.values()))
            if unfinished.exists():  # of a run that was killed
                shutil.rmtree(str(unfinished))
            try:
                for name, info in wanted.items():
                    _extract(opened, info, unfinished / name[len(prefix) + 1 :])
                _appear(unfinished, folder)
            finally:
                shutil.rmtree(str(unfinished), ignore_errors=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror or error}{_ELSEWHERE}") from error
    return folder


def unpack_file(archive: str | os.PathLike[str], member: str, path: str | os.PathLike[str]) -> Path:
    """Unpacks one file of a zip archive, under the rules of `unpack`.

    Args:
        archive: the zip file.
        member: its name inside.
        path: the file to be; an existing one is replaced.

    Raises:
        DataError: as `unpack`.
    """
    archive, path = Path(archive), Path(path)
    with _opened(archive) as (opened, members), artifacts.atomic_write(path) as part:
        info = _member(members, member, archive)
        _require_space(path.parent, info.file_size)
        _extract(opened, info, part)
    return path


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """A zip archive with its files by name, every one of them harmless."""
    if not archive.is_file():
        raise DataError(f"There is no archive {archive}; fetch it first.")
    try:
        with zipfile.ZipFile(str(archive)) as opened:
            yield opened, _harmless(opened, archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(f"{archive} is damaged ({error}); delete it and fetch it again.") from error


def _harmless(opened: zipfile.ZipFile, archive: Path) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for info in opened.infolist():
        name = info.filename
        if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
            raise DataError(f"{archive} holds {name!r}, a path that leads elsewhere; nothing was unpacked.")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DataError(f"{archive} holds {name!r}, a link or device; nothing was unpacked.")
        if info.flag_bits & 1:
            raise DataError(f"{archive} is encrypted; nothing was unpacked.")
        if name in members:
            raise DataError(f"{archive} holds {name!r} twice; nothing was unpacked.")
        if not name.endswith("/"):
            members[name] = info
    total = sum(info.file_size for info in members.values())
    if total > MOST_UNPACKED:
        raise DataError(f"{archive} would become {_mb(total)}, more than {_mb(MOST_UNPACKED)}; nothing was unpacked.")
    return members


def _member(members: Mapping[str, zipfile.ZipInfo], name: str, archive: Path) -> zipfile.ZipInfo:
    if name not in members:
        raise DataError(f"{archive} has no {name}; is it another archive?")
    return members[name]


def _extract(opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    """Writes one file. Its checksum is compared on the way; not a byte more is read than the archive announced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(info) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, _BLOCK)


def _appear(unfinished: Path, folder: Path) -> None:
    if not folder.is_dir():
        unfinished.replace(folder)


# ----------------------------------------------------------------------------------------------- progress


@contextlib.contextmanager
def _shown(name: str, unit: str = "B") -> Iterator[Progress]:
    """Shows how far something is, on standard error: a bar on a terminal, elsewhere a line every ten seconds.

    Args:
        name: of what is on its way.
        unit: what is counted: `B` for bytes, or a word.

    Yields:
        A function to be called with (done, all or None).
    """
    bar = _bar(name, unit) if sys.stderr.isatty() else None
    last = time.monotonic()

    def say(done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= _PLAIN_SECONDS:
            last = time.monotonic()
            count, whole = (_mb(n or 0) if unit == "B" else f"{n} {unit}" for n in (done, total))
            print(f"{name}: {count} of {whole}" if total else f"{name}: {count}", file=sys.stderr, flush=True)

    def move(done: int, total: int | None) -> None:
        bar.total = total
        bar.update(done - bar.n)

    try:
        yield say if bar is None else move
    finally:
        if bar is not None:
            bar.close()


def _bar(name: str, unit: str) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:  # a container
        return None
    return tqdm(desc=name, unit=unit, unit_scale=unit == "B", leave=False)


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
