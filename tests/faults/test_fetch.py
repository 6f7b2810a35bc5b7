"""Downloads on a bad day: every case ends with the right file, or with one line and nothing half-made beside it.

The server is real, on 127.0.0.1, and so are full disks and read-only folders (a tmpfs) where the tests run as root.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import signal
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
    """What lies in a folder, but for the locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)) for path in files}


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
    asked = [("/file", None, 200), ("/file", "bytes=1000000-", 206), ("/file", "bytes=1500000-", 206)]
    assert server.requests == asked
    assert server.sent == len(CONTENT)


def test_the_next_run_goes_on_too(server, target):
    server.fail("/file", *[Fault(drop_after=100_000)] * 5)
    message = refused(server, target)
    assert "ended at 500000 of 3000000 bytes" in message
    assert "run it again to go on at 0.5 MB" in message
    assert names(target.parent) == {"file.part"}
    assert right(server, target).received == 2_500_000
    assert server.sent == len(CONTENT)


def test_without_a_checksum_nothing_is_patched_together(server, target):
    """Nobody would notice if the file had changed meanwhile."""
    server.fail("/file", *[Fault(drop_after=1_000_000)] * 5)
    refused(server, target, "")
    assert names(target.parent) == set()
    (target.parent / "file.part").write_bytes(b"of a killed run")
    right(server, target, "")
    assert {header for _, header, _ in server.requests} == {None}


@pytest.mark.parametrize("size", [len(CONTENT), None], ids=["size known", "unknown"])
def test_a_part_that_is_all_there_is_only_checked(server, target, size):
    """Killed between the last byte and the new name."""
    target.parent.mkdir()
    (target.parent / "file.part").write_bytes(CONTENT)
    assert right(server, target, size=size).received == 0
    assert server.sent == 0


@pytest.mark.parametrize("had", [CONTENT[:500], CONTENT[::-1][:500], CONTENT + b"more"], ids=["rest", "part", "longer"])
def test_wrong_bytes_are_fetched_once_more_from_the_start(server, target, had):
    server.fail("/file", Fault(wrong=True))
    target.parent.mkdir()
    (target.parent / "file.part").write_bytes(had)
    if len(had) > len(CONTENT):
        server.fail("/file")
    right(server, target)
    assert [header for _, header, _ in server.requests] == [f"bytes={len(had)}-", None]


def test_bytes_that_stay_wrong_are_not_kept(server, target):
    server.fail("/file", *[Fault(wrong=True)] * 2)
    assert f"not {DIGEST[:8]} as expected; nothing of it was kept;" in refused(server, target)
    assert len(server.requests) == 2
    assert names(target.parent) == set()


@pytest.mark.parametrize(
    ("fault", "sha256", "size", "said"),
    [
        (Fault(), DIGEST, len(CONTENT) + 1, "is 3000000 bytes, not 3000001 as expected"),
        (Fault(unsized=True), DIGEST, len(CONTENT) + 1, "gave 3000000 bytes, not 3000001 as expected"),
        (Fault(unsized=True), DIGEST, len(CONTENT) - 1, "is longer than the 2999999 bytes expected"),
        (Fault(unsized=True, endless=True), DIGEST, len(CONTENT), "is longer than the 3000000 bytes expected"),
        (Fault(unsized=True, endless=True), DIGEST, None, "is longer than the 4000000 bytes expected"),
        (Fault(unsized=True), "", None, "comes without a length"),
        (Fault(headers=(("Content-Type", "text/html; charset=utf-8"),)), "", None, "gave a web page"),
        (Fault(status=204), "", None, "the server said 204"),
        (Fault(length=len(CONTENT) + 5), "", None, "ended at 3000000 of 3000005 bytes"),
    ],
    ids=["told", "short", "long", "endless", "endless, unpinned", "unsized", "portal", "no content", "cut"],
)
def test_another_body_than_was_wanted(server, target, monkeypatch, fault, sha256, size, said):
    monkeypatch.setattr(fetch, "_MOST", 4_000_000)
    server.fail("/file", *[fault] * 5)
    assert said in refused(server, target, sha256, size)
    assert names(target.parent) == set()
    assert server.sent < 5 * len(CONTENT) + 4_000_000 or not fault.endless


