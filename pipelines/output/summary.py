"""Read and write ``_SUCCESS``: the summary of a finished run, over all processes that took part in it.

Keys: ``started_at``, ``finished_at`` (ISO 8601, UTC), ``seconds_scoring`` (working time without pauses), ``rows``,
``ok``, ``text_only`` (rows without an image; an older summary lacks the key), ``failed``, ``failures`` (code →
``count`` and at most ten ``examples`` of ``shard``, ``row_index``, ``sample_id``, ``message``), ``tokens`` (of rows
ok), ``rows_per_second``, ``tokens_per_second``, ``paths`` (rows ok, by how they were scored:
:class:`pipelines.output.tally.Tally`), ``padding_waste`` (the share of padding in the tokens that the model ran),
``model``, ``method``, ``contrast``, ``dtype``, ``layout``, ``shards`` (``name``, ``rows``, ``ok``, ``text_only``,
``failed``, ``bytes``, ``sha256``), ``files`` (:class:`pipelines.sources.account.FilesAccount`: the input's files
``seen``, ``read``, and ``passed_over`` with the reason), ``choices``
(:meth:`pipelines.sources.columns.Choices.to_dict`: the ``columns`` that were read by role, why each was ``taken``,
which known names were ``passed_over``, and the ``own`` choices of shards that differ; absent from an older summary),
``cut`` (rows whose batches did not fit in memory, by the smaller budget in tokens; absent from an older
summary), ``gaps`` (contrast → histograms of the log-probability gaps of all ``tokens``, and of the ``rows``' means:
:class:`scorer.weighting.dataset_gaps.DatasetGaps`; absent if an earlier release published some of the files),
``weights`` (the ``sum`` of the weights of all ``tokens``, and their number:
:class:`scorer.weighting.weight_total.WeightTotal`; absent likewise).
``rows`` = ``ok`` + ``text_only`` + ``failed``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NotRequired, TypedDict, cast

from pipelines.output import gaps
from pipelines.output.commit import OutputState, PublishedShard
from pipelines.output.documents import as_json, now
from pipelines.output.plan import ShardPlan
from pipelines.output.record import KEY as RECORD
from pipelines.output.record import RunRecord, read_record
from pipelines.output.store import Store
from pipelines.output.tally import total
from pipelines.sources import Source
from pipelines.sources.account import FilesAccount
from scorer import contrasts
from scorer.errors import RunError
from scorer.summary import SUCCESS, parse_summary
from scorer.weighting.weight_total import WeightTotal

REMEDY: Final = "delete it and run the same command again"
"""How to repair an unreadable summary: everything in it is in the shards' markers too."""


class ShardEntry(TypedDict):
    """The summary of one published file."""

    name: str
    rows: int
    ok: int
    text_only: int
    failed: int
    bytes: int
    sha256: str


class Summary(TypedDict):
    """The content of ``_SUCCESS``; see the module docstring."""

    started_at: str
    finished_at: str
    seconds_scoring: float
    rows: int
    ok: int
    text_only: int
    failed: int
    failures: dict[str, dict[str, Any]]
    tokens: int
    rows_per_second: float | None
    tokens_per_second: float | None
    paths: NotRequired[dict[str, int]]
    padding_waste: NotRequired[float]
    model: Any
    method: dict[str, Any]
    contrast: Any
    further_contrasts: NotRequired[list[str]]
    dtype: Any
    layout: str
    shards: list[ShardEntry]
    files: NotRequired[FilesAccount]
    choices: NotRequired[dict[str, Any]]
    cut: NotRequired[dict[str, int]]
    gaps: NotRequired[dict[str, Any]]
    weights: NotRequired[dict[str, Any]]


