"""Options from a file are the command line's, and a run leaves the file that repeats it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from pipelines.cli import inspect, options, score
from pipelines.cli.options import build_parser, make_config, make_job, parse_options
from pipelines.sources.redacted import without_secrets
from scorer.errors import ConfigError
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import ROWS, snapshot


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "CheckpointEngine", lambda *_: FakeEngine())


def write(folder: Path, text: str) -> str:
    path = folder / "run.yaml"
    path.write_text(text, "utf-8")
    return str(path)


PATHS = ["--input", "i", "--output", "o"]
SAME = [
    ("model: org/name\nrevision: 0123456\ndtype: bfloat16", "--model|org/name|--revision|0123456|--dtype|bfloat16"),
    ("truncate: true\ncompile: false\nno-report: yes", "--truncate|--no-report"),
    ("prompt: ''", "--prompt="),
    ("prompt: 'no'", "--prompt|no"),
    ("prompt: -x- № ☂", "--prompt=-x- № ☂"),
    ("revision:\nadapter: null\nactors: ~", ""),
    ("method: vig-row\nmethod-param: {keep: 0.5}", "--method|vig-row|--method-param|keep=0.5"),
    ("method_param: [window=1, high=3]", "--method-param|window=1|--method-param|high=3"),
    ("image-column: [a, b]\ntext_column: x,y", "--image-column|a,b|--text-column|x,y"),
    ("blank-color: [1, 2, 3]\nactors: 2", "--blank-color|1,2,3|--actors|2"),
    ("blank-size: [672, 448]", "--blank-size|672x448"),
    ("blank-size: 672x448", "--blank-size|672x448"),
    ("allow-image-host: [a.example, '*.b.example']", "--allow-image-host|a.example|--allow-image-host|*.b.example"),
    ("contrast: image:other\nmax-failed-rows: 0.5%", "--contrast|image:other|--max-failed-rows|0.5%"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "argv"), SAME)
def test_a_file_says_what_the_command_line_says(tmp_path: Path, text: str, argv: str) -> None:
    found = parse_options([*PATHS, "--config", write(tmp_path, text)])
    found.config = None
    assert found == build_parser().parse_args([*PATHS, *filter(None, argv.split("|"))])


def test_required_options_may_stand_in_the_file(tmp_path: Path) -> None:
    found = parse_options(["--config", write(tmp_path, "input: here\noutput: there")])
    assert (found.input, found.output) == ("here", "there")


def test_the_command_line_has_the_last_word(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "input: here\noutput: there\nactors: 8\ntruncate: true\nmethod: cal\nmethod-param: {window: 1}\n"
        "allow-image-host: [a.example]\nreport: r.html",
    )
    argv = ["--config", file, "--output=mine", "--actors", "2", "--no-truncate", "--method", "prior", "--no-report"]
    found = parse_options([*argv, "--allow-image-host", "b.example"])
    assert (found.input, found.output, found.actors, found.truncate) == ("here", "mine", 2, False)
    assert (found.method, found.method_param) == ("prior", []), "a method's parameters go with it"
    assert found.allow_image_host == ["b.example"], "a list is replaced, not added to"
    assert (found.report, found.no_report) == (None, True)


MISTAKES = [
    ("rows_per_units: 5", r"line 1: there is no option 'rows_per_units'; the nearest is 'rows-per-unit'"),
    ("input: x\nmodl: y", r"line 2: there is no option 'modl'; the nearest is 'model'"),
    ("config: other.yaml", "there is no option 'config'"),
    ("? [a]\n: b", "there is no option"),
    ("actors: 1\nactors: 2", "line 2: actors is given twice"),
    ("actors: [1, 2]", "actors takes one value, but 2 are given"),
    ("actors: {a: {b: c}}", "actors is a mapping nested too deeply"),
    ("truncate: maybe", "truncate is 'maybe'; it must be true or false"),
    ("truncate: [true]", "truncate is a sequence; it must be true or false"),
    ("- input", "must map options to values"),
    ("input: [", "is not valid YAML"),
    ("[" * 5000, "is nested too deeply"),
    ('prompt: "a\\0b"', "prompt holds a NUL character"),
    ("input: !!python/object/apply:os.system [x]\nnope: 1", "there is no option 'nope'"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_mistakes_are_named_with_their_place(
    tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*PATHS, "--config", write(tmp_path, text)]
    with pytest.raises(ConfigError, match=message):
        parse_options(argv)
    assert score.main(argv) == 2
    assert capsys.readouterr().err.startswith("error: --config")


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        parse_options([*PATHS, "--config", str(tmp_path / "absent.yaml")])
    (tmp_path / "latin.yaml").write_bytes(b"prompt: \xe9")
    with pytest.raises(ConfigError, match="cannot be read"):
        parse_options([*PATHS, "--config", str(tmp_path / "latin.yaml")])
    with pytest.raises(SystemExit):
        parse_options([*PATHS, "--config"])


def command(dataset: Path, output: Path, *more: str) -> list[str]:
    common = ["--executor", "local", "--rows-per-unit", "5", "--max-failed-rows", "4", "--no-report"]
    return ["--input", str(dataset), "--output", str(output), *common, *more]


def test_a_run_is_repeated_from_the_file_that_it_left(
    dataset: Path, output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = [
        "--method",
        "vig-row",
        "--method-param",
        "keep=0.5",
        "--prompt",
        "What: is 'it'?\n№",
        "--blank-color",
        "1,2,3",
    ]
    more += ["--blank-size", "15x16", "--contrast", "blank,blur@0.02,shuffled"]
    assert score.main(command(dataset, output, *more)) == 0
    first, before = capsys.readouterr().out, snapshot(output)
    file = str(output / "_config.yaml")
    repeated, asked = parse_options(["--config", file]), parse_options(command(dataset, output, *more))
    assert make_config(repeated) == make_config(asked)
    assert make_job(repeated).source.fingerprint() == make_job(asked).source.fingerprint()
    monkeypatch.setattr(FakeEngine, "scorer", lambda _: pytest.fail("nothing is left to be scored"))
    assert score.main(["--config", file]) == 0
    printed = capsys.readouterr()
    assert printed.out == first
    assert f"{ROWS} of {ROWS} rows are already scored" in printed.err
    assert snapshot(output) == before
    monkeypatch.undo()
    monkeypatch.setattr(options, "CheckpointEngine", lambda *_: FakeEngine())
    assert score.main(["--config", file, "--output", f"{output}-again"]) == 0
    records = [json.loads((Path(f"{output}{tail}") / "_run.json").read_text()) for tail in ("", "-again")]
    for record in records:
        del record["started_at"]
    assert records[0] == records[1]
    assert inspect.main([str(output)]) == 0, "an output with the file in it is sound"


def test_the_file_names_the_output_that_was_written(dataset: Path, output: Path) -> None:
    assert score.main(command(dataset, output)) == 0
    assert score.main(command(dataset, output, "--method", "prior", "--force-new-run")) == 0
    document = yaml.safe_load((output.parent / "out-2" / "_config.yaml").read_text())
    assert document["output"] == f"{output}-2"
    assert "force-new-run" not in document
    assert document["method"] == "prior"


@pytest.mark.parametrize(
    ("url", "written"),
    [
        ("https://user:hunter2@host.example/a?x=1", "https://host.example/a?x=1"),
        ("https://host.example/a?X-Amz-Signature=abc&b=2#f", "https://host.example/a#f"),
        ("https://host.example/a?sv=1&sig=abc", "https://host.example/a"),
        ("s3://key:secret@bucket/deep/*.parquet", "s3://bucket/deep/*.parquet"),
        ("s3://bucket/a@b/c", "s3://bucket/a@b/c"),
        ("hf://datasets/org/name@main/x", "hf://datasets/org/name@main/x"),
        ("data/with?key=1", "data/with?key=1"),
        ("s3://bucket/x[0-9]?.tar", "s3://bucket/x[0-9]?.tar"),
    ],
)
def test_secrets_are_left_out_of_what_is_written(url: str, written: str) -> None:
    assert without_secrets(url) == written


def test_no_credentials_in_an_output(dataset: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    assert score.main(command(dataset, output, "--image-root", "s3://user:hunter2@bucket/images")) == 0
    for name, (_, data) in snapshot(output).items():
        assert b"hunter2" not in data, name
    text = (output / "_config.yaml").read_text()
    assert "image-root: s3://bucket/images" in text
    assert "# image-root: credentials are left out" in text
