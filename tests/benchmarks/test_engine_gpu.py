"""The GPU benchmark runs: the same steps on small models, on whatever device there is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import engine_gpu
from benchmarks.random_models import SHAPES


def test_every_figure_is_measured_on_both_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "engine_gpu.json"
    arguments = ["--tiny", "--samples", "4", "--rounds", "1", "--matmul", "64", "--threads", "1", "--dtype", "float32"]
    found = engine_gpu.main([*arguments, "--out", str(out)])
    assert list(found) == list(SHAPES)
    for figures in found.values():
        assert figures["path"] == "fast"
        assert figures["naive_over_ours"] > 0
        assert figures["utilisation"] > 0
        assert figures["hottest"]
    assert json.loads(out.read_text())["models"] == found
    assert "samples/s, from JPEG bytes" in capsys.readouterr().out
