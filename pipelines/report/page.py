"""One self-contained HTML page about a finished run: what was scored, and what the pictures explain.

Nothing is fetched by the page, everything that comes from the data is escaped, and a policy in the page forbids any
script but its own.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Final

import jinja2
import numpy as np

from pipelines.output.reader import choose_windows, read_rows
from pipelines.output.record import RunRecord
from pipelines.output.store import open_store
from pipelines.output.summary import Summary, read_finished
from pipelines.report import method_words
from pipelines.report.cards import CONTRADICTED, Card, Collected, card, collect, pick
from pipelines.report.chart import Histogram, histogram
from pipelines.report.quality_section import SCAN_ROWS, Quality, find_quality, worst
from pipelines.report.words import WordGap, mean_gaps
from pipelines.sources import Source
from scorer.contrasts import CONTRASTS
from scorer.display.levels import GAP_STEPS, WEIGHT_STEPS, signed
from scorer.storage import open_url
from scorer.training.rows import ScoredRow
from scorer.types import Float32Array

TEXT_WINDOWS: Final = 64
"""Texts (and with them pictures) are read for so many windows: 4,096 rows."""
LISTED_WORDS: Final = 10


def write_report(
    output: str,
    source: Source,
    destination: str,
    *,
    samples: int = 24,
    seed: int = 0,
    scanned_rows: int | None = SCAN_ROWS,
) -> None:
    """Write the report of the finished run in ``output``.

    Memory and reading are bounded: of a large run, a seeded sample of rows is read, and the page says so.

    Args:
        output: the run's folder: a local path, or a URL that fsspec understands.
        source: the dataset that was scored; texts and pictures come from it.
        destination: path or URL of the HTML file; its folder is made.
        samples: rows shown with picture and caption, at random over the shards.
        seed: of every random choice. The same run and seed give the same page.
        scanned_rows: rows in which contradictions, needless pictures and repeats are looked for; None takes all.

    Raises:
        RunError: ``output`` is not a finished run.
        TableError: ``source`` is not its dataset, or a published file is not one.
    """
    record, summary = read_finished(open_store(output))
    windows = choose_windows(summary, seed)
    scored = read_rows(output, windows)
    rows = [row for window in windows for row in scored[window]]
    read = {window: scored[window] for window in windows[:TEXT_WINDOWS]}
    # Spare ones, since those that are shown for a doubtful word are not shown twice.
    wanted = pick([row for window in read.values() for row in window], samples + CONTRADICTED, seed)
    collected = collect(source, read, wanted)
    quality = find_quality(output, summary, source, scanned_rows)
    collected.doubts = worst(collected.doubts, quality.doubts)
    html = render(context(record, summary, rows, collected, quality, samples))
    fs, path = open_url(destination, "report")
    fs.makedirs(fs._parent(path), exist_ok=True)
    with fs.open(path, "wb") as file:
        file.write(html.encode("utf-8"))


def render(values: Mapping[str, Any]) -> str:
    """The page from the template in ``assets``."""
    assets = resources.files("pipelines.report") / "assets"
    script = (assets / "report.js").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        signed=signed,
        percent=percent,
        ratio=ratio,
        comparison=comparison,
        rate=rate,
        duration=duration,
        factor=math.exp,
    )
    template = environment.from_string((assets / "report.html.jinja").read_text("utf-8"))
    return template.render(
        **values,
        style=(assets / "report.css").read_text("utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def context(
    record: RunRecord,
    summary: Summary,
    rows: Sequence[ScoredRow],
    collected: Collected,
    quality: Quality,
    samples: int,
) -> dict[str, Any]:
    """Everything the template shows, as plain values and records."""
    weights = _concatenated([row.weights for row in rows])
    span = _weight_range(weights)
    gaps = _concatenated([row.scores.logprob_gap for row in rows])
    doubtful = [card(row, sample, span, doubt) for doubt, row, sample in collected.doubts]
    return {
        "run": summary,
        "model": model_name(summary["model"]),
        "contrast": contrast_name(summary["contrast"]),
        "method": method_words.name(summary["method"]),
        "method_meaning": method_words.meaning(summary["method"]),
        "fingerprint": record.to_bytes().decode().rstrip(),
        "sampled_rows": len(rows),
        "sampled_tokens": len(gaps),
        "shares": _shares(gaps),
        "charts": _charts(rows),
        "words": _word_lists(collected),
        "text_rows": collected.rows,
        "changed": collected.changed,
        "doubtful": doubtful,
        "quality": quality.values(),
        "cards": _cards(collected, samples, span),
        "weight_labels": [span[0] + (span[1] - span[0]) * i / WEIGHT_STEPS for i in range(WEIGHT_STEPS + 1)],
        "gap_steps": GAP_STEPS,
    }


def percent(probability: float) -> str:
    """A probability with two significant digits: ``63 %``, ``0.021 %``."""
    if math.isnan(probability):
        return "–"
    value = 100 * probability
    if value < 1e-4:
        return "< 0.0001 %"
    if value > 99:
        return f"{value:.4g} %" if value < 99.99 else "> 99.99 %"
    return f"{float(f'{value:.2g}'):g} %" if value >= 1e-3 else f"{value:.4f} %"


def ratio(gap: float) -> str:
    """How many times likelier, or less likely, a gap in nats makes a token: ``3.4``."""
    value = math.exp(min(abs(gap), 50.0))
    if value > 1e4:
        return "over 10,000"
    text = f"{value:.1f}" if value < 9.95 else f"{value:,.0f}"
    return text.removesuffix(".0")


def comparison(gap: float) -> str:
    """A log-probability gap in words: ``3.4 times less likely with the picture``."""
    if math.isnan(gap):
        return "not defined"
    times = ratio(gap)
    if times == "1":
        return "as likely with the picture as without"
    return f"{times} times {'more' if gap > 0 else 'less'} likely with the picture"


def rate(per_second: float | None) -> str:
    """A throughput; a dash where nothing was timed."""
    if per_second is None:
        return "–"
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def duration(seconds: float) -> str:
    """``48 s``, ``12 min``, ``3.4 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def contrast_name(contrast: str) -> str:
    """What stood in for the image, in words that complete "with …"; the name where it is not known."""
    return CONTRASTS[contrast].phrase if contrast in CONTRASTS else contrast


