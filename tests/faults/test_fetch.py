"""Downloads on a bad day: every case ends with the right file, or with one line and nothing half-made beside it.

The server is real, on 127.0.0.1, and so are full disks and read-only folders (a tmpfs) where the tests run as root.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections import Counter

import pytest

from helpers import fetch, paths, zoo
from helpers.cli import main
from helpers.dataset import CocoDataset
from helpers.errors import DataError, UsageError
from helpers.export import export
from tests.faults import official
from tests.faults.server import Fault, Server

CONTENT = random.Random(0).getrandbits(8 * 3_000_000).to_bytes(3_000_000, "little")
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Short waits, and no proxy or mirror of the machine's own."""
    monkeypatch.setattr(fetch, "_WAITS", (0.01,) * 4)
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "MMPOSE_MIRROR", "COCO_MIRROR"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def server():
    with Server({"/file": CONTENT}) as running:
        yield running


@pytest.fixture
def target(tmp_path):
    return tmp_path / "files" / "file"


def names(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} if folder.is_dir() else set()


def get(server, target, sha256=DIGEST, size=None, path="/file"):
    return fetch.download(server.url + path, target, sha256, size)


def refused(server, target, *args, **kwargs) -> str:
    """The message of a download that must fail: one line that names the URL and where the file should go."""
    with pytest.raises(DataError) as caught:
        get(server, target, *args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    assert server.url in message
    assert f"put it at {target}." in message
    assert not target.exists()
    return message


def right(server, target, *args, **kwargs):
    """A download that must succeed, and leave the file and nothing else."""
    found = get(server, target, *args, **kwargs)
    assert target.read_bytes() == server.files["/file"]
    assert names(target.parent) == {target.name}
    return found


# ----------------------------------------------------------------------------------------------- one file


def test_a_file_is_fetched_once(server, target):
    first = right(server, target, size=len(CONTENT))
    assert (first.received, first.bytes, first.checked) == (len(CONTENT), len(CONTENT), "SHA-256 checked")
    assert right(server, target).received == 0
    assert len(server.requests) == 1


def test_a_damaged_file_is_replaced(server, target):
    target.parent.mkdir()
    target.write_bytes(CONTENT[:-1])
    right(server, target)


def test_a_dropped_connection_goes_on_where_it_ended(server, target):
    """Every byte crosses the network once."""
    server.fail("/file", Fault(drop_after=1_000_000), Fault(drop_after=500_000))
    assert right(server, target).received == len(CONTENT)
    asked = [header for _, header, _ in server.requests]
    assert asked == [None, "bytes=1000000-", "bytes=1500000-"]
    assert [status for *_, status in server.requests] == [200, 206, 206]
    assert server.sent == len(CONTENT)


def test_the_next_run_goes_on_too(server, target):
    server.fail("/file", *[Fault(drop_after=100_000)] * 5)
    message = refused(server, target)
    assert "ended at 500000 of 3000000 bytes" in message
    assert "run it again to go on at 0.5 MB" in message
    assert names(target.parent) == {"file.part", "file.part.json"}
    assert (target.parent / "file.part").read_bytes() == CONTENT[:500_000]
    assert right(server, target).received == 2_500_000
    assert server.sent == len(CONTENT)


def test_headway_gives_new_attempts(server, target):
    server.fail("/file", *[Fault(drop_after=0)] * 4, Fault(drop_after=2_000_000), *[Fault(drop_after=0)] * 3)
    right(server, target)


def test_a_part_that_is_all_there_is_only_checked(server, target):
    """Killed between the last byte and the new name."""
    target.parent.mkdir()
    (target.parent / "file.part").write_bytes(CONTENT)
    assert right(server, target, size=len(CONTENT)).received == 0
    assert server.requests == []


def test_wrong_bytes(server, target):
    server.fail("/file", Fault(wrong=True))
    message = refused(server, target)
    assert f"not {DIGEST[:8]} as expected; nothing of it was kept" in message
    assert len(server.requests) == 1
    assert names(target.parent) == set()


@pytest.mark.parametrize("had", [0, 500], ids=["of this run", "of an earlier run"])
def test_wrong_bytes_in_a_rest_are_fetched_again(server, target, had):
    server.fail("/file", Fault(drop_after=1000), Fault(wrong=True))
    target.parent.mkdir()
    (target.parent / "file.part").write_bytes(CONTENT[:had])
    right(server, target)
    assert [header for _, header, _ in server.requests] == [
        f"bytes={had}-" if had else None,
        f"bytes={had + 1000}-",
        None,
    ]


@pytest.mark.parametrize(
    ("fault", "size", "said"),
    [
        (Fault(), len(CONTENT) + 1, "is 3000000 bytes, not 3000001 as expected"),
        (Fault(unsized=True), len(CONTENT) + 1, "gave 3000000 bytes, not 3000001 as expected"),
        (Fault(unsized=True), len(CONTENT) - 1, "is longer than the 2999999 bytes expected"),
    ],
    ids=["told", "too short", "too long"],
)
def test_wrong_length(server, target, fault, size, said):
    server.fail("/file", fault)
    assert said in refused(server, target, size=size)
    assert names(target.parent) == set()


def test_a_body_shorter_than_told_is_a_dropped_connection(server, target):
    server.fail("/file", *[Fault(length=len(CONTENT) + 5)] * 5)
    assert "ended at 3000000 of 3000005 bytes" in refused(server, target, "")
    right(server, target)


def test_without_length_and_checksum_nothing_vouches_for_a_file(server, target):
    server.fail("/file", Fault(unsized=True))
    assert "comes without a length" in refused(server, target, "")
    assert names(target.parent) == set()


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_is_not_there_is_not_asked_for_again(server, target, status):
    server.fail("/file", Fault(status=status))
    assert f"the server said {status}" in refused(server, target)
    assert len(server.requests) == 1
    assert names(target.parent) == set()


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_server_is_asked_again(server, target, status):
    server.fail("/file", Fault(status=status, headers=(("Retry-After", "0"),)))
    right(server, target)
    assert [each for *_, each in server.requests] == [status, 200]


def test_the_server_says_how_long_to_wait(server, target):
    server.fail("/file", Fault(status=503, headers=(("Retry-After", "1"),)))
    start = time.monotonic()
    right(server, target)
    assert time.monotonic() - start >= 1


def test_a_server_that_stays_busy(server, target):
    server.fail("/file", *[Fault(status=503)] * 5)
    assert "the server said 503" in refused(server, target)
    assert len(server.requests) == 5
    assert names(target.parent) == set()


def test_a_server_without_ranges_begins_anew(server, target):
    server.ranges = False
    server.fail("/file", Fault(drop_after=1_000_000))
    right(server, target)
    assert server.requests == [("/file", None, 200), ("/file", "bytes=1000000-", 200)]
    assert server.sent == len(CONTENT) + 1_000_000


def test_without_checksum_and_version_nothing_is_patched_together(server, target):
    """Nobody would notice if the file had changed."""
    server.validators = False
    server.fail("/file", *[Fault(drop_after=1_000_000)] * 5)
    refused(server, target, "")
    assert names(target.parent) == set()
    right(server, target, "")
    assert {header for _, header, _ in server.requests} == {None}


@pytest.mark.parametrize("sha256", [True, False], ids=["checksum", "none"])
def test_a_file_that_changed_begins_anew(server, target, sha256):
    server.fail("/file", *[Fault(drop_after=1000)] * 5)
    refused(server, target, DIGEST if sha256 else "")
    server.files["/file"] = CONTENT[::-1]
    right(server, target, hashlib.sha256(CONTENT[::-1]).hexdigest() if sha256 else "")
    assert server.requests[-1] == ("/file", "bytes=5000-", 200)


def test_a_server_that_ignores_if_range(server, target):
    """It sends the rest of the new file; the other ETag gives it away."""
    server.fail("/file", *[Fault(drop_after=1000)] * 5)
    refused(server, target, "")
    server.files["/file"], server.if_range = CONTENT[::-1], False
    right(server, target, "")
    assert [each[1:] for each in server.requests[-2:]] == [("bytes=5000-", 206), (None, 200)]


def test_a_file_that_became_shorter(server, target):
    target.parent.mkdir()
    (target.parent / "file.part").write_bytes(CONTENT)
    server.files["/file"] = CONTENT[:2000]
    right(server, target, hashlib.sha256(CONTENT[:2000]).hexdigest())
    assert [status for *_, status in server.requests] == [416, 200]


def test_redirects_are_followed_with_their_range(server, target):
    server.fail("/old", *[Fault(status=302, location="/file")] * 2)
    server.fail("/file", Fault(drop_after=1000))
    right(server, target, path="/old")
    assert [each[:2] for each in server.requests][2:] == [("/old", "bytes=1000-"), ("/file", "bytes=1000-")]


def test_redirects_without_end(server, target):
    server.fail("/file", *[Fault(status=302, location="/file")] * 100)
    assert "302" in refused(server, target)
    assert names(target.parent) == set()


def test_a_drip_counts_as_dropped(server, target, monkeypatch):
    monkeypatch.setattr(fetch, "_TIMEOUT", 0.5)
    server.fail("/file", Fault(drip=0.02))
    start = time.monotonic()
    right(server, target)
    assert time.monotonic() - start < 60, "and not the seventeen hours that three million drops take"
    assert server.requests[1][2] == 206


def test_silence_counts_as_dropped(server, target, monkeypatch):
    monkeypatch.setattr(fetch, "_TIMEOUT", 0.5)
    server.fail("/file", *[Fault(pause_after=1000)] * 5)
    assert "timed out" in refused(server, target)
    right(server, target)


def test_nobody_listens(tmp_path):
    with Server() as gone:
        url = gone.url
    with pytest.raises(DataError, match=r"refused.*put it at"):
        fetch.download(f"{url}/file", tmp_path / "file")
    assert names(tmp_path) == set()


def test_offline(tmp_path):
    with pytest.raises(DataError, match=r"http://no\.invalid/file is .* offline; download it elsewhere and put it at"):
        fetch.download("http://no.invalid/file", tmp_path / "file")
    assert names(tmp_path) == set()


def test_other_kinds_of_url(tmp_path):
    (tmp_path / "secret").write_text("a")
    with pytest.raises(UsageError, match="no http or https URL"):
        fetch.download((tmp_path / "secret").as_uri(), tmp_path / "file")


def test_a_proxy_is_used(server, target, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    fetch.download("http://no.invalid/file", target, DIGEST)
    assert target.read_bytes() == CONTENT


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """(certificate, key) of 127.0.0.1, which nobody has signed."""
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    files = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", *words.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-out", files[0], "-keyout", files[1]],
        check=True,
        capture_output=True,
    )
    return files


