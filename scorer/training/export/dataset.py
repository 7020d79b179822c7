"""Read a dataset's rows beside their published weights: Parquet, Arrow, JSON and JSON Lines, as the run read them."""

from __future__ import annotations

import io
import json
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scorer.base64_images import decode_base64, find_base64
from scorer.errors import ConfigError, TableError, TokensightError, explain
from scorer.messages import answer_messages, is_messages_prompt, parse_conversation, question_turn
from scorer.training.export.columns import (
    IMAGE_OPTION,
    PROMPT_COLUMN_OPTION,
    PROMPT_OPTION,
    ColumnsByShard,
    RunColumns,
)
from scorer.training.rows import WeightRow
from scorer.training.weight_table import WeightTable
from scorer.types import Turn

SUFFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "parquet": (".parquet",),
    "arrow": (".arrow", ".feather"),
    "json": (".json",),
    "jsonl": tuple(f".{name}{packed}" for name in ("jsonl", "jsonlines", "ndjson") for packed in ("", ".gz", ".zst")),
}
"""File suffixes of the formats that can be exported; a shard is published with the suffix ``.parquet`` instead.

They count in any case."""

_ARROW_FILE: Final = b"ARROW1"
"""The first bytes of Arrow's file format; the stream format has no mark."""

_IMAGE_PATH: Final = re.compile(r"^(data:image/|https?://)|\.(jpe?g|png|webp|gif|bmp|tiff?)$", re.IGNORECASE)
_NOT_SPACE: Final = re.compile(r"\S")

Record = Callable[[], Mapping[str, Any]]
"""Reads one row on call: a row that was not scored is never read, as it may be unreadable."""


@dataclass(frozen=True)
class Example:
    """One training example: a conversation, and the weights of its answers.

    Attributes:
        name: unique; the row's id, with ``#k`` for caption k of several.
        turns: the conversation, with its images in place.
        images: as the dataset has them (paths, bytes, or Hugging Face's image structs), but base64 as its bytes.
        row: the published weights.
        texts: all texts of the row that were scored.
        trained: indices in ``texts`` of the conversation's answers, in order.
    """

    name: str
    turns: tuple[Turn, ...]
    images: tuple[Any, ...]
    row: WeightRow
    texts: tuple[str, ...]
    trained: tuple[int, ...]


def is_weighted(row: WeightRow) -> bool:
    """Whether a row was scored and each of its tokens has a weight: PRIOR's is NaN where no text reference knows it."""
    return row.weights is not None and not bool(np.isnan(row.weights).any())


def read_examples(table: WeightTable, data: Path | None, columns: ColumnsByShard) -> Iterator[Example]:
    """Yield the examples of every row with weights, in the run's order; rows without :func:`is_weighted` are left out.

    Args:
        data: the dataset that was scored, a folder or a file; None if the published files hold its columns too.
        columns: those that the run read.

    Raises:
        TableError: a file is absent or damaged or has another number of rows, or a text is not the one that was scored.
        ConfigError: the dataset is needed but not given, its format cannot be exported, or it lacks a column.
    """
    format = columns.common.format
    if data is None and columns.common.layout == "sidecar":
        raise ConfigError(
            f"{table.published.root} holds weights only (--layout sidecar); give the dataset that was scored with "
            "--data"
        )
    if format is not None and format not in SUFFIXES:
        raise ConfigError(
            f"the run read {format}, which cannot be exported ({', '.join(SUFFIXES)} can); look weights up in "
            "your own loader with WeightTable.find(id), as docs/training.md shows under WebDataset"
        )
    for shard in table.shards:
        read = columns.of(shard)
        path, kind = (None, "") if data is None else _file_beside(data, shard, table, format)
        records = _published(table, shard, read) if path is None else _read(path, kind, read)
        place = read.image_root or (path and path.parent)
        folder = None if place is None else Path(place)
        count, scored = 0, table.published.rows_of(shard)
        for count, record in enumerate(records, 1):
            if count <= scored and is_weighted(row := table.row(shard, count - 1)):
                yield from _examples(_record(record, row), row, read, folder)
        if count != scored:
            raise TableError(
                f"{data}: the file of shard {shard} has {count} rows, the run scored {scored}; "
                "give the dataset as it was scored"
            )


