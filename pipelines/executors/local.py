"""Everything in this process, one unit after the other: for small datasets, debugging and tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future

from pipelines.commit import PublishedShard, UnitMarker
from pipelines.plan import ShardPlan, Unit
from pipelines.score_unit import UnitWork


class LocalExecutor:
    """See :class:`pipelines.executors.Executor`."""

    def score(self, work: UnitWork, units: Sequence[Unit]) -> Iterator[UnitMarker]:
        if not units:
            return
        encoder, scorer = work.engine.encoder(), work.engine.scorer()
        for unit in units:
            yield work.run(unit, encoder, scorer)

    def publish(self, work: UnitWork, planned: ShardPlan) -> Future[PublishedShard]:
        future: Future[PublishedShard] = Future()
        future.set_result(work.publish(planned))
        return future
