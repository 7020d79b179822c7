"""Read datasets: the protocol that every format implements, with one file per format.

A source lists its shards once, on the driver, and reads row ranges of them anywhere; it is sent to the workers, so it
is small when pickled. It never raises for a row: a ``Failure`` takes the place of a row that cannot be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from pipelines.sources.account import FilesAccount
from pipelines.sources.byte_index import ByteIndex, IndexPart
from scorer.partners import group_of
from scorer.results import Failure
from scorer.types import ImageSource, Sample, Turn

if TYPE_CHECKING:
    from pipelines.sources.columns import Choices


@dataclass(frozen=True, slots=True)
class Captions:
    """A row with several captions of the same images. Each is a turn, scored as if the row had no other.

    The row remains one row of the output: ``token_turns`` says which turn a token belongs to, and ``text_hash`` covers
    all turns.

    Attributes:
        question: the user turn that every scored turn answers, including the positions of the images.
        texts: the turns' texts as they are in the dataset, in order; an empty string for a null.
    """

    sample_id: str
    images: tuple[ImageSource, ...]
    question: Turn
    texts: tuple[str, ...]
    contrast_images: tuple[ImageSource, ...] = ()
    partners: tuple[tuple[ImageSource, ...], ...] = ()

    def sample(self, k: int) -> Sample:
        """Return turn ``k`` alone, as a sample to be scored."""
        turns = (self.question, Turn("assistant", (self.texts[k],)))
        return Sample(self.sample_id, self.images, turns, self.contrast_images, self.partners)

    def shown(self) -> Sample:
        """Return all turns in one sample whose ``scored_texts`` are ``texts``: for display, not for scoring."""
        turns = (self.question, *(Turn("assistant", (text,)) for text in self.texts))
        return Sample(self.sample_id, self.images, turns, self.contrast_images)


ReadRow = Sample | Captions | Failure
"""The result of reading one row."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One input file as it was when the source was listed.

    Attributes:
        path: a local path, or a URL that fsspec understands.
        name: the name under which its scores are published: its POSIX path relative to the input's root, with the
            suffix ``.parquet`` if it has another format.
        size: bytes.
        etag: changes when the content does; compared for equality only.
        rows: its number of rows; 0 is legal.
        index: the byte ranges of its rows, for formats without an index; in a unit's shard, of the unit's rows only.
    """

    path: str
    name: str
    size: int
    etag: str
    rows: int
    index: ByteIndex | IndexPart | None = field(default=None, compare=False, repr=False)

    def identity(self) -> dict[str, Any]:
        """Return what distinguishes this shard from a changed one; its path is left out."""
        return {"name": self.name, "size": self.size, "etag": self.etag, "rows": self.rows}

    def part(self, start: int, stop: int) -> Shard:
        """Return this shard with only the part of its index that covers these rows, and their groups.

        A row may be compared with another one's image: see :mod:`scorer.partners`.
        """
        if self.index is None or start == stop:
            return self if self.index is None else replace(self, index=self.index.part(start, stop))
        first, last = group_of(start, self.rows), group_of(stop - 1, self.rows)
        return replace(self, index=self.index.part(first.start, last.stop))

    def unindexed(self) -> Shard:
        """Return this shard without its index, which may be large."""
        return self if self.index is None else replace(self, index=None)

    def row_id(self, row_index: int) -> str:
        """Return the id of a row in a dataset that has no id column."""
        return f"{self.name}#{row_index}"


class Source(Protocol):
    """A dataset of shards whose rows are samples."""

    def shards(self) -> Sequence[Shard]:
        """List every shard, sorted by name. Later calls return what the first one found.

        Raises:
            ConfigError: the input does not exist, contains no shard, or lacks the columns that were asked for.
        """
        ...

    def account(self) -> FilesAccount:
        """Return how many files the input has, how many are read, and why the others are not. Raises as ``shards``."""
        ...

    def read(self, shard: Shard, start: int, stop: int) -> list[ReadRow]:
        """Read rows ``start`` to ``stop`` (exclusive): exactly one entry per row, in order.

        Raises:
            RunError: the shard cannot be read, or was changed during the run.
        """
        ...

    def table(self, shard: Shard, start: int, stop: int) -> pa.Table:
        """Read the original columns of the same rows, for ``--layout merged``. Raise ConfigError if there are none."""
        ...

    def schema(self, shard: Shard) -> pa.Schema:
        """Return the schema of :meth:`table` without reading rows. Raise ConfigError if there are no such columns."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Return what determines how a row becomes a sample (the columns and the like), as plain data."""
        ...

    def choices(self) -> Choices | None:
        """Return which columns are read and why; None if the format leaves no choice."""
        ...
