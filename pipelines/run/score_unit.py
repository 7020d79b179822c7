"""Take one unit from start to end: read → encode → score → commit. No Ray here; executors call the steps.

Rows in = rows ok + text-only + failed, in order: every step keeps one entry per row, and raises if one is lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa

from pipelines.output import attempts
from pipelines.output.commit import PublishedShard, UnitMarker, commit_unit, publish_shard
from pipelines.output.compaction import published_before
from pipelines.output.plan import ShardPlan, Unit
from pipelines.output.store import Store
from pipelines.output.tally import Tally, tally_results
from pipelines.run.captions import EncodedRow, encode_row, join_captions, take_apart
from pipelines.run.engine import Engine, RowEncoder, RowScorer
from pipelines.sources import ReadRow, Shard, Source
from pipelines.sources.rows import own_error
from scorer import columns
from scorer.errors import BatchTooLargeError, ConfigError, FailureCode, RunError
from scorer.results import Failure, Result
from scorer.table import build_table
from scorer.types import Usage
from scorer.weights import Method

log = logging.getLogger(__name__)

Layout = Literal["sidecar", "merged"]


@dataclass(frozen=True, slots=True)
class EncodedUnit:
    """A unit's encoded rows, and the seconds that each stage has taken so far."""

    rows: list[EncodedRow]
    stages: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ScoredUnit:
    """A unit's results before they are committed.

    Attributes:
        results: one per row, in order.
        started: when scoring began, in seconds since the epoch.
        path: how the rows were scored; see :class:`pipelines.output.tally.Tally`.
        usage: tokens that the model ran for them.
        stages: seconds by stage so far.
        cut: the smaller budget in tokens that the batches had to be cut to; None if the run's budget fitted.
    """

    results: Sequence[Result]
    started: float
    path: str
    usage: Usage
    stages: Mapping[str, float]
    cut: int | None = None


@dataclass(frozen=True, slots=True)
class UnitWork:
    """Everything that a worker needs to know about a run. It can be pickled.

    Attributes:
        metadata: the schema metadata, equal in every process of a run.
        session: id of the driving process; see :class:`pipelines.output.tally.Tally`.
        row_timeout: seconds that encoding a row or scoring a batch may take before it counts as hung; None means no
            limit.
    """

    source: Source
    store: Store
    engine: Engine
    method: Method
    layout: Layout
    metadata: Mapping[str, Any]
    session: str
    row_timeout: float | None = None

    def encode(self, unit: Unit, encoder: RowEncoder, known: Mapping[int, Failure] | None = None) -> EncodedUnit:
        """Read and encode the unit's rows. Uses the CPU only.

        Args:
            known: failures of rows that must not be touched again, by row number.

        Raises:
            RunError: the source returned more or fewer rows than asked for.
        """
        started = time.monotonic()
        rows = self._read(unit, known or {})
        if len(rows) != unit.rows:
            raise RunError(f"unit {unit.id} of shard {unit.shard.name}: {unit.rows} rows asked for, {len(rows)} read")
        read = time.monotonic()
        encoded = encode_rows(rows, encoder)
        return EncodedUnit(encoded, {"read": read - started, "encode": time.monotonic() - read})

    def _read(self, unit: Unit, known: Mapping[int, Failure]) -> list[ReadRow]:
        """Read the unit's rows around those whose failures are known."""
        rows: list[ReadRow] = []
        start = unit.start
        for row_index in (*sorted(known), unit.stop):
            if start < row_index:
                rows += self.source.read(unit.shard, start, row_index)
            if row_index in known:
                rows.append(known[row_index])
            start = row_index + 1
        return rows

    def score(self, unit: Unit, encoded: EncodedUnit, scorer: RowScorer, cut: int | None = None) -> ScoredUnit:
        """Score encoded rows: the only step that needs the model.

        Batches follow from the rows and the run's budget. If they do not fit in memory, the whole unit is scored again
        with a smaller budget, which is recorded first: every later attempt then forms the same batches.

        Args:
            cut: the smaller budget that an earlier attempt had to take.

        Raises:
            RunError: the results do not match the rows one to one.
        """
        started, clock = time.time(), time.monotonic()
        before = scorer.usage
        while True:
            try:
                results = score_rows(encoded.rows, scorer, cut or self.engine.max_batch_tokens)
                break
            except BatchTooLargeError as error:
                problem, smaller = error, error.smaller
            cut = attempts.cut(self.store, unit, smaller)
            log.warning(
                "unit %s of %s: %s; it is scored again in batches of at most %d tokens. If this happens often, start "
                "a new output with a smaller --max-batch-tokens",
                unit.id,
                unit.shard.name,
                problem,
                cut,
            )
        _check_coverage(unit, encoded.rows, results)
        stages = {**encoded.stages, "score": time.monotonic() - clock}
        return ScoredUnit(results, started, scorer.path, scorer.usage - before, stages, cut)

    def commit(self, unit: Unit, scored: ScoredUnit) -> UnitMarker:
        """Commit one result per row, in order. The returned marker also counts the seconds that this took."""
        clock = time.monotonic()
        table = self._table(unit, scored.results)
        tally = tally_results(
            scored.results,
            unit.shard.name,
            unit.start,
            path=scored.path,
            usage=scored.usage,
            session=self.session,
            span=(scored.started, time.time()),
            stages=scored.stages,
            cut=scored.cut,
        )
        marker = commit_unit(self.store, unit, table, tally)
        return replace(marker, tally=marker.tally + Tally(stages={"write": time.monotonic() - clock}))

    def run(self, unit: Unit, encoder: RowEncoder, scorer: RowScorer) -> UnitMarker:
        """Encode, score and commit a unit in one process."""
        return self.commit(unit, self.score(unit, self.encode(unit, encoder), scorer))

    def publish(self, planned: ShardPlan) -> PublishedShard:
        """Publish a shard whose units are all committed, unless it is already published and its units were removed."""
        return published_before(self.store, planned) or publish_shard(self.store, planned, self._empty(planned.shard))

    def _table(self, unit: Unit, results: Sequence[Result]) -> pa.Table:
        table = build_table(results, unit.start, self.method, self.metadata)
        if self.layout == "sidecar":
            return table
        return merge(self.source.table(unit.shard, unit.start, unit.stop), table)

    def _empty(self, shard: Shard) -> pa.Table:
        table = build_table([], 0, self.method, self.metadata)
        if self.layout == "sidecar":
            return table
        return merge(self.source.schema(shard).empty_table(), table)


