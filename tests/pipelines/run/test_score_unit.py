from __future__ import annotations

import logging
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.run.captions import EncodedRow, TakenApart
from pipelines.run.encoding import encode_rows
from pipelines.run.job import prepare
from pipelines.run.scoring import score_rows
from pipelines.sources import Captions, Shard
from pipelines.sources.parquet import ParquetSource
from scorer.errors import FailureCode, RunError
from scorer.results import Failure, Result, TokenScores
from scorer.types import EncodedSample, Sample, Turn, Usage
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import make_job

TEXTS = ["a kite", "some poison here", "two boats", "the end"]


def encoded(texts: Sequence[str] = TEXTS) -> list[EncodedRow]:
    samples = [Sample.caption(str(i), b"ok", text) for i, text in enumerate(texts)]
    return encode_rows(samples, FakeEngine().encoder())


def test_a_row_on_which_the_model_raises_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    others = [row if i != 1 else Failure("1", FailureCode.SCORING_FAILED, "") for i, row in enumerate(encoded())]
    clean = FakeEngine().scorer().score_batches(TakenApart(others), 8192)
    with caplog.at_level(logging.ERROR):
        results = score_rows(encoded(), FakeEngine(poison="poison").scorer(), 8192)
    assert [type(result) for result in results] == [TokenScores, Failure, TokenScores, TokenScores]
    failed = results[1]
    assert isinstance(failed, Failure)
    assert failed.code is FailureCode.SCORING_FAILED
    assert "RuntimeError: the fake model was given poison" in failed.message
    for result, expected in zip(results, clean, strict=True):
        if isinstance(result, TokenScores) and isinstance(expected, TokenScores):
            assert result.logit_gap.tolist() == expected.logit_gap.tolist()
    assert "Traceback" in caplog.text, "an unexpected error is never swallowed"


def test_a_model_that_fails_on_every_row_is_not_the_rows_fault() -> None:
    said = r"the model raised on each of 3 rows, 0 to 2, first RuntimeError: .* poison; check the model"
    with pytest.raises(RunError, match=said):
        score_rows(encoded(["poison"] * 3), FakeEngine(poison="poison").scorer(), 8192)


def test_a_single_row_that_raises_is_that_rows_fault() -> None:
    rows = [*encoded(["poison"]), Failure("x", FailureCode.IMAGE_MISSING, "none")]
    results = score_rows(rows, FakeEngine(poison="poison").scorer(), 8192)
    assert [isinstance(result, Failure) and result.code for result in results] == [
        FailureCode.SCORING_FAILED,
        FailureCode.IMAGE_MISSING,
    ]


def test_the_captions_of_a_row_are_one_row_when_all_raise() -> None:
    captions = Captions("many", (b"ok",), Turn.question(1, "Describe."), ("poison", "more poison"))
    others = [Failure("x", FailureCode.IMAGE_MISSING, "none")]
    rows = encode_rows([captions, *others], FakeEngine().encoder())
    failed, _ = score_rows(rows, FakeEngine(poison="poison").scorer(), 8192)
    assert isinstance(failed, Failure)
    assert (failed.sample_id, failed.code) == ("many", FailureCode.SCORING_FAILED)
    assert failed.message.startswith("turn 0 of 2: the model raised RuntimeError")
    with pytest.raises(RunError, match="each of 2 rows"):
        score_rows([*rows, *rows], FakeEngine(poison="poison").scorer(), 8192)


class BrokenEncoder:
    def __init__(self, error: Exception, only: str | None = None) -> None:
        self.error = error
        self.only = only

    def try_encode(self, sample: Sample) -> EncodedSample | Failure:
        if self.only in (None, sample.sample_id):
            raise self.error
        return FakeEngine().encoder().try_encode(sample)


def test_a_row_on_which_the_encoder_raises_fails_alone() -> None:
    samples = [Sample.caption(str(i), b"ok", "text") for i in range(3)]
    rows = encode_rows(samples, BrokenEncoder(AssertionError("spans"), only="1"))
    assert [isinstance(row, Failure) for row in rows] == [False, True, False]
    with pytest.raises(RunError, match=r"the encoder raised on each of 3 rows, 0 to 2, first AssertionError: spans"):
        encode_rows(samples, BrokenEncoder(AssertionError("spans")))


def test_an_error_of_the_file_system_is_not_stored_as_a_rows() -> None:
    samples = [Sample.caption(str(i), b"ok", "text") for i in range(3)]
    with pytest.raises(OSError, match="too many open files"):
        encode_rows(samples, BrokenEncoder(OSError("too many open files"), only="1"))


class Misaligned:
    path = "fake"
    usage = Usage()


class ShortScorer(Misaligned):
    def score_batches(self, rows: Iterable[EncodedSample | Failure], max_batch_tokens: int) -> list[Result]:
        return FakeEngine().scorer().score_batches(rows, 8192)[:-1]


class ShuffledScorer(Misaligned):
    def score_batches(self, rows: Iterable[EncodedSample | Failure], max_batch_tokens: int) -> list[Result]:
        return FakeEngine().scorer().score_batches(rows, 8192)[::-1]


@pytest.mark.parametrize("scorer", [ShortScorer(), ShuffledScorer()])
def test_results_that_do_not_answer_the_rows_are_not_stored(dataset: Path, output: Path, scorer: Any) -> None:
    run = prepare(make_job(dataset, output))
    unit = run.plans[0].units[1]
    with pytest.raises(RunError, match="none of them is stored"):
        run.work.score(unit, run.work.encode(unit, FakeEngine().encoder()), scorer)
    assert set(run.work.store.sizes()) == {"_run.json"}


def test_a_source_that_drops_a_row_is_found(dataset: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepare(make_job(dataset, output))
    original = ParquetSource.read

    def short(self: ParquetSource, shard: Shard, start: int, stop: int) -> Any:
        return original(self, shard, start, stop)[1:]

    monkeypatch.setattr(ParquetSource, "read", short)
    with pytest.raises(RunError, match="5 rows asked for, 4 read"):
        list(run.work.encode(run.plans[0].units[0], FakeEngine().encoder()))


def test_the_work_pickles(dataset: Path, output: Path) -> None:
    run = prepare(make_job(dataset, output))
    work = pickle.loads(pickle.dumps(run.work))
    marker = work.run(run.plans[0].units[0], FakeEngine().encoder(), FakeEngine().scorer())
    assert marker.tally.rows == 5


def test_merged_keeps_the_original_columns_and_their_metadata(dataset: Path, output: Path) -> None:
    path = dataset / "a.parquet"
    original = pq.read_table(path).replace_schema_metadata({"huggingface": "{}"})
    pq.write_table(original, path)
    run = prepare(make_job(dataset, output, layout="merged"))
    for unit in run.plans[0].units:
        run.work.run(unit, FakeEngine().encoder(), FakeEngine().scorer())
    run.work.publish(run.plans[0])
    run.work.publish(run.plans[1])
    table = pq.read_table(output / "a.parquet")
    assert table.select(original.column_names).equals(original)
    assert table["row_index"].to_pylist() == list(range(25))
    assert set(table.schema.metadata) == {b"huggingface", b"tokensight"}
    empty = pq.read_table(output / "empty.parquet")
    assert empty.num_rows == 0
    assert empty.schema.equals(table.schema)
    assert isinstance(empty.schema.field("image").type, pa.StructType)
