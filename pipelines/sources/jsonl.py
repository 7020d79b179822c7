"""Read JSON Lines: one record per line, plain or compressed (``.gz``, ``.zst``). Blank lines are not rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

import pyarrow as pa

from pipelines.sources.byte_index import ByteIndex, Extent
from pipelines.sources.columns import Columns
from pipelines.sources.records import infer_schema, parse_record
from pipelines.sources.rows import Record

MAX_RECORD: Final = 64 * 2**20
"""Maximum bytes of one record: a file with a longer line is refused."""
_MARK: Final = b"\xef\xbb\xbf"  # UTF-8's byte order mark


class JsonLines:
    """See :class:`pipelines.sources.indexed.Format`. If a line is not a JSON object, only its row fails."""

    name = "jsonl"
    suffixes = tuple(f".{name}{packed}" for name in ("jsonl", "jsonlines", "ndjson") for packed in ("", ".gz", ".zst"))

    def index(self, file: BinaryIO) -> ByteIndex:
        return ByteIndex.build((row, start, end) for row, (start, end) in enumerate(_lines(file)))

    def records(self, runs: Sequence[bytes], extent: Extent, columns: Columns | None) -> list[Record]:
        return [
            parse_record(line.removeprefix(_MARK)) for data in runs for line in data.split(b"\n") if _is_record(line)
        ]

    def schema(self, records: Sequence[Record], asked: Columns) -> pa.Schema:
        return infer_schema(records)


def _lines(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Yield the byte range of each record, including its line break and any blank lines after it."""
    start = end = 0
    empty = True
    while line := file.readline(MAX_RECORD + 1):
        if len(line) > MAX_RECORD:
            raise ValueError(f"the line at byte {end} is longer than {MAX_RECORD:,} bytes; is it JSON Lines?")
        if _is_record(line):
            if not empty:
                yield start, end
            start, empty = end, False
        end += len(line)
    if not empty:
        yield start, end


def _is_record(line: bytes) -> bool:
    return bool(line.removeprefix(_MARK).strip())
