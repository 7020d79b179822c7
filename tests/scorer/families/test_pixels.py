"""Pixels as bytes: which families send them, and that the device makes of them what the processor does, to the bit."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from scorer import ScorerConfig
from scorer.encoding.encoder import Encoder
from scorer.encoding.image_processing import digest_of, join_pixels, process_images
from scorer.encoding.pixels import pixel_table
from scorer.families import FAMILIES
from scorer.forward.staging import pixels_to_device
from scorer.types import BytePixels, Float32Array, PixelArray
from tests.scorer.families.cases import MAKERS
from tests.scorer.families.harness import encode, one_at_a_time
from tests.scorer.families.samples import Case, caption, two_images
from tests.scorer.scoring import picture

AS_BYTES = {
    "deepseek_vl": True,
    "gemma3": True,
    "idefics3": True,
    "instructblip": True,
    "internvl": True,
    "llava": True,
    "llava_next": True,
    "llava_onevision": True,
    "llava_pixtral": True,
    "mistral3": True,
    "mllama": False,  # tiles that an image does not fill are zeros behind normalisation
    "paligemma": True,
    "paligemma2": True,
    "qwen2_5_vl": True,
    "qwen2_vl": True,
    "qwen3_vl": True,
    "smolvlm": True,
}
SINGLE = [(30, 50), (50, 30), (64, 64), (211, 60), (61, 173), (40, 40)]
SEVERAL = [[(30, 50), (64, 20)], [(64, 64), (64, 64)], [(211, 60), (40, 40), (61, 173)]]

GetEncoder = Callable[[str], Encoder]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> GetEncoder:
    """Name → the encoder of its checkpoint, made at first use."""

    @cache
    def made(name: str) -> Encoder:
        return Encoder.load(MAKERS[name](tmp_path_factory.mktemp(name)), ScorerConfig(device="cpu"))

    return made


def samples_of(encoder: Encoder, table: Float32Array | None) -> list[dict[str, PixelArray]]:
    """The pixels of one sample each: single images of all sizes, then several images together."""
    groups = [[size] for size in SINGLE] + (SEVERAL if encoder.family.several_images else [])
    made = []
    for sizes in groups:
        images = [picture(*size, seed=sum(size)) for size in sizes]
        processed = process_images(encoder._processor, encoder.family, images, table)
        made.append(join_pixels([one.pixels for one in processed], encoder.family.image_axis))
    return made


def same_bits(ours: dict[str, torch.Tensor], theirs: dict[str, PixelArray]) -> bool:
    """Names, dtypes, shapes and bits."""
    assert set(ours) == set(theirs)
    pairs = [(ours[name].numpy(), np.asarray(theirs[name])) for name in ours]
    return all((a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()) for a, b in pairs)


def on_device(rows: Sequence[dict[str, PixelArray]]) -> dict[str, torch.Tensor]:
    return pixels_to_device(rows, CPU, torch.float32)


def test_every_family_is_in_the_table() -> None:
    assert set(AS_BYTES) == set(MAKERS)
    assert set(FAMILIES) <= set(AS_BYTES)


@pytest.mark.parametrize("name", AS_BYTES)
def test_a_family_sends_bytes_or_its_processors_own_floats(name: str, encoder: GetEncoder) -> None:
    assert (encoder(name).pixel_table is not None) is AS_BYTES[name]
    rows = samples_of(encoder(name), encoder(name).pixel_table)[: len(SINGLE)]
    assert {isinstance(row["pixel_values"], BytePixels) for row in rows} == {AS_BYTES[name]}


@pytest.mark.parametrize("name", AS_BYTES)
def test_pixels_on_the_device_are_those_of_the_processor(name: str, encoder: GetEncoder) -> None:
    """Every sample alone and all in one batch, where smaller ones are padded with zeros."""
    ours = samples_of(encoder(name), encoder(name).pixel_table)
    theirs = samples_of(encoder(name), None)
    assert not any(isinstance(array, BytePixels) for row in theirs for array in row.values())
    for row, own in zip(ours, theirs, strict=True):
        assert same_bits(on_device([row]), own)
    assert same_bits(on_device(ours), join_pixels(theirs))
    half = pixels_to_device(ours, CPU, torch.bfloat16)["pixel_values"]
    expected = torch.from_numpy(np.asarray(join_pixels(theirs)["pixel_values"])).to(torch.bfloat16)
    assert torch.equal(half.view(torch.int16), expected.view(torch.int16))


@pytest.mark.parametrize("name", [name for name, as_bytes in AS_BYTES.items() if as_bytes])
def test_a_wrong_table_would_be_seen(name: str, encoder: GetEncoder) -> None:
    """By one bit at one level of one channel, and by channels in another order."""
    right = encoder(name).pixel_table
    assert right is not None
    theirs = samples_of(encoder(name), None)
    off = right.copy()
    off[1, 128] = np.nextafter(off[1, 128], np.float32(9))
    assert not same_bits(on_device(samples_of(encoder(name), off)), join_pixels(theirs))
    if not np.array_equal(right, right[::-1]):  # some processors treat channels alike
        assert not same_bits(on_device(samples_of(encoder(name), right[::-1].copy())), join_pixels(theirs))


@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen3_vl", "idefics3"])
def test_scores_are_the_same_to_the_bit(name: str, encoder: GetEncoder) -> None:
    scorer = Case(path=encoder(name).checkpoint.path, special_tokens=()).load()
    samples = [caption("wide", (211, 60), "A kite."), caption("small", (30, 50), "A boat."), two_images()]
    with_bytes = encode(scorer, samples)
    scorer.encoder = Encoder(scorer.checkpoint, scorer.config)
    scorer.encoder.pixel_table = None
    with_floats = encode(scorer, samples)
    assert len(pickle.dumps(with_bytes[0])) < len(pickle.dumps(with_floats[0]))
    for ours, theirs in zip(one_at_a_time(scorer, with_bytes), one_at_a_time(scorer, with_floats), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a.logit, b.logit)
            np.testing.assert_array_equal(a.logprob, b.logprob)


# Negative controls: what is not pointwise, or cannot be asked, keeps the processor's own floats.


def padded_behind(image_processor: Any) -> dict[str, Any]:
    own = image_processor._preprocess

    def preprocess(*args: Any, **kwargs: Any) -> Any:
        made = own(*args, **kwargs)
        made["pixel_values"] = np.pad(made["pixel_values"], [(0, 0), (0, 0), (0, 1), (0, 1)])
        return made

    return {"_preprocess": preprocess}


def by_the_pictures_own_mean(image_processor: Any) -> dict[str, Any]:
    return {"normalize": lambda image, mean, std: ((image - image.mean()) / image.std()).astype(np.float32)}


def between_two_levels(image_processor: Any) -> dict[str, Any]:
    own = image_processor.center_crop
    return {"center_crop": lambda image, size: own(image, size) + np.float32(0.25)}


def beyond_bytes(image_processor: Any) -> dict[str, Any]:
    own = image_processor.center_crop
    return {"center_crop": lambda image, size: own(image, size) * np.float32(2)}


def without_its_last_steps(image_processor: Any) -> dict[str, Any]:
    """Bytes anyway: there is nothing to be looked up."""
    return {"do_rescale": False, "do_normalize": False}


@pytest.mark.parametrize(
    "change", [padded_behind, by_the_pictures_own_mean, between_two_levels, beyond_bytes, without_its_last_steps]
)
def test_a_processor_that_is_not_pointwise_keeps_its_floats(
    change: Callable[[Any], dict[str, Any]], encoder: GetEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor, family = encoder("llava")._processor, encoder("llava").family
    assert pixel_table(processor, family) is not None
    for name, value in change(processor.image_processor).items():
        monkeypatch.setattr(processor.image_processor, name, value)
    assert pixel_table(processor, family) is None


def test_a_processor_of_another_backend_is_not_asked(encoder: GetEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    processor, family = encoder("llava")._processor, encoder("llava").family
    monkeypatch.setattr(type(processor.image_processor), "backend", "torchvision")
    monkeypatch.delattr("scorer.encoding.pixels.process_images")
    assert pixel_table(processor, family) is None


def test_made_up_pictures_that_are_refused_prove_nothing(encoder: GetEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    processor, family = encoder("llava")._processor, encoder("llava").family

    def refuse(**options: Any) -> Any:
        raise ValueError("too small")

    monkeypatch.setattr(processor.image_processor, "resize", refuse)
    assert pixel_table(processor, family) is None


def test_an_image_that_goes_another_way_keeps_its_floats(encoder: GetEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check when the model is loaded has not seen it; its floats are no bytes, so it is processed again."""
    made = encoder("llava")
    for name, value in between_two_levels(made._processor.image_processor).items():
        monkeypatch.setattr(made._processor.image_processor, name, value)
    ours, theirs = (samples_of(made, table) for table in (made.pixel_table, None))
    assert not any(isinstance(row["pixel_values"], BytePixels) for row in ours)
    assert same_bits(on_device(ours), join_pixels(theirs))


def test_digests_identify_bytes_and_their_table() -> None:
    levels = np.arange(24, dtype=np.uint8).reshape(1, 3, 2, 4)
    table = np.random.default_rng(0).random((3, 256), dtype=np.float32)
    pixels = BytePixels(levels, table)
    others = [BytePixels(levels[:, ::-1], table), BytePixels(levels, table[::-1]), np.asarray(pixels), levels]
    digests = {digest_of({"pixel_values": one}) for one in (pixels, *others)}
    assert len(digests) == 5
    assert digest_of({"pixel_values": pickle.loads(pickle.dumps(pixels))}) in digests
