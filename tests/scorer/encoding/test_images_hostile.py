"""Damaged, cut and oversized files: a complete picture or a row error, in bounded memory."""

from __future__ import annotations

import random
import subprocess
import sys
import warnings
import zlib
from typing import Any

import numpy as np
import pytest

from scorer.encoding.images import load_image
from scorer.errors import FailureCode, RowError
from tests.scorer.pictures import LIMITS, PICTURES, reference


@pytest.mark.parametrize(
    "name", ["jpeg", "jpeg progressive", "png", "webp", "gif", "bmp", "tiff", "tiff lzw", "tiff fax"]
)
@pytest.mark.parametrize("filters", ["error", "ignore"])
def test_a_cut_file_is_refused_or_complete(name: str, filters: Any) -> None:
    data, complete, refusals = PICTURES[name], reference(PICTURES[name]), 0
    with warnings.catch_warnings():
        warnings.simplefilter(filters)
        for end in range(1, len(data), 7):
            try:
                image = load_image(data[:end], **LIMITS)
            except RowError as error:
                refusals += 1
                assert error.code in (FailureCode.IMAGE_UNREADABLE, FailureCode.IMAGE_FORMAT)
            else:
                np.testing.assert_array_equal(np.asarray(image), complete)
    assert refusals > len(data) // 7 * 0.9


def mutated(data: bytes, dice: random.Random) -> bytes:
    result = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 4, 8, 30])):
        # Half of the damage goes to the header, where parsers decide.
        at = dice.randrange(len(result) if dice.random() < 0.5 else min(len(result), 64))
        match dice.choice(["set", "set", "set", "cut", "insert", "end"]):
            case "set":
                result[at] = dice.choice([0, 255, 127, 128, dice.randrange(256)])
            case "cut":
                del result[at : at + dice.randrange(20)]
            case "insert":
                result[at:at] = dice.randbytes(dice.randrange(20))
            case "end":
                del result[at + 1 :]
        result = result or bytearray(b"\0")
    return bytes(result)


@pytest.mark.parametrize("filters", ["error", "ignore"])
@pytest.mark.parametrize("name", [n for n in PICTURES if "orientation" not in n])
def test_damage_gives_a_picture_or_a_row_error(name: str, filters: Any) -> None:
    dice = random.Random(f"{name} {filters}")
    outcomes = {"picture": 0, "row error": 0}
    with warnings.catch_warnings():
        warnings.simplefilter(filters)
        for _ in range(120):
            try:
                image = load_image(mutated(PICTURES[name], dice), **LIMITS)
            except RowError as error:
                outcomes["row error"] += 1
                assert error.message
            else:
                outcomes["picture"] += 1
                assert image.mode == "RGB"
                assert 0 < image.width * image.height <= LIMITS["max_pixels"]
                assert len(image.tobytes()) == image.width * image.height * 3
    assert outcomes["row error"] > 10


def bomb(side: int = 13_000) -> bytes:
    """A PNG of side × side black pixels, 1 bit each, in about 20 kB."""
    packer = zlib.compressobj(9)
    line = b"\0" * (1 + side // 8)
    packed = b"".join(packer.compress(line) for _ in range(side)) + packer.flush()

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)

    header = side.to_bytes(4) * 2 + bytes([1, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


# The peak of this program alone: ru_maxrss would start at the peak of the process that started it.
MEASURE = """
import re, sys
from pathlib import Path
from scorer.errors import RowError
from scorer.encoding.images import load_image
def peak_kb():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
data = sys.stdin.buffer.read()
before = peak_kb()
try:
    load_image(data, max_bytes=2**26, max_pixels=int(sys.argv[1]))
except RowError as error:
    print(error.code)
print(peak_kb() - before)
"""


def test_a_decompression_bomb_is_refused_in_little_memory() -> None:
    data = bomb()
    assert len(data) < 30_000

    def run(max_pixels: int) -> list[str]:
        command = [sys.executable, "-W", "error", "-c", MEASURE, str(max_pixels)]
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout.decode().split()

    code, growth_kb = run(100_000_000)
    assert code == "image_too_large"
    assert int(growth_kb) < 20_000
    (decoded_kb,) = run(200_000_000)  # the same picture within the limit: the measure sees a decoded one
    assert int(decoded_kb) > 300_000
