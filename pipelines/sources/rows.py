"""Turn one record into one row: a sample, several captions of the same images, or a failure instead.

Whose an exception is, is decided here and nowhere else (:func:`own_error`). While a value, a record or a row is read or
encoded, rows differ in their own values only, so what is raised is that row's failure. Three kinds are the run's and go
on up, because they would be stored for good although they may pass, or would befall every row:

* OSError: the file system, the network or credentials. (A path that does not exist is a RowError by then.)
* any :class:`~scorer.errors.TokensightError` but RowError: an option, the model, the run.
* what is no Exception: an interrupt, an exit.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from pipelines.sources import Captions, ReadRow, Shard
from pipelines.sources.columns import IMAGE_NAMES, QUESTION_NAMES, Columns, Names
from pipelines.sources.images import ImageResolver
from scorer.config import MAX_TEXT_BYTES
from scorer.errors import FailureCode, RowError, TokensightError
from scorer.ids import row_id
from scorer.messages import (
    answer_messages,
    check_text_bytes,
    is_conversation_text,
    is_listed_strings,
    is_messages_prompt,
    parse_conversation,
    question_turn,
    template_of,
)
from scorer.results import Failure
from scorer.types import Sample, Turn

log = logging.getLogger(__name__)

Record = Mapping[str, Any] | RowError
"""A row's values by column. A RowError replaces a value, or a whole record, that cannot be read."""

_THREADS: Final = 16
_MAX_TEXTS: Final = 2**15
"""Texts of a row, at most: ``token_turns`` numbers them in 16 bits."""


def own_error(error: Exception, who: str, code: FailureCode = FailureCode.ROW_UNREADABLE) -> RowError:
    """Return what an exception means for the row that caused it. Raise it again if it is the run's.

    Args:
        error: what was raised; a RowError is returned as it is.
        who: what raised it, for the message: "{who} raised TypeError: …".
        code: the code of an exception that has none of its own.
    """
    if isinstance(error, RowError):
        return error
    if isinstance(error, (OSError, TokensightError)):
        raise error
    log.debug("%s raised on a row", who, exc_info=error)
    return RowError(code, f"{who} raised {type(error).__name__}: {str(error)[:200]}")


@dataclass(frozen=True, slots=True)
class RowReader:
    """Reads rows of one shard.

    Attributes:
        image_named: whether the user said where images are. If not, and no column was found, a row that has one after
            all must not pass for one without.
    """

    columns: Columns
    shard: Shard
    resolver: ImageResolver
    prompt: str
    max_text_bytes: int = MAX_TEXT_BYTES
    image_named: bool = True

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
            row = self._sample(record, sample_id)
            turns = row.turns if isinstance(row, Sample) else (row.question, Turn("assistant", row.texts))
            check_text_bytes((part for turn in turns for part in turn.content), self.max_text_bytes)
            return row
        except Exception as error:
            own = own_error(error, "reading the row")
            return Failure(sample_id, own.code, own.message)

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
        if not images and (columns.image or not self.image_named):
            _refuse_other_name(record, columns, "image", FailureCode.IMAGE_MISSING)
        if prompt is None and columns.prompt is not None:
            _refuse_other_name(record, columns, "prompt", FailureCode.TEXT_INVALID)
        if columns.messages is not None:
            return parse_conversation(
                sample_id, images, value, contrast, prompt=prompt, own_image=self.resolver.own_image
            )
        if is_messages_prompt(prompt):
            return parse_conversation(
                sample_id, images, answer_messages(value), contrast, prompt=prompt, own_image=self.resolver.own_image
            )
        if prompt is not None and not isinstance(prompt, str):
            problem = f"the prompt is {type(prompt).__name__}; it must be a string, a list of messages or null"
            raise RowError(FailureCode.TEXT_INVALID, problem)
        count = len(images)
        question = Turn.question(count, self.prompt) if prompt is None else question_turn(count, prompt)
        if isinstance(value, list):
            _refuse_interleaved(cell, value)
            return _captions(sample_id, images, question, value, contrast, asked=prompt is not None)
        if not isinstance(value, str):
            raise RowError(FailureCode.TEXT_INVALID, f"the text is {type(value).__name__}; it must be a string")
        _refuse_markup(value, asked=prompt is not None)
        return Sample(sample_id, images, (question, Turn("assistant", (value,))), contrast)