def test_a_web_page_takes_nothing_of_a_part(server, target):
    """A network's login page in the middle of a download."""
    server.fail("/file", Fault(drop_after=1000), Fault(headers=(("Content-Type", "text/html"),)))
    refused(server, target)
    assert right(server, target).received == len(CONTENT) - 1000


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_is_not_there_is_not_asked_for_again(server, target, status):
    server.fail("/file", Fault(status=status))
    assert f"the server said {status}" in refused(server, target)
    assert len(server.requests) == 1
    assert names(target.parent) == set()


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_server_is_asked_again(server, target, status):
    server.fail("/file", *[Fault(status=status)] * 4)
    right(server, target)
    server.fail("/file", *[Fault(status=status)] * 5)
    assert f"the server said {status}" in refused(server, target.with_name("other"))
    assert [each for *_, each in server.requests] == [status] * 4 + [200] + [status] * 5


def test_a_server_without_ranges_begins_anew(server, target):
    server.ranges = False
    server.fail("/file", Fault(drop_after=1_000_000))
    right(server, target)
    assert server.requests == [("/file", None, 200), ("/file", "bytes=1000000-", 200)]


def test_redirects_are_followed_with_their_range(server, target):
    server.fail("/old", *[Fault(status=302, location="/file")] * 2)
    server.fail("/file", Fault(drop_after=1000))
    right(server, target, path="/old")
    assert [each[:2] for each in server.requests][2:] == [("/old", "bytes=1000-"), ("/file", "bytes=1000-")]


@pytest.mark.parametrize("location", ["/file", "http://127.0.0.1:port/"], ids=["endless", "nonsense"])
def test_redirects_that_lead_nowhere(server, target, location):
    server.fail("/file", *[Fault(status=302, location=location)] * 100)
    refused(server, target)
    assert names(target.parent) == set()


def test_silence_counts_as_dropped(server, target, monkeypatch):
    monkeypatch.setattr(fetch, "_TIMEOUT", 0.5)
    server.fail("/file", *[Fault(pause_after=1000)] * 5)
    assert "timed out" in refused(server, target)
    right(server, target)


def test_nobody_listens(target, monkeypatch):
    with Server() as gone:
        pass
    assert "refused" in refused(gone, target)
    monkeypatch.setattr(Server, "url", "http://no.invalid")
    assert "http://no.invalid/file is out of reach, this machine seems offline; connect it" in refused(gone, target)
    assert names(target.parent) == set()


def test_other_kinds_of_url(tmp_path):
    (tmp_path / "secret").write_text("a")
    with pytest.raises(UsageError, match="not an http or https URL"):
        fetch.download((tmp_path / "secret").as_uri(), tmp_path / "file")


