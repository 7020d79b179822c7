"""Say how a file's columns are encoded and compressed, so that a token takes few bytes.

Each of our columns names its encoding (:mod:`scorer.columns`); a column of the dataset, in ``--layout merged``, has a
dictionary, as pyarrow writes it. ``python -m benchmarks.storage`` measures them.
"""

from __future__ import annotations

import io
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from scorer import columns

LEVEL: Final = 3
"""Level of zstd. It is named, so that no release of pyarrow changes the bytes of an output."""


def writer_options(schema: pa.Schema) -> dict[str, Any]:
    """Return the options of :class:`pyarrow.parquet.ParquetWriter` for a file of ours."""
    paths = _paths(schema)
    own = {
        path: column.encoding
        for column in (*columns.REQUIRED, *columns.optional(schema.names))
        # A dataset may have a column of that name.
        if column.encoding is not None and _has(schema, column)
        for path in _paths(pa.schema([schema.field(column.name)]))
        if paths.count(path) == 1
    }
    return {
        "compression": "zstd",
        "compression_level": LEVEL,
        "use_dictionary": [path for path in paths if path not in own],
        "column_encoding": own,
    }


def _has(schema: pa.Schema, column: columns.Column) -> bool:
    return schema.names.count(column.name) == 1 and bool(schema.field(column.name).type == column.field.type)


def _paths(schema: pa.Schema) -> list[str]:
    """Return the paths of a schema's leaves, as Parquet names them."""
    buffer = io.BytesIO()
    pq.write_table(schema.empty_table(), buffer)
    with pq.ParquetFile(buffer) as file:
        return [file.schema.column(i).path for i in range(len(file.schema))]
