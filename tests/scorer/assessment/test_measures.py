"""What is measured of scores: images, words and reading, on scores made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scorer.assessment.own_image import compare_images
from scorer.assessment.reading import read_texts
from scorer.assessment.swapped import compare_words, swapped_samples
from scorer.errors import FailureCode
from scorer.results import Failure, Result
from scorer.types import IMAGE, Sample, Turn
from tests.scorer.assessment.scores import scores

FAILED = Failure("bad", FailureCode.TEXT_MISSING, "no text")
STOP = {"optional": {"is_stop": np.array([False, True])}}


def pair(own: float, other: float) -> tuple[Result, Result]:
    """A row's mean log-probability with its own image and with another's; −9 with the contrast."""
    return scores([("a", own, -9.0)]), scores([("a", own, other)])


def test_own_images_that_explain_more_are_told_apart() -> None:
    first, second = zip(*(pair(-1.0 - i / 100, -3.0) for i in range(50)), strict=True)
    found = compare_images(first, second, 0)
    assert (found.auroc.value, found.wins.value, found.auroc.count) == (1.0, 1.0, 50)
    swapped = compare_images(*zip(*(pair(-3.0, -1.0) for _ in range(50)), strict=True), 0)
    assert (swapped.auroc.value, swapped.wins.value) == (0.0, 0.0)


def test_a_model_that_looks_at_nothing_is_at_chance() -> None:
    found = compare_images(*zip(*(pair(-2.0, -2.0) for _ in range(50)), strict=True), 0)
    assert (found.auroc.value, found.wins.value) == (0.5, 0.5)


def test_the_gain_is_over_the_contrast() -> None:
    """An easy caption is likely with any image; only what an image adds counts."""
    easy = scores([("a", -1.0, -1.0)]), scores([("a", -1.0, -1.0)])
    hard = scores([("a", -5.0, -9.0)]), scores([("a", -5.0, -9.0)])
    found = compare_images(*zip(easy, hard, strict=True), 0)
    assert found.auroc.value == 0.75  # gains of 0 and 4 against 0 and 0


def test_failed_and_text_only_rows_and_stop_tokens_are_left_out_of_images() -> None:
    own, other = pair(-1.0, -3.0)
    alone = scores([("a", math.nan, -1.0)], text_only=True)
    ended = scores([("a", -1.0, -9.0), ("", -500.0, -1.0)], **STOP), scores([("a", -1.0, -3.0), ("", 0, -1.0)], **STOP)
    first, second = [own, FAILED, own, alone, ended[0]], [other, other, FAILED, alone, ended[1]]
    found = compare_images(first, second, 0)
    assert (found.wins.count, found.wins.value) == (2, 1.0)
    assert not compare_images([], [], 0).auroc.known


def row(name: str, *tokens: tuple[str, float, float]) -> tuple[Sample, Result]:
    return Sample.caption(name, b"", "".join(token for token, *_ in tokens)), scores(tokens, name)


def test_own_words_are_compared_with_swapped_ones() -> None:
    rows = [row(f"{c}{k}", ("a ", -1, -1), (c, -1.0, -4.0), (" kite", -1, -1)) for c in ("red", "tan") for k in "12"]
    samples, scored = zip(*rows, strict=True)
    swaps, swapped = swapped_samples(samples, scored, 0)
    assert [sample.scored_texts[0] for sample in swapped] == ["a tan kite", "a tan kite", "a red kite", "a red kite"]
    assert [sample.sample_id for sample in swapped] == ["red1", "red2", "tan1", "tan2"]
    # The other word takes two tokens; its log-probability is their sum.
    again = [scores([("a ", -1, -1), ("xy", -3, -1), ("z", -3, -1.5), (" kite", -9, -9)])] * 4
    found = compare_words(swaps, scored, again, 0)
    assert (found.image.value, found.language.value, found.gap.value) == (1.0, 0.0, 1.0)
    assert (found.prior.value, found.prior_by_quarter) == (0.0, (0.0, 0.0, 0.0, 0.0))
    best = found.examples[0]
    assert (best.own_gap, best.other_gap) == (3.0, -3.5)


def test_a_failed_swap_is_left_out() -> None:
    rows = [row(f"{c}{k}", ("a ", -1, -1), (c, -1.0, -4.0)) for c in ("red", "tan") for k in "12"]
    samples, scored = zip(*rows, strict=True)
    swaps, _ = swapped_samples(samples, scored, 0)
    found = compare_words(swaps, scored, [FAILED, scored[1], FAILED, scored[3]], 0)
    assert found.gap.count == 2
    assert found.prior_by_quarter == ()


def test_only_the_answers_turn_is_changed() -> None:
    question = Turn("user", (IMAGE, "a red kite?"))
    samples, scored = [], []
    for i, colour in enumerate(("red", "tan") * 2):
        turns = (question, Turn("assistant", ("yes",)), Turn("user", ("which?",)), Turn("assistant", (f"a {colour}",)))
        samples.append(Sample(str(i), (b"",), turns))
        scored.append(scores([("yes", -1, -1), ("a ", -1, -1), (colour, -1, -1)], turn=[0, 1, 1]))
    _, swapped = swapped_samples(samples, scored, 0)
    assert swapped[0].turns == (*samples[0].turns[:3], Turn("assistant", ("a tan",)))


def test_text_only_rows_are_not_swapped() -> None:
    rows = [row(f"{c}{k}", ("a ", -1, -1), (c, -1.0, -4.0)) for c in ("red", "tan") for k in "12"]
    samples, _ = zip(*rows, strict=True)
    alone = [scores([("a ", math.nan, -1), ("red", math.nan, -1)], text_only=True)] * 4
    assert swapped_samples(samples, alone, 0) == ([], [])


def test_reading_is_surprise_over_tokens_and_bytes() -> None:
    found = read_texts(
        [("a kite",), ("où",)],
        [scores([("a", -1, -5), (" kite", -3, -5)]), scores([("o", -2, -5), ("ù", -2, -5)])],
        None,
    )
    assert found.perplexity.value == pytest.approx(math.exp(8 / 4))
    assert found.bits_per_byte.value == pytest.approx(8 / math.log(2) / 9)
    assert found.tokens_per_word.value == pytest.approx(4 / 3)
    assert found.pieces.value == 0


def test_parts_of_characters_and_unknown_tokens_are_pieces() -> None:
    result = scores([("球", -1, -1)])
    cut = np.array([0, 1, 2], dtype=np.int32)
    bytewise = scores([("x", -1, -1)] * 3)
    bytewise = type(bytewise)(
        **{
            **{name: getattr(bytewise, name) for name in bytewise.__dataclass_fields__},
            "token_starts": cut,
            "token_ends": cut + 1,
        }
    )
    assert read_texts([("球",)], [bytewise], None).pieces.value == 1.0
    assert read_texts([("球",)], [result], None).pieces.value == 0.0
    assert read_texts([("球",)], [result], 0).pieces.value == 1.0  # its id is the unknown token's
    assert read_texts([("球球",)], [scores([("球", -1, -1), ("球", -1, -1)])], None).tokens_per_word.value == 1.0


def test_stop_tokens_and_failures_are_not_read_and_text_alone_is() -> None:
    ended = scores([("a", -1.0, -5), ("", -100.0, -5)], **STOP)
    alone = scores([("a", math.nan, -1.0)], text_only=True)
    found = read_texts([("a",), ("a",), ("a",)], [ended, alone, FAILED], None)
    assert found.perplexity.value == pytest.approx(math.e)
    assert found.perplexity.count == 2


def test_text_that_was_not_scored_is_not_counted() -> None:
    """A truncated text has the bits of what was scored, over its bytes."""
    result = scores([("a", -1.0, -5), (" kite", -3.0, -5)])
    cut, whole = (read_texts([(text,)], [result], None) for text in ("a kite and far more that was cut off", "a kite"))
    assert cut.bits_per_byte.value == whole.bits_per_byte.value
    assert cut.tokens_per_word.value == whole.tokens_per_word.value == 1.0


def test_hopeless_text_has_a_finite_perplexity() -> None:
    found = read_texts([("a",)], [scores([("a", -5000.0, -1)])], None)
    assert math.isfinite(found.perplexity.value)
    assert not read_texts([], [], None).perplexity.known
