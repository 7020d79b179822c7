"""NaN and infinity from a real model, through the whole job: the row fails, its neighbours are scored as ever."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from pipelines.run.engine import CheckpointEngine
from scorer.config import ScorerConfig
from scorer.encoding.encoder import Encoder
from scorer.types import Sample
from tests.pipelines.helpers import make_job, run
from tests.scorer import tiny
from tests.scorer.pictures import PICTURES

TEXTS = ["two boats", "kite", "boats"]
CONFIG = ScorerConfig(device="cpu")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_whose_scores_are_not_finite_fail_alone(tmp_path: Path, value: float) -> None:
    model = tiny.make_llava(tmp_path / "model", tiny.byte_level_tokenizer(), tiny.CHATML)
    (tmp_path / "data").mkdir()
    table = pa.table({"image": [PICTURES["jpeg"]] * 3, "caption": TEXTS})
    pq.write_table(table, tmp_path / "data" / "x.parquet")
    run(make_job(tmp_path / "data", tmp_path / "clean", CheckpointEngine(str(model), CONFIG)))
    tokens = [
        Encoder.load(str(model), CONFIG).encode(Sample.caption("", PICTURES["jpeg"], text)).token_ids.tolist()
        for text in TEXTS
    ]
    poison = tokens[1][0]  # read by the row in the middle alone
    assert poison not in tokens[0] + tokens[2]
    weights = load_file(model / "model.safetensors")
    name = next(name for name in weights if name.endswith("embed_tokens.weight"))
    weights[name][poison] = value
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    summary = run(make_job(tmp_path / "data", tmp_path / "out", CheckpointEngine(str(model), CONFIG)))
    assert {code: failure["count"] for code, failure in summary["failures"].items()} == {"non_finite": 1}
    found, clean = (pq.read_table(tmp_path / name / "x.parquet").to_pylist() for name in ("out", "clean"))
    assert [row["status"] for row in found] == ["ok", "non_finite", "ok"]
    assert "NaN or infinity" in found[1]["error"]
    for i in (0, 2):
        np.testing.assert_allclose(found[i]["logit_gap"], clean[i]["logit_gap"], atol=1e-5)
