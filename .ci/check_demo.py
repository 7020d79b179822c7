"""Hold what ``make demo`` left behind against what it must be: ``check_demo.py OUTPUT LOG``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from scorer.mini import SAMPLE_PATH
from scorer.table import schema_with, text_hash
from scorer.training import read_weights

EXPECTED_FAILURES = {"image_missing": 1, "image_too_large": 1, "image_unreadable": 1, "text_missing": 1}


def main(output: Path, log: str) -> None:
    summary = json.loads((output / "_SUCCESS").read_text())
    failures = {code: entry["count"] for code, entry in summary["failures"].items()}
    assert failures == EXPECTED_FAILURES, failures
    assert summary["rows"] == summary["ok"] + summary["text_only"] + summary["failed"], summary

    shards = sorted(path.name for path in SAMPLE_PATH.glob("*.parquet"))
    assert sorted(path.name for path in output.glob("*.parquet")) == shards
    rows = read_weights(output)
    columns = schema_with({"fingerprint": {"columns": ["is_stop"]}}).names
    for name in shards:
        dataset = pq.read_table(SAMPLE_PATH / name).to_pylist()
        assert pq.read_schema(output / name).names == columns
        scored = list(rows.shard(name))
        assert [row.sample_id for row in scored] == [row["id"] for row in dataset], f"{name} is not row-aligned"
        for row, original in zip(scored, dataset, strict=True):
            if row.ok:
                row.check_text([original["caption"]])
                assert row.scores is not None
                assert row.scores.text_hash == text_hash([original["caption"]])
                assert row.scores.token_ends[-1] == len(original["caption"].encode())
                assert row.scores.is_stop.tolist() == [False] * (len(row.scores.token_ids) - 1) + [True]
                assert row.weights is not None
                assert np.isfinite(row.weights).all()
            else:
                assert row.error, f"{row.sample_id} failed without a message"

    report = (output / "report.html").read_text()
    assert report.count("data:image/") >= 24, "the report shows its samples"
    assert "http://" not in report.replace("http://www.w3.org/", ""), "the report is self-contained"
    for word in ("rows in", "rows ok", "image_unreadable", str(summary["rows"])):
        assert word in log, f"the printed summary lacks {word!r}"
    print(f"demo checked: {summary['ok']} of {summary['rows']} rows scored, {summary['tokens']} tokens")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]).read_text())
