"""Find and delete leftovers: files of a process that was killed or lost a race, which will never be read.

There are three kinds, and nothing else is ever touched:

- a unit file whose unit's marker names another file. Markers are created once, and a damaged one is replaced by one
  that names a file written just before, so it will never be read.
- a unit file whose unit has no marker. It may be about to be committed, so it counts only if nothing at all was
  written to the output within the given age: then no running process could commit it.
- a local temporary file, ``.<name>.<32 digits>``, whose process died before moving it into place.

Each must be older than the given age, which is at least an hour. Age and marker are checked again just before deletion.
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
"""A marker follows its unit file within moments; retries on a failing store take minutes."""

_AGE: Final = re.compile(r"(\d+)([dhm])")
_AGE_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes"}
_UNIT_FILE: Final = re.compile(re.escape(UNITS) + r"(?P<unit>[0-9a-f]+-[0-9a-f]+-\d+-\d+)\.[0-9a-f]+\.parquet")
_TEMPORARY: Final = re.compile(r"(.*/)?\.[^/]+\.[0-9a-f]{32}")

Kind = Literal["lost attempt", "uncommitted attempt", "temporary file"]


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that may be deleted, and why."""

    item: Item
    kind: Kind


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What may be deleted, and how many files of uncommitted units stay because the output was recently written to."""

    found: tuple[Leftover, ...]
    kept: int

    @property
    def bytes(self) -> int:
        return sum(leftover.item.size for leftover in self.found)


def parse_age(text: str) -> timedelta:
    """Parse ``7d``, ``12h`` or ``90m``. Raise ConfigError for anything else."""
    match = _AGE.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text!r} is not an age; give a number and d, h or m, such as 7d, 12h or 90m")
    try:
        return timedelta(**{_AGE_UNITS[match[2]]: int(match[1])})
    except OverflowError:
        raise ConfigError(f"{text!r} is too large an age; give at most 999999d") from None


def leftover_age(text: str) -> timedelta:
    """Parse the value of ``--gc``. Raise ConfigError if it is not an age, or too short to be safe."""
    age = parse_age(text)
    if age < MIN_AGE:
        raise ConfigError(
            f"--gc {text}: files younger than 1h may belong to a running process that has not committed them yet; "
            "give 1h or more"
        )
    return age


def find_leftovers(store: Store, age: timedelta, now: datetime | None = None) -> Leftovers:
    """Find what may be deleted now. Only markers of units with an old file are read."""
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
        elif unit not in markers:  # an unreadable marker is for the inspection to report
            if active:
                kept += 1
            else:
                found.append(Leftover(items[key], "uncommitted attempt"))
    return Leftovers(tuple(sorted(found, key=lambda leftover: leftover.item.key)), kept)


def delete_leftovers(store: Store, found: Iterable[Leftover]) -> Iterator[Leftover]:
    """Delete each file that is still a leftover, and yield those deleted."""
    for leftover in found:
        if _still(store, leftover):
            remove(store.root, [leftover.item.key])
            yield leftover


def _still(store: Store, leftover: Leftover) -> bool:
    """Whether the file was not rewritten meanwhile, and no marker names it now."""
    if modified(store.root, leftover.item.key) != leftover.item.modified:
        return False
    match = _unit(leftover.item.key)
    if match is None:
        return True
    try:
        marker = UnitMarker.from_bytes(store.get(f"{COMMITS}{match['unit']}.json"))
    except FileNotFoundError:
        return leftover.kind == "uncommitted attempt"
    except ValueError:
        return False
    return marker.key != leftover.item.key


def _unit(key: str) -> Mapping[str, str] | None:
    match = _UNIT_FILE.fullmatch(key)
    return None if match is None else match.groupdict()
