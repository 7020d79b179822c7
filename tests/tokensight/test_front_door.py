"""What every command does alike: empty paths, closed and full outputs, Ctrl-C, narrow encodings, missing packages."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scorer.command_line.parser import nearest, reflowed
from scorer.command_line.process import run_command
from scorer.training.export.images import ImageFiles
from tests.conftest import ROOT
from tokensight.command import help_text, main


@pytest.mark.parametrize(
    ("option", "arguments"),
    [
        ("--input", ["score", "--input", "", "--output", "o"]),
        ("--output", ["score", "--input", "i", "--output", ""]),
        ("--config", ["score", "--input", "i", "--output", "o", "--config", ""]),
        ("--image-root", ["score", "--input", "i", "--output", "o", "--image-root", ""]),
        ("--report", ["score", "--input", "i", "--output", "o", "--report", ""]),
        ("--model", ["score", "--input", "i", "--output", "o", "--model", ""]),
        ("OUTPUT", ["inspect", ""]),
        ("OUTPUT", ["compact", " "]),
        ("--weights", ["export", "--to", "jsonl", "--weights", "", "--output", "o"]),
        ("--output", ["export", "--to", "jsonl", "--weights", "w", "--output", ""]),
        ("--data", ["export", "--to", "jsonl", "--weights", "w", "--output", "o", "--data", ""]),
        ("--model", ["serve", "--model", ""]),
    ],
)
def test_an_empty_path_is_refused_in_one_line(
    option: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: object = main(arguments)
    except SystemExit as left:
        status = left.code
    (line,) = capsys.readouterr().err.splitlines()
    assert status == 2
    assert line.startswith("error: ") and option in line


@pytest.mark.parametrize("arguments", ["--help", "version", "version --json", "score --help"])
def test_a_closed_pipe_is_no_error_and_a_full_device_is_one_line(arguments: str) -> None:
    command = f"{sys.executable} -m tokensight {arguments}"
    for target, status, said in (("| true", 0, ""), ("> /dev/full", 1, "error: standard output cannot be written")):
        shell = ["bash", "-o", "pipefail", "-c", f"{command} {target}"]
        done = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == status
        assert done.stderr.startswith(said) and len(done.stderr.splitlines()) == bool(said)


def test_help_is_printed_in_an_encoding_that_lacks_its_characters() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "tokensight", "score", "--help"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u2026" in done.stdout


def test_an_interrupted_command_is_status_130_though_a_thread_is_busy() -> None:
    """A non-zero status of its own: without the early end, what the thread does decides how the process dies."""
    code = (
        "import sys, threading, time\n"
        "from scorer.command_line.process import run_command\n"
        "def run():\n"
        "    threading.Thread(target=lambda: [sum(range(10**6)) for _ in iter(int, 1)], daemon=True).start()\n"
        "    raise KeyboardInterrupt\n"
        "import atexit; atexit.register(print, 'cleaned up after the command')\n"
        "sys.exit(run_command(run, owns_process=True))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")
    assert done.stdout == "", "the process ended at once, before what was registered earlier"


def test_an_error_of_storage_is_not_taken_for_one_of_the_output() -> None:
    def run() -> int:
        raise OSError(errno.ENOSPC, "elsewhere")

    with pytest.raises(OSError, match="elsewhere"):
        run_command(run, owns_process=False)


def test_help_is_a_command_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    assert capsys.readouterr().out == help_text() + "\n"
    with pytest.raises(SystemExit) as left:
        main(["help", "inspect"])
    assert not left.value.code
    assert capsys.readouterr().out.startswith("usage: tokensight inspect")


def test_nothing_near_is_no_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert nearest("SCORE", ["score", "serve"]) == "score"
    assert nearest("zzz", ["score", "serve"]) is None
    assert main(["zzz"]) == 2
    assert capsys.readouterr().err == "error: there is no command 'zzz'; tokensight --help lists all\n"


@pytest.mark.parametrize("name", ["score", "inspect", "compact", "export", "train-text-reference", "serve", "version"])
def test_help_fits_a_terminal(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []


def test_prose_is_wrapped_and_commands_are_not() -> None:
    text = "one two three\nfour five\n\nheading:\n  0  finished well\n    tokensight score --input a --output b"
    assert list(reflowed(text, 14)) == [
        "one two three",
        "four five",
        "",
        "heading:",
        "  0  finished",
        "     well",
        "    tokensight score --input a --output b",
    ]


MISSING = [
    ("service.app", "fastapi", "service"),
    ("service.serve", "ray", "serve"),
    ("pipelines.cli.score", "yaml", "score"),
    ("scorer.mini.train", "PIL", "score"),
    ("scorer.mini.train", "torch", "score"),
    ("scorer.training.loss", "torch", "train"),
    ("scorer.training.huggingface", "torch", "train"),
    ("scorer.training.trl", "transformers", "score"),
]


@pytest.mark.parametrize(("module", "package", "extra"), MISSING)
def test_a_missing_package_is_named_with_its_extra(module: str, package: str, extra: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; import {module}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("scorer.errors.MissingPackageError: ") and last.endswith(f"'tokensight[{extra}]'")


@pytest.mark.parametrize("package", ["PIL", "torch"])
def test_inspect_starts_without_what_only_samples_need(package: str, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None; from tokensight.command import main; "
        f"sys.exit(main(['inspect', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "not installed" not in done.stderr


def test_what_an_interrupted_export_wrote_is_deleted(tmp_path: Path) -> None:
    images = ImageFiles(tmp_path / "x.images")
    images.path(b"\x89PNG")
    images.delete_written()
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "in").mkdir()
    report = str(tmp_path / "file" / "report.html")
    score = ["score", "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--executor", "local"]
    assert main([*score, "--report", report]) == 2
    assert capsys.readouterr().err.startswith(f"error: --report {report} cannot be written; ")
    with pytest.raises(SystemExit):
        main(["inspect", str(tmp_path), "--html", report])
    assert capsys.readouterr().err.startswith(f"error: --html {report} cannot be written; ")


def test_serving_a_model_that_does_not_exist_is_one_plain_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tokensight", "serve", "--port", "0", "--model", str(tmp_path / "none")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr and "traceback" not in done.stderr


def test_null_is_echoed_as_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    export = ["export", "--to", "jsonl", "--weights", "w", "--output", "o", "--method", "cal"]
    assert main([*export, "--method-param", "low=null"]) == 2
    assert "low is null; it must be a finite number" in capsys.readouterr().err
