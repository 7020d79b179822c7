"""Record every attempt at a unit before it starts: to find a unit that keeps killing its workers, and to repeat a cut.

A process that dies on a row leaves no trace of it, and whatever started the process (Ray, an operator) restarts it
without limit. Each attempt therefore first creates the lowest of the unit's numbered records that does not exist yet.
Once :data:`MAX_ATTEMPTS` of them count, the unit is no longer tried like the others but goes to
:mod:`pipelines.executors.isolation`.

    _attempts/<unit>.<stage>.<number>    an attempt; holds the session, which is a driving process
    _attempts/<session>.ended            the session ended without dying of a row: its attempts do not count
    _attempts/<unit>.cut.<number>        the budget of tokens that the unit was cut to when its batches did not fit

A lost node or a driver killed from outside looks like a death and counts. That costs the unit time and nothing else:
isolation scores it in the same batches.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from itertools import count
from typing import Final, Literal

from pipelines.output.commit import find_marker
from pipelines.output.plan import Unit
from pipelines.output.store import Store
from scorer.errors import RunError

ATTEMPTS: Final = "_attempts/"
ENDED: Final = ".ended"
MAX_ATTEMPTS: Final = 2
"""Attempts at a unit in each stage before it is isolated."""

Stage = Literal["encode", "score"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that goes ahead.

    Attributes:
        cut: the budget in tokens that an earlier attempt at the unit had to take; None without one.
    """

    cut: int | None = None


def begin(store: Store, unit: Unit, stage: Stage, session: str) -> Attempt | None:
    """Record that an attempt of this session begins.

    Return None if it must not go ahead: the unit has used up its :data:`MAX_ATTEMPTS`, or an earlier attempt committed
    it and only the answer was lost.
    """
    record = f"{session} {uuid.uuid4().hex}".encode()  # unique: no attempt mistakes another's record for its own
    counted = 0
    for number in count(1):
        key = f"{ATTEMPTS}{unit.id}.{stage}.{number}"
        if store.create(key, record):
            if number == 1:
                return Attempt()
            return Attempt(cut_of(store, unit)) if find_marker(store, unit) is None else None
        counted += not _has_ended(store, _session(store.get(key)))
        if counted == MAX_ATTEMPTS:
            return None
    raise AssertionError("numbers do not end")


def end_session(store: Store, session: str) -> None:
    """Record that this session ends by itself, by an interrupt or an error: no row killed it."""
    store.create(_ended_key(session), b"")


def cut(store: Store, unit: Unit, tokens: int) -> int:
    """Record that the unit's batches must be cut to ``tokens``, so that every later attempt cuts them alike.

    Return the budget to take, which is smaller if another attempt has already cut further.

    Raises:
        RunError: a record of an earlier cut is damaged.
    """
    for number in count(1):
        key = _cut_key(unit, number)
        if store.create(key, f"{tokens} {uuid.uuid4().hex}".encode()):
            return tokens
        found = _tokens(store, key)
        if found <= tokens:
            return cut_of(store, unit) or found
    raise AssertionError("numbers do not end")


def cut_of(store: Store, unit: Unit) -> int | None:
    """Return the budget that the unit was last cut to; None if it never was. Raise RunError if a record is damaged."""
    found = None
    for number in count(1):
        try:
            found = _tokens(store, _cut_key(unit, number))
        except FileNotFoundError:
            return found
    raise AssertionError("numbers do not end")


def _tokens(store: Store, key: str) -> int:
    record = store.get(key)
    try:
        return int(record.split()[0])
    except (ValueError, IndexError):
        raise RunError(
            f"{store.root}/{key} should hold the number of tokens to which a unit's batches were cut, but holds "
            f"{record[:40]!r}; "
            "delete it and run the same command again"
        ) from None


def _session(record: bytes) -> str:
    """Return the session of an attempt's record; empty if the record is damaged, which then counts as an attempt."""
    return "".join(record.decode(errors="replace").split()[:1])


def _has_ended(store: Store, session: str) -> bool:
    try:
        store.get(_ended_key(session))
    except FileNotFoundError:
        return False
    return True


def _ended_key(session: str) -> str:
    return f"{ATTEMPTS}{session}{ENDED}"


def _cut_key(unit: Unit, number: int) -> str:
    return f"{ATTEMPTS}{unit.id}.cut.{number}"
