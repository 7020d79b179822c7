"""The section of the report on data quality: counts over the scanned rows, and the first rows of each list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipelines.output.reader import Window
from pipelines.report.cards import CONTRADICTED, MAX_IMAGES, Collected, Doubt, collect, thumbnail
from pipelines.report.quality.export import rows_at
from pipelines.report.quality.figures import Counts
from pipelines.report.quality.scan import Findings, scan
from pipelines.sources import Source
from scorer.errors import RowError
from scorer.training.rows import ScoredRow
from scorer.types import Sample

SCAN_ROWS: Final = 1_000_000
"""Rows scanned for the report at the end of a run, in whole shards; ``tokensight inspect --html`` scans all."""
CANDIDATES: Final = 4 * CONTRADICTED
"""Rows with the most negative tokens whose words are read: a word sums over its tokens, which may change the order."""
LEAST_VISUAL: Final = 8
REPEATED: Final = 8
_LENGTH_BARS: Final = 10
_MAX_TEXT: Final = 400

Place = tuple[str, int]
Doubtful = tuple[Doubt, ScoredRow, Sample]


@dataclass(frozen=True)
class LeastVisualRow:
    """A row that depends little on its image: its rank, image, text and mean |gap| in nats."""

    rank: int
    sample_id: str
    place: str
    image: str | None
    text: str
    gap: float


@dataclass(frozen=True)
class Repeated:
    """A text that ``copies`` rows share."""

    text: str
    copies: int
    place: str


@dataclass(frozen=True)
class Bar:
    """The number of rows with ``low`` to ``high`` tokens; ``share`` is relative to the longest bar."""

    low: int
    high: int
    count: int
    share: float


@dataclass(frozen=True)
class Quality:
    """What the section shows."""

    findings: Findings
    doubts: Sequence[Doubtful]
    least_visual: Sequence[LeastVisualRow]
    repeated: Sequence[Repeated]
    lengths: Sequence[Bar]

    def values(self) -> dict[str, Any]:
        """Return counts and distributions for the template."""
        return {
            **self.findings.to_dict(),
            "spreads": {name: self.findings.figures.spreads()[name] for name in ("tokens per row", "bytes per text")},
            "least_visual": self.least_visual,
            "repeated": self.repeated,
            "lengths": self.lengths,
        }


def find_quality(output: str, summary: Mapping[str, Any], source: Source, scanned_rows: int | None) -> Quality:
    """Scan the run, then read the texts and images of the first rows of each list.

    Args:
        scanned_rows: Maximum number of rows to scan, in whole shards and at least one; None scans all.
    """
    findings = scan(output, summary["shards"], CANDIDATES, scanned_rows)
    firsts = {findings.place(repeat.first): repeat.copies for repeat in findings.duplicates.largest}
    repeated = list(firsts)[:REPEATED]
    doubtful, least_visual = findings.contradictions.rows, findings.language.rows[:LEAST_VISUAL]
    places = list(dict.fromkeys([*doubtful, *least_visual, *repeated]))
    found = rows_at(output, places)
    doubts = _collect(source, [found[place] for place in doubtful]).doubts
    shown = [*least_visual, *repeated]
    samples = {
        (row.shard, row.row_index): sample for row, sample in _collect(source, [found[place] for place in shown]).picks
    }
    return Quality(
        findings=findings,
        doubts=doubts,
        least_visual=[
            _least_visual_row(rank, place, samples[place], gap)
            for rank, (place, gap) in enumerate(zip(least_visual, findings.language.scores, strict=False), 1)
            if place in samples  # the row may have changed since
        ],
        repeated=[
            Repeated(_text(samples[place]), firsts[place], _place(place)) for place in repeated if place in samples
        ],
        lengths=length_bars(findings.figures.tokens),
    )


def worst(*lists: Sequence[Doubtful]) -> list[Doubtful]:
    """Merge lists and return the rows with the most negative words, each row once."""
    rows: dict[Place, Doubtful] = {}
    for entry in sorted((entry for entries in lists for entry in entries), key=lambda entry: entry[0].gap):
        rows.setdefault((entry[1].shard, entry[1].row_index), entry)
    return list(rows.values())[:CONTRADICTED]


def length_bars(counts: Counts) -> list[Bar]:
    """Count rows by number of tokens: at most nine bars of equal width up to the 95th percentile, one for the rest."""
    spread = counts.spread()
    if spread.count == 0:
        return []
    low, top, longest = int(spread.minimum), int(spread.p95), int(spread.maximum)
    step = max(1, -(-(top - low + 1) // (_LENGTH_BARS - 1)))
    edges = [*range(low, top + 1, step)]
    edges += [edge for edge in (edges[-1] + step,) if edge <= longest]
    ends = [*(edge - 1 for edge in edges[1:]), longest]
    rows = [int(counts.counts[low : end + 1].sum()) for low, end in zip(edges, ends, strict=True)]
    return [Bar(low, end, count, count / max(rows)) for low, end, count in zip(edges, ends, rows, strict=True)]


def _collect(source: Source, rows: Sequence[ScoredRow]) -> Collected:
    windows = {Window(row.shard, row.row_index, row.row_index + 1): [row] for row in rows}
    return collect(source, windows, rows)


def _least_visual_row(rank: int, place: Place, sample: Sample, gap: float) -> LeastVisualRow:
    shown = None
    for image in sample.images[:MAX_IMAGES]:
        try:
            shown = thumbnail(image)
            break
        except RowError:  # readable when scored, so changed since; the text matters more
            continue
    return LeastVisualRow(rank, sample.sample_id, _place(place), shown, _text(sample), gap)


def _text(sample: Sample) -> str:
    text = "\n".join(sample.scored_texts)
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + " …"


def _place(place: Place) -> str:
    return f"{place[0]}, row {place[1]}"
