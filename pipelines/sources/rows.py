"""One row of Arrow data → one sample, or the failure that takes its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.sources import Row, Shard
from pipelines.sources.columns import Columns
from pipelines.sources.images import ImageResolver
from scorer.errors import FailureCode, RowError
from scorer.messages import parse_conversation
from scorer.types import Failure, Sample


@dataclass(frozen=True, slots=True)
class RowReader:
    """Reads rows of one shard."""

    columns: Columns
    shard: Shard
    resolver: ImageResolver
    prompt: str

    def row(self, batch: pa.RecordBatch, i: int, row_index: int) -> Row:
        """Row ``i`` of ``batch``, which is row ``row_index`` of the shard."""
        sample_id = self.shard.row_id(row_index)
        try:
            if self.columns.id is not None:
                value = _cell(batch, self.columns.id, i)
                sample_id = sample_id if value is None else str(value)
            return self._sample(batch, i, sample_id)
        except RowError as error:
            return Failure(sample_id, error.code, error.message)

    def _sample(self, batch: pa.RecordBatch, i: int, sample_id: str) -> Sample:
        columns = self.columns
        column = columns.text or columns.messages
        assert column is not None and columns.image is not None
        value = _cell(batch, column, i)
        if value is None:
            raise RowError(FailureCode.TEXT_MISSING, f"column {column!r} is null; there is no text to score")
        images = self.resolver.images(_cell(batch, columns.image, i))
        contrast = ()
        if columns.contrast_image is not None:
            contrast = self.resolver.images(_cell(batch, columns.contrast_image, i))
        if columns.messages is not None:
            return parse_conversation(sample_id, images, value, contrast)
        if len(images) != 1:
            problem = f"the row has {len(images)} images for one caption; a caption needs exactly one"
            raise RowError(FailureCode.CONVERSATION_INVALID, problem)
        prompt = _cell(batch, columns.prompt, i) if columns.prompt is not None else None
        prompt = self.prompt if prompt is None else prompt
        return Sample.caption(sample_id, images[0], value, prompt, contrast[0] if contrast else None)


def _cell(batch: pa.RecordBatch, column: str, i: int) -> Any:
    try:
        return batch.column(column)[i].as_py()
    except UnicodeDecodeError as error:  # Parquet does not promise that a string column is UTF-8
        raise RowError(FailureCode.TEXT_INVALID, f"column {column!r} is not valid UTF-8: {error}") from error
