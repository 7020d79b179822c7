"""Read WebDataset: tar shards where the members of one key form a sample (``0001.jpg``, ``0001.txt``, ``0001.json``).

Names are split as the ``webdataset`` library splits them, and the tests compare the two: the key ends at the first dot
of the base name, so ``22.05.txt`` is the member ``05.txt`` of the sample ``22``. As there, the last part of a compound
suffix says what a member is (``outputs.txt`` is text); a member that an option names as text is text whatever its
suffix. The library itself is not
used: it reads a shard as a stream, so every unit would have to read its shard from the start; members of a key that
are not adjacent would become two samples; and importing it loads torch. Here the headers are read once, and members by
offset. Members are never extracted to disk, and only their suffix, or an option, decides how they are decoded:
``json`` as JSON, ``txt`` as text, images not before :func:`scorer.encoding.images.load_image`. Nothing is unpickled.
"""

from __future__ import annotations

import logging
import re
import tarfile
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from io import SEEK_END, BytesIO
from typing import Any, BinaryIO, Final

import pyarrow as pa

from pipelines.sources.account import HIDDEN, PassedOver
from pipelines.sources.byte_index import ByteIndex, Extent
from pipelines.sources.columns import ID_NAMES, TEXT_NAMES, Columns
from pipelines.sources.records import infer_schema, parse_record
from pipelines.sources.rows import Record
from scorer.encoding.image_formats import FORMATS
from scorer.errors import FailureCode, RowError

log = logging.getLogger(__name__)

KEY: Final = "__key__"
IMAGE: Final = "image"
"""Name of the column with a sample's only image, whatever its suffix."""
IMAGE_SUFFIXES: Final = tuple(suffix for format in FORMATS for suffix in format.suffixes)
JSON: Final = "json"
TEXT: Final = "txt"
TEXT_SUFFIXES: Final = (TEXT, "text", "caption")
MAX_TEXT: Final = 16 * 2**20
"""Maximum bytes of a text or JSON member."""

_LINK: Final = "link"
_NAME: Final = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
_BLOCK: Final = tarfile.BLOCKSIZE
_DAMAGE: Final = (tarfile.TarError, ValueError, OverflowError, EOFError, MemoryError, RecursionError)
"""What tarfile raises for bytes that are not a valid tar, including hostile ones."""


