"""The sizes to which image processors resize are predicted exactly, and a JPEG is reduced only where the grid stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
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
from scorer.encoding.image_processing import image_options, process_image
from scorer.encoding.jpeg_draft import SCALES, draft_scale, reduced
from scorer.errors import ModelError, RowError
from scorer.families import FAMILIES
from scorer.families.resizing import Resizing
from tests.scorer.families.cases import MAKERS

PREDICTED = {
    "deepseek_vl": False,
    "gemma3": True,
    "idefics3": True,
    "instructblip": True,
    "internvl": True,
    "llava": True,
    "llava_next": False,  # the model reads the image's own size
    "llava_onevision": False,  # the same
    "llava_pixtral": True,
    "mistral3": True,
    "mllama": False,
    "paligemma": True,
    "paligemma2": True,
    "qwen2_5_vl": True,
    "qwen2_vl": True,
    "qwen3_vl": True,
    "smolvlm": True,
}
NAMES = [name for name, predicted in PREDICTED.items() if predicted]
GetEncoder = Callable[[str], Encoder]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> GetEncoder:
    """Name → the encoder of its checkpoint, made at first use."""

    @cache
    def made(name: str) -> Encoder:
        return Encoder.load(MAKERS[name](tmp_path_factory.mktemp(name)), ScorerConfig(device="cpu"))

    return made


def before(made: Encoder, size: tuple[int, int]) -> Resizing:
    return Resizing(made._processor, image_options(made._processor), *size)


def scale_of(made: Encoder, size: tuple[int, int]) -> int:
    return draft_scale(made._processor, image_options(made._processor), made.family, *size, several=False)


def grid(made: Encoder, size: tuple[int, int]) -> Any:
    """The text and the tensors that an image gets; all its pixels have one colour, so that only the grid counts."""
    image = process_image(made._processor, made.family, Image.new("RGB", size, (200, 90, 30)), made.pixel_table)
    return image.replacement, image.digest


def test_every_family_is_in_the_table(encoder: GetEncoder) -> None:
    assert set(PREDICTED) == set(MAKERS)
    assert set(FAMILIES) <= set(PREDICTED)
    for name, predicted in PREDICTED.items():
        assert (encoder(name).family.targets(before(encoder(name), (400, 300))) is not None) is predicted, name


@pytest.mark.parametrize("name", NAMES)
def test_the_prediction_is_what_the_processor_does(
    name: str, encoder: GetEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = encoder(name)
    own, found = Image.Image.resize, []

    def resize(image: Image.Image, size: Sequence[int], *args: Any, **options: Any) -> Image.Image:
        found.append((image.size, (int(size[0]), int(size[1]))))
        return own(image, size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", resize)

    @settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(st.tuples(st.integers(1, 900), st.integers(1, 900)))
    @example((1, 1))
    @example((899, 2))
    @example((81, 1))
    @example((640, 480))
    def check(size: tuple[int, int]) -> None:
        predicted = made.family.targets(before(made, size))
        assert predicted is not None
        found.clear()
        try:
            grid(made, size)
        except RowError:
            return
        done = {target for source, target in found if source == size}
        assert set(predicted) <= done
        assert done - set(predicted) <= {size}, "of an image that has its size already, other steps may follow"

    check()


@pytest.mark.parametrize("name", NAMES)
def test_a_reduced_image_gets_the_grid_of_the_whole_one(name: str, encoder: GetEncoder) -> None:
    made = encoder(name)
    scales = set()

    @settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(st.tuples(st.integers(1, 1500), st.integers(1, 1500)))
    @example((1400, 1050))
    @example((1050, 1400))
    @example((1401, 1049))
    @example((260, 195))
    def check(size: tuple[int, int]) -> None:
        scale = scale_of(made, size)
        scales.add(scale)
        small = (reduced(size[0], scale), reduced(size[1], scale))
        targets = made.family.targets(before(made, size))
        assert targets is not None
        if scale == 1:
            return
        assert all(w <= small[0] and h <= small[1] for w, h in targets)
        try:
            assert grid(made, size) == grid(made, small)
        except RowError:
            return

    check()
    assert len(scales) >= 3, scales


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "internvl", "mistral3", "llava_pixtral"])
def test_a_scale_that_is_chosen_by_the_sides_alone_would_change_grids(name: str, encoder: GetEncoder) -> None:
    """Negative control: the largest scale at which no side is enlarged, whatever the reduced image is resized to."""
    made, wrong = encoder(name), 0
    rng = np.random.default_rng(0)
    for width, height in rng.integers(100, 1500, (60, 2)).tolist():
        targets = made.family.targets(before(made, (width, height)))
        assert targets is not None
        for scale in SCALES:
            small = (reduced(width, scale), reduced(height, scale))
            if all(w <= small[0] and h <= small[1] for w, h in targets):
                wrong += grid(made, (width, height)) != grid(made, small)
                break
    assert wrong > 0


PHOTO = {"llava 1.5": 8, "paligemma": 4, "gemma 3": 2, "instructblip": 8, "internvl 3": 2}


@pytest.mark.parametrize(("name", "scale"), PHOTO.items())
def test_a_photo_of_twelve_megapixels_is_reduced_as_far_as_the_published_processor_allows(
    name: str, scale: int
) -> None:
    family, image_processor = PUBLISHED[name]
    choose = partial(draft_scale, SimpleNamespace(image_processor=image_processor), {}, family, several=False)
    assert choose(4000, 3000) == choose(3000, 4000) == scale
    assert choose(640, 480) == (1 if name != "instructblip" else 2)


@pytest.mark.parametrize(
    "name", ["llava 1.5, padded", "llava next", "llava onevision", "deepseek-vl", "llama 3.2 vision"]
)
def test_what_pads_or_reads_the_images_own_size_is_decoded_in_full(name: str) -> None:
    family, image_processor = PUBLISHED[name]
    processor = SimpleNamespace(image_processor=image_processor)
    assert draft_scale(processor, {}, family, 4000, 3000, several=False) == 1


def test_crops_of_an_image_are_not_predicted(encoder: GetEncoder) -> None:
    made = encoder("gemma3")
    image = before(made, (1400, 1050))
    assert made.family.targets(image) is not None
    crops = replace(image, options={**image.options, "do_pan_and_scan": True})
    assert made.family.targets(crops) is None


@pytest.mark.parametrize("name", [name for name, predicted in PREDICTED.items() if not predicted])
def test_a_model_whose_images_are_not_reduced_is_refused(name: str, encoder: GetEncoder) -> None:
    with pytest.raises(ModelError, match=r"--jpeg-draft has no effect on model .* leave the option out"):
        Encoder.load(encoder(name).checkpoint.path, ScorerConfig(device="cpu", jpeg_draft=True))


def test_a_processor_that_resizes_otherwise_than_predicted_is_refused(
    encoder: GetEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tokens would depend on the scale."""
    made = encoder("qwen2_5_vl")
    module = __import__("sys").modules[type(made._processor.image_processor).__module__]
    own = module.smart_resize
    by_its_sides = lambda height, width, factor, **limits: own(height, width, factor, 1, 56 * max(height, width))  # noqa: E731
    monkeypatch.setattr(module, "smart_resize", by_its_sides)
    with pytest.raises(ModelError, match="another grid"):
        Encoder.load(made.checkpoint.path, ScorerConfig(device="cpu", jpeg_draft=True))
