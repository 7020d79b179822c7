"""The common base of sources: find columns from the first shard, list shards once, read rows by column."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa

from pipelines.sources import Shard
from pipelines.sources.account import EXAMPLES, FilesAccount, account
from pipelines.sources.columns import Choices, Columns, check_shard, choose, known_ids
from pipelines.sources.images import ImageOptions
from pipelines.sources.listing import FileInfo, list_files, open_input
from pipelines.sources.rows import RowReader
from scorer.config import MAX_TEXT_BYTES
from scorer.errors import ConfigError, RunError


class Named(NamedTuple):
    """The names of one shard: of its file, for messages, and as a :class:`Shard`, under which its scores are stored."""

    file: str
    shard: str


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

    def _settle(self, name: str, schema: pa.Schema, shards: Mapping[pa.Schema, Sequence[Named]]) -> Columns:
        """Find the columns, and hold every shard against them: it is read by these, by its own, or is refused.

        An id is looked for in all shards. One that has another known id than the first is read with its own, and one
        that has none is counted in the account, because its rows are named by their places.

        Args:
            name, schema: of the first shard with rows; the schema may be completed by those of others.
            shards: the names of all shards with rows, by schema without metadata.

        Raises:
            ConfigError: as :func:`choose` and :func:`check_shard` do.
        """
        columns = self._choose(schema, name)
        if columns.id is None and self._asked.id is None and not self._asked.complete:
            late = {key: one for other in reversed(list(shards)) for key, one in known_ids(other).items()}
            if late:
                schema = pa.schema([*(one for one in schema if one.name not in late), *late.values()])
                columns = self._choose(schema, name)
        without: list[str] = []
        for other, names in shards.items():
            own = self._own_choices(columns, (name, schema), names[0], other)
            self._own |= {} if own is None else {one.shard: own for one in names}
            identifier = (columns if own is None else own.columns).id
            if columns.id is not None and identifier not in other.names:
                without += [one.file for one in names]
        if without:
            self._account["without_id"] = {"count": len(without), "examples": sorted(without)[:EXAMPLES]}
        return columns

    def _own_choices(
        self, columns: Columns, first: tuple[str, pa.Schema], shard: Named, schema: pa.Schema
    ) -> Choices | None:
        """Return the columns of a shard that the first one's do not fit; None if they fit.

        Raises:
            ConfigError: the shard can be read neither by those nor by known names of its own.
        """
        recorded = self._asked.own.get(shard.shard)
        if recorded is not None:
            return choose(schema, replace(recorded, complete=True), shard.file)
        try:
            check_shard(columns, first, (shard.file, schema))
        except ConfigError as error:
            asked = Columns() if self._asked.complete else self._asked
            try:
                return choose(schema, asked, shard.file, needs_contrast=self._contrast_images)
            except ConfigError:
                raise error from None
        ids = [one for one in known_ids(schema) if one not in columns.names()]
        is_named = self._asked.id is not None and not self._asked.complete
        if columns.id is None or columns.id in schema.names or is_named or not ids:
            return None
        assert self._choices is not None
        reasons = {**self._choices.reasons, "id": f"known name; the shard has no {columns.id}"}
        return Choices(replace(columns, id=ids[0]), reasons, {})

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
        image_named = self._asked.image is not None
        return RowReader(self.columns_of(shard), shard, resolver, self.prompt, self.max_text_bytes, image_named)


@contextmanager
def shard_errors(shard: Shard) -> Iterator[None]:
    """Raise RunError with the shard's path if its bytes cannot be read: no single row is at fault."""
    try:
        yield
    except (pa.ArrowException, ValueError, EOFError, OSError) as error:
        raise RunError(f"shard {shard.path} cannot be read: {error}") from error
