"""What people see of ``tokensight inspect``: its page, its JSON, its captions, its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.cli import inspect
from pipelines.cli.samples import TokenStyle, choose_samples, show_samples
from pipelines.output.contents import look
from pipelines.output.store import open_store
from scorer.display.printable import printable
from scorer.training import read_weights
from scorer.types import Sample
from tests.conftest import ROOT
from tests.pipelines.helpers import IMAGE, ROWS, make_job, run, snapshot
from tests.pipelines.outputs import age, stop_after
from tests.pipelines.report.runs import MemorySource, scored, write_run
from tests.toy_method import TOY, plant

ESC = "\x1b"


def printed(capsys: pytest.CaptureFixture[str], *argv: object, status: int = 0) -> str:
    capsys.readouterr()
    assert inspect.main([str(arg) for arg in argv]) == status
    return capsys.readouterr().out


def test_a_finished_run(dataset: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(make_job(dataset, output))
    before = snapshot(output)
    text = printed(capsys, output)
    for expected in (
        "run          finished",
        f"{ROWS} of {ROWS} (100%) committed",
        "3 shards",
        "34 rows ok, 4 failed",
        "2  image_unreadable",
        "contrast blank; float32, method cal, sidecar",
        "tokens per row         4.0         4         4         4         4         4",
        "sound: 3 published files checked, digests, schema, fingerprint and every row",
        "tokensight compact removes superseded files",
    ):
        assert expected in text
    assert snapshot(output) == before, "looking changes nothing"


def test_what_only_the_whole_dataset_tells(
    dataset: Path, output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thresholds of every method that takes them from the gaps, and the mean weight; from the records alone."""
    of_the_median = replace(
        TOY, of_dataset=("cap",), from_gaps=lambda gaps, params: {"cap": abs(gaps.rows.top(0.5)[0]), "power": 3.0}
    )
    plant(monkeypatch, of_the_median)
    run(make_job(dataset, output))
    text = printed(capsys, output)
    gaps = read_weights(output).gaps()
    expected = (
        f"vig (threshold {gaps.rows.top(0.7)[0]:.4g}, keep 0.7), "
        f"top-tokens (threshold {gaps.tokens.top(0.25)[0]:.4g}, keep 0.25), "
        f"toy (power 2, cap {abs(gaps.rows.top(0.5)[0]):.4g})"
    )
    mean = np.concatenate([row.weights for row in read_weights(output) if row.weights is not None]).mean()
    assert f"thresholds   {expected}\nmean weight  {mean:.4g}\n" in text
    summary = json.loads((output / "_SUCCESS").read_text())
    for key in ("gaps", "weights"):
        del summary[key]
    (output / "_SUCCESS").write_text(json.dumps(summary))
    assert "thresholds" not in (text := printed(capsys, output)) and "mean weight" not in text


