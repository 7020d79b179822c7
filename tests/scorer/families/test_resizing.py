"""What image processors make of an image is bounded by its size, before they see it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from math import isqrt
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.image_shapes import PUBLISHED
from scorer import ScorerConfig
from scorer.encoding.encoder import Encoder
from scorer.encoding.image_processing import image_options, process_images
from scorer.encoding.image_shape import MAX_SIDE, check_processed, processed_limit
from scorer.errors import FailureCode, RowError
from scorer.families import FAMILIES
from scorer.families.resizing import Resizing
from tests.scorer.families.cases import MAKERS

GetEncoder = Callable[[str], Encoder]

FEW = 2**19
"""The test's own limit of predicted pixels, for its speed."""
BYTES = 90
"""Of arrays per predicted pixel at the most: three channels in float32, twice for Qwen-VL's frames, and copies."""
SIDES = st.one_of(st.integers(1, 40), st.integers(1, 1000), st.integers(0, 16).map(lambda n: 2**n))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> GetEncoder:
    """Name → the encoder of its checkpoint, made at first use."""

    @cache
    def made(name: str) -> Encoder:
        return Encoder.load(MAKERS[name](tmp_path_factory.mktemp(name)), ScorerConfig(device="cpu"))

    return made


@pytest.fixture
def resized(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pixels of everything that Pillow resizes: of the result, and of the image whose width alone is done."""
    own, found = Image.Image.resize, []

    def resize(image: Image.Image, size: Any, *args: Any, **options: Any) -> Image.Image:
        found.append(int(size[0]) * max(int(size[1]), image.height))
        return own(image, size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", resize)
    return found


def most_pixels(encoder: Encoder, size: tuple[int, int], count: int, resized: list[int]) -> tuple[int, int, int] | None:
    """The most pixels, the most tokens and the most bytes of arrays for one image; None if the processor refuses it."""
    images = [Image.new("RGB", size, (n, 200, 40)) for n in range(count)]
    resized.clear()
    tracemalloc.start()
    try:
        processed = process_images(encoder._processor, encoder.family, images)
        peak = tracemalloc.get_traced_memory()[1]
    except RowError as error:
        assert error.code is FailureCode.IMAGE_SHAPE
        assert f"{size[0]} x {size[1]}" in error.message
        return None
    finally:
        tracemalloc.stop()
    frames = getattr(encoder._processor.image_processor, "temporal_patch_size", 1)
    outputs = [np.asarray(image.pixels["pixel_values"]).size // 3 // frames for image in processed]
    tokens = [image.replacement.count(str(encoder._processor.image_token)) for image in processed]
    return max([*outputs, *resized]), max(tokens), peak


def before(encoder: Encoder, size: tuple[int, int], count: int) -> Resizing:
    return Resizing(encoder._processor, image_options(encoder._processor), *size, several=count > 1)


@pytest.mark.parametrize("name", MAKERS)
def test_the_prediction_bounds_what_the_processor_makes(name: str, encoder: GetEncoder, resized: list[int]) -> None:
    made = encoder(name)

    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(st.tuples(SIDES, SIDES), st.sampled_from([1, 2]))
    @example((1, 1), 1)
    @example((1, 2000), 1)
    @example((2000, 1), 1)
    @example((3, 500), 2)
    @example((500, 3), 2)
    @example((81, 1), 1)  # a side that rounds to none of Qwen-VL's patches
    @example((11, 68), 1)  # patches that Mistral 3 merges
    @example((64, 2048), 1)  # a side that Idefics3 makes even
    def check(size: tuple[int, int], count: int) -> None:
        count = count if made.family.several_images else 1
        predicted = made.family.processed_pixels(before(made, size, count))
        if max(predicted, size[0] * size[1]) > FEW:
            return
        found = most_pixels(made, size, count, resized)
        if found is not None:
            pixels, tokens, peak = found
            assert pixels <= predicted
            assert tokens <= predicted // 16  # patches of 4 × 4
            assert peak <= BYTES * count * max(predicted, size[0] * size[1]) + 2**18

    check()


@pytest.mark.parametrize("name", ["llava", "llava_next", "gemma3", "paligemma", "internvl", "instructblip"])
def test_a_prediction_from_the_area_alone_does_not(name: str, encoder: GetEncoder, resized: list[int]) -> None:
    """Negative control: of an image as large and square, the processor makes less."""
    made, size = encoder(name), (2, 8000)
    side = isqrt(size[0] * size[1])
    found = most_pixels(made, size, 1, resized)
    assert found is not None
    assert found[0] > made.family.processed_pixels(before(made, (side, side), 1))
    assert found[0] <= made.family.processed_pixels(before(made, size, 1))


def test_a_prediction_without_the_width_first_does_not(encoder: GetEncoder, resized: list[int]) -> None:
    """Negative control: Pillow holds every row of the image at its new width."""
    made = encoder("paligemma")
    found = most_pixels(made, (1, 5000), 1, resized)
    assert found is not None
    assert found[0] > 100 * made.family.processed_pixels(before(made, (1, 1), 1))


UP_TO_FOUR_TO_ONE = {"llava 1.5, padded", "idefics2, unlisted"}
"""A large image is padded to a square whole; or nobody knows what becomes of it."""


def accepts(name: str, size: tuple[int, int], *, several: bool = False) -> bool:
    family, image_processor = PUBLISHED[name]
    try:
        check_processed(SimpleNamespace(image_processor=image_processor), {}, family, *size, several=several)
    except RowError as error:
        assert error.code is FailureCode.IMAGE_SHAPE
        return False
    return True


def test_every_family_is_here() -> None:
    families = [family for family, _ in PUBLISHED.values()]
    assert all(any(family is other for other in families) for family in FAMILIES.values())


@pytest.mark.parametrize("name", PUBLISHED)
def test_pictures_of_people_and_pages_are_accepted(name: str) -> None:
    """Banners and long screenshots, thumbnails and maps, alone and several in a row; Qwen-VL's at its largest."""
    for long, short in [(1, 1), (4, 3), (16, 9), (2, 1), (4, 1), (10, 1), (20, 1)]:
        if long > 4 and name in UP_TO_FOUR_TO_ONE:
            continue
        for area in (64, 10_000, 300_000, 2_000_000, 16_777_216, 25_000_000, 100_000_000):
            scale = (area / (long * short)) ** 0.5
            size = max(1, int(long * scale)), max(1, int(short * scale))
            for shape in (size, size[::-1]):
                several = PUBLISHED[name][0].several_images and long <= 4 * short
                assert accepts(name, shape, several=several), shape


def test_a_few_bytes_that_would_become_gigabytes_are_refused() -> None:
    assert not accepts("llava 1.5", (1, 2000))
    assert not accepts("llava 1.5", (2000, 1))
    assert not accepts("paligemma", (1, 25_000_000))
    assert accepts("paligemma", (25_000_000, 1))  # the width comes first, and becomes less
    assert not accepts("llava onevision", (1, 25_000_000), several=True)
    assert not accepts("idefics2, unlisted", (1, 100_000))


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_accepted_is_bounded_by_the_limit_or_by_its_own_pixels(name: str) -> None:
    family, image_processor = PUBLISHED[name]
    processor = SimpleNamespace(image_processor=image_processor)
    for width in (1, 3, 40, 500):
        for height in (1, 300, 20_000, MAX_SIDE):
            predicted = family.processed_pixels(Resizing(processor, {}, width, height))
            assert accepts(name, (width, height)) is (predicted <= processed_limit(width, height))


def test_options_of_the_processor_go_before_the_image_processors_own() -> None:
    processor = SimpleNamespace(image_processor=PUBLISHED["llava 1.5"][1])
    image = Resizing(processor, {}, 100, 100)
    assert FAMILIES["llava"].processed_pixels(image) == 336**2
    larger = replace(image, options={"size": {"shortest_edge": 672}})
    assert FAMILIES["llava"].processed_pixels(larger) == 672**2
    assert FAMILIES["llava"].processed_pixels(replace(image, options={"do_resize": False})) == 336**2  # the crop
