"""Put the scores of both branches together into one result a row, in the rows' order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from scorer.columns import IS_STOP
from scorer.errors import FailureCode
from scorer.forward import LabelScores, undefined_scores
from scorer.results import Failure, Result, TokenScores
from scorer.types import BoolArray, EncodedSample

Scores = LabelScores | Exception
"""A branch's scores, or the error of a row that alone does not fit in memory."""


class Assembly:
    """The results of rows as they are scored. It keeps none of the rows' images.

    Args:
        without_images: whether the model takes no images; there is then no clean branch.
    """

    def __init__(self, without_images: bool) -> None:
        self._without_images = without_images
        self._rows: list[EncodedSample | Failure] = []
        self._clean: dict[int, Scores] = {}
        self._contrast: dict[int, Scores] = {}

    def take(self, rows: Iterable[EncodedSample | Failure]) -> Iterator[tuple[int, EncodedSample]]:
        """Yield the rows to score with their numbers; failures and rows that cannot be scored are kept as they are."""
        for row in rows:
            number = len(self._rows)
            if isinstance(row, Failure):
                self._rows.append(row)
                continue
            self._rows.append(row.without_images())
            yield number, row

    def clean(self, number: int, scores: Scores) -> None:
        """Take the scores of a row's clean branch."""
        self._clean[number] = scores

    def contrast(self, number: int, scores: Scores) -> None:
        """Take the scores of a row's contrast branch, or of its text if it has no images."""
        self._contrast[number] = scores

    def results(self) -> list[Result]:
        """Return one result for each row taken, in order.

        Raises:
            AssertionError: a row was taken and not scored.
        """
        return [row if isinstance(row, Failure) else self._result(number, row) for number, row in enumerate(self._rows)]

    def _result(self, number: int, row: EncodedSample) -> Result:
        if row.text_only:
            return _text_result(row, self._contrast.get(number))
        try:
            clean, contrast = self._clean[number], self._contrast[number]
        except KeyError as error:
            raise AssertionError(f"row {row.sample_id} was taken and not scored") from error
        if isinstance(clean, Exception):
            return _too_large(row, clean)
        if isinstance(contrast, Exception):
            return _too_large(row, contrast)
        return _result(row, clean, contrast, self._without_images)


def _too_large(row: EncodedSample, error: Exception) -> Result:
    return Failure(
        row.sample_id,
        FailureCode.SCORING_FAILED,
        f"the row's {row.length} tokens alone do not fit in the device's memory ({error}); use a smaller dtype or "
        "--truncate",
    )


def _result(row: EncodedSample, clean: LabelScores, contrast: LabelScores, text_only: bool) -> Result:
    scores = _scores(row, clean, contrast)
    bad = ~np.isfinite(scores.logprob_contrast)
    if not text_only:  # without images there is no clean branch, and its scores are NaN by definition
        bad |= ~(np.isfinite(scores.logit_gap) & np.isfinite(scores.logprob_clean))
    return _non_finite(row, bad) if bad.any() else scores


def _text_result(row: EncodedSample, alone: Scores | None) -> Result:
    """Return a text-only row's result; ``alone`` are the scores of its text, None if the model cannot run it."""
    if isinstance(alone, Exception):
        return _too_large(row, alone)
    undefined = undefined_scores(len(row.token_ids))
    scores = _scores(row, undefined, undefined if alone is None else alone)
    bad = ~np.isfinite(scores.logprob_contrast)
    return _non_finite(row, bad) if alone is not None and bad.any() else scores


def _scores(row: EncodedSample, clean: LabelScores, contrast: LabelScores) -> TokenScores:
    return TokenScores(
        sample_id=row.sample_id,
        token_ids=row.token_ids,
        token_starts=row.token_starts,
        token_ends=row.token_ends,
        token_turns=row.token_turns,
        text_hash=row.text_hash,
        logit_gap=clean.logit - contrast.logit,
        logprob_clean=clean.logprob,
        logprob_contrast=contrast.logprob,
        optional={} if row.is_stop is None else {IS_STOP: row.is_stop},
        text_only=row.text_only,
    )


def _non_finite(row: EncodedSample, bad: BoolArray) -> Failure:
    return Failure(
        row.sample_id,
        FailureCode.NON_FINITE,
        f"the model returned NaN or infinity for {int(bad.sum())} of {len(bad)} tokens, first at token "
        f"{int(bad.argmax())}; a wider dtype (--dtype bfloat16 or float32) usually helps",
    )
