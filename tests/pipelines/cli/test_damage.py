"""No command ends in a traceback over a damaged output: it is one error that names a file and says what to do."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.cli import compact, inspect, score
from pipelines.report.page import write_report
from scorer.errors import TableError
from scorer.training import read_weights
from tests.pipelines.outputs import published_marker
from tests.pipelines.report.runs import MemorySource

A = "a.parquet"
CHANGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "not UTF-8": lambda path: path.write_bytes(b"\xff"),
    "a list": lambda path: path.write_bytes(b"[1]"),
    "torn": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
}
FILES: dict[str, Callable[[Path], Path]] = {
    A: lambda output: output / A,
    "_SUCCESS": lambda output: output / "_SUCCESS",
    "_run.json": lambda output: output / "_run.json",
    "_published": lambda output: published_marker(output, A),
    "_commits": lambda output: sorted((output / "_commits").iterdir())[0],
    "_units": lambda output: sorted((output / "_units").iterdir())[0],
}
COMMANDS: dict[str, Callable[[Path], int]] = {
    "inspect": lambda out: inspect.main([str(out)]),
    "quick": lambda out: inspect.main([str(out), "--quick", "--json"]),
    "sample": lambda out: inspect.main([str(out), "--sample", "3"]),
    "report": lambda out: inspect.main([str(out), "--quick", "--html", str(out.parent / "r.html")]),
    "quality": lambda out: inspect.main([str(out), "--export-quality", str(out.parent / "q.parquet")]),
    "compact": lambda out: compact.main([str(out), "--delete"]),
    "leftovers": lambda out: compact.main([str(out), "--gc", "1h"]),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("change", CHANGES)
def test_no_command_ends_in_a_traceback(
    copy: Path, command: str, file: str, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    CHANGES[change](FILES[file](copy))
    status = COMMANDS[command](copy)
    said = capsys.readouterr()
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert status in (0, 1, 2)
    assert len(errors) == (status == 2 or (command == "compact" and status == 1)), said
    if command in ("inspect", "quick") and not file.startswith(("_commits", "_units")):
        assert status == 1 and file in said.out, "damage is found where it is looked for"


@pytest.mark.parametrize("change", CHANGES)
def test_what_reads_a_damaged_file_names_it(copy: Path, change: str, capsys: pytest.CaptureFixture[str]) -> None:
    CHANGES[change](copy / A)
    expected = f"{copy}/{A} cannot be read"
    assert COMMANDS["sample"](copy) == COMMANDS["report"](copy) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len([line for line in errors if expected in line and line.endswith("--verify to publish it again")]) == 2
    with pytest.raises(TableError, match=f"{A} cannot be read"):
        write_report(str(copy), MemorySource({}), str(copy / "report.html"))
    with pytest.raises(TableError, match=rf"{A} is not a readable Parquet file .* with --verify"):
        read_weights(copy).load(A)


@pytest.mark.parametrize("seed", range(12))
def test_flipped_bits_end_no_command_in_a_traceback(copy: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    chosen, data = random.Random(seed), bytearray((copy / A).read_bytes())
    for _ in range(3):
        data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
    (copy / A).write_bytes(data)
    assert COMMANDS["inspect"](copy) == 1
    assert A in capsys.readouterr().out
    assert COMMANDS["compact"](copy) == 1, "nothing is deleted"
    for command in ("sample", "report"):
        assert COMMANDS[command](copy) in (0, 2)


@pytest.mark.parametrize("option", ["--input", "--output", "--image-root", "--model", "--report"])
def test_an_argument_that_is_not_text_is_one_error(
    dataset: Path, output: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--input", str(dataset), "--output", str(output), option, os.fsdecode(b"/tmp/\xff")]
    with pytest.raises(SystemExit) as ended:
        score.main(arguments)
    assert ended.value.code == 2
    assert "the argument '/tmp/\\udcff' is not valid UTF-8" in capsys.readouterr().err


def test_a_folder_in_place_of_the_summary_is_no_summary(copy: Path) -> None:
    (copy / "_SUCCESS").unlink()
    (copy / "_SUCCESS").mkdir()
    with pytest.raises(TableError, match="does not belong to a finished run"):
        read_weights(copy)
