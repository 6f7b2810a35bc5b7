"""Every kind of image is read, and broken ones are refused."""

from __future__ import annotations

import io
import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers import images
from helpers.errors import DataError
from helpers.images import list_images, read_image

WIDTH, HEIGHT = 64, 40
ROWS, COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH]
RGB = np.stack([COLUMNS * 4, ROWS * 6, (ROWS + COLUMNS) * 2], axis=-1).astype(np.uint8)  # smooth, for lossy files
GRAY = np.asarray(Image.fromarray(RGB).convert("L"))
IMAGE = Image.fromarray(RGB)


def encode(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.fixture
def read(tmp_path):
    """Writes bytes to a file, reads it as an image."""

    def write_and_read(data: bytes, name: str = "image.bin") -> np.ndarray:
        path = tmp_path / name
        path.write_bytes(data)
        return read_image(path)

    return write_and_read


def assert_pixels(image: np.ndarray, rgb: np.ndarray, tolerance: int = 0) -> None:
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    assert image.shape == rgb.shape
    assert np.abs(image[..., ::-1].astype(int) - rgb).max() <= tolerance


@pytest.mark.parametrize(
    "options", [{"quality": 30}, {"quality": 95, "subsampling": 0}, {"progressive": True}, {"optimize": True}]
)
@pytest.mark.parametrize("size", [(64, 40), (1, 1), (333, 257)])
def test_jpeg_is_cv2_imread_bit_for_bit(tmp_path, options, size):
    path = tmp_path / "plain.jpg"
    path.write_bytes(encode(IMAGE.resize(size), "JPEG", **options))
    image = read_image(str(path))
    np.testing.assert_array_equal(image, cv2.imread(str(path)))
    assert image.shape == (size[1], size[0], 3) and image.dtype == np.uint8 and image.flags.c_contiguous


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize(
    ("file_format", "options"),
    [("JPEG", {"quality": 95, "subsampling": 0}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})],
)
def test_exif_orientation(read, file_format, options, value):
    data = encode(IMAGE, file_format, exif=orientation(value), **options)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert upright.shape == ((HEIGHT, WIDTH, 3) if value < 5 else (WIDTH, HEIGHT, 3))
    assert_pixels(read(data), upright, tolerance=1)  # 1: two JPEG decoders


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_lossless_formats(read, file_format, mode):
    image = IMAGE.convert(mode)
    options = {"lossless": True} if file_format == "WEBP" else {}
    assert_pixels(read(encode(image, file_format, **options)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP", "BMP"])
def test_alpha_is_dropped_not_composited(read, file_format):
    rgba = np.dstack([RGB, (COLUMNS * 4).astype(np.uint8)])
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    assert_pixels(read(encode(Image.fromarray(rgba), file_format, **options)), RGB)


def test_gray_with_alpha_and_transparent_palette(read):
    assert_pixels(read(encode(IMAGE.convert("RGBA").convert("LA"), "PNG")), np.dstack([GRAY] * 3))
    palette = IMAGE.quantize(64)
    assert_pixels(read(encode(palette, "PNG", transparency=3)), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("low_byte", [0, 77, 255])
def test_of_16_bits_the_upper_8_are_kept(read, suffix, low_byte):
    gray = GRAY.astype(np.uint16) * 256 + low_byte
    assert_pixels(read(cv2.imencode(suffix, gray)[1].tobytes()), np.dstack([GRAY] * 3))
    bgr = RGB[..., ::-1].astype(np.uint16) * 256 + low_byte
    assert_pixels(read(cv2.imencode(suffix, bgr)[1].tobytes()), RGB)


def test_cmyk(read):
    cmyk = IMAGE.convert("CMYK")
    jpeg = encode(cmyk, "JPEG", quality=98, subsampling=0)
    assert_pixels(read(jpeg), np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")), tolerance=1)
    assert_pixels(read(encode(cmyk, "TIFF")), np.asarray(cmyk.convert("RGB")))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiff_compressions(read, compression):
    assert_pixels(read(encode(IMAGE, "TIFF", compression=compression)), RGB)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_tiff_of_32_bit_samples(read, mode):
    with pytest.raises(DataError, match=rf"image\.bin holds {mode} samples.*convert"):
        read(encode(Image.fromarray(GRAY).convert(mode), "TIFF"))


def test_tiff_asks_for_pillow_where_it_is_missing(read, monkeypatch):
    tiff, jpeg = encode(IMAGE, "TIFF"), encode(IMAGE, "JPEG")
    for name in [name for name in sys.modules if name.partition(".")[0] == "PIL"]:
        monkeypatch.setitem(sys.modules, name, None)  # what makes `import` fail
    with pytest.raises(DataError, match=r"image\.bin needs Pillow; `pip install pillow`"):
        read(tiff)
    assert read(jpeg).shape == (HEIGHT, WIDTH, 3)


def test_any_characters_in_the_path(read):
    assert_pixels(read(encode(IMAGE, "PNG"), name="人 où? 100 %.png"), RGB)


def assert_refused(read, data: bytes, message: str, capfd) -> None:
    """The file is named, there is a cure, and no library writes to standard error besides."""
    with pytest.raises(DataError, match=rf"(?s)image\.bin.*{message}.*;"):
        read(data)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": orientation(6)}])
@pytest.mark.parametrize("kept", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("padding", [b"", bytes(1000), b"\xff" * 100_000], ids=["cut", "zeros", "ones"])
def test_truncated_jpeg(read, capfd, options, kept, padding):
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), "JPEG", **options)
    assert_refused(read, data[: int(len(data) * kept)] + padding, "cut short", capfd)


def test_jpeg_without_its_last_bytes(read, capfd):
    data = encode(IMAGE, "JPEG")
    for cut in (1, 2, 3):
        assert_refused(read, data[:-cut], "cut short", capfd)


def test_a_thumbnail_does_not_stand_in_for_the_image(read, capfd):
    thumbnail = encode(IMAGE.resize((16, 10)), "JPEG")
    whole = encode(IMAGE.resize((200, 150)), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    with_thumbnail = whole[:2] + segment + whole[2:]
    assert read(with_thumbnail).shape == (150, 200, 3)
    assert_refused(read, with_thumbnail[:-200] + bytes(200), "cut short", capfd)
    only_the_thumbnail = with_thumbnail[: 2 + len(segment)]  # ends at an end marker, that of the thumbnail
    assert_refused(read, only_the_thumbnail, "cut short", capfd)


def test_bytes_after_the_end_do_no_harm(read):
    jpeg, png = encode(IMAGE, "JPEG", quality=95, subsampling=0), encode(IMAGE, "PNG")
    for tail in (bytes(500), b"maker's notes" * 50, jpeg):
        assert_pixels(read(jpeg + tail), np.asarray(Image.open(io.BytesIO(jpeg))), tolerance=1)
        assert_pixels(read(png + tail), RGB)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_other_truncated_images(read, capfd, file_format, kept):
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), file_format)
    assert_refused(read, data[: int(len(data) * kept)], "cut short|damaged", capfd)


def test_truncated_bmp(read):
    with pytest.raises(DataError, match=r"image\.bin is damaged"):  # OpenCV writes to standard error here
        read(encode(IMAGE, "BMP")[:3000])


@pytest.mark.parametrize("data", [b"not an image at all", b"<html>404</html>", b"\xff\xd8", bytes(1000), b"II*\0"])
def test_not_an_image(read, capfd, data):
    assert_refused(read, data, "damaged|cut short", capfd)


def test_no_file(tmp_path, read, capfd):
    assert_refused(read, b"", "is empty", capfd)
    with pytest.raises(DataError, match=r"nowhere\.jpg: No such file"):
        read_image(tmp_path / "nowhere.jpg")
    with pytest.raises(DataError, match="Is a directory"):
        read_image(tmp_path)


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@pytest.mark.parametrize("side", [20_000, 60_000, 2**31 - 1])
def test_a_small_png_claiming_to_be_huge(read, capfd, side):
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
    assert_refused(read, bomb, "claims a size", capfd)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_small_jpeg_claiming_to_be_huge(read, capfd, options):
    data = bytearray(encode(IMAGE, "JPEG", **options))
    frame = data.find(b"\xff\xc2" if options else b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 20_000, 20_000)
    assert_refused(read, bytes(data), "claims a size", capfd)


def test_other_formats_stop_at_opencvs_own_limit(read):
    header = b"P6 60000 60000 255\n"
    with pytest.raises(DataError, match=r"image\.bin claims a size"):
        read(header + bytes(100))


def test_a_small_tiff_claiming_to_be_huge(read, capfd):
    data = bytearray(encode(IMAGE, "TIFF"))
    for tag in (256, 257):  # ImageWidth and ImageLength: tag, type, count, value
        entry = data.find(struct.pack("<HHI", tag, 3, 1))
        entry = entry if entry >= 0 else data.find(struct.pack("<HHI", tag, 4, 1))
        data[entry : entry + 12] = struct.pack("<HHII", tag, 4, 1, 20_000)
    assert_refused(read, bytes(data), "claims a size", capfd)


def test_list_images(tmp_path):
    for name in ("b.JPG", "a.jpeg", "c.Png", "d.txt", "e.tif", "._b.JPG", "f.webp", "g.bmp", "noextension"):
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    found = [path.name for path in list_images(str(tmp_path))]
    assert found == ["a.jpeg", "b.JPG", "c.Png", "e.tif", "f.webp", "g.bmp"]


def test_list_images_of_no_images(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"holds no image; put .*\.jpg"):
        list_images(tmp_path)
    with pytest.raises(DataError, match="There is no image folder"):
        list_images(tmp_path / "nowhere")


def test_the_log_level_comes_back_after_overlapping_blocks():
    """Threads read images at once, and the one that came first need not end first."""
    level = cv2.utils.logging.getLogLevel()
    first, second = images.opencv_silenced(), images.opencv_silenced()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert cv2.utils.logging.getLogLevel() == cv2.utils.logging.LOG_LEVEL_SILENT
    second.__exit__(None, None, None)
    assert cv2.utils.logging.getLogLevel() == level != cv2.utils.logging.LOG_LEVEL_SILENT


@pytest.mark.parametrize("missing", ["utils", "utils.logging"])
def test_an_opencv_without_log_levels_reads_images(read, monkeypatch, missing):
    """As some 4.5 are, the oldest that requirements-deploy.txt allows."""
    monkeypatch.delattr(f"cv2.{missing}")
    assert_pixels(read(encode(IMAGE, "PNG")), RGB)
