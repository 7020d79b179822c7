"""The bytes of a run on a model whose scores depend on the batch, however it was stopped."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.executors.isolation.isolate import isolate
from pipelines.output import attempts
from pipelines.run.job import PreparedRun, prepare
from scorer.errors import BatchTooLargeError
from scorer.results import Failure, Result, TokenScores
from scorer.types import EncodedSample
from tests.pipelines.faults.packaged import BUDGET, KillingEngine, LoadedEngine, packaged_engine, write_pictures
from tests.pipelines.faults.stops import ROWS_PER_UNIT, SHARDS, STATUS, Stopped
from tests.pipelines.helpers import make_job, run
from tests.pipelines.ray_engines import WrappedScorer


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), SHARDS)


@pytest.fixture(scope="module")
def undisturbed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return Stopped(pictures, tmp_path_factory.mktemp("undisturbed") / "out").finish()


def prepared(pictures: Path, output: Path) -> PreparedRun:
    return prepare(make_job(pictures, output, packaged_engine(), rows_per_unit=ROWS_PER_UNIT))


def gaps(results: Sequence[Result]) -> list[list[float]]:
    return [result.logit_gap.tolist() for result in results if isinstance(result, TokenScores)]


def test_scores_depend_on_the_batch(pictures: Path, tmp_path: Path) -> None:
    """Negative control: were they the same one by one, the other tests of this file would show nothing."""
    job = prepared(pictures, tmp_path / "out")
    encoder, scorer = LoadedEngine().encoder(), LoadedEngine().scorer()
    encoded = job.work.encode(job.plans[0].units[0], encoder)
    rows = [row for row in encoded if isinstance(row, EncodedSample)]
    together, again = (gaps(scorer.score_batches(rows, BUDGET)) for _ in range(2))
    alone = gaps([scorer.score_batches([row], BUDGET)[0] for row in rows])
    halves = gaps(scorer.score_batches(rows, BUDGET // 2))
    assert together == again
    assert sum(a != b for a, b in zip(together, alone, strict=True)) > len(rows) // 2
    assert together != halves


@pytest.mark.parametrize("with_signal", STATUS, ids=lambda one: one.name)
@pytest.mark.timeout(900)
def test_a_unit_that_is_stopped_twice_keeps_its_bytes(
    pictures: Path, tmp_path: Path, undisturbed: dict[str, bytes], with_signal: signal.Signals
) -> None:
    stopped = Stopped(pictures, tmp_path / "out")
    assert [stopped.stop(with_signal) for _ in range(2)] == [STATUS[with_signal]] * 2
    assert stopped.finish() == undisturbed
    paths = json.loads((tmp_path / "out" / "_SUCCESS").read_text())["paths"]
    assert ("isolated" in paths) == (with_signal is signal.SIGKILL), "who ends by itself did not die of a row"
    if with_signal is not signal.SIGKILL:
        word = "interrupted" if with_signal is signal.SIGINT else "terminated"
        error, advice = stopped.said[0].splitlines()[-2:]
        assert (error, advice.partition(";")[0]) == (f"error: {word}", "the scores so far are kept")


def test_a_row_that_kills_leaves_the_batches_of_the_others_as_if_it_had_failed(pictures: Path, tmp_path: Path) -> None:
    """Isolation blames one row; the others share batches as they would without it, and are not scored alone."""
    job = prepared(pictures, tmp_path / "out")
    unit = job.plans[0].units[0]
    killer = str(unit.start + 5)
    work = replace(job.work, engine=KillingEngine(killer=killer))
    assert isolate(work, unit).tally.failures.keys() == {"worker_crash"}
    table = pq.read_table(next((tmp_path / "out" / "_units").glob("*.parquet")))
    encoder, scorer = LoadedEngine().encoder(), LoadedEngine().scorer()
    rows = [row for row in job.work.encode(unit, encoder) if isinstance(row, EncodedSample)]
    survivors = [row for row in rows if row.sample_id != killer]
    expected = gaps(scorer.score_batches(survivors, BUDGET))
    assert [row for row in table["logit_gap"].to_pylist() if row is not None] == expected
    assert expected != [gap for row in survivors for gap in gaps(scorer.score_batches([row], BUDGET))]


def test_a_unit_that_is_cut_says_so_and_is_cut_alike_when_it_is_scored_again(pictures: Path, tmp_path: Path) -> None:
    """Memory runs out once; the attempt after the next stop has enough, and must not use it."""
    job = prepared(pictures, tmp_path / "out")
    unit, work = job.plans[0].units[0], job.work
    encoder, scorer = LoadedEngine().encoder(), LoadedEngine().scorer()
    assert attempts.begin(work.store, unit, "score", "first") == attempts.Attempt()
    encoded = work.encode(unit, encoder)
    first = work.score(unit, encoded, Tight(None, scorer, fits=BUDGET // 2))
    assert first.cut is not None
    assert first.cut <= BUDGET // 2
    attempt = attempts.begin(work.store, unit, "score", "second")
    assert attempt == attempts.Attempt(first.cut)
    second = work.score(unit, encoded, scorer, attempt.cut)
    assert gaps(second.results) == gaps(first.results)
    assert gaps(second.results) != gaps(work.score(unit, encoded, scorer).results), "the budget matters"
    assert work.commit(unit, second).tally.cut == {str(first.cut): ROWS_PER_UNIT}
    assert run(make_job(pictures, tmp_path / "out", LoadedEngine(), rows_per_unit=ROWS_PER_UNIT))["cut"] == {
        str(first.cut): ROWS_PER_UNIT
    }


def test_what_failed_before_does_not_change_later_scores(pictures: Path, tmp_path: Path) -> None:
    job = prepared(pictures, tmp_path / "out")
    encoder, scorer = packaged_engine().encoder(), packaged_engine().scorer()
    units = [job.work.encode(unit, encoder) for unit in job.plans[0].units]
    fresh = gaps(job.work.score(job.plans[0].units[1], units[1], packaged_engine().scorer()).results)
    job.work.score(job.plans[0].units[0], units[0], Tight(None, scorer, fits=64))
    assert gaps(job.work.score(job.plans[0].units[1], units[1], scorer).results) == fresh


@dataclass(frozen=True)
class Tight(WrappedScorer[Any]):
    """A device on which batches of more than so many tokens run out of memory."""

    fits: int

    def score_batches(self, rows: Iterable[EncodedSample | Failure], max_batch_tokens: int) -> list[Result]:
        if max_batch_tokens > self.fits:
            raise BatchTooLargeError(f"a batch of {max_batch_tokens} tokens ran out of memory", max_batch_tokens // 2)
        return self.inner.score_batches(rows, max_batch_tokens)
