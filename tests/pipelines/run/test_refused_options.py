"""Options that the model refuses are refused before the output is claimed, so that the corrected command can go on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.cli import score
from scorer.mini import SAMPLE_PATH


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--blank-size", "20000x20000"], "--blank-size 20000x20000 has 400000000 pixels"),
        (["--tensor-parallel", "4"], "tensor_parallel is 4, but the decoder of model .* has 6 attention heads"),
    ],
)
def test_nothing_is_written(
    tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    argv = ["--input", str(SAMPLE_PATH), "--output", str(output), "--executor", "local", "--device", "cpu"]
    assert score.main([*argv, *options]) == 2
    error = capsys.readouterr().err
    assert "repeat the command" not in error
    (line,) = [line for line in error.splitlines() if line.startswith("error:")]
    assert re.search(message, line)
    assert not output.exists() or not list(output.iterdir())
