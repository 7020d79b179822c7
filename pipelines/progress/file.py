"""Write ``_progress.json`` to the output, for anyone who watches the output rather than the command.

It is best effort: the program never reads it, and ``updated_at`` shows how recent it is. Keys: ``state`` (``running``,
or ``ended`` for any reason), ``updated_at`` (ISO 8601, UTC), and those of :meth:`Snapshot.to_dict`.
"""

from __future__ import annotations

from typing import Final

from pipelines.output.documents import as_json, now
from pipelines.output.store import Store
from pipelines.progress.snapshot import Snapshot

KEY: Final = "_progress.json"


class ProgressFile:
    """See :class:`pipelines.progress.watch.Display`. A run with nothing to score writes no file."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def begin(self, snapshot: Snapshot) -> None:
        if snapshot.done < snapshot.rows:
            self._write("running", snapshot)

    def add(self, snapshot: Snapshot) -> None:
        """Do nothing: the file is written at the next tick, to spare the store."""

    def tick(self, snapshot: Snapshot) -> None:
        self._write("running", snapshot)

    def end(self, snapshot: Snapshot) -> None:
        if snapshot.before < snapshot.rows:
            self._write("ended", snapshot)

    def _write(self, state: str, snapshot: Snapshot) -> None:
        self._store.put(KEY, as_json({"state": state, "updated_at": now(), **snapshot.to_dict()}))