def test_certificates_are_checked(certificate, target, monkeypatch, server):
    with Server({"/file": CONTENT}, certificate) as secure:
        assert "cannot be trusted: self" in refused(secure, target)
        assert secure.requests == []
        assert names(target.parent) == set()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        right(secure, target)
        secure.fail("/old", Fault(status=302, location=f"{server.url}/file"))
        with pytest.raises(DataError, match="which is not HTTPS"):
            get(secure, target.with_name("other"), path="/old")
    assert server.requests == []
    assert names(target.parent) == {"file"}


def test_headway_is_shown(server, target, monkeypatch, capsys):
    """On a terminal by a bar, elsewhere by lines, and not more often than every so many seconds."""
    with fetch._shown("file") as tell:
        fetch.download(server.url + "/file", target, progress=tell)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(fetch, "_PLAIN_SECONDS", 0)
    with fetch._shown("file") as tell:
        fetch.download(server.url + "/file", target.with_name("second"), progress=tell)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "file: 3.0 MB of 3.0 MB"
    assert len(lines) > 5
    with fetch._shown("calib2017", "pictures") as tell:
        tell(1, 80)
    assert capsys.readouterr().err == "calib2017: 1 pictures of 80 pictures\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with fetch._shown("file") as tell:
        tell(1_000_000, 3_000_000)
        time.sleep(0.2)  # a bar is not drawn more often than every tenth of a second
        tell(2_000_000, 3_000_000)
    assert "| 2.00M/3.00M [" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------- the disk


