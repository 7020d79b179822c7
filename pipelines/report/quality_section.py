"""The report's part about the dataset itself: counts over every row, and the rows that lead each list."""

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
"""Rows that the report at the end of a run is made from, in whole shards; ``tokensight inspect --html`` takes all."""
CANDIDATES: Final = 4 * CONTRADICTED
"""Rows of the most negative token whose words are read: several tokens of one word add up, and may change the order."""
PLAIN: Final = 8
REPEATED: Final = 8
_LENGTH_BARS: Final = 10
_MAX_TEXT: Final = 400

Place = tuple[str, int]
Doubtful = tuple[Doubt, ScoredRow, Sample]


@dataclass(frozen=True)
class Plain:
    """A row that depends little on its picture: rank, picture, text, and the amount of its gaps, averaged."""

    rank: int
    sample_id: str
    place: str
    picture: str | None
    text: str
    gap: float


@dataclass(frozen=True)
class Repeated:
    """A text that stands on ``copies`` rows."""

    text: str
    copies: int
    place: str


@dataclass(frozen=True)
class Bar:
    """So many rows are ``low`` to ``high`` tokens long; ``share`` is relative to the longest bar."""

    low: int
    high: int
    count: int
    share: float


@dataclass(frozen=True)
class Quality:
    """What the section shows."""

    findings: Findings
    doubts: Sequence[Doubtful]
    plain: Sequence[Plain]
    repeated: Sequence[Repeated]
    lengths: Sequence[Bar]

    def values(self) -> dict[str, Any]:
        """Counts and spreads for the template."""
        return {
            **self.findings.to_dict(),
            "spreads": {name: self.findings.figures.spreads()[name] for name in ("tokens per row", "bytes per text")},
            "plain": self.plain,
            "repeated": self.repeated,
            "lengths": self.lengths,
        }


def find_quality(output: str, summary: Mapping[str, Any], source: Source, scanned_rows: int | None) -> Quality:
    """Scan the run, then read texts and pictures of the rows that lead.

    Args:
        scanned_rows: whole shards are scanned until so many rows have been; None scans all.
    """
    findings = scan(output, summary["shards"], CANDIDATES, scanned_rows)
    firsts = {findings.place(repeat.first): repeat.copies for repeat in findings.duplicates.largest}
    repeated = list(firsts)[:REPEATED]
    doubtful, plain = findings.contradictions.rows, findings.language.rows[:PLAIN]
    places = list(dict.fromkeys([*doubtful, *plain, *repeated]))
    found = rows_at(output, places)
    doubts = _collect(source, [found[place] for place in doubtful]).doubts
    shown = [*plain, *repeated]
    samples = {
        (row.shard, row.row_index): sample for row, sample in _collect(source, [found[place] for place in shown]).picks
    }
    return Quality(
        findings=findings,
        doubts=doubts,
        plain=[
            _plain(rank, place, samples[place], gap)
            for rank, (place, gap) in enumerate(zip(plain, findings.language.scores, strict=False), 1)
            if place in samples  # not where the dataset was changed since
        ],
        repeated=[
            Repeated(_text(samples[place]), firsts[place], _place(place)) for place in repeated if place in samples
        ],
        lengths=length_bars(findings.figures.tokens),
    )


def worst(*lists: Sequence[Doubtful]) -> list[Doubtful]:
    """The most negative words of several lists, each row once."""
    rows: dict[Place, Doubtful] = {}
    for entry in sorted((entry for entries in lists for entry in entries), key=lambda entry: entry[0].gap):
        rows.setdefault((entry[1].shard, entry[1].row_index), entry)
    return list(rows.values())[:CONTRADICTED]


def length_bars(counts: Counts) -> list[Bar]:
    """Rows by number of tokens, in at most ten equal steps up to the 95th percentile and one bar for what is longer."""
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


def _plain(rank: int, place: Place, sample: Sample, gap: float) -> Plain:
    picture = None
    for image in sample.images[:MAX_IMAGES]:
        try:
            picture = thumbnail(image)
            break
        except RowError:  # it was scored, so it has changed since; the text is what matters here
            continue
    return Plain(rank, sample.sample_id, _place(place), picture, _text(sample), gap)


def _text(sample: Sample) -> str:
    text = "\n".join(sample.scored_texts)
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + " …"


def _place(place: Place) -> str:
    return f"{place[0]}, row {place[1]}"
