"""Base64 in a cell is told from a path and from an image's own bytes, for the formats that are decoded."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from scorer.base64_images import decode_base64, find_base64
from scorer.encoding.image_formats import FORMATS

UNSIGNED = {"PPM", "TGA"}
"""Formats whose first bytes show too little."""


def picture(format: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 30, 30)).save(data, format=format)
    return data.getvalue()


def nowhere(path: str) -> bool:
    return False


@pytest.mark.parametrize("format", [one.name for one in FORMATS if one.name not in UNSIGNED])
def test_every_decoded_format_is_known_in_base64_and_as_itself(format: str) -> None:
    data = picture(format)
    plain = base64.b64encode(data)
    for value in (plain, base64.urlsafe_b64encode(data), plain.rstrip(b"="), base64.encodebytes(data)):
        for one in (value, value.decode()):
            found = find_base64(one, nowhere)
            assert found is not None
            assert decode_base64(found) == data
    assert find_base64(data, nowhere) is None, "its own bytes are no base64"


@pytest.mark.parametrize("format", sorted(UNSIGNED))
def test_a_format_without_a_signature_needs_a_data_url(format: str) -> None:
    data = picture(format)
    plain = base64.b64encode(data).decode()
    assert find_base64(plain, nowhere) is None
    assert find_base64(f"data:image/x;base64,{plain}".encode(), nowhere) == plain


def test_a_path_that_exists_is_no_base64_but_bytes_are_no_path() -> None:
    plain = base64.b64encode(picture("JPEG")).decode()[:4000]
    assert find_base64(plain, lambda path: path != plain) == plain
    assert find_base64(plain, lambda path: path == plain) is None
    assert find_base64(plain.encode(), lambda path: path == plain) == plain

    def fails(path: str) -> bool:
        raise OSError(36, "File name too long")

    assert find_base64(plain, fails) == plain


@pytest.mark.parametrize(
    "value", ["", "a.png", "a" * 64, "f" * 64 + ".png", "http://x/" + "a" * 99, b"", b"ok", b"a" * 99]
)
def test_what_is_no_base64(value: str | bytes) -> None:
    assert find_base64(value, nowhere) is None
