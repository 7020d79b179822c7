"""Look up published weights in any order: by position in a shard, or by the dataset's own id."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from scorer.errors import TableError
from scorer.ids import row_id
from scorer.training.reader import PublishedWeights, read_weights
from scorer.training.row_selection import RowSelection
from scorer.training.rows import Derive, Rows, WeightRow
from scorer.training.text_reference import Missing


class WeightTable:
    """A published output with random access to its rows.

    A shard's file is read when one of its rows is first requested, and kept. Pickling leaves out what has been read:
    every worker of a ``DataLoader`` reads the shards that it needs.

    Args:
        published: see :func:`scorer.training.read_weights`; or use :meth:`open`.
        keep_shards: how many shards to keep in memory, the most recently used ones; None for all. A shard takes about
            30 bytes per token.

    Raises:
        TableError: ``keep_shards`` is less than 1.
    """

    def __init__(self, published: PublishedWeights, *, keep_shards: int | None = None) -> None:
        if keep_shards is not None and keep_shards < 1:
            raise TableError(f"keep_shards is {keep_shards}; give 1 or more, or None to keep every shard")
        self.published = published
        self.keep_shards = keep_shards
        self._loaded: OrderedDict[str, Rows] = OrderedDict()
        self._places: dict[str, tuple[str, int] | None] | None = None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        method: Derive | None = None,
        contrast: str | None = None,
        text: str | os.PathLike[str] | None = None,
        text_missing: Missing = "error",
        rows: RowSelection | None = None,
        mean: Literal["none", "dataset"] | float = "none",
        allow_unfinished: bool = False,
        storage_options: Mapping[str, Any] | None = None,
        keep_shards: int | None = None,
    ) -> WeightTable:
        """Open a published output. Arguments and errors are those of :func:`scorer.training.read_weights`."""
        published = read_weights(
            path,
            method=method,
            contrast=contrast,
            text=text,
            text_missing=text_missing,
            rows=rows,
            mean=mean,
            allow_unfinished=allow_unfinished,
            storage_options=storage_options,
        )
        return cls(published, keep_shards=keep_shards)

    def __repr__(self) -> str:
        return f"<WeightTable of {self.published.description}>"

    @property
    def shards(self) -> tuple[str, ...]:
        """Names of the published files, in the run's order."""
        return self.published.shards

    def __len__(self) -> int:
        return sum(self.published.rows_of(name) for name in self.shards)

    def __iter__(self) -> Iterator[WeightRow]:
        """Yield every row in order; nothing is kept."""
        return iter(self.published)

    def row(self, shard: str, index: int) -> WeightRow:
        """Return the row at ``index`` of a shard: the weights of that row in the dataset's file of the same name.

        Raises:
            TableError: there is no such shard, or it has no such row.
        """
        rows = self._rows(shard)
        if not 0 <= index < len(rows):
            raise TableError(f"{self.published.root}/{shard} has {len(rows)} rows; there is no row {index}")
        return rows[index]

    def find(self, sample_id: Any) -> WeightRow:
        """Return the row with the dataset's own id (``<shard>#<row>`` if it has none).

        The id may have the dataset's own type, such as an integer, a float or a UUID: see :func:`scorer.ids.row_id`.
        The first call reads the ids of all shards and keeps them, at about 200 bytes per row.

        Raises:
            TableError: no row has this id, or several do.
        """
        if self._places is None:
            self._places = self._all_places()
        stored = row_id(sample_id)
        if stored is None or stored not in self._places:
            raise TableError(
                f"{self.published.root} has no row with the id {sample_id!r} among its {len(self):,}; ids are those of "
                "the run's id column, or <shard>#<row>: look a row up with row(shard, index) instead"
            )
        place = self._places[stored]
        if place is None:
            raise TableError(
                f"{self.published.root} has several rows with the id {sample_id!r}; look them up with row(shard, index)"
            )
        return self.row(*place)

    def _rows(self, shard: str) -> Rows:
        rows = self._loaded.get(shard)
        if rows is None:
            rows = self._loaded[shard] = self.published.rows(self.published.load(shard), shard)
            if self.keep_shards is not None and len(self._loaded) > self.keep_shards:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(shard)
        return rows

    def _all_places(self) -> dict[str, tuple[str, int] | None]:
        """Map each id to its shard and row; to None if several rows have it."""
        places: dict[str, tuple[str, int] | None] = {}
        for shard in self.shards:
            ids = self.published.load(shard, columns=["sample_id"]).column("sample_id").to_pylist()
            for index, sample_id in enumerate(ids):
                places[sample_id] = None if sample_id in places else (shard, index)
        return places

    def __getstate__(self) -> dict[str, Any]:
        return {"published": self.published, "keep_shards": self.keep_shards}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["published"], keep_shards=state["keep_shards"])  # type: ignore[misc]  # same class
