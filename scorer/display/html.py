"""Render coloured captions as self-contained HTML; styles are inline, since a notebook has no style sheet of ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Final

import numpy as np

from scorer.display.levels import GAP_STEPS, gap_level, signed
from scorer.display.token_runs import token_runs
from scorer.types import Float32Array, Int16Array, Int32Array

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


def caption_html(
    texts: Sequence[str], turns: Int16Array, starts: Int32Array, ends: Int32Array, gaps: Float32Array
) -> str:
    """Render scored texts, each token in the colour of its gap, with a legend.

    Args:
        texts: the scored turns' texts.
        turns, starts, ends: int16, int32 and int32 [N], the text that each token belongs to and its UTF-8 byte span.
        gaps: float32 [N], nats.
    """
    paragraphs = []
    for turn, text in enumerate(texts):
        own = np.flatnonzero(turns == turn)
        shown = []
        for run in token_runs(text, starts[own], ends[own]):
            tokens = own[run.first : run.last]
            shown.append(_colored(run.text, float(gaps[tokens].astype(np.float64).sum()) if len(tokens) else math.nan))
        style = "margin:0.2em 0;line-height:1.9;white-space:pre-wrap"
        paragraphs.append(f'<p dir="auto" style="{style}">{"".join(shown)}</p>')
    return f"<div>{''.join(paragraphs)}{_legend()}</div>"


def _colored(text: str, gap: float) -> str:
    core = text.strip()
    if math.isnan(gap) or not core:
        return escape(text)
    before, _, after = text.partition(core)
    return f"{escape(before)}{_mark(core, gap_level(gap), f'{signed(gap)} nats, {_ratio(gap)}')}{escape(after)}"


def _mark(text: str, level: int, title: str) -> str:
    style = f"background:{_COLORS[level]};color:{_INK};border-radius:3px;padding:0.1em 0.15em" if level else ""
    return f'<span title="{escape(title)}" style="{style}">{escape(text)}</span>'


def _ratio(gap: float) -> str:
    """Describe a gap as a ratio: ``4.1 times as likely with the image``."""
    factor = math.exp(min(abs(gap), math.log(10_000)))
    more = "over 10,000" if abs(gap) > math.log(10_000) else f"{factor:.3g}"
    return f"{more} times {'as' if gap >= 0 else 'less'} likely with the image"


def _legend() -> str:
    edges = [f"{math.exp(step):.3g}" for step in GAP_STEPS]
    less = [_mark(f"÷{edge}", -level, f"at least {edge} times less likely") for level, edge in enumerate(edges, 1)]
    more = [_mark(f"×{edge}", level, f"at least {edge} times as likely") for level, edge in enumerate(edges, 1)]
    steps = " ".join([*reversed(less), *more])
    style = "margin:0.2em 0;font-size:0.85em;opacity:0.85"
    return f'<p style="{style}">with the image, less likely {steps} more likely</p>'
