"""Look at an output: its run, its markers and how far it is, from one listing and a few small documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal

from pipelines.output.commit import COMMITS, PUBLISHED, PublishedShard, UnitMarker, stems
from pipelines.output.record import KEY as RECORD
from pipelines.output.record import RunRecord
from pipelines.output.store import Store
from pipelines.output.summary import REMEDY, ShardEntry, Summary, parse
from pipelines.output.tally import Tally
from scorer.errors import ConfigError
from scorer.summary import SUCCESS

THREADS: Final = 16
UNKNOWN: Final = -1
"""Tokens of a shard that only the summary knows: the summary does not count tokens by shard."""
State = Literal["finished", "unfinished"]


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Something that is not as the run left it: which object, what is wrong, and what to do about it."""

    key: str
    message: str


@dataclass(frozen=True)
class Output:
    """A run's output at the time of listing.

    Attributes:
        sizes: bytes by object key.
        record: the run's record; None if it cannot be read, which is then one of the problems.
        summary: the content of ``_SUCCESS``; None for an unfinished run.
        shards: the published shards, by name.
        stems: their ``<name>-<content>`` keys, by name; absent for a shard that only the summary knows.
        problems: documents that are missing or unreadable, or that contradict each other.
    """

    store: Store
    sizes: Mapping[str, int]
    record: RunRecord | None
    summary: Summary | None
    shards: Mapping[str, PublishedShard]
    stems: Mapping[str, str]
    problems: tuple[Problem, ...]

    @property
    def units(self) -> list[str]:
        """Ids of the committed units."""
        return list(stems(self.sizes, COMMITS))

    @property
    def open_units(self) -> list[str]:
        """Ids of the committed units of shards that are not published yet."""
        published = {stem.split("-")[0] for stem in self.stems.values()}
        return [unit for unit in self.units if unit.split("-")[0] not in published]

    @property
    def state(self) -> State:
        """A run is finished if its ``_SUCCESS`` covers everything in the output."""
        if self.summary is None or self.open_units:
            return "unfinished"
        listed = {shard["name"]: shard["sha256"] for shard in self.summary["shards"]}
        return (
            "finished"
            if all(listed.get(shard.name) == shard.sha256 for shard in self.shards.values())
            else "unfinished"
        )

    @property
    def rows_committed(self) -> int:
        """The number of rows that are already scored and committed."""
        rows = sum(shard.tally.rows for shard in self.shards.values())
        spans = (unit.split("-")[-2:] for unit in self.open_units)
        return rows + sum(int(stop) - int(start) for start, stop in spans)


def look(store: Store) -> Output:
    """Read an output's documents.

    Raises:
        ConfigError: the output cannot be listed, or does not belong to a run.
    """
    try:
        sizes = store.sizes()
    except OSError as error:
        raise ConfigError(
            f"output {store.root} cannot be listed: {error}; give a directory or bucket that you may read"
        ) from error
    ours = (RECORD, SUCCESS)
    if not any(key in ours or key.startswith((COMMITS, PUBLISHED)) for key in sizes):
        held = f"holds {len(sizes):,} files but none from a run" if sizes else "is empty or does not exist"
        raise ConfigError(f"output {store.root} {held}; give the --output of a scoring run")
    problems: list[Problem] = []
    record = _record(store, problems)
    summary = _summary(store, sizes, problems)
    listed = {} if summary is None else {shard["name"]: shard for shard in summary["shards"]}
    shards, published = _published(store, sizes, listed, problems)
    for name, entry in listed.items():
        if name not in shards:
            remedy = "run the same command again to rewrite it"
            problems.append(Problem(name, f"_SUCCESS lists it, but it has no marker in {PUBLISHED}; {remedy}"))
            shards[name] = _as_listed(entry)
        elif shards[name].sha256 != entry["sha256"]:
            remedy = "let the run finish, or run the same command again with --verify"
            problems.append(Problem(name, f"_SUCCESS and its marker give different SHA-256s; {remedy}"))
    return Output(store, sizes, record, summary, dict(sorted(shards.items())), published, tuple(problems))


def read_unit_markers(store: Store, units: Iterable[str]) -> dict[str, UnitMarker | None]:
    """Read the markers of units, in parallel because each may cost a round trip; None for an unreadable one."""

    def read(unit: str) -> UnitMarker | None:
        try:
            return UnitMarker.from_bytes(store.get(f"{COMMITS}{unit}.json"))
        except (FileNotFoundError, ValueError):
            return None

    units = list(units)
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(units, pool.map(read, units), strict=True))


def _record(store: Store, problems: list[Problem]) -> RunRecord | None:
    remedy = "restore it from a copy; without it, the scores cannot be interpreted and no run can resume here"
    try:
        return RunRecord.from_bytes(store.get(RECORD))
    except FileNotFoundError:
        problems.append(Problem(RECORD, f"it is missing; {remedy}"))
    except ValueError as error:
        problems.append(Problem(RECORD, f"it cannot be read: {error}; {remedy}"))
    return None


def _summary(store: Store, sizes: Mapping[str, int], problems: list[Problem]) -> Summary | None:
    if SUCCESS not in sizes:
        return None
    try:
        return parse(store.get(SUCCESS))
    except ValueError as error:
        problems.append(Problem(SUCCESS, f"it is not a summary ({error}); {REMEDY}"))
        return None


def _published(
    store: Store, sizes: Mapping[str, int], listed: Mapping[str, ShardEntry], problems: list[Problem]
) -> tuple[dict[str, PublishedShard], dict[str, str]]:
    """Read the markers by shard name. A rescored shard has several; the one that matches the existing file counts."""
    keys = [f"{PUBLISHED}{stem}.json" for stem in sorted(stems(sizes, PUBLISHED))]
    with ThreadPoolExecutor(THREADS) as pool:
        documents = list(pool.map(store.get, keys))
    shards: dict[str, PublishedShard] = {}
    found: dict[str, str] = {}
    fits: dict[str, tuple[bool, bool]] = {}
    for key, document in zip(keys, documents, strict=True):
        try:
            shard = PublishedShard.from_bytes(document)
        except ValueError as error:
            remedy = "run the same command again with --verify to replace it"
            problems.append(Problem(key, f"it is not the marker of a published file ({error}); {remedy}"))
            continue
        said = listed[shard.name]["sha256"] if shard.name in listed else None
        fit = (sizes.get(shard.name) == shard.size, shard.sha256 == said)
        if shard.name not in shards or fit > fits[shard.name]:
            shards[shard.name], fits[shard.name] = shard, fit
            found[shard.name] = key.removeprefix(PUBLISHED).removesuffix(".json")
    return shards, found


def _as_listed(entry: ShardEntry) -> PublishedShard:
    """Return a summary's entry in the form of a marker; it has no tokens."""
    tally = Tally(rows=entry["rows"], ok=entry["ok"], tokens=UNKNOWN, text_only=entry["text_only"])
    return PublishedShard(entry["name"], entry["bytes"], entry["sha256"], tally)
