"""Put the scores of all branches together into one result a row, in the rows' order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from scorer.columns import IS_STOP, REQUIRED, by_contrast, of_contrast
from scorer.errors import FailureCode
from scorer.forward import CONTRAST, Item, LabelScores, Quantities, undefined_scores
from scorer.forward.labels import ENTROPY, JS, KL, KL_REVERSE, TOP_LOGIT
from scorer.results import Failure, Result, TokenScores
from scorer.types import BoolArray, EncodedSample, Float32Array

Scores = LabelScores | Exception
"""A branch's scores, or the error of a row that alone does not fit in memory."""

_REQUIRED: Final = frozenset(column.name for column in REQUIRED)


class Assembly:
    """The results of rows as they are scored. It keeps none of the rows' images.

    Args:
        without_images: whether the model takes no images; there is then no clean branch.
        further: the names of the further contrasts.
        asked: see :attr:`scorer.config.ScorerConfig.distribution_columns`.
    """

    def __init__(self, without_images: bool, further: Sequence[str] = (), asked: Sequence[str] = ()) -> None:
        self._without_images = without_images
        self._further = further
        self._asked = asked
        self._quantities = Quantities.asked_for(asked)
        self._rows: list[EncodedSample | Failure] = []
        self._scores: dict[Item, Scores] = {}

    def take(self, rows: Iterable[EncodedSample | Failure]) -> Iterator[tuple[int, EncodedSample]]:
        """Yield the rows to score with their numbers; failures and rows that cannot be scored are kept as they are."""
        for row in rows:
            number = len(self._rows)
            if isinstance(row, Failure):
                self._rows.append(row)
                continue
            self._rows.append(row.without_images())
            yield number, row

    def put(self, number: int, branch: int, scores: Scores) -> None:
        """Take the scores of one of a row's branches; those of text alone are those of :data:`CONTRAST`."""
        self._scores[number, branch] = scores

    def results(self) -> list[Result]:
        """Return one result for each row taken, in order.

        Raises:
            AssertionError: a row was taken and not scored.
        """
        return [row if isinstance(row, Failure) else self._result(number, row) for number, row in enumerate(self._rows)]

    def _result(self, number: int, row: EncodedSample) -> Result:
        if row.text_only:
            return self._text_result(row, self._scores.get((number, CONTRAST)))
        branches: list[LabelScores] = []
        for branch in range(len(row.branches)):
            scores = self._scores.get((number, branch))
            if scores is None:
                raise AssertionError(f"branch {branch} of row {row.sample_id} was taken and not scored")
            if isinstance(scores, Exception):
                return _too_large(row, scores)
            branches.append(scores)
        if self._without_images:  # the text alone is every contrast's
            branches += branches[-1:] * len(self._further)
        clean, *contrasts = branches
        finite = [values for branch in contrasts for values in (branch.logprob, *self._own(branch))]
        if not self._without_images:  # without images there is no clean branch, and its scores are NaN by definition
            finite += [clean.logprob, *self._own(clean), *(clean.logit - branch.logit for branch in contrasts)]
            finite += [branch.distribution[name] for branch in contrasts for name in self._quantities.joint]
        bad = np.logical_or.reduce([~np.isfinite(values) for values in finite])
        return _non_finite(row, bad) if bad.any() else _scores(row, branches, self._further, self._asked)

    def _own(self, branch: LabelScores) -> list[Float32Array]:
        return [branch.distribution[name] for name in self._quantities.own]

    def _text_result(self, row: EncodedSample, alone: Scores | None) -> Result:
        """Return a text-only row's result; ``alone`` are its text's scores, None if the model cannot run it."""
        if isinstance(alone, Exception):
            return _too_large(row, alone)
        undefined = undefined_scores(len(row.token_ids), self._quantities)
        if alone is not None:
            bad = np.logical_or.reduce([~np.isfinite(values) for values in (alone.logprob, *self._own(alone))])
            if bad.any():
                return _non_finite(row, bad)
        text = undefined if alone is None else alone
        return _scores(row, [undefined, *[text] * (1 + len(self._further))], self._further, self._asked)


def _scores(
    row: EncodedSample, branches: Sequence[LabelScores], further: Sequence[str], asked: Sequence[str]
) -> TokenScores:
    clean, contrast, *others = branches
    optional: dict[str, BoolArray | Float32Array] = {} if row.is_stop is None else {IS_STOP: row.is_stop}
    optional |= _of_branch(clean, "entropy_clean", "top1_clean")
    names = [column.name for column in by_contrast(asked)]
    first = _of_pair(clean, contrast)
    optional |= {name: first[name] for name in names if name not in _REQUIRED}
    for contrast_name, other in zip(further, others, strict=True):
        values = _of_pair(clean, other)
        own = of_contrast(contrast_name, asked)
        optional |= {column.name: values[name] for column, name in zip(own, names, strict=True)}
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
        optional=optional,
        text_only=row.text_only,
    )


def _of_pair(clean: LabelScores, contrast: LabelScores) -> dict[str, BoolArray | Float32Array]:
    """Return what depends on a contrast, by the names of the first contrast's columns."""
    return {
        "logit_gap": clean.logit - contrast.logit,
        "logprob_contrast": contrast.logprob,
        **{name: contrast.distribution[name] for name in (KL, KL_REVERSE, JS) if name in contrast.distribution},
        **_of_branch(contrast, "entropy_contrast", "top1_contrast"),
    }


def _of_branch(branch: LabelScores, entropy: str, top: str) -> dict[str, BoolArray | Float32Array]:
    """Return what depends on one branch alone, under the names of its columns."""
    found: dict[str, BoolArray | Float32Array] = {}
    if ENTROPY in branch.distribution:
        found[entropy] = branch.distribution[ENTROPY]
    if TOP_LOGIT in branch.distribution:
        found[top] = branch.logit >= branch.distribution[TOP_LOGIT]  # False where both are NaN
    return found


def _too_large(row: EncodedSample, error: Exception) -> Result:
    return Failure(
        row.sample_id,
        FailureCode.SCORING_FAILED,
        f"the row's {row.length} tokens alone do not fit in the device's memory ({error}); use a smaller dtype or "
        "--truncate",
    )


def _non_finite(row: EncodedSample, bad: BoolArray) -> Failure:
    return Failure(
        row.sample_id,
        FailureCode.NON_FINITE,
        f"the model returned NaN or infinity for {int(bad.sum())} of {len(bad)} tokens, first at token "
        f"{int(bad.argmax())}; a wider dtype (--dtype bfloat16 or float32) usually helps",
    )
