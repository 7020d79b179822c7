"""Write results as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.gain import cells, choice
from benchmarks.gain.cells import FINE_TUNED, SCRATCH, VALIDATION
from benchmarks.gain.methods import GROUNDED, METHODS, UNIFORM
from benchmarks.gain.results import FIGURES, Interval, Results

OTHERS: Final = (UNIFORM, "CAL", "VIG")
"""The methods that the others are compared with, seed by seed."""
_COMPARED: Final = ("visual_accuracy", "exact_match")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)


def figures(results: Results) -> str:
    """Return a table with a row per noise level and method: the means, the learning rate and the number of students."""
    rows = []
    for noise in results.noises:
        for method in results.methods:
            found = [results.mean(noise, method, figure) for figure in FIGURES]
            if found[0] is not None:
                shown = [_shown(one) for one in found]
                rows.append([f"{noise:.0%}", method, *shown, f"{results.rates[method]:g}", str(found[0].count)])
    return _table(["noise", "weights", *FIGURES.values(), "rate", "students"], rows)


def differences(results: Results) -> str:
    """Return a table with a row per noise level and method: how far it is from others, student by student."""
    rows = []
    for noise in results.noises:
        for method in results.methods:
            found = [
                None if method == other else results.difference(noise, method, other, figure)
                for figure in _COMPARED
                for other in OTHERS
            ]
            if any(found):
                rows.append([f"{noise:.0%}", method, *(_shown(one, signed=True) for one in found)])
    head = [f"{FIGURES[figure]} − {other}" for figure in _COMPARED for other in OTHERS]
    return _table(["noise", "weights", *head], rows)


def _shown(found: Interval | None, signed: bool = False) -> str:
    return "" if found is None else found.text(signed)


def weights(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Return a table of the mean weight of each kind of word, from noise → method → kind → mean."""
    kinds = ("visual", "filler", "contradictory", "generic")
    rows = [
        [f"{float(noise):.0%}", method, *(f"{means[kind]:.2f}" if kind in means else "" for kind in kinds)]
        for noise, methods in found.items()
        for method, means in methods.items()
    ]
    return _table(["noise", "weights", *kinds], rows)


def rates(document: Mapping[str, Any], start: str) -> str:
    """Return a table of visual words right in validation at each rate; the chosen one is bold."""
    chosen = document.get("chosen", {})
    found: dict[tuple[str, float], list[float]] = {}
    for cell, figures_ in cells.of(document):
        own = cell.weighting == choice.weighting(cell.method, chosen) and cell.noise in chosen.get("rate_noises", ())
        if (cell.split, cell.start) == (VALIDATION, start) and own:
            found.setdefault((cell.method, cell.rate), []).append(figures_["visual_accuracy"])
    tried = choice.RATES[start]
    rows = []
    for method in METHODS:
        each = [found.get((method, rate)) for rate in tried]
        best = choice.rate(method, start, chosen)
        if all(each):
            shown = [f"{100 * sum(ones) / len(ones):.1f}" for ones in each if ones]
            shown = [f"**{text}**" if rate == best else text for rate, text in zip(tried, shown, strict=True)]
            rows.append([method, *shown, "at the edge" if best in (tried[0], tried[-1]) else ""])
    return _table(["weights", *(f"{rate:g}" for rate in tried), ""], rows)


def grounded(document: Mapping[str, Any]) -> str:
    """Return a table of visual words right in validation for each candidate of `grounded`, by noise level."""
    found: dict[tuple[float, float], dict[float, list[float]]] = {}
    for cell, figures_ in cells.of(document):
        usual = cell.rate == choice.usual_rate(SCRATCH)
        if (cell.split, cell.start) == (VALIDATION, SCRATCH) and cell.k is not None and usual:
            found.setdefault((cell.k, cell.floor or 0.0), {}).setdefault(cell.noise, []).append(
                figures_["visual_accuracy"]
            )
    noises = sorted({noise for ones in found.values() for noise in ones})
    rows = [
        [f"{k:g}", f"{floor:g}", *(f"{100 * sum(ones[n]) / len(ones[n]):.1f}" if n in ones else "" for n in noises)]
        for (k, floor), ones in sorted(found.items())
    ]
    return _table(["k", "floor", *(f"{noise:.0%}" for noise in noises)], rows)


def references(document: Mapping[str, Any], main: str, noise: float) -> str:
    """Return a table with a row per reference and method: the reference's AUROCs, and gains over uniform weights."""
    rows = []
    for name, record in _by_auroc(document):
        results = Results.select(document, SCRATCH, name, main)
        for method in results.methods:
            gains = [results.difference(noise, method, UNIFORM, figure) for figure in _COMPARED]
            if METHODS[method].of_reference and gains[0] is not None:
                aurocs = [f"{record['aurocs'][kind]:.3f}" for kind in ("visual / filler", "true / contradictory")]
                shown = [_shown(one, signed=True) for one in gains]
                rows.append([name, *aurocs, method, *shown, str(gains[0].count)])
    head = [f"{FIGURES[figure]} − {UNIFORM}" for figure in _COMPARED]
    return _table(["reference", "visual / filler", "true / contradictory", "weights", *head, "students"], rows)


def _by_auroc(document: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    measured = [(name, one) for name, one in document.get("references", {}).items() if "aurocs" in one]
    return sorted(measured, key=lambda item: float(item[1]["aurocs"]["visual / filler"]))


def everything(document: Mapping[str, Any], main: str) -> str:
    """Return all tables that there are results for, under headings."""
    parts = []
    if document.get("chosen"):
        chosen = ", ".join(f"{name} = {value:g}" for name, value in document["chosen"].get(GROUNDED, {}).items())
        parts.append(f"## Chosen in validation\n\ngrounded: {chosen}\n\n{grounded(document)}")
    for start in (SCRATCH, FINE_TUNED):
        if document.get("chosen", {}).get("rates", {}).get(start):
            parts.append(f"Rates, {start}\n\n{rates(document, start)}")
        results = Results.select(document, start, main)
        if results.figures:
            parts.append(f"## Student: {start}\n\n{figures(results)}\n\n{differences(results)}")
    if document.get("weights"):
        parts.append(f"## Mean weights\n\n{weights(document['weights'])}")
    if _by_auroc(document):
        parts.append(f"## References\n\n{references(document, main, document['reference_noise'])}")
    return "\n\n".join(parts)