def model_name(model: str | None) -> str:
    """A hub id as it is, of a directory the last three parts; all of it is in the fingerprint."""
    if model is None:
        return "unnamed model"
    parts = model.replace("\\", "/").rstrip("/").split("/")
    return "/".join(parts[-3:])


def _charts(rows: Sequence[ScoredRow]) -> list[dict[str, Any]]:
    titles = (
        ("Log-probability gap", "logprob_gap", "nats; what a softmax sees"),
        ("Logit gap", "logit_gap", "CAL’s Δo; carries any shift common to all logits"),
    )
    charts = []
    for title, name, unit in titles:
        values = _concatenated([getattr(row.scores, name) for row in rows])
        chart: Histogram | None = histogram(values) if np.isfinite(values).any() else None
        charts.append({"title": title, "unit": unit, "chart": chart})
    return charts


def _shares(gaps: Float32Array) -> dict[str, float]:
    """Shares of the tokens that the picture makes at least twice as likely, half as likely, or neither."""
    finite = gaps[np.isfinite(gaps)]
    if len(finite) == 0:
        return {}
    up, down = float((finite >= math.log(2)).mean()), float((finite <= -math.log(2)).mean())
    return {"up": up, "down": down, "neutral": 1 - up - down}


def _word_lists(collected: Collected) -> dict[str, Any]:
    # One occurrence proves little; on a small dataset few words occur often.
    min_count = max(3, min(20, len(collected.words) // 1000))
    ranked = mean_gaps(collected.words, min_count)
    half = min(LISTED_WORDS, len(ranked) // 2)
    most: list[WordGap] = ranked[:half]
    least: list[WordGap] = ranked[len(ranked) - half :][::-1]
    scale = max((abs(word.mean) for word in most + least), default=1.0)
    return {"most": most, "least": least, "min_count": min_count, "counted": len(ranked), "scale": scale or 1.0}


def _cards(collected: Collected, samples: int, span: tuple[float, float]) -> list[Card]:
    shown = {(row.shard, row.row_index) for _, row, _ in collected.doubts}
    picks = [(row, sample) for row, sample in collected.picks if (row.shard, row.row_index) not in shown]
    return [card(row, sample, span) for row, sample in picks[:samples]]


def _weight_range(weights: Float32Array) -> tuple[float, float]:
    finite = weights[np.isfinite(weights)]
    if len(finite) == 0:
        return (0.0, 0.0)
    low, high = np.percentile(finite, [0, 99.5])
    return (float(low), float(high))


def _concatenated(arrays: Sequence[Float32Array]) -> Float32Array:
    return np.concatenate([np.zeros(0, np.float32), *arrays])
