"""The page: what it says, that nothing from the data becomes markup, and that it needs nothing from elsewhere."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.output import reader
from pipelines.report import page as report
from pipelines.report import quality_section
from pipelines.report.page import write_report
from scorer.errors import FailureCode, TableError
from scorer.results import Failure, TokenScores
from scorer.types import IMAGE, Sample, Turn
from scorer.weighting.dataset_gaps import DatasetGaps
from tests.pipelines.report.html_page import Element, Page
from tests.pipelines.report.runs import Entry, MemorySource, picture, scored, write_run
from tests.toy_method import TOY, plant


def entry(sample_id: str, text: str, default: float = 0.0, **gaps: float) -> Entry:
    sample = Sample.caption(sample_id, picture(), text)
    return sample, scored(sample, gaps, default)


def test_a_stop_token_is_a_mark_behind_its_text_and_no_word(tmp_path: Path) -> None:
    sample, result = entry("a", "a red kite", red=2.0)
    assert not isinstance(result, Failure)
    at_end = {"token_starts": 10, "token_ends": 10, "token_turns": 0, "logprob_clean": -6, "logprob_contrast": -3}
    arrays = {name: np.append(array, array.dtype.type(at_end.get(name, 0))) for name, array in result.arrays.items()}
    is_stop = np.arange(len(arrays["token_ids"])) == len(arrays["token_ids"]) - 1
    stopped = TokenScores.from_arrays("a", result.text_hash, {**arrays, "is_stop": is_stop})
    plain = dataclasses.replace(result, sample_id="b", optional={"is_stop": is_stop[:-1] & False})
    rows = [(sample, stopped), (dataclasses.replace(sample, sample_id="b"), plain)]
    page = written(tmp_path, {"a.parquet": rows})
    with_mark, without = (page.card(name).all("p", **{"class": "caption"})[0] for name in "ab")
    assert with_mark.text.split() == ["a", "red", "kite", "end"]
    (mark,) = with_mark.all("span", **{"class": "stop"})
    assert (mark.text, mark["data-p"]) == ("end", "-4")
    levels = [span["data-p"] for span in with_mark.all("span", **{"class": "t"})]
    assert levels == ["0", "3", "0", "-4"]
    assert without.text.split() == ["a", "red", "kite"]
    assert not page.root.all("p", **{"class": "doubt"})  # it is no word that the image contradicts


def failure(sample_id: str, message: str) -> Entry:
    return Sample.caption(sample_id, None, ""), Failure(sample_id, FailureCode.IMAGE_UNREADABLE, message)


def written(folder: Path, entries: dict[str, list[Entry]], samples: int = 24, seed: int = 0, **summary: Any) -> Page:
    source = write_run(folder, entries, **summary)
    write_report(str(folder), source, str(folder / "made" / "report.html"), samples=samples, seed=seed)
    return Page(folder / "made" / "report.html")


def test_the_page_says_what_the_run_was(tmp_path: Path) -> None:
    rows = [entry(f"s{i}", "a red kite", red=2.0) for i in range(1234)]
    page = written(tmp_path, {"a.parquet": rows}, model="some/model", rows_per_second=12.34, tokens_per_second=3456.7)
    assert page.root.all("h1")[0].text == "some/model"
    tiles = {tile.all("dt")[0].text: tile.all("dd")[0].text for tile in page.root.all("dl")[0].all("div")}
    assert tiles["rows"] == tiles["scored"] == "1,234"
    assert tiles["failed"] == "0"
    assert tiles["tokens"] == "3,702"
    assert tiles["rows per second"] == "12.3"
    assert tiles["tokens per second"] == "3,457"
    chips = page.root.all("p", **{"class": "chips"})[0].text
    assert "a blank image" in chips and "cal (low 1.0" in chips and "float32" in chips
    assert "33 % of the tokens become at least twice as likely" in page.root.all("p", **{"class": "lead"})[0].text
    assert '"weights_sha256"' in page.root.all("pre")[0].text
    assert not page.root.all("section", id="failures")


def test_the_page_says_what_the_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = {"name": "toy", "params": {"power": 2.0, "cap": None}}
    unknown = written(tmp_path / "1", {"a.parquet": [entry("s", "a kite")]}, method=method)
    assert TOY.formula not in unknown.root.text, "a method of another release"
    plant(monkeypatch)
    known = written(tmp_path / "2", {"a.parquet": [entry("s", "a kite")]}, method=method)
    assert f"Weights: {TOY.formula} ({TOY.source})." in known.root.text
    for page in (known, unknown):
        assert "weights: toy (power 2.0, cap None)" in page.root.all("p", **{"class": "chips"})[0].text


def test_the_page_says_what_the_dataset_s_gaps_give(tmp_path: Path) -> None:
    rows = [entry(f"s{i}", "a red kite", red=2.0) for i in range(4)]
    gaps = DatasetGaps.of(np.array([0.0, 4.0, 0.0, 4.0]), np.array([0, 2, 4]))
    page = written(
        tmp_path / "1", {"a.parquet": rows}, gaps={"blank": gaps.to_dict()}, weights={"sum": 18.0, "tokens": 12}
    )
    said = "By the gaps of this dataset: vig (threshold 2, keep 0.7), top-tokens (threshold 4, keep 0.25)."
    assert said in page.root.text and "Their mean is 1.5." in page.root.text
    none = written(tmp_path / "2", {"a.parquet": rows}, gaps={"blank": DatasetGaps().to_dict()})
    without = written(tmp_path / "3", {"a.parquet": rows})
    for page in (none, without):
        assert "By the gaps" not in page.root.text and "Their mean" not in page.root.text


def test_a_token_shows_its_colour_and_its_numbers(tmp_path: Path) -> None:
    page = written(tmp_path, {"a.parquet": [entry("s", "the red kite flies", red=math.log(30), kite=-1.0)]})
    tokens = page.tokens("s")
    assert list(tokens) == ["the", "red", "kite", "flies"]
    assert [tokens[t]["data-p"] for t in tokens] == ["0", "4", "-2", "0"]  # by log-probability gap
    assert [tokens[t]["data-l"] for t in tokens] == ["2", "4", "0", "2"]  # by logit gap, one higher
    assert [tokens[t]["data-w"] for t in tokens] == ["4", "3", "3", "0"]  # pooled with their neighbours
    rows = page.card("s").all("tbody")[0].all("tr")
    cells = [cell.text for cell in rows[int(tokens["kite"]["data-n"])].children if isinstance(cell, Element)]
    assert cells == ["kite", "1.8 %", "5 %", "−1.00", "0.00", "2.13"]
    assert rows[1]["data-comparison"] == "20 times more likely with the image"
    assert rows[2]["data-comparison"] == "2.7 times less likely with the image"


def test_the_colours_follow_the_numbers_not_the_words(tmp_path: Path) -> None:
    one = written(tmp_path / "1", {"a.parquet": [entry("s", "red kite", red=3.0)]}).tokens("s")
    other = written(tmp_path / "2", {"a.parquet": [entry("s", "red kite", kite=3.0)]}).tokens("s")
    assert (one["red"]["data-p"], one["kite"]["data-p"]) == ("4", "0")
    assert (other["red"]["data-p"], other["kite"]["data-p"]) == ("0", "4")
    css = Page(tmp_path / "1" / "made" / "report.html").root.all("style")[0].text
    for mode, levels in (("p", range(-4, 5)), ("l", range(-4, 5)), ("w", range(5))):
        for level in levels:
            assert (f'.t[data-{mode}="{level}"]' in css) == (level != 0)


def test_tokens_can_be_walked_by_keyboard(tmp_path: Path) -> None:
    page = written(tmp_path, {"a.parquet": [entry("s", "a red kite")]})
    tokens = page.card("s").all("span", **{"class": "t"})
    assert [token["tabindex"] for token in tokens] == ["0", "-1", "-1"]  # one stop, arrow keys from there
    (tip,) = page.root.all("div", id="tip")
    assert tip["role"] == "tooltip"
    assert {token["aria-describedby"] for token in tokens} == {"tip"}
    assert page.card("s").all("img")[0]["alt"]


HOSTILE = "<script>alert(1)</script> <image> & \"quotes\" 'single' {{ 7*7 }} </style>"


def test_nothing_from_the_data_becomes_markup(tmp_path: Path) -> None:
    question = Turn("user", (IMAGE, f"why {HOSTILE}?"))
    asked = Sample(f"id {HOSTILE}", (picture(),), (question, Turn("assistant", (HOSTILE,))))
    rows = [(asked, scored(asked, {"alert": -3.0})), *[entry(f"s{i}", HOSTILE, alert=-2.0) for i in range(9)]]
    name = "<b>shard & co.parquet"
    page = written(tmp_path, {name: [*rows, failure(HOSTILE, HOSTILE)]}, model=HOSTILE, contrast=HOSTILE)
    (script,) = page.root.all("script")
    assert "alert(1)" not in script.text
    assert not page.root.all("image") and not page.root.all("b", **{"class": "shard"})
    assert page.root.all("h1")[0].text == HOSTILE
    captions = [caption.text for caption in page.root.all("p", **{"class": "caption"})]
    assert captions == [HOSTILE] * 10
    assert f"why {HOSTILE}?" in [question.text for question in page.root.all("p", **{"class": "question"})]
    assert HOSTILE in page.root.all("section", id="failures")[0].text
    assert len(page.root.all("style")) == 1


def test_the_page_is_self_contained_and_its_policy_fits(tmp_path: Path) -> None:
    page = written(tmp_path, {"a.parquet": [entry("s", "a red kite")]})
    (script,) = page.root.all("script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    (policy,) = page.root.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert f"script-src 'sha256-{digest}'" in policy["content"]
    assert "default-src 'none'" in policy["content"]
    assert not page.root.all("link") and "http://" not in page.source and "https://" not in page.source
    assert all(image["src"].startswith("data:image/webp;base64,") for image in page.root.all("img"))


def test_pictures_are_bounded(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 1400, 3), dtype=np.uint8))
    sample = Sample.caption("s", noise, "noise")
    page = written(tmp_path, {"a.parquet": [(sample, scored(sample, {}))]})
    data = base64.b64decode(page.card("s").all("img")[0]["src"].split(",")[1])
    assert Image.open(io.BytesIO(data)).size == (320, 206)
    assert len(page.source) < 200_000


def test_the_bytes_of_a_character_are_one_coloured_piece(tmp_path: Path) -> None:
    page = written(tmp_path, {"a.parquet": [entry("s", "très 🦊 fox", default=0.5)]})
    assert page.card("s").all("p", **{"class": "caption"})[0].text == "très 🦊 fox"
    tokens = page.tokens("s")
    assert list(tokens) == ["tr", "è", "s", "␣" if "␣" in tokens else " ", "🦊", "fox"]
    assert tokens["🦊"]["data-p"] == "3"  # four bytes of 0.5 nats each
    rows = page.card("s").all("tbody")[0].all("tr")
    assert rows[int(tokens["🦊"]["data-n"])].all("th")[0].text == "🦊 (4 tokens)"


def test_words_are_ranked_and_counted(tmp_path: Path) -> None:
    rows = [entry(f"s{i}", "The red kite and the hat", red=2.0, kite=1.0, hat=-0.5) for i in range(10)]
    rows.append(entry("rare", "unseen", unseen=5.0))
    page = written(tmp_path, {"a.parquet": rows})
    most, least = page.root.all("div", **{"class": "words"})
    assert [row.all("th")[0].text for row in most.all("tbody")[0].all("tr")] == ["red", "kite"]
    assert [row.all("th")[0].text for row in least.all("tbody")[0].all("tr")] == ["hat", "the"]
    numbers = [cell.text for cell in most.all("tbody")[0].all("td", **{"class": "number"})]
    assert numbers == ["+2.00", "×10", "+1.00", "×10"]
    assert "unseen" not in most.text + least.text


def test_doubtful_captions_come_worst_first_and_once(tmp_path: Path) -> None:
    rows = [entry(f"s{i}", f"row {i} has a red kite", red=2.0) for i in range(30)]
    for place, gap in ((4, -1.0), (17, -4.0), (25, -2.0)):
        rows[place] = entry(f"s{place}", "a dull blue kite", dull=-0.8, blue=gap, kite=-0.9)
    rows[8] = entry("s8", "a little blue", blue=-0.5)  # not halved: no doubt
    page = written(tmp_path, {"a.parquet": rows[:15], "b.parquet": rows[15:]}, samples=24)
    doubts = [line.parent.parent for line in page.root.all("p", **{"class": "doubt"})]  # type: ignore[union-attr]
    assert [card.all("span", **{"class": "id"})[0].text for card in doubts if card] == ["s17", "s25", "s4"]
    assert "blue is 55 times less likely with the image" in page.card("s17").text
    assert [token.text for token in page.card("s17").all("span", **{"class": "marked"})] == ["blue"]
    ids = [card.all("span", **{"class": "id"})[0].text for card in page.root.all("article")]
    assert len(ids) == len(set(ids)) == 24 + 3


def test_the_worst_of_many_doubtful_captions_are_shown(tmp_path: Path) -> None:
    gaps = np.random.default_rng(0).permutation(np.arange(1, 13)).tolist()
    page = written(tmp_path, {"a.parquet": [entry(f"s{gap}", "blue", blue=-float(gap)) for gap in gaps]}, samples=0)
    ids = [card.all("span", **{"class": "id"})[0].text for card in page.root.all("article")]
    assert ids == [f"s{gap}" for gap in range(12, 4, -1)]


def test_samples_are_seeded_and_spread_over_shards(tmp_path: Path) -> None:
    shards = {f"{s}.parquet": [entry(f"{s}{i}", "a kite") for i in range(n)] for s, n in (("a", 500), ("b", 5))}

    def ids(seed: int) -> list[str]:
        page = written(tmp_path / str(seed), shards, samples=8, seed=seed)
        return [card.all("span", **{"class": "id"})[0].text for card in page.root.all("article")]

    first = ids(0)
    assert len(first) == 8
    assert sum(name.startswith("b") for name in first) >= 3
    assert set(ids(0)) == set(first) != set(ids(1))


def test_failures_are_listed(tmp_path: Path) -> None:
    rows = [entry("good", "a kite"), failure("bad", "image (JPEG) does not decode; replace it")]
    page = written(tmp_path, {"a.parquet": rows})
    (section,) = page.root.all("section", id="failures")
    for text in ("image_unreadable", "bad", "a.parquet, row 1", "image (JPEG) does not decode; replace it"):
        assert text in section.text
    assert [card.all("span", **{"class": "id"})[0].text for card in page.root.all("article")] == ["good"]


@pytest.mark.parametrize("entries", [[failure("bad", "broken")], []])
def test_a_run_without_scored_rows_has_a_report(tmp_path: Path, entries: list[Entry]) -> None:
    page = written(
        tmp_path, {"a.parquet": entries}, rows_per_second=None, tokens_per_second=None, seconds_scoring=0.0, model=None
    )
    assert "No row was scored" in page.root.text
    assert not page.root.all("article") and not page.root.all("svg")
    assert bool(page.root.all("section", id="failures")) == bool(entries)


def test_undefined_scores_are_dashes(tmp_path: Path) -> None:
    sample, scores = entry("s", "a red kite", red=2.0)
    gap = scores.logit_gap.copy()  # type: ignore[union-attr]
    gap[1] = np.nan
    broken = dataclasses.replace(scores, logit_gap=gap, logprob_clean=gap)  # type: ignore[arg-type]
    page = written(tmp_path, {"a.parquet": [(sample, broken)]})
    token = page.tokens("s")["red"]
    assert (token["data-p"], token["data-l"], token["data-w"]) == ("0", "0", "0")
    cells = page.card("s").all("tbody")[0].all("tr")[1].all("td")
    assert [cell.text for cell in cells] == ["–", "5 %", "–", "–", "–"]
    assert "nan" not in page.root.all("main")[0].text.lower()


def test_every_turn_and_its_question_is_shown(tmp_path: Path) -> None:
    turns = (
        Turn("user", (IMAGE, "What flies?")),
        Turn("assistant", ("A kite.",)),
        Turn("user", ("Its colour?",)),
        Turn("assistant", ("Red.",)),
    )
    sample = Sample("s", (picture(), picture()), turns)
    card = written(tmp_path, {"a.parquet": [(sample, scored(sample, {"Red": 2.0}))]}).card("s")
    assert [p.text for p in card.all("p", **{"class": "question"})] == ["What flies?", "Its colour?"]
    assert [p.text for p in card.all("p", **{"class": "caption"})] == ["A kite.", "Red."]
    assert len(card.all("img")) == 2
    assert [t["tabindex"] for t in card.all("span", **{"class": "t"})] == ["0", *["-1"] * 4]


def test_a_changed_dataset_is_noticed(tmp_path: Path) -> None:
    rows = [entry(f"s{i}", "a red kite") for i in range(10)]
    source = write_run(tmp_path, {"a.parquet": rows})
    changed = [sample for sample, _ in rows]
    changed[3] = Sample.caption("s3", picture(), "another text")
    write_report(str(tmp_path), MemorySource({"a.parquet": changed}), str(tmp_path / "report.html"))
    page = Page(tmp_path / "report.html")
    assert "Left out: 1 " in page.root.all("main")[0].text
    assert "another text" not in page.source
    with pytest.raises(TableError, match=r"no shard 'a\.parquet'"):
        write_report(str(tmp_path), MemorySource({"b.parquet": changed}), str(tmp_path / "report.html"))
    assert source.shards()


@pytest.mark.parametrize("number", [-1, 7])
def test_a_row_number_outside_its_window_is_damage(tmp_path: Path, number: int) -> None:
    source = write_run(tmp_path, {"a.parquet": [entry("a", "a red kite")]})
    (path,) = tmp_path.glob("a.parquet")
    data = pq.read_table(path)
    at = data.schema.get_field_index("row_index")
    pq.write_table(data.set_column(at, data.schema.field(at), pa.array([number], pa.int64())), path)
    with pytest.raises(TableError, match=rf"row_index {number} among rows 0 to 0; its file is damaged"):
        write_report(str(tmp_path), source, str(tmp_path / "report.html"))


def test_a_picture_that_is_gone_is_said_so(tmp_path: Path) -> None:
    rows = [entry("s", "a kite")]
    write_run(tmp_path, {"a.parquet": rows})
    gone = Sample.caption("s", str(tmp_path / "gone.png"), "a kite")
    write_report(str(tmp_path), MemorySource({"a.parquet": [gone]}), str(tmp_path / "report.html"))
    card = Page(tmp_path / "report.html").card("s")
    assert "image not shown" in card.text and not card.all("img")


def test_a_large_run_is_sampled_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_ROWS", 256)
    monkeypatch.setattr(report, "TEXT_WINDOWS", 2)
    source = write_run(tmp_path, {"a.parquet": [entry(f"s{i}", "a red kite") for i in range(1000)]})
    write_report(str(tmp_path), source, str(tmp_path / "report.html"))
    text = Page(tmp_path / "report.html").root.all("main")[0].text
    assert "From a sample of 256 of 1,000 rows" in text and "Counted over 128 of 1,000 rows" in text
    # Each row of a window once, and the rows that lead the lists of quality.
    assert len(source.reads) <= 128 + quality_section.LEAST_VISUAL and max(source.reads.values()) == 1
    assert "Language alone explains 1,000 of 1,000 rows" in text


def test_a_long_text_is_cut(tmp_path: Path) -> None:
    page = written(tmp_path, {"a.parquet": [entry("s", "word " * 1000)]})
    card = page.card("s")
    assert len(card.all("span", **{"class": "t"})) <= 400
    assert "more" in card.all("p", **{"class": "caption"})[0].text


def test_the_destination_may_be_a_url(tmp_path: Path) -> None:
    source = write_run(tmp_path, {"a.parquet": [entry("s", "a kite")]})
    write_report(tmp_path.as_uri(), source, "memory://reports/report.html")
    import fsspec

    with fsspec.open("memory://reports/report.html", "rt", encoding="utf-8") as file:
        assert file.read().startswith("<!doctype html>")
