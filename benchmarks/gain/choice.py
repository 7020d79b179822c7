"""Choose hyper-parameters by trainings of the validation split alone: learning rates, and k and a floor of `grounded`.

The candidate with the best visual words right is taken, as the mean over noise levels and students; all candidates are
compared on the same ones. Among equals, the first is.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, Final, TypeVar

from benchmarks.gain.cells import FINE_TUNED, SCRATCH, SPLITS, VALIDATION, Cell
from benchmarks.gain.methods import GROUNDED, METHODS, ORACLE, Weighting

RATES: Final[Mapping[str, tuple[float, ...]]] = {SCRATCH: (1e-3, 2e-3, 4e-3), FINE_TUNED: (2.5e-4, 5e-4, 1e-3)}
"""The learning rates that each method may have, by the student's start; the middle one where none is chosen yet."""

KS: Final = (1.0, 2.0, 4.0, 8.0)
FLOORS: Final = (0.0, 0.2)
"""Candidates for `grounded`. Filler has the weight 1 of which 1 + k is the largest, so k is filler's share, too; the
floor is for words that the reference believes to be contradicted."""

_FIGURE: Final = "visual_accuracy"
_Candidate = TypeVar("_Candidate")
Found = Iterable[tuple[Cell, Mapping[str, float]]]


def usual_rate(start: str) -> float:
    """Return the rate of trainings whose rate is not chosen yet."""
    return RATES[start][1]


def grounded_cells(reference: str, noises: Sequence[float], seeds: int, k: float | None = None) -> list[Cell]:
    """Return the trainings that k is chosen by, without a floor; or, given the chosen k, those that the floor is."""
    candidates = product(KS, FLOORS[:1]) if k is None else product([k], FLOORS)
    return [
        Cell(VALIDATION, SCRATCH, reference, noise, GROUNDED, *candidate, usual_rate(SCRATCH), seed)
        for seed, noise, candidate in product(_students(seeds), noises, candidates)
    ]


def rate_cells(
    start: str, reference: str, weightings: Sequence[Weighting], noises: Sequence[float], seeds: int
) -> list[Cell]:
    """Return the trainings that the methods' learning rates are chosen by."""
    return [
        Cell(VALIDATION, start, reference, noise, one.method, one.k, one.floor, rate, seed)
        for seed, noise, one, rate in product(_students(seeds), noises, weightings, RATES[start])
    ]


def _students(seeds: int) -> range:
    first = SPLITS[VALIDATION].first_student
    return range(first, first + seeds)


def choose_grounded(found: Found, cells: Sequence[Cell]) -> dict[str, float]:
    """Return the `k` and `floor` of the best of `cells`."""
    (k, floor), _ = _best(found, {cell: (cell.k, cell.floor) for cell in cells})
    assert k is not None and floor is not None
    return {"k": k, "floor": floor}


def choose_rates(found: Found, cells: Sequence[Cell]) -> dict[str, float]:
    """Return the best rate of each method."""
    every = list(found)
    return {
        method: _best(every, {cell: cell.rate for cell in cells if cell.method == method})[0]
        for method in dict.fromkeys(cell.method for cell in cells)
    }


def _best(found: Found, candidates: Mapping[Cell, _Candidate]) -> tuple[_Candidate, float]:
    """Return the best candidate and its figure, of the trainings that `candidates` names.

    Raises:
        ValueError: a training is missing, is not of the validation split, or candidates were not compared on the same.
    """
    results = dict(found)
    values: dict[_Candidate, list[float]] = defaultdict(list)
    compared: dict[_Candidate, set[tuple[float, int]]] = defaultdict(set)
    for cell, candidate in candidates.items():
        if cell.split != VALIDATION:
            raise ValueError(f"{cell.name}: a choice is made by the {VALIDATION} split, never by this one")
        if cell not in results:
            raise ValueError(f"{cell.name} is missing; run --only choice to the end")
        values[candidate].append(results[cell][_FIGURE])
        compared[candidate].add((cell.noise, cell.seed))
    if len({frozenset(places) for places in compared.values()}) != 1:
        raise ValueError("the candidates were not compared on the same noise levels and students")
    means = {candidate: statistics.mean(sorted(ones)) for candidate, ones in values.items()}
    best = max(means, key=lambda candidate: means[candidate])
    return best, means[best]


def weighting(method: str, chosen: Mapping[str, Any]) -> Weighting:
    """Return a method with what was chosen about it, or its defaults."""
    if method != GROUNDED:
        return Weighting(method)
    return Weighting(method, **(chosen.get(GROUNDED) or {"k": 4.0, "floor": 0.0}))


def rate(method: str, start: str, chosen: Mapping[str, Any]) -> float:
    """Return a method's chosen learning rate, or the usual one."""
    found: float = chosen.get("rates", {}).get(start, {}).get(method, usual_rate(start))
    return found


def worth_training(method: str, noise: float) -> bool:
    """Return whether a method is other than uniform weights at this noise level."""
    return method != ORACLE or noise > 0


def weightings(methods: Sequence[str], chosen: Mapping[str, Any]) -> list[Weighting]:
    """Return the methods with what was chosen about them, in the order of the tables."""
    return [weighting(method, chosen) for method in METHODS if method in methods]
