"""Pack rows into batches as they arrive, to a budget of tokens.

Rows wait until enough of them are there to choose from; those that share a tree go together. What is chosen follows
from the rows and their order alone, never from when they arrive: a resumed run must form the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from scorer.forward.memory import HELD_BYTES
from scorer.forward.model import ForwardRow
from scorer.forward.segments import Forest, Path, Segment
from scorer.forward.staging import total_bytes

Item = TypeVar("Item")
Batch = list[tuple[Item, Path]]

HELD_BUDGETS: Final = 32
"""How many budgets of tokens may wait."""
LOOKAHEAD: Final = 256
"""How many trees are tried to fill a batch's last tokens."""


@dataclass(eq=False)
class _Tree(Generic[Item]):
    """The rows that wait and share a root."""

    root: Segment
    nbytes: int
    rows: Batch[Item] = field(default_factory=list)
    counted: set[int] = field(default_factory=set)
    tokens: int = 0

    def add(self, item: Item, path: Path) -> int:
        """Add a row; return the tokens that it adds to the tree."""
        new = [segment for segment in path.segments if id(segment) not in self.counted]
        self.counted.update(map(id, new))
        self.rows.append((item, path))
        added = sum(segment.length for segment in new)
        self.tokens += added
        return added

    def take(self, room: int, at_least: int) -> Batch[Item]:
        """Take rows from the front while their tokens fit, and ``at_least`` as many in any case."""
        taken: _Tree[Item] = _Tree(self.root, 0)
        for item, path in self.rows:
            new = sum(segment.length for segment in path.segments if id(segment) not in taken.counted)
            if len(taken.rows) >= at_least and taken.tokens + new > room:
                break
            taken.add(item, path)
        rest = self.rows[len(taken.rows) :]
        self.rows, self.counted, self.tokens = [], set(), 0
        for item, path in rest:
            self.add(item, path)
        return taken.rows


class Packer(Generic[Item]):
    """Rows that wait, by tree.

    Args:
        budget: the most tokens of a batch. A row that alone has more is a batch by itself.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._forest = Forest()
        self._trees: dict[int, _Tree[Item]] = {}
        self._tokens = 0
        self._bytes = 0

    @property
    def waiting(self) -> list[Batch[Item]]:
        """The rows that wait, by tree, in order of arrival."""
        return [tree.rows for tree in self._trees.values()]

    def path(self, row: ForwardRow, cuts: list[int]) -> Path:
        """Return the path of a row among those that wait."""
        return self._forest.add(row, cuts)

    def add(self, item: Item, path: Path) -> None:
        """Let a row wait."""
        tree = self._trees.get(id(path.root))
        if tree is None:
            tree = self._trees[id(path.root)] = _Tree(path.root, total_bytes([path.root.row.pixels]))
            self._bytes += tree.nbytes
        self._tokens += tree.add(item, path)

    def full(self) -> Iterator[Batch[Item]]:
        """Yield batches while more waits than may."""
        while self._trees and (self._bytes > HELD_BYTES or self._tokens > HELD_BUDGETS * self._budget):
            yield self._next()

    def rest(self) -> Iterator[Batch[Item]]:
        """Yield batches of all that waits."""
        while self._trees:
            yield self._next()

    def _next(self) -> Batch[Item]:
        """Take whole trees in order while they fit. Only a tree that exceeds the budget is divided."""
        batch: Batch[Item] = []
        room = self._budget
        for tree in list(self._trees.values())[:LOOKAHEAD]:
            whole = tree.tokens <= room
            if not whole and batch and (tree.tokens <= self._budget or room < self._budget // 2):
                continue
            before = tree.tokens
            rows = tree.take(room, at_least=len(tree.rows) if whole else int(not batch))
            spent = sum({id(s): s.length for _, path in rows for s in path.segments}.values())
            self._tokens -= before - tree.tokens
            batch += rows
            room -= spent
            if not tree.rows:
                self._forest.drop(tree.root)
                self._bytes -= tree.nbytes
                del self._trees[id(tree.root)]
            if room <= 0:
                break
        return batch
