"""Turn one record into one row: a sample, several captions of the same images, or a failure instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from pipelines.sources import Captions, ReadRow, Shard
from pipelines.sources.columns import Columns, Names
from pipelines.sources.images import ImageResolver
from scorer.errors import FailureCode, RowError
from scorer.messages import parse_conversation
from scorer.results import Failure
from scorer.types import Sample, Turn

Record = Mapping[str, Any] | RowError
"""A row's values by column. A RowError replaces a value, or a whole record, that cannot be read."""

_THREADS: Final = 16


@dataclass(frozen=True, slots=True)
class RowReader:
    """Reads rows of one shard."""

    columns: Columns
    shard: Shard
    resolver: ImageResolver
    prompt: str

    def rows(self, records: Sequence[Record], first: int) -> list[ReadRow]:
        """Turn records into consecutive rows, starting at row ``first`` of the shard; one entry per record."""
        places = range(first, first + len(records))
        if not self.resolver.waits:
            return [self.row(record, i) for record, i in zip(records, places, strict=True)]
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(self.row, records, places))

    def row(self, record: Record, row_index: int) -> ReadRow:
        """Turn a record into row ``row_index`` of the shard."""
        sample_id = self.shard.row_id(row_index)
        try:
            if isinstance(record, RowError):
                raise record
            if self.columns.id is not None:
                value = _value(record, self.columns.id)
                sample_id = sample_id if value is None else str(value)
            return self._sample(record, sample_id)
        except RowError as error:
            return Failure(sample_id, error.code, error.message)

    def _sample(self, record: Mapping[str, Any], sample_id: str) -> Sample | Captions:
        columns = self.columns
        column = columns.text or columns.messages
        assert column is not None and columns.image is not None
        value = _values(record, column)
        if value is None:
            raise RowError(FailureCode.TEXT_MISSING, f"column {column!r} is null; there is no text to score")
        cell = _values(record, columns.image)
        if columns.messages is not None and _no_image(cell) and not _has_places(value):
            return parse_conversation(sample_id, (), value)
        images = self.resolver.images(cell)
        contrast = ()
        if columns.contrast_image is not None:
            contrast = self.resolver.images(_values(record, columns.contrast_image))
        if columns.messages is not None:
            return parse_conversation(sample_id, images, value, contrast)
        prompt = _value(record, columns.prompt) if columns.prompt is not None else None
        question = Turn.question(len(images), self.prompt if prompt is None else prompt)
        if isinstance(value, list):
            return _captions(sample_id, images, question, value, contrast)
        return Sample(sample_id, images, (question, Turn("assistant", (value,))), contrast)


def _captions(
    sample_id: str, images: tuple[Any, ...], question: Turn, values: list[Any], contrast: tuple[Any, ...]
) -> Captions:
    texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
    for k, text in enumerate(texts):
        if not isinstance(text, str | None):
            problem = f"turn {k} of {len(texts)} is {type(text).__name__}; it must be a string or null"
            raise RowError(FailureCode.TEXT_INVALID, problem)
    if not any(text and text.strip() for text in texts):
        problem = f"all {len(texts)} turns of the row are null or empty; there is no text to score"
        raise RowError(FailureCode.TEXT_MISSING, problem)
    return Captions(sample_id, images, question, tuple(text or "" for text in texts), contrast)


def _no_image(cell: Any) -> bool:
    """Whether an image cell names no image: null, empty, or a list or a struct of nothing else."""
    if isinstance(cell, list):
        return all(map(_no_image, cell))
    return not (cell.get("bytes") or cell.get("path") if isinstance(cell, dict) else cell)


def _has_places(messages: Any) -> bool:
    """Whether a conversation has places for images; if so, a row without an image lacks one."""
    try:
        return not parse_conversation("", (), messages).text_only
    except RowError:
        return True


def _values(record: Mapping[str, Any], names: Names) -> Any:
    """Return the value of a column; for several columns, the list of their values."""
    return _value(record, names) if isinstance(names, str) else [_value(record, name) for name in names]


def _value(record: Mapping[str, Any], name: str) -> Any:
    value = record.get(name)
    if isinstance(value, RowError):
        raise value
    return value
