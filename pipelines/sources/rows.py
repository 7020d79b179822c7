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
from scorer.ids import row_id
from scorer.messages import is_conversation_text, parse_conversation, question_turn
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
                sample_id = row_id(_value(record, self.columns.id)) or sample_id
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
        images = self.resolver.images(cell)
        contrast = ()
        if columns.contrast_image is not None:
            contrast = self.resolver.images(_values(record, columns.contrast_image))
        prompt = _value(record, columns.prompt) if columns.prompt is not None else None
        if columns.messages is not None:
            return parse_conversation(
                sample_id, images, value, contrast, prompt=prompt, own_image=self.resolver.own_image
            )
        if isinstance(prompt, list):
            answer = [{"role": "assistant", "content": value}]
            return parse_conversation(
                sample_id, images, answer, contrast, prompt=prompt, own_image=self.resolver.own_image
            )
        if prompt is not None and not isinstance(prompt, str):
            problem = f"the prompt is {type(prompt).__name__}; it must be a string, a list of messages or null"
            raise RowError(FailureCode.TEXT_INVALID, problem)
        count = len(images)
        question = Turn.question(count, self.prompt) if prompt is None else question_turn(count, prompt)
        if isinstance(value, list):
            return _captions(sample_id, images, question, value, contrast)
        if not isinstance(value, str):
            raise RowError(FailureCode.TEXT_INVALID, f"the text is {type(value).__name__}; it must be a string")
        _refuse_conversation(value)
        return Sample(sample_id, images, (question, Turn("assistant", (value,))), contrast)


def _refuse_conversation(text: str) -> None:
    """Raise RowError if a text is markup: a conversation that was stored as a string."""
    if is_conversation_text(text):
        problem = (
            f"the text is a list of messages stored as a string, {text[:40]!r}…; "
            "name its column with --messages-column instead of --text-column"
        )
        raise RowError(FailureCode.TEXT_INVALID, problem)


def _captions(
    sample_id: str, images: tuple[Any, ...], question: Turn, values: list[Any], contrast: tuple[Any, ...]
) -> Captions:
    texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
    for k, text in enumerate(texts):
        if not isinstance(text, str | None):
            problem = f"turn {k} of {len(texts)} is {type(text).__name__}; it must be a string or null"
            raise RowError(FailureCode.TEXT_INVALID, problem)
        _refuse_conversation(text or "")
    if not any(text and text.strip() for text in texts):
        problem = f"all {len(texts)} turns of the row are null or empty; there is no text to score"
        raise RowError(FailureCode.TEXT_MISSING, problem)
    return Captions(sample_id, images, question, tuple(text or "" for text in texts), contrast)


def _values(record: Mapping[str, Any], names: Names) -> Any:
    """Return the value of a column; for several columns, the list of their values."""
    return _value(record, names) if isinstance(names, str) else [_value(record, name) for name in names]


def _value(record: Mapping[str, Any], name: str) -> Any:
    value = record.get(name)
    if isinstance(value, RowError):
        raise value
    return value