@dataclass(frozen=True, slots=True)
class WebDataset:
    """See :class:`pipelines.sources.indexed.Format`.

    Rows are samples in the order in which their keys first appear. A shard that is cut off or damaged has one more row,
    which fails and represents everything that is missing; a sample that is cut off fails too.

    Attributes:
        max_image_bytes: limit for a member that is not text; a larger one is not read.
        text: suffixes of members that are text because the user named them so.
    """

    max_image_bytes: int = 64 * 2**20
    text: frozenset[str] = frozenset()
    name: str = "webdataset"
    suffixes: tuple[str, ...] = (".tar",)

    def index(self, file: BinaryIO) -> ByteIndex:
        rows: dict[str, int] = {}
        runs: list[tuple[int, int, int]] = []
        walk = _Walk(file)
        passed_over = PassedOver()
        links: list[tuple[str, str, int, int]] = []
        for member, end in walk:
            found = _part_of_sample(member)
            if found == _LINK:
                links.append(((split_name(member.name) or ("", ""))[0], member.name[-200:], member.offset, end))
            elif isinstance(found, str):
                passed_over.add(found, member.name[-200:])
            elif found is not None:
                runs.append((rows.setdefault(found[0], len(rows)), member.offset, end))
        for key, name, start, end in links:
            if key in rows:  # the sample must fail: without what the link stands for it would be another one
                runs.append((rows[key], start, end))
            else:
                passed_over.add(_LINK, name)
        if not runs and walk.damaged_at == 0:
            raise ValueError("it does not begin with a member's header")
        return ByteIndex.build(runs, walk.damaged_at, passed_over.to_dict())

    def records(self, runs: Sequence[bytes], extent: Extent, columns: Columns | None) -> list[Record]:
        wanted = None if columns is None else frozenset(columns.names())
        samples: dict[str, dict[str, Any]] = {}
        links: list[tuple[str, str, str]] = []
        for data in runs:
            walk = _Walk(BytesIO(data))
            for member, _ in walk:
                found = _part_of_sample(member)
                if found == _LINK and (linked := split_name(member.name)) is not None:
                    links.append((*linked, member.linkname[-200:]))
                if found is None or isinstance(found, str):
                    continue
                key, suffix = found
                sample = samples.setdefault(key, {})
                if suffix in sample:
                    sample[suffix] = _unreadable(f"the sample {key!r} has two members {suffix!r}; keep one")
                elif self._is_wanted(suffix, wanted):
                    sample[suffix] = self._value(walk.tar, member, suffix)
                else:
                    sample[suffix] = None
        for key, suffix, target in links:
            if key in samples:
                problem = f"is a link to {target!r}, which is not followed; write the shard with the file itself"
                samples[key][suffix] = _unreadable(f"the member {suffix!r} of {key!r} {problem}")
        records: list[Record] = [_record(key, sample, wanted) for key, sample in samples.items()]
        if extent.damaged_at is not None:
            records.append(
                _unreadable(
                    f"the shard is cut off or damaged at byte {extent.damaged_at:,}: samples from there on are "
                    "missing; download or write it again"
                )
            )
        return records

    def schema(self, records: Sequence[Record], asked: Columns) -> pa.Schema:
        """Return the members and the keys of the ``json`` member as columns; a ``txt`` member, if any, is the text.

        Other columns that could be taken for the text or the id are left out unless ``asked`` names them, because the
        JSON that img2dataset writes repeats the caption and has a URL and a key of its own.
        """
        schema = infer_schema(records)
        hidden = set(ID_NAMES) | (set(TEXT_NAMES) - {TEXT} if TEXT in schema.names else set())
        if IMAGE in schema.names and pa.types.is_binary(schema.field(IMAGE).type):
            hidden |= set(IMAGE_SUFFIXES)
        names = asked.names()
        named = {part.strip() for name in names for part in (name, *name.split(","))}
        return pa.schema([field for field in schema if field.name in named | {KEY} or field.name not in hidden])

    def _is_wanted(self, suffix: str, wanted: frozenset[str] | None) -> bool:
        if wanted is None or suffix in wanted or suffix.rpartition(".")[2] == JSON:
            return True
        return IMAGE in wanted and suffix in IMAGE_SUFFIXES

    def _value(self, tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str) -> Any:
        kind = suffix.rpartition(".")[2]
        is_text = suffix in self.text or kind in (*TEXT_SUFFIXES, JSON)
        limit = MAX_TEXT if is_text else self.max_image_bytes
        if member.size > limit:
            code = FailureCode.ROW_UNREADABLE if is_text else FailureCode.IMAGE_TOO_LARGE
            remedy = "shorten it" if is_text else "shrink the image or raise --max-image-bytes"
            problem = f"the member {member.name[-200:]!r} has {member.size:,} bytes, more than {limit:,}; {remedy}"
            return RowError(code, problem)
        try:
            file = tar.extractfile(member)
            data = b"" if file is None else file.read()
        except _DAMAGE:
            data = b""
        if len(data) != member.size:
            return _unreadable(f"the shard ends inside the member {member.name[-200:]!r} of {member.size} bytes")
        if kind == JSON:
            return _parse_json(data) if suffix in self.text else parse_record(data)
        if not is_text:
            return data
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            return RowError(FailureCode.TEXT_INVALID, f"the member {member.name[-200:]!r} is not UTF-8: {error}")


