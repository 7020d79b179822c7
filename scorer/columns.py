"""Define the columns of a published row, one record each; every writer, reader, check and document uses these records.

To add a raw score that only some runs have, add its record here with ``required=False``, before ``token_weights``. Then
have the engine put the values into :attr:`scorer.results.TokenScores.optional` and the name into the fingerprint's
``columns`` list. Files, readers, checks, dataset cards and HTTP responses pick it up; outputs without it stay readable.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa

Kind = Literal["key", "span", "raw", "derived", "outcome"]
"""What a column holds: ``key`` identifies the row and its text, ``span`` identifies a token and its place, ``raw`` is a
raw score, ``derived`` is computed from raw scores, and ``outcome`` records whether the row was scored."""


Encoding = Literal["PLAIN", "BYTE_STREAM_SPLIT", "DELTA_BINARY_PACKED"]
"""An encoding of Parquet."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        element: the Arrow type of one value.
        meaning: what one value means, in one line of Markdown.
        per_token: whether a row holds a list with one value per scored token; otherwise it holds a single value.
        required: whether every output has the column; an optional one appears only if the run's fingerprint names it.
        nullable: whether a row may hold null; the lists of a row that was not scored are null.
        ascends: whether the values of one turn ascend, so that their differences take fewer bytes.
        asked: the name in ``--columns`` that asks for the column; empty if none does.
        further: the prefix of the column's name for a further contrast; empty if it does not depend on the contrast.
        needs_image: whether a row without an image, or a model without images, has no such raw score: it is then NaN,
            or false.
        bounds: the lowest and the highest value that a raw score may have, both included.
    """

    name: str
    element: pa.DataType
    meaning: str
    kind: Kind
    per_token: bool = True
    required: bool = True
    nullable: bool = True
    ascends: bool = False
    asked: str = ""
    further: str = ""
    needs_image: bool = False
    bounds: tuple[float, float] = (-math.inf, math.inf)

    def __post_init__(self) -> None:
        if not self.required and not (self.per_token and self.kind in ("span", "raw")):
            raise ValueError(f"column {self.name!r} is optional, so it must be per token, and a span or a raw score")

    @property
    def field(self) -> pa.Field:
        """The column's field in the Parquet schema."""
        kind = pa.list_(self.element) if self.per_token else self.element
        return pa.field(self.name, kind, nullable=self.nullable)

    @property
    def encoding(self) -> Encoding | None:
        """The Parquet encoding that takes the fewest bytes (``python -m benchmarks.storage``); None: a dictionary."""
        if self.per_token and pa.types.is_floating(self.element):
            # Raw scores hardly ever repeat. Weights often do, which splitting their bytes would hide from zstd.
            return "BYTE_STREAM_SPLIT" if self.kind == "raw" else "PLAIN"
        return "DELTA_BINARY_PACKED" if self.ascends else None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype of one value."""
        dtype: np.dtype[Any] = np.dtype(self.element.to_pandas_dtype())
        return dtype


_CONTRAST_INPUT: Final = "the contrast input"
"""How a meaning names the first contrast."""
_MOST_ENTROPY: Final = 24.0
"""The entropy of all token ids of int32 is 31 ln 2 = 21.5, which ``--score-bits 1`` rounds up to this."""
_MOST_JS: Final = 0.75
"""ln 2, which ``--score-bits 1`` rounds up to this."""


def _distribution(asked: str, name: str, meaning: str, most: float = math.inf, **attributes: Any) -> Column:
    """Return a column in nats that measures whole distributions and cannot be negative."""
    bounds = (0.0, most)
    return Column(name, pa.float32(), meaning, "raw", required=False, asked=asked, bounds=bounds, **attributes)


def _top(name: str, meaning: str, **attributes: Any) -> Column:
    """Return a flag of whether the token is the most likely one."""
    return Column(name, pa.bool_(), meaning, "raw", required=False, asked="top1", **attributes)


COLUMNS: tuple[Column, ...] = (
    Column("sample_id", pa.string(), "the dataset's id of the row, or `<shard>#<row>`", "key", False, nullable=False),
    Column("row_index", pa.int64(), "the row's position in its shard, from 0", "key", False, nullable=False),
    Column("token_ids", pa.int32(), "the token's id in the reference model's tokenizer", "span"),
    Column(
        "token_starts", pa.int32(), "where the token starts in its turn's text, in UTF-8 bytes", "span", ascends=True
    ),
    Column("token_ends", pa.int32(), "where the token ends: one past its last byte", "span", ascends=True),
    Column(
        "token_turns",
        pa.int16(),
        "which scored turn of the row the token belongs to (an assistant turn, or one of several captions), from 0",
        "span",
    ),
    Column(
        "is_stop",
        pa.bool_(),
        "whether the token is the chat template's stop token, which ends its turn: its span is empty and lies at the "
        "end of the turn's text; absent with `--no-stop-token`",
        "span",
        required=False,
    ),
    Column(
        "logit_gap",
        pa.float32(),
        "the token's logit with the image, minus that with the contrast input",
        "raw",
        further="logit_gap_",
        needs_image=True,
    ),
    Column(
        "logprob_clean", pa.float32(), "the token's log-probability with the image, in nats", "raw", needs_image=True
    ),
    Column(
        "logprob_contrast",
        pa.float32(),
        "the token's log-probability with the contrast input, in nats",
        "raw",
        further="logprob_",
    ),
    _distribution(
        "kl",
        "kl",
        "how far the prediction with the contrast input is from that with the image: KL(clean‖contrast) over the whole "
        "vocabulary, in nats",
        further="kl_",
        needs_image=True,
    ),
    _distribution(
        "kl",
        "kl_reverse",
        "how far the prediction with the image is from that with the contrast input: KL(contrast‖clean), in nats",
        further="kl_reverse_",
        needs_image=True,
    ),
    _distribution(
        "js",
        "js",
        "the Jensen–Shannon divergence of the predictions with the image and with the contrast input, in nats: 0 if "
        "they are equal, ln 2 if they have no token in common",
        most=_MOST_JS,
        further="js_",
        needs_image=True,
    ),
    _distribution(
        "entropy",
        "entropy_clean",
        "the entropy of the prediction with the image, in nats",
        most=_MOST_ENTROPY,
        needs_image=True,
    ),
    _distribution(
        "entropy",
        "entropy_contrast",
        "the entropy of the prediction with the contrast input, in nats",
        most=_MOST_ENTROPY,
        further="entropy_",
    ),
    _top(
        "top1_clean",
        "whether no token is more likely than this one with the image; false in a row without an image",
        needs_image=True,
    ),
    _top("top1_contrast", "whether no token is more likely than this one with the contrast input", further="top1_"),
    Column("token_weights", pa.float32(), "the token's weight, derived from its raw scores", "derived"),
    Column("text_hash", pa.string(), "identifies the exact text that was scored", "key", False),
    Column(
        "status",
        pa.string(),
        "`ok`; `text_only` if the row has no image, so that its weights are 1 and its scores are NaN, except "
        "`logprob_contrast` where the model runs on text alone; or why it was not scored, and its lists are null",
        "outcome",
        False,
        nullable=False,
    ),
    Column("error", pa.string(), "what was wrong with a row that was not scored", "outcome", False),
)
"""All columns, in file order. To find the optional ones, call the functions below; do not copy this tuple."""

IS_STOP: Final = "is_stop"
LOGPROB_TEXT: Final = "logprob_text"
"""The token's log-probability by a text reference, in nats. No run writes it: a reader joins it from another output
(:mod:`scorer.training.text_reference`), into the scores' ``optional``."""
REQUIRED: Final = tuple(column for column in COLUMNS if column.required)
WEIGHTS: Final = "token_weights"
ASKED: Final = tuple(dict.fromkeys(column.asked for column in COLUMNS if column.asked))
"""What ``--columns`` may ask for, in file order."""