def test_an_unfinished_run(dataset: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stop_after(6, dataset, output)
    text = printed(capsys, output)
    for expected in (
        "not finished, last written to",
        f"30 of {ROWS} (79%) committed",
        "1 unit not published yet",
        "sound: 2",
    ):
        assert expected in text
    age(output, 30)
    document = json.loads(printed(capsys, output, "--json"))
    assert (document["state"], document["rows"], document["rows_committed"]) == ("unfinished", ROWS, 30)
    assert "30 h ago" in printed(capsys, output, "--quick")
    dataset.rename(dataset.parent / "moved")
    assert "rows         30 committed" in printed(capsys, output)
    assert f"30 of {ROWS}" in printed(capsys, output, "--input", dataset.parent / "moved")


def test_json_is_one_document(dataset: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = run(make_job(dataset, output))
    document = json.loads(printed(capsys, output, "--json"))
    assert document["sound"] is True and document["problems"] == []
    assert document["summary"] == summary
    assert document["run"]["fingerprint"] == {"model": "fake", "contrast": "blank", "dtype": "float32", "seed": 0}
    assert document["statistics"]["tokens_per_row"]["median"] == 4
    assert document["quality"]["rows"] == summary["ok"]
    quick = json.loads(printed(capsys, output, "--json", "--quick"))
    assert quick["statistics"] is None and quick["sound"] is True
    (output / "a.parquet").unlink()
    damaged = json.loads(printed(capsys, output, "--json", status=1))
    assert damaged["sound"] is False
    assert [problem["key"] for problem in damaged["problems"]] == ["a.parquet"]


def test_an_empty_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(
        pa.table({"image": pa.array([], IMAGE), "caption": pa.array([], pa.string())}), tmp_path / "data/x.parquet"
    )
    run(make_job(tmp_path / "data", tmp_path / "out"))
    assert "0 of 0 (0%) committed" in printed(capsys, tmp_path / "out")
    document = json.loads(printed(capsys, tmp_path / "out", "--json"))
    assert document["statistics"]["weight"]["mean"] is None
    assert inspect.main([str(tmp_path / "out"), "--sample", "1"]) == 2
    assert "no published, scored row yet" in capsys.readouterr().err


def test_damage_is_listed_and_is_status_1(dataset: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(make_job(dataset, output))
    (output / "a.parquet").unlink()
    text = printed(capsys, output, "--export-quality", output.parent / "q.parquet", status=1)
    assert "DAMAGED: 1 problem" in text
    assert "a.parquet: it was published but is missing; run the same command again" in text
    assert not (output.parent / "q.parquet").exists(), "damaged scores are not ranked"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["absent"], "give the --output of a scoring run"),
        (["nosuch://x"], "nosuch"),
        (["out", "--gc", "3"], "is not an age"),
        (["out", "--sample", "2", "--input", "absent"], "does not exist"),
        (["out", "--html", "r.html", "--input", "absent"], "does not exist"),
    ],
)
def test_mistakes_are_status_2(
    dataset: Path,
    output: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    argv: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(output.parent)
    run(make_job(dataset, output))
    assert inspect.main(argv) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv", [["--delete"], ["--sample", "0"], ["--top", "x"], ["--quick", "--export-quality", "q"]]
)
def test_options_that_do_not_fit_are_status_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        inspect.main(["out", *argv])
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_left_overs(dataset: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stop_after(6, dataset, output)
    path = output / f".a.parquet.{'0' * 32}"
    path.write_text("half")
    age(output, 100)
    assert "1 leftovers older than 4d, 4 B; --delete removes them" in printed(capsys, output, "--gc", "4d")
    assert path.exists()
    assert "deleted 1 leftovers" in printed(capsys, output, "--gc", "4d", "--delete")
    assert not path.exists()


def test_files_are_written(dataset: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(make_job(dataset, output))
    target = output.parent / "made"
    printed(capsys, output, "--html", target / "r.html", "--export-quality", target / "q.parquet", "--top", "3")
    assert "<!doctype html>" in (target / "r.html").read_text()
    assert 3 <= pq.read_metadata(target / "q.parquet").num_rows <= 6


# --- captions ----------------------------------------------------------------------------------------------------


def captions(capsys: pytest.CaptureFixture[str], output: Path, *argv: str) -> str:
    return printed(capsys, output, "--sample", "6", *argv)


def test_captions_are_coloured_on_a_terminal_only(
    dataset: Path, output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(make_job(dataset, output))
    monkeypatch.delenv("NO_COLOR", raising=False)
    plain = captions(capsys, output)
    assert plain.count("kite №") == 6 and ESC not in plain
    assert "gaps: " in plain, "numbers stand in for colours"
    assert ESC in captions(capsys, output, "--color", "always")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert ESC in captions(capsys, output)
    assert ESC not in captions(capsys, output, "--color", "never")
    monkeypatch.setenv("NO_COLOR", "1")
    assert ESC not in captions(capsys, output)
    assert captions(capsys, output) == captions(capsys, output)
    assert captions(capsys, output) != captions(capsys, output, "--seed", "1")


def shown(folder: Path, samples: dict[str, tuple[str, dict[str, float]]], style: TokenStyle) -> list[str]:
    entries = []
    for name, (text, gaps) in samples.items():
        sample = Sample.caption(name, None, text)
        entries.append((sample, scored(sample, gaps)))
    source: MemorySource = write_run(folder, {"a.parquet": entries})
    from pipelines.output.reader import Window, read_rows

    window = Window("a.parquet", 0, len(entries))
    return list(show_samples(read_rows(str(folder), [window])[window], source, style))


def test_colours_follow_the_gaps(tmp_path: Path) -> None:
    lines = shown(tmp_path, {"s": ("the red kite", {"red": 3.0, "kite": -0.8})}, TokenStyle("gap", color=True))
    assert lines[3] == f"the {ESC}[38;5;16;48;5;202mred{ESC}[0m {ESC}[38;5;16;48;5;111mkite{ESC}[0m"
    assert "gaps: red +3.0, kite −0.8" in lines[4]
    assert "less likely with the image" in lines[0] and "×20" in lines[0] and "÷1.25" in lines[0]


def test_colours_follow_the_weights(tmp_path: Path) -> None:
    entries = {"s": ("red the the the kite", {"red": 8.0})}
    lines = shown(tmp_path, entries, TokenStyle("weight", color=True, weights=(1.0, 5.0)))
    assert lines[3].startswith(f"{ESC}[38;5;16;48;5;219mred{ESC}[0m")  # pooled: (5 + 1) / 2
    assert lines[3].endswith(" kite")
    assert lines[0].startswith("weight from  1.0 ") and lines[0].endswith("to 5.0")
    assert shown(tmp_path, entries, TokenStyle("weight", color=False))[2] == "red the the the kite"


def test_a_caption_cannot_command_the_terminal(tmp_path: Path) -> None:
    text = "a \x1b[2J\x1b]0;title\x07kite\u202e\n\tand\x9b31m more"
    for color in (True, False):
        lines = shown(tmp_path, {f"id{ESC}[31m": (text, {"kite": 3.0})}, TokenStyle("gap", color=color))
        rest = "".join(lines).replace(f"{ESC}[0m", "").replace(f"{ESC}[2m", "")
        for level in (202, 208, 215, 223):
            rest = rest.replace(f"{ESC}[38;5;16;48;5;{level}m", "")
        for level in (153, 111, 75, 69):
            rest = rest.replace(f"{ESC}[38;5;16;48;5;{level}m", "")
        assert not any(char in rest for char in "\x1b\x07\x9b\u202e\n\t")
        assert "\\u001b[2J" in rest and "↵⇥and" in rest
    assert printable("naïve 風船 👩‍👩‍👧 ok") == "naïve 風船 👩‍👩‍👧 ok"


def test_a_caption_that_no_word_of_depends_is_said_so(tmp_path: Path) -> None:
    assert shown(tmp_path, {"s": ("a kite", {})}, TokenStyle("gap", color=False))[3] == "no word depends on the image"


def test_only_what_is_shown_is_read(dataset: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(dataset, output)
    run(job)
    rows = choose_samples(look(open_store(str(output))), 3, 0)
    assert len(rows) == 3
    read: list[int] = []
    reading = type(job.source).read

    def counted(self: Any, shard: Any, start: int, stop: int) -> Any:
        read.append(stop - start)
        return reading(self, shard, start, stop)

    monkeypatch.setattr(type(job.source), "read", counted)
    assert len([line for line in show_samples(rows, job.source, TokenStyle("gap", False)) if "kite" in line]) >= 3
    assert read == [1, 1, 1]


def test_samples_of_an_unfinished_run_come_from_what_is_published(dataset: Path, output: Path) -> None:
    stop_after(6, dataset, output)
    assert {row.shard for row in choose_samples(look(open_store(str(output))), 100, 0)} == {"a.parquet"}
    assert np.isfinite([row.weights.sum() for row in choose_samples(look(open_store(str(output))), 4, 0)]).all()


@pytest.mark.parametrize("script", ["inspect_run.py", "compact.py"])
def test_the_scripts_run_from_anywhere(tmp_path: Path, script: str) -> None:
    path = ROOT / "pipelines" / script
    done = subprocess.run([sys.executable, str(path), "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "exit status" in done.stdout and "--gc AGE" in done.stdout


def test_a_reader_that_has_seen_enough_is_no_error(dataset: Path, output: Path) -> None:
    run(make_job(dataset, output))
    command = f"{sys.executable} {ROOT}/pipelines/inspect_run.py {output} --json | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, env=os.environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{", "")
