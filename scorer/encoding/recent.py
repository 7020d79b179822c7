"""Keep what was made last, so that rows next to each other share it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

_OVERHEAD = 2**12
"""Counted for each value besides its arrays, in bytes."""


class _Slot(Generic[Value]):
    def __init__(self) -> None:
        self.lock = Lock()
        self.values: list[Value] = []
        self.nbytes = 0


class Recent(Generic[Key, Value]):
    """Values by key; above a limit in bytes, the least recently used ones are dropped. Threads may share it.

    Threads that ask for one key at the same time wait for the first of them, and all get its value.

    Args:
        limit: in bytes; a larger value is returned but not kept.
        nbytes: value → its size in bytes.
    """

    def __init__(self, limit: int, nbytes: Callable[[Value], int]) -> None:
        self._limit = limit
        self._nbytes = nbytes
        self._total = 0
        self._slots: OrderedDict[Key, _Slot[Value]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def nbytes(self) -> int:
        """The size of all values that are kept, in bytes."""
        return self._total

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """Return the value of ``key``, made by ``make`` if it is not kept. What ``make`` raises is raised."""
        with self._lock:
            slot = self._slots.setdefault(key, _Slot())
            self._slots.move_to_end(key)
        with slot.lock:
            if not slot.values:
                try:
                    slot.values.append(make())
                finally:
                    self._account(key, slot)
            return slot.values[0]

    def _account(self, key: Key, slot: _Slot[Value]) -> None:
        """Count a new value and drop what exceeds the limit, or drop the slot of one that could not be made."""
        with self._lock:
            if self._slots.get(key) is not slot:
                return  # dropped while it was made
            if not slot.values:
                del self._slots[key]
                return
            slot.nbytes = _OVERHEAD + self._nbytes(slot.values[0])
            self._total += slot.nbytes
            while self._total > self._limit:
                _, dropped = self._slots.popitem(last=False)
                self._total -= dropped.nbytes
