"""WebDataset: tar shards in which the members of one key are one sample (``0001.jpg``, ``0001.txt``, ``0001.json``).

Names are taken apart as the ``webdataset`` library does, which the tests hold this file against. Read with it, a shard
is a stream: to reach a unit's rows it would have to be read from its start for every unit, members of a key that are
not neighbours would be two samples, and importing it loads torch. So the headers are read once, and members by place.
They are never extracted, and none is decoded but by its suffix: ``json`` as JSON, ``txt`` as text, pictures not at all
before :func:`scorer.encoding.images.load_image`. Nothing is ever unpickled.
"""

from __future__ import annotations

import logging
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import SEEK_END, BytesIO
from typing import Any, BinaryIO, Final

import pyarrow as pa

from pipelines.sources.byte_index import ByteIndex, Extent
from pipelines.sources.columns import ID_NAMES, TEXT_NAMES, Columns
from pipelines.sources.records import infer_schema, parse_record
from pipelines.sources.rows import Record
from scorer.errors import FailureCode, RowError

log = logging.getLogger(__name__)

KEY: Final = "__key__"
IMAGE: Final = "image"
"""Stands for the one picture of a sample, whatever its suffix."""
IMAGE_SUFFIXES: Final = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
TEXT: Final = "txt"
TEXT_SUFFIXES: Final = (TEXT, "text", "caption")
MAX_TEXT: Final = 16 * 2**20
"""Bytes of a text or JSON member."""

_NAME: Final = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
_BLOCK: Final = tarfile.BLOCKSIZE
_DAMAGE: Final = (tarfile.TarError, ValueError, OverflowError, EOFError, MemoryError, RecursionError)
"""What tarfile raises for bytes that are no tar, hostile ones included."""


@dataclass(frozen=True, slots=True)
class WebDataset:
    """See :class:`pipelines.sources.indexed.Format`.

    Rows are samples in the order in which their keys appear. A shard that is cut off or damaged has one row more,
    which fails and stands for whatever is missing; a sample that is cut off with it fails too.

    Attributes:
        max_image_bytes: limit of a member that is no text; a larger one is not read.
    """

    max_image_bytes: int = 64 * 2**20
    name: str = "webdataset"
    suffixes: tuple[str, ...] = (".tar",)

    def index(self, file: BinaryIO) -> ByteIndex:
        rows: dict[str, int] = {}
        runs: list[tuple[int, int, int]] = []
        walk = _Walk(file)
        for member, end in walk:
            found = split_name(member.name)
            if found is not None and member.isreg() and not member.issparse():
                runs.append((rows.setdefault(found[0], len(rows)), member.offset, end))
        if not runs and walk.damaged_at == 0:
            raise ValueError("it does not begin with a member's header")
        return ByteIndex.build(runs, walk.damaged_at)

    def records(self, runs: Sequence[bytes], extent: Extent, columns: Columns | None) -> list[Record]:
        wanted = None if columns is None else frozenset(columns.names())
        samples: dict[str, dict[str, Any]] = {}
        for data in runs:
            walk = _Walk(BytesIO(data))
            for member, _ in walk:
                found = split_name(member.name)
                if found is None or not member.isreg() or member.issparse():
                    continue
                key, suffix = found
                sample = samples.setdefault(key, {})
                if suffix in sample:
                    sample[suffix] = _unreadable(f"the sample {key!r} has two members {suffix!r}")
                elif _is_wanted(suffix, wanted):
                    sample[suffix] = self._value(walk.tar, member, suffix)
                else:
                    sample[suffix] = None
        records: list[Record] = [_record(key, sample, wanted) for key, sample in samples.items()]
        if extent.damaged_at is not None:
            records.append(
                _unreadable(
                    f"the shard is cut off or damaged at byte {extent.damaged_at:,}: samples from there on are missing"
                )
            )
        return records

    def schema(self, records: Sequence[Record], asked: Columns) -> pa.Schema:
        """Members and the keys of the ``json`` member; a ``txt`` member is the text if there is one.

        (The JSON that img2dataset writes repeats the caption, its URL and its own key.)
        """
        schema = infer_schema(records)
        hidden = set(ID_NAMES) | (set(TEXT_NAMES) - {TEXT} if TEXT in schema.names else set())
        if IMAGE in schema.names and pa.types.is_binary(schema.field(IMAGE).type):
            hidden |= set(IMAGE_SUFFIXES)
        names = asked.names()
        named = {part.strip() for name in names for part in (name, *name.split(","))}
        return pa.schema([field for field in schema if field.name in named | {KEY} or field.name not in hidden])

    def _value(self, tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str) -> Any:
        is_text = suffix in TEXT_SUFFIXES or suffix == "json"
        limit = MAX_TEXT if is_text else self.max_image_bytes
        if member.size > limit:
            code = FailureCode.ROW_UNREADABLE if is_text else FailureCode.IMAGE_TOO_LARGE
            return RowError(code, f"the member {member.name[-200:]!r} has {member.size} bytes, more than {limit}")
        try:
            file = tar.extractfile(member)
            data = b"" if file is None else file.read()
        except _DAMAGE:
            data = b""
        if len(data) != member.size:
            return _unreadable(f"the shard ends inside the member {member.name[-200:]!r} of {member.size} bytes")
        if suffix == "json":
            return parse_record(data)
        if suffix not in TEXT_SUFFIXES:
            return data
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            return RowError(FailureCode.TEXT_INVALID, f"the member {member.name[-200:]!r} is not UTF-8: {error}")