def _record(record: Record, row: WeightRow) -> Mapping[str, Any]:
    try:
        return record()
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise TableError(
            f"{row.name}: its record in the dataset cannot be read ({explain(error)}); give the dataset as it was "
            "scored"
        ) from error


def _examples(record: Mapping[str, Any], row: WeightRow, columns: RunColumns, folder: Path | None) -> Iterator[Example]:
    own_image = partial(_own_image, folder=folder, where=row.name)
    columns.refuse_absent(record, row.name, record=True)
    cells = [] if row.text_only else [record.get(name) for name in columns.image]
    images = tuple(image for image in map(own_image, _leaves(cells)) if image is not None)
    for image in images:
        _check_image(image, row, columns)
    text = [record.get(name) for name in columns.text] if len(columns.text) > 1 else record[columns.text[0]]
    prompt = None if columns.prompt_column is None else record.get(columns.prompt_column)
    answers_messages = is_messages_prompt(prompt)
    holds_messages = columns.conversation or (isinstance(text, list) and text and isinstance(text[0], Mapping))
    if answers_messages and not holds_messages:
        text = answer_messages(text)
    if answers_messages or holds_messages:
        sample = parse_conversation(row.sample_id, images, text, prompt=prompt, own_image=own_image)
        texts = sample.scored_texts
        row.check_text(texts)
        yield Example(row.sample_id, sample.turns, sample.images, row, texts, tuple(range(len(texts))))
        return
    texts = tuple("" if one is None else str(one) for one in _leaves(text))
    row.check_text(texts)
    question = _question(record, row, columns, len(images))
    for k, one in enumerate(texts):
        if one.strip():
            name = f"{row.sample_id}#{k}" if len(texts) > 1 else row.sample_id
            yield Example(name, (question, Turn("assistant", (one,))), images, row, texts, (k,))


def _check_image(image: Any, row: WeightRow, columns: RunColumns) -> None:
    """Raise TableError for what is no image. A column that the run did not read may hold anything, such as captions."""
    where = f"{row.name}: column {','.join(columns.image)!r}"
    value = (image.get("bytes") or image.get("path")) if isinstance(image, Mapping) else image
    if not isinstance(value, (str, bytes)) or not value:
        raise TableError(
            f"{where} holds {type(value).__name__}; a path, bytes or Hugging Face's image struct is needed: name the "
            f"column of images with {IMAGE_OPTION}"
        )
    if isinstance(value, str) and not columns.image_is_recorded and not _IMAGE_PATH.search(value):
        raise TableError(f"{where} holds {value[:60]!r}, which is no image path; name another with {IMAGE_OPTION}")


def _question(record: Mapping[str, Any], row: WeightRow, columns: RunColumns, images: int) -> Turn:
    own = None if columns.prompt_column is None else record.get(columns.prompt_column)
    if own is not None:
        return question_turn(images, str(own))
    if columns.prompt is None:
        raise ConfigError(
            f"{row.name} is a caption, and the published files do not say which instruction it answers: give it with "
            f"{PROMPT_OPTION}, or its column with {PROMPT_COLUMN_OPTION}"
        )
    return Turn.question(images, columns.prompt)


def _own_image(image: Any, folder: Path | None, where: str) -> Any:
    """Return an image as the run reads it: base64 decoded, and None if it is null, or empty in its bytes and its path.

    Args:
        image: a path, bytes, base64 as either, or Hugging Face's struct.
        folder: where paths begin, to tell a path from base64; None if it is not known.
        where: the row, for the message.

    Raises:
        TableError: it is base64 that breaks off or holds other characters.
    """
    value = (image.get("bytes") or image.get("path")) if isinstance(image, Mapping) else image
    if value is None or value == "":
        return None
    if isinstance(value, (str, bytes)):
        encoded = find_base64(value, lambda path: folder is not None and (folder / path).exists())
        if encoded is not None:
            try:
                return decode_base64(encoded)
            except ValueError as error:
                raise TableError(
                    f"{where} has an image that is not valid base64 ({error}) and begins with {value[:40]!r}; give the "
                    "dataset as it was scored"
                ) from error
    return image


