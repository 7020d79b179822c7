"""Detect the format of an input, and open the source that reads it."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, Literal, get_args

from pipelines.sources import Source
from pipelines.sources.columns import Columns
from pipelines.sources.images import ImageOptions
from pipelines.sources.indexed import Format, IndexedSource
from pipelines.sources.jsonl import JsonLines
from pipelines.sources.listing import list_names
from pipelines.sources.llava_json import JsonArray
from pipelines.sources.parquet import SUFFIXES, ParquetSource
from pipelines.sources.webdataset import WebDataset
from scorer.errors import ConfigError

FormatName = Literal["parquet", "webdataset", "json", "jsonl"]

_SUFFIXES: Final[dict[FormatName, tuple[str, ...]]] = {
    "parquet": SUFFIXES,
    "webdataset": WebDataset().suffixes,
    "json": JsonArray.suffixes,
    "jsonl": JsonLines.suffixes,
}


def open_source(
    url: str,
    format: FormatName | None,
    columns: Columns,
    *,
    prompt: str,
    contrast_images: bool = False,
    images: ImageOptions | None = None,
) -> Source:
    """Open the source of an input in the named format, or in the format that its file names show.

    The other parameters are those of :class:`pipelines.sources.column_source.ColumnSource`.

    Raises:
        ConfigError: the input has no files, or files of several formats and ``format`` is None.
    """
    images = images or ImageOptions()
    common: dict[str, Any] = {"prompt": prompt, "contrast_images": contrast_images, "images": images}
    found = format or detect_format(url)
    if found == "parquet":
        return ParquetSource(url, columns, **common)
    formats: dict[str, Format] = {
        "webdataset": WebDataset(images.max_bytes),
        "json": JsonArray(),
        "jsonl": JsonLines(),
    }
    return IndexedSource(url, formats[found], columns, **common)


def detect_format(url: str) -> FormatName:
    """Detect the format of an input's files from their suffixes. A ``.json`` beside other shards is taken for metadata.

    Raises:
        ConfigError: the input has no files, or files of several formats.
    """
    known = tuple(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)
    names = list_names(url, known)
    counts: Counter[FormatName] = Counter(
        format for name in names for format in get_args(FormatName) if name.endswith(_SUFFIXES[format])
    )
    if not counts:
        return "parquet"  # a named file or a glob may have any suffix
    if len(counts) > 1:
        counts.pop("json", None)
    if len(counts) > 1:
        held = ", ".join(f"{count} of {name}" for name, count in sorted(counts.items()))
        raise ConfigError(f"input {url!r} has files of several formats ({held}); name one with --format")
    (found,) = counts
    return found
