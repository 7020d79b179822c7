"""Contrast images against naive constructions: pixel by pixel, as the publications write them."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scorer.contrast_images import (
    GRAIN,
    PATCHES,
    ContrastOptions,
    diffused_image,
    downsampled_image,
    patched_image,
    signal_share,
)
from scorer.encoding.images import load_image

Alter = Callable[[Image.Image, ContrastOptions], Image.Image]
Levels = npt.NDArray[np.uint8]

OPTIONS = ContrastOptions(blank_color=(122, 116, 104), blur_radius=0.1, noise_seed=3)
ALTERS = (patched_image, diffused_image, downsampled_image)
RANDOM = (patched_image, diffused_image)
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40)) | st.sampled_from([(1, 700), (700, 1), (650, 3), (97, 24)])


def photo(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Random levels, none of them black, so that black patches are seen."""
    width, height = size
    return Image.fromarray(np.random.default_rng(seed).integers(1, 256, (height, width, 3), dtype=np.uint8))


def levels(image: Image.Image) -> Levels:
    return np.asarray(image)


def seeded(image: Image.Image, seed: int) -> np.random.PCG64:
    digest = hashlib.blake2b(f"({image.width}, {image.height})".encode() + image.tobytes(), digest_size=16).digest()
    return np.random.PCG64(np.random.SeedSequence([seed, sum(byte << 8 * i for i, byte in enumerate(digest))]))


def naive_patches(image: Image.Image, share: float, seed: int) -> Levels:
    """VPPO's and PAPO's loop over patches, of 1/24 of the longer side."""
    pixels = np.array(image)
    side = Fraction(max(image.size), PATCHES)
    chance = np.random.Generator(seeded(image, seed))
    for y in range(PATCHES):
        for x in range(PATCHES):
            if chance.random() < share:
                top, bottom, left, right = (math.floor(side * k) for k in (y, y + 1, x, x + 1))
                pixels[top:bottom, left:right] = 0
    return pixels


