"""What an output holds, from one listing and its small documents: the run, the markers, how far it has come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal

from pipelines.output.commit import COMMITS, PUBLISHED, PublishedShard, UnitMarker
from pipelines.output.record import KEY as RECORD
from pipelines.output.record import RunRecord
from pipelines.output.store import Store
from pipelines.output.summary import REMEDY, ShardEntry, Summary, parse
from pipelines.output.tally import Tally
from scorer.errors import ConfigError, RunError
from scorer.summary import SUCCESS

THREADS: Final = 16
UNKNOWN: Final = -1
"""Tokens of a shard of which only the summary is left, which does not tell them apart."""
State = Literal["finished", "unfinished"]


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Something that is not as the run left it: which object, and what is wrong, with what to do about it."""

    key: str
    message: str


@dataclass(frozen=True)
class Output:
    """A run's output as it was when it was listed.

    Attributes:
        sizes: every object and its size.
        record: None where it cannot be read, which is a problem then.
        summary: what ``_SUCCESS`` says; None for an unfinished run.
        shards: what was published, by name.
        stems: the same files' ``<name>-<content>`` keys; absent for a file that only the summary knows.
        problems: documents that are absent or cannot be read, or contradict each other.
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
        return [key.removeprefix(COMMITS).removesuffix(".json") for key in self.sizes if key.startswith(COMMITS)]

    @property
    def open_units(self) -> list[str]:
        """Ids of the committed units of shards that are not published yet."""
        published = {stem.split("-")[0] for stem in self.stems.values()}
        return [unit for unit in self.units if unit.split("-")[0] not in published]

    @property
    def state(self) -> State:
        """Finished is a run whose ``_SUCCESS`` speaks of everything there is."""
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
        """Rows that need not be scored again."""
        rows = sum(shard.tally.rows for shard in self.shards.values())
        spans = (unit.split("-")[-2:] for unit in self.open_units)
        return rows + sum(int(stop) - int(start) for start, stop in spans)


def look(store: Store) -> Output:
    """Read an output's documents.

    Raises:
        ConfigError: nothing of a run is there, or it cannot be listed.
    """
    try:
        sizes = store.sizes()
    except OSError as error:
        raise ConfigError(
            f"output {store.root} cannot be listed: {error}; give a directory or bucket of yours"
        ) from error
    ours = (RECORD, SUCCESS)
    if not any(key in ours or key.startswith((COMMITS, PUBLISHED)) for key in sizes):
        held = f"holds {len(sizes):,} files but none of a run" if sizes else "is empty or does not exist"
        raise ConfigError(f"output {store.root} {held}; give the --output of a scoring run")
    problems: list[Problem] = []
    record = _record(store, problems)
    summary = _summary(store, sizes, problems)
    listed = {} if summary is None else {shard["name"]: shard for shard in summary["shards"]}
    shards, stems = _published(store, sizes, listed, problems)
    for name, entry in listed.items():
        if name not in shards:
            again = "give the run's command again to have it written"
            problems.append(Problem(name, f"_SUCCESS lists it but it has no marker in {PUBLISHED}; {again}"))
            shards[name] = _as_listed(entry)
        elif shards[name].sha256 != entry["sha256"]:
            again = "let the run finish, or give its command again, to have _SUCCESS written anew"
            problems.append(Problem(name, f"_SUCCESS and its marker give different SHA-256s; {again}"))
    return Output(store, sizes, record, summary, dict(sorted(shards.items())), stems, tuple(problems))


def read_unit_markers(store: Store, units: Iterable[str]) -> dict[str, UnitMarker | None]:
    """The markers of units; None for one that cannot be read. Several at a time, since each may cost a round trip."""

    def read(unit: str) -> UnitMarker | None:
        try:
            return UnitMarker.from_bytes(store.get(f"{COMMITS}{unit}.json"))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    units = list(units)
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(units, pool.map(read, units), strict=True))


def _record(store: Store, problems: list[Problem]) -> RunRecord | None:
    restore = "restore it from a copy; without it nothing says what the scores are, and no run goes on here"
    try:
        return RunRecord.from_bytes(store.get(RECORD))
    except FileNotFoundError:
        problems.append(Problem(RECORD, f"it is absent; {restore}"))
    except RunError:
        problems.append(Problem(RECORD, f"it cannot be read, or is of another version; {restore}"))
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
    """The markers by shard name. A shard that was scored anew has several: that of the file which is there counts."""
    keys = sorted(key for key in sizes if key.startswith(PUBLISHED))
    with ThreadPoolExecutor(THREADS) as pool:
        documents = list(pool.map(store.get, keys))
    shards: dict[str, PublishedShard] = {}
    stems: dict[str, str] = {}
    fits: dict[str, tuple[bool, bool]] = {}
    for key, document in zip(keys, documents, strict=True):
        try:
            shard = PublishedShard.from_bytes(document)
        except (ValueError, KeyError, TypeError) as error:
            again = "delete it and give the run's command again"
            problems.append(Problem(key, f"it is not a marker of a published file ({error!r}); {again}"))
            continue
        said = listed[shard.name]["sha256"] if shard.name in listed else None
        fit = (sizes.get(shard.name) == shard.size, shard.sha256 == said)
        if shard.name not in shards or fit > fits[shard.name]:
            shards[shard.name], fits[shard.name] = shard, fit
            stems[shard.name] = key.removeprefix(PUBLISHED).removesuffix(".json")
    return shards, stems


def _as_listed(entry: ShardEntry) -> PublishedShard:
    """What a summary says of a shard, as its marker would; its tokens are not in it."""
    tally = Tally(rows=entry["rows"], ok=entry["ok"], tokens=UNKNOWN)
    return PublishedShard(entry["name"], entry["bytes"], entry["sha256"], tally)
