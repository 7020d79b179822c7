"""Left-overs: what a process wrote that was killed, or that lost a race, and that nobody will ever read.

Three kinds, and nothing else is ever touched:

- a unit file although the unit's marker names another one. Markers are created once: such a file has lost for good.
- a unit file of a unit without marker. It may be an attempt that is about to be committed, in this very moment, so it
  counts only where nothing at all was written to the output for as long as the age that is asked for: then no process
  is at work that could commit it.
- a local temporary file, ``.<name>.<32 digits>``, whose process died before it moved it to its place.

Each must be older than the age, which is an hour at least; age and marker are looked at again just before it goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from pipelines.output.commit import COMMITS, UNITS, UnitMarker
from pipelines.output.contents import read_unit_markers
from pipelines.output.objects import Item, list_items, modified, remove
from pipelines.output.store import Store
from scorer.errors import ConfigError

MIN_AGE: Final = timedelta(hours=1)
"""From a unit file to its marker takes moments, and retries of a failing store take minutes."""

_AGE: Final = re.compile(r"(\d+)([dhm])")
_AGE_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes"}
_UNIT_FILE: Final = re.compile(re.escape(UNITS) + r"(?P<unit>[0-9a-f]+-[0-9a-f]+-\d+-\d+)\.[0-9a-f]+\.parquet")
_TEMPORARY: Final = re.compile(r"(.*/)?\.[^/]+\.[0-9a-f]{32}")

Kind = Literal["lost attempt", "uncommitted attempt", "temporary file"]


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that may go, and why."""

    item: Item
    kind: Kind


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What may go; and how many files of units without marker stay since the output was written to lately."""

    found: tuple[Leftover, ...]
    kept: int

    @property
    def bytes(self) -> int:
        return sum(leftover.item.size for leftover in self.found)


def parse_age(text: str) -> timedelta:
    """``7d``, ``12h``, ``90m``. Raises ConfigError."""
    match = _AGE.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text!r} is not an age; give a number and d, h or m, such as 7d, 12h or 90m")
    try:
        return timedelta(**{_AGE_UNITS[match[2]]: int(match[1])})
    except OverflowError:
        raise ConfigError(f"{text!r} is an age beyond reckoning; give at most 999999d") from None


def leftover_age(text: str) -> timedelta:
    """The age that ``--gc`` was given. Raises ConfigError for what is none, or is too young to be safe."""
    age = parse_age(text)
    if age < MIN_AGE:
        raise ConfigError(
            f"--gc {text}: what is younger than 1h may belong to a process at work, whose files have no marker yet; "
            "give 1h or more"
        )
    return age


def find_leftovers(store: Store, age: timedelta, now: datetime | None = None) -> Leftovers:
    """What may go by now. Reads the markers of the units that have an old file."""
    before = (now or datetime.now(UTC)) - age
    items = list_items(store.root)
    active = any(item.modified > before for item in items.values())
    found = [
        Leftover(item, "temporary file")
        for item in items.values()
        if _TEMPORARY.fullmatch(item.key) and item.modified <= before
    ]
    kept = 0
    old = {item.key: match["unit"] for item in items.values() if item.modified <= before if (match := _unit(item.key))}
    committed = sorted({unit for unit in old.values() if f"{COMMITS}{unit}.json" in items})
    markers = read_unit_markers(store, committed)
    for key, unit in old.items():
        marker = markers.get(unit)
        if marker is not None:
            if marker.key != key:
                found.append(Leftover(items[key], "lost attempt"))
        elif unit not in markers:  # one that cannot be read is for the inspection to report
            if active:
                kept += 1
            else:
                found.append(Leftover(items[key], "uncommitted attempt"))
    return Leftovers(tuple(sorted(found, key=lambda leftover: leftover.item.key)), kept)


def delete_leftovers(store: Store, found: Iterable[Leftover]) -> Iterator[Leftover]:
    """Delete what is a left-over still; yields what went."""
    for leftover in found:
        if _still(store, leftover):
            remove(store.root, [leftover.item.key])
            yield leftover


def _still(store: Store, leftover: Leftover) -> bool:
    """Whether nobody wrote the file again, and no marker names it by now."""
    if modified(store.root, leftover.item.key) != leftover.item.modified:
        return False
    match = _unit(leftover.item.key)
    if match is None:
        return True
    try:
        marker = UnitMarker.from_bytes(store.get(f"{COMMITS}{match['unit']}.json"))
    except FileNotFoundError:
        return leftover.kind == "uncommitted attempt"
    except (ValueError, KeyError, TypeError):
        return False
    return marker.key != leftover.item.key


def _unit(key: str) -> Mapping[str, str] | None:
    match = _UNIT_FILE.fullmatch(key)
    return None if match is None else match.groupdict()
