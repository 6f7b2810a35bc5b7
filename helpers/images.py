"""Image files -> pixels as the networks want them: upright, BGR, eight bits, complete or refused.

OpenCV decodes, without a word on standard error; Pillow is needed for TIFF alone.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Iterator

import cv2
import numpy as np

from helpers.errors import DataError

if TYPE_CHECKING:
    import os

IMAGE_SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))
MAX_PIXELS = 2**28  # 0.8 GB decoded; above any camera's image, below what a crafted header can ask for

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_SCAN = 0xDA
# Marker codes that begin a frame header; C4, C8 and CC lie in the range and mean something else.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_MARKER = re.compile(b"\xff([^\x00\x01\xd0-\xd8\xff])")  # one that a segment with a length follows
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"  # the closing chunk's name and its checksum, the same in every PNG
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_silence_lock = threading.Lock()
_silenced: list[int] = []  # the log level to go back to, once per block that is open


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads an image of any name -> (H, W, 3) uint8 BGR, C-contiguous.

    The EXIF orientation is applied, gray, palette and CMYK become BGR, of 16 bits the upper eight are kept, and alpha
    is dropped (not composited: behind people, white is as wrong as black), as `cv2.IMREAD_COLOR` does. A JPEG gives
    exactly `cv2.imread`'s pixels, on which MMPose was evaluated. TIFF goes to Pillow: OpenCV multiplies its colors by
    alpha and misreads Lab.

    Raises:
        DataError: the file is missing, empty, cut short, not an image, or larger than `MAX_PIXELS`.
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
    _refuse_at_sight(data, path)
    try:
        with opencv_silenced():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:  # a size that OpenCV itself does not allow
        raise _too_large(path) from error
    if image is None:
        raise DataError(f"The image {path} is damaged or not an image; copy it again, or convert it to JPEG or PNG.")
    return image


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Lists the images directly inside a folder, by file extension in any case, sorted by name; refuses none at all.

    Names that begin with a dot are left out: they are other programs' (macOS writes a `._x.jpg` per `x.jpg`).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"There is no image folder {folder}; check the path.")
    files = sorted(path for path in folder.glob("[!.]*") if path.is_file())
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise DataError(f"The folder {folder} holds no image; put {', '.join(sorted(IMAGE_SUFFIXES))} files there.")
    return images


@contextlib.contextmanager
def opencv_silenced() -> Iterator[None]:
    """Keeps OpenCV from writing to standard error: an error of ours says what it could not do.

    The log level belongs to the process: of blocks that overlap in threads, the last to end brings it back.
    """
    logging = getattr(getattr(cv2, "utils", None), "logging", None)
    if logging is None:  # some OpenCV 4.5 has none, and then speaks
        yield
        return
    with _silence_lock:
        before = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
        _silenced.append(_silenced[0] if _silenced else before)
    try:
        yield
    finally:
        with _silence_lock:
            before = _silenced.pop()
            if not _silenced:
                logging.setLogLevel(before)


def _decode_tiff(data: bytes, path: Path) -> np.ndarray:
    """Decodes a TIFF's first page with Pillow."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        text = f"Reading the TIFF image {path} needs Pillow; `pip install pillow`, or convert the image to PNG."
        raise DataError(text) from error
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
        raise DataError(f"The image {path} holds {upright.mode} samples, not colors; convert it to 8-bit RGB.")
    return cv2.cvtColor(np.asarray(upright.convert("RGB")), cv2.COLOR_RGB2BGR)


def _refuse_at_sight(data: bytes, path: Path) -> None:
    """Refuses a JPEG or PNG that is cut short, or in which a small file claims a huge image.

    OpenCV, and Pillow too, decode a JPEG that was cut and padded (a broken download into a reserved file) into an image
    with a false lower part. In other formats, OpenCV's own limit of 2**30 pixels holds.
    """
    if data.startswith(_JPEG_START):
        size, scan = _jpeg_header(data)
        complete = data.find(_JPEG_END, scan) >= 0
    elif data.startswith(_PNG_START):
        size = struct.unpack(">II", data[16:24].ljust(8, b"\0"))  # in the first chunk
        complete = _PNG_END in data
    else:
        return
    if not complete:
        raise DataError(f"The image {path} is cut short; copy or download it again.")
    if size[0] * size[1] > MAX_PIXELS:
        raise _too_large(path)


def _jpeg_header(data: bytes) -> tuple[tuple[int, int], int]:
    """(height, width) as the frame header says, and where the first scan begins (ITU-T T.81, annex B.1.1)."""
    size, position = (0, 0), len(_JPEG_START)
    while True:
        found = _JPEG_MARKER.search(data, position)
        if found is None or found.end() + 7 > len(data):
            return size, len(data)
        marker, position = found.group(1)[0], found.end()
        if marker == _JPEG_SCAN:
            return size, position
        if marker in _JPEG_FRAMES:
            size = struct.unpack_from(">HH", data, position + 3)  # after length and precision
        position += struct.unpack_from(">H", data, position)[0]  # an EXIF thumbnail is skipped, too


def _too_large(path: Path) -> DataError:
    return DataError(f"The image {path} claims a size that cannot be decoded; make it smaller.")
