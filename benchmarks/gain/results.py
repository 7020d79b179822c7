"""Select trainings from a file of results, and summarise them as means and paired differences with 95 % intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.gain import cells, choice
from benchmarks.gain.cells import TEST
from benchmarks.gain.methods import METHODS

FIGURES: Final[Mapping[str, str]] = {
    "visual_accuracy": "visual words right",
    "exact_match": "captions right",
    "contradiction": "captions that contradict",
}
# Student's t, two-sided 95 %, by degrees of freedom.
_T: Final = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over students, half the width of its 95 % interval by Student's t, and how many students."""

    mean: float
    half: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Summarise values; the interval of a single one is infinite, and from 22 on a little too wide."""
        if len(values) < 2:
            return cls(values[0], math.inf, len(values))
        t = _T[min(len(values) - 1, len(_T)) - 1]
        half = t * statistics.stdev(values) / math.sqrt(len(values))
        return cls(statistics.mean(values), half, len(values))

    def text(self, signed: bool = False) -> str:
        """Return it in per cent."""
        mean = f"{100 * self.mean:{'+' if signed else ''}.1f}"
        return mean if math.isinf(self.half) else f"{mean} ± {100 * self.half:.1f}"


@dataclass(frozen=True, slots=True)
class Results:
    """The test split's trainings of one start and one reference, with the hyper-parameters that were chosen.

    Attributes:
        figures: (noise, method, seed) → figures.
        rates: of each method.
    """

    figures: Mapping[tuple[float, str, int], Mapping[str, float]]
    rates: Mapping[str, float]

    @classmethod
    def select(cls, document: Mapping[str, Any], start: str, reference: str, main: str | None = None) -> Results:
        """Select trainings; those of methods that do not depend on the reference are the `main` reference's."""
        chosen = document.get("chosen", {})
        found = {}
        for cell, figures in cells.of(document):
            wanted = reference if METHODS[cell.method].of_reference else main or reference
            if (
                (cell.split, cell.start, cell.reference) == (TEST, start, wanted)
                and cell.weighting == choice.weighting(cell.method, chosen)
                and cell.rate == choice.rate(cell.method, start, chosen)
            ):
                found[cell.noise, cell.method, cell.seed] = figures
        return cls(found, {method: choice.rate(method, start, chosen) for method in METHODS})

    @property
    def noises(self) -> list[float]:
        return sorted({noise for noise, _, _ in self.figures})

    @property
    def methods(self) -> list[str]:
        """The methods that were trained, in the order of the tables."""
        trained = {method for _, method, _ in self.figures}
        return [method for method in METHODS if method in trained]

    def values(self, noise: float, method: str, figure: str) -> dict[int, float]:
        """Return a figure by seed."""
        return {
            seed: found[figure] for (n, m, seed), found in sorted(self.figures.items()) if (n, m) == (noise, method)
        }

    def mean(self, noise: float, method: str, figure: str) -> Interval | None:
        """Return a figure's mean; None if there is no training."""
        values = self.values(noise, method, figure)
        return Interval.of(list(values.values())) if values else None

    def difference(self, noise: float, method: str, other: str, figure: str) -> Interval | None:
        """Return how far a method is from another, over the seeds that both have; None if there is none."""
        ours, theirs = (self.values(noise, name, figure) for name in (method, other))
        pairs = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        return Interval.of(pairs) if pairs else None
