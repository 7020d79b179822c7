"""The commit protocol: it keeps a run exact no matter what is killed when, and safe beside another run.

    _units/<unit>.<digest>.parquet    built in memory, then written in one go; the name is derived from the content,
                                      so writing it again writes the same bytes
    _commits/<unit>.json              created if absent: the first attempt wins, the others' files are never read
    <the input shard's name>          all units of a shard, in row order; the same bytes whichever process publishes
    _published/<shard>.json           created if absent, after the shard's file
    _SUCCESS                          last

A process that dies between two of these steps leaves files that are never read, and the next run resumes from the
markers. Nothing here deletes anything.

On a store that checks for an existing object before the write rather than during it, two creators can both win a
unit's marker, and the later marker stays. Equal scores make equal files, so both markers then name the same file. If
the scores differ by rounding, the publisher reads the markers again afterwards, and publishes again if they changed.

A disk or a hand may still damage what was written. A damaged marker counts as absent, and so does one whose unit file
is damaged or missing: the unit is scored again, and the marker, which a create leaves alone, is replaced on purpose.
Two processes that replace it at once are two winners, as above.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.output import gaps
from pipelines.output.encodings import writer_options
from pipelines.output.gaps import Gaps
from pipelines.output.plan import ShardPlan, Unit
from pipelines.output.store import Store
from pipelines.output.tally import Tally, total
from pipelines.output.weight_total import add_weights
from scorer.documents import parse_object
from scorer.errors import RunError
from scorer.summary import SUCCESS
from scorer.weighting.weight_total import ExactTotal, WeightTotal

log = logging.getLogger(__name__)

UNITS: Final = "_units/"
COMMITS: Final = "_commits/"
PUBLISHED: Final = "_published/"

_STEM: Final = re.compile(r"[0-9a-f]+-[0-9a-f]+(-\d+-\d+)?")
"""``<name>-<content>`` of a published shard's marker; a unit's goes on with ``-<start>-<stop>``."""

_RESCORE: Final = "run the same command again to score its rows again"


class DamagedError(RunError):
    """Something that was committed is damaged.

    Attributes:
        problem: what is damaged, and how. The message ends in a remedy, which a run that mends the damage leaves out.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem}; {_RESCORE}")
        self.problem = problem

    def __reduce__(self) -> tuple[type[DamagedError], tuple[str]]:
        return (type(self), (self.problem,))  # the default would pass the message, and add the remedy once more


class DamagedUnitsError(DamagedError):
    """Units of a shard are damaged, so it cannot be published before they are scored again.

    Attributes:
        units: their ids, in row order.
    """

    def __init__(self, problem: str, units: Sequence[str]) -> None:
        super().__init__(problem)
        self.units = tuple(units)

    def __reduce__(self) -> tuple[type[DamagedUnitsError], tuple[str, tuple[str, ...]]]:  # type: ignore[override]
        return (type(self), (self.problem, self.units))


