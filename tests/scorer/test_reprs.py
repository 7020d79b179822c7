"""What a notebook shows of scorers, scores and weights: one useful line, and captions in colour."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scorer import Sample, Scorer, TokenScores
from scorer.display.html import caption_html
from scorer.training import WeightTable, read_weights
from scorer.weights import Method
from tests.pipelines.helpers import make_job, run, write_dataset


def plain(html: str) -> str:
    """The text of the first paragraph, tags taken out."""
    return re.sub(r"<[^>]+>", "", html.partition("</p>")[0])


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer.load()


@pytest.fixture(scope="module")
def scores(scorer: Scorer) -> TokenScores:
    red = Image.new("RGB", (64, 64), (200, 30, 30))
    (result,) = scorer.score([Sample.caption("kite", red, "A red square & <b>two</b> hearts.")])
    assert isinstance(result, TokenScores)
    return result


def test_no_model_is_the_packaged_one_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="scorer"):
        scorer = Scorer.load()
    assert "packaged mini model" in caplog.text and "drawn shapes only" in caplog.text
    assert repr(scorer) == "<Scorer of the packaged mini model (llava), contrast blank, float32 on cpu, fast path>"


def test_scores_keep_their_text_on_one_line(scores: TokenScores) -> None:
    assert scores.texts == ("A red square & <b>two</b> hearts.",)
    shown = repr(scores)
    assert "\n" not in shown and "'kite'" in shown and f"{len(scores.token_ids)} tokens" in shown
    assert "A red square" in shown and "nats" in shown


def test_scores_draw_their_text(scores: TokenScores) -> None:
    html = scores._repr_html_()
    assert html is not None
    assert plain(html) == "A red square &amp; &lt;b&gt;two&lt;/b&gt; hearts."
    assert "<b>" not in html and "background:#" in html and 'dir="auto"' in html


def test_scores_without_texts_are_not_drawn(scorer: Scorer) -> None:
    row = scorer.encoder.encode(Sample.caption("1", Image.new("RGB", (32, 32)), "A heart."))
    (result,) = scorer.score_encoded([row])
    assert isinstance(result, TokenScores) and result.texts is None and result._repr_html_() is None


def test_colours_are_of_the_gap_and_nan_has_none() -> None:
    ints = lambda *values: np.array(values, np.int32)  # noqa: E731
    html = caption_html(
        ("up down same ?",),
        np.zeros(4, np.int16),
        ints(0, 2, 7, 12),
        ints(2, 7, 12, 14),
        np.array([3.5, -3.5, 0.0, np.nan], np.float32),
    )
    body = html.partition("</p>")[0]
    assert re.search(r'background:#e8862c[^>]*">up<', body) and re.search(r'background:#6a9cea[^>]*">down<', body)
    assert re.search(r'style="">same<', body) and body.endswith(" ?")
    assert "33.1 times as likely" in body and "33.1 times less likely" in body


def test_tables_and_rows_tell_what_they_are(tmp_path: Path) -> None:
    run(make_job(write_dataset(tmp_path / "data"), tmp_path / "out"))
    table = WeightTable.open(tmp_path / "out", method=Method("vig"))
    counts = f"{len(table)} rows in {len(table.shards)} shards"
    assert repr(table) == f"<WeightTable of '{tmp_path}/out': {counts}, weights by vig>"
    published = read_weights(tmp_path / "out")
    assert repr(published).endswith("weights by cal>")
    rows = list(published)
    good = next(row for row in rows if row.ok)
    bad = next(row for row in rows if not row.ok)
    assert re.fullmatch(r"<WeightRow row \d+ of \S+ \(sample '.*'\), \d+ tokens?, mean weight [\d.]+>", repr(good))
    assert "not scored: " in repr(bad) and "\n" not in repr(bad)


def test_an_unfinished_output_says_so(tmp_path: Path) -> None:
    run(make_job(write_dataset(tmp_path / "data"), tmp_path / "out"))
    (tmp_path / "out" / "_SUCCESS").unlink()
    assert "of an unfinished run" in repr(read_weights(tmp_path / "out", allow_unfinished=True))
