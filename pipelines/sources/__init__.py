"""Where rows come from: the protocol that every dataset format implements, one file per format.

A source lists its shards once, on the driver, and reads row ranges of them anywhere (it is sent to the workers, so
it pickles small). It never raises for a row: what cannot be read takes its row's place as a ``Failure``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import pyarrow as pa

from scorer.types import Failure, Sample

Row = Sample | Failure
"""What reading one row gives."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One input file, as it was when the source was listed.

    Attributes:
        path: where it is: a local path, or a URL that fsspec understands.
        name: its POSIX path relative to the input's root. The published file carries it.
        size: bytes.
        etag: changes when the content does; compared for equality only.
        rows: its number of rows; 0 is legal.
    """

    path: str
    name: str
    size: int
    etag: str
    rows: int

    def identity(self) -> dict[str, Any]:
        """What tells this shard from a changed one; where it lies is left out."""
        return {key: value for key, value in asdict(self).items() if key != "path"}

    def row_id(self, row_index: int) -> str:
        """The id of a row in a dataset that has no id column."""
        return f"{self.name}#{row_index}"


class Source(Protocol):
    """A dataset of shards whose rows are samples."""

    def shards(self) -> Sequence[Shard]:
        """Every shard, sorted by name. The first call looks; later calls give the same answer.

        Raises:
            ConfigError: the input does not exist, holds no shard, or lacks the columns that were asked for.
        """
        ...

    def read(self, shard: Shard, start: int, stop: int) -> list[Row]:
        """Rows ``start`` to ``stop`` (exclusive): exactly one entry per row, in order."""
        ...

    def table(self, shard: Shard, start: int, stop: int) -> pa.Table:
        """The original columns of the same rows, for ``--layout merged``."""
        ...

    def schema(self, shard: Shard) -> pa.Schema:
        """The original columns' schema: what :meth:`table` gives, without reading rows."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """What decides how a row becomes a sample (its columns), as plain data."""
        ...
