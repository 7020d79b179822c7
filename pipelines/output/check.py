"""Check published files against the run's records. Every difference is a problem."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.output.commit import PublishedShard
from pipelines.output.contents import UNKNOWN, Output, Problem, read_unit_markers
from pipelines.output.reader import BATCH_ROWS, UNREADABLE, ScoredBatch, digest, opened, scored_batch
from pipelines.output.record import RunRecord
from pipelines.output.row_check import RowCheck
from pipelines.output.store import Store
from scorer import columns
from scorer.columns import Column
from scorer.errors import explain
from scorer.table import FORMAT_VERSION, METADATA_KEY

Consumer = Callable[[ScoredBatch], None]

_SHOWN: Final = 8


def check(output: Output, consume: Consumer, *, quick: bool = False) -> Iterator[Problem]:
    """Check every published file, and the committed units that are not published yet.

    Args:
        consume: called with the valid scored rows, shard by shard in order; not called if ``quick``.
        quick: check sizes, footers, schema and metadata only, without reading contents or computing digests.
    """
    yield from output.problems
    for shard in output.shards.values():
        yield from check_shard(output.store, shard, output.record, consume, quick=quick)
    yield from _check_units(output, quick)


def check_shard(
    store: Store, shard: PublishedShard, record: RunRecord | None, consume: Consumer, *, quick: bool
) -> Iterator[Problem]:
    """Check one published file."""

    mend = "run the same command again with --verify to publish it again"

    def problem(what: str, remedy: str = "delete the file and run the same command again") -> Problem:
        return Problem(shard.name, f"{what}; {remedy}")

    try:
        with opened(store, shard.name, whole=not quick) as file:
            size = file.seek(0, io.SEEK_END)
            if size != shard.size:
                yield problem(f"it has {size:,} bytes, but its marker says {shard.size:,}", mend)
            file.seek(0)
            if not quick and digest(file) != shard.sha256:
                yield problem("its SHA-256 differs from its marker's", mend)
            with pq.ParquetFile(file) as parquet:
                for what in _check_file(parquet, shard, record, consume, quick):
                    yield problem(what)
    except FileNotFoundError:
        yield problem("it was published but is missing", "run the same command again to rewrite it")
    except (*UNREADABLE, OSError) as error:
        yield problem(f"it is not a readable Parquet file ({explain(error)})", mend)


def _check_file(
    parquet: pq.ParquetFile, shard: PublishedShard, record: RunRecord | None, consume: Consumer, quick: bool
) -> Iterator[str]:
    rows = parquet.metadata.num_rows
    if rows != shard.tally.rows:
        yield f"it has {rows:,} rows, but its marker says {shard.tally.rows:,}"
    schema = parquet.schema_arrow
    yield from _check_metadata(schema, record)
    fingerprint = {} if record is None else record.fingerprint
    ours = columns.of_run(fingerprint)
    wrong = list(_check_schema(schema, record, ours))
    yield from wrong
    if wrong or quick:
        return
    found = RowCheck(ours, columns.undefined(fingerprint))
    names = [column.name for column in ours]
    for batch in parquet.iter_batches(batch_size=BATCH_ROWS, columns=names, use_threads=False):
        consume(scored_batch(shard.name, found.add(batch)))
    faults = [str(fault) for fault in found.faults.values()]
    yield from faults[:_SHOWN]
    if len(faults) > _SHOWN:
        yield f"and {len(faults) - _SHOWN} more kinds of faults"
    for what, actual, said in (
        ("rows ok", found.ok, shard.tally.ok),
        ("rows text-only", found.text_only, shard.tally.text_only),
        ("tokens", found.tokens, shard.tally.tokens),
    ):
        if said not in (actual, UNKNOWN):
            yield f"it has {actual:,} {what}, but its marker says {said:,}"


def _check_schema(schema: pa.Schema, record: RunRecord | None, ours: Sequence[Column]) -> Iterator[str]:
    """Check the schema against ``ours``, the columns that the run writes; other optional columns may be absent."""
    names = [column.name for column in ours]
    missing = [name for name in names if schema.names.count(name) != 1]
    if missing:
        yield f"it lacks columns {', '.join(missing)}"
        return
    for field in (column.field for column in ours):
        actual = schema.field(field.name).type
        if actual != field.type:
            yield f"its column {field.name} is {actual}, not {field.type}"
    if record is not None and record.layout == "sidecar" and schema.names != names:
        yield f"its columns are {', '.join(schema.names)}; a sidecar file has {', '.join(names)}, in this order"


def _check_metadata(schema: pa.Schema, record: RunRecord | None) -> Iterator[str]:
    """Check that the file and ``_run.json`` agree on how the scores were computed."""
    try:
        metadata = json.loads((schema.metadata or {})[METADATA_KEY])
    except (KeyError, ValueError):
        yield "its schema has no scoring-run metadata"
        return
    if metadata.get("format_version") != FORMAT_VERSION:
        yield f"its format version is {metadata.get('format_version')}, but this release reads {FORMAT_VERSION}"
    if record is None:
        return
    expected: Mapping[str, Any] = {**record.metadata(), "method": dict(record.method)}
    for name, value in expected.items():
        if metadata.get(name) != value:
            yield f"its {name} differs from that of _run.json{_difference(metadata.get(name), value)}"


def _difference(actual: Any, expected: Any) -> str:
    if not (isinstance(actual, Mapping) and isinstance(expected, Mapping)):
        return f": {actual!r}, not {expected!r}"
    keys = sorted(key for key in {*actual, *expected} if actual.get(key) != expected.get(key))
    return f": {keys[0]} is {actual.get(keys[0])!r}, not {expected.get(keys[0])!r}"


def _check_units(output: Output, quick: bool) -> Iterator[Problem]:
    """Check units that are committed and not yet published: a resumed run reads them."""
    for unit, marker in read_unit_markers(output.store, output.open_units).items():
        remedy = "run the same command again to score its rows again"
        key = f"_commits/{unit}.json"
        if marker is None:
            yield Problem(key, f"it is not a unit's marker; {remedy}")
        elif marker.key not in output.sizes:
            yield Problem(key, f"the file that it names, {marker.key}, is missing; {remedy}")
        elif not quick and hashlib.sha256(output.store.get(marker.key)).hexdigest() != marker.sha256:
            yield Problem(key, f"the file that it names, {marker.key}, has a different SHA-256; {remedy}")
