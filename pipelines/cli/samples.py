"""Print captions in the terminal, each token coloured by its gap or its weight.

Control characters in the dataset are escaped: a caption cannot move the cursor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from pipelines.output.contents import Output
from pipelines.output.reader import Window, choose_windows, read_rows
from pipelines.report.cards import collect, pick
from pipelines.sources import Source
from scorer.display.levels import GAP_STEPS, WEIGHT_STEPS, gap_level, signed, weight_level
from scorer.display.printable import printable
from scorer.display.token_runs import token_runs
from scorer.display.words import words
from scorer.training.rows import ScoredRow
from scorer.types import Float32Array, Sample

By = Literal["gap", "weight"]

_RESET: Final = "\x1b[0m"
_DIM: Final = "\x1b[2m"
_UP: Final = (223, 215, 208, 202)
_DOWN: Final = (153, 111, 75, 69)
_WEIGHT: Final = (None, 225, 219, 177, 135)
"""Background colours from the xterm 256-colour palette, weak to strong, for black text."""
_LISTED_WORDS: Final = 4
"""Number of words per caption whose gaps are listed."""


@dataclass(frozen=True, slots=True)
class TokenStyle:
    """How tokens are shown: by gap or weight, in colour or not, and the range of weights that the colours span."""

    by: By
    color: bool
    weights: tuple[float, float] = (1.0, 5.0)

    def token(self, text: str, gap: float, weight: float) -> str:
        """Return the text of a token on its background colour."""
        if self.by == "gap":
            level = gap_level(gap)
            background = None if level == 0 else (_UP if level > 0 else _DOWN)[abs(level) - 1]
        else:
            background = _WEIGHT[weight_level(weight, *self.weights)]
        if not self.color or background is None:
            return text
        return f"\x1b[38;5;16;48;5;{background}m{text}{_RESET}"

    def dim(self, text: str) -> str:
        return f"{_DIM}{text}{_RESET}" if self.color else text

    def legend(self) -> str:
        """Return the legend of the colours."""
        if self.by == "gap":
            edges = [f"{math.exp(step):.3g}" for step in GAP_STEPS]
            down = [self.token(f" ÷{edge} ", -step - 1e-6, 0) for edge, step in zip(edges, GAP_STEPS, strict=True)]
            up = [self.token(f" ×{edge} ", step + 1e-6, 0) for edge, step in zip(edges, GAP_STEPS, strict=True)]
            return f"less likely with the image {''.join(reversed(down))} {''.join(up)} more likely"
        low, high = self.weights
        edges = [f"{low + (high - low) * i / WEIGHT_STEPS:.1f}" for i in range(WEIGHT_STEPS)]
        steps = [
            self.token(f" {edge} ", 0, low + (high - low) * (i + 0.5) / WEIGHT_STEPS) for i, edge in enumerate(edges)
        ]
        return f"weight from {''.join(steps)} to {high:.1f}"


def choose_samples(output: Output, count: int, seed: int) -> list[ScoredRow]:
    """Choose up to ``count`` scored rows at random across the shards, reading at most ``count`` windows of 64 rows."""
    shards = [{"name": shard.name, "rows": shard.tally.rows, "ok": shard.tally.ok} for shard in output.shards.values()]
    tallies = [shard.tally for shard in output.shards.values()]
    tokens = sum(max(0, tally.tokens) for tally in tallies)
    document = {"shards": shards, "ok": sum(tally.ok for tally in tallies), "tokens": tokens}
    windows = choose_windows(document, seed)[:count]
    read = read_rows(output.store.root, windows)
    return pick([row for rows in read.values() for row in rows], count, seed)


def show_samples(rows: Sequence[ScoredRow], source: Source, style: TokenStyle) -> Iterator[str]:
    """Yield lines for each row: where it is, its coloured texts, and the words with the largest gaps.

    Raises:
        TableError: The dataset lacks a shard that was scored.
    """
    windows = {Window(row.shard, row.row_index, row.row_index + 1): [row] for row in rows}
    collected = collect(source, windows, rows)
    if style.color:
        yield style.legend()
    for row, sample in collected.picks:
        yield ""
        place = f"{row.shard} row {row.row_index} · {sample.sample_id} · {len(row.weights)} tokens"
        yield style.dim(printable(place))
        for turn, text in enumerate(sample.scored_texts):
            yield _colored(row, turn, text, style)
        yield style.dim(_largest_gaps(row, sample))
    if collected.changed:
        yield ""
        yield f"left out: {collected.changed} rows whose text has changed since it was scored"


def weight_range(rows: Sequence[ScoredRow]) -> tuple[float, float]:
    """Return the lowest and highest finite weight of these rows, which the colours span."""
    weights = np.concatenate([np.zeros(0, np.float32), *(row.weights for row in rows)])
    finite: Float32Array = weights[np.isfinite(weights)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)


def _colored(row: ScoredRow, turn: int, text: str, style: TokenStyle) -> str:
    own = np.flatnonzero((row.scores.token_turns == turn) & ~row.scores.is_stop)
    gaps = row.scores.logprob_gap.astype(np.float64)
    shown = []
    for run in token_runs(text, row.scores.token_starts[own], row.scores.token_ends[own]):
        tokens = own[run.first : run.last]
        core = run.text.lstrip()  # leave leading spaces uncoloured, to separate the words
        space = printable(run.text[: len(run.text) - len(core)])
        if len(tokens) == 0 or not core:
            shown.append(printable(run.text))
            continue
        shown.append(space + style.token(printable(core), float(gaps[tokens].sum()), float(row.weights[tokens].mean())))
    return "".join(shown)


def _largest_gaps(row: ScoredRow, sample: Sample) -> str:
    """Return the words with the largest gaps and their values, for output without colours."""
    gaps = row.scores.logprob_gap.astype(np.float64)
    found: list[tuple[float, str]] = []
    for turn, text in enumerate(sample.scored_texts):
        own = np.flatnonzero(row.scores.token_turns == turn)
        for word in words(text, row.scores.token_starts[own], row.scores.token_ends[own]):
            found.append((float(gaps[own[list(word.tokens)]].sum()), printable(word.text)))
    large = sorted((entry for entry in found if abs(entry[0]) >= GAP_STEPS[0]), key=lambda entry: -abs(entry[0]))
    if not large:
        return "no word depends on the image"
    return "gaps: " + ", ".join(f"{word} {signed(gap, 1)}" for gap, word in large[:_LISTED_WORDS])
