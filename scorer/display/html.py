"""Render coloured captions as self-contained HTML; styles are inline, since a notebook has no style sheet of ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Final

import numpy as np

from scorer.display.levels import GAP_STEPS, gap_level, signed
from scorer.display.printable import printable
from scorer.display.token_runs import token_runs
from scorer.types import BoolArray, Float32Array, Int16Array, Int32Array

_COLORS: Final = {
    4: "#e8862c",
    3: "#f6ac62",
    2: "#fcd5a5",
    1: "#fdeedb",
    -1: "#e6eefb",
    -2: "#c3d8f8",
    -3: "#93b9f2",
    -4: "#6a9cea",
}
"""The background of each colour step, as in the report; the text on it is dark in any theme."""
_INK: Final = "#1d1c1a"
STOP: Final = "end"
"""The mark of a stop token, which has no text of its own."""
MAX_RUNS: Final = 2000
"""Of a longer text the beginning is drawn: a notebook stores every cell's output."""
MAX_RATIO: Final = 10_000


def caption_html(
    texts: Sequence[str],
    turns: Int16Array,
    starts: Int32Array,
    ends: Int32Array,
    gaps: Float32Array,
    is_stop: BoolArray,
) -> str:
    """Render scored texts, each token in the colour of its gap, with a legend.

    Args:
        texts: the scored turns' texts.
        turns, starts, ends: int16, int32 and int32 [N], the text that each token belongs to and its UTF-8 byte span.
        gaps: float32 [N], nats.
        is_stop: bool [N], which tokens are stop tokens; each is a mark behind its text.
    """
    paragraphs = []
    for turn, text in enumerate(texts):
        own = np.flatnonzero((turns == turn) & ~is_stop)
        shown = []
        runs = token_runs(text, starts[own], ends[own])
        for run in runs[:MAX_RUNS]:
            tokens = own[run.first : run.last]
            shown.append(_colored(run.text, float(gaps[tokens].astype(np.float64).sum()) if len(tokens) else math.nan))
        if len(runs) > MAX_RUNS:
            shown.append(f" … and {len(runs) - MAX_RUNS:,} more tokens")
        shown += [_stop(float(gap)) for gap in gaps[(turns == turn) & is_stop]]
        label = f'<span style="opacity:0.6">turn {turn + 1} </span>' if len(texts) > 1 else ""
        style = "margin:0.2em 0;line-height:1.9;white-space:pre-wrap"
        paragraphs.append(f'<p dir="auto" style="{style}">{label}{"".join(shown)}</p>')
    return f"<div>{''.join(paragraphs)}{_legend()}</div>"


def _colored(text: str, gap: float) -> str:
    core = text.strip()
    if not math.isfinite(gap) or not core:
        return _escaped(text)
    before, _, after = text.partition(core)
    return f"{_escaped(before)}{_mark(core, gap_level(gap), f'{signed(gap)} nats, {ratio(gap)}')}{_escaped(after)}"


def _stop(gap: float) -> str:
    """Render the mark of a stop token: dashed, so that it is not taken for a word."""
    level, words = (gap_level(gap), f"{signed(gap)} nats, {ratio(gap)}") if math.isfinite(gap) else (0, "undefined")
    border = "border:1px dashed;font-size:0.75em;padding:0.1em 0.3em;border-radius:3px;"
    return " " + _mark(STOP, level, f"end of the text: {words}", border)


def _mark(text: str, level: int, title: str, border: str = "") -> str:
    color = f"background:{_COLORS[level]};color:{_INK};border-radius:3px;padding:0.1em 0.15em" if level else ""
    style = color + (";" if color and border else "") + border
    return f'<span title="{escape(title)}" style="{style}">{_escaped(text)}</span>'


def _escaped(text: str) -> str:
    """Escape HTML, and spell out control characters and bidirectional marks; line breaks stay."""
    return escape("\n".join(printable(line) for line in text.split("\n")))


def ratio(gap: float) -> str:
    """Describe a gap in nats as a ratio: ``4.1 times as likely with the image``."""
    factor = math.exp(min(abs(gap), math.log(MAX_RATIO)))
    if factor < 1.005:
        return "as likely with the image as without"
    amount = f"over {MAX_RATIO:,}" if factor >= MAX_RATIO else f"{factor:.3g}" if factor < 100 else f"{factor:,.0f}"
    return f"{amount} times {'as' if gap >= 0 else 'less'} likely with the image"


def _legend() -> str:
    edges = [f"{math.exp(step):.3g}" for step in GAP_STEPS]
    less = [_mark(f"÷{edge}", -level, f"at least {edge} times less likely") for level, edge in enumerate(edges, 1)]
    more = [_mark(f"×{edge}", level, f"at least {edge} times as likely") for level, edge in enumerate(edges, 1)]
    steps = " ".join([*reversed(less), *more])
    style = "margin:0.2em 0;font-size:0.85em;opacity:0.85"
    return f'<p style="{style}">with the image, less likely {steps} more likely</p>'
