"""Blanks that are not drawn: which families have them, and that they are what the processor makes of a drawn one."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from scorer import ScorerConfig
from scorer.contrasts import CONTRASTS
from scorer.encoding import encoder as encoder_module
from scorer.encoding.blanks import uniform_color
from scorer.encoding.encoder import Encoder
from scorer.encoding.image_processing import digest_of, join_pixels, process_images
from scorer.families import FAMILIES
from scorer.types import Branch, BytePixels, EncodedSample, PixelArray, Sample, UniformPixels
from tests.scorer.families.cases import MAKERS
from tests.scorer.families.harness import encode, one_at_a_time
from tests.scorer.families.samples import Case, caption, two_images
from tests.scorer.scoring import picture

UNIFORM = {
    "deepseek_vl": False,  # padded to a square
    "gemma3": True,
    "idefics3": True,
    "instructblip": True,
    "internvl": True,
    "llava": True,
    "llava_next": False,  # padded to a grid
    "llava_onevision": False,  # the same
    "llava_pixtral": True,
    "mistral3": True,
    "mllama": False,  # padded to a canvas
    "paligemma": True,
    "paligemma2": True,
    "qwen2_5_vl": True,
    "qwen2_vl": True,
    "qwen3_vl": True,
    "smolvlm": True,
}
NOT_DRAWN = [name for name, uniform in UNIFORM.items() if uniform]
DRAWN = [name for name, uniform in UNIFORM.items() if not uniform]
SIZES = [(30, 50), (50, 30), (64, 64), (211, 60), (61, 173), (40, 40), (29, 31), (300, 200), (640, 480), (1500, 90)]
GetEncoder = Callable[[str], Encoder]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> GetEncoder:
    """Name → the encoder of its checkpoint, made at first use."""

    @cache
    def made(name: str) -> Encoder:
        return Encoder.load(MAKERS[name](tmp_path_factory.mktemp(name)), ScorerConfig(device="cpu"))

    return made


def samples(made: Encoder) -> list[Sample]:
    """One row of every size; several images of one size and of different sizes where the family takes them."""
    rows = [caption(str(size), size, "A kite.") for size in SIZES]
    if made.family.several_images:
        one, other = picture(50, 30, 1), picture(50, 30, 2)
        rows += [two_images(), Sample("equal sizes", (one, other), two_images().turns)]
    return rows


def accepted(made: Encoder) -> list[tuple[Sample, EncodedSample]]:
    """The rows that the family takes, with their encoding."""
    rows = [(sample, made.try_encode(sample)) for sample in samples(made)]
    kept = [(sample, row) for sample, row in rows if isinstance(row, EncodedSample)]
    assert sum(len(sample.images) == 1 for sample, _ in kept) >= len(SIZES) - 1
    return kept


def drawn(made: Encoder, sample: Sample) -> tuple[list[str], dict[str, PixelArray]]:
    """What the processor itself makes of drawn blanks of the sample's sizes, in floats."""
    blanks = [CONTRASTS["blank"].how.draw(i.size, made.contrast_options) for i in sample.images]
    processed = process_images(made._processor, made.family, blanks)
    joined = join_pixels([one.pixels for one in processed], made.family.image_axis)
    return [one.replacement for one in processed], joined


def differences(made: Encoder, sample: Sample, branch: Branch) -> set[str]:
    """The names of the tensors that are not, bit for bit, those of drawn blanks."""
    _, expected = drawn(made, sample)
    assert branch.pixels.keys() >= expected.keys()
    pairs = {name: (np.asarray(branch.pixels[name]), np.asarray(array)) for name, array in expected.items()}
    return {n for n, (a, b) in pairs.items() if (a.shape, a.dtype, a.tobytes()) != (b.shape, b.dtype, b.tobytes())}


def test_every_family_is_in_the_table() -> None:
    assert set(UNIFORM) == set(MAKERS)
    assert set(FAMILIES) <= set(UNIFORM)


def color_of(encoder: Encoder) -> Any:
    """The colour that the encoder fills blanks with; None if it draws them."""
    return encoder._blank_colors[encoder._contrasts[0].record.how]  # the contrast is blank


@pytest.mark.parametrize("name", UNIFORM)
def test_a_blank_is_what_the_processor_makes_of_a_drawn_one(name: str, encoder: GetEncoder) -> None:
    made = encoder(name)
    assert (color_of(made) is not None) is UNIFORM[name]
    for sample, row in accepted(made):
        assert differences(made, sample, row.contrast) == set(), sample.sample_id
        clean = process_images(made._processor, made.family, list(sample.images))
        assert drawn(made, sample)[0] == [image.replacement for image in clean]


