"""Read LLaVA's format: one JSON array of records (``id``, ``image``, ``conversations``), with the images in a folder.

The array is never loaded as a whole: it is scanned once through a window, and a unit then reads only its own bytes. The
scan runs the standard library's JSON parser on the file's bytes as Latin-1, where one character is one byte, so an
offset in the text is an offset in the file. (A streaming parser such as ijson returns values without their offsets:
each unit would have to parse everything before its rows.)

A file without the array's brackets is read as consecutive records, like JSON Lines in a file named ``.json``. A single
object that holds a whole table (columns as lists, COCO's annotations, ``{"data": [...]}``) is refused: it is not a row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any, BinaryIO, Final

import pyarrow as pa

from pipelines.sources.byte_index import ByteIndex, Extent, Run
from pipelines.sources.columns import ROLES, Columns
from pipelines.sources.jsonl import MAX_RECORD, refuse_utf16
from pipelines.sources.records import infer_schema, parse_record
from pipelines.sources.rows import Record
from scorer.errors import FailureCode, RowError
from scorer.messages import PAIR_KEYS

CHUNK: Final = 4 * 2**20
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_SPACE_OR_COMMA: Final = re.compile(r"[ \t\r\n,]*")
_FIRST_KEY: Final = re.compile(r'\{\s*"([^"]{0,40})')
_BRACKET: Final = re.compile(r'["{}\[\]]')
_STRING_END: Final = re.compile(r'["\\]')
_MARK: Final = "\xef\xbb\xbf"  # UTF-8's byte order mark, read as Latin-1


class JsonArray:
    """See :class:`pipelines.sources.indexed.Format`.

    A damaged file is refused: unlike in JSON Lines, records after the damage cannot be separated with certainty. A
    record that is nested too deeply for the parser, or too long, fails alone: it ends where its brackets close.
    """

    name = "json"
    suffixes = (".json",)

    def index(self, file: BinaryIO) -> ByteIndex:
        """Index the records. Each one's bytes extend to the next record, so adjacent ones join."""
        return ByteIndex.build(_up_to_the_next(find_records(file)))

    def records(self, runs: Sequence[bytes], extent: Extent, columns: Columns | None) -> list[Record]:
        return [
            _parse(data[start:end])
            for data in runs
            for start, end in _Window(BytesIO(data), between=_SPACE_OR_COMMA).values(inside=False)
        ]

    def schema(self, records: Sequence[Record], asked: Columns) -> pa.Schema:
        return infer_schema(records)


def _parse(data: bytes) -> Record:
    if len(data) > MAX_RECORD:
        problem = (
            f"the record has {len(data):,} bytes, more than {MAX_RECORD:,}; it begins with {data[:40]!r}; shorten it"
        )
        return RowError(FailureCode.ROW_UNREADABLE, problem)
    return parse_record(data)


def find_records(file: BinaryIO, chunk: int = CHUNK) -> Iterator[Run]:
    """Yield the byte range of each element of an array, or of each of several consecutive values.

    Raises:
        ValueError: the file is not valid JSON; the message names the byte.
    """
    window = _Window(file, chunk)
    window.skip_mark()
    if window.peek() != "[":
        records = window.values(inside=False)
        first = next(records, None)
        if first is None:
            return
        if isinstance(window.last, dict) and not window.peek() and _is_table(window.last):
            raise ValueError(_table_problem(list(window.last)))
        window.last = None
        yield first
        yield from records
        return
    window.step()
    if window.peek() != "]":
        yield from window.values(inside=True)
    if window.peek() != "]":
        raise window.error("the array is not closed: the file is cut off or damaged")
    window.step()
    if window.peek():
        raise window.error("the array is followed by something else")


def _is_table(found: Mapping[str, Any]) -> bool:
    """Whether the only object of a file is a table, not one row."""
    values = [value for value in found.values() if value is not None]
    nested = [value for value in values if isinstance(value, (list, dict)) and value]
    if not nested or any(_is_messages(value) for value in nested):
        return False
    if len(nested) == len(values):
        return True
    known = {*ROLES["image"].names, *ROLES["text"].names}
    tables = any(isinstance(value, list) and all(isinstance(one, dict) for one in value) for value in nested)
    return tables and not any(name.lower() in known and isinstance(value, str) for name, value in found.items())


def _is_messages(value: Any) -> bool:
    keys = [{"role"}, {"from"}, *map(set, PAIR_KEYS)]
    return isinstance(value, list) and isinstance(value[0], dict) and any(key <= set(value[0]) for key in keys)


