"""Formats beyond the usual six: what decodes, and that a hostile file costs no more than a hostile PNG."""

from __future__ import annotations

import io
import random
import re
import struct
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scorer.encoding.images import load_image
from scorer.errors import FailureCode, RowError

LIMITS: dict[str, int] = {"max_bytes": 2**20, "max_pixels": 100_000}


def picture(width: int = 56, height: int = 40) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def encoded(image: Image.Image, format_name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def gray16() -> Image.Image:
    return Image.fromarray(np.arange(40 * 56, dtype=np.uint16).reshape(40, 56) * 25)


IMAGES: dict[str, bytes] = {
    "avif": encoded(picture(), "AVIF"),
    "avif of two": encoded(picture(), "AVIF", save_all=True, append_images=[picture().rotate(180)]),
    "jp2": encoded(picture(), "JPEG2000"),
    "j2k": encoded(picture(), "JPEG2000", no_jp2=True),
    "j2k tiles": encoded(picture(), "JPEG2000", no_jp2=True, tile_size=(16, 16)),
    "ico": encoded(picture(), "ICO", sizes=[(16, 16), (40, 40)]),
    "ico bmp": encoded(picture(), "ICO", sizes=[(16, 16)], bitmap_format="bmp"),
    "ppm": encoded(picture(), "PPM"),
    "pgm": encoded(picture().convert("L"), "PPM"),
    "pgm 16": b"P5 56 40 65535\n" + gray16().tobytes()[::-1],
    "tga": encoded(picture(), "TGA"),
    "tga rle": encoded(picture(), "TGA", compression="tga_rle"),
}


def code(data: bytes, **limits: int) -> FailureCode:
    with pytest.raises(RowError) as caught:
        load_image(data, **{**LIMITS, **limits})
    return caught.value.code


@pytest.mark.parametrize("name", IMAGES)
def test_it_decodes_as_pillow_does(name: str) -> None:
    found = load_image(IMAGES[name], **LIMITS)
    with Image.open(io.BytesIO(IMAGES[name])) as plain:
        np.testing.assert_array_equal(np.asarray(found), np.asarray(plain.convert("RGB")))
    assert found.mode == "RGB"


@pytest.mark.parametrize("name", IMAGES)
def test_the_limits_hold(name: str) -> None:
    width, height = load_image(IMAGES[name], **LIMITS).size
    assert code(IMAGES[name], max_pixels=width * height - 1) is FailureCode.IMAGE_TOO_LARGE
    assert code(IMAGES[name], max_bytes=len(IMAGES[name]) - 1) is FailureCode.IMAGE_TOO_LARGE
    load_image(IMAGES[name], max_pixels=100_000, max_bytes=len(IMAGES[name]))


@pytest.mark.parametrize("filters", ["error", "ignore"])
@pytest.mark.parametrize("name", IMAGES)
def test_damage_gives_an_image_or_a_row_error(name: str, filters: Any) -> None:
    dice = random.Random(f"{name} {filters}")
    data, refused = IMAGES[name], 0
    with warnings.catch_warnings():
        warnings.simplefilter(filters)
        for _ in range(150):
            changed = bytearray(data)
            for _ in range(dice.choice([1, 1, 2, 8])):
                changed[dice.randrange(len(data) if dice.random() < 0.5 else 90)] = dice.choice([0, 255, 127, 9])
            if dice.random() < 0.3:
                del changed[dice.randrange(len(changed)) :]
            try:
                image = load_image(bytes(changed) or b"x", **LIMITS)
            except RowError:
                refused += 1
            else:
                assert image.mode == "RGB"
                assert image.width * image.height <= LIMITS["max_pixels"]
    assert refused > 5


def big_icon() -> bytes:
    """A PNG of 13,000 × 13,000 pixels that the directory calls 16 × 16."""
    png = encoded(Image.new("1", (13_000, 13_000)), "PNG")
    return struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(png), 22) + png


def big_bitmap_icon() -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, 13_000, 26_000, 1, 24, 0, 0, 0, 0, 0, 0)
    return struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 24, len(head), 22) + head


def with_size(data: bytes, width: int, height: int, tile_x: int, tile_y: int, *, box: bool = True) -> bytes:
    """A JPEG 2000 file with another size in its codestream, and in the box that says the same before it."""
    changed = bytearray(data)
    at = data.index(b"\xff\x4f\xff\x51")
    changed[at + 8 : at + 16] = struct.pack(">2I", width, height)
    changed[at + 24 : at + 32] = struct.pack(">2I", tile_x, tile_y)
    if box:
        at = data.index(b"ihdr")
        changed[at + 4 : at + 12] = struct.pack(">2I", height, width)
    return bytes(changed)


JP2 = IMAGES["jp2"]
HOSTILE = {
    "icon, png": (big_icon(), "image_too_large"),
    "icon, bitmap": (big_bitmap_icon(), "image_too_large"),
    "jp2 size": (with_size(JP2, 13_000, 13_000, 13_000, 13_000), "image_too_large"),
    "jp2 box": (with_size(JP2, 13_000, 13_000, 13_000, 13_000, box=False), "image_too_large"),
    "jp2 counts three times": (with_size(JP2, 6_000, 6_000, 6_000, 6_000), "image_too_large"),
    "jp2 tiles": (with_size(JP2, 5_000, 6_000, 100, 10), "image_unreadable"),
    "jp2 no tiles": (with_size(JP2, 100, 100, 0, 0), "image_unreadable"),
    "ppm size": (b"P6 13000 13000 255\n", "image_too_large"),
    "ppm plain": (b"P3 9000 9000 255\n" + b"1 " * 10**6, "image_unreadable"),
    "ppm maximum": (b"P6 9000 9000 254\n" + bytes(10**6), "image_unreadable"),
    "tga size": (IMAGES["tga"][:12] + struct.pack("<2H", 60_000, 60_000) + IMAGES["tga"][16:], "image_too_large"),
}

MEASURE = """
import re, sys, time
from pathlib import Path
from scorer.errors import RowError
from scorer.encoding.image_formats import FORMATS
from scorer.encoding.images import load_image
def peak_kb():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
for format in FORMATS:
    format.opener(b"x")
data = sys.stdin.buffer.read()
before, start = peak_kb(), time.process_time()
try:
    load_image(data, max_bytes=2**26, max_pixels=100_000_000)
except RowError as error:
    print(error.code, peak_kb() - before, time.process_time() - start)
"""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_little_memory_and_time(name: str) -> None:
    data, expected = HOSTILE[name]
    command = [sys.executable, "-W", "error", "-c", MEASURE]
    found, kilobytes, seconds = subprocess.run(command, input=data, capture_output=True, check=True).stdout.split()
    assert found.decode() == expected
    assert int(kilobytes) < 20_000
    assert float(seconds) < 1


def test_a_file_without_a_mark_is_not_guessed_to_be_tga() -> None:
    data = IMAGES["tga"]
    assert code(re.sub(rb"TRUEVISION-XFILE\.\0$", b"", data)) is FailureCode.IMAGE_FORMAT