def summarize(record: RunRecord, shards: Sequence[PublishedShard], source: Source) -> Summary:
    """Summarize a run whose shards are all published; ``source`` accounts for its input."""
    choices = source.choices()
    tally = total(shard.tally for shard in shards)
    seconds = tally.seconds
    summary: Summary = {
        "started_at": record.started_at,
        "finished_at": now(),
        "seconds_scoring": seconds,
        "rows": tally.rows,
        "ok": tally.ok,
        "text_only": tally.text_only,
        "failed": tally.failed,
        "failures": tally.to_dict()["failures"],
        "tokens": tally.tokens,
        "rows_per_second": tally.rows / seconds if seconds else None,
        "tokens_per_second": tally.tokens / seconds if seconds else None,
        "paths": dict(tally.paths),
        "padding_waste": tally.usage.waste,
        "cut": dict(tally.cut),
        "model": record.fingerprint.get("model"),
        "method": dict(record.method),
        "contrast": record.fingerprint.get("contrast"),
        "further_contrasts": list(contrasts.of_run(record.fingerprint)[1:]),
        "dtype": record.fingerprint.get("dtype"),
        "layout": record.layout,
        "shards": [_shard(shard) for shard in shards],
        "files": source.account(),
    }
    counted = [shard.gaps for shard in shards if shard.gaps is not None]
    if len(counted) == len(shards):
        summary["gaps"] = gaps.to_dict(gaps.sum_gaps(counted))
    weights = [shard.weights for shard in shards if shard.weights is not None]
    if len(weights) == len(shards):
        summary["weights"] = WeightTotal.merged(weights).to_dict()
    if choices is not None:
        summary["choices"] = choices.to_dict()
    return parse(as_json(summary))  # exactly what a later reader gets


def parse(data: bytes) -> Summary:
    """Parse ``_SUCCESS``. Raise ValueError if it is incomplete or damaged, or its counts do not add up."""
    summary = parse_summary(data)
    for entry in (summary, *summary["shards"]):
        entry.setdefault("text_only", 0)  # an older summary does not count such rows, which failed then
    for entry in summary["shards"]:
        absent = ShardEntry.__required_keys__ - entry.keys()
        if absent:
            raise ValueError(f"its shard {entry['name']!r} has no {', '.join(sorted(absent))}")
    if "gaps" in summary:
        gaps.from_dict(summary["gaps"])
    if "weights" in summary:
        WeightTotal.from_dict(summary["weights"])
    absent = {"rows", "ok", "failed", "tokens"} - summary.keys()
    if absent:
        raise ValueError(f"it has no {', '.join(sorted(absent))}")
    if summary["rows"] != summary["ok"] + summary["text_only"] + summary["failed"]:
        raise ValueError(
            f"its {summary['rows']} rows are not the sum of {summary['ok']} ok, {summary['text_only']} text-only and "
            f"{summary['failed']} failed"
        )
    return cast(Summary, summary)


def read_summary(store: Store) -> Summary | None:
    """Read the stored summary; None for an unfinished run. Raise RunError if it cannot be read."""
    try:
        return parse(store.get(SUCCESS))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunError(f"{store.root}/{SUCCESS} is not a summary ({error}); {REMEDY}") from error


def read_finished(store: Store) -> tuple[RunRecord, Summary]:
    """Read the record and the summary of a finished run.

    Raises:
        RunError: the run is not finished, or one of the two cannot be read.
    """
    record, summary = read_record(store), read_summary(store)
    if record is None or summary is None:
        absent = SUCCESS if summary is None else RECORD
        raise RunError(
            f"{store.root}/{absent} does not exist, but a finished run is needed; run the scoring command to finish it"
        )
    return record, summary


def current_summary(summary: Summary, plans: Sequence[ShardPlan], state: OutputState) -> Summary | None:
    """Return a stored summary if it lists exactly the shards of the plan, all published with their current content.

    Nothing is read, however many shards there are.
    """
    entries = summary["shards"]
    if len(entries) != len(plans):
        return None
    for planned, entry in zip(plans, entries, strict=True):
        same = (entry["name"], entry["rows"]) == (planned.shard.name, planned.shard.rows)
        if not (same and state.is_published(planned) and state.sizes.get(entry["name"]) == entry["bytes"]):
            return None
    return summary


def summary_of(store: Store, shards: Sequence[PublishedShard]) -> Summary | None:
    """Return the stored summary if it lists exactly these shards. Raise RunError if it cannot be read."""
    summary = read_summary(store)
    return summary if summary is not None and summary["shards"] == [_shard(shard) for shard in shards] else None


def _shard(shard: PublishedShard) -> ShardEntry:
    return {
        "name": shard.name,
        "rows": shard.tally.rows,
        "ok": shard.tally.ok,
        "text_only": shard.tally.text_only,
        "failed": shard.tally.failed,
        "bytes": shard.size,
        "sha256": shard.sha256,
    }
