"""Decode images within limits. Pillow only.

Decoding is the one place where untrusted bytes meet a parser: whatever they make Pillow raise becomes a
:class:`RowError` here and costs only that row.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Final, NoReturn

from PIL import ExifTags, Image, ImageFile, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from scorer.encoding.image_formats import FORMATS
from scorer.encoding.image_shape import CheckShape, check_side
from scorer.errors import ConfigError, FailureCode, RowError
from scorer.types import ImageSource

ChooseScale = Callable[[int, int], int]
"""(width, height of the upright image) → 1, 2, 4 or 8: by how much a JPEG may be reduced while it is decoded."""

_TURNED: Final = (5, 6, 7, 8)
"""The EXIF orientations that swap width and height."""

# Without O_NONBLOCK, opening a named pipe would wait for its writer forever. (Windows lacks it and does not need it.)
_OPEN_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

_PATH_ERRORS: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO}
)
"""Permanent errors of a path. Any other file-system error may be transient and must not be blamed on the row."""


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An encoded image that has been read, within its limit, and not decoded.

    Attributes:
        data: its bytes.
        name: what messages call it.
    """

    data: bytes
    name: str


def read_image(source: ImageSource, max_bytes: int) -> EncodedImage | Image.Image:
    """Read an image's bytes; a PIL image is returned as it is.

    Args:
        source: encoded bytes, a local path, or a PIL image.
        max_bytes: limit for the encoded image, in bytes; a larger file is not read.

    Raises:
        RowError: IMAGE_MISSING, IMAGE_FORMAT or IMAGE_TOO_LARGE.
        OSError: reading fails for a reason that is not the row's fault (an I/O error, too many open files).
    """
    if isinstance(source, (Image.Image, EncodedImage)):
        return source
    if isinstance(source, (bytes, bytearray, memoryview)):
        file = EncodedImage(bytes(source), "image")
    elif isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        name = f"image {os.fsdecode(path)[-200:]!r}"  # a path is data too and ends up in a message
        file = EncodedImage(_read_file(path, name, max_bytes), name)
    elif source is None:
        raise RowError(FailureCode.IMAGE_MISSING, "the row has no image; give bytes, a local path or a PIL image")
    else:
        raise RowError(
            FailureCode.IMAGE_FORMAT,
            f"the image has type {type(source).__name__}; give bytes, a local path or a PIL image",
        )
    if not file.data:
        raise RowError(FailureCode.IMAGE_MISSING, f"{file.name} is empty (0 bytes); give an encoded image")
    if len(file.data) > max_bytes:
        _refuse_bytes(file.name, len(file.data), max_bytes)
    return file


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """A decoded image.

    Attributes:
        image: RGB, upright and without metadata; the caller may modify it.
        size: (width, height) of the upright image, in pixels; ``image`` is smaller if it was reduced.
    """

    image: Image.Image
    size: tuple[int, int]


def load_image(
    source: ImageSource, *, max_bytes: int, max_pixels: int, check_shape: CheckShape | None = None
) -> Image.Image:
    """Decode one image in full. See :func:`decode_image`."""
    return decode_image(source, max_bytes=max_bytes, max_pixels=max_pixels, check_shape=check_shape).image


def decode_image(
    source: ImageSource,
    *,
    max_bytes: int,
    max_pixels: int,
    check_shape: CheckShape | None = None,
    choose_scale: ChooseScale | None = None,
) -> DecodedImage:
    """Decode one image: apply its EXIF rotation, then convert it to RGB, bit for bit as transformers' ``load_image``.

    Alpha is dropped, not blended. 16-bit gray is clipped at 255 rather than scaled, which turns most such images white;
    transformers and the trainers feed the model exactly that, and a score must be of the same image. For an animation
    or a multi-page file, the first frame is read.

    An image that ends early is refused, never half-decoded. Damage inside the compressed data is detected only if the
    format has a check for it (PNG has checksums; JPEG has none).

    Args:
        source: encoded bytes, a local path, what :func:`read_image` returns, or a PIL image, which is not modified.
        max_bytes: limit for the encoded image, in bytes; a larger file is not read.
        max_pixels: limit for width × height, checked on the header before anything is decoded.
        check_shape: is called with the width and height of the upright image and may refuse them: before decoding,
            unless the file may say that the image is turned.
        choose_scale: says by how much an encoded JPEG is reduced while it is decoded; None decodes all images in full.
            A PIL image is never reduced.

    Raises:
        RowError: IMAGE_MISSING, IMAGE_FORMAT, IMAGE_TOO_LARGE, IMAGE_SHAPE or IMAGE_UNREADABLE.
        ConfigError: ``PIL.ImageFile.LOAD_TRUNCATED_IMAGES`` is set in this process.
        OSError: reading fails for a reason that is not the row's fault (an I/O error, too many open files).
    """
    read = read_image(source, max_bytes)
    if isinstance(read, Image.Image):
        return _decode(read, "image", max_pixels, check_shape, None)
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ConfigError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is True in this process, so broken images would be scored with "
            "their missing part gray; set it to False while scoring"
        )
    with io.BytesIO(read.data) as stream:
        opened = _open(stream, read.data, read.name, max_pixels)
        return _decode(opened, read.name, max_pixels, check_shape, choose_scale)


