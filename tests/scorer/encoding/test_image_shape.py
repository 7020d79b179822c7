"""An image's shape is judged before it is decoded, and as it stands upright."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scorer import Sample, ScorerConfig
from scorer.encoding import image_shape
from scorer.encoding.encoder import Encoder
from scorer.encoding.images import load_image
from scorer.errors import FailureCode, RowError
from scorer.results import Failure
from scorer.types import EncodedSample
from tests.scorer import tiny
from tests.scorer.families.checkpoints import qwen_vl

TURNED = 6  # by 90 degrees
Seen = list[tuple[int, int]]


def saved(size: tuple[int, int], format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, (9, 90, 200)).save(stream, format, **options)
    return stream.getvalue()


def turned(size: tuple[int, int], format: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = TURNED
    return saved(size, format, exif=exif)


def refuse(width: int, height: int) -> None:
    raise RowError(FailureCode.IMAGE_SHAPE, f"{width} and {height}")


def load(data: bytes, check: Callable[[int, int], None] | None = None) -> Image.Image:
    return load_image(data, max_bytes=2**26, max_pixels=2**26, check_shape=check)


def test_a_shape_is_refused_before_the_image_is_decoded() -> None:
    cut = saved((70, 50))[:-60]  # decoding it would fail otherwise
    with pytest.raises(RowError) as caught:
        load(cut, refuse)
    assert (caught.value.code, caught.value.message) == (FailureCode.IMAGE_SHAPE, "70 and 50")
    with pytest.raises(RowError) as caught:
        load(cut, lambda width, height: None)
    assert caught.value.code is FailureCode.IMAGE_UNREADABLE


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_image_that_is_turned_is_judged_upright_and_only_so(format: str) -> None:
    seen: Seen = []
    image = load(turned((70, 50), format), lambda width, height: seen.append((width, height)))
    assert image.size == (50, 70)
    assert seen == [(50, 70)]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_an_image_that_is_not_turned_is_judged_on_its_header(format: str) -> None:
    seen: Seen = []
    load(saved((70, 50), format), lambda width, height: seen.append((width, height)))
    assert seen == [(70, 50)] * 2


@pytest.mark.parametrize("size", [(2**17 + 1, 1), (1, 2**17 + 1)])
def test_a_side_is_limited_for_every_model(size: tuple[int, int]) -> None:
    with pytest.raises(RowError) as caught:
        load(saved(size))
    assert caught.value.code is FailureCode.IMAGE_SHAPE
    assert caught.value.message == (
        f"image has {size[0]}×{size[1]} pixels, more than 131072 on one side; cut it into pieces or shrink it"
    )
    within = (min(size[0], 2**17), min(size[1], 2**17))
    assert load(saved(within)).size == within


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """A tiny LLaVA with the image sizes of LLaVA 1.5."""
    path = tiny.make_llava(tmp_path_factory.mktemp("llava"), tiny.byte_level_tokenizer(), tiny.CHATML)
    made = Encoder.load(path, ScorerConfig(device="cpu", contrast="image"))
    made._processor.image_processor.size = {"shortest_edge": 336}
    return made


def test_84_bytes_that_would_become_226_megapixels_are_refused_at_once(encoder: Encoder) -> None:
    data = saved((1, 2000))
    assert len(data) < 120
    started = time.monotonic()
    result = encoder.try_encode(Sample.caption("a", data, "A kite."))
    assert time.monotonic() - started < 1
    assert isinstance(result, Failure)
    assert result.code is FailureCode.IMAGE_SHAPE
    assert result.message == (
        "an image of 1×2000 pixels would become up to 225792000 pixels in the model's image processor, more than the "
        "20971520 allowed for its size; crop it, or pad it to a less elongated shape"
    )


def test_a_contrast_image_is_bounded_alike(encoder: Encoder) -> None:
    shown, long = saved((70, 50)), saved((2000, 1))
    assert isinstance(encoder.encode(Sample.caption("a", shown, "A kite.", contrast_image=shown)), EncodedSample)
    with pytest.raises(RowError) as caught:
        encoder.encode(Sample.caption("a", shown, "A kite.", contrast_image=long))
    assert caught.value.code is FailureCode.IMAGE_SHAPE
    assert "2000×1" in caught.value.message


def test_without_the_limit_it_would_be_processed(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control, on an image that costs less."""
    sample = Sample.caption("a", saved((1, 200)), "A kite.", contrast_image=saved((70, 50)))
    with pytest.raises(RowError):
        encoder.encode(sample)
    monkeypatch.setattr(image_shape, "MAX_PROCESSED_PIXELS", 2**25)
    assert isinstance(encoder.encode(sample), EncodedSample)


def test_what_a_familys_own_processor_refuses_has_the_same_code(tmp_path: Path) -> None:
    """Qwen-VL's takes no aspect ratio above 200."""
    encoder = Encoder.load(qwen_vl.make_2_5(tmp_path), ScorerConfig(device="cpu"))
    for size in [(1, 201), (201, 1), (4000, 3)]:
        result = encoder.try_encode(Sample.caption("a", saved(size), "A kite."))
        assert isinstance(result, Failure)
        assert result.code is FailureCode.IMAGE_SHAPE
        assert f"{size[0]} x {size[1]}" in result.message
        assert "must be smaller than 200" in result.message
    assert isinstance(encoder.try_encode(Sample.caption("a", saved((1, 200)), "A kite.")), EncodedSample)
