"""The common base of sources: find columns from the first shard, list shards once, read rows by column."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from pipelines.sources import Shard
from pipelines.sources.columns import Columns
from pipelines.sources.images import ImageOptions
from pipelines.sources.listing import open_input
from pipelines.sources.rows import RowReader
from scorer.config import MAX_TEXT_BYTES
from scorer.errors import RunError


class ColumnSource(ABC):
    """The common part of :class:`pipelines.sources.Source`'s implementations.

    Args:
        url: the input: file, directory or glob; local or any fsspec URL.
        columns: the columns named by the user; the others are detected from the first shard.
        prompt: the instruction that a bare caption answers if there is no prompt column.
        contrast_images: whether to read ``columns.contrast_image`` too.
        images: where images outside the rows may come from.
        max_text_bytes: limit of a row's texts and prompt together, UTF-8 bytes.
    """

    def __init__(
        self,
        url: str,
        columns: Columns,
        *,
        prompt: str,
        contrast_images: bool = False,
        images: ImageOptions | None = None,
        max_text_bytes: int = MAX_TEXT_BYTES,
    ) -> None:
        self.url = url
        self.prompt = prompt
        self.images = images or ImageOptions()
        self.max_text_bytes = max_text_bytes
        self._asked = columns
        self._contrast_images = contrast_images
        self._columns: Columns | None = None
        self._shards: Sequence[Shard] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A worker receives each shard that it reads; a list of 100,000 shards and their indexes need not be sent.
        return {**self.__dict__, "_shards": None}

    @property
    def columns(self) -> Columns:
        """The columns in use."""
        if self._columns is None:
            self.shards()
        assert self._columns is not None
        return self._columns

    def shards(self) -> Sequence[Shard]:
        """See :meth:`pipelines.sources.Source.shards`."""
        if self._shards is None:
            shards, self._columns = self._look()
            self._shards = sorted(shards, key=lambda shard: shard.name)
        return self._shards

    def fingerprint(self) -> dict[str, Any]:
        """See :meth:`pipelines.sources.Source.fingerprint`."""
        return {"columns": asdict(self.columns), **self.images.fingerprint()}

    @abstractmethod
    def _look(self) -> tuple[Sequence[Shard], Columns]:
        """List every shard, and find the columns to read from them."""

    def _reader(self, shard: Shard) -> RowReader:
        fs, _ = open_input(self.url)
        return RowReader(self.columns, shard, self.images.resolver(fs, shard.path), self.prompt, self.max_text_bytes)


@contextmanager
def shard_errors(shard: Shard) -> Iterator[None]:
    """Raise RunError with the shard's path if its bytes cannot be read: no single row is at fault."""
    try:
        yield
    except (pa.ArrowException, ValueError, EOFError, OSError) as error:
        raise RunError(f"shard {shard.path} cannot be read: {error}") from error
