"""Mixed data: rows without an image are kept, counted apart and trained on with weights of 1, end to end."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.cli import inspect, options, score
from pipelines.output.check import check
from pipelines.output.contents import Problem, look
from pipelines.output.reader import ScoredBatch
from pipelines.output.store import open_store
from pipelines.output.summary import parse, read_summary
from pipelines.output.tally import Tally
from pipelines.report.page import write_report
from pipelines.report.quality.scan import scan
from pipelines.sources.columns import Columns
from scorer.columns import WEIGHTS
from scorer.results import TokenScores
from scorer.training import WeightAligner, WeightedText, WeightTable, read_weights
from scorer.training.export.__main__ import main as export
from scorer.training.export.columns import ColumnOptions, run_columns
from scorer.training.export.dataset import read_examples
from scorer.training.export.formats import FORMATS, FormatOptions
from scorer.weights import METHODS
from tests.methods import ready
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import IMAGE, make_job, run
from tests.pipelines.outputs import problems, rewrite
from tests.pipelines.outputs import with_value as cell
from tests.pipelines.report.html_page import Page
from tests.scorer import tiny

PICTURE = {"bytes": b"ok", "path": None}
CELLS: Mapping[str, Any] = {
    "image": [PICTURE],
    "empty": [],
    "null": None,
    "null inside": [None],
    "null struct": [{"bytes": None, "path": None}],
    "empty struct": [{"bytes": b"", "path": ""}],
    "corrupt": [{"bytes": b"corrupt", "path": None}],
    "another image": [PICTURE],
}
TEXT_ONLY = [name for name in CELLS if "null" in name or "empty" in name]
ROW = 1
FILE = "a.parquet"


def talk(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def write(folder: Path) -> Path:
    """One row for each cell; its conversation has a marker where it has an image."""
    folder.mkdir(parents=True)
    table = pa.table(
        {
            "id": list(CELLS),
            "images": pa.array(list(CELLS.values()), pa.list_(IMAGE)),
            "messages": [talk("Hi" if name in TEXT_ONLY else "<image>Hi", f"a red kite of {name}") for name in CELLS],
        }
    )
    pq.write_table(table, folder / FILE)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "data")


@pytest.fixture
def output(data: Path, tmp_path: Path) -> Path:
    run(make_job(data, tmp_path / "out", columns=Columns(image="images", messages="messages", id="id")))
    return tmp_path / "out"


def test_rows_are_the_sum_of_ok_text_only_and_failed(output: Path) -> None:
    summary = read_summary(open_store(str(output)))
    assert summary is not None
    assert (summary["rows"], summary["ok"], summary["text_only"], summary["failed"]) == (8, 2, 5, 1)
    assert summary["shards"][0]["text_only"] == 5
    assert list(summary["failures"]) == ["image_unreadable"]
    statuses = {row.sample_id: row.status for row in read_weights(output)}
    assert [name for name, status in statuses.items() if status == "text_only"] == TEXT_ONLY
    assert problems(output) == problems(output, quick=True) == []


def test_a_text_only_row_has_tokens_a_text_score_and_weights_of_1(output: Path) -> None:
    for row in read_weights(output):
        if row.sample_id not in TEXT_ONLY:
            assert not row.text_only
            continue
        assert row.ok
        assert row.text_only
        assert row.scores is not None
        row.check_text([f"a red kite of {row.sample_id}"])
        assert np.isnan(row.scores.logit_gap).all()
        assert np.isnan(row.scores.logprob_clean).all()
        assert np.isfinite(row.scores.logprob_contrast).all()
        assert row.weights is not None
        assert row.weights.tolist() == [1.0] * len(row.scores.token_ids)


def nothing(scores: Any) -> Any:
    return np.zeros(len(scores.token_turns), np.float32)


@pytest.mark.parametrize("method", [*map(ready, METHODS), nothing])
def test_every_method_gives_1_at_read_time(output: Path, method: Callable[[Any], Any]) -> None:
    table = WeightTable.open(output, method=method)
    for name in TEXT_ONLY:
        weights = table.find(name).weights
        assert weights is not None
        assert set(weights.tolist()) == {1.0}
    if method is nothing:
        weights = table.find("image").weights
        assert weights is not None
        assert set(weights.tolist()) == {0.0}


def test_a_row_without_the_image_that_its_text_places_has_failed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    table = pa.table(
        {"images": pa.array([None, [PICTURE]], pa.list_(IMAGE)), "messages": [talk("<image>Hi", "a kite")] * 2}
    )
    pq.write_table(table, tmp_path / "data" / FILE)
    summary = run(make_job(tmp_path / "data", tmp_path / "out", columns=Columns(image="images", messages="messages")))
    assert (summary["ok"], summary["text_only"], summary["failed"]) == (1, 0, 1)
    assert list(summary["failures"]) == ["image_missing"]


def llava(folder: Path) -> Path:
    """LLaVA's mix: rows without the key, with null, and with an image."""
    folder.mkdir()
    (folder / "p.png").write_bytes(b"ok")

    def said(question: str, answer: str) -> list[dict[str, str]]:
        return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]

    rows = [
        {"id": "p0", "image": "p.png", "conversations": said("<image>\nWhat?", "A red square.")},
        {"id": "t1", "conversations": said("Say hello.", "Hello there.")},
        {"id": "t2", "image": None, "conversations": said("Say hello.", "Hello again.")},
        {"id": "p3", "image": "p.png", "conversations": said("<image>\nWhat?", "A box.")},
    ]
    (folder / "train.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "CheckpointEngine", lambda *_: FakeEngine())


@pytest.fixture
def mix(tmp_path: Path, fake_model: None) -> tuple[Path, Path]:
    """The data, and the output of the real command on it."""
    data, output = llava(tmp_path / "mix"), tmp_path / "weights"
    arguments = ["--input", str(data), "--output", str(output), "--executor", "local", "--max-failed-rows", "0"]
    assert score.main(arguments) == 0
    return data, output


def test_the_command_counts_them_apart_and_takes_none_for_a_failure(
    mix: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ["--input", str(mix[0]), "--output", str(tmp_path / "again"), "--executor", "local"]
    assert score.main([*again, "--max-failed-rows", "0"]) == 0
    said = capsys.readouterr().out
    for expected in ("rows in      4", "rows ok      2", "text-only    2 (no image; weights of 1)", "rows failed  0"):
        assert expected in said
    assert inspect.main([str(mix[1])]) == 0
    assert "2 rows ok, 2 text-only, 0 failed" in capsys.readouterr().out
    assert "| rows text-only | 2 |" in (mix[1] / "README.md").read_text()


@pytest.mark.usefixtures("fake_model")
def test_a_dry_run_says_how_many_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = llava(tmp_path / "mix")
    assert score.main(["--input", str(data), "--output", str(tmp_path / "out"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "text-only    about 2 (2 of 4)" in said
    assert "rows failed  about 0 (0 of 4)" in said
    assert "text-only: no image, weights of 1" in said


@pytest.mark.parametrize("to", ["jsonl", "llava-json", "llama-factory", "axolotl"])
def test_every_exporter_keeps_them(mix: tuple[Path, Path], tmp_path: Path, to: str, capsys: Any) -> None:
    file = tmp_path / "exported"
    capsys.readouterr()
    arguments = ["--weights", str(mix[1]), "--data", str(mix[0]), "--output", str(file)]
    arguments += ["--threshold", "3"] if to == "axolotl" else []
    assert export(["--to", to, *arguments]) == 0
    said = capsys.readouterr().out
    assert "4 examples" in said
    assert "0 of 4 rows were not scored" in said
    assert "2 rows have no image (text_only)" in said
    text = file.read_text()
    rows = json.loads(text) if to == "llava-json" else [json.loads(line) for line in text.splitlines()]
    assert len(rows) == 4
    for row in rows[1:3]:
        assert not row.get("images")
        assert "image" not in row
        assert "<image>" not in json.dumps(row)
    if to == "axolotl":  # whatever the threshold
        detail = [row["messages"][1]["train_detail"] for row in rows[1:3]]
        assert detail == [[{"begin_offset": 0, "end_offset": 11, "train": True}]] * 2
        return
    records = [json.loads(row["extra_info"]) if to == "llama-factory" else row for row in rows]
    assert [set(record["token_weights"]["weights"]) for record in records[1:3]] == [{1.0}] * 2
    assert set(records[0]["token_weights"]["weights"]) != {1.0}


def test_ms_swift_gets_scales_of_1(mix: tuple[Path, Path]) -> None:
    tokenizer = tiny.byte_level_tokenizer()
    settings = FormatOptions(tokenizer.encode, WeightAligner(tokenizer), 0.5, "sequence")
    table = WeightTable.open(mix[1])
    columns = run_columns(table.published, ColumnOptions())
    examples = list(read_examples(table, mix[0], columns))
    assert [example.name for example in examples] == ["p0", "t1", "t2", "p3"]
    written = FORMATS["ms-swift"](examples[1], [], settings)
    content = written["messages"][1]["content"]
    assert content == {"token_ids": tokenizer.encode("Hello there."), "loss_scale": [1.0] * len(content["token_ids"])}
    assert written["images"] == []


def test_the_aligner_gives_them_weights_of_1(output: Path) -> None:
    tokenizer = tiny.byte_level_tokenizer()
    table = WeightTable.open(output)
    for name in TEXT_ONLY:
        text = f"a red kite of {name}"
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        (weights,) = WeightAligner(tokenizer)([ids], [ids], [WeightedText(table.find(name), [text])])
        assert weights.tolist() == [1.0] * len(ids)


def test_report_and_scan_leave_them_out_of_every_statistic(output: Path, data: Path, tmp_path: Path) -> None:
    summary = read_summary(open_store(str(output)))
    assert summary is not None
    findings = scan(str(output), summary["shards"])
    assert findings.rows == 2
    assert {place for list_ in (findings.language, findings.contradictions) for place in list_.listed} <= {
        (FILE, 0),
        (FILE, 7),
    }
    job = make_job(data, output, columns=Columns(image="images", messages="messages", id="id"))
    write_report(str(output), job.source, str(tmp_path / "report.html"))
    page = Page(tmp_path / "report.html")
    tiles = {tile.all("dt")[0].text: tile.all("dd")[0].text for tile in page.root.all("dl")[0].all("div")}
    assert (tiles["rows"], tiles["scored"], tiles["text-only"], tiles["failed"]) == ("8", "2", "5", "1")
    assert int(tiles["tokens"]) == summary["tokens"] == findings.figures.gaps.spread().count


DAMAGE: dict[str, tuple[str, Any, str]] = {
    "another weight": (WEIGHTS, lambda v: [2.0, *v[1:]], "is text_only but has a token_weights entry that is not 1"),
    "a gap": ("logit_gap", lambda v: [0.5, *v[1:]], "is text_only but has a logit_gap that is not NaN"),
    "a clean score": ("logprob_clean", lambda v: [-1.0, *v[1:]], "is text_only but has a logprob_clean"),
    "a score missing": ("logprob_contrast", lambda v: [math.nan, *v[1:]], "logprob_contrast is neither finite nor all"),
    "infinity": ("logprob_contrast", lambda v: [-math.inf, *v[1:]], "logprob_contrast is neither finite nor all NaN"),
    "an error": ("error", "oh", "did not fail but has an error"),
    "no hash": ("text_hash", None, "did not fail but its text_hash is not"),
    "spans": ("token_ends", lambda v: [*v[:-1], v[-2]], "ends before it starts"),
    "null": (WEIGHTS, None, "did not fail but token_weights is null"),
    "scored after all": ("status", "ok", "has a logit_gap that is not finite"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_to_a_text_only_row_is_told(output: Path, damage: str) -> None:
    column, value, expected = DAMAGE[damage]
    rewrite(output, FILE, cell(column, ROW, value))
    found = problems(output)
    assert any(expected in problem.message and f"row {ROW} " in problem.message for problem in found), found


def test_a_row_of_a_model_that_needs_an_image_is_sound_without_any_score(output: Path) -> None:
    rewrite(output, FILE, cell("logprob_contrast", ROW, lambda v: [math.nan] * len(v)))
    assert problems(output) == []


def test_a_count_that_differs_from_the_marker_is_told(output: Path) -> None:
    rewrite(output, FILE, cell("status", 0, "text_only"))
    found = [problem.message for problem in problems(output)]
    assert any("it has 6 rows text-only, but its marker says 5" in message for message in found), found


def test_only_scored_rows_are_handed_on(output: Path) -> None:
    batches: list[ScoredBatch] = []
    found: list[Problem] = list(check(look(open_store(str(output))), batches.append))
    assert found == []
    assert [int(row) for batch in batches for row in batch.row_index] == [0, 7]


def test_an_older_output_counts_none(output: Path) -> None:
    document = json.loads((output / "_SUCCESS").read_text())
    del document["text_only"]
    document["rows"] -= 5
    for shard in document["shards"]:
        del shard["text_only"]
    summary = parse(json.dumps(document).encode())
    assert summary["text_only"] == summary["shards"][0]["text_only"] == 0
    tally = Tally(rows=3, ok=2, text_only=1).to_dict()
    del tally["text_only"]
    assert Tally.from_dict(tally).text_only == 0


def test_several_texts_without_an_image_are_text_only_together() -> None:
    from pipelines.run.captions import TakenApart, encode_row
    from pipelines.sources import Captions
    from scorer.types import Turn

    engine = FakeEngine()
    row = encode_row(Captions("a", (), Turn("user", ("Say it.",)), ("a red kite", "two boats"), ()), engine.encoder())
    apart = TakenApart([row])
    (result,) = apart.join(engine.scorer().score_batches(apart, 8192))
    assert isinstance(result, TokenScores)
    assert result.text_only
    assert result.token_turns.tolist() == [0, 0, 0, 1, 1]
