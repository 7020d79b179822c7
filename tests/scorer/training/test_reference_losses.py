"""The reference's losses on a trainer's tokens: they add up, and what the reference did not score is unknown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from scorer.errors import TableError
from scorer.training import WeightAligner, WeightedText, WeightRow
from scorer.training.reference_losses import ReferenceLosses
from tests.scorer.training.conftest import Scored
from tests.scorer.training.rows import row_of, with_stops
from tests.scorer.training.trainers import BYTE_LEVEL, chatml


def with_losses(row: WeightRow, losses: list[float]) -> WeightRow:
    assert row.scores is not None
    return replace(row, scores=replace(row.scores, logprob_clean=-np.array(losses, np.float32)))


def by_word(text: str, ids: list[int], losses: np.ndarray) -> list[float]:
    """Sums of the tokens' losses over the words of the text."""
    known = [(i, loss) for i, loss in zip(ids, losses.tolist(), strict=True) if loss and not np.isnan(loss)]
    assert "".join(BYTE_LEVEL.decode([i]) for i, _ in known) == text
    ends = np.cumsum([len(BYTE_LEVEL.decode([i])) for i, _ in known])
    edges = [len(" ".join(text.split()[: n + 1])) for n in range(len(text.split()))]
    owner = np.searchsorted(edges, ends)
    return np.bincount(owner, [loss for _, loss in known]).tolist()


@settings(max_examples=30)
@given(st.lists(st.floats(0.01, 9), min_size=3, max_size=3))
def test_losses_add_up(losses: list[float]) -> None:
    text = "magnificent red kites"
    ids, labels = chatml(BYTE_LEVEL, [("What?", text)])
    row = with_losses(row_of([text]), losses)
    (got,) = ReferenceLosses(BYTE_LEVEL)([ids], [labels], [WeightedText(row, [text])])
    assert_allclose(by_word(text, ids, got), losses, rtol=1e-5)
    (mean,) = WeightAligner(BYTE_LEVEL)(
        [ids], [labels], [WeightedText(replace(row, weights=np.float32(losses)), [text])]
    )
    first = by_word(text, ids[:-2], mean[:-2])[0]  # without the end of the turn
    assert first > losses[0] * 1.5, "negative control: weights are averaged, and would count once a token"


def test_what_the_reference_did_not_score_is_unknown() -> None:
    text = "red kite"
    ids, labels = chatml(BYTE_LEVEL, [("What?", text)], header_trained=True)
    row = with_losses(row_of([text]), [1, 2])
    (got,) = ReferenceLosses(BYTE_LEVEL)([ids], [labels], [WeightedText(row, [text])])
    names = {BYTE_LEVEL.decode([i]): loss for i, loss, label in zip(ids, got, labels, strict=True) if label != -100}
    assert np.isnan(names["<|im_start|>"]) and np.isnan(names["<|im_end|>"])
    assert (got[np.array(labels) == -100] == 0).all()
    stopped = with_stops(row_of([text]), [text], {0: 1})
    (got,) = ReferenceLosses(BYTE_LEVEL)([ids], [labels], [WeightedText(with_losses(stopped, [1, 2, 0.5]), [text])])
    at = [i for i, (one, label) in enumerate(zip(ids, labels, strict=True)) if label != -100]
    stops = [float(got[i]) for i in at if BYTE_LEVEL.decode([ids[i]]) == "<|im_end|>"]
    assert stops == [0.5]


def test_a_row_without_an_image_has_the_loss_of_its_text() -> None:
    text = "red kite"
    ids, labels = chatml(BYTE_LEVEL, [("What?", text)])
    row = row_of([text])
    assert row.scores is not None
    nan = np.full(2, np.nan, np.float32)
    scores = replace(row.scores, logprob_clean=nan, logprob_contrast=np.float32([-3, -1]), text_only=True)
    alone = replace(row, status="text_only", scores=scores)
    (got,) = ReferenceLosses(BYTE_LEVEL)([ids], [labels], [WeightedText(alone, [text])])
    assert float(np.nansum(got)) == pytest.approx(4)
    unknown = replace(alone, scores=replace(scores, logprob_contrast=nan))
    (got,) = ReferenceLosses(BYTE_LEVEL)([ids], [labels], [WeightedText(unknown, [text])])
    assert np.isnan(got[np.array(labels) != -100]).all()


def test_the_stored_losses_of_a_run(scored: Scored) -> None:
    """Whatever weights are derived: they are not read."""
    for method in (None, "vig-row"):
        row = scored.table(method=method).find("scene-00001")
        text = next(one["caption"] for one in scored.rows() if one["id"] == "scene-00001")
        ids, labels = chatml(BYTE_LEVEL, [("What?", text)])
        (got,) = ReferenceLosses(BYTE_LEVEL)([ids], [labels], [WeightedText(row, [text])])
        assert row.scores is not None
        assert float(np.nansum(got)) == pytest.approx(-float(row.scores.logprob_clean.sum()), rel=1e-4)


def test_rows_without_losses_are_refused() -> None:
    text = "red kite"
    ids, labels = chatml(BYTE_LEVEL, [("What?", text)])
    record = WeightRow.from_record(row_of([text]).to_record())
    failed = WeightRow("x", 0, "s", "image_missing", "no file", None, None)
    with pytest.raises(TableError, match="holds no log-probabilities of the reference model, as an exported record"):
        ReferenceLosses(BYTE_LEVEL)([ids], [labels], [WeightedText(record, [text])])
    with pytest.raises(TableError, match=r"was not scored: image_missing \(no file\); leave it out"):
        ReferenceLosses(BYTE_LEVEL)([ids], [labels], [WeightedText(failed, [text])])
    changed = with_losses(row_of(["red kites"]), [1, 2])
    with pytest.raises(TableError, match="but the text that was scored has hash"):
        ReferenceLosses(BYTE_LEVEL)([ids], [labels], [WeightedText(changed, [text])])


def test_a_sequence_that_was_truncated_on_the_left() -> None:
    text = "magnificent red kites"
    ids, labels = chatml(BYTE_LEVEL, [("What?", text)])
    row = with_losses(row_of([text]), [1.0, 2.0, 3.0])
    (whole,) = ReferenceLosses(BYTE_LEVEL)([ids], [labels], [WeightedText(row, [text])])
    cut = len(ids) - 6
    losses = ReferenceLosses(BYTE_LEVEL, max_length=cut, truncation_side="left")
    (got,) = losses([ids[-cut:]], [labels[-cut:]], [WeightedText(row, [text])])
    np.testing.assert_array_equal(got, whole[-cut:])
