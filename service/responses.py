"""Turn results into response documents. Undefined values are null, never NaN."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.responses import Response

from scorer.columns import optional, raw
from scorer.errors import TableError
from scorer.results import TokenScores
from scorer.weights import Method
from service.problems import ProblemError


class JsonDocument(Response):
    """A response of plain data as JSON; raises ValueError for NaN, which JSON lacks."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def score_document(scores: TokenScores, texts: Sequence[str], method: Method, parts: Collection[str]) -> dict[str, Any]:
    """Return method, turns, tokens and totals of one sample."""
    weights = weights_of(method, scores)
    arrays = scores.arrays
    columns: dict[str, Sequence[Any]] = {}
    if "tokens" in parts:
        columns |= {"id": scores.token_ids.tolist(), "text": token_texts(scores, texts)}
    if "spans" in parts:
        turns, starts, ends = scores.token_turns, scores.token_starts, scores.token_ends
        columns |= {"turn": turns.tolist(), "start": starts.tolist(), "end": ends.tolist()}
        further = [column.name for column in optional(arrays) if column.kind == "span"]
        columns |= {name: arrays[name].tolist() for name in further}
    if "raw" in parts:
        columns |= {column.name: nulled(arrays[column.name]) for column in raw(arrays)}
    if "weights" in parts:
        columns["weight"] = nulled(weights)
    empty = [()] * len(scores.token_ids)
    rows = zip(*columns.values(), strict=True) if columns else empty
    return {
        "method": method.name,
        "method_params": dict(method.params),
        "turns": list(texts),
        "tokens": [dict(zip(columns, row, strict=True)) for row in rows],
        "totals": {
            "tokens": len(scores.token_ids),
            "mean_gap": _defined(scores.logit_gap.mean(dtype=np.float64)),
            "logprob_clean": _defined(scores.logprob_clean.sum(dtype=np.float64)),
            "logprob_contrast": _defined(scores.logprob_contrast.sum(dtype=np.float64)),
            "mean_weight": _defined(weights.mean(dtype=np.float64)),
        },
    }


def weights_of(method: Method, scores: Any) -> npt.NDArray[np.float32]:
    """Return the weights of one sample, float32 [N].

    Raises:
        ProblemError: 422 if a parameter pushes a weight beyond the range of float32, or if the method reads a column
            that is absent.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            weights = method(scores)
    except TableError as error:
        raise ProblemError(422, "method_invalid", str(error)) from None
    if np.isinf(weights).any():
        raise ProblemError(
            422,
            "weights_overflow",
            f"the method {method.name!r} with {dict(method.params)} yields weights beyond float32; lower them",
        )
    return weights


def token_texts(scores: TokenScores, texts: Sequence[str]) -> list[str]:
    """Return the text of every token, with U+FFFD for parts of a character."""
    encoded = [text.encode() for text in texts]
    return [
        encoded[turn][start:end].decode(errors="replace")
        for turn, start, end in zip(
            scores.token_turns.tolist(), scores.token_starts.tolist(), scores.token_ends.tolist(), strict=True
        )
    ]


def nulled(values: npt.NDArray[np.floating[Any]]) -> list[float | None]:
    """Return the values as a list, None where undefined."""
    listed: list[float] = values.tolist()
    return [value if math.isfinite(value) else None for value in listed] if not np.isfinite(values).all() else [*listed]


def _defined(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
