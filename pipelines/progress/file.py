"""``_progress.json`` in the output: how far the run is, for anyone who watches the output and not the command.

Best effort: nothing in the program reads it, and people look at the time in it. Keys: ``state`` (``running``, or
``ended`` by whatever ended it), ``updated_at`` (ISO 8601, UTC), and those of :meth:`Snapshot.to_dict`.
"""

from __future__ import annotations

from typing import Final

from pipelines.output.documents import as_json, now
from pipelines.output.store import Store
from pipelines.progress.snapshot import Snapshot

KEY: Final = "_progress.json"


class ProgressFile:
    """See :class:`pipelines.progress.watch.Display`. A run that has nothing to score writes none."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def begin(self, snapshot: Snapshot) -> None:
        if snapshot.done < snapshot.rows:
            self._write("running", snapshot)

    def add(self, snapshot: Snapshot) -> None:
        """Waits for the next tick: a store is written to no more often."""

    def tick(self, snapshot: Snapshot) -> None:
        self._write("running", snapshot)

    def end(self, snapshot: Snapshot) -> None:
        if snapshot.before < snapshot.rows:
            self._write("ended", snapshot)

    def _write(self, state: str, snapshot: Snapshot) -> None:
        self._store.put(KEY, as_json({"state": state, "updated_at": now(), **snapshot.to_dict()}))