@pytest.fixture
def disk(tmp_path):
    """Makes a disk of two megabytes."""
    point = tmp_path / "disk"
    point.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", point], check=False).returncode
    ):
        pytest.skip("only root can mount a small disk")
    yield point
    subprocess.run(["umount", point], check=True)


def test_a_disk_that_is_too_small_is_seen_before(server, disk):
    with pytest.raises(DataError, match=r"disk has 2\.1 MB free, of 3\.0 MB needed; make room there and run it again"):
        get(server, disk / "file")
    assert server.sent < len(CONTENT)
    assert names(disk) == set()


def test_a_disk_that_gets_full(server, disk):
    """The server does not tell the length, so nobody could know before."""
    server.fail("/file", Fault(unsized=True))
    with pytest.raises(DataError, match=r"file\.part cannot be written: No space left on device; make room there"):
        get(server, disk / "file")
    assert names(disk) == {"file.part", "file.part.json"}
    part = (disk / "file.part").read_bytes()
    assert len(part) > 1_500_000
    assert part == CONTENT[: len(part)]
    subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
    assert right(server, disk / "file").received == len(CONTENT) - len(part)


def test_a_disk_that_is_full(server, disk):
    (disk / "other").write_bytes(bytes(2 << 20))
    server.fail("/file", Fault(unsized=True))
    with pytest.raises(DataError, match=r"file\.part cannot be written: No space left on device"):
        get(server, disk / "file")
    assert len(server.requests) == 1
    assert names(disk) == {"other"}