def _read_file(path: str | bytes, name: str, max_bytes: int) -> bytes:
    if not path:
        raise RowError(FailureCode.IMAGE_MISSING, "the row's image path is empty; give a path, bytes or an image")
    try:
        with os.fdopen(os.open(path, _OPEN_FLAGS), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise RowError(FailureCode.IMAGE_MISSING, f"{name} is not a regular file; give the path of a file")
            if found.st_size > max_bytes:
                _refuse_bytes(name, found.st_size, max_bytes)
            return file.read(max_bytes + 1)  # bounded, even if the file is growing
    except ValueError as error:  # a NUL character in the path
        _refuse_path(name, str(error), error)
    except OSError as error:
        if error.errno not in _PATH_ERRORS:
            raise
        _refuse_path(name, error.strerror or str(error), error)


def _refuse_path(name: str, reason: str, error: Exception) -> NoReturn:
    remedy = "URLs are not fetched here, give a local path" if "://" in name else "check the path and its permissions"
    raise RowError(FailureCode.IMAGE_MISSING, f"{name} cannot be opened ({reason}); {remedy}") from error


def _open(stream: IO[bytes], data: bytes, name: str, max_pixels: int) -> Image.Image:
    """Read the header with the plugin that claims the first bytes.

    This does what ``Image.open`` does, without two drawbacks: ``Image.open`` compares sizes with a process-wide limit
    and *warns* (disabling a warning is not thread-safe before Python 3.14), and it reports a known format with a broken
    header as an unknown format.
    """
    for format in FORMATS:
        factory = format.opener(data)
        if factory is None:
            continue
        problem = format.refuses(data, max_pixels)
        if problem is not None:
            code = FailureCode.IMAGE_TOO_LARGE if "max_image_pixels" in problem else FailureCode.IMAGE_UNREADABLE
            raise RowError(code, f"{name} ({format.name}) is not decoded: {problem}; re-encode the image")
        try:
            return factory(stream, "")
        except Exception as error:
            _refuse_decoding(f"{name} ({format.name})", error)
    known = ", ".join(format.name for format in FORMATS)
    raise RowError(
        FailureCode.IMAGE_FORMAT,
        f"{name} starts with {data[:8]!r}, which is none of {known}; convert it to one of them",
    )


def _decode(
    image: Image.Image,
    name: str,
    max_pixels: int,
    check_shape: CheckShape | None,
    choose_scale: ChooseScale | None,
) -> DecodedImage:
    width, height = image.size
    if width * height > max_pixels:
        raise RowError(
            FailureCode.IMAGE_TOO_LARGE,
            f"{name} has {width}×{height} = {width * height} pixels, more than max_image_pixels={max_pixels}; "
            "shrink the image or raise the limit",
        )
    if width * height == 0:
        raise RowError(FailureCode.IMAGE_UNREADABLE, f"{name} has {width}×{height} = 0 pixels; give a larger image")
    check_side(name, width, height)
    if check_shape is not None and not _may_be_turned(image):
        check_shape(width, height)
    whole: tuple[int, int] | None = None
    if choose_scale is not None and isinstance(image, JpegImageFile):
        whole = _upright_size(image, name)
        scale = choose_scale(*whole)
        if scale > 1:
            image.draft(None, (width // scale, height // scale))
    try:
        upright = ImageOps.exif_transpose(image)  # always a copy
        # Alpha is dropped anyway, and Pillow warns if it cannot keep a palette's.
        upright.info.pop("transparency", None)
        rgb = upright if upright.mode == "RGB" else upright.convert("RGB")
    except Exception as error:
        _refuse_decoding(f"{name} ({image.format or image.mode}, {width}×{height})", error)
    if check_shape is not None:
        check_shape(*(whole or rgb.size))
    rgb.info.clear()
    return DecodedImage(rgb, whole or rgb.size)


def _upright_size(image: JpegImageFile, name: str) -> tuple[int, int]:
    """Return the (width, height) of a JPEG behind its EXIF rotation."""
    width, height = image.size
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
    except Exception as error:
        _refuse_decoding(f"{name} ({image.format}, {width}×{height})", error)
    return (height, width) if turned else (width, height)


def _may_be_turned(image: Image.Image) -> bool:
    """Return whether the header has a place for an orientation. Reading it here would make Pillow remember it."""
    return hasattr(image, "tag_v2") or any("exif" in str(key).lower() or "xmp" in str(key) for key in image.info)


def _refuse_decoding(name: str, error: Exception) -> NoReturn:
    """Raise the RowError for bytes that made Pillow fail (OSError, SyntaxError, struct.error, MemoryError and more)."""
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        # A frame or tile is larger than the header says; Pillow's own limit applies in addition to ours.
        raise RowError(FailureCode.IMAGE_TOO_LARGE, f"{name}: {error} Shrink the image.") from error
    reason = f"{type(error).__name__}: {error}"
    raise RowError(
        FailureCode.IMAGE_UNREADABLE, f"{name} does not decode ({reason[:200]}); replace or re-encode the file"
    ) from error


def _refuse_bytes(name: str, size: int, max_bytes: int) -> NoReturn:
    raise RowError(
        FailureCode.IMAGE_TOO_LARGE,
        f"{name} has {size} bytes, more than max_image_bytes={max_bytes}; shrink the image or raise the limit",
    )
