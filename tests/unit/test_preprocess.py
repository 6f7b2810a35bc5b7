"""Reading every kind of picture and refusing the broken ones; resizing and normalising on known cases."""

from __future__ import annotations

import io
import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers.errors import DataError, UsageError
from helpers.images import list_images, read_image
from helpers.pose import decode, preprocess
from helpers.pose.preprocess import hflip, resize_align, stack_images, to_input

WIDTH, HEIGHT = 64, 40
ROWS, COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH]
RGB = np.stack([COLUMNS * 4, ROWS * 6, (ROWS + COLUMNS) * 2], axis=-1).astype(np.uint8)  # smooth, for lossy files
GREY = np.asarray(Image.fromarray(RGB).convert("L"))
PICTURE = Image.fromarray(RGB)


def encode(picture: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.fixture
def read(tmp_path):
    """Writes bytes to a file, reads it as an image."""

    def write_and_read(data: bytes, name: str = "picture.bin") -> np.ndarray:
        path = tmp_path / name
        path.write_bytes(data)
        return read_image(path)

    return write_and_read


def assert_pixels(image: np.ndarray, rgb: np.ndarray, tolerance: int = 0) -> None:
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    assert image.shape == rgb.shape
    assert np.abs(image[..., ::-1].astype(int) - rgb).max() <= tolerance


# ------------------------------------------------------------------------------------- pictures of every kind


@pytest.mark.parametrize(
    "options", [{"quality": 30}, {"quality": 95, "subsampling": 0}, {"progressive": True}, {"optimize": True}]
)
@pytest.mark.parametrize("size", [(64, 40), (1, 1), (333, 257)])
def test_jpeg_is_cv2_imread_bit_for_bit(tmp_path, options, size):
    path = tmp_path / "plain.jpg"
    path.write_bytes(encode(PICTURE.resize(size), "JPEG", **options))
    image = read_image(str(path))
    np.testing.assert_array_equal(image, cv2.imread(str(path)))
    assert image.shape == (size[1], size[0], 3) and image.dtype == np.uint8 and image.flags.c_contiguous


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize(
    ("file_format", "options"),
    [("JPEG", {"quality": 95, "subsampling": 0}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})],
)
def test_exif_orientation(read, file_format, options, value):
    data = encode(PICTURE, file_format, exif=orientation(value), **options)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert upright.shape == ((HEIGHT, WIDTH, 3) if value < 5 else (WIDTH, HEIGHT, 3))
    assert_pixels(read(data), upright, tolerance=1)  # 1: two JPEG decoders


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_lossless_formats(read, file_format, mode):
    picture = PICTURE.convert(mode)
    options = {"lossless": True} if file_format == "WEBP" else {}
    assert_pixels(read(encode(picture, file_format, **options)), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP", "BMP"])
def test_alpha_is_dropped_not_composited(read, file_format):
    rgba = np.dstack([RGB, (COLUMNS * 4).astype(np.uint8)])
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    assert_pixels(read(encode(Image.fromarray(rgba), file_format, **options)), RGB)


def test_grey_with_alpha_and_transparent_palette(read):
    assert_pixels(read(encode(PICTURE.convert("RGBA").convert("LA"), "PNG")), np.dstack([GREY] * 3))
    palette = PICTURE.quantize(64)
    assert_pixels(read(encode(palette, "PNG", transparency=3)), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("low_byte", [0, 77, 255])
def test_of_16_bits_the_upper_8_are_kept(read, suffix, low_byte):
    grey = GREY.astype(np.uint16) * 256 + low_byte
    assert_pixels(read(cv2.imencode(suffix, grey)[1].tobytes()), np.dstack([GREY] * 3))
    bgr = RGB[..., ::-1].astype(np.uint16) * 256 + low_byte
    assert_pixels(read(cv2.imencode(suffix, bgr)[1].tobytes()), RGB)


def test_cmyk(read):
    cmyk = PICTURE.convert("CMYK")
    jpeg = encode(cmyk, "JPEG", quality=98, subsampling=0)
    assert_pixels(read(jpeg), np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")), tolerance=1)
    assert_pixels(read(encode(cmyk, "TIFF")), np.asarray(cmyk.convert("RGB")))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiff_compressions(read, compression):
    assert_pixels(read(encode(PICTURE, "TIFF", compression=compression)), RGB)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_tiff_of_32_bit_samples(read, mode):
    with pytest.raises(DataError, match=rf"picture\.bin holds {mode} samples.*convert"):
        read(encode(Image.fromarray(GREY).convert(mode), "TIFF"))


def test_tiff_asks_for_pillow_where_it_is_missing(read, monkeypatch):
    tiff, jpeg = encode(PICTURE, "TIFF"), encode(PICTURE, "JPEG")
    for name in [name for name in sys.modules if name.partition(".")[0] == "PIL"]:
        monkeypatch.setitem(sys.modules, name, None)  # what makes `import` fail
    with pytest.raises(DataError, match=r"picture\.bin needs Pillow; `pip install pillow`"):
        read(tiff)
    assert read(jpeg).shape == (HEIGHT, WIDTH, 3)


def test_any_characters_in_the_path(read):
    assert_pixels(read(encode(PICTURE, "PNG"), name="人 où? 100 %.png"), RGB)


# ---------------------------------------------------------------------------------------------- broken files


def assert_refused(read, data: bytes, message: str, capfd) -> None:
    """The file is named, there is a cure, and no library writes to standard error besides."""
    with pytest.raises(DataError, match=rf"(?s)picture\.bin.*{message}.*;"):
        read(data)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": orientation(6)}])
@pytest.mark.parametrize("kept", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("padding", [b"", bytes(1000), b"\xff" * 100_000], ids=["cut", "zeros", "ones"])
def test_truncated_jpeg_is_no_picture(read, capfd, options, kept, padding):
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), "JPEG", **options)
    assert_refused(read, data[: int(len(data) * kept)] + padding, "cut short", capfd)


def test_jpeg_without_its_last_bytes(read, capfd):
    data = encode(PICTURE, "JPEG")
    for cut in (1, 2, 3):
        assert_refused(read, data[:-cut], "cut short", capfd)


def test_a_thumbnail_does_not_stand_in_for_the_picture(read, capfd):
    thumbnail = encode(PICTURE.resize((16, 10)), "JPEG")
    whole = encode(PICTURE.resize((200, 150)), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    with_thumbnail = whole[:2] + segment + whole[2:]
    assert read(with_thumbnail).shape == (150, 200, 3)
    assert_refused(read, with_thumbnail[:-200] + bytes(200), "cut short", capfd)
    only_the_thumbnail = with_thumbnail[: 2 + len(segment)]  # ends at an end marker, that of the thumbnail
    assert_refused(read, only_the_thumbnail, "damaged or no picture", capfd)


def test_bytes_after_the_end_do_no_harm(read):
    jpeg, png = encode(PICTURE, "JPEG", quality=95, subsampling=0), encode(PICTURE, "PNG")
    for tail in (bytes(500), b"maker's notes" * 50, jpeg):
        assert_pixels(read(jpeg + tail), np.asarray(Image.open(io.BytesIO(jpeg))), tolerance=1)
        assert_pixels(read(png + tail), RGB)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_other_truncated_pictures(read, capfd, file_format, kept):
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), file_format)
    assert_refused(read, data[: int(len(data) * kept)], "cut short|damaged", capfd)


def test_truncated_bmp(read):
    with pytest.raises(DataError, match=r"picture\.bin is damaged"):  # OpenCV writes to standard error here
        read(encode(PICTURE, "BMP")[:3000])


@pytest.mark.parametrize("data", [b"no picture at all", b"<html>404</html>", b"\xff\xd8", bytes(1000), b"II*\0"])
def test_no_picture(read, capfd, data):
    assert_refused(read, data, "damaged|cut short", capfd)


def test_empty_file(read, capfd):
    assert_refused(read, b"", "is empty", capfd)


def test_no_file(tmp_path):
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
    data = bytearray(encode(PICTURE, "JPEG", **options))
    frame = data.find(b"\xff\xc2" if options else b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 20_000, 20_000)
    assert_refused(read, bytes(data), "claims a size", capfd)


def test_other_formats_stop_at_opencvs_own_limit(read):
    header = b"P6 60000 60000 255\n"
    with pytest.raises(DataError, match=r"picture\.bin claims a size"):
        read(header + bytes(100))


def test_a_small_tiff_claiming_to_be_huge(read, capfd):
    data = bytearray(encode(PICTURE, "TIFF"))
    for tag in (256, 257):  # ImageWidth and ImageLength: tag, type, count, value
        entry = data.find(struct.pack("<HHI", tag, 3, 1))
        entry = entry if entry >= 0 else data.find(struct.pack("<HHI", tag, 4, 1))
        data[entry : entry + 12] = struct.pack("<HHII", tag, 4, 1, 20_000)
    assert_refused(read, bytes(data), "claims a size", capfd)


# -------------------------------------------------------------------------------------------------- folders


def test_list_images(tmp_path):
    for name in ("b.JPG", "a.jpeg", "c.Png", "d.txt", "e.tif", "._b.JPG", "f.webp", "g.bmp", "noextension"):
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    assert [path.name for path in list_images(str(tmp_path))] == [
        "a.jpeg",
        "b.JPG",
        "c.Png",
        "e.tif",
        "f.webp",
        "g.bmp",
    ]


def test_list_images_of_no_images(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"holds no image; put .*\.jpg"):
        list_images(tmp_path)
    with pytest.raises(DataError, match="There is no image folder"):
        list_images(tmp_path / "nowhere")


# ------------------------------------------------------------------------------------- network input


def test_landscape_is_placed_in_the_middle():
    resized, transform = resize_align(np.full((480, 640, 3), 200, np.uint8))
    assert resized.shape == (512, 704, 3)  # 640 / 480 * 512 = 682.7, rounded up to 704
    assert transform.image_size == (640, 480) and transform.base_size == (704, 512)
    np.testing.assert_array_equal(transform.center, [320, 240])
    np.testing.assert_allclose(transform.scale, [704 / 512 * 480 / 200, 480 / 200])
    strip = (704 - 640 * 512 / 480) / 2  # 10.7 black columns on either side
    assert (resized[:, : int(strip) - 1] == 0).all() and (resized[:, -int(strip) + 1 :] == 0).all()
    assert (resized[2:-2, int(strip) + 3 : -int(strip) - 3] == 200).all()


def test_portrait_and_square():
    assert resize_align(np.zeros((640, 480, 3), np.uint8))[1].base_size == (512, 704)
    assert resize_align(np.zeros((333, 333, 3), np.uint8))[1].base_size == (512, 512)
    assert resize_align(np.zeros((300, 400, 3), np.uint8), input_size=250)[1].base_size == (384, 256)


def test_points_map_back_to_where_the_pixels_came_from():
    """A dot drawn on the image is found on the input, and its place maps back to the dot."""
    for width, height in ((640, 480), (427, 640), (333, 501), (1000, 337)):
        image = np.zeros((height, width, 3), np.uint8)
        dot = np.array([0.3 * width, 0.7 * height]).round()
        cv2.circle(image, tuple(dot.astype(int).tolist()), 12, (255, 255, 255), -1)
        resized, transform = resize_align(image)
        rows, columns = np.nonzero(resized[..., 0] > 127)
        found = np.array([columns.mean(), rows.mean()])
        person = np.zeros((1, 17, 3), np.float32)
        person[..., :2] = found
        back = decode.to_image(person, transform)[0, 0, :2]
        np.testing.assert_allclose(back, dot, atol=0.5)
        np.testing.assert_allclose(transform.matrix @ [*back, 1], found, atol=1e-3)


def test_matrix_lays_a_heatmap_over_the_picture():
    image = np.zeros((480, 640, 3), np.uint8)
    cv2.rectangle(image, (100, 200), (180, 300), (255, 255, 255), -1)
    resized, transform = resize_align(image)
    back = cv2.warpAffine(
        resized, transform.matrix, transform.image_size, flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
    )
    assert back.shape == image.shape
    assert (np.abs(back.astype(int) - image) > 100).mean() < 0.002  # the edge's own pixels


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((0, 10, 3), np.uint8),
    ],
)
def test_resize_of_what_is_no_image(image):
    with pytest.raises(UsageError, match=r"must be \(H, W, 3\) uint8"):
        resize_align(image)


