"""Figures of methods as weights, on captions whose figures are known by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.grounding_weights import BELOW, MEAN, WEIGHTS, weight_figures, weights_markdown
from benchmarks.labelled import STOP, Scored
from scorer.mini.language.caption_writer import CONTRADICTORY, FILLER, VISUAL
from scorer.results import TokenScores
from scorer.weighting.dataset_gaps import DatasetGaps
from scorer.weights import METHODS, Method


def caption(tokens: list[tuple[str | None, float, float]]) -> Scored:
    """Tokens of a label, and their probabilities with and without the image."""
    labels, clean, contrast = zip(*tokens, strict=True)
    at = np.arange(len(tokens), dtype=np.int32)
    logprobs = [np.log(np.array(column, np.float32)) for column in (clean, contrast)]
    stops = np.array([label == STOP for label in labels])
    scores = TokenScores(
        *("s", at, at, at + 1, np.zeros(len(at), np.int16), "h", logprobs[0] - logprobs[1], *logprobs),
        optional={"is_stop": stops},
    )
    return Scored(np.array(labels, object), scores, np.zeros(len(at)))


SANE = [
    *((VISUAL, 0.9, 0.1), (None, 0.5, 0.5), (FILLER, 0.6, 0.6)),
    *((VISUAL, 0.8, 0.2), (FILLER, 0.001, 0.9), (STOP, 1, 1)),
]
FALSE = [(VISUAL, 0.9, 0.3), (CONTRADICTORY, 0.001, 0.5), (FILLER, 0.7, 0.7), (STOP, 1, 1)]


@pytest.fixture(scope="module")
def rows() -> list[Scored]:
    return [caption(SANE), caption(FALSE)] * 3


@pytest.fixture(scope="module")
def figures(rows: list[Scored]) -> dict[str, Any]:
    return weight_figures(rows, 5, 0)


def test_every_method_has_figures(figures: dict[str, Any]) -> None:
    assert set(METHODS) <= set(figures) == set(WEIGHTS)


@pytest.mark.parametrize("name", WEIGHTS)
def test_figures_by_hand(rows: list[Scored], figures: dict[str, Any], name: str) -> None:
    gaps = [row.scores.logprob_clean.astype(np.float64) - row.scores.logprob_contrast for row in rows]
    dataset = sum((DatasetGaps.of(gap, np.array([0, len(gap)])) for gap in gaps), DatasetGaps())
    method = WEIGHTS[name].with_gaps(dataset)
    sane, false = method(caption(SANE).scores).tolist(), method(caption(FALSE).scores).tolist()
    mean = (sum(sane) + sum(false)) / 10
    found = figures[name]
    assert found[MEAN][VISUAL] == pytest.approx((sane[0] + sane[3] + false[0]) / 3 / mean)
    assert found[MEAN][FILLER] == pytest.approx((sane[2] + sane[4] + false[2]) / 3 / mean)
    assert found[MEAN][CONTRADICTORY] == pytest.approx(false[1] / mean)
    assert found[MEAN][STOP] == pytest.approx((sane[5] + false[3]) / 2 / mean)
    assert found[BELOW][VISUAL] == np.mean([w < 0.2 * mean for w in (sane[0], sane[3])])
    assert found[BELOW][FILLER] == np.mean([w < 0.2 * mean for w in (sane[2], sane[4])])
    assert found[BELOW]["visual and filler"] == np.mean([w < 0.2 * mean for w in (sane[0], sane[2], sane[3], sane[4])])

    def above(high: list[float], low: list[float]) -> float:
        return float(np.mean([(a > b) + (a == b) / 2 for a in high for b in low]))

    assert found["visual / filler"][0] == pytest.approx(above([sane[0], sane[3]], [sane[2], sane[4]]))
    assert found["visual / contradictory"][0] == pytest.approx(above([false[0]], [false[1]]))
    assert found["filler / contradictory"][0] == pytest.approx(above([false[2]], [false[1]]))


def test_figures_tell_methods_apart(figures: dict[str, Any]) -> None:
    """The lost filler word of the caption without an error: a gate loses it, CAL's floor does not."""
    assert figures["grounded"][BELOW][FILLER] == 0.5 and figures["cal"][BELOW][FILLER] == 0
    assert figures["grounded"]["filler / contradictory"][0] == 1 > figures["cal, window=1"]["filler / contradictory"][0]
    assert figures["vig"] != figures["vig-row"]


def test_a_threshold_is_that_of_the_captions_measured(rows: list[Scored]) -> None:
    few = weight_figures(rows[:1] * 4 + rows[1:2], 5, 0)["vig"][MEAN]
    assert few != weight_figures(rows, 5, 0)["vig"][MEAN]
    with pytest.raises(Exception, match="one sample does not tell"):
        Method("vig")(rows[0].scores)


def test_the_table_has_a_line_for_each_method_and_set(figures: dict[str, Any]) -> None:
    lines = weights_markdown({"templates": figures, "a book": figures}).splitlines()
    assert len(lines) == 2 + 2 * len(WEIGHTS)
    assert len({line.count("|") for line in lines}) == 1
    (grounded,) = (line for line in lines if line.startswith("| a book | grounded |"))
    assert grounded.endswith("| 0.0% · 50.0% · 25.0% |")
