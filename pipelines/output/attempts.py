"""Before a worker touches a unit it says so in the store: this finds a unit that keeps killing its workers.

A process that dies on a row leaves no word of it, and whoever started it (Ray, an operator) starts it again without
end. So each attempt first creates the lowest of a unit's numbered records that is not there yet. A unit that has all
of them is no longer tried like the others but given to :mod:`pipelines.executors.isolation`. Attempts that ended
otherwise, by a lost node or an interrupted run, count too: that costs such a unit time, and no more.
"""

from __future__ import annotations

import uuid
from typing import Final, Literal

from pipelines.output.commit import find_marker
from pipelines.output.plan import Unit
from pipelines.output.store import Store

ATTEMPTS: Final = "_attempts/"
MAX_ATTEMPTS: Final = 2
"""Attempts at a unit, in each stage, before its rows are tried one by one."""

Stage = Literal["encode", "score"]


def begin(store: Store, unit: Unit, stage: Stage) -> bool:
    """Record an attempt that begins now. False where there is none to make: the unit had its :data:`MAX_ATTEMPTS`, or
    an earlier one came through, though its answer was lost."""
    attempt = uuid.uuid4().hex.encode()  # differs, so that no attempt takes another's record for its own
    for number in range(1, MAX_ATTEMPTS + 1):
        if store.create(f"{ATTEMPTS}{unit.id}.{stage}.{number}", attempt):
            return number == 1 or find_marker(store, unit) is None
    return False