def test_a_read_only_folder(server, disk):
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(DataError, match=r"cannot be written: Read-only file system; make the folder writable, or name"):
        get(server, disk / "models" / "file")
    assert server.requests == []


def test_unpacking_onto_a_full_disk(disk, tmp_path):
    archive = zipped(tmp_path / "a.zip", {"a/x": bytes(3_000_000)})
    with pytest.raises(DataError, match=r"has 2\.\d MB free, of 3\.0 MB needed"):
        fetch.unpack(archive, "a", disk / "a")
    with pytest.raises(DataError, match=r"has 2\.\d MB free, of 3\.0 MB needed"):
        fetch.unpack_file(archive, "a/x", disk / "x")
    assert list(disk.iterdir()) == []


def test_a_file_in_the_folders_place(server, tmp_path):
    (tmp_path / "models").write_text("mine")
    with pytest.raises(DataError, match="cannot be written"):
        get(server, tmp_path / "models" / "file")
    assert (tmp_path / "models").read_text() == "mine"


# --------------------------------------------------------------------------------- kills and companions

# Fetches an archive and unpacks it, in a process of its own.
_CHILD = """
import sys
from helpers import fetch
url, path, sha256, folder = sys.argv[1:]
found = fetch.download(url, path, sha256)
fetch.unpack(path, "data", folder)
print(found.received)
"""


