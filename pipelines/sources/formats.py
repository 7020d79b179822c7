"""The dataset formats, a record each, and which of them an input is of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pipelines.sources import Source, arrow
from pipelines.sources.columns import Columns
from pipelines.sources.images import ImageOptions
from pipelines.sources.indexed import Format, IndexedSource
from pipelines.sources.jsonl import JsonLines
from pipelines.sources.listing import has_suffix, list_names
from pipelines.sources.llava_json import JsonArray
from pipelines.sources.parquet import SUFFIXES, ParquetSource
from pipelines.sources.webdataset import WebDataset, text_members
from scorer.config import MAX_TEXT_BYTES
from scorer.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFormat:
    """A dataset format: the command line, the detection by suffix and the reader go by this record.

    Attributes:
        name: value of ``--format``, stored in ``_run.json``.
        words: a phrase for help texts; empty where the name says it all.
        suffixes: file name endings, from which the format is detected.
        open: (input, columns, source options) → the source.
        describes_others: a file of this format beside files of another one describes those, and is no shard.
    """

    name: str
    words: str
    suffixes: tuple[str, ...]
    open: Callable[..., Source]
    describes_others: bool = False


def _indexed(make: Callable[[ImageOptions, Columns], Format]) -> Callable[..., Source]:
    def open_indexed(url: str, columns: Columns, *, images: ImageOptions, **options: Any) -> Source:
        return IndexedSource(url, make(images, columns), columns, images=images, **options)

    return open_indexed


DEFAULT = SourceFormat(name="parquet", words="", suffixes=SUFFIXES, open=ParquetSource)
"""What a file or a glob without a known suffix is taken for."""

FORMATS: dict[str, SourceFormat] = {
    format.name: format
    for format in (
        DEFAULT,
        SourceFormat(name=arrow.NAME, words="also .feather", suffixes=arrow.SUFFIXES, open=arrow.ArrowSource),
        SourceFormat(
            name="webdataset",
            words=".tar",
            suffixes=WebDataset().suffixes,
            open=_indexed(lambda images, columns: WebDataset(images.max_bytes, text_members(columns))),
        ),
        SourceFormat(
            name="json",
            words="an array of records (LLaVA)",
            suffixes=JsonArray.suffixes,
            open=_indexed(lambda images, columns: JsonArray()),
            describes_others=True,
        ),
        SourceFormat(
            name="jsonl",
            words="also .gz and .zst",
            suffixes=JsonLines.suffixes,
            open=_indexed(lambda images, columns: JsonLines()),
        ),
    )
}
"""By name, in the order in which help texts list them."""

_TEXT_TABLE: Final = "write it as Parquet or JSON Lines: it has no types and does not tell null from an empty text"
_PACKED: Final = "unpack it: rows inside it cannot be reached one by one"
NOT_READ: Final[dict[str, tuple[str, str]]] = {
    ".csv": ("CSV", _TEXT_TABLE),
    ".tsv": ("TSV", _TEXT_TABLE),
    ".csv.gz": ("CSV", _TEXT_TABLE),
    ".tsv.gz": ("TSV", _TEXT_TABLE),
    ".xlsx": ("Excel", "write it as Parquet or JSON Lines"),
    ".tar.gz": ("a compressed tar", _PACKED),
    ".tgz": ("a compressed tar", _PACKED),
    ".tar.zst": ("a compressed tar", _PACKED),
    ".zip": ("ZIP", _PACKED),
    ".json.gz": ("compressed JSON", "unpack it, or name it .jsonl.gz if each line is a record"),
    ".orc": ("ORC", "write it as Parquet"),
    ".avro": ("Avro", "write it as Parquet"),
    ".tfrecord": ("TFRecord", "write it as Parquet or WebDataset"),
    ".mds": ("MosaicML's MDS", "write it as Parquet or WebDataset"),
    ".lance": ("Lance", "write it as Parquet"),
    ".pkl": ("a pickle", "write it as Parquet: nothing is unpickled, because that can run code"),
    ".npz": ("NumPy's archive", "write it as Parquet"),
    ".h5": ("HDF5", "write it as Parquet"),
}
"""Suffix → name of a dataset format that is not read, and what to do instead."""


def open_source(
    url: str,
    format: str | None,
    columns: Columns,
    *,
    prompt: str,
    contrast_images: bool = False,
    images: ImageOptions | None = None,
    max_text_bytes: int = MAX_TEXT_BYTES,
) -> Source:
    """Open an input as the named format, or in the format that its file names show.

    Args:
        url: a file, a directory or a glob; local, or any URL that fsspec opens.
        format: a key of :data:`FORMATS`; None detects it.
        columns, prompt, contrast_images, images, max_text_bytes: see
            :class:`pipelines.sources.column_source.ColumnSource`.

    Raises:
        ConfigError: the format is unknown, there is nothing, or there are files of several formats and none is named.
    """
    name = format or detect_format(url)
    if name not in FORMATS:
        raise ConfigError(f"unknown format {name!r}; known formats: {', '.join(FORMATS)}")
    return FORMATS[name].open(
        url,
        columns,
        prompt=prompt,
        contrast_images=contrast_images,
        images=images or ImageOptions(),
        max_text_bytes=max_text_bytes,
    )


def detect_format(url: str) -> str:
    """Detect the format of an input's files from their suffixes.

    Raises:
        ConfigError: the input has no files, or files of several formats.
    """
    known = tuple(suffix for format in FORMATS.values() for suffix in format.suffixes)
    names = list_names(url, known, tuple(NOT_READ))
    refused = [name for name in names if has_suffix(name, NOT_READ) and not has_suffix(name, known)]
    names = [name for name in names if name not in set(refused)]
    if refused and not names:
        name, remedy = next(found for suffix, found in NOT_READ.items() if has_suffix(refused[0], [suffix]))
        raise ConfigError(
            f"{refused[0]} in {url!r} is {name}, which is not read; {remedy}. If its suffix is wrong, name its real "
            "format with --format"
        )
    counts = Counter(format.name for name in names for format in FORMATS.values() if has_suffix(name, format.suffixes))
    if not counts:
        return DEFAULT.name  # a file or a glob is taken at its word
    if len(counts) > 1:
        counts = Counter({name: count for name, count in counts.items() if not FORMATS[name].describes_others})
    if len(counts) > 1:
        held = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        raise ConfigError(f"input {url!r} has files of several formats ({held}); name one with --format")
    (found,) = counts
    return found
