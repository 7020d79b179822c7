"""One blank for all images: of the size that is asked for, and one contrast prefix for all rows of a prompt."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from scorer import Sample, Scorer, ScorerConfig
from scorer.contrast_images import blank_image
from scorer.encoding.encoder import Encoder
from scorer.errors import FailureCode, ModelError
from scorer.forward import FastPath, score_full_forwards
from scorer.results import Failure
from tests.scorer.families.cases import CASES, MAKERS
from tests.scorer.families.harness import encode, error, fast_scores
from tests.scorer.families.oracle import oracle_scores, processor_inputs
from tests.scorer.families.samples import TOLERANCE, Case, caption, two_images

SIZE = (90, 60)
NAMES = ["llava", "llava_next", "llava_onevision", "qwen2_5_vl", "internvl", "mistral3"]
GetScorer = Callable[..., Scorer]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> GetScorer:
    """(Name of a checkpoint, options) → its scorer."""
    path = cache(lambda name: MAKERS[name](tmp_path_factory.mktemp(name)))

    def loaded(name: str, **options: Any) -> Scorer:
        return Scorer.load(path(name), ScorerConfig(device="cpu", **options))

    return loaded


def rows() -> list[Sample]:
    sizes = [(30, 50), (50, 30), (64, 64), (120, 40), (130, 90)]
    return [caption(str(size), size, "A red kite over boats. " * (1 + n)) for n, size in enumerate(sizes)]


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_the_class_with_a_blank_of_that_size(name: str, load: GetScorer) -> None:
    scorer = load(name, blank_size=SIZE)
    case = Case(path=scorer.checkpoint.path, **CASES[name][1])
    for sample in [*rows(), two_images()]:
        row = scorer.encoder.encode(sample)
        blanks = [blank_image(SIZE, scorer.encoder.contrast_options)] * len(sample.images)
        inputs = processor_inputs(case, scorer, sample, blanks)
        np.testing.assert_array_equal(row.contrast.input_ids, inputs["input_ids"][0][: len(row.contrast.input_ids)])
        for key, array in row.contrast.pixels.items():
            np.testing.assert_array_equal(np.asarray(array), inputs[key].numpy(), err_msg=key)
        ((clean, contrast),) = score_full_forwards(scorer.model, [row])
        expected = oracle_scores(scorer, inputs, row.contrast.label_index)
        assert error([(clean, contrast)], [(clean, expected)]) <= TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_the_fast_path_agrees(name: str, load: GetScorer) -> None:
    scorer = load(name, blank_size=SIZE)
    encoded = encode(scorer, [*rows(), two_images()])
    plain = score_full_forwards(scorer.model, encoded)
    assert max(error(scores, plain) for scores in fast_scores(scorer, encoded)) <= TOLERANCE


@pytest.mark.parametrize("name", ["llava_next", "qwen2_5_vl", "internvl", "mistral3"])
def test_rows_of_one_prompt_share_one_contrast_prefix(name: str, load: GetScorer) -> None:
    kept = {}
    for size in (SIZE, None):
        scorer = load(name, blank_size=size)
        path = FastPath(scorer.model, ["blank"], 2**30)
        path.score(encode(scorer, rows()))
        kept[size] = len(path._cache._kept)
    assert kept[SIZE] == 1
    assert kept[None] > 1, "negative control: each grid has a prefix of its own"


def test_where_all_images_get_one_grid_nothing_changes(load: GetScorer) -> None:
    """LLaVA 1.5 and the packaged model: a blank of any size is processed to the same pixels."""
    own, canonical = (encode(load("llava", blank_size=size), rows()) for size in (None, SIZE))
    for a, b in zip(own, canonical, strict=True):
        assert a.contrast.pixels_digest == b.contrast.pixels_digest
        np.testing.assert_array_equal(a.contrast.input_ids, b.contrast.input_ids)


def test_another_contrast_is_left_alone(load: GetScorer) -> None:
    sample = rows()[0]
    ours = load("qwen2_5_vl", blank_size=SIZE, contrast="noise").encoder.encode(sample)
    theirs = load("qwen2_5_vl", contrast="noise").encoder.encode(sample)
    assert ours.contrast.pixels_digest == theirs.contrast.pixels_digest


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((1500, 2), r"takes no --blank-size 1500x2: .*aspect ratio"),
        ((20_000, 20_000), "--blank-size 20000x20000 has 400000000 pixels, more than max_image_pixels=100000000"),
        ((200_000, 10), r"takes no --blank-size 200000x10: .*on one side"),
    ],
)
def test_a_size_that_the_processor_refuses_is_refused_at_load(
    size: tuple[int, int], message: str, load: GetScorer
) -> None:
    path = load("qwen2_5_vl").checkpoint.path
    with pytest.raises(ModelError, match=message):
        Encoder.load(path, ScorerConfig(device="cpu", blank_size=size))
    masked = Encoder.load(path, ScorerConfig(device="cpu", blank_size=size, contrast="masked"))
    with pytest.raises(ModelError, match=message):
        masked.with_contrast("blank")


def test_a_blank_that_exceeds_the_context_fails_the_row(load: GetScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load("qwen2_5_vl", blank_size=(130, 90)).encoder
    row = encoder.encode(rows()[0])
    assert len(row.contrast.input_ids) > len(row.clean.input_ids)
    monkeypatch.setattr(type(encoder.checkpoint), "context_length", property(lambda _: len(row.contrast.input_ids) - 1))
    result = encoder.try_encode(rows()[0])
    assert isinstance(result, Failure)
    assert result.code is FailureCode.TEXT_TOO_LONG
    assert "use a smaller --blank-size" in result.message