def encode_rows(rows: Sequence[ReadRow], encoder: RowEncoder) -> list[EncodedRow]:
    """Encode rows. If the encoder raises on a row, which it should not, only that row fails.

    Raises:
        Exception: what is the run's and not a row's, by :func:`pipelines.sources.rows.own_error`.
        RunError: the encoder raised on each of several rows.
    """
    encoded: list[EncodedRow] = []
    errors: list[Exception] = []
    for row in rows:
        try:
            encoded.append(encode_row(row, encoder))
        except Exception as error:
            own = own_error(error, "the encoder", FailureCode.SCORING_FAILED)
            log.warning("row %s: %s", row.sample_id, own.message)
            errors.append(error)
            encoded.append(Failure(row.sample_id, own.code, own.message))
    _raise_if_every_row_raised("the encoder", errors, rows)
    return encoded


def score_rows(rows: Sequence[EncodedRow], scorer: RowScorer, max_batch_tokens: int) -> list[Result]:
    """Score rows together; if that raises, find the rows that raise alone and score the others together again.

    Raises:
        BatchTooLargeError: a batch did not fit in memory, or raised although none of its rows raises alone.
        RunError: the scorer raised on each of several rows: then the model is at fault, not the rows.
    """
    return join_captions(rows, _score_apart(rows, scorer, max_batch_tokens))


def _score_apart(rows: Sequence[EncodedRow], scorer: RowScorer, max_batch_tokens: int) -> list[Result]:
    """Return one result for each entry of :func:`pipelines.run.captions.take_apart`."""
    parts = take_apart(rows)
    try:
        return scorer.score_batches(parts, max_batch_tokens)
    except BatchTooLargeError:
        raise
    except Exception:
        log.exception("scoring %d rows raised; trying them one by one", len(rows))
    alone: list[Result] = []
    errors: list[Exception] = []  # one per row of which nothing can be scored, however many captions it has
    for row in rows:
        captions = take_apart([row])
        raised: list[Exception] = []
        for part in captions:
            try:
                alone += scorer.score_batches([part], max_batch_tokens)
            except Exception as error:
                log.exception("scoring row %s raised", row.sample_id)
                raised.append(error)
                message = f"the model raised {type(error).__name__}: {error}"
                alone.append(Failure(row.sample_id, FailureCode.SCORING_FAILED, message))
        if len(raised) == len(captions):
            errors.append(raised[0])
    _raise_if_every_row_raised("the model", errors, rows)
    if max_batch_tokens == 1:  # no row shares a batch with another
        return alone
    sound = [result if isinstance(result, Failure) else part for part, result in zip(parts, alone, strict=True)]
    try:
        return scorer.score_batches(sound, max_batch_tokens)
    except BatchTooLargeError:
        raise
    except Exception as error:
        problem = f"a batch raised {type(error).__name__}: {error}, although none of its rows raises alone"
        raise BatchTooLargeError(problem, 1) from error


def _raise_if_every_row_raised(who: str, errors: Sequence[Exception], rows: Sequence[ReadRow | EncodedRow]) -> None:
    """Raise RunError if several rows were tried and all raised: then the encoder or the model is at fault.

    Otherwise a whole dataset could be stored as failed. (A single row may well be at fault itself.)
    """
    tried = [row for row in rows if not isinstance(row, Failure)]
    if len(errors) == len(tried) > 1:
        raise RunError(
            f"{who} raised on each of {len(tried)} rows, {tried[0].sample_id} to {tried[-1].sample_id}, first "
            f"{type(errors[0]).__name__}: {errors[0]}; check the model, its dtype and its device; if the model scores "
            "other rows, repair or remove these"
        ) from errors[0]


def merge(original: pa.Table, ours: pa.Table) -> pa.Table:
    """Join the original columns and ours, in this order, with the metadata of both."""
    table = pa.table(
        [*original.columns, *ours.columns],
        schema=pa.schema([*original.schema, *ours.schema]),
    )
    return table.replace_schema_metadata({**(original.schema.metadata or {}), **ours.schema.metadata})


def check_mergeable(schema: pa.Schema, shard: Shard) -> None:
    """Raise ConfigError if a column of the dataset has the name of one of ours."""
    clash = sorted(set(schema.names) & {column.name for column in columns.COLUMNS})
    if clash:
        raise ConfigError(
            f"--layout merged: shard {shard.name} already has columns named {', '.join(clash)}; rename them, or use "
            "--layout sidecar"
        )


def _check_coverage(unit: Unit, rows: Sequence[EncodedRow], results: Sequence[Result]) -> None:
    if [row.sample_id for row in rows] != [result.sample_id for result in results]:
        raise RunError(
            f"unit {unit.id} of shard {unit.shard.name}: {len(rows)} rows went in and {len(results)} results came "
            "out, or in another order; none of them is stored"
        )