@pytest.mark.parametrize("name", NOT_DRAWN)
def test_another_colour_would_be_seen(name: str, encoder: GetEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: by one bit of one channel."""
    made = encoder(name)
    assert color_of(made) is not None
    off = color_of(made).copy()
    off[2] = np.nextafter(off[2], np.float32(9))
    monkeypatch.setitem(made._blank_colors, made._contrasts[0].record.how, off)
    for sample, row in accepted(made):
        assert differences(made, sample, row.contrast) == {"pixel_values"}, sample.sample_id


@pytest.mark.parametrize("name", DRAWN)
def test_where_the_processor_pads_a_blank_of_one_colour_would_be_wrong(name: str, encoder: GetEncoder) -> None:
    """Negative control of the families' records: the check at load refuses these families, whatever they say."""
    made = encoder(name)
    family = encoder_module.replace(made.family, uniform_blank=True)
    draw = CONTRASTS["blank"].how.draw
    assert uniform_color(made._processor, family, lambda size: draw(size, made.contrast_options), None) is None


@pytest.mark.parametrize("name", NOT_DRAWN)
def test_no_pixels_of_a_blank_travel_and_no_processor_runs(
    name: str, encoder: GetEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = encoder(name)
    runs: list[int] = []
    own = made._processor._process_images
    monkeypatch.setattr(made._processor, "_process_images", lambda *a, **b: runs.append(1) or own(*a, **b))
    for sample, row in accepted(made):
        runs.clear()
        made.encode(sample)
        assert len(runs) == len(sample.images)
        pixels = row.contrast.pixels["pixel_values"]
        if len({image.size for image in sample.images}) == 1:
            assert isinstance(pixels, UniformPixels)
            assert len(pickle.dumps(pixels)) < 300
        assert row.contrast.input_ids.tobytes() == row.clean.input_ids.tobytes()


@pytest.mark.parametrize("name", NOT_DRAWN)
def test_blanks_of_one_grid_are_one_key_whatever_the_image(name: str, encoder: GetEncoder) -> None:
    made = encoder(name)
    by_digest: dict[bytes, set[Any]] = {}
    by_grid: dict[Any, set[bytes]] = {}
    for sample, row in accepted(made):
        if len(sample.images) == 1:
            pixels = {n: a for n, a in row.contrast.pixels.items() if n in (made.family.pixel_names or ())}
            grid = tuple((n, a.shape, None if n == "pixel_values" else a.tobytes()) for n, a in pixels.items())
            by_digest.setdefault(row.contrast.pixels_digest, set()).add(grid)
            by_grid.setdefault(grid, set()).add(row.contrast.pixels_digest)
    assert {len(grids) for grids in by_digest.values()} == {len(digests) for digests in by_grid.values()} == {1}
    colours = {digest_of({"p": UniformPixels((1, 3, 4, 4), np.full(3, c, np.float32))}) for c in (0, 1)}
    shapes = {digest_of({"p": UniformPixels((1, 3, 4, n), np.zeros(3, np.float32))}) for n in (4, 5)}
    assert len(colours | shapes) == 3


def test_equal_drawn_blanks_of_different_sizes_are_one_object(encoder: GetEncoder) -> None:
    made = encoder("deepseek_vl")
    small, large, tall = (made.encode(caption("a", size, "A")).contrast for size in [(60, 30), (120, 60), (30, 60)])
    assert isinstance(small.pixels["pixel_values"], BytePixels)
    assert small.pixels["pixel_values"] is large.pixels["pixel_values"]
    assert small.pixels["pixel_values"] is not tall.pixels["pixel_values"]


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "idefics3", "mistral3"])
def test_scores_are_the_same_bytes_as_with_drawn_blanks(
    name: str, encoder: GetEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Case(path=encoder(name).checkpoint.path, special_tokens=()).load()
    rows = [caption("wide", (211, 60), "A kite."), caption("small", (30, 50), "A boat."), two_images()]
    filled = encode(scorer, rows)
    monkeypatch.setitem(scorer.encoder._blank_colors, scorer.encoder._contrasts[0].record.how, None)
    monkeypatch.setattr(encoder_module, "compact", lambda image: image)
    processed = encode(scorer, rows)
    assert not any(isinstance(row.contrast.pixels["pixel_values"], UniformPixels) for row in processed)
    for ours, theirs in zip(one_at_a_time(scorer, filled), one_at_a_time(scorer, processed), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a.logit, b.logit)
            np.testing.assert_array_equal(a.logprob, b.logprob)


# Negative controls of the check at load: a checkpoint's own settings that make blanks depend on the shape.


def crops_more_than_it_resizes(image_processor: Any) -> dict[str, Any]:
    return {"crop_size": {"height": 40, "width": 40}}


def pads_to_a_square(image_processor: Any) -> dict[str, Any]:
    own = image_processor.resize

    def resize(image: Any, size: Any, **options: Any) -> Any:
        side = max(image.shape[-2:])
        widths = [(0, 0), (0, side - image.shape[-2]), (0, side - image.shape[-1])]
        return own(np.pad(image, widths), size, **options)

    return {"resize": resize}


def shades(image_processor: Any) -> dict[str, Any]:
    own = image_processor.center_crop
    ramp = np.arange(32, dtype=np.uint8)[:, None]
    return {"center_crop": lambda image, size: own(image, size) // 2 + ramp}


def counts_what_it_saw(image_processor: Any) -> dict[str, Any]:
    """Another output that follows from the image's size, not from the grid."""
    own = image_processor._preprocess

    def preprocess(images: Any, *args: Any, **kwargs: Any) -> Any:
        made = own(images, *args, **kwargs)
        made["image_sizes"] = np.array([[int(image.mean()), 1] for image in images])
        return made

    return {"_preprocess": preprocess}


@pytest.mark.parametrize("change", [crops_more_than_it_resizes, pads_to_a_square, shades, counts_what_it_saw])
def test_a_checkpoint_whose_blanks_are_not_of_one_colour_draws_them(
    change: Callable[[Any], dict[str, Any]], encoder: GetEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = encoder("llava")
    for name, value in change(original._processor.image_processor).items():
        monkeypatch.setattr(original._processor.image_processor, name, value)
    draw = CONTRASTS["blank"].how.draw
    color = uniform_color(
        original._processor, original.family, lambda size: draw(size, original.contrast_options), original.pixel_table
    )
    assert color is None
    monkeypatch.setitem(original._blank_colors, original._contrasts[0].record.how, color)
    monkeypatch.setattr(original, "_drawn", encoder_module._recent())
    for sample, row in accepted(original):
        assert differences(original, sample, row.contrast) == set(), sample.sample_id
