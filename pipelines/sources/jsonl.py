"""Read JSON Lines: one record per line, plain or compressed (``.gz``, ``.zst``). Blank lines are not rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

import pyarrow as pa

from pipelines.sources.byte_index import ByteIndex, Extent
from pipelines.sources.columns import Columns
from pipelines.sources.records import infer_schema, parse_record
from pipelines.sources.rows import Record
from scorer.errors import FailureCode, RowError

MAX_RECORD: Final = 64 * 2**20
"""Maximum bytes of one record: a longer one fails its row. A file with a longer line that is no object is refused."""
_MARK: Final = b"\xef\xbb\xbf"  # UTF-8's byte order mark
_UTF16: Final = re.compile(rb"\xff\xfe|\xfe\xff|[{\[]\0|\0[{\[]")
_ARRAY: Final = re.compile(rb"(\xef\xbb\xbf)?\s*\[\s*(\{|$)")


class JsonLines:
    """See :class:`pipelines.sources.indexed.Format`. A line that is no JSON object, or too long, fails its row only."""

    name = "jsonl"
    suffixes = tuple(f".{name}{packed}" for name in ("jsonl", "jsonlines", "ndjson") for packed in ("", ".gz", ".zst"))

    def index(self, file: BinaryIO) -> ByteIndex:
        return ByteIndex.build((row, start, end) for row, (start, end) in enumerate(_lines(file)))

    def records(self, runs: Sequence[bytes], extent: Extent, columns: Columns | None) -> list[Record]:
        return [_parse(line.removeprefix(_MARK)) for data in runs for line in data.split(b"\n") if _is_record(line)]

    def schema(self, records: Sequence[Record], asked: Columns) -> pa.Schema:
        return infer_schema(records)


def refuse_utf16(start: bytes) -> None:
    """Raise ValueError if a file begins as JSON in UTF-16 or UTF-32 does: a line feed's byte ends no line there."""
    if _UTF16.match(start):
        raise ValueError("it is UTF-16 or UTF-32; JSON is read as UTF-8, so convert it, for example with iconv")


def _refuse_array(start: bytes) -> None:
    """Raise ValueError if the first line opens an array of records: most lines would each fail as a row."""
    if _ARRAY.match(start):
        raise ValueError("it is one JSON array, not one record per line; name it .json, or give --format json")


def _parse(line: bytes) -> Record:
    if len(line) > MAX_RECORD:
        problem = f"the record has more than {MAX_RECORD:,} bytes; it begins with {line[:40]!r}; shorten it"
        return RowError(FailureCode.ROW_UNREADABLE, problem)
    return parse_record(line)


def _lines(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Yield the byte range of each record, including its line break and any blank lines after it.

    Of a line that is too long, the range has the first bytes only: as many as show that it is.
    """
    start = end = 0
    empty = True
    while line := file.readline(MAX_RECORD + 1):
        if end == 0:
            refuse_utf16(line)
            _refuse_array(line)
        if len(line) > MAX_RECORD:
            if not line.removeprefix(_MARK).lstrip().startswith(b"{"):
                raise ValueError(
                    f"the line at byte {end} has more than {MAX_RECORD:,} bytes and is no object: the file is not "
                    "JSON Lines"
                )
            if not empty:
                yield start, end
            yield end, end + len(line)
            while line:
                end += len(line)
                line = b"" if line.endswith(b"\n") else file.readline(MAX_RECORD)
            start, empty = end, True
            continue
        if _is_record(line):
            if not empty:
                yield start, end
            start, empty = end, False
        end += len(line)
    if not empty:
        yield start, end


def _is_record(line: bytes) -> bool:
    return bool(line.removeprefix(_MARK).strip())
