"""Write an assessment as one self-contained HTML page. It fetches nothing, runs no script, and escapes all data."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, Final

import jinja2

from pipelines.assess.document import MEANINGS, further, rows_of, shown
from pipelines.assess.rows import ChosenRows
from pipelines.formatting import model_name
from scorer.assessment.assess import Assessment
from scorer.assessment.verdict import THRESHOLDS, Threshold
from scorer.display.levels import signed

EXAMPLES: Final = 4


def write_page(path: Path, dataset: str, chosen: ChosenRows, assessment: Assessment) -> None:
    """Write the page; its folder is created if missing. Raises OSError if it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(dataset, chosen, assessment), encoding="utf-8")


def render(dataset: str, chosen: ChosenRows, assessment: Assessment) -> str:
    """Return the page as HTML."""
    assets = resources.files("pipelines.assess") / "assets"
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"shown": shown, "signed": signed}
    template = environment.from_string((assets / "assessment.html.jinja").read_text("utf-8"))
    verdict = assessment.verdict
    examples = assessment.word_swaps.examples
    values: dict[str, Any] = {
        "grade": str(verdict.grade),
        "meaning": MEANINGS[verdict.grade],
        "reasons": verdict.reasons,
        "model": model_name(assessment.model),
        "dataset": dataset,
        "contrast": assessment.contrast,
        "rows": rows_of(chosen, assessment),
        "findings": [{"finding": one, **_bounds(THRESHOLDS[one.measure])} for one in verdict.findings],
        "examples": examples if len(examples) <= 2 * EXAMPLES else (*examples[:EXAMPLES], *examples[-EXAMPLES:]),
        "further": list(further(assessment)),
        "style": (assets / "assessment.css").read_text("utf-8"),
    }
    return template.render(values)


def _bounds(threshold: Threshold) -> dict[str, str]:
    good, unusable = threshold.bounds
    return {"good": good, "unusable": unusable}
