"""From figures to a grade and its reasons."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from scorer.assessment.own_image import OwnImage
from scorer.assessment.reading import Reading
from scorer.assessment.swapped import WordSwaps
from scorer.assessment.verdict import THRESHOLDS, Grade, Verdict, judge
from scorer.statistics import Estimate
from tests.conftest import ROOT

UNKNOWN = Estimate(math.nan, math.nan, math.nan, 0)


def sure(value: float) -> Estimate:
    return Estimate(value, value, value, 100)


GOOD = {"own_image": sure(0.99), "word_swaps": sure(0.9), "bits_per_byte": sure(0.9), "pieces": sure(0.0)}


def verdict(failed: int = 0, **changed: Estimate) -> Verdict:
    figures = GOOD | changed
    swaps = WordSwaps(sure(0.9), sure(0.6), figures["word_swaps"], sure(0.5), (), ())
    reading = Reading(sure(5.0), figures["bits_per_byte"], figures["pieces"], sure(1.2))
    return judge(100, failed, OwnImage(figures["own_image"], sure(1.0)), swaps, reading)


def test_good_figures_are_good_and_need_no_reason() -> None:
    assert verdict().grade is Grade.GOOD
    assert verdict().reasons == ()


@pytest.mark.parametrize("measure", [name for name in THRESHOLDS if name != "failed"])
def test_each_figure_can_spoil_the_grade(measure: str) -> None:
    bound = THRESHOLDS[measure]
    between, beyond = (bound.good + bound.unusable) / 2, 2 * bound.unusable - bound.good
    for value, grade in ((between, Grade.DOUBTFUL), (beyond, Grade.UNUSABLE)):
        found = verdict(**{measure: sure(value)})
        assert found.grade == grade
        (reason,) = found.reasons
        assert (reason.measure, reason.grade) == (measure, grade)
        assert reason.remedy


def test_bounds_themselves_are_the_better_side() -> None:
    assert verdict(own_image=sure(THRESHOLDS["own_image"].good)).grade is Grade.GOOD
    assert verdict(own_image=sure(THRESHOLDS["own_image"].unusable)).grade is Grade.DOUBTFUL
    assert verdict(pieces=sure(THRESHOLDS["pieces"].good)).grade is Grade.GOOD
    assert verdict(pieces=sure(THRESHOLDS["pieces"].unusable)).grade is Grade.DOUBTFUL


def test_an_uncertain_figure_is_doubtful_either_way() -> None:
    found = verdict(own_image=Estimate(0.9, 0.5, 1.0, 30))
    assert found.grade is Grade.DOUBTFUL
    assert "uncertain" in found.reasons[0].meaning
    assert "--rows" in found.reasons[0].remedy
    assert verdict(own_image=Estimate(0.5, 0.3, 0.7, 30)).grade is Grade.DOUBTFUL
    assert verdict(bits_per_byte=Estimate(1.9, 1.0, 2.5, 30)).grade is Grade.DOUBTFUL


def test_what_is_needed_and_unknown_is_doubtful_and_the_rest_is_not() -> None:
    assert verdict(own_image=UNKNOWN).grade is Grade.DOUBTFUL
    assert verdict(bits_per_byte=UNKNOWN).grade is Grade.DOUBTFUL
    assert verdict(word_swaps=UNKNOWN).grade is Grade.DOUBTFUL
    assert verdict(pieces=UNKNOWN).grade is Grade.GOOD


def test_a_few_rows_decide_nothing() -> None:
    """Two rows have no spread to speak of, whichever way they point."""
    for value in (0.0, 1.0):
        found = verdict(own_image=Estimate(value, value, value, 19))
        assert found.grade is Grade.DOUBTFUL
        assert found.reasons[0].grade is None
    assert verdict(own_image=Estimate(1.0, 1.0, 1.0, 20)).grade is Grade.GOOD


def test_failed_rows_spoil_the_grade() -> None:
    assert [verdict(failed).grade for failed in (20, 21, 80, 81)] == [
        Grade.GOOD,
        Grade.DOUBTFUL,
        Grade.DOUBTFUL,
        Grade.UNUSABLE,
    ]


def test_no_rows_are_no_reason_to_trust() -> None:
    nothing = replace(verdict().findings[0].figure, value=math.nan, low=math.nan, high=math.nan)
    swaps = WordSwaps(nothing, nothing, nothing, nothing, (), ())
    found = judge(0, 0, OwnImage(nothing, nothing), swaps, Reading(nothing, nothing, nothing, nothing))
    assert found.grade is Grade.DOUBTFUL


def test_the_worst_reason_comes_first() -> None:
    found = verdict(own_image=sure(0.7), pieces=sure(0.9))
    assert [reason.measure for reason in found.reasons] == ["pieces", "own_image"]
    assert found.grade is Grade.UNUSABLE


def test_the_documents_have_these_thresholds() -> None:
    rows = [line for line in (ROOT / "docs" / "assess.md").read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    stated = [tuple(cell.strip() for cell in line.split("|")[2:4]) for line in rows]
    assert [bounds for bounds in stated if bounds[0][:1] in "≥≤"] == [one.bounds for one in THRESHOLDS.values()]
