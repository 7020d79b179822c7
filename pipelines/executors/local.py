"""Everything in this process, one unit after the other: for small datasets, debugging and tests."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

from pipelines.isolation import attempts
from pipelines.isolation.rows import isolate
from pipelines.run.commit import PublishedShard, UnitMarker
from pipelines.run.plan import ShardPlan, Unit
from pipelines.run.score_unit import UnitWork


class LocalExecutor:
    """See :class:`pipelines.executors.Executor`.

    A row that kills this process ends the run; given again often enough, the run isolates the row.
    """

    def score(self, work: UnitWork, units: Sequence[Unit]) -> Iterator[UnitMarker]:
        if not units:
            return
        suspects: list[Unit] = []
        encoder, scorer = work.engine.encoder(), work.engine.scorer()
        for unit in units:
            if attempts.begin(work.store, unit, "score"):
                yield work.run(unit, encoder, scorer)
            else:
                suspects.append(unit)
        del encoder, scorer
        if suspects:
            _free_device()
        for unit in suspects:
            yield self.isolate(work, unit)

    def isolate(self, work: UnitWork, unit: Unit) -> UnitMarker:
        """Score a unit whose workers died."""
        return isolate(work, unit)

    def publish(self, work: UnitWork, planned: ShardPlan) -> Future[PublishedShard]:
        future: Future[PublishedShard] = Future()
        future.set_result(work.publish(planned))
        return future


def _free_device() -> None:
    """Make room for a sacrificial process's own model."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
