"""Decoding: bit-equal to transformers' loader on every kind of picture, and limits that name themselves."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from scorer.encoding.images import load_image
from scorer.errors import ConfigError, FailureCode, RowError
from tests.scorer.pictures import LIMITS, PICTURES, encoded, gray16, picture, reference, with_orientation


def refused(source: Any, **limits: int) -> RowError:
    with pytest.raises(RowError) as caught:
        load_image(source, **{**LIMITS, **limits})
    return caught.value


@pytest.mark.parametrize("name", PICTURES)
def test_equals_transformers(name: str, tmp_path: Path) -> None:
    data = PICTURES[name]
    path = tmp_path / "no extension"
    path.write_bytes(data)
    expected = reference(data)
    for source in (data, bytearray(data), memoryview(data), path, str(path), Image.open(io.BytesIO(data))):
        image = load_image(source, **LIMITS)
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), expected)


def test_the_orientations_differ_from_each_other() -> None:
    seen = {load_image(with_orientation(o), **LIMITS).tobytes() for o in range(1, 9)}
    assert len(seen) == 8


def test_sixteen_bit_gray_is_clipped_not_scaled() -> None:
    red = np.asarray(load_image(PICTURES["png gray 16"], **LIMITS))[..., 0]
    np.testing.assert_array_equal(red, np.minimum(np.asarray(gray16()), 255))


def test_the_callers_picture_stays_as_it_is() -> None:
    original = Image.open(io.BytesIO(PICTURES["png palette, transparent colour"]))
    original.load()
    before = (original.mode, original.size, dict(original.info), original.tobytes())
    ours = load_image(original, **LIMITS)
    ours.paste((1, 2, 3), (0, 0, 10, 10))
    assert (original.mode, original.size, dict(original.info), original.tobytes()) == before
    already = picture()
    assert load_image(already, **LIMITS) is not already


def test_nothing_but_pixels_comes_back() -> None:
    assert load_image(with_orientation(6), **LIMITS).info == {}


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"])
def test_decoded_pictures_of_any_mode_become_rgb(mode: str) -> None:
    image = Image.new(mode, (1, 1))
    np.testing.assert_array_equal(np.asarray(load_image(image, **LIMITS)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    "source", [None, b"", "", "no/such/file.png", "a\0b.png", "x" * 5000, "https://example.org/a.png"]
)
def test_missing(source: Any) -> None:
    assert refused(source).code is FailureCode.IMAGE_MISSING


def test_what_is_not_a_regular_file_is_missing(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (tmp_path, pipe, Path("/dev/zero"), tmp_path / "a.png" / "b.png"):
        assert refused(path).code is FailureCode.IMAGE_MISSING


def test_messages_name_subject_value_limit_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "kite.png"
    path.write_bytes(PICTURES["png"])
    size = len(PICTURES["png"])
    for source, name in ((path, "kite.png"), (PICTURES["png"], "image")):
        for text in (name, str(size), "max_image_bytes=99", "raise the limit"):
            assert text in refused(source, max_bytes=99).message
    for text in ("56×40 = 2240", "max_image_pixels=2239", "raise the limit"):
        assert text in refused(PICTURES["png"], max_pixels=2239).message
    assert "https" in refused("https://example.org/a.png").message and "URLs" in refused("s3://b/a.png").message


def test_limits_are_inclusive_and_hold_for_every_kind_of_source() -> None:
    data = PICTURES["png"]
    assert load_image(data, max_bytes=len(data), max_pixels=2240).size == (56, 40)
    assert refused(data, max_bytes=len(data) - 1).code is FailureCode.IMAGE_TOO_LARGE
    assert refused(picture(), max_pixels=2239).code is FailureCode.IMAGE_TOO_LARGE


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.png"
    with path.open("wb") as file:
        file.truncate(2**40)
    assert refused(path).code is FailureCode.IMAGE_TOO_LARGE


@pytest.mark.parametrize(
    "data", [b"%PDF-1.7", b"<svg/>", b"\0" * 64, b"x", encoded(picture(), "EPS"), encoded(picture(), "PCX")]
)
def test_other_formats_are_refused(data: bytes) -> None:
    assert refused(data).code is FailureCode.IMAGE_FORMAT


@pytest.mark.parametrize("source", [17, {"bytes": b"x"}, [b"x"]])
def test_other_types_are_refused(source: Any) -> None:
    error = refused(source)
    assert error.code is FailureCode.IMAGE_FORMAT
    assert type(source).__name__ in error.message


def test_no_pixels_is_no_picture() -> None:
    assert refused(Image.new("RGB", (0, 5))).code is FailureCode.IMAGE_UNREADABLE


def test_the_truncation_switch_of_the_process_is_not_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ConfigError, match="LOAD_TRUNCATED_IMAGES"):
        load_image(PICTURES["jpeg"], **LIMITS)


def test_our_limit_alone_decides_not_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses from 200 on
    assert load_image(PICTURES["png"], **LIMITS).size == (56, 40)
    assert Image.MAX_IMAGE_PIXELS == 100
