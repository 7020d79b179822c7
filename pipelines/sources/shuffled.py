"""Read rows with the images of rows near them, for the contrast that shows a row another one's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from pipelines.sources import ReadRow, Shard, Source
from pipelines.sources.account import FilesAccount
from scorer.partners import group_of
from scorer.results import Failure

if TYPE_CHECKING:
    from pipelines.sources.columns import Choices

_KEPT: Final = 2
"""Groups that are kept: rows are read in pieces, and an encoder may be asked for another unit's in between."""


class ShuffledSource:
    """A source whose rows know their partners: see :mod:`scorer.partners`. Rows are read a group at a time.

    Args:
        inner: reads the rows.
        seed: decides which row is whose partner.
        max_image_bytes: limit for one encoded image, in bytes.
        left_out: rows that are nobody's partner, by shard and row number.
    """

    def __init__(
        self, inner: Source, seed: int, max_image_bytes: int, left_out: Collection[tuple[str, int]] = frozenset()
    ) -> None:
        self.inner = inner
        self._seed = seed
        self._max_image_bytes = max_image_bytes
        self._left_out = left_out
        self._groups: OrderedDict[tuple[Shard, int], list[ReadRow]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_groups": OrderedDict()}

    def without(self, shard: Shard, rows: Collection[int]) -> ShuffledSource:
        """Return this source with rows that must not be touched: they are nobody's partner."""
        left_out = {*self._left_out, *((shard.name, row_index) for row_index in rows)}
        return ShuffledSource(self.inner, self._seed, self._max_image_bytes, left_out)

    def read(self, shard: Shard, start: int, stop: int) -> list[ReadRow]:
        """See :meth:`pipelines.sources.Source.read`."""
        rows: list[ReadRow] = []
        at = start
        while at < stop:
            group = group_of(at, shard.rows)
            end = min(stop, group.stop)
            rows += self._group(shard, group)[at - group.start : end - group.start]
            at = end
        return rows

    def shards(self) -> Sequence[Shard]:
        """See :meth:`pipelines.sources.Source.shards`."""
        return self.inner.shards()

    def account(self) -> FilesAccount:
        """See :meth:`pipelines.sources.Source.account`."""
        return self.inner.account()

    def table(self, shard: Shard, start: int, stop: int) -> pa.Table:
        """See :meth:`pipelines.sources.Source.table`."""
        return self.inner.table(shard, start, stop)

    def schema(self, shard: Shard) -> pa.Schema:
        """See :meth:`pipelines.sources.Source.schema`."""
        return self.inner.schema(shard)

    def fingerprint(self) -> dict[str, Any]:
        """See :meth:`pipelines.sources.Source.fingerprint`."""
        return self.inner.fingerprint()

    def choices(self) -> Choices | None:
        """See :meth:`pipelines.sources.Source.choices`."""
        return self.inner.choices()

    def _group(self, shard: Shard, group: range) -> list[ReadRow]:
        key = shard, group.start
        if key not in self._groups:
            self._groups[key] = self._partnered(shard, group)
            if len(self._groups) > _KEPT:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]

    def _partnered(self, shard: Shard, group: range) -> list[ReadRow]:
        # Not on the driver, which reads no rows: it would import the image decoder.
        from scorer.encoding.shuffling import partners_of

        rows = self.inner.read(shard, group.start, group.stop)
        images = [
            () if isinstance(row, Failure) or (shard.name, row_index) in self._left_out else row.images
            for row_index, row in zip(group, rows, strict=True)
        ]
        found = partners_of(images, self._seed, self._max_image_bytes)
        return [
            row if isinstance(row, Failure) else replace(row, partners=partners)
            for row, partners in zip(rows, found, strict=True)
        ]
