"""Words' labels on tokens."""

import pytest

from scorer.mini.language.caption_writer import CONTRADICTORY, FILLER, VISUAL, Span
from scorer.mini.language.labels import token_labels

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
