"""The GPU benchmark runs: the same steps on small models, on whatever device there is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import engine_gpu, naive
from benchmarks.random_models import SHAPES
from scorer.config import ScorerConfig
from scorer.engine import Scorer
from scorer.types import EncodedSample


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


@pytest.mark.parametrize("name", SHAPES)
def test_the_naive_way_gives_the_same_scores(name: str, tmp_path: Path) -> None:
    """Else its time would be no yardstick."""
    scorer = Scorer(SHAPES[name](tmp_path, tiny=True), ScorerConfig(dtype="float32"))
    encoded = [scorer.encoder.encode(sample) for sample in engine_gpu.samples(3, 90)]
    ours = scorer.score_encoded(encoded)
    rows = [row for row in encoded if isinstance(row, EncodedSample)]
    for result, (gap, clean, contrast) in zip(ours, naive.score(scorer.model, rows), strict=True):
        assert result.logit_gap == pytest.approx(gap.numpy(), abs=1e-4)
        assert result.logprob_clean == pytest.approx(clean.numpy(), abs=1e-4)
        assert result.logprob_contrast == pytest.approx(contrast.numpy(), abs=1e-4)
        assert abs(result.logit_gap).max() > 1e-3, "a gap of zero would prove nothing"
