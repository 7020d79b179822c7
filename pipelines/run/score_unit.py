"""Take one unit from start to end: read → encode → score → commit. No Ray here; executors call the steps.

Rows in = rows ok + text-only + failed, in order: every step keeps one entry per row, and raises if one is lost.
Rows are read, encoded and scored as they are asked for: of a unit's rows, only the results are kept until the end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import pyarrow as pa

from pipelines.output import attempts
from pipelines.output.commit import PublishedShard, UnitMarker, commit_unit, publish_shard
from pipelines.output.compaction import published_before
from pipelines.output.plan import ShardPlan, Unit
from pipelines.output.store import Store
from pipelines.output.tally import Tally, tally_results
from pipelines.run.captions import EncodedRow
from pipelines.run.encoding import EncodedUnit
from pipelines.run.engine import Engine, RowEncoder, RowScorer
from pipelines.run.scoring import Supply, score_rows
from pipelines.sources import Shard, Source
from pipelines.sources.shuffled import ShuffledSource
from scorer import columns
from scorer.errors import BatchTooLargeError, ConfigError, RunError
from scorer.results import Failure, Result
from scorer.table import build_table
from scorer.types import Usage
from scorer.weights import Method

log = logging.getLogger(__name__)

Layout = Literal["sidecar", "merged"]


class EncodedRows(Protocol):
    """A unit's encoded rows, in order, as they arrive; each iteration yields all of them anew.

    Attributes:
        stages: seconds by stage that reading and encoding took so far.
    """

    stages: dict[str, float]

    def __iter__(self) -> Iterator[EncodedRow]: ...


@dataclass(frozen=True, slots=True)
class ScoredUnit:
    """A unit's results before they are committed.

    Attributes:
        results: one per row, in order.
        started: when scoring began with the first row, in seconds since the epoch.
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
        """Return the unit's rows, which are read and encoded as they are iterated over. Uses the CPU only.

        Args:
            known: failures of rows that must not be touched again, by row number.
        """
        source = self.source
        if known and isinstance(source, ShuffledSource):
            source = source.without(unit.shard, known)
        return EncodedUnit(source, unit, encoder, known)

    def score(self, unit: Unit, encoded: EncodedRows, scorer: RowScorer, cut: int | None = None) -> ScoredUnit:
        """Score encoded rows: the only step that needs the model.

        Batches follow from the rows and the run's budget. If they do not fit in memory, the unit's rows are asked for
        again and scored as a whole with a smaller budget, which is recorded first: every later attempt then forms the
        same batches.

        Args:
            cut: the smaller budget that an earlier attempt had to take.

        Raises:
            RunError: the results do not match the rows one to one.
            Exception: what the rows raise.
        """
        clock, before, supply = time.monotonic(), scorer.usage, Supply(encoded)
        while True:
            try:
                results = score_rows(supply, scorer, cut or self.engine.max_batch_tokens)
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
        _check_coverage(unit, supply.sample_ids, results)
        stages = {**encoded.stages, "score": time.monotonic() - clock - supply.waited}
        return ScoredUnit(results, supply.began or time.time(), scorer.path, scorer.usage - before, stages, cut)

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


def merge(original: pa.Table, ours: pa.Table) -> pa.Table:
    """Join the original columns and ours, in this order, with the metadata of both."""
    table = pa.table(
        [*original.columns, *ours.columns],
        schema=pa.schema([*original.schema, *ours.schema]),
    )
    return table.replace_schema_metadata({**(original.schema.metadata or {}), **ours.schema.metadata})


def check_mergeable(schema: pa.Schema, shard: Shard, fingerprint: Mapping[str, Any]) -> None:
    """Raise ConfigError if a column of the dataset has the name of one that the run writes, or of a known one."""
    ours = {column.name for column in (*columns.COLUMNS, *columns.of_run(fingerprint))}
    clash = sorted(set(schema.names) & ours)
    if clash:
        raise ConfigError(
            f"--layout merged: shard {shard.name} already has columns named {', '.join(clash)}; rename them, or use "
            "--layout sidecar"
        )


def _check_coverage(unit: Unit, sample_ids: Sequence[str], results: Sequence[Result]) -> None:
    if len(sample_ids) != unit.rows or sample_ids != [result.sample_id for result in results]:
        raise RunError(
            f"unit {unit.id} of shard {unit.shard.name}: it has {unit.rows} rows, {len(sample_ids)} went in and "
            f"{len(results)} results came out, or in another order; none of them is stored"
        )
