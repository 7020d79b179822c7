"""JPEGs that are decoded at a reduced scale: which, how upright, and by how much their pixels differ."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from scorer import Sample, ScorerConfig
from scorer.encoding.encoder import Encoder
from scorer.encoding.images import decode_image, load_image
from scorer.errors import FailureCode, RowError
from tests.scorer.families.cases import MAKERS

LIMITS = {"max_bytes": 2**30, "max_pixels": 2**30}
GetEncoder = Callable[..., Encoder]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> GetEncoder:
    """(Name of a checkpoint, options) → its encoder."""
    path = cache(lambda name: MAKERS[name](tmp_path_factory.mktemp(name)))

    def made(name: str = "llava", **options: Any) -> Encoder:
        return Encoder.load(path(name), ScorerConfig(device="cpu", **options))

    return made


def photo(width: int, height: int) -> Image.Image:
    """Detail at every scale, as a photo has."""
    total = np.zeros((height, width, 3))
    for octave in range(1, 8):
        small = np.random.default_rng(octave).integers(0, 256, (2**octave, 2**octave, 3), dtype=np.uint8)
        total += np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)) / 2**octave
    return Image.fromarray((255 * (total - total.min()) / np.ptp(total)).astype(np.uint8))


def encoded(image: Image.Image, format: str = "JPEG", orientation: int = 1, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    with io.BytesIO() as file:
        image.save(file, format, exif=exif, **options)
        return file.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_a_reduced_image_is_upright_and_near_the_whole_one(scale: int, orientation: int, progressive: bool) -> None:
    data = encoded(photo(403, 301), orientation=orientation, quality=95, progressive=progressive)
    whole = load_image(data, **LIMITS)
    asked: list[tuple[int, int]] = []
    decoded = decode_image(data, **LIMITS, choose_scale=lambda *size: asked.append(size) or scale)
    assert asked == [whole.size]
    assert decoded.size == whole.size
    assert decoded.image.size == tuple(-(-side // scale) for side in whole.size)
    expected = whole.resize(decoded.image.size, Image.Resampling.BOX)
    difference = np.abs(np.asarray(decoded.image, np.int16) - np.asarray(expected, np.int16)).mean()
    assert difference < 4
    if scale > 1:
        turned = np.asarray(decoded.image.rotate(180), np.int16)
        assert np.abs(turned - np.asarray(expected, np.int16)).mean() > 4 * difference, "negative control"


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_gray_and_cmyk_are_reduced_too(mode: str) -> None:
    data = encoded(photo(400, 300).convert(mode))
    decoded = decode_image(data, **LIMITS, choose_scale=lambda *size: 4).image
    assert (decoded.mode, decoded.size) == ("RGB", (100, 75))


def test_other_formats_and_decoded_images_are_never_reduced() -> None:
    image = photo(400, 300)
    for source in (encoded(image, "PNG"), encoded(image, "WEBP"), image):
        decoded = decode_image(source, **LIMITS, choose_scale=lambda *size: 8)
        assert decoded.image.size == decoded.size == (400, 300)


def test_limits_are_those_of_the_whole_image() -> None:
    data = encoded(photo(400, 300))
    with pytest.raises(RowError) as caught:
        decode_image(data, max_bytes=2**30, max_pixels=119_999, choose_scale=lambda *size: 8)
    assert caught.value.code is FailureCode.IMAGE_TOO_LARGE
    shapes: list[tuple[int, int]] = []
    decode_image(
        encoded(photo(400, 300), orientation=6),
        **LIMITS,
        check_shape=lambda *size: shapes.append(size),
        choose_scale=lambda *size: 8,
    )
    assert set(shapes) == {(300, 400)}


def test_a_truncated_file_is_refused_at_any_scale() -> None:
    data = encoded(photo(400, 300))
    with pytest.raises(RowError) as caught:
        decode_image(data[: len(data) // 2], **LIMITS, choose_scale=lambda *size: 8)
    assert caught.value.code is FailureCode.IMAGE_UNREADABLE


def test_an_error_of_the_choice_is_not_blamed_on_the_image() -> None:
    with pytest.raises(ZeroDivisionError):
        decode_image(encoded(photo(40, 30)), **LIMITS, choose_scale=lambda *size: 1 // 0)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "internvl", "idefics3", "mistral3", "gemma3", "paligemma"])
def test_a_row_keeps_its_tokens_and_its_blank(name: str, encoder: GetEncoder) -> None:
    whole, draft = encoder(name), encoder(name, jpeg_draft=True)
    differ = []
    for size in [(1200, 900), (900, 1200), (1111, 777), (60, 50)]:
        sample = Sample.caption("a", encoded(photo(*size)), "A kite.", prompt="What?")
        a, b = whole.encode(sample), draft.encode(sample)
        np.testing.assert_array_equal(a.clean.input_ids, b.clean.input_ids)
        assert a.contrast.pixels_digest == b.contrast.pixels_digest
        pixels = [np.asarray(row.clean.pixels["pixel_values"]) for row in (a, b)]
        assert pixels[0].shape == pixels[1].shape
        differ.append(float(np.abs(pixels[0] - pixels[1]).mean()))
        assert differ[-1] < 0.1  # of values with a standard deviation of about 1
    assert max(differ) > 0, "the option does something"


def test_noise_has_the_size_of_the_whole_image(encoder: GetEncoder) -> None:
    """Noise of a reduced size would be less blurred by the resize."""
    sample = Sample.caption("a", encoded(photo(1200, 900)), "A kite.", prompt="What?")
    rows = [encoder(contrast="noise", jpeg_draft=on).encode(sample) for on in (False, True)]
    assert rows[0].clean.pixels_digest != rows[1].clean.pixels_digest
    assert rows[0].contrast.pixels_digest == rows[1].contrast.pixels_digest
