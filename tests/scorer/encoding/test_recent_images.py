"""Rows that have an image in common decode and process it once, and only then."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scorer import Sample, ScorerConfig
from scorer.encoding import encoder as encoder_module
from scorer.encoding.encoder import Encoder
from scorer.results import Failure
from scorer.types import IMAGE, Branch, Turn
from tests.scorer.families.cases import MAKERS
from tests.scorer.scoring import picture

GetEncoder = Callable[..., Encoder]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> GetEncoder:
    """(Name of a checkpoint, contrast) → a new encoder that has seen no image."""
    path = cache(lambda name: MAKERS[name](tmp_path_factory.mktemp(name)))

    def made(name: str = "llava", contrast: str = "blank") -> Encoder:
        return Encoder.load(path(name), ScorerConfig(device="cpu", contrast=contrast))

    return made


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every image that is decoded."""
    own, found = encoder_module.decode_image, []

    def decode(source: Any, **limits: Any) -> Any:
        found.append(source)
        return own(source, **limits)

    monkeypatch.setattr(encoder_module, "decode_image", decode)
    return found


def png(seed: int = 0, size: tuple[int, int] = (50, 30)) -> bytes:
    with io.BytesIO() as file:
        picture(*size, seed).save(file, "PNG")
        return file.getvalue()


def captions(image: Any, count: int = 3) -> list[Sample]:
    return [Sample.caption(str(n), image, "A kite. " * (n + 1)) for n in range(count)]


def pixels(branch: Branch) -> Any:
    return branch.pixels["pixel_values"]


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "idefics3", "llava_next", "llava_onevision"])
def test_captions_of_an_image_decode_it_once_and_carry_it_once(
    name: str, encoder: GetEncoder, decoded: list[Any]
) -> None:
    made = encoder(name)
    rows = [made.encode(sample) for sample in captions(png(), 10)]
    assert len(decoded) == 1
    assert len({id(pixels(row.clean)) for row in rows}) == 1
    block = pickle.dumps(rows)
    alone = pickle.dumps(rows[:1])
    copied = [
        replace(row, clean=replace(row.clean, pixels=pickle.loads(pickle.dumps(row.clean.pixels)))) for row in rows
    ]
    assert len(block) - len(alone) < (len(pickle.dumps(copied)) - len(alone)) / 2, "negative control: ten copies"
    for row, sample in zip(rows, captions(png(), 10), strict=True):
        fresh = encoder(name).encode(sample)
        for ours, theirs in ((row.clean, fresh.clean), (row.contrast, fresh.contrast)):
            assert ours.pixels_digest == theirs.pixels_digest
            np.testing.assert_array_equal(ours.input_ids, theirs.input_ids)
            for key, array in theirs.pixels.items():
                np.testing.assert_array_equal(np.asarray(ours.pixels[key]), np.asarray(array))


def test_what_a_reader_adds_to_one_row_stays_in_that_row(encoder: GetEncoder) -> None:
    first, second = map(encoder().encode, captions(png(), 2))
    first.clean.pixels["more"] = np.zeros(1)
    assert "more" not in second.clean.pixels


def test_a_file_is_known_by_its_bytes(encoder: GetEncoder, decoded: list[Any], tmp_path: Path) -> None:
    made, file = encoder(), tmp_path / "a.png"
    file.write_bytes(png(1))
    (tmp_path / "b.png").write_bytes(png(1))
    first = made.encode(captions(str(file))[0])
    second = made.encode(captions(tmp_path / "b.png")[0])
    assert pixels(first.clean) is pixels(second.clean)
    file.write_bytes(png(2))
    third = made.encode(captions(str(file))[0])
    assert third.clean.pixels_digest != first.clean.pixels_digest
    assert len(decoded) == 2


def test_a_decoded_image_is_looked_at_again_because_its_owner_may_have_changed_it(encoder: GetEncoder) -> None:
    made, image = encoder(), picture(50, 30)
    first = made.encode(captions(image)[0])
    image.paste((200, 10, 10), (0, 0, 25, 30))
    assert made.encode(captions(image)[0]).clean.pixels_digest != first.clean.pixels_digest


def test_an_altered_image_is_kept_with_its_contrast(encoder: GetEncoder, decoded: list[Any]) -> None:
    blur = encoder(contrast="blur")
    rows = [blur.encode(sample) for sample in captions(png())]
    assert len(decoded) == 1
    assert len({id(pixels(row.contrast)) for row in rows}) == 1
    assert rows[0].contrast.pixels_digest != rows[0].clean.pixels_digest
    assert rows[0].contrast.pixels_digest == encoder(contrast="blur").encode(captions(png())[0]).contrast.pixels_digest
    blank = blur.with_contrast("blank").encode(captions(png())[0])
    assert blank.contrast.pixels_digest == encoder().encode(captions(png())[0]).contrast.pixels_digest


def test_contrasts_of_one_encoder_share_the_image(encoder: GetEncoder, decoded: list[Any]) -> None:
    made = encoder()
    rows = [one.encode(captions(png())[0]) for one in (made, made.with_contrast("masked"), made.with_contrast("noise"))]
    assert len(decoded) == 1
    assert len({id(pixels(row.clean)) for row in rows}) == 1


def test_contrast_images_are_kept_like_others(encoder: GetEncoder, decoded: list[Any]) -> None:
    made = encoder(contrast="image")
    rows = [made.encode(replace(sample, contrast_images=(png(7, (44, 40)),))) for sample in captions(png())]
    assert len(decoded) == 2
    assert len({id(pixels(row.contrast)) for row in rows}) == 1


def test_images_of_a_row_that_depend_on_each_other_are_processed_together(
    encoder: GetEncoder, decoded: list[Any]
) -> None:
    """LLaVA-OneVision cuts no tiles from several images, and does from the same image alone."""
    made = encoder("llava_onevision")
    alone = made.encode(captions(png())[0])
    turns = (Turn("user", (IMAGE, IMAGE, "Which?")), Turn("assistant", ("A kite.",)))
    both = made.encode(Sample("both", (png(), png(2)), turns))
    assert pixels(both.clean).shape[1:] != pixels(alone.clean).shape[1:]
    fresh = encoder("llava_onevision").encode(Sample("both", (png(), png(2)), turns))
    assert fresh.clean.pixels_digest == both.clean.pixels_digest


def test_a_shape_is_checked_again_where_several_images_are_treated_otherwise(
    encoder: GetEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, asked = encoder(), []
    own = encoder_module.check_processed
    monkeypatch.setattr(
        encoder_module, "check_processed", lambda *a, several: asked.append(several) or own(*a, several=several)
    )
    turns = (Turn("user", (IMAGE, IMAGE, "Which?")), Turn("assistant", ("A kite.",)))
    made.encode(captions(png())[0])
    made.encode(Sample("both", (png(), png()), turns))
    assert set(asked) == {False, True}


def test_an_image_that_fails_fails_every_row_that_has_it_under_its_own_name(
    encoder: GetEncoder, tmp_path: Path
) -> None:
    made = encoder()
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png()[:-40])
        result = made.try_encode(captions(tmp_path / name)[0])
        assert isinstance(result, Failure)
        assert name in result.message


def test_images_beyond_the_limit_are_decoded_again(
    encoder: GetEncoder, decoded: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_module, "_KEPT_BYTES", 20_000)  # two images of 32 × 32 pixels
    made = encoder()
    for seed in (0, 1, 2, 0, 0):
        made.encode(captions(png(seed))[0])
    assert len(decoded) == 4
    assert made._recent.nbytes <= 20_000