def test_resize_to_nothing():
    with pytest.raises(UsageError, match="input size must be positive, not 0"):
        resize_align(np.zeros((10, 10, 3), np.uint8), input_size=0)


@pytest.mark.parametrize("shape", [(5000, 1), (1, 5000), (32767, 600), (600, 40000)])
def test_too_long_and_thin(shape):
    with pytest.raises(DataError, match=f"{shape[1]} x {shape[0]} pixels needs"):
        resize_align(np.zeros((*shape, 3), np.uint8))


def test_longest_side_that_works():
    resized, _ = resize_align(np.full((65, preprocess.MAX_SIDE, 3), 9, np.uint8), input_size=64)
    assert resized.shape == (64, 32320, 3)
    assert (resized[1:-1, 30:-30] == 9).all()


def test_input_is_normalised_rgb():
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 128, 3), dtype=np.uint8)
    batch = to_input(images)
    expected = (images[..., ::-1] / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert batch.shape == (2, 3, 64, 128) and batch.dtype == np.float32 and batch.flags.c_contiguous
    np.testing.assert_allclose(batch, expected.transpose(0, 3, 1, 2), atol=1e-6)
    np.testing.assert_array_equal(to_input(list(images)), batch)
    np.testing.assert_array_equal(to_input([images[1, ::2, ::2]])[0], batch[1, :, ::2, ::2])  # strided input


def test_stacked_images_are_the_images():
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 128, 3), dtype=np.uint8)
    batch = stack_images(list(images))
    assert batch.flags.c_contiguous and batch.dtype == np.uint8
    np.testing.assert_array_equal(batch, images)
    np.testing.assert_array_equal(stack_images([images[1, ::2, ::2]])[0], images[1, ::2, ::2])


@pytest.mark.parametrize("make", [to_input, stack_images])
def test_input_of_unlike_images(make):
    with pytest.raises(UsageError, match="one shape"):
        make([np.zeros((64, 64, 3), np.uint8), np.zeros((64, 128, 3), np.uint8)])
    with pytest.raises(UsageError, match="one shape, not none"):
        make([])


def test_mirror():
    batch = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    flipped = hflip(batch)
    assert flipped.flags.c_contiguous and flipped.dtype == np.float32
    np.testing.assert_array_equal(flipped[:, :, :, 0], batch[:, :, :, 4])
    np.testing.assert_array_equal(hflip(flipped), batch)


def test_mirror_of_bytes_is_the_mirror_of_floats():
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 128, 3), dtype=np.uint8)
    flipped = hflip(images)
    assert flipped.flags.c_contiguous and flipped.dtype == np.uint8
    np.testing.assert_array_equal(flipped, images[:, :, ::-1])
    np.testing.assert_array_equal(to_input(flipped), hflip(to_input(images)))
    np.testing.assert_array_equal(hflip(images[:, ::2, ::2]), images[:, ::2, ::2][:, :, ::-1])  # strided input
