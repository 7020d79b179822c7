from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import options, score
from pipelines.cli.options import build_parser, make_config, make_job
from pipelines.executors.local import LocalExecutor
from scorer.config import ScorerConfig
from scorer.errors import ModelError, RunError
from tests.conftest import ROOT
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import ROWS, SHARDS, snapshot, write_dataset
from tests.pipelines.outputs import flip


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "CheckpointEngine", lambda model, config, revision: FakeEngine())


def command(dataset: Path | str, output: Path | str, *more: str) -> list[str]:
    common = ["--executor", "local", "--rows-per-unit", "5", "--max-failed-rows", "4"]
    return ["--input", str(dataset), "--output", str(output), *common, *more]


def test_a_run_prints_its_summary(dataset: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score.main(command(dataset, output, "--no-report")) == 0
    printed = capsys.readouterr()
    for expected in (
        "the packaged mini model",
        f"rows in      {ROWS}",
        f"rows ok      {ROWS - 4}",
        "rows failed  4",
        "2  image_unreadable",
        "· a.parquet row 3 (a.parquet3): the image does not decode",
        f"{len(SHARDS)} in {output}",
        f"{output}/_SUCCESS",
    ):
        assert expected in printed.out
    assert "progress: 38/38 rows (100%)" in printed.err
    assert not (output / "report.html").exists()


def test_a_finished_run_given_again_writes_nothing(
    dataset: Path, output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[int] = []
    monkeypatch.setattr(
        "pipelines.report.page.write_report", lambda *args: reports.append(Path(args[2]).write_text("r"))
    )
    assert score.main(command(dataset, output)) == 0
    before, first = snapshot(output), capsys.readouterr()
    assert "report.html" in before
    assert f"{output}/report.html" in first.out
    assert score.main(command(dataset, output)) == 0
    assert snapshot(output) == before
    assert capsys.readouterr().out == first.out
    assert len(reports) == 1
    assert score.main(command(dataset, output, "--report", str(output.parent / "other.html"))) == 0
    assert (output.parent / "other.html").exists(), "a report that is asked for by name is written"


def test_a_finished_run_is_verified_on_request(
    dataset: Path, output: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert score.main(command(dataset, output, "--no-report")) == 0
    before, first = snapshot(output), capsys.readouterr()
    assert score.main(command(dataset, output, "--no-report", "--verify")) == 0
    again = capsys.readouterr()
    assert snapshot(output) == before
    assert again.out == first.out
    assert "verified: 3 published files; each has the SHA-256 that its marker gives" in again.err
    assert "verify" not in (output / "_config.yaml").read_text()
    flip(output / "a.parquet")
    assert score.main(command(dataset, output, "--no-report")) == 0
    assert (output / "a.parquet").read_bytes() != before["a.parquet"][1], "sizes do not tell"
    assert score.main(command(dataset, output, "--no-report", "--verify")) == 0
    assert (output / "a.parquet").read_bytes() == before["a.parquet"][1]
    assert "a.parquet is damaged: its SHA-256 differs" in caplog.text


def test_a_report_that_fails_is_no_failure_of_the_run(
    dataset: Path, output: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no picture")

    monkeypatch.setattr("pipelines.report.page.write_report", fail)
    assert score.main(command(dataset, output)) == 0
    assert "the scores are complete" in caplog.text
    assert "RuntimeError: no picture" in caplog.text


def other_run(dataset: Path, output: Path) -> list[str]:
    assert score.main(command(dataset, output, "--no-report")) == 0
    return command(dataset, output, "--method", "prior")


def file_as_output(dataset: Path, output: Path) -> list[str]:
    output.write_text("a file")
    return command(dataset, output)


MISTAKES: dict[str, tuple[Any, str]] = {
    "no input": (lambda d, o: command(d / "absent", o), "does not exist"),
    "output is the input": (lambda d, o: command(d, d), "overlap; scores are published"),
    "image root that does not exist": (
        lambda d, o: command(d, o, "--image-root", str(d / "pictures")),
        "pictures' does not exist; give the folder that image paths are relative to",
    ),
    "image root that is a file": (
        lambda d, o: command(d, o, "--image-root", str(d / "a.parquet")),
        "a.parquet' is a file; give the folder that image paths are relative to",
    ),
    "output inside the input": (lambda d, o: command(d, d / "sub" / "out"), "overlap; scores are published"),
    "input inside the output": (lambda d, o: command(d, d.parent), "overlap; scores are published"),
    "output beside the shards of a glob": (lambda d, o: command(d / "*.parquet", d), "overlap; scores are published"),
    "output of a file's folder": (lambda d, o: command(d / "a.parquet", d), "overlap; scores are published"),
    "output is a file": (file_as_output, "is a file; give a folder"),
    "output below a file": (lambda d, o: command(d, file_as_output(d, o)[3] + "/deep"), "is a file; give a folder"),
    "unknown protocol": (lambda d, o: command(d, "nosuch://x"), "nosuch"),
    "no such column": (lambda d, o: command(d, o, "--text-column", "nope"), "there is no column 'nope'"),
    "bad option": (lambda d, o: command(d, o, "--blur-radius", "7"), "blur_radius is 7.0"),
    "bad method": (lambda d, o: command(d, o, "--method-param", "window=2"), "window is 2"),
    "bad unit": (lambda d, o: command(d, o, "--rows-per-unit", "0"), "--rows-per-unit is 0"),
    "bad timeout": (lambda d, o: command(d, o, "--row-timeout", "-1"), "--row-timeout is -1"),
    "another run's output": (other_run, '"cal" → "prior"'),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_message_before_any_model_is_loaded(
    dataset: Path, output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    make, expected = MISTAKES[mistake]
    argv = make(dataset, output)
    before = snapshot(dataset.parent)
    capsys.readouterr()

    def refuse(_: FakeEngine) -> None:
        raise AssertionError("a model was loaded")

    for name in ("encoder", "scorer"):
        monkeypatch.setattr(FakeEngine, name, refuse)
    assert score.main(argv) == 2
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1].strip()
    assert "error: " in printed.err
    assert expected in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert snapshot(dataset.parent) == before


@pytest.mark.parametrize(
    ("error", "status", "advice"),
    [
        (RunError("a worker failed"), 1, True),
        (OSError(28, "No space left on device"), 1, True),
        (ModelError("cannot be loaded"), 1, True),
        (KeyboardInterrupt(), 130, True),
    ],
)
def test_a_run_that_stops_says_how_to_go_on(
    dataset: Path,
    output: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    advice: bool,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(LocalExecutor, "score", fail)
    assert score.main(command(dataset, output)) == status
    assert ("repeat the command to resume" in capsys.readouterr().err) == advice


def test_every_scorer_option_is_an_option_of_the_command() -> None:
    parsed = build_parser().parse_args(["--input", "i", "--output", "o"])
    assert make_config(parsed) == ScorerConfig(), "the defaults are one and the same"
    changed = ["--contrast", "blur,noise", "--dtype", "bfloat16", "--device", "cpu", "--prompt", "P", "--truncate"]
    changed += ["--blank-color", "1,2,3", "--blur-radius", "0.5", "--noise-seed", "7", "--max-image-bytes", "10"]
    changed += ["--device-map", "auto", "--attention", "eager", "--adapter", "a", "--compile"]
    changed += ["--max-image-pixels", "11", "--max-batch-tokens", "12"]
    changed += ["--max-text-bytes", "14", "--blank-size", "15x16", "--jpeg-draft", "--no-stop-token"]
    changed += ["--score-bits", "10", "--columns", "kl,top1"]
    config = make_config(build_parser().parse_args(["--input", "i", "--output", "o", *changed]))
    same = [f.name for f in dataclasses.fields(config) if getattr(config, f.name) == getattr(ScorerConfig(), f.name)]
    assert same == ["tensor_parallel", "quantization", "contrast_cache_bytes"], "two exclude others; a run keeps none"
    shared = build_parser().parse_args(["--input", "i", "--output", "o", "--tensor-parallel", "2"])
    assert make_config(shared).tensor_parallel == 2
    quantised = build_parser().parse_args(["--input", "i", "--output", "o", "--quantization", "int8"])
    assert make_config(quantised).quantization == "int8"
    assert config.blank_color == (1, 2, 3)
    assert config.blank_size == (15, 16)
    assert config.distribution_columns == ("kl", "top1")


@pytest.mark.parametrize("wrong", ["15", "15x", "15,16", "axb", "1x2x3"])
def test_a_size_is_a_width_and_a_height(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--input", "i", "--output", "o", "--blank-size", wrong])
    assert f"'{wrong}' is not a width and a height, for example 672x448" in capsys.readouterr().err


def test_method_parameters(dataset: Path, output: Path) -> None:
    argv = command(
        dataset, output, "--method", "vig-row", "--method-param", "threshold=0.5", "--method-param", "keep=1"
    )
    job = make_job(build_parser().parse_args(argv))
    assert job.method.to_dict() == {"name": "vig-row", "params": {"threshold": 0.5, "keep": 1}}
    for wrong in ("keep", "keep=much"):
        with pytest.raises(SystemExit) as caught:
            build_parser().parse_args(command(dataset, output, "--method-param", wrong))
        assert caught.value.code == 2


def test_an_output_inside_a_jobs_copy_of_its_folder_is_warned_of(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert score.main(command(dataset, "out", "--no-report")) == 0
    assert "deletes in time" not in caplog.text
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert score.main(command(dataset, "out", "--no-report")) == 0
    assert "give an absolute path or a URL" in caplog.text


def test_the_script_runs_from_anywhere_and_shadows_nothing(tmp_path: Path) -> None:
    script = ROOT / "pipelines" / "score_dataset.py"
    done = subprocess.run([sys.executable, str(script), "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for group in ("input and output", "columns", "reference model", "contrast", "limits", "execution", "exit status"):
        assert group in done.stdout
    probe = f"import runpy, sys; sys.path.insert(0, 'dummy'); sys.argv = ['x', '--help']\n\
try: runpy.run_path({str(script)!r}, run_name='__main__')\n\
except SystemExit: print(sys.path[0])"
    found = subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == str(ROOT)


def test_the_job_on_the_record(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", {"x.parquet": 4})
    assert score.main(command(dataset, tmp_path / "out", "--no-report")) == 0
    record = json.loads((tmp_path / "out" / "_run.json").read_text())
    assert record["input"] == str(dataset)
    assert record["source"] == {
        "columns": {
            "image": "image",
            "text": "caption",
            "messages": None,
            "id": "id",
            "prompt": None,
            "contrast_image": None,
        }
    }
    assert record["method"] == {"name": "cal", "params": {"low": 1.0, "high": 5.0, "window": 3, "edges": "turn"}}
