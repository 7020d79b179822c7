"""``--dry-run``: show what a run would do and cost, without writing anything."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from pipelines.cli.console import table
from pipelines.formatting import contrasts_of, count_of, duration, file_size
from pipelines.output.plan import Unit
from pipelines.run.estimate import Calibration, SampledRow, calibrate, sample_rows
from pipelines.run.job import Job, PreparedRun
from scorer.display.printable import printable
from scorer.results import Failure
from scorer.types import EncodedSample

SHOWN: Final = 3
GPU_FLOPS: Final = 100e12
"""FLOP/s assumed for GPU-hours where no GPU was measured: about a third of an A100's bfloat16 peak."""
NO_GPU: Final = ("cpu", "mps", "no device")
_REPEATS: Final = 4
"""A token repeated at least this often, as image placeholders are, is shown once with a count."""
_OPEN, _CLOSE = "⟦", "⟧"

Spell = Callable[[Sequence[int]], str]


def print_plan(job: Job, run: PreparedRun) -> None:
    """Print the plan of a prepared run, sample rows and estimates.

    Raises:
        ConfigError, ModelError, RunError, OSError: Reading, encoding or loading the model failed.
    """
    pending = run.pending
    print(f"dry run: nothing is written to {job.store.root}\n")
    print(table(plan_rows(job, run, pending)), flush=True)
    if not pending:
        print("\nevery row has already been scored")
        return
    engine = run.work.engine
    sampled, seconds = sample_rows(job.source, pending, engine)
    for line in show_rows(sampled, engine.spell()):
        print(line, flush=True)
    measured = calibrate(sampled, seconds, engine.scorer(), engine.max_batch_tokens)
    rows = sum(unit.rows for unit in pending)
    print(f"\nwhat {rows:,} rows would cost, estimated from {measured.rows:,} of them, encoded and scored here")
    print(table(estimates(measured, rows, engine.device())), flush=True)


def plan_rows(job: Job, run: PreparedRun, pending: Sequence[Unit]) -> list[tuple[str, str]]:
    """Return names and values of what is known without reading a row."""
    shards = [planned.shard for planned in run.plans]
    source, record = job.source.fingerprint(), run.record
    columns = {role: name for role, name in source["columns"].items() if name is not None}
    left = sum(unit.rows for unit in pending)
    rows = sum(shard.rows for shard in shards)
    size = file_size(sum(shard.size for shard in shards))
    return [
        (
            "input",
            f"{job.input}: {count_of(len(shards), 'shard')}, {rows:,} rows, {size}, {source.get('format', 'parquet')}",
        ),
        ("columns", ", ".join(f"{role}: {_named(name)}" for role, name in columns.items())),
        ("output", f"{job.store.root} ({job.layout}), {_state(rows, left)}"),
        *([("changed", f"{len(run.changed):,} shards will be scored again")] if run.changed else []),
        ("units", f"{len(pending):,} of up to {record.rows_per_unit:,} rows"),
        ("model", str(record.fingerprint.get("model"))),
        (
            "scores",
            f"{contrasts_of(record.fingerprint)}; {record.fingerprint.get('dtype')}, method {job.method.name}",
        ),
    ]


def show_rows(rows: Sequence[SampledRow], spell: Spell) -> Iterator[str]:
    """Yield some rows as the model sees them, scored tokens in brackets, then the reasons why other rows fail."""
    good = [row for row in rows if row.parts]
    step = max(1, len(good) // SHOWN)
    shown = good[::step][:SHOWN]
    yield f"\nrows as they would be scored, with the image and without: {_OPEN}scored tokens{_CLOSE} are in brackets"
    for row in shown:
        for part in row.parts:
            place = f"{row.shard} row {row.row_index} ({part.sample_id})"
            kept = "tokens kept, text-only: no image, weights of 1" if part.text_only else "tokens scored"
            yield f"\n  {printable(place)}: {len(part.token_ids)} of {len(part.clean.input_ids)} {kept}"
            yield f"    {printable(marked(part, spell))}"
    failed = [(row, row.encoded) for row in rows if isinstance(row.encoded, Failure)]
    if failed:
        yield f"\n{len(failed)} of {len(rows)} sampled rows would fail:"
        for row, failure in failed[:SHOWN]:
            yield f"  {printable(f'{row.shard} row {row.row_index}: {failure.code}, {failure.message}')}"


def marked(row: EncodedSample, spell: Spell) -> str:
    """Return the clean branch as text, scored stretches in brackets, repeated (image) tokens once with a count."""
    ids = row.clean.input_ids
    scored = np.zeros(len(ids), dtype=np.bool_)
    scored[row.clean.label_index] = True
    text = ""
    for is_scored, group in itertools.groupby(range(len(ids)), key=lambda i: bool(scored[i])):
        stretch = _spelled([int(ids[i]) for i in group], spell)
        text += f"{_OPEN}{stretch}{_CLOSE}" if is_scored else stretch
    return text


def estimates(measured: Calibration, rows: int, device: str) -> list[tuple[str, str]]:
    """Return names and values of what scoring ``rows`` rows would cost."""
    encode, score, flops = measured.encode_seconds, measured.score_seconds, measured.flops

    def about(count: int) -> str:
        return f"about {count / measured.rows * rows:,.0f} ({count} of {measured.rows})"

    found = [
        *([("text-only", about(measured.text_only))] if measured.text_only else []),
        ("rows failed", about(measured.failed)),
        ("tokens scored", f"{measured.tokens * rows:,.0f} ({measured.tokens:,.1f} a row)"),
        ("tokens read", f"{measured.input_tokens * rows:,.0f} (both branches, shared prefixes counted every time)"),
        ("encoding", f"{_hours(encode * rows)} of one CPU core ({1000 * encode:.3g} ms a row)"),
    ]
    if score is None:
        return [*found, ("scoring", "none of the sampled rows can be scored")]
    speed = f"{device}: {1 / score:,.3g} rows/s"
    found.append(("scoring", f"{_hours(score * rows)} of one device like this machine's ({speed})"))
    found.append(("balance", f"{encode / score:.2g} CPU cores encode as fast as one such device scores"))
    if flops is not None:
        found.append(("FLOPs", f"{flops * rows:.3g} ({flops:.3g} a row)"))
    if device not in NO_GPU:
        found.append(("GPU-hours", f"{score * rows / 3600:.3g} (measured)"))
    elif flops is not None:
        assumed = f"{GPU_FLOPS / 1e12:g} TFLOP/s (assumed; a dry run on a GPU measures it)"
        found.append(("GPU-hours", f"{flops * rows / GPU_FLOPS / 3600:.3g} at {assumed}"))
    return found


def _spelled(ids: Sequence[int], spell: Spell) -> str:
    """Decode in stretches: decoding token by token would lose characters that span several tokens."""
    parts: list[str] = []
    waiting: list[int] = []
    for token, group in itertools.groupby(ids):
        count = len(list(group))
        if count < _REPEATS:
            waiting += [token] * count
            continue
        parts += [spell(waiting) if waiting else "", f"{spell([token])}×{count} "]
        waiting = []
    return "".join([*parts, spell(waiting) if waiting else ""])


def _state(rows: int, left: int) -> str:
    if left == rows:
        return "no rows scored yet"
    return f"{rows - left:,} rows scored, {left:,} left"


def _named(name: object) -> str:
    return ", ".join(map(str, name)) if isinstance(name, (list, tuple)) else str(name)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.3g} hours" if seconds >= 3600 else duration(seconds)