def naive_diffusion(image: Image.Image, step: int, seed: int) -> Levels:
    """VCD's schedule in float64, TPO's range of levels; noise that is one number for each place of the grain."""
    betas = 1 / (1 + np.exp(-np.linspace(-6, 6, 1000))) * (0.5e-2 - 1e-5) + 1e-5
    kept = np.cumprod(1 - betas)[step]
    side = Fraction(max(image.size), GRAIN)
    places = [[math.floor((i + 1) / side - Fraction(1, 10**9)) for i in range(n)] for n in (image.height, image.width)]
    rows, columns = ([sorted(set(one)).index(place) for place in one] for one in places)
    count = (rows[-1] + 1) * (columns[-1] + 1) * 3
    words = seeded(image, seed).random_raw(count // 4 + 1)
    quantile = NormalDist().inv_cdf
    drawn = [quantile(((int(words[i // 4]) >> 16 * (i % 4) & 0xFFFF) + 0.5) / 65536) for i in range(count)]
    noise = np.array(drawn).reshape(rows[-1] + 1, columns[-1] + 1, 3)
    x = np.sqrt(kept) * levels(image) / 255 + np.sqrt(1 - kept) * noise[rows][:, columns]
    return np.round(255 * x.clip(0, 1)).astype(np.uint8)


def naive_downsample(image: Image.Image, ratio: float) -> Levels:
    width, height = (max(1, int(side * ratio)) for side in image.size)
    small = levels(image.resize((width, height), Image.Resampling.BILINEAR))
    rows, columns = (
        [int((2 * i + 1) * few // (2 * many)) for i in range(many)]
        for few, many in ((height, image.height), (width, image.width))
    )
    return small[rows][:, columns]


def between(side: int, ratio: float) -> npt.NDArray[np.bool_]:
    """Places whose middle lies on the edge of two small pixels: Pillow's floats may take either."""
    few = max(1, int(side * ratio))
    return (2 * np.arange(side) + 1) * few % (2 * side) == 0


@settings(max_examples=60, deadline=None)
@given(SIZES, st.sampled_from([0.05, 0.5, 0.6, 1.0]), st.integers(0, 5))
def test_patches(size: tuple[int, int], share: float, seed: int) -> None:
    image, options = photo(size), replace(OPTIONS, patch_share=share, noise_seed=seed)
    np.testing.assert_array_equal(levels(patched_image(image, options)), naive_patches(image, share, seed))


@settings(max_examples=40, deadline=None)
@given(SIZES, st.sampled_from([0, 1, 500, 999]), st.integers(0, 5))
def test_diffusion(size: tuple[int, int], step: int, seed: int) -> None:
    image, options = photo(size), replace(OPTIONS, diffusion_step=step, noise_seed=seed)
    found, expected = levels(diffused_image(image, options)), naive_diffusion(image, step, seed)
    apart = np.abs(found.astype(int) - expected)
    assert apart.max() <= 1 and apart.mean() <= 0.01  # float32 may round a level up that float64 rounds down


@settings(max_examples=60, deadline=None)
@given(SIZES, st.sampled_from([0.01, 0.1, 0.5, 0.99]))
def test_downsample(size: tuple[int, int], ratio: float) -> None:
    image = photo(size)
    found = levels(downsampled_image(image, replace(OPTIONS, downsample_ratio=ratio)))
    sure = ~between(image.height, ratio)[:, None] & ~between(image.width, ratio)
    np.testing.assert_array_equal(found[sure], naive_downsample(image, ratio)[sure])


def test_the_comparisons_tell_options_apart() -> None:
    """Negative controls: another share, step, ratio or seed is far away."""
    image = photo((60, 40))
    patched, diffused = levels(patched_image(image, OPTIONS)), levels(diffused_image(image, OPTIONS)).astype(int)
    assert (patched != naive_patches(image, 0.6, 3)).mean() > 0.05
    assert (patched != naive_patches(image, 0.5, 4)).mean() > 0.2
    assert np.abs(diffused - naive_diffusion(image, 600, 3)).mean() > 3
    assert np.abs(diffused - naive_diffusion(image, 500, 4)).mean() > 30
    assert (levels(downsampled_image(image, OPTIONS)) != naive_downsample(image, 0.2)).mean() > 0.5


@settings(max_examples=40, deadline=None)
@given(SIZES, st.sampled_from(["L", "RGBA", "LA", "P", "1"]), st.sampled_from(ALTERS))
def test_any_image_that_is_decoded_keeps_its_size_and_is_left_alone(
    size: tuple[int, int], mode: str, alter: Alter
) -> None:
    with io.BytesIO() as file:
        photo(size).convert(mode).save(file, "PNG")
        image = load_image(file.getvalue(), max_bytes=10**9, max_pixels=10**9)
    before = image.tobytes()
    made = alter(image, OPTIONS)
    assert (made.size, made.mode) == (size, "RGB")
    assert image.tobytes() == before
    assert alter(load_image(image, max_bytes=1, max_pixels=10**9), OPTIONS).tobytes() == made.tobytes()


@pytest.mark.parametrize("alter", ALTERS)
@pytest.mark.parametrize("size", [(0, 0), (0, 3), (3, 0)])
def test_an_image_without_pixels_stays_one(alter: Alter, size: tuple[int, int]) -> None:
    assert alter(Image.new("RGB", size), OPTIONS).size == size


@pytest.mark.parametrize("alter", RANDOM)
def test_images_of_one_size_are_not_altered_at_the_same_places(alter: Alter) -> None:
    gray = Image.new("RGB", (48, 48), (128, 128, 128))
    other = gray.copy()
    other.putpixel((0, 0), (129, 128, 128))
    assert (levels(alter(gray, OPTIONS)) != levels(alter(other, OPTIONS))).mean() > 0.3
    assert alter(gray, OPTIONS).tobytes() == alter(gray.copy(), OPTIONS).tobytes()


def test_random_contrasts_are_the_same_on_every_machine() -> None:
    image = Image.new("RGB", (2, 2), (100, 150, 200))
    assert list(diffused_image(image, OPTIONS).tobytes()) == [255, 42, 255, 0, 255, 138, 237, 19, 1, 67, 238, 185]
    black = levels(patched_image(Image.new("RGB", (24, 24), (9, 9, 9)), OPTIONS))[0, :, 0] == 0
    assert "".join("01"[int(one)] for one in black) == "011111011001010101010110"


def test_the_share_of_black_patches_is_that_asked_for() -> None:
    for share in (0.1, 0.5, 1.0):
        black = (levels(patched_image(photo((480, 480)), replace(OPTIONS, patch_share=share))) == 0).mean()
        assert black == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share)) / PATCHES)


def test_a_patch_covers_the_same_part_of_an_image_at_any_resolution() -> None:
    """The pattern follows from the pixels, so only its grain can be compared: no patch is cut."""
    for side in (24, 240, 960):
        black = levels(patched_image(photo((side, side)), OPTIONS))[:, :, 0] == 0
        cells = black.reshape(PATCHES, side // PATCHES, PATCHES, side // PATCHES)
        assert (cells.all((1, 3)) == cells.any((1, 3))).all()


def test_noise_of_large_images_survives_being_shrunk() -> None:
    """At a grain of one pixel, a photo six times larger would keep a sixth of the noise."""
    gray = Image.new("RGB", (GRAIN, 48), (128, 128, 128))
    small = levels(diffused_image(gray, OPTIONS)).std()
    large = diffused_image(gray.resize((6 * GRAIN, 288)), OPTIONS).resize((GRAIN, 48), Image.Resampling.BOX)
    assert levels(large).std() == pytest.approx(small, rel=0.05)


def test_the_schedule_is_vcds() -> None:
    """At VCD's default of 500 steps, three quarters of the variance are the image's."""
    assert signal_share(0) == pytest.approx(1 - 1e-5 - (5e-3 - 1e-5) / (1 + math.exp(6)))
    assert signal_share(500) == pytest.approx(0.7448, abs=5e-5)
    assert signal_share(999) == pytest.approx(0.0812, abs=5e-5)
    noise = levels(diffused_image(Image.new("RGB", (600, 600), (128, 128, 128)), replace(OPTIONS, diffusion_step=30)))
    assert noise.mean() == pytest.approx(128 * math.sqrt(signal_share(30)), abs=0.1)
    assert noise.std() == pytest.approx(255 * math.sqrt(1 - signal_share(30)), rel=0.01)
