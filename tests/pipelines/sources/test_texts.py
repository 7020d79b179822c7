"""Several texts of one picture: one row of the output, each text scored as if it were alone."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.run.captions import EncodedCaptions, encode_row
from pipelines.run.encoding import encode_rows
from pipelines.run.scoring import score_rows
from pipelines.sources import Captions
from pipelines.sources.columns import Columns
from scorer.errors import FailureCode, RunError, TableError
from scorer.results import Failure, TokenScores
from scorer.table import text_hash
from scorer.training import read_weights
from scorer.types import IMAGE, Sample, Turn
from scorer.weights import Method
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import run
from tests.pipelines.sources.helpers import captions, failure, make_job, read_all, source

TEXTS = [["a red kite", "two boats", None], ["one"], [None, "", "the last of three"], [], None, ["a", "  "]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    table = pa.table({"image": [b"i"] * len(TEXTS), "captions": pa.array(TEXTS, pa.list_(pa.string()))})
    pq.write_table(table, folder / "x.parquet")
    return folder


def alone(text: str) -> TokenScores:
    """The scores of a text that is the only one of its row."""
    encoded = FakeEngine().encoder().try_encode(Sample.caption("", b"i", text))
    (result,) = FakeEngine(by_batch=False).scorer().score_batches([encoded], 8192)
    assert isinstance(result, TokenScores)
    return result


def test_a_row_stays_a_row_and_token_turns_name_the_text(data: Path, tmp_path: Path) -> None:
    summary = run(make_job(data, tmp_path / "out", engine=FakeEngine(by_batch=False)))
    assert (summary["rows"], summary["ok"], summary["failed"]) == (6, 4, 2)
    rows = list(read_weights(tmp_path / "out"))
    assert [row.row_index for row in rows] == list(range(6))
    assert [row.status for row in rows] == ["ok", "ok", "ok", "text_missing", "text_missing", "ok"]
    for row, texts in zip(rows, TEXTS, strict=True):
        if row.scores is None or row.weights is None:
            continue
        assert texts is not None
        row.check_text([text or "" for text in texts])
        with pytest.raises(TableError):
            row.check_text([*(text or "" for text in texts), "x"])
        for k, text in enumerate(texts):
            own = row.scores.token_turns == k
            if not (text or "").strip():
                assert not own.any()
                continue
            expected = alone(text or "")
            for name in ("token_ids", "token_starts", "token_ends", "logit_gap", "logprob_clean", "logprob_contrast"):
                np.testing.assert_array_equal(getattr(row.scores, name)[own], getattr(expected, name))
            # pooled within the text: a weight is what it would be if the text were alone
            np.testing.assert_allclose(row.weights[own], Method()(expected))


def test_numbered_columns_and_named_ones_are_the_same(tmp_path: Path) -> None:
    columns = {"image": [b"i"], "caption_1": ["b"], "caption_0": ["a"], "caption_10": [None], "alt": ["d"]}
    pq.write_table(pa.table({**columns, "caption_10": pa.array([None], pa.string())}), tmp_path / "x.parquet")
    found = source(tmp_path)
    (row,) = read_all(found)
    assert captions(row).texts == ("a", "b", "")
    assert found.columns.text == ("caption_0", "caption_1", "caption_10")
    named = source(tmp_path, columns=Columns(text="alt, caption_1"))
    (row,) = read_all(named)
    assert captions(row).texts == ("d", "b")


def test_several_pictures_and_a_counterfactual_for_each(tmp_path: Path) -> None:
    columns = {"left": [b"1"], "right": [b"2"], "other": [[b"3", b"4"]], "caption": [["a", "b"]]}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    asked = Columns(image="left,right", contrast_image="other")
    (row,) = read_all(source(tmp_path, columns=asked, contrast_images=True))
    one = captions(row).sample(1)
    assert (one.images, one.contrast_images, one.scored_texts) == ((b"1", b"2"), (b"3", b"4"), ("b",))
    assert one.turns[0].content == (IMAGE, IMAGE, "Describe.")


def test_a_text_of_the_wrong_type_fails_its_row(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"image": "1", "captions": ["a", 7]}\n{"image": "1", "captions": ["a", "b"]}')
    bad, good = read_all(source(tmp_path))
    assert failure(bad).code is FailureCode.TEXT_INVALID
    assert captions(good).texts == ("a", "b")


def test_more_texts_than_can_be_numbered_fail_their_row(tmp_path: Path) -> None:
    most = [None] * (2**15 - 1)
    texts = pa.array([[*most, "a"], [*most, "", "a"]], pa.list_(pa.string()))
    table = pa.table({"image": [b"i"] * 2, "captions": texts})
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data" / "x.parquet")
    run(make_job(tmp_path / "data", tmp_path / "out", engine=FakeEngine()))
    good, bad = read_weights(tmp_path / "out")
    assert good.scores is not None and set(good.scores.token_turns) == {2**15 - 1}
    assert (bad.status, bad.error) == (
        "text_too_long",
        "the row has 32769 texts, more than 32768; divide them among several rows",
    )


def row(*texts: str, image: bytes = b"i", sample_id: str = "r") -> Captions:
    return Captions(sample_id, (image,), Turn("user", (IMAGE, "Describe.")), texts)


def test_one_text_that_fails_fails_its_row_and_says_which(caplog: pytest.LogCaptureFixture) -> None:
    rows = [row("a", "some poison", sample_id="bad"), row("b", "c", sample_id="good")]
    with caplog.at_level(logging.CRITICAL):
        bad, good = score_rows(encode_rows(rows, FakeEngine().encoder()), FakeEngine(poison="poison").scorer(), 8192)
    assert isinstance(bad, Failure)
    assert (bad.sample_id, bad.code) == ("bad", FailureCode.SCORING_FAILED)
    assert bad.message.startswith("turn 1 of 2: ")
    assert isinstance(good, TokenScores)
    assert good.text_hash == text_hash(["b", "c"])
    encoded = encode_row(row("a", "b", image=b"corrupt"), FakeEngine().encoder())
    assert isinstance(encoded, Failure)
    assert (encoded.code, encoded.sample_id) == (FailureCode.IMAGE_UNREADABLE, "r")


def test_equal_pixels_travel_once() -> None:
    encoded = encode_row(row("a", "b", "c"), FakeEngine().encoder())
    assert isinstance(encoded, EncodedCaptions)
    assert len({id(part.clean.pixels) for _, part in encoded.parts}) == 1


def test_a_scorer_that_drops_a_text_is_found() -> None:
    class Short:
        def score_batches(self, rows: object, max_batch_tokens: int) -> list[TokenScores]:
            return [alone("a")]

    with pytest.raises(RunError, match="2 turns went in and 1 results came out"):
        score_rows(encode_rows([row("a", "b")], FakeEngine().encoder()), Short(), 8192)  # type: ignore[arg-type]