def _refuse_other_name(record: Mapping[str, Any], columns: Columns, role: str, code: FailureCode) -> None:
    """Raise RowError if a row has nothing in the column of a role, but something under another name of that role.

    It would be read as a row without an image, or as an answer to ``--prompt``. Only formats without a schema have rows
    with names of their own.
    """
    read = columns.names()
    names = {"image": IMAGE_NAMES, "prompt": QUESTION_NAMES}[role]
    other = next((name for name, value in record.items() if value and name not in read and name.lower() in names), None)
    if other is not None and role == "image" and not columns.image:
        problem = (
            f"no column of images was found in the first rows, but the row has {other!r}; name it with --image-column"
        )
        raise RowError(code, f"{problem}, or give --image-column none")
    if other is not None:
        of = columns.roles()[role]
        raise RowError(
            code, f"the row has nothing in {of!r}, which is read, but has {other!r}; use one name in all rows"
        )


def _refuse_markup(text: str, *, asked: bool) -> None:
    """Raise RowError if a text is markup: a conversation, or several captions, that were written as a string.

    Args:
        asked: whether the text answers a question of the row's own, which may ask for a list.
    """
    if is_conversation_text(text):
        problem = (
            f"the text is a list of messages stored as a string, {text[:40]!r}…; "
            "name its column with --messages-column instead of --text-column"
        )
        raise RowError(FailureCode.TEXT_INVALID, problem)
    if not asked and is_listed_strings(text):
        problem = (
            f"the caption is a list of strings stored as a string, {text[:40]!r}…; "
            "store it as a list, whose captions are scored one by one"
        )
        raise RowError(FailureCode.TEXT_INVALID, problem)
    if not asked and (marks := template_of(text)) is not None:
        problem = (
            f"the caption is a conversation written in a chat template, {marks[0]!r} … {marks[1]!r}; store it as "
            "messages, of which the answers are scored"
        )
        raise RowError(FailureCode.TEXT_INVALID, problem)


def _refuse_interleaved(images: Any, texts: list[Any]) -> None:
    """Raise RowError for a document whose lists of texts and of images have their nulls where the other has none."""
    if not isinstance(images, list) or len(images) != len(texts) or len(texts) < 2:
        return
    if all((image is None) != (text is None) for image, text in zip(images, texts, strict=True)):
        problem = (
            f"the row is a document of {len(texts)} parts, each a text or an image, not captions; write it as "
            "messages, with its parts in order"
        )
        raise RowError(FailureCode.TEXT_INVALID, problem)


def _captions(
    sample_id: str,
    images: tuple[Any, ...],
    question: Turn,
    values: list[Any],
    contrast: tuple[Any, ...],
    *,
    asked: bool,
) -> Captions:
    texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
    for k, text in enumerate(texts):
        if not isinstance(text, str | None):
            problem = f"text {k} of the row's {len(texts)} is {type(text).__name__}; it must be a string or null"
            raise RowError(FailureCode.TEXT_INVALID, problem)
        _refuse_markup(text or "", asked=asked)
    if not any(text and text.strip() for text in texts):
        empty = f"each of the row's texts ({len(texts)}) is null or empty"
        found = empty if texts else "the row's list of texts is empty"
        problem = f"{found}; there is no text to score"
        raise RowError(FailureCode.TEXT_MISSING, problem)
    if len(texts) > _MAX_TEXTS:
        problem = f"the row has {len(texts)} texts, more than {_MAX_TEXTS}; divide them among several rows"
        raise RowError(FailureCode.TEXT_TOO_LONG, problem)
    return Captions(sample_id, images, question, tuple(text or "" for text in texts), contrast)


def _values(record: Mapping[str, Any], names: Names) -> Any:
    """Return the value of a column; for several columns, the list of their values."""
    return _value(record, names) if isinstance(names, str) else [_value(record, name) for name in names]


def _value(record: Mapping[str, Any], name: str) -> Any:
    value = record.get(name)
    if isinstance(value, RowError):
        raise value
    return value
