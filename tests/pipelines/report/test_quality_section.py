"""The report's part about the dataset: what leads its lists, and that it looks at every row, not at a sample."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipelines.output import reader
from pipelines.report import page as report
from pipelines.report import quality_section
from pipelines.report.page import write_report
from pipelines.report.quality.figures import Counts
from pipelines.report.quality_section import length_bars
from scorer.types import Sample
from tests.pipelines.report.html_page import Element, Page
from tests.pipelines.report.runs import Entry, MemorySource, picture, scored, write_run


def entry(name: str, text: str, default: float = 1.0, **gaps: float) -> Entry:
    sample = Sample.caption(name, picture(), text)
    return sample, scored(sample, gaps, default)


def written(folder: Path, rows: list[Entry], scanned_rows: int | None = None) -> Page:
    source = write_run(folder, {"a.parquet": rows[: len(rows) // 2], "b.parquet": rows[len(rows) // 2 :]})
    write_report(str(folder), source, str(folder / "report.html"), samples=2, scanned_rows=scanned_rows)
    return Page(folder / "report.html")


def doubted(page: Page) -> list[str]:
    cards = [line.parent.parent for line in page.root.all("p", **{"class": "doubt"})]  # type: ignore[union-attr]
    return [card.all("span", **{"class": "id"})[0].text for card in cards if isinstance(card, Element)]


def test_contradictions_are_found_among_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_ROWS", 64)
    monkeypatch.setattr(report, "TEXT_WINDOWS", 1)
    rows = [entry(f"s{i}", "a red kite") for i in range(1000)]
    for place, gap in ((123, -2.0), (456, -3.0), (789, -2.5)):
        rows[place] = entry(f"s{place}", "a blue kite", blue=gap)
    page = written(tmp_path, rows)
    assert doubted(page) == ["s456", "s789", "s123"]
    assert "3 of 1,000 rows have a token whose probability falls by at least half" in page.root.all("main")[0].text


def test_a_word_of_several_tokens_is_ranked_by_its_sum(tmp_path: Path) -> None:
    rows = [entry(f"s{i}", "a red kite") for i in range(4)]
    rows[1] = entry("one", "a blue kite", blue=-2.0)
    sample, scores = entry("several", "tréma", -0.8)  # t r é(2 bytes) m a: one word, several tokens
    rows[2] = (sample, scores)
    assert doubted(written(tmp_path, rows)) == ["several", "one"]


def test_what_depends_least_comes_first_with_its_picture(tmp_path: Path) -> None:
    rows = [entry(f"s{i}", f"row {i}", 0.05 * (12 - i)) for i in range(12)]
    page = written(tmp_path, rows)
    items = page.root.all("ol", **{"class": "least-visual"})[0].all("li")
    assert [item.all("p")[0].text for item in items] == [f"row {i}" for i in range(11, 3, -1)]
    assert "s11 · b.parquet, row 5 · ×1.05 on average" in items[0].text
    assert all(item.all("img")[0]["src"].startswith("data:image/webp") for item in items)
    assert "Language alone explains 4 of 12 rows" in page.root.all("section", id="quality")[0].text


def test_repeats_are_counted_and_shown(tmp_path: Path) -> None:
    rows = [
        entry(f"s{i}", text) for i, text in enumerate(["twice", "once", "<b>thrice", "twice", "<b>thrice", "<b>thrice"])
    ]
    page = written(tmp_path, rows)
    (panel,) = page.root.all("div", **{"class": "repeats"})
    cells = [row.all("td") for row in panel.all("tbody")[0].all("tr")]
    assert [(text.text, count.text) for text, count in cells] == [
        ("<b>thricefirst in a.parquet, row 2", "×3"),
        ("twicefirst in a.parquet, row 0", "×2"),
    ]
    assert "3 of 6 rows repeat the exact text of an earlier row" in page.root.text
    assert "--export-quality quality.parquet" in page.root.text
    page = written(tmp_path / "unique", rows[:2])
    assert "No two of the 2 rows have the same text" in page.root.text
    assert not page.root.all("div", **{"class": "repeats"})


def test_a_changed_dataset_costs_its_rows_only(tmp_path: Path) -> None:
    rows = [entry(f"s{i}", f"row {i}", 0.01) for i in range(4)]
    write_run(tmp_path, {"a.parquet": rows})
    samples = [sample for sample, _ in rows]
    samples[0] = Sample.caption("s0", picture(), "changed")
    samples[1] = Sample.caption("s1", str(tmp_path / "gone.png"), "row 1")
    write_report(str(tmp_path), MemorySource({"a.parquet": samples}), str(tmp_path / "r.html"))
    items = Page(tmp_path / "r.html").root.all("ol", **{"class": "least-visual"})[0].all("li")
    assert [item.all("p")[0].text for item in items] == ["row 1", "row 2", "row 3"]
    assert "no image" in items[0].text and not items[0].all("img")


def test_a_long_text_is_cut(tmp_path: Path) -> None:
    page = written(tmp_path, [entry("s", "word " * 1000, 0.0), entry("t", "word " * 1000, 0.0)])
    for item in page.root.all("ol", **{"class": "least-visual"})[0].all("li"):
        assert len(item.all("p")[0].text) <= quality_section._MAX_TEXT + 2
    assert len(page.root.all("div", **{"class": "repeats"})[0].text) < 600


def test_of_a_huge_run_whole_shards_are_scanned_and_said_so(tmp_path: Path) -> None:
    rows = [entry(f"s{i}", f"row {i}", 0.01) for i in range(20)]
    assert "Language alone explains 10 of 10 rows" in written(tmp_path, rows, scanned_rows=12).root.text


@pytest.mark.parametrize("lengths", [[1], [5] * 9, [*range(1, 60), 400], [1, 2, 3], [7, 5000], [30] * 99 + [2000]])
def test_bars_hold_every_row_once(lengths: list[int]) -> None:
    counts = Counts()
    counts.add(np.array(lengths))
    bars = length_bars(counts)
    assert sum(bar.count for bar in bars) == len(lengths)
    assert len(bars) <= 10 and max(bar.share for bar in bars) == 1
    assert (bars[0].low, bars[-1].high) == (min(lengths), max(lengths))
    assert all(before.high + 1 == after.low for before, after in pairwise(bars))
    for bar in bars:
        assert bar.count == sum(bar.low <= length <= bar.high for length in lengths)


def test_no_rows_no_bars() -> None:
    assert length_bars(Counts()) == []
