"""Set the order of a run: look, refuse what is wrong, plan, score what is not committed, publish, summarize."""

from __future__ import annotations

import logging
import posixpath
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pipelines.output import attempts
from pipelines.output.commit import DamagedUnitsError, OutputState, PublishedShard, find_published
from pipelines.output.documents import as_json, now
from pipelines.output.plan import DEFAULT_ROWS_PER_UNIT, ShardPlan, Unit, plan
from pipelines.output.reader import is_intact
from pipelines.output.record import CONFIG, RunRecord, claim, compare, confirm_writable, read_record
from pipelines.output.record import KEY as RECORD
from pipelines.output.store import Store
from pipelines.output.summary import Summary, current_summary, read_summary, summarize, summary_of
from pipelines.output.tally import Tally
from pipelines.report.dataset_card import write_card
from pipelines.run.engine import Engine
from pipelines.run.executor import Executor
from pipelines.run.score_unit import Layout, UnitWork, check_mergeable
from pipelines.sources import Shard, Source
from scorer import columns
from scorer.errors import ConfigError, OtherRunError, RunError
from scorer.summary import SUCCESS
from scorer.weights import METHODS, Method

log = logging.getLogger(__name__)

OnChanged = Literal["error", "rescore"]
"""What to do when an input shard's content has changed since it was scored."""

_READERS = 32
_READ_TOGETHER = 64
"""Threads that read the markers of published shards, and markers per batch: a bucket takes at least 30 ms to answer."""

_DIGESTS = 8
"""Published files that are read at once to compare their digests; a remote one takes its size of temporary space."""

_UNNAMED = "one that was not complete yet"
"""A vanished shard of which nothing was published: its markers hold only a digest of its name."""

MAX_PUBLISHING = 8
"""Shards that may be waiting for publication before scoring pauses."""


