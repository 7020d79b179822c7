"""The columns of a published row, one record each: whatever writes, reads, checks or tells of a column goes by these.

To add a raw score that only some runs have: add its record here, ``required=False``, before ``token_weights``; have
the engine put its values into :attr:`scorer.results.TokenScores.optional`, and its name into the fingerprint's list
``columns``. Files, readers, checks, dataset cards and HTTP answers have it then, and outputs without it stay readable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa

Kind = Literal["key", "span", "raw", "derived", "outcome"]
"""What a column says: which row and text it is; which token, and where it lies; a raw score; what is made of raw
scores; whether the row was scored."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        element: Arrow type of one value.
        meaning: what one value is, in one line of Markdown.
        per_token: whether a row has a list of it, one value per scored token, or a single value.
        required: whether every output has it; an optional one is absent from the outputs of runs that do not name it.
        nullable: whether a row may have none; the lists of a row that was not scored are null.
    """

    name: str
    element: pa.DataType
    meaning: str
    kind: Kind
    per_token: bool = True
    required: bool = True
    nullable: bool = True

    def __post_init__(self) -> None:
        if not self.required and not (self.per_token and self.kind in ("span", "raw")):
            raise ValueError(f"column {self.name!r} is optional, so it must be per token, and a span or a raw score")

    @property
    def field(self) -> pa.Field:
        """The column in a Parquet schema."""
        kind = pa.list_(self.element) if self.per_token else self.element
        return pa.field(self.name, kind, nullable=self.nullable)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type of its values."""
        dtype: np.dtype[Any] = np.dtype(self.element.to_pandas_dtype())
        return dtype


COLUMNS: tuple[Column, ...] = (
    Column("sample_id", pa.string(), "the dataset's id of the row, or `<shard>#<row>`", "key", False, nullable=False),
    Column("row_index", pa.int64(), "the row's place in its shard, from 0", "key", False, nullable=False),
    Column("token_ids", pa.int32(), "the token's id, by the reference model's tokenizer", "span"),
    Column("token_starts", pa.int32(), "where the token begins in its turn's text, in UTF-8 bytes", "span"),
    Column("token_ends", pa.int32(), "where it ends: the byte after its last", "span"),
    Column(
        "token_turns",
        pa.int16(),
        "which scored turn of the row it belongs to: an assistant turn, or one of several captions, from 0",
        "span",
    ),
    Column("logit_gap", pa.float32(), "the token's logit with the image, minus with the contrast input", "raw"),
    Column("logprob_clean", pa.float32(), "the token's log-probability with the image, in nats", "raw"),
    Column("logprob_contrast", pa.float32(), "the token's log-probability with the contrast input, in nats", "raw"),
    Column("token_weights", pa.float32(), "the token's weight, derived from its raw scores", "derived"),
    Column("text_hash", pa.string(), "identifies the exact text that was scored", "key", False),
    Column(
        "status",
        pa.string(),
        "`ok`, or why the row was not scored; its lists are null then",
        "outcome",
        False,
        nullable=False,
    ),
    Column("error", pa.string(), "what was wrong with a row that was not scored", "outcome", False),
)
"""All columns that there are, in their order in a file. Optional ones are found by the functions below, never from a
copy of this tuple."""

REQUIRED: Final = tuple(column for column in COLUMNS if column.required)
WEIGHTS: Final = "token_weights"


def of_run(fingerprint: Mapping[str, Any]) -> tuple[Column, ...]:
    """The columns that a run writes, in their order: the required ones, and those that its fingerprint names.

    A name that this release does not know is left out: the output is a newer release's.
    """
    named = fingerprint.get("columns", ())
    return tuple(column for column in COLUMNS if column.required or column.name in named)


def optional() -> tuple[Column, ...]:
    """The columns that only some outputs have."""
    return tuple(column for column in COLUMNS if not column.required)


def raw() -> tuple[Column, ...]:
    """The raw scores, the optional ones too."""
    return tuple(column for column in COLUMNS if column.kind == "raw")
