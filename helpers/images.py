"""Image files -> pixels as the networks want them: upright, BGR, eight bits, whole or refused.

image = read_image("people.jpg")    # (H, W, 3) uint8
files = list_images("folder")
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Iterator

import cv2
import numpy as np

from helpers.errors import DataError

if TYPE_CHECKING:
    import os

IMAGE_SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))
MAX_PIXELS = 2**28  # 0.8 GB decoded; above any camera's picture, below what a crafted header can ask for

_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_JPEG_EOI = 0xD9
# Marker codes that begin a frame header; C4, C8 and CC lie in the range and mean something else.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Any marker with a meaning of its own: stuffed zeros, fill bytes, restarts and SOI are passed over.
_JPEG_MARKER = re.compile(b"\xff([^\x00\x01\xd0-\xd8\xff])")
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"  # the closing chunk's name and its checksum, the same in every PNG
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a picture as the networks want it: upright, three channels, eight bits.

    The EXIF orientation is applied, grey, palette and CMYK become BGR, of 16 bits the upper eight are kept,
    and an alpha channel is dropped (not composited: behind people, white is as wrong as black), as
    `cv2.IMREAD_COLOR` does. A JPEG gives exactly `cv2.imread`'s pixels, on which MMPose was evaluated.

    OpenCV reads all of that rightly but TIFF, where it multiplies colours by alpha and misreads Lab; TIFF
    goes to Pillow. A cut JPEG is refused. One that was cut and then closed with an end marker cannot be told
    from a whole one, by Pillow neither.

    Args:
        path: JPEG, PNG, BMP, WebP or TIFF file (whatever else OpenCV decodes is read too); any characters.

    Returns:
        (H, W, 3) uint8, BGR, C-contiguous.

    Raises:
        DataError: the file is missing, empty, cut short, no picture, or larger than `MAX_PIXELS`.
    """
    path = Path(path)
    try:
        data = path.read_bytes()  # not cv2.imread: it hides errors, and fails on non-ASCII paths on Windows
    except OSError as error:
        raise DataError(f"Cannot read the image {path}: {error.strerror}; check the path.") from error
    if not data:
        raise DataError(f"The image {path} is empty; copy or download it again.")
    if data.startswith(_TIFF_STARTS):
        return _decode_tiff(data, path)
    return _decode(data, path)


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Lists the pictures directly inside a folder, by file extension in any case, sorted by name.

    Names that begin with a dot are left out: they are other programs' (macOS writes a `._x.jpg` per `x.jpg`).

    Raises:
        DataError: the folder is missing or holds no picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"There is no image folder {folder}; check the path.")
    images = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not images:
        raise DataError(f"The folder {folder} holds no image; put {', '.join(sorted(IMAGE_SUFFIXES))} files there.")
    return images


def _decode(data: bytes, path: Path) -> np.ndarray:
    """Decodes anything but TIFF with OpenCV -> (H, W, 3) uint8 BGR."""
    _refuse_truncated(data, path)
    size = _claimed_size(data)
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise _too_large(path)
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # our own message is enough
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:  # a size that OpenCV itself does not allow
        raise _too_large(path) from error
    finally:
        cv2.utils.logging.setLogLevel(level)
    if image is None:
        raise DataError(f"The image {path} is damaged or no picture; copy it again, or convert it to JPEG or PNG.")
    return image


def _decode_tiff(data: bytes, path: Path) -> np.ndarray:
    """Decodes a TIFF's first page with Pillow -> (H, W, 3) uint8 BGR."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise DataError(
            f"Reading the TIFF image {path} needs Pillow; `pip install pillow`, or convert the image to PNG."
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own message is enough
            with Image.open(io.BytesIO(data)) as page:
                upright = ImageOps.exif_transpose(page)
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    except Exception as error:  # a broken file makes Pillow raise OSError, SyntaxError, TypeError and others
        raise DataError(f"The image {path} is damaged; copy or download it again.") from error
    if upright.mode.startswith("I;16"):
        return cv2.cvtColor((np.asarray(upright) >> 8).astype(np.uint8), cv2.COLOR_GRAY2BGR)
    if upright.mode in ("I", "F", "LAB"):
        raise DataError(f"The image {path} holds {upright.mode} samples, not colours; convert it to 8-bit RGB.")
    return cv2.cvtColor(np.asarray(upright.convert("RGB")), cv2.COLOR_RGB2BGR)


def _refuse_truncated(data: bytes, path: Path) -> None:
    """Catches cut JPEG and PNG files.

    OpenCV decodes a JPEG that was cut and padded (a broken download into a reserved file) into a picture with
    a false lower part. A cut PNG it does refuse, but not without libpng writing to standard error.
    """
    if data.startswith(_JPEG_START):
        # A file that ends at an end marker is either whole or refused by the decoder: no need to walk it.
        whole = data.endswith(_JPEG_END) or any(marker == _JPEG_EOI for marker, _ in _jpeg_segments(data))
    else:
        whole = not data.startswith(_PNG_START) or _PNG_END in data
    if not whole:
        raise DataError(f"The image {path} is cut short; copy or download it again.")


def _claimed_size(data: bytes) -> tuple[int, int] | None:
    """Width and height by the header of a JPEG or PNG, formats in which a small file can hold a huge picture.

    `None` for others: WebP cannot exceed `MAX_PIXELS`, OpenCV itself stops at four times that, and Pillow,
    which reads TIFF, at two thirds.
    """
    try:
        if data.startswith(_JPEG_START):
            for marker, start in _jpeg_segments(data):
                if marker in _JPEG_FRAMES:
                    height, width = struct.unpack_from(">HH", data, start + 3)  # after length and precision
                    return width, height
        if data.startswith(_PNG_START):
            width, height = struct.unpack_from(">II", data, len(_PNG_START) + 8)  # in the first chunk
            return width, height
    except struct.error:  # cut inside the header: the decoder will say so
        pass
    return None


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields (marker code, offset of what follows it) up to and including the end marker.

    Segments are skipped by their length, so the thumbnail inside an EXIF segment is not looked into; scans
    have no length, but in them the byte FF never precedes a marker code. (ITU-T T.81, annex B.1.1.)
    """
    position = len(_JPEG_START)
    while True:
        found = _JPEG_MARKER.search(data, position)
        if found is None:
            return
        marker, start = found.group(1)[0], found.end()
        yield marker, start
        if marker == _JPEG_EOI or start + 2 > len(data):
            return
        position = start + struct.unpack_from(">H", data, start)[0]


def _too_large(path: Path) -> DataError:
    return DataError(f"The image {path} claims a size that cannot be decoded; make it smaller.")
