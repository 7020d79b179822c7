"""``ray job submit`` against a head that was started separately, with the packaged sample and model."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from scorer.mini import SAMPLE_PATH
from scorer.table import OK, schema_with
from tests.conftest import ROOT
from tests.ray_head import BIN, Head


@pytest.mark.timeout(600)
def test_a_submitted_job_scores_the_packaged_sample(ray_head: Head, tmp_path: Path) -> None:
    output = tmp_path / "weights"
    arguments = ["--input", str(SAMPLE_PATH), "--output", str(output), "--actors", "1", "--no-report"]
    arguments += ["--cpus-per-actor", "3"]  # and one encoder: each takes seconds to load the tokenizer
    arguments += ["--max-failed-rows", "2%"]  # four of 240 are planted to fail
    command = [str(BIN / "ray"), "job", "submit", "--address", ray_head.dashboard, "--working-dir", ".", "--"]
    done = _submit([*command, "python", "pipelines/score_dataset.py", *arguments], ray_head.environment)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-6000:]
    assert "rows in" in said
    summary = json.loads((output / "_SUCCESS").read_text())
    assert summary["failed"] > 0, "rows that cannot be scored are planted in the sample"
    assert summary["ok"] > summary["failed"]
    for shard in sorted(SAMPLE_PATH.glob("*.parquet")):
        original, table = pq.read_table(shard, columns=["id"]), pq.read_table(output / shard.name)
        assert table.schema.equals(schema_with({"fingerprint": {"columns": ["is_stop"]}}))
        assert table["sample_id"].to_pylist() == original["id"].to_pylist()
        assert table["row_index"].to_pylist() == list(range(original.num_rows))
        for row in table.select(["status", "token_ids", "token_weights", "error"]).to_pylist():
            if row["status"] == OK:
                assert len(row["token_weights"]) == len(row["token_ids"]) > 0
            else:
                assert row["token_weights"] is None
                assert row["error"]


def _submit(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Submit and wait. A head answers before the agent that starts its jobs is up: until then, ask again."""
    deadline = time.monotonic() + 120
    while True:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if "submitted successfully" in done.stdout + done.stderr or time.monotonic() > deadline:
            return done
        time.sleep(2)
