"""The command: one screen of help, a near miss named, nothing loaded before it is needed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import scorer
import tokensight
from tests.conftest import ROOT
from tests.test_imports import HEAVY
from tokensight.command import SUBCOMMANDS, Subcommand, help_text, main

STARTED_WITHOUT = HEAVY | {"uvicorn", "pydantic"}


def run(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tokensight", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def modules_after(argument: str) -> set[str]:
    """What is loaded once the command has run."""
    code = (
        f"import sys; from tokensight.command import main; main([{argument!r}]); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_the_help_is_one_screen_and_names_every_command() -> None:
    lines = help_text().splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    for name, subcommand in SUBCOMMANDS.items():
        assert any(line.split() == [name, *subcommand.help.split()] for line in lines)


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["-h"], 0), (["--help"], 0)])
def test_help_is_printed(arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == status
    assert capsys.readouterr().out == help_text() + "\n"


@pytest.mark.parametrize(
    ("given", "meant"), [("scroe", "score"), ("inspect_run", "inspect"), ("--version", "version"), ("Score", "score")]
)
def test_an_unknown_command_suggests_the_nearest(given: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([given, "--input", "x"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"no command {given!r}; the nearest is {meant!r}" in printed.err


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_a_command_is_named_so_in_its_own_help(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One rule: also where a script or ``python -m`` runs it."""
    monkeypatch.setenv("COLUMNS", "80")
    for run_it in (lambda: main([name, "--help"]), lambda: import_module(SUBCOMMANDS[name].module).main(["--help"])):
        with pytest.raises(SystemExit) as caught:
            run_it()
        assert not caught.value.code
        assert capsys.readouterr().out.startswith(f"usage: tokensight {name} ")


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_names_a_script_only_where_ray_submits_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    printed = capsys.readouterr().out
    assert not re.search(r"python -m|(?<!ray job submit --working-dir \. -- python pipelines/)\b\w+\.py\b", printed)
    assert ("ray job submit --working-dir . -- python pipelines/score_dataset.py" in printed) == (name == "score")


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_a_wrong_option_is_status_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status: object = main([name, "--no-such-option"])
    except SystemExit as left:
        status = left.code
    assert status == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize("argument", ["--help", "version"])
def test_nothing_heavy_is_loaded_to_start(argument: str) -> None:
    loaded = {name.split(".")[0] for name in modules_after(argument)}
    assert "tokensight" in loaded
    assert not loaded & STARTED_WITHOUT


def test_a_commands_module_is_imported_only_when_it_is_chosen() -> None:
    loaded = modules_after("version")
    assert "tokensight.version" in loaded
    assert not loaded & ({one.module for one in SUBCOMMANDS.values()} - {"tokensight.version"})


def test_the_exit_status_is_the_commands_own(tmp_path: Path) -> None:
    done = run("inspect", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    from tests.pipelines.helpers import make_job, write_dataset
    from tests.pipelines.helpers import run as run_job

    run_job(make_job(write_dataset(tmp_path / "data"), tmp_path / "out"))
    command = f"{sys.executable} -m tokensight inspect {tmp_path / 'out'} | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 1, "")


def test_versions_as_text_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    assert main(["version"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert main(["version", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == lines
    wanted = ["tokensight", "torch", "transformers", "tokenizers", "pillow", "numpy", "pyarrow", "ray"]
    assert list(found) == wanted
    assert (found["tokensight"], found["torch"]) == (scorer.__version__, torch.__version__)


def test_a_version_that_is_absent_is_said_to_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.metadata import PackageNotFoundError, version

    def without_ray(name: str) -> str:
        if name == "ray":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("scorer.versions.version", without_ray)
    assert main(["version"]) == 0
    assert "ray           not installed" in capsys.readouterr().out.splitlines()
    assert main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ray"] is None


def test_the_public_names_are_the_scorers() -> None:
    assert sorted(tokensight.__all__) == sorted(scorer.__all__)
    for name in tokensight.__all__:
        assert getattr(tokensight, name) is getattr(scorer, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tokensight.nothing


def test_a_subcommand_is_one_line_of_the_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A toy one is listed, and its main is given the arguments after its name."""
    given: list[object] = []
    toy = ModuleType("toy_subcommand")
    toy.main = lambda argv=None: given.append(argv) or 7  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_subcommand", toy)
    monkeypatch.setitem(SUBCOMMANDS, "toy", Subcommand("play", "toy_subcommand"))  # type: ignore[index]
    assert "toy" in help_text() and "play" in help_text()
    assert main(["toy", "--fast"]) == 7
    assert given == [["--fast"]]


@pytest.mark.parametrize("name", ["score", "inspect", "compact", "export"])
def test_every_command_lists_its_exit_statuses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    listed = capsys.readouterr().out.partition("exit status:")[2]
    assert {"0", "2", "130", "143"} <= {line.split()[0] for line in listed.splitlines() if line.strip()}
