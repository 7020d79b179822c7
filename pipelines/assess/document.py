"""Present an assessment as plain data or as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from pipelines.assess.rows import ChosenRows
from pipelines.formatting import count_of, model_name
from scorer.assessment.assess import Assessment
from scorer.assessment.verdict import Finding, Grade
from scorer.display.printable import printable
from scorer.statistics import Estimate

MEANINGS: Final[Mapping[Grade, str]] = {
    Grade.GOOD: "the reference can be trusted on this dataset, as far as can be told without labels",
    Grade.DOUBTFUL: "read the reasons before you train with these weights",
    Grade.UNUSABLE: "do not train with these weights",
}
"""What a grade means for who trains."""


def as_document(dataset: str, chosen: ChosenRows, assessment: Assessment) -> dict[str, Any]:
    """Return everything as plain data; figures that are unknown are null."""
    found: dict[str, Any] = _plain(asdict(assessment))
    verdict = found.pop("verdict")
    reasons = [_plain(asdict(reason)) for reason in assessment.verdict.reasons]
    return {
        "verdict": verdict["grade"],
        "meaning": MEANINGS[assessment.verdict.grade],
        "reasons": reasons,
        "dataset": dataset,
        "dataset_rows": chosen.rows,
        **found,
        "findings": verdict["findings"],
    }


def as_text(dataset: str, chosen: ChosenRows, assessment: Assessment) -> str:
    """Return everything that matters as text."""
    verdict = assessment.verdict
    lines = [
        f"verdict: {verdict.grade}; {MEANINGS[verdict.grade]}",
        "",
        *(f"  {reason.title} {shown(reason.figure)}: {reason.meaning}; {reason.remedy}" for reason in verdict.reasons),
        *([""] if verdict.reasons else []),
        f"{'dataset':<12} {dataset}",
        f"{'rows':<12} {rows_of(chosen, assessment)}",
        f"{'model':<12} {model_name(assessment.model)}",
        f"{'contrast':<12} {assessment.contrast}",
        "",
        *(f"{_grade(one):<9} {shown(one.figure):>24}  {one.title}" for one in verdict.findings),
        "",
        *(f"{value:>34}  {name}" for name, value in further(assessment)),
    ]
    return "\n".join(printable(line) for line in lines)


def rows_of(chosen: ChosenRows, assessment: Assessment) -> str:
    """Say how many rows were looked at, and how many of them did not count."""
    parts = [f"{assessment.rows:,} of {chosen.rows:,}, from all over the dataset"]
    if assessment.text_only:
        parts.append(f"{assessment.text_only:,} without an image")
    failures = assessment.failures
    if failures:
        named = ", ".join(f"{count:,} {code}" for code, count in sorted(failures.items()))
        parts.append(f"{count_of(sum(failures.values()), 'row')} failed ({named})")
    return "; ".join(parts)


def further(assessment: Assessment) -> Iterator[tuple[str, str]]:
    """Yield names and values of what is measured but not graded."""
    swaps, reading, numerics = assessment.word_swaps, assessment.reading, assessment.numerics
    yield "rows whose caption is likelier with its own image than with another's", shown(assessment.own_image.wins)
    yield "own word against another, given the image (AUROC)", shown(swaps.image)
    yield "own word against another, by text alone (AUROC)", shown(swaps.language)
    yield "swaps that text alone already decides for the own word", shown(swaps.prior)
    if swaps.prior_by_quarter:
        quarters = ", ".join(f"{share:.2f}" for share in swaps.prior_by_quarter)
        yield "the same by quarter, from the word least expected by text alone", quarters
    yield "perplexity, given the image", shown(reading.perplexity)
    yield "tokens a word", shown(reading.tokens_per_word)
    modality = assessment.modality
    rate = "not measured" if modality is None else f"{modality.rate:.2f}"
    yield "modality integration rate (smaller: better integrated; compare models, not numbers alone)", rate
    other = numerics.other_dtype
    yield f"difference of gaps in {numerics.dtype} and {other}, root mean square (nats)", _number(numerics.dtype_error)
    yield "largest difference of a row's gaps, alone and among others (nats)", _number(numerics.batch_error)
    if numerics.other_contrast is not None:
        name = f"rank correlation of the gaps by {assessment.contrast} and by {numerics.other_contrast}"
        yield name, _number(numerics.contrast_agreement)


def shown(figure: Estimate) -> str:
    """Format a figure with its interval: ``0.98 (0.96–0.99)``; a dash if it is unknown."""
    if not math.isfinite(figure.value):
        return "–"
    if figure.low == figure.high:
        return _number(figure.value)
    return f"{_number(figure.value)} ({_number(figure.low)}–{_number(figure.high)})"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    if abs(value) >= 1e6:
        return f"{value:.1e}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1g}" if 0 < abs(value) < 0.01 else f"{value:.2f}"


def _grade(finding: Finding) -> str:
    return "unknown" if finding.grade is None else str(finding.grade)


def _plain(value: Any) -> Any:
    """Return the same with null for numbers that JSON has no spelling for."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
