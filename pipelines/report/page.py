"""Write one self-contained HTML page about a finished run: what was scored, and what the images explain.

The page fetches nothing, all data in it is escaped, and its content security policy allows only its own script.
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
from pipelines.report.compared import compare
from pipelines.report.quality_section import SCAN_ROWS, Quality, find_quality, worst
from pipelines.report.words import WordGap, mean_gaps
from pipelines.sources import Source
from scorer import contrasts
from scorer.contrasts import known_contrast
from scorer.display.levels import GAP_STEPS, WEIGHT_STEPS, signed
from scorer.storage import open_url
from scorer.training.rows import ScoredRow
from scorer.types import Float32Array

TEXT_WINDOWS: Final = 64
"""Number of windows whose texts and images are read: 4,096 rows."""
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

    Memory and I/O are bounded: for a large run, only a seeded sample of rows is read, and the page says so.

    Args:
        output: Folder of the run: a local path, or a URL that fsspec understands.
        source: The dataset that was scored, which provides texts and images.
        destination: Path or URL of the HTML file; its folder is created.
        samples: Number of rows shown with image and caption, drawn at random across the shards.
        seed: Seed for every random choice. The same run and seed produce the same page.
        scanned_rows: Number of rows searched for contradictions, captions that need no image, and repeats; None
            searches all.

    Raises:
        RunError: ``output`` is not a finished run.
        TableError: ``source`` is not the dataset of the run, or a published file is not a table of scores.
    """
    record, summary = read_finished(open_store(output))
    windows = choose_windows(summary, seed)
    scored = read_rows(output, windows)
    rows = [row for window in windows for row in scored[window]]
    read = {window: scored[window] for window in windows[:TEXT_WINDOWS]}
    # Pick a few more than shown: rows with a doubtful word are not shown twice.
    wanted = pick([row for window in read.values() for row in window], samples + CONTRADICTED, seed)
    collected = collect(source, read, wanted, contrasts.of_run(summary)[1:])
    quality = find_quality(output, summary, source, scanned_rows)
    collected.doubts = worst(collected.doubts, quality.doubts)
    html = render(context(record, summary, rows, collected, quality, samples))
    fs, path = open_url(destination, "report")
    fs.makedirs(fs._parent(path), exist_ok=True)
    with fs.open(path, "wb") as file:
        file.write(html.encode("utf-8"))


def render(values: Mapping[str, Any]) -> str:
    """Render the page from the template in ``assets``."""
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
    """Return everything the template shows, as plain values and records."""
    weights = _concatenated([row.weights for row in rows])
    span = _weight_range(weights)
    gaps = _concatenated([row.scores.logprob_gap for row in rows])
    words = _word_lists(collected)
    doubtful = [card(row, sample, span, doubt) for doubt, row, sample in collected.doubts]
    return {
        "run": summary,
        "model": model_name(summary["model"]),
        "contrast": contrast_name(summary["contrast"]),
        "method": method_words.name(summary["method"]),
        "method_meaning": method_words.meaning(summary["method"]),
        "thresholds": method_words.thresholds(summary),
        "mean_weight": method_words.mean_weight(summary),
        "fingerprint": record.to_bytes().decode().rstrip(),
        "sampled_rows": len(rows),
        "sampled_tokens": len(gaps),
        "shares": _shares(gaps),
        "charts": _charts(rows),
        "words": words,
        "compared": compare(contrasts.of_run(summary), rows, collected.differences, words["min_count"]),
        "text_rows": collected.rows,
        "changed": collected.changed,
        "doubtful": doubtful,
        "quality": quality.values(),
        "cards": _cards(collected, samples, span),
        "weight_labels": [span[0] + (span[1] - span[0]) * i / WEIGHT_STEPS for i in range(WEIGHT_STEPS + 1)],
        "gap_steps": GAP_STEPS,
    }


def percent(probability: float) -> str:
    """Format a probability with two significant digits: ``63 %``, ``0.021 %``."""
    if math.isnan(probability):
        return "–"
    value = 100 * probability
    if value < 1e-4:
        return "< 0.0001 %"
    if value > 99:
        return f"{value:.4g} %" if value < 99.99 else "> 99.99 %"
    return f"{float(f'{value:.2g}'):g} %" if value >= 1e-3 else f"{value:.4f} %"


def ratio(gap: float) -> str:
    """Return how many times more or less likely a gap in nats makes a token: ``3.4``."""
    value = math.exp(min(abs(gap), 50.0))
    if value > 1e4:
        return "over 10,000"
    text = f"{value:.1f}" if value < 9.95 else f"{value:,.0f}"
    return text.removesuffix(".0")


def comparison(gap: float) -> str:
    """Describe a log-probability gap in nats: ``3.4 times less likely with the image``."""
    if math.isnan(gap):
        return "undefined"
    times = ratio(gap)
    if times == "1":
        return "as likely with the image as without"
    return f"{times} times {'more' if gap > 0 else 'less'} likely with the image"


def rate(per_second: float | None) -> str:
    """Format a throughput; a dash if nothing was timed."""
    if per_second is None:
        return "–"
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def duration(seconds: float) -> str:
    """Format a duration: ``48 s``, ``12 min``, ``3.4 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def contrast_name(contrast: str) -> str:
    """Return what replaced the image as a phrase that completes "with …", or the name of an unknown contrast."""
    known = known_contrast(contrast)
    return contrast if known is None else known.phrase


def model_name(model: str | None) -> str:
    """Return a hub id unchanged, or the last three parts of a folder; the fingerprint has the full path."""
    if model is None:
        return "unnamed model"
    parts = model.replace("\\", "/").rstrip("/").split("/")
    return "/".join(parts[-3:])


def _charts(rows: Sequence[ScoredRow]) -> list[dict[str, Any]]:
    titles = (
        ("Log-probability gap", "logprob_gap", "in nats"),
        ("Logit gap", "logit_gap", "CAL’s Δo; includes any shift common to all logits"),
    )
    charts = []
    for title, name, unit in titles:
        values = _concatenated([getattr(row.scores, name) for row in rows])
        chart: Histogram | None = histogram(values) if np.isfinite(values).any() else None
        charts.append({"title": title, "unit": unit, "chart": chart})
    return charts


def _shares(gaps: Float32Array) -> dict[str, float]:
    """Return the shares of tokens that the image makes at least twice as likely, at most half as likely, or neither."""
    finite = gaps[np.isfinite(gaps)]
    if len(finite) == 0:
        return {}
    up, down = float((finite >= math.log(2)).mean()), float((finite <= -math.log(2)).mean())
    return {"up": up, "down": down, "neutral": 1 - up - down}


def _word_lists(collected: Collected) -> dict[str, Any]:
    # One occurrence proves little, but few words are frequent in a small dataset.
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
