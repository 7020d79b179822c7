"""The image formats that are decoded, a record each: which of Pillow's plugins reads it, and what it may not hold.

A format is read if the pixels that its decoder works on are known from a header, before it decodes, and if a hostile
file costs no more time or memory than a hostile PNG of as many pixels. Some files of a format fail that; ``refuses``
names them by the bytes, before Pillow sees them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # reading an output needs the table, and no Pillow
    from PIL import Image

Refuses = Callable[[bytes, int], str | None]
"""(the whole file, limit of pixels) → why it is not decoded, or None."""

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_J2K_SIZE: Final = b"\xff\x4f\xff\x51"
_TGA_END: Final = b"TRUEVISION-XFILE.\0"
_J2K_COST: Final = 3
"""A JPEG 2000 pixel takes 2.4 times the memory and time of a PNG pixel (25 megapixels: 461 MB against 190 MB)."""
_MAX_TILES: Final = 1024
_MAX_COMPONENTS: Final = 4


def _nothing(data: bytes, max_pixels: int) -> str | None:
    return None


def _refuses_icon(data: bytes, max_pixels: int) -> str | None:
    """Look at the images inside: Pillow decodes one at once, whatever size the icon's directory gives for it."""
    (count,) = struct.unpack_from("<H", data, 4)
    for i in range(count):
        if len(data) < 22 + 16 * i:
            return "its directory is cut off"
        (at,) = struct.unpack_from("<I", data, 18 + 16 * i)
        if len(data) < at + 24:
            return "an image lies beyond its end"
        is_png = data.startswith(_PNG, at)
        width, height = struct.unpack_from(">II", data, at + 16) if is_png else struct.unpack_from("<ii", data, at + 4)
        if abs(width * height) > max_pixels * (1 if is_png else 2):  # a bitmap's mask doubles its height
            return f"it holds an image of {width}×{height} pixels, more than max_image_pixels={max_pixels}"
    return None


def _refuses_jpeg2000(data: bytes, max_pixels: int) -> str | None:
    """Bound what the decoder allocates for each tile and component before it has read any of them."""
    at = data.find(_J2K_SIZE)
    if at < 0 or len(data) < at + 42:
        return "it has no codestream"
    x1, y1, x0, y0, width, height, tile_x, tile_y, count = struct.unpack_from(">8IH", data, at + 8)
    if not width or not height or x1 <= x0 or y1 <= y0:
        return "its tiles are empty"
    tiles = -(-(x1 - min(tile_x, x1)) // width) * -(-(y1 - min(tile_y, y1)) // height)
    if (x1 - x0) * (y1 - y0) * _J2K_COST > max_pixels:
        size = f"{x1 - x0}×{y1 - y0} pixels, which count {_J2K_COST} times"
        return f"its codestream has {size}, more than max_image_pixels={max_pixels}"
    if tiles > _MAX_TILES or count > _MAX_COMPONENTS:
        return f"it has {tiles:,} tiles of {count} components, more than {_MAX_TILES:,} and {_MAX_COMPONENTS}"
    return None


def _refuses_pnm(data: bytes, max_pixels: int) -> str | None:
    """Only samples of one or two whole bytes: Pillow decodes the others in Python, at seconds a megapixel."""
    header = re.match(rb"P[56](?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+(\d+)\s", data[:4096])
    if header is None:
        return "it is not binary PGM (P5) or PPM (P6)"
    if int(header[1]) != 255 and (int(header[1]), data[:2]) != (65535, b"P5"):
        return f"its maximum value is {int(header[1]):.9g}, not 255 (or 65535, gray)"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFormat:
    """One format.

    Attributes:
        name: Pillow's name of it.
        plugin: Pillow's module.
        refuses: what in a file of this format is not decoded.
        suffixes: of its files, without dot; an image in a tar is recognised by them.
        ends_in: bytes at the end of the file by which it is recognised; None for a format that its first bytes show.
    """

    name: str
    plugin: str
    suffixes: tuple[str, ...]
    refuses: Refuses = _nothing
    ends_in: bytes | None = None

    def opener(self, data: bytes) -> Callable[..., Image.Image] | None:
        """Return what opens these bytes; None if they are of another format, or this Pillow cannot decode it."""
        from PIL import Image

        try:
            import_module(f"PIL.{self.plugin}")  # registers itself in Image.OPEN
        except ModuleNotFoundError:  # AVIF came with Pillow 11.3
            return None
        factory, accepts = Image.OPEN[self.name]
        if self.ends_in is not None:
            return factory if data.endswith(self.ends_in) else None
        # A plugin answers with a message where it was built without its codec: true of no released wheel.
        return factory if accepts is not None and accepts(data[:16]) is True else None


FORMATS: Final = (
    ImageFormat(name="JPEG", plugin="JpegImagePlugin", suffixes=("jpg", "jpeg")),
    ImageFormat(name="PNG", plugin="PngImagePlugin", suffixes=("png",)),
    ImageFormat(name="WEBP", plugin="WebPImagePlugin", suffixes=("webp",)),
    ImageFormat(name="GIF", plugin="GifImagePlugin", suffixes=("gif",)),
    ImageFormat(name="BMP", plugin="BmpImagePlugin", suffixes=("bmp",)),
    ImageFormat(name="TIFF", plugin="TiffImagePlugin", suffixes=("tif", "tiff")),
    ImageFormat(name="AVIF", plugin="AvifImagePlugin", suffixes=("avif",)),
    ImageFormat(
        name="JPEG2000",
        plugin="Jpeg2KImagePlugin",
        suffixes=("jp2", "j2k", "jpx", "jpf", "j2c", "jpc"),
        refuses=_refuses_jpeg2000,
    ),
    ImageFormat(name="ICO", plugin="IcoImagePlugin", suffixes=("ico",), refuses=_refuses_icon),
    ImageFormat(name="PPM", plugin="PpmImagePlugin", suffixes=("ppm", "pgm", "pnm"), refuses=_refuses_pnm),
    ImageFormat(name="TGA", plugin="TgaImagePlugin", suffixes=("tga",), ends_in=_TGA_END),
)
"""In the order in which they are tried. Nothing else is."""