def _table_problem(keys: Sequence[str]) -> str:
    shown = ", ".join(repr(key[:40]) for key in keys[:8]) + (", …" if len(keys) > 8 else "")
    return (
        f"it is one object that holds a table, not one row (its keys: {shown}); "
        "write it as an array of records, [{...}, {...}], or as JSON Lines"
    )


class _Window:
    """A window of the file as Latin-1 text, which moves forward as it is read."""

    def __init__(self, file: BinaryIO, chunk: int = CHUNK, between: re.Pattern[str] = _SPACE) -> None:
        self._file = file
        self._chunk = chunk
        self._between = between
        self._text = ""
        self._first = 0  # offset of text[0] in the file, in bytes
        self._at = 0  # index of the next character in text
        # Values are not needed as numbers, and one of too many digits must fail its own row only.
        self._decoder = json.JSONDecoder(parse_int=len, parse_float=len)
        self.last: Any = None
        """The value that was parsed last; None if it was skipped."""

    def skip_mark(self) -> None:
        """Skip UTF-8's byte order mark. Raise ValueError for another encoding."""
        self._more()
        refuse_utf16(self._text[:4].encode("latin-1"))
        if self._text.startswith(_MARK):
            self._at = len(_MARK)

    def peek(self) -> str:
        """Return the next character that is not white space; an empty string at the end of the file."""
        while True:
            space = self._between.match(self._text, self._at)
            assert space is not None
            self._at = space.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def step(self) -> None:
        """Skip the character that :meth:`peek` returned."""
        self._at += 1

    def values(self, inside: bool) -> Iterator[Run]:
        """Yield the byte ranges of consecutive values; ``inside`` an array, separated by commas and up to its end."""
        while self.peek():
            yield self._value()
            if inside and self.peek() not in ("", "]"):
                if self.peek() != ",":
                    raise self.error("there is no comma between two records")
                self.step()
            elif inside:
                return

    def error(self, problem: str) -> ValueError:
        return ValueError(f"{problem} (at byte {self._first + self._at:,})")

    def _value(self) -> Run:
        while True:
            try:
                self.last, end = self._decoder.raw_decode(self._text, self._at)
            except RecursionError as error:
                if self._text[self._at] == "{":
                    return self._skip()
                raise self.error(f"a record is not valid JSON ({error})") from error
            except ValueError as error:
                if len(self._text) - self._at <= MAX_RECORD:
                    if self._more():
                        continue
                elif self._text[self._at] == "{":
                    if self._first + self._at <= len(_MARK):
                        key = _FIRST_KEY.match(self._text, self._at)
                        raise self.error(
                            f"the first record has more than {MAX_RECORD:,} bytes (its first key is "
                            f"{key[1] if key else ''!r}); if the file is one object that holds a table, write it as an "
                            "array of records or JSON Lines"
                        ) from error
                    return self._skip()
                raise self.error(f"a record is not valid JSON ({error})") from error
            # A number that ends where the window does may continue after it.
            if end < len(self._text) or not self._more():
                run = (self._first + self._at, self._first + end)
                self._at = end
                return run

    def _skip(self) -> Run:
        """Find the end of an object by its brackets alone, without parsing or keeping it."""
        start, depth, in_string = self._first + self._at, 0, False
        while True:
            found = (_STRING_END if in_string else _BRACKET).search(self._text, self._at)
            self._at = len(self._text) if found is None else found.end()
            escape = found is not None and found[0] == "\\"
            if found is None or (escape and self._at == len(self._text)):
                if not self._more():
                    raise self.error("a record is not valid JSON (it is not closed)")
            elif found[0] == '"':
                in_string = not in_string
            elif not escape:
                depth += 1 if found[0] in "{[" else -1
                if depth == 0:
                    return start, self._first + self._at
            self._at += escape

    def _more(self) -> bool:
        """Drop what was parsed and at least double the rest, so that a long value is parsed again only log n times."""
        data = self._file.read(max(self._chunk, len(self._text) - self._at))
        self._text = self._text[self._at :] + data.decode("latin-1")
        self._first += self._at
        self._at = 0
        return bool(data)


def _up_to_the_next(runs: Iterator[Run]) -> Iterator[tuple[int, int, int]]:
    row, held = 0, next(runs, None)
    for run in runs:
        assert held is not None
        yield row, held[0], run[0]
        row, held = row + 1, run
    if held is not None:
        yield row, *held
