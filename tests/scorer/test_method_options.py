"""``--method`` and ``--method-param`` are one and the same for every command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.cli.options import build_parser
from scorer.method_options import describe_methods, method_param
from scorer.training.export.__main__ import main as export
from scorer.weights import METHODS
from tests.toy_method import plant

Captured = pytest.CaptureFixture[str]


def score(*options: str) -> Any:
    return build_parser().parse_args(["--input", "i", "--output", "o", *options])


def exported(*options: str) -> Any:
    return export(["--to", "jsonl", "--weights", "nowhere", "--output", "o", *options])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("window=1", ("window", 1)),
        ("low=0.5", ("low", 0.5)),
        ("low=1e-3", ("low", 0.001)),
        ("low= 2 ", ("low", 2)),
        ("low=-2", ("low", -2)),
        ("threshold=null", ("threshold", None)),
        ("edges=paper", ("edges", "paper")),
        ("threshold=Null", ("threshold", None)),
    ],
)
def test_a_parameter(text: str, expected: tuple[str, Any]) -> None:
    found = method_param(text)
    assert found == expected
    assert type(found[1]) is type(expected[1])


WRONG = {
    "window": "'window' is not NAME=VALUE, such as window=1",
    "window=": "'window=' is not NAME=VALUE",
    "=1": "'=1' is not NAME=VALUE",
    "window=three": "'window=three': the value 'three' is neither a number nor null, nor a word that a "
    "parameter takes (turn, paper)",
    "window=true": "'window=true': the value 'true' is neither a number nor null",
    'window="1"': "the value '\"1\"' is neither a number nor null",
    "window=[1]": "the value '[1]' is neither a number nor null",
}


@pytest.mark.parametrize("text", WRONG)
def test_both_command_lines_give_one_message(capsys: Captured, text: str) -> None:
    said = []
    for command in (score, exported):
        with pytest.raises(SystemExit) as caught:
            command("--method", "cal", "--method-param", text)
        assert caught.value.code == 2
        said.append(capsys.readouterr().err.splitlines()[-1].partition("error: ")[2])
    assert said[0] == said[1]
    assert said[0].startswith("argument --method-param: ") and WRONG[text] in said[0]


@pytest.mark.parametrize("command", [score, exported])
def test_a_planted_method_is_taken(monkeypatch: pytest.MonkeyPatch, capsys: Captured, command: Any) -> None:
    """Negative control: without its record it is refused."""
    with pytest.raises(SystemExit):
        command("--method", "toy")
    assert "invalid choice: 'toy'" in capsys.readouterr().err
    plant(monkeypatch)
    command("--method", "toy", "--method-param", "power=3")
    assert "toy" not in capsys.readouterr().err


def test_the_export_checks_values_by_the_record(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    plant(monkeypatch)
    assert exported("--method", "toy", "--method-param", "power=9") == 2
    assert "method 'toy': power is 9.0; it must lie in (0, 8)" in capsys.readouterr().err


def test_the_job_takes_a_planted_method(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pipelines.cli.options import make_job
    from tests.pipelines.helpers import write_dataset

    plant(monkeypatch)
    data = write_dataset(tmp_path / "data")
    argv = ["--input", str(data), "--output", str(tmp_path / "out"), "--method", "toy", "--method-param", "cap=1"]
    job = make_job(build_parser().parse_args(argv))
    assert job.method.to_dict() == {"name": "toy", "params": {"power": 2.0, "cap": 1.0}}


@pytest.mark.parametrize("command", [score, exported])
def test_help_tells_every_method(monkeypatch: pytest.MonkeyPatch, capsys: Captured, command: Any) -> None:
    plant(monkeypatch)
    with pytest.raises(SystemExit) as caught:
        command("--help")
    assert caught.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for record in METHODS.values():
        assert f"{record.formula} ({record.source})" in said
        assert record.words in said
        for parameter in record.parameters:
            assert f"{parameter} {parameter.meaning}" in said
    assert "toy: power=2, cap=null" in said and "window=3" in said


def test_help_is_no_wider_than_asked() -> None:
    assert max(map(len, describe_methods(80).splitlines())) <= 80