def _leaves(value: Any) -> Iterator[Any]:
    """Yield the elements of nested lists, or the value itself if it is not a list."""
    if isinstance(value, list):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _read(path: Path, format: str, columns: RunColumns) -> Iterator[Record]:
    try:
        yield from _records(path, format, columns)
    except TokensightError:
        raise
    except (ValueError, pa.ArrowException, OSError) as error:
        raise TableError(f"{path} cannot be read ({explain(error)}); give the dataset as it was scored") from error


def _records(path: Path, format: str, columns: RunColumns) -> Iterator[Record]:
    if format == "parquet":
        with pq.ParquetFile(path) as file:
            columns.refuse_absent(file.schema_arrow.names, str(path))
            wanted = [name for name in file.schema_arrow.names if name in columns.names()]
            for batch in file.iter_batches(batch_size=256, columns=wanted):
                yield from _rows(batch)
    elif format == "arrow":
        with pa.memory_map(str(path)) as source:
            is_file = source.read(len(_ARROW_FILE)) == _ARROW_FILE
            source.seek(0)
            reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
            columns.refuse_absent(reader.schema.names, str(path))
            wanted = [name for name in reader.schema.names if name in columns.names()]
            batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
            for batch in batches:
                yield from _rows(batch.select(wanted))
    elif format == "jsonl":
        compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix.lower())
        with io.BufferedReader(pa.input_stream(str(path), compression=compression)) as file:
            yield from (partial(json.loads, line) for line in file if line.removeprefix(BOM_UTF8).strip())
    else:
        yield from (partial(dict, record) for record in _json_records(path.read_text(encoding="utf-8-sig")))


def _json_records(text: str) -> Iterator[Mapping[str, Any]]:
    """Yield the elements of one array or, as the run accepts too, records written one after another."""
    if text.lstrip().startswith("["):
        yield from json.loads(text)
        return
    decoder, at = json.JSONDecoder(), 0
    while begin := _NOT_SPACE.search(text, at):
        record, at = decoder.raw_decode(text, begin.start())
        yield record


def _file_beside(data: Path, shard: str, table: WeightTable, format: str | None) -> tuple[Path, str]:
    """Return the dataset's file of a published shard, and its format."""
    suffixes = SUFFIXES if format is None else {format: SUFFIXES[format]}
    if data.is_file():
        if len(table.shards) > 1:
            raise TableError(
                f"{data} is one file, the output has {len(table.shards)} shards; give the dataset's folder"
            )
        return data, next(
            (name for name, ends in suffixes.items() if data.name.lower().endswith(ends)), format or "parquet"
        )
    plain = shard.removesuffix(".parquet")
    for name, ends in suffixes.items():
        for path in [data / shard] * (name == "parquet") + [data / f"{plain}{end}" for end in ends]:
            if path.is_file():
                return path, name
    for name, ends in suffixes.items():
        wanted = {f"{Path(plain).name}{end}" for end in ends}
        for path in sorted((data / plain).parent.glob("*")):
            if path.name[: len(Path(plain).name)] + path.name[len(Path(plain).name) :].lower() in wanted:
                return path, name
    tried = ", ".join(f"{plain}{end}" for ends in suffixes.values() for end in ends)
    raise TableError(f"{data} has no file of the shard {shard} ({tried}); give the dataset that was scored")


def _published(table: WeightTable, shard: str, columns: RunColumns) -> Iterator[Record]:
    """Read the dataset's own columns from a file of ``--layout merged``."""
    for batch in table.published.batches(shard, columns=columns.names()):
        columns.refuse_absent(batch.schema.names, f"{table.published.root}/{shard}")
        yield from _rows(batch)


def _rows(batch: pa.RecordBatch) -> Iterator[Record]:
    yield from (partial(_row, batch, i) for i in range(batch.num_rows))


def _row(batch: pa.RecordBatch, index: int) -> Mapping[str, Any]:
    return {name: batch.column(name)[index].as_py() for name in batch.schema.names}