class Watch(Protocol):
    """Follows the progress of a run."""

    def begin(self, rows: int, done: int) -> None:
        """Start a run of ``rows`` rows, ``done`` of them committed by earlier processes."""
        ...

    def add(self, tally: Tally) -> None:
        """Count a unit that was committed."""
        ...

    def end(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the user asked for.

    Attributes:
        input: the input as the user named it.
        rows_per_unit: None keeps the value of an existing output, or takes the default for a new one.
        on_changed: whether a shard whose content changed is an error or is rescored as a whole, and whether one that
            vanished is an error or is left out of the summary.
        row_timeout: seconds; see :class:`pipelines.run.score_unit.UnitWork`.
        verify: read all published files and compare their digests, in a finished run too. Otherwise only sizes are
            compared, which takes no more than the listing.
        config: serializes the options that would repeat the job, given the output's root; stored in a new output.
    """

    input: str
    source: Source
    store: Store
    engine: Engine
    method: Method
    layout: Layout = "sidecar"
    rows_per_unit: int | None = None
    on_changed: OnChanged = "error"
    row_timeout: float | None = None
    verify: bool = False
    config: Callable[[str], bytes] | None = None


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A job that has been checked, and how far it is. Returned by :func:`prepare`.

    Attributes:
        changed: names of the shards whose content changed since they were scored; they are rescored and republished.
        summary: the stored summary of a finished run that needs no more work; None if there is work to do.
        stored: the stored summary of a run that finished before, whether or not there is work to do now.
        verify: see :class:`Job`.
    """

    record: RunRecord
    work: UnitWork
    plans: Sequence[ShardPlan]
    state: OutputState
    changed: frozenset[str] = frozenset()
    summary: Summary | None = None
    stored: Summary | None = None
    verify: bool = False

    @property
    def pending(self) -> list[Unit]:
        """The units that are not committed yet, in order."""
        return [] if self.summary is not None else self._pending(self._published())

    def execute(self, executor: Executor, watch: Watch) -> Summary:
        """Score, publish and summarize. Return the summary. A finished and intact run writes nothing.

        Raises:
            RunError: a unit was never committed, or the rows do not add up.
        """
        rows = sum(planned.shard.rows for planned in self.plans)
        if self.summary is not None:
            watch.begin(rows, rows)
            watch.end()
            return self.summary
        published = self._published()
        pending = self._pending(published)
        watch.begin(rows, rows - sum(unit.rows for unit in pending))
        try:
            published |= self._score(executor, watch, pending, published)
        except (Exception, KeyboardInterrupt, SystemExit):
            # This process ends by itself, so no row killed it: what is in flight will be tried again like the rest.
            with suppress(RunError):  # the store may be what failed; then an attempt too many is counted
                attempts.end_session(self.work.store, self.work.session)
            raise
        finally:
            watch.end()
        shards = [published[planned.shard.name] for planned in self.plans]
        stored = summary_of(self.work.store, shards) if self.state.is_finished else None
        if stored is not None:
            return stored
        summary = summarize(self.record, shards, self.work.source)
        _check_totals(summary, rows)
        write_card(self.work.store, self.record, summary)
        self.work.store.put(SUCCESS, as_json(summary))
        return summary

    def _score(
        self, executor: Executor, watch: Watch, pending: Sequence[Unit], done: Mapping[str, PublishedShard]
    ) -> dict[str, PublishedShard]:
        """Score the pending units; publish every shard as soon as its last unit is committed."""
        plans = {unit.id: planned for planned in self.plans for unit in planned.units}
        left: dict[str, int] = {}
        for unit in pending:
            left[unit.shard.name] = left.get(unit.shard.name, 0) + 1
        publishing = _Publishing(executor, self.work)
        for planned in self.plans:
            if planned.shard.name not in done and planned.shard.name not in left:
                publishing.add(planned)
        with closing(executor.score(self.work, pending)) as markers:
            for marker in markers:
                watch.add(marker.tally)
                planned = plans[marker.unit]
                left[planned.shard.name] -= 1
                if left[planned.shard.name] == 0:
                    publishing.add(planned)
        damaged = publishing.finish()
        found = publishing.published | (self._mend(executor, damaged) if damaged else {})
        missing = [name for name, count in left.items() if count]
        if missing:
            raise RunError(
                f"{sum(left.values())} units were never committed, the first in shard {missing[0]}; run the same "
                "command again"
            )
        return found

    def _mend(self, executor: Executor, damaged: Sequence[_Damaged]) -> dict[str, PublishedShard]:
        """Score damaged units again and publish their shards. They were counted as committed, so no watch is told.

        Raises:
            DamagedUnitsError: a shard has damaged units again: the storage cannot be relied on.
        """
        plans = {one.planned.shard.name: one.planned for one in damaged}
        units = [unit for one in damaged for unit in one.planned.units if unit.id in one.error.units]
        for one in damaged:
            log.warning(
                "%s: %s; units that are scored again: %d",
                *(one.planned.shard.name, one.error.problem, len(one.error.units)),
            )
        publishing = _Publishing(executor, self.work)
        with closing(executor.score(self.work, units)) as markers:
            for _ in markers:
                pass
        for planned in plans.values():
            publishing.add(planned)
        for one in publishing.finish():
            raise one.error
        return publishing.published

    def _pending(self, published: Mapping[str, PublishedShard]) -> list[Unit]:
        """Find the units to score. A published shard needs none, whether or not its markers have been removed."""
        plans = [planned for planned in self.plans if planned.shard.name not in published]
        return [unit for planned in plans for unit in planned.units if not self.state.is_committed(unit)]

    def _published(self) -> dict[str, PublishedShard]:
        """Find the shards that are complete: published from their current content, and still as their markers say.

        A warning names each other one that was published; it is published again.
        """
        plans = [p for p in self.plans if self.state.is_published(p) and p.shard.name not in self.changed]
        batches = [plans[i : i + _READ_TOGETHER] for i in range(0, len(plans), _READ_TOGETHER)]

        def read(batch: Sequence[ShardPlan]) -> list[PublishedShard]:
            found = (find_published(self.work.store, planned) for planned in batch)
            return [shard for shard in found if shard is not None]

        with ThreadPoolExecutor(_READERS) as pool:
            shards = [shard for found in pool.map(read, batches) for shard in found]
        with ThreadPoolExecutor(_DIGESTS) as pool:
            faults = list(pool.map(self._fault, shards))
        for shard, fault in zip(shards, faults, strict=True):
            if fault is not None:
                log.warning("%s/%s %s; it is published again", self.work.store.root, shard.name, fault)
        return {shard.name: shard for shard, fault in zip(shards, faults, strict=True) if fault is None}

    def _fault(self, shard: PublishedShard) -> str | None:
        """Say what is wrong with a published file; None if nothing is, as far as it is checked."""
        size = self.state.sizes.get(shard.name)
        if size is None:
            return "is missing"
        if size != shard.size:
            return f"has {size:,} bytes, but its marker says {shard.size:,}"
        if self.verify and not is_intact(self.work.store, shard):
            return "is damaged: its SHA-256 differs from its marker's"
        return None


def prepare(job: Job, *, write: bool = True) -> PreparedRun:
    """Check input and output, and refuse a run that cannot succeed before any weights are loaded.

    Write only ``_run.json`` and ``_config.yaml``, and only in a new output; without ``write``, not even these.

    Raises:
        ConfigError: the input or an option is wrong.
        ModelError: the model cannot be found or read.
        OtherRunError: the output belongs to another run, or contains files that are not a run's.
        RunError: the output's ``_SUCCESS`` cannot be read.
        StoreError: the output cannot be listed, read or written to.
    """
    shards = job.source.shards()
    state = OutputState(job.store.sizes())
    stored = read_record(job.store)
    if stored is None:
        _refuse_foreign_files(job.store, state, shards)
    fingerprint = job.engine.fingerprint()
    _check_defined(job.method, fingerprint)
    if job.layout == "merged":
        for shard in shards:
            check_mergeable(job.source.schema(shard), shard, fingerprint)
    rows_per_unit = job.rows_per_unit or (stored.rows_per_unit if stored else DEFAULT_ROWS_PER_UNIT)
    plans = plan(shards, rows_per_unit)
    changed = _changed_shards(job.store, state, plans)
    if changed and job.on_changed == "error":
        raise OtherRunError(
            f"{len(changed)} input shards changed since they were scored into {job.store.root}, the first is "
            f"{changed[0]!r}; old and new rows must not be mixed: rescore the whole shards with --on-changed rescore, "
            "choose another --output, or give --force-new-run to start in a new folder beside it"
        )
    finished = read_summary(job.store) if state.is_finished else None
    vanished = _vanished_shards(job.store, finished, state, plans)
    if vanished and job.on_changed == "error":
        raise OtherRunError(
            f"{len(vanished)} input shards vanished since they were scored into {job.store.root}, the first is "
            f"{vanished[0]!r}; put them back, leave them out of the summary with --on-changed rescore, or choose "
            "another --output"
        )
    if vanished:
        log.warning("%d input shards vanished and are left out, the first is %r", len(vanished), vanished[0])
    if changed:
        log.warning("%d input shards changed and will be rescored, the first is %r", len(changed), changed[0])
    asked = RunRecord(
        started_at=now(),
        input=job.input,
        fingerprint=fingerprint,
        source=job.source.fingerprint(),
        method=job.method.to_dict(),
        layout=job.layout,
        rows_per_unit=rows_per_unit,
        choices=choices.to_dict() if (choices := job.source.choices()) is not None else {},
    )
    if stored is None:  # once claimed, the output would refuse the corrected options
        job.engine.check()
    record = claim(job.store, asked) if write else compare(job.store, asked) or asked
    if write and job.config is not None and not state.is_finished and CONFIG not in state.sizes:
        job.store.create(CONFIG, job.config(job.store.root))
    if write and stored is not None and not state.is_finished:
        confirm_writable(job.store, record)
    work = UnitWork(
        source=job.source,
        store=job.store,
        engine=job.engine.pinned(fingerprint),
        method=job.method,
        layout=job.layout,
        metadata=record.metadata(),
        session=uuid.uuid4().hex,
        row_timeout=job.row_timeout,
    )
    done = None if changed or job.verify or finished is None else current_summary(finished, plans, state)
    return PreparedRun(record, work, plans, state, frozenset(changed), done, finished, job.verify)


def _check_defined(method: Method, fingerprint: Mapping[str, Any]) -> None:
    """Refuse a method whose weights would all be NaN, or are known after the run only. Raises ConfigError."""
    absent = [name for name in method.record.columns if name in columns.undefined(fingerprint)]
    if absent:
        able = [name for name, one in METHODS.items() if not columns.undefined(fingerprint) & set(one.columns)]
        raise ConfigError(
            f"the method {method.name!r} reads {', '.join(absent)}, but {fingerprint['model']} is a language model, "
            f"which takes no images: choose --method {' or '.join(able)}, or a vision-language model"
        )
    if method.needs_gaps:
        raise ConfigError(
            f"{method.missing_gaps}, which are known when the run is finished: score with another --method, and name "
            f"{method.name} when you read the weights (read_weights, tokensight export), or give --method-param "
            f"{method.record.of_dataset[0]}=…"
        )


def _refuse_foreign_files(store: Store, state: OutputState, shards: Sequence[Shard]) -> None:
    if state.is_begun:
        raise OtherRunError(
            f"output {store.root} holds committed rows but no {RECORD}, which says how they were scored; restore it "
            "from a copy, choose another --output, or give --force-new-run to start in a new folder beside it"
        )
    taken = [shard.name for shard in shards if shard.name in state.sizes]
    if taken:
        raise OtherRunError(
            f"output {store.root} already holds {posixpath.basename(taken[0])!r}"
            f"{f' and {len(taken) - 1} more' if len(taken) > 1 else ''} but no run of this program; nothing is "
            "overwritten: choose another --output, or give --force-new-run to start in a new folder beside it"
        )


def _changed_shards(store: Store, state: OutputState, plans: Sequence[ShardPlan]) -> list[str]:
    """Find the shards whose content in the output, published or not, differs from the input's current content.

    A shard that was rescored before has markers of several contents: the digest of the published file then shows which
    of them it came from.
    """
    return [
        planned.shard.name
        for planned in plans
        if state.is_changed(planned) and not (state.is_published(planned) and _is_current(store, planned))
    ]


def _vanished_shards(
    store: Store, summary: Summary | None, state: OutputState, plans: Sequence[ShardPlan]
) -> list[str]:
    """Find the shards that were scored here and that the input no longer has.

    In a finished run they are those that its summary lists: one that was left out on purpose is not asked about again.
    """
    planned = {one.shard.name for one in plans}
    if summary is not None:
        return sorted(entry["name"] for entry in summary["shards"] if entry["name"] not in planned)
    return [_UNNAMED if key is None else _published_name(store, key) for key in state.absent(plans)]


def _published_name(store: Store, key: str) -> str:
    try:
        return PublishedShard.from_bytes(store.get(key)).name
    except ValueError:
        return f"the one of the damaged {key}"


def _is_current(store: Store, planned: ShardPlan) -> bool:
    """Whether the published file was made from the shard's current content."""
    expected = find_published(store, planned)
    return expected is not None and is_intact(store, expected)


@dataclass(frozen=True, slots=True)
class _Damaged:
    """A shard that could not be published because some of its units are damaged."""

    planned: ShardPlan
    error: DamagedUnitsError


class _Publishing:
    """Shards that an executor publishes, at most :data:`MAX_PUBLISHING` of them at a time."""

    def __init__(self, executor: Executor, work: UnitWork) -> None:
        self.published: dict[str, PublishedShard] = {}
        self._executor, self._work = executor, work
        self._futures: dict[Future[PublishedShard], ShardPlan] = {}
        self._damaged: list[_Damaged] = []

    def add(self, planned: ShardPlan) -> None:
        """Begin to publish a shard. Raises what publishing an earlier one raised."""
        try:
            self._futures[self._executor.publish(self._work, planned)] = planned
        except DamagedUnitsError as error:  # this process publishes, at once
            self._damaged.append(_Damaged(planned, error))
        self._collect(MAX_PUBLISHING)

    def finish(self) -> list[_Damaged]:
        """Wait for all of them; return those with damaged units. Raises what publishing one raised."""
        self._collect(0)
        return self._damaged

    def _collect(self, at_most: int) -> None:
        while True:
            for future in [future for future in self._futures if future.done()]:
                planned = self._futures.pop(future)
                try:
                    shard = future.result()
                except DamagedUnitsError as error:
                    self._damaged.append(_Damaged(planned, error))
                else:
                    self.published[shard.name] = shard
            if len(self._futures) <= at_most:
                return
            wait(self._futures, return_when=FIRST_COMPLETED)


def _check_totals(summary: Summary, rows: int) -> None:
    if not summary["rows"] == summary["ok"] + summary["text_only"] + summary["failed"] == rows:
        counted = f"{summary['ok']} ok, {summary['text_only']} text-only and {summary['failed']} failed"
        raise RunError(f"{rows} rows went in but {counted} came out; the run is not finished. This is a bug: report it")
