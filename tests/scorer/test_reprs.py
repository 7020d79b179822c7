"""What a notebook shows of scorers, scores and weights: one useful line, and captions in colour."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scorer import Sample, Scorer, TokenScores
from scorer.display.html import caption_html, ratio
from scorer.errors import FailureCode
from scorer.results import Failure
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
    assert plain(html) == "A red square &amp; &lt;b&gt;two&lt;/b&gt; hearts. end"
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
        np.zeros(4, np.bool_),
    )
    body = html.partition("</p>")[0]
    assert re.search(r'background:#e8862c[^>]*">up<', body) and re.search(r'background:#6a9cea[^>]*">down<', body)
    assert re.search(r'style="">same<', body) and body.endswith(" ?")
    assert "33.1 times as likely" in body and "33.1 times less likely" in body
    assert "as likely with the image as without" in body


def test_a_stop_token_is_a_mark_behind_its_text() -> None:
    starts, ends = np.array([0, 2, 4, 0, 3], np.int32), np.array([2, 4, 4, 3, 3], np.int32)
    turns, gaps = np.array([0, 0, 0, 1, 1], np.int16), np.array([0.1, 0.2, -3.5, 3.5, np.nan], np.float32)
    is_stop = np.array([False, False, True, False, True])
    html = caption_html(("a b.", "two"), turns, starts, ends, gaps, is_stop)
    first, second, _ = html.split("</p>", 2)
    assert re.search(
        r'title="end of the text: −3.5[^>]*background:#6a9cea[^>]*border:1px dashed[^>]*>end</span>$', first
    )
    assert re.search(r'title="\+0.20 nats[^>]*>b\.</span> <span title="end', first)  # the last token keeps its gap
    assert re.search(r'title="end of the text: undefined" style="border:1px dashed[^>]*>end</span>$', second)
    plain = caption_html(
        ("a b.", "two"), turns[~is_stop], starts[~is_stop], ends[~is_stop], gaps[~is_stop], is_stop[~is_stop]
    )
    assert "end" not in plain


@pytest.mark.parametrize(
    ("gap", "words"),
    [(8.126, "3,381 times as likely"), (-20, "over 10,000 times less likely"), (0.001, "as likely with the image as")],
)
def test_ratios_are_read_as_people_write_them(gap: float, words: str) -> None:
    assert ratio(gap).startswith(words)


def test_hostile_texts_are_spelled_out_and_long_ones_are_cut() -> None:
    text = "a\u202eb\x1b[31m" + "x" * 3000
    spans = np.arange(len(text.encode()), dtype=np.int32)
    ones, none = np.ones(len(spans), np.float32), np.zeros(len(spans), np.bool_)
    html = caption_html((text, ""), np.zeros(len(spans), np.int16), spans, spans + 1, ones, none)
    assert "\u202e" not in html and "\x1b" not in html and "\\u202e" in html
    assert "more tokens" in html and len(html) < 600_000
    assert "turn 1" in html and "turn 2" in html


def test_what_is_undefined_is_said(scores: TokenScores) -> None:
    clean = scores.logprob_clean.copy()
    clean[0], clean[1] = np.nan, np.inf
    assert ", 2 undefined" in repr(replace(scores, logprob_clean=clean))
    assert "undefined" not in repr(scores)
    assert repr(Failure("x", FailureCode.IMAGE_MISSING, "no image")) == "<Failure 'x', image_missing: no image>"


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ("abc", "samples is str; give a list of scorer.Sample"),
        ([1], r"samples\[0\] is int; give a list"),
        ([Sample.caption(7, b"", "A heart.")], r"samples\[0\] has the id 7, a int; give a string"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_sample_is_refused(scorer: Scorer, samples: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        scorer.score(samples)  # type: ignore[arg-type]


def test_tables_and_rows_tell_what_they_are(tmp_path: Path) -> None:
    run(make_job(write_dataset(tmp_path / "data"), tmp_path / "out"))
    table = WeightTable.open(tmp_path / "out", method=Method("vig-row"))
    counts = f"{len(table)} rows in {len(table.shards)} shards"
    assert repr(table) == f"<WeightTable of '{tmp_path}/out': {counts}, weights by vig-row>"
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
