"""A dataset's rows beside their published weights: Parquet, LLaVA's JSON and JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from scorer.errors import ConfigError, TableError
from scorer.messages import parse_conversation
from scorer.table import shown
from scorer.training.rows import WeightRow
from scorer.training.weight_table import WeightTable
from scorer.types import DEFAULT_PROMPT, Sample, Turn

CONVERSATIONS = ("messages", "conversations")
CAPTIONS = ("caption", "captions", "text")
IMAGES = ("image", "images")


@dataclass(frozen=True)
class Example:
    """One training example: a conversation, and the weights of its answers.

    Attributes:
        name: unique; the row's id, with ``#k`` for caption k of several.
        turns: the conversation, images at their places.
        images: as the dataset has them: paths, bytes, or Hugging Face's image structs.
        row: the published weights.
        texts: all texts of the row that were scored.
        trained: which of ``texts`` the conversation's answers are, in order.
    """

    name: str
    turns: tuple[Turn, ...]
    images: tuple[Any, ...]
    row: WeightRow
    texts: tuple[str, ...]
    trained: tuple[int, ...]


@dataclass(frozen=True)
class ExportColumns:
    """Names of a dataset's columns; None finds them by their usual names."""

    text: str | None = None
    image: str | None = None
    prompt: str = DEFAULT_PROMPT


def read_examples(table: WeightTable, data: Path | None, columns: ExportColumns) -> Iterator[Example]:
    """Every scored row's examples, in the run's order; rows that failed are left out.

    Args:
        data: the dataset that was scored, a folder or a file; None where the published files hold its columns too.

    Raises:
        TableError: a file is absent or has other rows, or a text is not the one that was scored.
        ConfigError: columns cannot be told.
    """
    for shard in table.shards:
        records = _published(table, shard) if data is None else _read(_file_beside(data, shard, table))
        count = 0
        for count, record in enumerate(records, 1):
            row = table.row(shard, count - 1)
            if row.ok:
                yield from _examples(record, row, columns)
        if count != table.published.rows_of(shard):
            raise TableError(
                f"{data}: the file of shard {shard} has {count} rows, the run scored {table.published.rows_of(shard)}; "
                "give the dataset as it was scored"
            )


def _examples(record: Mapping[str, Any], row: WeightRow, columns: ExportColumns) -> Iterator[Example]:
    images = _images(record, columns)
    text = record.get(_column(record, columns.text, (*CONVERSATIONS, *CAPTIONS), "--text-column"))
    if isinstance(text, list) and text and isinstance(text[0], Mapping):
        sample = parse_conversation(row.sample_id, images, text)
        texts = sample.scored_texts
        row.check_text(texts)
        yield Example(row.sample_id, sample.turns, images, row, texts, tuple(range(len(texts))))
        return
    texts = tuple(one or "" for one in text) if isinstance(text, list) else (str(text),)
    row.check_text(texts)
    for k, one in enumerate(texts):
        if one.strip():
            name = f"{row.sample_id}#{k}" if len(texts) > 1 else row.sample_id
            turns = Sample.caption(name, None, one, columns.prompt).turns
            yield Example(name, turns if images else _without_image(turns), images, row, texts, (k,))


def _without_image(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    return tuple(Turn(turn.role, (turn.text,)) for turn in turns)


def _images(record: Mapping[str, Any], columns: ExportColumns) -> tuple[Any, ...]:
    if columns.image is None and not any(name in record for name in IMAGES):
        return ()
    value = record[_column(record, columns.image, IMAGES, "--image-column")]
    return tuple(value) if isinstance(value, list) else () if value is None else (value,)


def _column(record: Mapping[str, Any], asked: str | None, usual: tuple[str, ...], option: str) -> str:
    found = [name for name in (usual if asked is None else (asked,)) if name in record]
    if len(found) != 1:
        problem = f"has none of {', '.join(usual)}" if asked is None else f"has no column {asked!r}"
        if len(found) > 1:
            problem = f"has {' and '.join(found)}"
        raise ConfigError(f"the dataset {problem}; it has {shown(list(record))}: name the column by {option}")
    return found[0]


def _file_beside(data: Path, shard: str, table: WeightTable) -> Path:
    """The dataset's file of a published shard: its own name, or for JSON the same stem."""
    if data.is_file():
        if len(table.shards) > 1:
            raise TableError(
                f"{data} is one file, the output has {len(table.shards)} shards; give the dataset's folder"
            )
        return data
    path = data / shard
    found = [p for p in (path, path.with_suffix(".jsonl"), path.with_suffix(".json")) if p.is_file()]
    if not found:
        raise TableError(
            f"{data} has no file {shard}, and no .jsonl or .json of that name; give the dataset that was scored "
            "(Parquet, LLaVA's JSON or JSON Lines), or an output of --layout merged without --data"
        )
    return found[0]


def _read(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                yield from batch.to_pylist()
    elif path.suffix == ".jsonl":
        with path.open("rb") as file:
            yield from (json.loads(line) for line in file if line.strip())
    else:
        yield from json.loads(path.read_bytes())


def _published(table: WeightTable, shard: str) -> Iterator[Mapping[str, Any]]:
    """The dataset's own columns in a file of ``--layout merged``."""
    yield from (row for batch in table.published.batches(shard, columns=None) for row in batch.to_pylist())
