"""Record every attempt at a unit before it starts, to find a unit that keeps killing its workers.

A process that dies on a row leaves no trace of it, and whatever started the process (Ray, an operator) restarts it
without limit. Each attempt therefore first creates the lowest of the unit's numbered records that does not exist yet.
Once they all exist, the unit is no longer tried like the others but goes to :mod:`pipelines.executors.isolation`.
Attempts that ended for another reason, such as a lost node or an interrupted run, count too: this costs the unit time
and nothing else.
"""

from __future__ import annotations

import uuid
from typing import Final, Literal

from pipelines.output.commit import find_marker
from pipelines.output.plan import Unit
from pipelines.output.store import Store

ATTEMPTS: Final = "_attempts/"
MAX_ATTEMPTS: Final = 2
"""Attempts at a unit in each stage before its rows are tried one by one."""

Stage = Literal["encode", "score"]


def begin(store: Store, unit: Unit, stage: Stage) -> bool:
    """Record that an attempt begins, and return whether to go ahead with it.

    False means that the unit has used up its :data:`MAX_ATTEMPTS`, or that an earlier attempt committed it and only
    the answer was lost.
    """
    attempt = uuid.uuid4().hex.encode()  # unique: no attempt mistakes another's record for its own
    for number in range(1, MAX_ATTEMPTS + 1):
        if store.create(f"{ATTEMPTS}{unit.id}.{stage}.{number}", attempt):
            return number == 1 or find_marker(store, unit) is None
    return False
