"""Grade what was measured: one table of thresholds, each with where it comes from, its reading and its remedy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from scorer.assessment.own_image import OwnImage
from scorer.assessment.reading import Reading
from scorer.assessment.swapped import WordSwaps
from scorer.statistics import Estimate


class Grade(StrEnum):
    """How far a reference's scores can be trusted on a dataset, best first."""

    GOOD = "good"
    """Every measurement supports the scores."""
    DOUBTFUL = "doubtful"
    """A measurement is weak, or too uncertain to tell: read the reasons before you train with the weights."""
    UNUSABLE = "unusable"
    """A measurement shows that the scores say nothing about the images or the texts: do not train with the weights."""


MIN_COUNT: Final = 20
"""Rows or swaps below which a figure is not graded."""
_WORST_LAST: Final = tuple(Grade)


@dataclass(frozen=True, slots=True)
class Threshold:
    """Where a figure becomes doubtful, and where unusable.

    A figure is good if its whole interval is at least as good as ``good``, and unusable if its whole interval is worse
    than ``unusable``.

    Attributes:
        title: what is measured, for people.
        good, unusable: the two bounds; if ``good`` is the smaller one, a smaller figure is better.
        low, poor: what a doubtful and an unusable figure mean.
        remedy: what to do then.
        origin: where the bounds come from.
    """

    title: str
    good: float
    unusable: float
    low: str
    poor: str
    remedy: str
    origin: str

    @property
    def bounds(self) -> tuple[str, str]:
        """Where a figure is good and where unusable, for people: ``≥ 0.75`` and ``< 0.6``."""
        better, worse = ("≥", "<") if self.good >= self.unusable else ("≤", ">")
        return f"{better} {self.good:g}", f"{worse} {self.unusable:g}"

    def grade(self, figure: Estimate) -> Grade | None:
        """Return the figure's grade; None if it could not be estimated: the bootstrap of a few rows knows no doubt."""
        if not figure.known or figure.count < MIN_COUNT:
            return None
        sign = 1 if self.good >= self.unusable else -1
        worst, best = sorted((sign * figure.low, sign * figure.high))
        if worst >= sign * self.good:
            return Grade.GOOD
        return Grade.UNUSABLE if best < sign * self.unusable else Grade.DOUBTFUL


_LOOKS: Final = (
    "try a stronger model (--model), check that images and captions belong together, and compare contrasts (--contrast)"
)
_READS: Final = "use a reference model that was trained on this language and kind of text (--model)"
_CHANCE: Final = "0.5 is chance; 0.6 is above the interval of a random model on 200 rows"

THRESHOLDS: Final[dict[str, Threshold]] = {
    "own_image": Threshold(
        title="own image against another row's (AUROC)",
        good=0.75,
        unusable=0.6,
        low="the reference hardly tells a caption's own image from another's",
        poor="the reference does not look at these images",
        remedy=_LOOKS,
        origin=_CHANCE,
    ),
    "word_swaps": Threshold(
        title="own word against another in its place (AUROC of the gap)",
        good=0.7,
        unusable=0.55,
        low="the image hardly favours a caption's own word over another that could stand in its place",
        poor="the image does not favour a caption's own word over another that could stand in its place",
        remedy=_LOOKS,
        origin=_CHANCE,
    ),
    "bits_per_byte": Threshold(
        title="surprise by the text, given the image (bits per byte)",
        good=2.0,
        unusable=3.0,
        low="the texts surprise the reference more than ordinary text should",
        poor="the reference cannot read these texts: it predicts them no better than letter frequencies would",
        remedy=_READS,
        origin="letter frequencies alone give 4.1 bits a letter in English (Shannon 1951) and about 9.6 a character, "
        "3.2 a byte, in Chinese; language models need about 1 a byte",
    ),
    "pieces": Threshold(
        title="tokens that are unknown or parts of a character (share)",
        good=0.1,
        unusable=0.5,
        low="the tokenizer cuts many characters of these texts into bytes",
        poor="the tokenizer does not know the script of these texts",
        remedy=_READS,
        origin="0 in a script that the tokenizer has; near 1 in one that it spells in bytes",
    ),
    "failed": Threshold(
        title="rows that cannot be scored (share)",
        good=0.2,
        unusable=0.8,
        low="many of the rows cannot be scored",
        poor="most of the rows cannot be scored",
        remedy="see their codes, and try --dry-run",
        origin="rows that fail are no sample of the others",
    ),
}
"""The figures that decide the grade."""

NEEDED: Final = ("own_image", "word_swaps", "bits_per_byte")
"""Figures without which no grade is good."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure, its grade (None if it could not be estimated), and what it means in words."""

    measure: str
    title: str
    figure: Estimate
    grade: Grade | None
    meaning: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The grade of the worst finding, and all findings."""

    grade: Grade
    findings: tuple[Finding, ...]

    @property
    def reasons(self) -> tuple[Finding, ...]:
        """The findings that keep the grade from being good, the worst first."""
        below = [one for one in self.findings if _counts(one) is not Grade.GOOD]
        return tuple(sorted(below, key=lambda one: -_WORST_LAST.index(_counts(one))))


def judge(rows: int, failed: int, own_image: OwnImage, word_swaps: WordSwaps, reading: Reading) -> Verdict:
    """Grade the figures by :data:`THRESHOLDS`.

    Args:
        rows: how many rows were looked at.
        failed: how many of them could not be scored.
    """
    share = failed / rows if rows else float("nan")
    figures = {
        "own_image": own_image.auroc,
        "word_swaps": word_swaps.gap,
        "bits_per_byte": reading.bits_per_byte,
        "pieces": reading.pieces,
        "failed": Estimate(share, share, share, max(rows, MIN_COUNT)),
    }
    findings = tuple(_finding(name, figure) for name, figure in figures.items())
    worst = max((_counts(one) for one in findings), key=_WORST_LAST.index)
    return Verdict(worst, findings)


def _counts(finding: Finding) -> Grade:
    """Return the grade that a finding counts as: one that could not be estimated is doubtful if it is needed."""
    if finding.grade is not None:
        return finding.grade
    return Grade.DOUBTFUL if finding.measure in NEEDED else Grade.GOOD


def _finding(name: str, figure: Estimate) -> Finding:
    threshold = THRESHOLDS[name]
    grade = threshold.grade(figure)
    if grade is None:
        meaning = f"could not be estimated from fewer than {MIN_COUNT} rows or swaps"
        return Finding(name, threshold.title, figure, None, meaning, "take more rows (--rows)")
    if grade is Grade.GOOD:
        return Finding(name, threshold.title, figure, grade, "as it should be", "")
    if grade is Grade.UNUSABLE:
        return Finding(name, threshold.title, figure, grade, threshold.poor, threshold.remedy)
    sure = (figure.value >= threshold.good) == (threshold.good >= threshold.unusable)
    meaning = "good, but too uncertain to rely on" if sure else threshold.low
    return Finding(
        name, threshold.title, figure, grade, meaning, "take more rows (--rows)" if sure else threshold.remedy
    )