def split_name(name: str) -> tuple[str, str] | None:
    """Key and suffix of a member, as the library takes them apart; None for a member that is no part of a sample."""
    if "/" not in name and name.startswith("__") and name.endswith("__"):
        return None
    match = _NAME.fullmatch(name)
    return None if match is None else (match[1], match[2].lower())


class _Walk:
    """The members of a tar and where each ends, header by header; the data between is passed over.

    Attributes:
        damaged_at: once it ended: the byte from which on there is no tar any more; None if it was closed as it should.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.damaged_at: int | None = None
        self._file = file
        self._size = file.seek(0, SEEK_END)
        file.seek(0)

    def __iter__(self) -> Iterator[tuple[tarfile.TarInfo, int]]:
        at = 0
        try:
            self.tar = tarfile.TarFile(fileobj=self._file, encoding="utf-8")
            while (member := self.tar.next()) is not None and self.tar.offset > at:  # a size below zero leads back
                at = self.tar.offset
                # Else it would keep them all.
                self.tar.members.clear()  # type: ignore[attr-defined]  # typeshed lacks this attribute
                yield member, min(at, self._size)
        except _DAMAGE as error:
            log.info("a tar ends at byte %d: %r", at, error)
        at = min(at, self._size)
        self._file.seek(at)
        closing = self._file.read(_BLOCK)
        # tarfile takes whatever is no header for the end; the end is a block of zeros.
        self.damaged_at = None if len(closing) == _BLOCK and not any(closing) else at


def _record(key: str, members: dict[str, Any], wanted: frozenset[str] | None) -> Record:
    json = members.get("json")
    fields = dict(json) if isinstance(json, dict) else dict.fromkeys(wanted or (), json)
    pictures = [suffix for suffix in IMAGE_SUFFIXES if suffix in members]
    picture: dict[str, Any] = {IMAGE: members[pictures[0]]} if pictures else {}
    if len(pictures) > 1:
        problem = f"the sample has several pictures ({', '.join(pictures)}); name one or more with --image-column"
        picture[IMAGE] = RowError(FailureCode.CONVERSATION_INVALID, problem)
    # A key may hold bytes that are no text; an id must be text.
    name = key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return {**fields, **members, **picture, KEY: name}


def _is_wanted(suffix: str, wanted: frozenset[str] | None) -> bool:
    if wanted is None or suffix in wanted or suffix == "json":
        return True
    return IMAGE in wanted and suffix in IMAGE_SUFFIXES


def _unreadable(problem: str) -> RowError:
    return RowError(FailureCode.ROW_UNREADABLE, problem)
