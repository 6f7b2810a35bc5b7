"""Videos: every frame, in order and upright; wrong ones refused in a sentence, and nothing half-written."""

from __future__ import annotations

import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest

from helpers import paths
from helpers.errors import DataError
from helpers.pose import video
from helpers.pose.decode import Poses
from helpers.pose.estimator import PoseEstimator, PoseResult

NOBODY = Poses(np.zeros((0, 17, 3), np.float32), np.zeros(0, np.float32), np.zeros((0, 2), np.float32))


def write(path, count: int = 9, width: int = 96, height: int = 64, fps: float = 10.0):
    """Frame k is as bright as 20 times k mod 12; its upper left corner is white."""
    frames = []
    for k in range(count):
        frame = np.full((height, width, 3), 20 * (k % 12), np.uint8)
        frame[: height // 4, : width // 4] = 255
        frames.append(frame)
    if path.suffix == ".mjpg":  # JPEG files one after the other: OpenCV's writer makes no odd sizes
        path.write_bytes(b"".join(cv2.imencode(".jpg", frame)[1].tobytes() for frame in frames))
        return path
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def rotated(path):
    """The same file, said to be seen turned by a quarter: the matrix of its track header is another."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30)
    path.write_bytes(data)
    return path


class Nobody:
    """An estimator that finds nobody, and takes frames three ahead of its consumer."""

    def __init__(self) -> None:
        self.shapes = []

    def stream(self, images, batch_size):
        ahead = []
        for index, image in enumerate(images):
            ahead.append(PoseResult(f"image {index}", NOBODY, stage_ms={"infer": 1.0}))
            self.shapes.append(image.shape)
            if len(ahead) == 3:
                yield ahead.pop(0)
        yield from ahead


def brightness(path) -> list[int]:
    frames = video.stills(path, 100)
    return [round(float(frame[-8:, -8:].mean()) / 20) for frame in frames]


@pytest.mark.parametrize(("width", "height"), [(96, 64), (64, 130)])
def test_every_frame_in_order_at_its_speed(tmp_path, width, height):
    source = write(tmp_path / "in.avi", width=width, height=height)
    seen, steps = [], []
    done = video.annotate(
        source,
        tmp_path / "deep" / "out.mp4",
        Nobody(),
        lambda frame, poses: frame,
        each=lambda index, second, result: seen.append((index, round(second, 3))),
        progress=lambda *at: steps.append(at),
    )
    assert (done.frames, done.announced, done.fps) == (9, 9, 10.0)
    assert brightness(done.path) == list(range(9))
    assert seen == [(k, k / 10) for k in range(9)]
    assert steps == [(k, 9) for k in range(1, 10)]
    [frame] = video.stills(done.path, 1)
    assert frame.shape[:2] == (height, width)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out.mp4"]
    assert str(done).startswith(f"{done.path.name}: 9 frames, ")
    assert str(done).endswith("(it plays at 10 per second)")


def test_frames_of_an_odd_size_get_a_repeated_border(tmp_path):
    """Codecs store colours at half the size; nothing of the image is lost, and poses stay where they are."""
    estimator = Nobody()
    source = write(tmp_path / "in.mjpg", width=97, height=65)
    done = video.annotate(source, tmp_path / "out.mp4", estimator, lambda frame, poses: frame)
    assert set(estimator.shapes) == {(65, 97, 3)}
    assert brightness(done.path) == list(range(9))
    [frame] = video.stills(done.path, 1)
    assert frame.shape == (66, 98, 3)
    assert (done.announced, done.fps) == (0, 25.0), "such a file says neither"


def test_what_is_painted_is_written(tmp_path):
    done = video.annotate(write(tmp_path / "in.mp4"), tmp_path / "out.mp4", Nobody(), lambda frame, poses: 255 - frame)
    assert brightness(done.path)[0] in (12, 13), "the first frame was black"


def test_frames_are_turned_upright(tmp_path):
    estimator = Nobody()
    source = rotated(write(tmp_path / "in.mp4"))
    done = video.annotate(source, tmp_path / "out.mp4", estimator, lambda frame, poses: frame)
    assert set(estimator.shapes) == {(96, 64, 3)}
    [frame] = video.stills(done.path, 1)
    assert frame.shape == (96, 64, 3)
    assert frame[4, -4].mean() > 200, "the white corner went to the upper right"
    assert frame[4, 4].mean() < 50


def test_no_more_frames_wait_than_the_estimator_is_ahead(tmp_path, monkeypatch):
    most, waiting = [], video.deque

    class Counted(waiting):
        def append(self, frame):
            super().append(frame)
            most.append(len(self))

    monkeypatch.setattr(video, "deque", Counted)
    video.annotate(write(tmp_path / "in.mp4", 40), tmp_path / "out.mp4", Nobody(), lambda frame, poses: frame)
    assert len(most) == 40
    assert max(most) == 3


def test_a_real_estimator_sees_every_frame(tmp_path, demo_engine):
    """The poses of a frame are those of the same image."""
    found = []
    source = write(tmp_path / "in.mp4", 5)
    estimator = PoseEstimator(demo_engine, flip_test=False, input_size=64)
    video.annotate(
        source, tmp_path / "o.mp4", estimator, lambda f, p: f, 2, lambda index, second, result: found.append(result)
    )
    wanted = estimator(video.stills(source, 5))
    assert len(found) == 5
    for result, poses in zip(found, wanted):
        assert np.array_equal(result.poses.keypoints, poses.keypoints)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "check the path"), (b"", "damaged or not a video"), (b"not a video" * 99, "damaged or not")],
)
def test_what_cannot_be_read_is_named_and_nothing_is_written(tmp_path, content, said):
    source = tmp_path / "in.mp4"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(DataError, match=said) as raised:
        video.annotate(source, tmp_path / "out.mp4", Nobody(), lambda frame, poses: frame)
    assert str(source) in str(raised.value)
    assert not (tmp_path / "out.mp4").exists()


BROKEN = """
import os, sys
import cv2  # which changes LD_LIBRARY_PATH
before = dict(os.environ)
from helpers.errors import DataError
from helpers.pose import video
assert os.environ == before, "importing"
try:
    video.stills(sys.argv[1], 1)
except DataError:
    assert os.environ == before, "reading"
"""


def test_libraries_keep_quiet_and_the_environment_stays_as_it_was(tmp_path):
    """In a process of its own: FFmpeg is told once."""
    (tmp_path / "in.mp4").write_bytes(b"not a video" * 99)
    command = [sys.executable, "-c", BROKEN, str(tmp_path / "in.mp4")]
    done = subprocess.run(command, cwd=paths.root(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_video_without_a_frame_is_refused(tmp_path):
    source = write(tmp_path / "in.avi", 0)
    with pytest.raises(DataError, match=str(source)):
        video.annotate(source, tmp_path / "out.mp4", Nobody(), lambda frame, poses: frame)
    assert [p.name for p in tmp_path.iterdir()] == ["in.avi"]


def test_a_cut_video_says_how_much_there_was(tmp_path):
    source = write(tmp_path / "in.avi", 30, 320, 240)
    data = source.read_bytes()
    source.write_bytes(data[: len(data) // 2])
    done = video.annotate(source, tmp_path / "out.mp4", Nobody(), lambda frame, poses: frame)
    assert 0 < done.frames < 30
    assert done.announced == 30
    assert f"{done.frames} frames of 30 announced" in str(done)


def test_a_failure_half_way_leaves_nothing(tmp_path):
    def paint(frame, poses):
        if frame.mean() > 100:
            raise KeyboardInterrupt
        return frame

    with pytest.raises(KeyboardInterrupt):
        video.annotate(write(tmp_path / "in.mp4"), tmp_path / "out.mp4", Nobody(), paint)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_a_name_that_is_not_a_video_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"ends in \.mp4"):
        video.annotate(write(tmp_path / "in.mp4"), tmp_path / "out.xyz", Nobody(), lambda frame, poses: frame)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_a_pan_shows_all_of_the_image_bit_by_bit(tmp_path):
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, :24], image[:, 72:] = (255, 0, 0), (0, 0, 255)
    first, *_, last = video.stills(video.pan(image, tmp_path / "pan.mp4", 5), 5)
    assert first.shape == last.shape == (64, 72, 3)
    assert first[32, 8, 0] > 200 > 50 > first[32, -8].max()
    assert last[32, -8, 2] > 200 > 50 > last[32, 8].max()


def test_videos_are_known_by_their_ending():
    assert video.is_video("a/B.MP4")
    assert not video.is_video("a/b.jpg")
    assert not video.is_video("mp4")
