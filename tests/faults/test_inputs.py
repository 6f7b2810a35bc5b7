"""Broken and odd inputs: the one at fault is named, the rest goes on, the exit status says so."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers import images, paths
from helpers.cli import main
from helpers.dataset import CocoDataset
from helpers.errors import DataError
from helpers.pose import preprocess
from helpers.pose.estimator import PoseEstimator
from tests.faults.sets import repeat_demo

SOURCE = paths.demo_data() / "val2017" / "000000020014.jpg"
PIXELS = cv2.imread(str(SOURCE))
UPRIGHT = Image.fromarray(PIXELS[..., ::-1])


def encoded(suffix: str, pixels: np.ndarray = PIXELS) -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def saved(kind: str, image: Image.Image = UPRIGHT, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def animated(kind: str, **options) -> bytes:
    """The image, then the same upside down."""
    return saved(kind, save_all=True, append_images=[UPRIGHT.rotate(180)], **options)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved("PNG", exif=exif)


BROKEN = {
    "zero.jpg": (b"", "is empty"),
    "cut.jpg": (SOURCE.read_bytes()[:9000], "cut short"),
    "cut.png": (encoded(".png")[:9000], "cut short"),
    "cut.webp": (encoded(".webp")[:9000], "damaged"),
    "cut.bmp": (encoded(".bmp")[:9000], "damaged"),
    "cut.tif": (encoded(".tif")[:9000], "damaged"),
    "letter.jpg": (b"Dear reader, this is a letter.", "not an image"),
    "long.png": (encoded(".png", np.zeros((10, 10000, 3), np.uint8)), "10000 x 10 pixels"),
    "tall.png": (encoded(".png", np.zeros((10000, 10, 3), np.uint8)), "10 x 10000 pixels"),
}
FIRST = {  # where the first frame, or the only one, is the image to the last bit
    "other.jpg": encoded(".png"),  # the ending lies
    "animated.png": animated("PNG"),
    "animated.webp": animated("WEBP", lossless=True),
    "pages.tif": animated("TIFF"),
    "sixteen.png": encoded(".png", PIXELS.astype(np.uint16) * 257),
    "two words, é ü 人.png": encoded(".png"),
}
NEAR = {"cmyk.jpg": saved("JPEG", UPRIGHT.convert("CMYK")), "animated.gif": animated("GIF")}


def folder_of(root: Path, files: dict[str, bytes]) -> Path:
    root.mkdir(parents=True)
    for name, data in files.items():
        (root / name).write_bytes(data)
    return root


@pytest.mark.parametrize("name", [*FIRST, *NEAR])
def test_odd_images_are_read(tmp_path, name):
    path = folder_of(tmp_path / "odd é", {name: {**FIRST, **NEAR}[name]}) / name
    found = images.read_image(path)
    assert found.shape == PIXELS.shape
    difference = np.abs(found.astype(int) - PIXELS).mean()
    assert difference == 0 if name in FIRST else 0 < difference < 4


def test_one_pixel_is_an_image(tmp_path):
    path = folder_of(tmp_path / "one", {"one.png": encoded(".png", np.full((1, 1, 3), 7, np.uint8))}) / "one.png"
    resized, _ = preprocess.resize_align(images.read_image(path), 64)
    assert resized.shape == (64, 64, 3)
    assert resized.max() == 7  # in the middle, fading to the black around it, as MMPose's warp does


@pytest.mark.parametrize(("orientation", "degrees"), [(3, 180), (6, 270), (8, 90)])
def test_exif_turns_images_as_in_mmpose(tmp_path, orientation, degrees):
    """mmpose 0.29 loads with `mmcv.imfrombytes(flag="color")`, which obeys EXIF: annotations mean turned pixels."""
    mmcv = pytest.importorskip("mmcv")
    path = folder_of(tmp_path / "exif", {"x.png": turned(orientation)}) / "x.png"
    found = images.read_image(path)
    np.testing.assert_array_equal(found, mmcv.imfrombytes(path.read_bytes(), flag="color", channel_order="bgr"))
    np.testing.assert_array_equal(found[..., ::-1], np.asarray(UPRIGHT.rotate(degrees, expand=True)))


@pytest.fixture
def small(demo_engine):
    """An estimator that is quick, on small inputs."""
    return PoseEstimator(demo_engine, flip_test=False, input_size=64)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_broken_images_are_named_and_the_others_go_on(small, tmp_path, capfd, batch_size):
    folder = folder_of(tmp_path / "some é", {**{k: data for k, (data, _) in BROKEN.items()}, **FIRST})
    files = sorted(folder.iterdir())
    results = {Path(o.name).name: o for o in small.stream(files, batch_size)}
    assert len(results) == len(BROKEN) + len(FIRST)
    for name in FIRST:
        assert results[name].error == ""
        assert results[name].poses is not None
    for name, (_, said) in BROKEN.items():
        assert results[name].poses is None
        assert name in results[name].error
        assert said in results[name].error
        assert "\n" not in results[name].error
    assert capfd.readouterr() == ("", ""), "no library adds its own words"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_output_that_is_not_a_number(small, monkeypatch, value, tmp_path):
    """Also from the flipped image: the second half of a batch."""
    run = small.engine.run
    for place, channel, flip in ((0, 3, False), (0, 30, False), (3, 5, True)):

        def spoilt(batch, place=place, channel=channel):
            output = run(batch).copy()
            output[place, channel, 1, 2] = value
            return output

        monkeypatch.setattr(small, "flip_test", flip)
        monkeypatch.setattr(small.engine, "run", spoilt)
        bad = place % 2
        results = list(small.stream([PIXELS, PIXELS], batch_size=2))
        assert f"image {bad}: " in results[bad].error
        assert "NaN or infinity" in results[bad].error
        assert results[1 - bad].poses is not None


# ------------------------------------------------------------------------------------------------ eval, end to end


@pytest.fixture
def command_line(home, monkeypatch, capsys):
    """Runs a command in this process: its exit status, output and lines of error."""
    from helpers.export import export

    monkeypatch.setenv("MODEL_PATH", str(home.models))
    monkeypatch.setattr(paths, "output", lambda: home.output)
    usual = export.export.__kwdefaults__
    monkeypatch.setattr(export.export, "__kwdefaults__", {**usual, "shapes": [(128, 192)], "batches": [1]})

    def run(*argv: str) -> tuple[int, str, list[str]]:
        status = main(list(argv))
        printed = capsys.readouterr()
        return status, printed.out, printed.err.splitlines()

    return run


def eval_of(root: Path, *more: str) -> tuple[str, ...]:
    return ("eval", "--data", str(root), "--no-flip", *more)


def test_eval_names_the_bad_image_and_takes_the_rest_up_once_it_is_repaired(command_line, home, tmp_path):
    dataset = repeat_demo(tmp_path / "coco", 3, distinct=3)
    calm = command_line(*eval_of(dataset.root, "--json"))
    spoilt = dataset.path(2)
    good = spoilt.resolve()
    spoilt.unlink()
    spoilt.write_bytes(good.read_bytes()[:5000])
    status, out, errors = command_line(*eval_of(dataset.root, "--fresh", "--out", str(tmp_path / "x.json")))
    assert status == 1
    assert "3 of 3 images" in out
    assert len(errors) == 2
    assert str(spoilt) in errors[0]
    assert errors[1] == "1 of 3 images failed"
    assert {r["image_id"] for r in json.loads((tmp_path / "x.json").read_text())} <= {1, 3}

    spoilt.write_bytes(good.read_bytes())
    status, out, errors = command_line(*eval_of(dataset.root, "--json"))
    assert status == 0
    assert errors == ["2 of 3 images from an earlier run that stopped"]
    assert json.loads(out)["coco_stats"] == json.loads(calm[1])["coco_stats"]


def test_eval_in_which_no_image_can_be_used(command_line, home, tmp_path):
    dataset = repeat_demo(tmp_path / "coco", 2, distinct=2)
    for _, path in dataset:
        path.unlink()
        path.write_bytes(b"")
    status, out, errors = command_line(*eval_of(dataset.root))
    assert (status, out, len(errors)) == (1, "", 1)
    assert "Not one of 2 images" in errors[0]
    assert str(dataset.path(1)) in errors[0]
    assert not (home.output / "records").exists()


def change(document: dict, what: str) -> None:
    if what == "unknown image":
        document["annotations"][1]["image_id"] = 999
    elif what == "no keypoints":
        del document["annotations"][1]["keypoints"]
    elif what == "too few keypoints":
        document["annotations"][1]["keypoints"] = [1, 2, 2]
    elif what == "no images":
        document["images"] = []
    elif what == "no such file":
        document["images"][1]["file_name"] = "gone.jpg"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("unknown image", "Annotation 2 in {file} is of image 999, which the file does not list"),
        ("no keypoints", "Annotation 2 in {file} has no usable 'keypoints'"),
        ("too few keypoints", "Annotation 2 in {file} has 3 keypoint numbers instead of 51"),
        ("no images", "{file} list no image"),
        ("no such file", "gone.jpg"),
        ("truncated", "{file} are not valid JSON"),
    ],
)
def test_annotations_that_cannot_be_used(command_line, home, tmp_path, what, said):
    root = repeat_demo(tmp_path / "coco", 3, distinct=3).root
    file = root / "annotations" / "person_keypoints_val2017.json"
    document = json.loads(file.read_text())
    assert len(document["annotations"]) > 1
    change(document, what)
    text = json.dumps(document)
    file.write_text(text[: len(text) // 2] if what == "truncated" else text)
    status, out, errors = command_line(*eval_of(root))
    assert (status, out, len(errors)) == (1, "", 1)
    assert said.format(file=file) in errors[0]
    assert not home.output.exists()
    with pytest.raises(DataError):
        CocoDataset(root)


def test_annotations_without_people(command_line, home, tmp_path):
    """Nobody to find: nothing is measured, which is neither 0 nor an error."""
    root = repeat_demo(tmp_path / "coco", 2, distinct=2).root
    file = root / "annotations" / "person_keypoints_val2017.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": []}))
    status, out, errors = command_line(*eval_of(root))
    assert (status, errors) == (0, [])
    assert "AP      -" in out
    assert "(2 of 2 images, 0 people)" in out
    [record] = (home.output / "records").glob("*.json")
    assert "ap" not in json.loads(record.read_text())


def test_infer_goes_on_after_broken_images(command_line, tmp_path):
    some = {name: BROKEN[name][0] for name in ("zero.jpg", "cut.bmp", "long.png")}
    folder = folder_of(tmp_path / "images é", {**some, "two words, é.png": FIRST["other.jpg"]})
    status, out, errors = command_line("infer", str(folder), "--no-flip", "--out", str(tmp_path / "painted"))
    assert status == 1
    assert [line.startswith("error: ") for line in errors] == [True, True, True, False]
    assert errors[-1] == "3 of 4 images failed"
    assert out.count(" person") + out.count(" people") == 1
    assert sorted(p.name for p in (tmp_path / "painted").iterdir()) == ["poses.json", "two words, é.png"]