def text_members(columns: Columns) -> frozenset[str]:
    """Return the suffixes of the members that options name as text: caption, conversation, id or prompt."""
    named = Columns(text=columns.text, messages=columns.messages, id=columns.id, prompt=columns.prompt).names()
    return frozenset(part.strip() for name in named for part in (name, *name.split(",")))


def split_name(name: str) -> tuple[str, str] | None:
    """Split a member's name into key and suffix as the library does; None if the member belongs to no sample."""
    if "/" not in name and name.startswith("__") and name.endswith("__"):
        return None
    match = _NAME.fullmatch(name)
    return None if match is None else (match[1], match[2].lower())


class _Walk:
    """Iterates over a tar's members and the byte at which each ends, reading headers and skipping the data.

    Attributes:
        damaged_at: set after iteration: the byte at which the tar becomes unreadable; None if it was closed properly.
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
            while (member := self.tar.next()) is not None and self.tar.offset > at:  # a negative size would go back
                at = self.tar.offset
                # Otherwise tarfile would keep them all.
                self.tar.members.clear()  # type: ignore[attr-defined]  # typeshed lacks this attribute
                yield member, min(at, self._size)
        except _DAMAGE as error:
            log.info("a tar ends at byte %d: %r", at, error)
        at = min(at, self._size)
        self._file.seek(at)
        closing = self._file.read(_BLOCK)
        # tarfile takes anything that is not a header for the end; the true end is a block of zeros.
        self.damaged_at = None if len(closing) == _BLOCK and not any(closing) else at


def _part_of_sample(member: tarfile.TarInfo) -> tuple[str, str] | str | None:
    """Return the key and the suffix of a member, or why it belongs to no sample; None for a folder."""
    if member.isdir():
        return None
    if (not member.isreg() or member.issparse()) and not _is_link(member):
        return "not a regular file"
    parts = member.name.split("/")
    if parts[-1].startswith("._") or "__MACOSX" in parts:
        return "AppleDouble"  # what macOS keeps beside a file: never a part of a sample
    if parts[-1].startswith("."):
        return HIDDEN
    if _is_link(member):
        return _LINK
    return split_name(member.name) or "without a key and a suffix"


def _is_link(member: tarfile.TarInfo) -> bool:
    return member.issym() or member.islnk()


def _parse_json(data: bytes) -> Any:
    """Parse a JSON member that is itself a column: whatever value it has."""
    wrapped = parse_record(b'{"value":' + data + b"}")
    return wrapped if isinstance(wrapped, RowError) else wrapped["value"]


def _record(key: str, members: dict[str, Any], wanted: frozenset[str] | None) -> Record:
    found = members.get(JSON)
    # A JSON member that cannot be read fails every column that it should hold.
    fields = dict.fromkeys(wanted or (), found) if isinstance(found, RowError) else dict(found or {})
    compound: dict[str, Any] = {}
    for suffix, value in members.items():
        if suffix.endswith(f".{JSON}") and isinstance(value, dict):
            both = compound.keys() & value.keys()
            compound |= value | dict.fromkeys(both, _unreadable(_same_keys(key, both)))
    fields = compound | fields
    suffixes = [suffix for suffix in IMAGE_SUFFIXES if suffix in members]
    image: dict[str, Any] = {IMAGE: members[suffixes[0]]} if suffixes else {}
    if len(suffixes) > 1:
        problem = f"the sample has several images ({', '.join(suffixes)}); name one or more with --image-column"
        image[IMAGE] = RowError(FailureCode.CONVERSATION_INVALID, problem)
    # A key may contain bytes that are not valid text, but an id must be text.
    name = key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return {**fields, **members, **image, KEY: name}


def _same_keys(key: str, names: Set[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in sorted(names)[:8])
    return f"several JSON members of the sample {key!r} have the key {shown}; keep it in one of them"


def _unreadable(problem: str) -> RowError:
    return RowError(FailureCode.ROW_UNREADABLE, problem)
