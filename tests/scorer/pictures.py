"""Encoded pictures of every kind that is decoded, made up for the tests of :mod:`scorer.encoding.images`."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
from PIL import Image
from transformers.image_utils import load_image as reference_load

LIMITS: dict[str, int] = {"max_bytes": 2**20, "max_pixels": 100_000}


def picture(width: int = 56, height: int = 40) -> Image.Image:
    """A gradient under noise: no row, column or channel equals another, so that a wrong rotation or order shows."""
    ramp = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)[..., None] + np.array([0, 40, 90])
    noise = np.random.default_rng(0).integers(0, 30, (height, width, 3))
    return Image.fromarray((ramp + noise).astype(np.uint8))


def other() -> Image.Image:
    """The second frame."""
    return picture().rotate(180)


def encoded(image: Image.Image, format_name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def with_orientation(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(), "JPEG", exif=exif, quality=95)


def with_alpha(mode: str) -> Image.Image:
    image = picture().convert(mode)
    image.putalpha(Image.fromarray(np.arange(40 * 56, dtype=np.uint32).astype(np.uint8).reshape(40, 56)))
    return image


def gray16() -> Image.Image:
    return Image.fromarray(np.arange(40 * 56, dtype=np.uint16).reshape(40, 56) * 25)


PALETTE = picture().convert("P", palette=Image.Palette.ADAPTIVE)
PICTURES: dict[str, bytes] = {
    "jpeg": encoded(picture(), "JPEG"),
    "jpeg progressive": encoded(picture(), "JPEG", progressive=True),
    "jpeg gray": encoded(picture().convert("L"), "JPEG"),
    "jpeg cmyk": encoded(picture().convert("CMYK"), "JPEG"),
    "jpeg of two": encoded(picture(), "MPO", save_all=True, append_images=[other()]),
    "png": encoded(picture(), "PNG"),
    "png palette": encoded(PALETTE, "PNG"),
    "png palette, transparent colour": encoded(PALETTE, "PNG", transparency=3),
    "png palette, alpha per colour": encoded(PALETTE, "PNG", transparency=bytes(range(0, 250, 2))),
    "png gray 16": encoded(gray16(), "PNG"),
    "png gray, alpha": encoded(with_alpha("L"), "PNG"),
    "png rgba": encoded(with_alpha("RGB"), "PNG"),
    "png rgb, transparent colour": encoded(picture(), "PNG", transparency=(0, 40, 90)),
    "png 1 bit": encoded(picture().convert("1"), "PNG"),
    "png animated": encoded(picture(), "PNG", save_all=True, append_images=[other()]),
    "webp": encoded(picture(), "WEBP"),
    "webp rgba": encoded(with_alpha("RGB"), "WEBP", lossless=True),
    "webp animated": encoded(picture(), "WEBP", save_all=True, append_images=[other()]),
    "gif": encoded(picture(), "GIF"),
    "gif transparent": encoded(PALETTE, "GIF", transparency=3),
    "gif animated": encoded(picture(), "GIF", save_all=True, append_images=[other()]),
    "bmp": encoded(picture(), "BMP"),
    "bmp palette": encoded(PALETTE, "BMP"),
    "tiff": encoded(picture(), "TIFF"),
    "tiff lzw": encoded(picture(), "TIFF", compression="tiff_lzw"),
    "tiff jpeg": encoded(picture(), "TIFF", compression="jpeg"),
    "tiff fax": encoded(picture().convert("1"), "TIFF", compression="group4"),
    "tiff gray 16": encoded(gray16(), "TIFF"),
    "tiff float": encoded(gray16().convert("F"), "TIFF"),
    "tiff cmyk": encoded(picture().convert("CMYK"), "TIFF"),
    "tiff lab": encoded(picture().convert("LAB"), "TIFF"),
    "tiff of two": encoded(picture(), "TIFF", save_all=True, append_images=[other()]),
    **{f"jpeg orientation {o}": with_orientation(o) for o in range(1, 9)},
}


def reference(data: bytes) -> np.ndarray:
    """What transformers makes of ``data``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that a palette's alpha is dropped
        return np.asarray(reference_load(Image.open(io.BytesIO(data))))
