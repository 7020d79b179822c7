"""The common base of sources: find columns from the first shard, list shards once, read rows by column."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa

from pipelines.sources import Shard
from pipelines.sources.account import FilesAccount, account
from pipelines.sources.columns import Choices, Columns, check_shard, choose
from pipelines.sources.images import ImageOptions
from pipelines.sources.listing import FileInfo, list_files, open_input
from pipelines.sources.rows import RowReader
from scorer.config import MAX_TEXT_BYTES
from scorer.errors import ConfigError, RunError


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
        self._choices: Choices | None = None
        self._own: dict[str, Choices] = {}
        """Of shards whose columns have other names than the first one's."""
        self._shards: Sequence[Shard] | None = None
        self._account: FilesAccount = {"seen": 0, "read": 0, "passed_over": {}}

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

    def choices(self) -> Choices | None:
        """See :meth:`pipelines.sources.Source.choices`."""
        self.shards()
        if self._choices is None or not self._own:
            return self._choices
        return replace(self._choices, own=dict(sorted(self._own.items())))

    def account(self) -> FilesAccount:
        """See :meth:`pipelines.sources.Source.account`."""
        self.shards()
        return self._account

    def fingerprint(self) -> dict[str, Any]:
        """See :meth:`pipelines.sources.Source.fingerprint`."""
        columns: dict[str, Any] = {"columns": self.columns.roles()}
        if self._own:
            columns["own_columns"] = {name: one.columns.roles() for name, one in sorted(self._own.items())}
        return {**columns, **self.images.fingerprint()}

    def columns_of(self, shard: Shard) -> Columns:
        """The columns that are read from a shard."""
        own = self._own.get(shard.name)
        return self.columns if own is None else own.columns

    def _choose(self, schema: pa.Schema, shard: str) -> Columns:
        """Find the columns in a schema, and keep the reasons. Raise ConfigError as :func:`choose` does."""
        self._choices = choose(schema, self._asked, shard, needs_contrast=self._contrast_images)
        return self._choices.columns

    def _check_shard(
        self, columns: Columns, first: tuple[str, pa.Schema], other: tuple[str, pa.Schema], published: str
    ) -> None:
        """Refuse a shard that can be read neither by the first one's columns nor by known names of its own.

        Args:
            columns: those of the first shard.
            first, other: see :func:`check_shard`.
            published: the other's name as a :class:`Shard`, under which its own columns are kept.
        """
        try:
            check_shard(columns, first, other)
        except ConfigError as error:
            name, schema = other
            asked = Columns() if self._asked.complete else self._asked
            try:
                self._own[published] = choose(schema, asked, name, needs_contrast=self._contrast_images)
            except ConfigError:
                raise error from None

    @abstractmethod
    def _look(self) -> tuple[Sequence[Shard], Columns]:
        """List every shard, and find the columns to read from them."""

    def _list(self, suffixes: tuple[str, ...], passes_over: re.Pattern[str] | None = None) -> Sequence[FileInfo]:
        """List the input's files and account for them. Arguments and errors: :func:`listing.list_files`."""
        listing = list_files(self.url, suffixes, passes_over)
        self._account = account(len(listing.files), listing.passed_over)
        return listing.files

    def _reader(self, shard: Shard) -> RowReader:
        fs, _ = open_input(self.url)
        resolver = self.images.resolver(fs, shard.path)
        return RowReader(self.columns_of(shard), shard, resolver, self.prompt, self.max_text_bytes)


@contextmanager
def shard_errors(shard: Shard) -> Iterator[None]:
    """Raise RunError with the shard's path if its bytes cannot be read: no single row is at fault."""
    try:
        yield
    except (pa.ArrowException, ValueError, EOFError, OSError) as error:
        raise RunError(f"shard {shard.path} cannot be read: {error}") from error