def asked_for(asked: Iterable[str]) -> tuple[Column, ...]:
    """Return the columns that ``--columns`` adds for the first contrast."""
    asked = frozenset(asked)
    return tuple(column for column in COLUMNS if column.asked in asked)


def by_contrast(asked: Iterable[str] = ()) -> tuple[Column, ...]:
    """Return the columns of the first contrast that depend on it: its logit gap, its log-probability, what is asked."""
    asked = frozenset(asked)
    return tuple(column for column in COLUMNS if column.further and (column.required or column.asked in asked))


def of_contrast(contrast: str, asked: Iterable[str] = ()) -> tuple[Column, ...]:
    """Return the columns of a further contrast, in the order of :func:`by_contrast`.

    Those of ``blur@0.02`` are ``logit_gap_blur_0_02`` and ``logprob_blur_0_02``, since a dot would mean a nested field.
    """
    suffix = re.sub(r"[@.]", "_", contrast)
    return tuple(
        replace(
            column,
            name=column.further + suffix,
            meaning=column.meaning.replace(_CONTRAST_INPUT, f"the contrast `{contrast}`"),
            required=False,
        )
        for column in by_contrast(asked)
    )


def contrasts_in(names: Iterable[str]) -> tuple[str, ...]:
    """Return the further contrasts that have their gap and log-probability among ``names``, in that order."""
    names = list(names)
    fixed = {column.name for column in COLUMNS}
    gap, logprob = (column.further for column in by_contrast())
    found = [name.removeprefix(gap) for name in names if name.startswith(gap) and name not in fixed]
    return tuple(contrast for contrast in found if logprob + contrast in names and logprob + contrast not in fixed)


def of_run(fingerprint: Mapping[str, Any]) -> tuple[Column, ...]:
    """Return the columns that a run writes, in file order: the required ones and those that its fingerprint names.

    Names that this release does not know are skipped: a newer release wrote the output.
    """
    at = [column.name for column in COLUMNS].index(WEIGHTS)
    further = optional(fingerprint.get("columns", ()))
    return (*(column for column in COLUMNS[:at] if column.required), *further, *COLUMNS[at:])


def optional(names: Iterable[str]) -> tuple[Column, ...]:
    """Return the columns among ``names`` that only some outputs have, in file order; other names are skipped."""
    names = list(names)
    fixed = [column for column in COLUMNS if not column.required and column.name in names]
    further = (column for contrast in contrasts_in(names) for column in of_contrast(contrast, ASKED))
    return (*fixed, *(column for column in further if column.name in names))


def undefined(fingerprint: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the raw scores that are NaN, or false, in every row of a run.

    A language model takes no images, so that it has no clean pass: what needs one is undefined.
    """
    alone = "image_processor" in fingerprint and fingerprint["image_processor"] is None
    return frozenset(column.name for column in COLUMNS if column.needs_image) if alone else frozenset()


def raw(names: Iterable[str]) -> tuple[Column, ...]:
    """Return the raw-score columns that every output has, and the optional ones among ``names``."""
    return tuple(column for column in (*REQUIRED, *optional(names)) if column.kind == "raw")
