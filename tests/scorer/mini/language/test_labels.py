"""Words' labels on tokens, and the area under the curve."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorer.mini.language.caption_writer import CONTRADICTORY, FILLER, VISUAL, Span
from scorer.mini.language.labels import auroc, token_labels

#          0123456789
# text     "a red kite"
SPANS = (Span(0, 1, FILLER), Span(2, 5, VISUAL), Span(6, 10, CONTRADICTORY))


@pytest.mark.parametrize(
    ("start", "end", "label"),
    [
        (0, 1, FILLER),
        (1, 5, VISUAL),  # the space before a word goes with it
        (1, 2, None),  # white space alone
        (3, 4, VISUAL),  # a piece of a word
        (0, 5, VISUAL),  # of several words, the strongest
        (4, 7, CONTRADICTORY),
        (5, 5, None),
    ],
)
def test_a_token_is_labelled_by_the_words_it_overlaps(start: int, end: int, label: str | None) -> None:
    assert token_labels([start], [end], SPANS) == [label]


small = st.lists(st.integers(-3, 3), min_size=1, max_size=20)


@given(small, small)
def test_auroc_is_the_share_of_pairs_in_order(high: list[int], low: list[int]) -> None:
    pairs = [1.0 if h > l else 0.5 if h == l else 0.0 for h in high for l in low]  # noqa: E741
    assert auroc(high, low) == pytest.approx(np.mean(pairs))


def test_auroc_of_nothing_is_undefined() -> None:
    assert np.isnan(auroc([], [1.0]))
    assert np.isnan(auroc([1.0], []))
