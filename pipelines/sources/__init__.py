"""Where rows come from: the protocol that every dataset format implements, one file per format.

A source lists its shards once, on the driver, and reads row ranges of them anywhere (it is sent to the workers, so
it pickles small). It never raises for a row: what cannot be read takes its row's place as a ``Failure``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import pyarrow as pa

from pipelines.sources.byte_index import ByteIndex, Extent
from scorer.results import Failure
from scorer.types import ImageSource, Sample, Turn


@dataclass(frozen=True, slots=True)
class Captions:
    """A row with several captions of the same images. Each is a turn, scored on its own, as if the row had no other.

    The row stays one row of the output: ``token_turns`` says which turn a token belongs to, and
    ``text_hash`` covers them all.

    Attributes:
        question: the user turn that every scored turn answers, with the places of the images.
        texts: of the turns, as they stand in the dataset and in order; empty where the dataset has none.
    """

    sample_id: str
    images: tuple[ImageSource, ...]
    question: Turn
    texts: tuple[str, ...]
    contrast_images: tuple[ImageSource, ...] = ()

    def sample(self, k: int) -> Sample:
        """Text ``k`` alone."""
        turns = (self.question, Turn("assistant", (self.texts[k],)))
        return Sample(self.sample_id, self.images, turns, self.contrast_images)

    def shown(self) -> Sample:
        """All turns in one sample whose ``scored_texts`` are ``texts``: to be shown, not to be scored."""
        turns = (self.question, *(Turn("assistant", (text,)) for text in self.texts))
        return Sample(self.sample_id, self.images, turns, self.contrast_images)


ReadRow = Sample | Captions | Failure
"""What reading one row gives."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One input file, as it was when the source was listed.

    Attributes:
        path: where it is: a local path, or a URL that fsspec understands.
        name: what its scores are published as: its POSIX path relative to the input's root, with the suffix
            ``.parquet`` where it is of another format.
        size: bytes.
        etag: changes when the content does; compared for equality only.
        rows: its number of rows; 0 is legal.
        index: where its rows lie, for formats that do not say so themselves; for a unit's shard, where the unit's do.
    """

    path: str
    name: str
    size: int
    etag: str
    rows: int
    index: ByteIndex | Extent | None = field(default=None, compare=False, repr=False)

    def identity(self) -> dict[str, Any]:
        """What tells this shard from a changed one; where it lies is left out."""
        return {"name": self.name, "size": self.size, "etag": self.etag, "rows": self.rows}

    def part(self, start: int, stop: int) -> Shard:
        """This shard with no more of its index than these rows' part: what their reader needs to know."""
        return self if self.index is None else replace(self, index=self.index.extent(start, stop))

    def unindexed(self) -> Shard:
        """This shard without an index, which may be large."""
        return self if self.index is None else replace(self, index=None)

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

    def read(self, shard: Shard, start: int, stop: int) -> list[ReadRow]:
        """Rows ``start`` to ``stop`` (exclusive): exactly one entry per row, in order."""
        ...

    def table(self, shard: Shard, start: int, stop: int) -> pa.Table:
        """The original columns of the same rows, for ``--layout merged``. Raises ConfigError where there are none."""
        ...

    def schema(self, shard: Shard) -> pa.Schema:
        """The original columns' schema: what :meth:`table` gives, without reading rows."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """What decides how a row becomes a sample (its columns), as plain data."""
        ...