def test_a_proxy_is_used(server, target, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    fetch.download("http://no.invalid/file", target, DIGEST)
    assert target.read_bytes() == CONTENT


@pytest.fixture
def certificate(tmp_path):
    """(certificate, key) of 127.0.0.1, which nobody has signed."""
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificate")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
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
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        right(secure, target)
        secure.fail("/old", Fault(status=302, location=f"{server.url}/file"))
        with pytest.raises(DataError, match="which is not HTTPS"):
            get(secure, target.with_name("other"), path="/old")
    assert server.requests == []
    assert names(target.parent) == {"file"}


def test_a_terminal_sees_how_far_it_is(server, target, monkeypatch, capsys):
    right(server, target)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    right(server, target, size=len(CONTENT))
    target.unlink()
    right(server, target, size=len(CONTENT))
    assert capsys.readouterr().err.endswith("\rfile: 3.0 MB of 3.0 MB\n")


# -------------------------------------------------------------------------------------------- the disk


def test_a_link_in_the_parts_place_is_not_followed(server, target):
    """As somebody else could leave it in a folder that is shared."""
    target.parent.mkdir()
    precious = target.parent.with_name("precious")
    precious.write_text("mine")
    (target.parent / "file.part").symlink_to(precious)
    right(server, target)
    assert precious.read_text() == "mine"


@pytest.fixture
def disk(tmp_path):
    """Makes a disk of two megabytes."""
    point = tmp_path / "disk"
    point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", point]
    if os.geteuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield point
    subprocess.run(["umount", point], check=True)


def test_a_disk_that_is_too_small_is_seen_before(server, disk):
    with pytest.raises(DataError, match=r"disk has 2\.1 MB free, of 3\.0 MB needed; make room there and run it again"):
        get(server, disk / "file")
    assert names(disk) == set()


def test_a_disk_that_gets_full(server, disk):
    """The server does not tell the length, so nobody could know before."""
    server.fail("/file", Fault(unsized=True))
    with pytest.raises(DataError, match=r"file cannot be written: No space left on device; make room there"):
        get(server, disk / "file")
    assert names(disk) == {"file.part"}
    part = (disk / "file.part").read_bytes()
    assert len(part) > 1_500_000
    assert part == CONTENT[: len(part)]
    subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
    assert right(server, disk / "file").received == len(CONTENT) - len(part)


def test_a_read_only_folder(server, disk):
    (disk / "there").write_bytes(CONTENT[:1000])
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(DataError, match=r"cannot be written: Read-only file system; make room there and make it writ"):
        get(server, disk / "models" / "file")
    assert get(server, disk / "there", hashlib.sha256(CONTENT[:1000]).hexdigest()).received == 0
    assert server.requests == []


def test_a_file_in_the_folders_place(server, tmp_path):
    (tmp_path / "models").write_text("mine")
    with pytest.raises(DataError, match="cannot be written"):
        get(server, tmp_path / "models" / "file")
    assert (tmp_path / "models").read_text() == "mine"


# --------------------------------------------------------------------------------- kills and companions

_CHILD = """
import sys
from helpers import fetch
url, path, sha256 = sys.argv[1:]
print(fetch.download(url, path, sha256).received)
"""


def child(server, target):
    """A process that fetches the file."""
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, server.url + "/file", str(target), DIGEST],
        cwd=paths.root(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("seed", range(4))
def test_killed_while_downloading(server, target, seed):
    server.fail("/file", Fault(pause_after=random.Random(seed).randrange(len(CONTENT))))
    first = child(server, target)
    assert server.paused.wait(20)
    time.sleep(random.Random(seed).uniform(0, 0.05))
    first.kill()
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert names(target.parent) <= {"file.part"}
    part = target.with_name("file.part")
    had = part.stat().st_size if part.exists() else 0
    server.go_on.set()
    assert right(server, target).received == len(CONTENT) - had, "what was there is not fetched again"


@pytest.mark.parametrize("killed", [False, True])
def test_two_processes_fetch_once(server, target, killed):
    """The second goes on when the first is killed."""
    server.fail("/file", Fault(pause_after=1_000_000))
    first = child(server, target)
    assert server.paused.wait(20)
    second = child(server, target)
    time.sleep(1)  # it has come to the lock
    if killed:
        first.kill()
    server.go_on.set()
    outs = [each.communicate(timeout=20) for each in (first, second)]
    assert [each.returncode for each in (first, second)] == [-signal.SIGKILL if killed else 0, 0], outs
    if killed:
        assert 0 < int(outs[1][0]) < len(CONTENT)
    else:
        assert [int(out) for out, _ in outs] == [len(CONTENT), 0]
        assert server.requests == [("/file", None, 200)]
    assert names(target.parent) == {"file"}
    assert target.read_bytes() == CONTENT


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
    """And nothing is left of what a killed run had unpacked."""
    (world.coco / ".part-val2017" / "val2017").mkdir(parents=True)
    (world.coco / ".part-val2017" / "val2017" / "stale").write_text("of a run that was killed")
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
    assert len(list((world.coco / "val2017").iterdir())) == 6
    assert not [name for name in names(world.coco) if "part" in name]
    before, left = len(world.requests), names(world.coco)
    assert len([path for path, *_ in world.requests if "train2017/" in path]) == 4
    assert main(["fetch", "--coco", "--json"]) == 0
    assert [each["received"] for each in json.loads(capsys.readouterr().out)] == [0] * 4
    assert (len(world.requests), names(world.coco)) == (before, left)


def test_a_coco_that_is_there_is_used_in_place(world, site):
    """The images of train2017 need not come over the network either."""
    with zipfile.ZipFile(io.BytesIO(site["/zips/val2017.zip"])) as images:
        images.extractall(world.coco)
    with zipfile.ZipFile(io.BytesIO(site["/annotations/annotations_trainval2017.zip"])) as annotations:
        annotations.extractall(world.coco)
    (world.coco / "train2017").mkdir()
    for path, content in site.items():
        if path.startswith("/train2017/"):
            (world.coco / path[1:]).write_bytes(content)
    assert [each.received for each in fetch.coco()] == [0] * 4
    assert world.requests == []
    (world.coco / "val2017" / CocoDataset(world.coco).path(CocoDataset(world.coco).image_ids[0]).name).unlink()
    with pytest.raises(DataError, match=r"val2017 lacks 1 of 6 images, first .*\.jpg; move the folder away"):
        fetch.coco()


@pytest.mark.parametrize("page", [None, b"<html>please log in</html>"], ids=["missing", "a login page"])
def test_calibration_images_go_on_where_they_stopped(world, page):
    """Half of train2017 is missing at first; what came is not fetched again."""
    hidden = {path: world.files.pop(path) for path in sorted(world.files)[::2] if path.startswith("/train2017/")}
    world.files.update({path: page for path in hidden if page})
    with pytest.raises(DataError, match="did not give an image" if page else "the server said 404"):
        fetch.coco()
    assert not (world.coco / "calib2017").exists()
    world.files.update(hidden)
    assert [each.received > 0 for each in fetch.coco()] == [False, False, False, True]
    assert len(names(world.coco / "calib2017")) == 4
    asked = Counter(path for path, _, status in world.requests if status == 200)
    assert sorted(asked.values())[-2:] == ([1, 2] if page else [1, 1])


def test_archives_cannot_write_elsewhere(world, monkeypatch, tmp_path):
    """Even one whose checksum is right."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(f"val2017/{tmp_path}/absolute", b"x")
        archive.writestr("val2017/../../../escaped", b"x")
    place = fetch.VAL_IMAGES[0]
    world.files[f"/{place}"] = content.getvalue()
    monkeypatch.setattr(fetch, "VAL_IMAGES", (place, None, hashlib.sha256(content.getvalue()).hexdigest()))
    with pytest.raises(DataError, match="val2017 lacks 6 of 6 images"):
        fetch.coco()
    assert names(tmp_path) == set()
    assert not list(world.coco.parent.rglob("escaped")) or (world.coco / "val2017" / "escaped").is_file()


def test_fetching_nothing(capsys, monkeypatch):
    assert main(["fetch"]) == 2
    assert "name --model (a network, or all), --coco, or both" in capsys.readouterr().err
    assert main(["fetch", "--model", "HRnet"]) == 2
    assert "did you mean HRNet" in capsys.readouterr().err
    monkeypatch.setenv("MMPOSE_MIRROR", "/mnt/mirror")
    assert main(["fetch", "--model", "HRNet"]) == 2
    assert "MMPOSE_MIRROR must be a URL, not '/mnt/mirror'" in capsys.readouterr().err


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
    assert main([*few, "--calibration-data", str(world.coco / "val2017")]) == 2
    assert "calibration images are also scored" in capsys.readouterr().err
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
        assert "AP published" not in row
        assert row["verdict"] == "none: 2 images of coco val2017, not all 5000 of COCO val2017"
    assert [row["calibrated with"] for row in table[6:]] == ["", "", "2 images, minmax"]

    assert main([*few, "--model", "MobileNetv2", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("2 of 2 images from an earlier run that finished") == 3
    assert [row["AP"] for row in json.loads(captured.out)] == [row["AP"] for row in table[6:]]
