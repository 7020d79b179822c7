"""A row that cannot be scored, or only in part, says so and leaves its neighbours alone."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from scorer import Sample, TokenScores, forward
from scorer.errors import FailureCode
from scorer.forward import undefined_scores
from scorer.results import Failure
from scorer.types import IMAGE, Turn
from tests.scorer import tiny
from tests.scorer.scoring import TOLERANCE, assert_equal_scores, load, picture


def test_a_bad_row_costs_that_row_only(chatml_model: Path, tmp_path: Path) -> None:
    good = Sample.caption("good", picture(30, 30), "A red kite.")
    buffer = BytesIO()
    picture(60, 60).save(buffer, "JPEG")
    bad = {
        "corrupt": (Sample.caption("corrupt", buffer.getvalue()[:300], "x"), FailureCode.IMAGE_UNREADABLE),
        "missing": (Sample.caption("missing", str(tmp_path / "no.jpg"), "x"), FailureCode.IMAGE_MISSING),
        "none": (Sample("none", (), (Turn("user", (IMAGE,)), Turn("assistant", ("x",)))), FailureCode.IMAGE_MISSING),
        "text": (Sample.caption("text", b"GIF89a", "x"), FailureCode.IMAGE_UNREADABLE),
        "empty": (Sample.caption("empty", picture(9, 9), ""), FailureCode.TEXT_MISSING),
        "blank": (Sample.caption("blank", picture(9, 9), " \n\t"), FailureCode.TEXT_MISSING),
        "null": (Sample.caption("null", picture(9, 9), None), FailureCode.TEXT_MISSING),  # type: ignore[arg-type]
        "number": (Sample.caption("number", picture(9, 9), 7), FailureCode.TEXT_INVALID),  # type: ignore[arg-type]
        "surrogate": (Sample.caption("surrogate", picture(9, 9), "\ud800"), FailureCode.TEXT_INVALID),
        "long": (Sample.caption("long", picture(9, 9), "kite " * 600), FailureCode.TEXT_TOO_LONG),
        "slots": (Sample("slots", (picture(9, 9),), (Turn("assistant", ("x",)),)), FailureCode.CONVERSATION_INVALID),
    }
    rows = [good, *(row for row, _ in bad.values()), good]
    results = load(chatml_model).score(rows)
    expected = load(chatml_model).score([good])[0]
    for result in (results[0], results[-1]):
        assert_equal_scores(result, expected)
    for (name, (_, code)), result in zip(bad.items(), results[1:-1], strict=True):
        assert isinstance(result, Failure), name
        assert (result.sample_id, result.code) == (name, code)
        assert result.message


def test_contrast_image_that_is_missing_is_a_row_error(chatml_model: Path) -> None:
    (result,) = load(chatml_model, contrast="image").score([Sample.caption("a", picture(9, 9), "A kite.")])
    assert isinstance(result, Failure)
    assert result.code is FailureCode.CONTRAST_UNDEFINED


def test_truncate_scores_what_fits_and_leaves_it_unchanged(chatml_model: Path) -> None:
    text = "kite boat " * 400
    (cut,) = load(chatml_model, truncate=True).score([Sample.caption("a", picture(9, 9), text)])
    (short,) = load(chatml_model).score([Sample.caption("a", picture(9, 9), "kite boat " * 40)])
    assert isinstance(cut, TokenScores)
    assert isinstance(short, TokenScores)
    assert cut.token_ends[-1] < len(text)
    shared = len(short.token_ids) - 2  # the last tokens differ: the short text ends there
    np.testing.assert_allclose(cut.logit_gap[:shared], short.logit_gap[:shared], atol=TOLERANCE)


def test_truncate_never_cuts_the_prompt_away(chatml_model: Path) -> None:
    sample = Sample.caption("a", picture(9, 9), "A kite.", prompt="kite boat " * 600)
    (result,) = load(chatml_model, truncate=True).score([sample])
    assert isinstance(result, Failure)
    assert result.code is FailureCode.TEXT_TOO_LONG


def test_non_finite_scores_are_a_row_error(chatml_model: Path) -> None:
    scorer = load(chatml_model)
    rows = [Sample.caption("a", picture(9, 9), "A kite."), Sample.caption("b", picture(9, 9), "two boats")]
    token = scorer.encoder.encode(rows[0]).token_ids[0]
    scorer.model.model.get_input_embeddings().weight[token] = float("nan")
    first, second = scorer.score(rows)
    assert isinstance(first, Failure)
    assert first.code is FailureCode.NON_FINITE
    assert isinstance(second, TokenScores)


def test_text_that_nothing_precedes_has_no_score(tmp_path: Path) -> None:
    """Without BOS nothing predicts the first token: the row is kept, without a plausible number."""
    template = "{% for m in messages %}{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{% endfor %}"
    scorer = load(tiny.make_llava(tmp_path, tiny.byte_level_tokenizer(), template))
    rows = [Sample(str(n), (), (Turn("assistant", ("A red kite.",) * n),)) for n in (1, 2)]
    assert len(scorer.encoder.encode(rows[0]).contrast.label_index) == 0
    for result in scorer.score(rows):
        assert isinstance(result, TokenScores)
        assert result.text_only
        assert np.isnan(result.logprob_contrast).all()


def test_text_only_scores_that_are_not_finite_are_a_failure(
    chatml_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = load(chatml_model)
    monkeypatch.setattr(
        forward, "score_text", lambda model, rows, quantities: [undefined_scores(len(r.token_ids)) for r in rows]
    )
    scorer._fast = None
    (result,) = scorer.score([Sample("a", (), (Turn("user", ("Hi",)), Turn("assistant", ("A kite.",))))])
    assert isinstance(result, Failure)
    assert result.code is FailureCode.NON_FINITE
