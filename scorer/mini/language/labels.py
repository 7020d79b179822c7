"""Turn the labels of words into labels of a tokenizer's tokens."""

from collections.abc import Sequence

from scorer.mini.language.caption_writer import CONTRADICTORY, FILLER, VISUAL, Span

STRONGEST_FIRST = (CONTRADICTORY, VISUAL, FILLER)


def token_labels(
    starts: Sequence[int], ends: Sequence[int], spans: Sequence[Span], strongest_first: Sequence[str] = STRONGEST_FIRST
) -> list[str | None]:
    """Label each token by the words whose bytes it overlaps.

    `starts`, `ends`: half-open UTF-8 byte spans of the tokens. White space belongs to no word, so " red" has the
    label of "red", and a token of only white space gets None. If a token overlaps several words the strongest label
    wins: by default contradictory, then visual, then filler.
    """
    labels: list[str | None] = []
    for start, end in zip(starts, ends, strict=True):
        found = {span.label for span in spans if span.start < end and start < span.end}
        labels.append(next((label for label in strongest_first if label in found), None))
    return labels