def child(server, folder, archive: bytes):
    words = [server.url + "/a.zip", str(folder / "a.zip"), hashlib.sha256(archive).hexdigest(), str(folder / "data")]
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, *words],
        cwd=paths.root(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def zipped(path, files: dict[str, bytes], compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> tuple[bytes, dict[str, bytes]]:
    files = {f"data/{k:03}": CONTENT[k * 10_000 : (k + 1) * 10_000] for k in range(300)}
    return zipped(tmp_path_factory.mktemp("zip") / "a.zip", files).read_bytes(), files


def complete(folder, files) -> None:
    """What an undisturbed run leaves, and nothing else."""
    assert names(folder) == {"a.zip", *files}
    assert all((folder / name).read_bytes() == content for name, content in files.items())


@pytest.mark.parametrize("seed", range(12))
def test_killed_while_downloading(archive, tmp_path, seed):
    content, files = archive
    pause = random.Random(seed).randrange(len(content))
    with Server({"/a.zip": content}) as server:
        server.fail("/a.zip", Fault(pause_after=pause))
        first = child(server, tmp_path, content)
        assert server.paused.wait(20)
        time.sleep(random.Random(seed).uniform(0, 0.05))
        first.kill()
        assert first.wait() == -signal.SIGKILL
        first.communicate()
        assert not (tmp_path / "a.zip").exists()
        assert not (tmp_path / "data").exists()
        part = tmp_path / "a.zip.part"
        had = part.stat().st_size if part.exists() else 0
        server.go_on.set()
        second = child(server, tmp_path, content)
        out, err = second.communicate(timeout=20)
        assert (second.returncode, err) == (0, "")
        assert int(out) == len(content) - had, "what was there is not fetched again"
    complete(tmp_path, files)


@pytest.mark.parametrize("seed", range(6))
def test_killed_while_unpacking(archive, tmp_path, seed):
    content, files = archive
    with Server({"/a.zip": content}) as server:
        first = child(server, tmp_path, content)
        deadline, unfinished = time.monotonic() + 20, tmp_path / ".part-data"
        wanted = random.Random(seed).randrange(1, 250)
        while not (tmp_path / "data").exists():
            assert time.monotonic() < deadline
            time.sleep(0.001)
            with contextlib.suppress(FileNotFoundError):  # not yet there, or renamed already
                if sum(1 for _ in unfinished.iterdir()) >= wanted:
                    break
        first.kill()
        first.communicate()
        assert set(names(tmp_path / "data")) in (set(), {name[5:] for name in files})
        second = child(server, tmp_path, content)
        assert second.wait(20) == 0, second.communicate()
        second.communicate()
        assert len(server.requests) == 1
    complete(tmp_path, files)


def test_what_another_archive_left_is_not_mixed_in(archive, tmp_path):
    (tmp_path / ".part-data").mkdir()
    (tmp_path / ".part-data" / "stale").write_text("of a run that was killed")
    (tmp_path / "a.zip").write_bytes(archive[0])
    fetch.unpack(tmp_path / "a.zip", "data", tmp_path / "data")
    complete(tmp_path, archive[1])


def test_two_processes_fetch_and_unpack_once(archive, tmp_path):
    content, files = archive
    with Server({"/a.zip": content}) as server:
        server.fail("/a.zip", Fault(pause_after=1_000_000))
        both = [child(server, tmp_path, content) for _ in range(2)]
        assert server.paused.wait(20)
        time.sleep(0.5)  # the other one has come to the lock
        server.go_on.set()
        outs = [each.communicate(timeout=20) for each in both]
        assert [each.returncode for each in both] == [0, 0], outs
        assert sorted(int(out) for out, _ in outs) == [0, len(content)]
        assert server.requests == [("/a.zip", None, 200)]
        assert server.sent == len(content)
    complete(tmp_path, files)


def test_the_second_goes_on_when_the_first_is_killed(archive, tmp_path):
    content, files = archive
    with Server({"/a.zip": content}) as server:
        server.fail("/a.zip", Fault(pause_after=1_000_000))
        first = child(server, tmp_path, content)
        assert server.paused.wait(20)
        second = child(server, tmp_path, content)
        time.sleep(0.5)
        first.kill()
        first.communicate()
        out, err = second.communicate(timeout=20)
        assert (second.returncode, err) == (0, "")
        assert 0 < int(out) < len(content)
    complete(tmp_path, files)


# ------------------------------------------------------------------------------------------- archives


def entry(name: str, kind: int = stat.S_IFREG) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o644) << 16
    return info


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (entry("a/../../escaped"), "'a/../../escaped', a path that leads elsewhere"),
        (entry("../escaped"), "a path that leads elsewhere"),
        (entry("/escaped"), "'/escaped', a path that leads elsewhere"),
        (entry("C:/escaped"), "a path that leads elsewhere"),
        (entry("a\\..\\..\\escaped"), "a path that leads elsewhere"),
        (entry("a/link", stat.S_IFLNK), "'a/link', a link or device"),
        (entry("a/pipe", stat.S_IFIFO), "'a/pipe', a link or device"),
        (entry("a/good"), "'a/good' twice"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_that_nobody_needs(tmp_path, info, said):
    path = tmp_path / "in" / "a.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry("a/good"), b"good")
        archive.writestr(info, b"/etc/passwd")
    for unpack in (
        lambda: fetch.unpack(path, "a", tmp_path / "a"),
        lambda: fetch.unpack_file(path, "a/good", tmp_path / "b"),
    ):
        with pytest.raises(DataError) as caught:
            unpack()
        assert str(path) in str(caught.value)
        assert said in str(caught.value)
        assert str(caught.value).endswith("nothing was unpacked.")
    assert names(tmp_path) == {"in/a.zip"}


def test_a_bomb_is_not_lit(tmp_path, monkeypatch):
    path = zipped(tmp_path / "a.zip", {"a/zeros": bytes(20_000_000)})
    assert path.stat().st_size < 50_000
    monkeypatch.setattr(fetch, "MOST_UNPACKED", 10_000_000)
    with pytest.raises(DataError, match=r"would become 20\.0 MB, more than 10\.0 MB; nothing was unpacked"):
        fetch.unpack(path, "a", tmp_path / "a")
    assert names(tmp_path) == {"a.zip"}


def test_a_bomb_that_lies_about_its_size(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a/zeros": bytes(20_000_000)})
    size = (20_000_000).to_bytes(4, "little")
    content = path.read_bytes()
    assert content.count(size) == 2  # local header, central directory
    path.write_bytes(content.replace(size, (1000).to_bytes(4, "little")))
    with pytest.raises(DataError, match="is damaged"):
        fetch.unpack(path, "a", tmp_path / "a")
    assert names(tmp_path) == {"a.zip"}


@pytest.mark.parametrize("damage", ["cut", "flipped", "html", "gone"])
def test_damaged_archives(archive, tmp_path, damage):
    content = archive[0]
    path = tmp_path / "a.zip"
    middle = len(content) // 2
    if damage == "cut":
        path.write_bytes(content[:middle])
    elif damage == "flipped":
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    elif damage == "html":
        path.write_text("<html>moved</html>")
    with pytest.raises(DataError, match="no archive" if damage == "gone" else "is damaged") as caught:
        fetch.unpack(path, "data", tmp_path / "data")
    assert str(path) in str(caught.value)
    assert names(tmp_path) == ({"a.zip"} if damage != "gone" else set())


def test_an_archive_of_something_else(tmp_path):
    path = zipped(tmp_path / "a.zip", {"b/x": b"x"})
    with pytest.raises(DataError, match=r"has no folder val2017; is it another archive\?"):
        fetch.unpack(path, "val2017", tmp_path / "val2017")
    with pytest.raises(DataError, match=r"has no b/y; is it another archive\?"):
        fetch.unpack_file(path, "b/y", tmp_path / "y")
    assert names(tmp_path) == {"a.zip"}


# ------------------------------------------------------------------------- the official files, end to end


@pytest.fixture(scope="module")
def site():
    """What MMPose's and COCO's servers have, with demo weights and demo people; six pictures to be scored."""
    place = zoo.get("MobileNetv2").checkpoint_url[len(fetch.MMPOSE) :]
    return {**official.coco(6), place: official.checkpoint("MobileNetv2", "demo")}


@pytest.fixture
def world(site, tmp_path_factory, monkeypatch):
    """A server of the site, and folders of our own: models last over the tests, everything else does not."""
    folder = tmp_path_factory.mktemp("world")
    official.expect(monkeypatch, site)
    monkeypatch.setattr(fetch, "CALIBRATION_IMAGES", 4)
    monkeypatch.setattr(paths, "output", lambda: folder / "output")
    monkeypatch.setenv("COCO_DATASETS_PATH", str(folder / "coco"))
    monkeypatch.setenv("MODEL_PATH", str(tmp_path_factory.getbasetemp() / "official models"))
    monkeypatch.setattr("helpers.export.export.CHECK_SHAPES", [(128, 192)])
    usual = export.export.__kwdefaults__
    monkeypatch.setattr(export.export, "__kwdefaults__", {**usual, "shapes": [(128, 192)], "batches": [1]})
    with Server(site) as running:
        monkeypatch.setenv("MMPOSE_MIRROR", running.url + "/")
        monkeypatch.setenv("COCO_MIRROR", running.url)
        running.coco = folder / "coco"
        yield running


def test_coco_is_fetched_once_and_has_two_splits_that_never_meet(world, capsys):
    assert main(["fetch", "--coco"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed] == [
        str(world.coco / "annotations" / "person_keypoints_val2017.json"),
        str(world.coco / "val2017"),
        str(world.coco / "annotations" / "person_keypoints_calib2017.json"),
        str(world.coco / "calib2017"),
    ]
    scored, unscored = (CocoDataset(world.coco, split) for split in ("val2017", "calib2017"))
    assert (len(scored), len(unscored)) == (6, 4)
    assert all(len(unscored.people(image_id)) for image_id in unscored.image_ids)
    assert not {path.read_bytes() for _, path in scored} & {path.read_bytes() for _, path in unscored}
    assert [entry.name for entry in world.coco.iterdir() if entry.name.startswith(".")] == []
    before, left = len(world.requests), names(world.coco)
    assert len([path for path, *_ in world.requests if "train2017/" in path]) == 4
    assert main(["fetch", "--coco", "--json"]) == 0
    assert [each["received"] for each in json.loads(capsys.readouterr().out)] == [0] * 4
    assert (len(world.requests), names(world.coco)) == (before, left)


def test_a_coco_that_is_there_is_used_in_place(world, site):
    """Read-only, as shared data often are; the pictures of train2017 need not come over the network either."""
    with zipfile.ZipFile(io.BytesIO(site["/zips/val2017.zip"])) as pictures:
        pictures.extractall(world.coco)
    with zipfile.ZipFile(io.BytesIO(site["/annotations/annotations_trainval2017.zip"])) as annotations:
        annotations.extractall(world.coco)
    (world.coco / "train2017").mkdir()
    for path, content in site.items():
        if path.startswith("/train2017/"):
            (world.coco / path[1:]).write_bytes(content)
    assert [each.received for each in fetch.coco()] == [0] * 4
    assert world.requests == []
    (world.coco / "val2017" / CocoDataset(world.coco).path(CocoDataset(world.coco).image_ids[0]).name).unlink()
    with pytest.raises(DataError, match=r"val2017 lacks 1 of 6 pictures, first .*\.jpg; move the folder away"):
        fetch.coco()


def test_calibration_pictures_go_on_where_they_stopped(world):
    """Half of train2017 is missing at first; what came is not fetched again."""
    hidden = {path: world.files.pop(path) for path in sorted(world.files)[::2] if path.startswith("/train2017/")}
    with pytest.raises(DataError, match="the server said 404"):
        fetch.coco()
    assert not (world.coco / "calib2017").exists()
    world.files.update(hidden)
    assert [each.received > 0 for each in fetch.coco()] == [False, False, False, True]
    assert len(names(world.coco / "calib2017")) == 4
    assert max(Counter(path for path, _, status in world.requests if status == 200).values()) == 1


def test_fetching_nothing(capsys, monkeypatch):
    assert main(["fetch"]) == 2
    assert "name --model (a network, or all), --coco, or both" in capsys.readouterr().err
    assert main(["fetch", "--model", "HRnet"]) == 2
    assert "did you mean HRNet" in capsys.readouterr().err
    monkeypatch.setenv("MMPOSE_MIRROR", "/mnt/mirror")
    assert main(["fetch", "--model", "HRNet"]) == 2
    assert "MMPOSE_MIRROR is '/mnt/mirror', which is no URL" in capsys.readouterr().err


def test_from_the_official_checkpoint_to_ap(world, capsys):
    assert main(["fetch", "--model", "MobileNetv2", "--coco"]) == 0
    assert "first 8 digits of its SHA-256 checked" in capsys.readouterr().out
    chosen = ["--model", "MobileNetv2", "--weights", "official"]
    assert main(["export", "--opset", "17", *chosen]) == 0
    assert main(["build", *chosen]) == 0
    capsys.readouterr()
    assert main(["eval", "--image-num", "3", "--json", *chosen]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["weights"], record["dataset"], record["images"]) == ("official", "coco val2017", 3)
    assert record["ap"] > 0.5


def test_a_checkpoint_that_is_another_is_never_opened(world, capsys, monkeypatch):
    place = zoo.get("MobileNetv2").checkpoint_url[len(fetch.MMPOSE) :]
    world.files[place] = world.files[place][:-1] + b"x"
    path = paths.checkpoint(zoo.get("MobileNetv2").checkpoint_url)
    path.unlink(missing_ok=True)
    assert main(["fetch", "--model", "MobileNetv2"]) == 1
    assert "nothing of it was kept" in capsys.readouterr().err
    assert not path.exists()
    path.write_bytes(world.files[place])
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("opened"))
    assert main(["export", "--model", "MobileNetv2", "--weights", "official"]) == 1
    assert "is not the official checkpoint" in capsys.readouterr().err


def test_the_published_table(world, capsys):
    """Two networks have no checkpoint; the third gets its row, and a second run repeats nothing."""
    few = ["coco", "--image-num", "2", "--calibration-num", "2"]
    assert main([*few, "--calibration-split", "val2017"]) == 2
    assert "calibration pictures are also scored" in capsys.readouterr().err
    assert main(few) == 1
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert [line.split(",")[0] for line in errors] == ["error: HRNet"] * 3 + ["error: ResNet50"] * 3
    assert all("the server said 404" in line for line in errors)
    assert captured.err.splitlines()[-1] == "6 of 9 cells failed"
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in captured.out.splitlines() if "|" in line]
    table = [dict(zip(cells[0], row)) for row in cells[2:]]
    assert [row["verdict"] for row in table[:6]] == ["not measured"] * 6
    assert [row["precision"] for row in table[6:]] == list(zoo.get("MobileNetv2").published)
    for row in table[6:]:
        assert row["images"] == "2"
        assert float(row["AP"]) > 50
        assert float(row["AP difference"]) == pytest.approx(float(row["AP"]) - float(row["AP published"]), abs=0.006)
        assert row["verdict"].startswith("none on 2 of 5000 images")
    assert [row["calibrated with"] for row in table[6:]] == ["", "", "2 pictures, minmax"]
    assert f"pictures of {world.coco / 'calib2017'}, none of which is among the scored ones" in captured.out

    assert main([*few, "--model", "MobileNetv2", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("2 of 2 images from an earlier run that finished") == 3
    assert [row["AP"] for row in json.loads(captured.out)] == [row["AP"] for row in table[6:]]