@dataclass(frozen=True, slots=True)
class UnitMarker:
    """The winning attempt of a unit: which object holds its rows, and their tally."""

    unit: str
    key: str
    sha256: str
    tally: Tally

    def to_bytes(self) -> bytes:
        document = {"unit": self.unit, "key": self.key, "sha256": self.sha256, **self.tally.to_dict()}
        return json.dumps(document, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> UnitMarker:
        """Parse a marker. Raise ValueError if it is damaged."""
        document = parse_object(data)
        unit, key, sha256 = _texts(document, "unit", "key", "sha256")
        if key != f"{UNITS}{unit}.{sha256}.parquet":
            raise ValueError(f"its key is {key!r:.80}, not the file of its unit and digest")
        return cls(unit, key, sha256, Tally.from_dict(document))


@dataclass(frozen=True, slots=True)
class PublishedShard:
    """A published file: its shard's name, its size and digest, and the tally of its rows.

    Attributes:
        gaps: its rows' log-probability gaps; None if a release that did not count them published it.
        weights: the total of its rows' weights; None likewise.
    """

    name: str
    size: int
    sha256: str
    tally: Tally
    gaps: Gaps | None = None
    weights: WeightTotal | None = None

    def to_bytes(self) -> bytes:
        document = {"name": self.name, "bytes": self.size, "sha256": self.sha256, **self.tally.to_dict()}
        if self.gaps is not None:
            document["gaps"] = gaps.to_dict(self.gaps)
        if self.weights is not None:
            document["weights"] = self.weights.to_dict()
        return json.dumps(document, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> PublishedShard:
        """Parse a marker. Raise ValueError if it is damaged."""
        document = parse_object(data)
        (name, sha256), size = _texts(document, "name", "sha256"), document.get("bytes")
        if type(size) is not int:
            raise ValueError(f"its size in bytes is {size!r:.40}, not a whole number")
        counted = gaps.from_dict(document["gaps"]) if "gaps" in document else None
        weights = WeightTotal.from_dict(document["weights"]) if "weights" in document else None
        return cls(name, size, sha256, Tally.from_dict(document), counted, weights)


def commit_unit(store: Store, unit: Unit, table: pa.Table, tally: Tally) -> UnitMarker:
    """Write a scored unit and claim it. Return the winning marker, which is another attempt's if that came first.

    A marker that is damaged, or whose file is, has not won: it is replaced.

    Raises:
        RunError: the table, the tally and the unit differ in their number of rows.
    """
    if not table.num_rows == tally.rows == unit.rows:
        counts = f"{unit.rows} rows in, {tally.rows} counted, {table.num_rows} written"
        raise RunError(f"unit {unit.id} of shard {unit.shard.name}: {counts}; refusing to commit it")
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **writer_options(table.schema))
    data = buffer.getvalue()
    sha256 = hashlib.sha256(data).hexdigest()
    key = f"{UNITS}{unit.id}.{sha256}.parquet"
    marker = UnitMarker(unit.id, key, sha256, tally)
    store.put(key, data)
    if store.create(_marker_key(unit), marker.to_bytes()):
        return marker
    winner = find_marker(store, unit)
    if winner is not None:
        return winner
    store.put(_marker_key(unit), marker.to_bytes())
    log.warning(
        "%s/%s, or the file that it names, was damaged; it was replaced after rows %d to %d of %s were scored again",
        *(store.root, _marker_key(unit), *_span(unit)),
    )
    return marker


def find_marker(store: Store, unit: Unit) -> UnitMarker | None:
    """Return the marker of a unit; None if it is not committed, or damaged, or the file that it names is damaged.

    Reads that file: call it only where a unit may have been committed before, which is rare.
    """
    try:
        marker = read_marker(store, unit)
        read_unit(store, unit, marker)
    except (FileNotFoundError, DamagedError):
        return None
    return marker


def read_marker(store: Store, unit: Unit) -> UnitMarker:
    """Read the marker of a committed unit.

    Raises:
        FileNotFoundError: the unit is not committed.
        DamagedError: the marker is damaged, or another unit's.
    """
    key = _marker_key(unit)
    try:
        marker = UnitMarker.from_bytes(store.get(key))
        if (marker.unit, marker.tally.rows) != (unit.id, unit.rows):
            raise ValueError(f"it counts {marker.tally.rows} rows of unit {marker.unit}, not {unit.rows} of {unit.id}")
    except ValueError as error:
        raise DamagedError(f"{store.root}/{key} is not the marker of its unit: {error}") from error
    return marker


def read_unit(store: Store, unit: Unit, marker: UnitMarker) -> pa.Table:
    """Read a committed unit's rows.

    Raises:
        DamagedError: the file is missing or does not match its marker.
    """
    try:
        data = store.get(marker.key)
    except FileNotFoundError:
        raise DamagedError(f"{store.root}/{marker.key} is committed but missing") from None
    if hashlib.sha256(data).hexdigest() != marker.sha256:
        raise DamagedError(f"{store.root}/{marker.key} is not what was committed (its SHA-256 differs)")
    with pq.ParquetFile(io.BytesIO(data)) as file:
        return file.read(use_threads=False)  # it is small, and several shards are published at a time


def publish_shard(store: Store, planned: ShardPlan, empty: pa.Table) -> PublishedShard:
    """Write a shard's row-aligned file from its committed units, one row group each, then its marker.

    Args:
        empty: a table with the published schema and no rows.

    Raises:
        DamagedUnitsError: markers or files of units are damaged, or files are missing.
        RunError: the units do not add up to the shard.
    """
    try:
        markers = _read_markers(store, planned)
        while True:
            published = _write_shard(store, planned, markers, empty)
            key, document = _published_key(planned), published.to_bytes()
            if not store.create(key, document):
                found = find_published(store, planned)
                if found is None or found.sha256 != published.sha256:
                    store.put(key, document)
            used, markers = markers, _read_markers(store, planned)
            if [marker.key for marker in markers] == [marker.key for marker in used]:
                return published
    except DamagedError as error:
        damaged = [unit.id for unit in planned.units if find_marker(store, unit) is None]
        raise DamagedUnitsError(error.problem, damaged) from error


def _read_markers(store: Store, planned: ShardPlan) -> list[UnitMarker]:
    return [read_marker(store, unit) for unit in planned.units]


def _write_shard(store: Store, planned: ShardPlan, markers: Sequence[UnitMarker], empty: pa.Table) -> PublishedShard:
    shard, counted, weights = planned.shard, list[Gaps](), ExactTotal()
    with store.staged(shard.name) as file:
        with pq.ParquetWriter(file, empty.schema, **writer_options(empty.schema)) as writer:
            for unit, marker in zip(planned.units, markers, strict=True):
                table = read_unit(store, unit, marker)
                _check_rows(unit, table)
                where = f"unit {unit.id} of shard {shard.name}"
                counted.append(gaps.gaps_of(table, where))
                add_weights(weights, table, where)
                writer.write_table(table, row_group_size=max(1, table.num_rows))
            if not planned.units:
                writer.write_table(empty)
        rows = sum(unit.rows for unit in planned.units)
        if rows != shard.rows:
            raise RunError(f"shard {shard.name} has {shard.rows} rows but {rows} are committed; refusing to publish it")
        size = file.tell()
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # typeshed asks for more than IO has
    tally = total(marker.tally for marker in markers)
    return PublishedShard(shard.name, size, sha256, tally, gaps.sum_gaps(counted), weights.rounded)


def find_published(store: Store, planned: ShardPlan) -> PublishedShard | None:
    """Return the marker of a published shard; None if it is absent or damaged, which a warning says."""
    key = _published_key(planned)
    try:
        found = PublishedShard.from_bytes(store.get(key))
        if (found.name, found.tally.rows) != (planned.shard.name, planned.shard.rows):
            raise ValueError(f"it counts {found.tally.rows} rows of {found.name}, not {planned.shard.rows}")
    except FileNotFoundError:
        return None
    except ValueError as error:
        log.warning(
            "%s/%s is not the marker of %s: %s; it is replaced when the file is published again",
            *(store.root, key, planned.shard.name, error),
        )
        return None
    return found


class OutputState:
    """How far a run is, from one listing of its output."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        # An empty marker is known to be damaged without being read.
        self._committed = frozenset(stems((key for key in sizes if sizes[key]), COMMITS))
        self._published = frozenset(stems((key for key in sizes if sizes[key]), PUBLISHED))
        self._contents: dict[str, set[str]] = {}
        for stem in self._committed | self._published:
            name, content, *_ = stem.split("-")
            self._contents.setdefault(name, set()).add(content)

    @property
    def is_finished(self) -> bool:
        """Whether a run has finished here; its input may have grown since."""
        return SUCCESS in self.sizes

    @property
    def is_begun(self) -> bool:
        """Whether anything was committed or published here."""
        return bool(self._contents)

    def is_committed(self, unit: Unit) -> bool:
        """Whether this unit has a marker."""
        return unit.id in self._committed

    def is_published(self, planned: ShardPlan) -> bool:
        """Whether this shard was published from its current content."""
        return planned.key in self._published

    def is_changed(self, planned: ShardPlan) -> bool:
        """Whether rows of this shard were committed when its content was different."""
        name, content = planned.key.split("-")
        return bool(self._contents.get(name, set()) - {content})

    def absent(self, plans: Sequence[ShardPlan]) -> list[str | None]:
        """Find the shards that have rows here but are not planned: the key of one's published marker, None without."""
        names = frozenset(self._contents) - {planned.key.split("-")[0] for planned in plans}
        published = {stem.split("-")[0]: f"{PUBLISHED}{stem}.json" for stem in sorted(self._published)}
        return sorted((published.get(name) for name in names), key=lambda key: key or "~")


def _check_rows(unit: Unit, table: pa.Table) -> None:
    if table["row_index"].to_pylist() != list(range(unit.start, unit.stop)):
        raise RunError(f"unit {unit.id} of shard {unit.shard.name} does not hold rows {unit.start} to {unit.stop - 1}")


def stems(keys: Iterable[str], prefix: str) -> Iterator[str]:
    """Yield what the markers in a folder are named after; other files that someone put there are passed over."""
    for key in keys:
        stem = key.removeprefix(prefix).removesuffix(".json")
        if key == f"{prefix}{stem}.json" and _STEM.fullmatch(stem):
            yield stem


def _texts(document: Mapping[str, Any], *names: str) -> list[str]:
    wrong = [name for name in names if not isinstance(document.get(name), str)]
    if wrong:
        raise ValueError(f"its {wrong[0]} is {document.get(wrong[0])!r:.40}, not a string")
    return [document[name] for name in names]


def _span(unit: Unit) -> tuple[int, int, str]:
    return unit.start, unit.stop - 1, unit.shard.name


def _marker_key(unit: Unit) -> str:
    return f"{COMMITS}{unit.id}.json"


def _published_key(planned: ShardPlan) -> str:
    return f"{PUBLISHED}{planned.key}.json"
