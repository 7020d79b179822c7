"""Measure methods as weights: which words they tell apart, what each kind of word weighs, which true words they lose.

A method that takes a threshold from a dataset's gaps takes it from the captions that are measured.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from benchmarks.labelled import STOP, Scored, interval, markdown_cell, split
from scorer.mini.language.caption_writer import CONTRADICTORY, FILLER, VISUAL
from scorer.weighting.dataset_gaps import DatasetGaps
from scorer.weighting.gaps import logprob_gap
from scorer.weights import METHODS, Method

WEIGHTS: Final[Mapping[str, Method]] = {
    **{name: Method(name) for name in METHODS},
    "cal, edges=paper": Method("cal", {"edges": "paper"}),
    "cal, window=1": Method("cal", {"window": 1}),
    "cal-logprob, window=1": Method("cal-logprob", {"window": 1}),
}
QUESTIONS: Final = ((VISUAL, FILLER, False), (VISUAL, CONTRADICTORY, True), (FILLER, CONTRADICTORY, True))
"""Labels whose weights should be high and low, and whether they are those of the captions with an error."""
KINDS: Final = (VISUAL, FILLER, CONTRADICTORY, STOP)
LOST: Final = 0.2
"""A true word that weighs less than this share of the mean is hardly trained on."""
MEAN: Final = "mean weight ÷ mean of all tokens"
BELOW: Final = f"true words below {LOST} of the mean"


def weight_figures(rows: Sequence[Scored], resamples: int, seed: int) -> dict[str, Any]:
    """Return the figures of every method: the AUROC of its weights for each question, the mean weight of each kind of
    token, and the share of visual, filler and both words, in captions without an error, that it loses.

    Means are over all tokens of all captions, stop tokens and white space among them.
    """
    gaps = [logprob_gap(row.scores) for row in rows]
    dataset = sum((DatasetGaps.of(gap, np.array([0, len(gap)])) for gap in gaps), DatasetGaps())
    labels = np.concatenate([row.labels for row in rows])
    false = np.concatenate([np.full(len(row.labels), CONTRADICTORY in row.labels) for row in rows])
    found = {}
    for name, method in WEIGHTS.items():
        ready = method.with_gaps(dataset)
        columns = [ready(row.scores).astype(np.float64) for row in rows]
        relative = np.concatenate(columns)
        relative /= relative.mean()
        lost = {}
        for words in ((VISUAL,), (FILLER,), (VISUAL, FILLER)):
            chosen = relative[~false & np.isin(labels, words)]
            lost[" and ".join(words)] = float((chosen < LOST).mean())
        found[name] = {
            **{
                f"{high} / {low}": interval(
                    [
                        pair
                        for row, pair in zip(rows, split(rows, columns, high, low), strict=True)
                        if (CONTRADICTORY in row.labels) == of_false
                    ],
                    resamples,
                    seed,
                )
                for high, low, of_false in QUESTIONS
            },
            MEAN: {kind: float(relative[labels == kind].mean()) for kind in KINDS},
            BELOW: lost,
        }
    return found


def weights_markdown(figures: Mapping[str, Any]) -> str:
    """Format :func:`weight_figures` of several sets of captions as a Markdown table."""
    questions = [f"{high} / {low}" for high, low, _ in QUESTIONS]
    lines = [
        f"| captions | weights | {' | '.join(questions)} | mean weight: {' · '.join(KINDS)} | "
        f"below {LOST} of the mean: {VISUAL} · {FILLER} · both |",
        "|---" * (len(questions) + 4) + "|",
    ]
    for captions, methods in figures.items():
        for name, row in methods.items():
            areas = " | ".join(markdown_cell(row[question]) for question in questions)
            means = " · ".join(f"{value:.2f}" for value in row[MEAN].values())
            below = " · ".join(f"{value:.1%}" for value in row[BELOW].values())
            lines.append(f"| {captions} | {name} | {areas} | {means} | {below} |")
    return "\n".join(lines)
