"""Finished runs made up for the tests of the report: real tables of invented scores, and the dataset beside them."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipelines.output.record import RunRecord
from pipelines.sources import ReadRow, Shard
from scorer import table, weights
from scorer.results import Failure, Result, TokenScores
from scorer.types import Sample

Entry = tuple[Sample, Result]


@dataclass
class MemorySource:
    """A dataset in memory. ``reads`` counts how often each row was read."""

    rows: Mapping[str, Sequence[ReadRow]]
    reads: Counter[tuple[str, int]] = field(default_factory=Counter)

    def shards(self) -> list[Shard]:
        return [Shard(name, name, 1, "tag", len(rows)) for name, rows in sorted(self.rows.items())]

    def read(self, shard: Shard, start: int, stop: int) -> list[ReadRow]:
        assert 0 <= start < stop <= shard.rows
        self.reads.update((shard.name, row) for row in range(start, stop))
        return list(self.rows[shard.name][start:stop])

    def table(self, shard: Shard, start: int, stop: int) -> pa.Table:
        raise NotImplementedError

    def schema(self, shard: Shard) -> pa.Schema:
        raise NotImplementedError

    def fingerprint(self) -> dict[str, Any]:
        return {}


def cut(text: str) -> list[tuple[int, int]]:
    """Byte spans as a byte-level tokenizer gives them: a word takes its space along, other characters go by bytes."""
    spans, at = [], 0
    for match in re.finditer(r" ?[A-Za-z0-9'’]+|.", text, re.DOTALL):
        data = match[0].encode()
        parts = [data] if match[0].isascii() else [data[i : i + 1] for i in range(len(data))]
        for part in parts:
            spans.append((at, at + len(part)))
            at += len(part)
    return spans


def scored(sample: Sample, gaps: Mapping[str, float], default: float = 0.0) -> TokenScores:
    """Scores whose log-probability gap is ``gaps[word]`` where a token spells the word; the logit gap is 1 more."""
    spans: list[tuple[int, int]] = []
    turns: list[int] = []
    values: list[float] = []
    for turn, text in enumerate(sample.scored_texts):
        for start, end in cut(text):
            spans.append((start, end))
            turns.append(turn)
            token = text.encode()[start:end].decode(errors="replace").strip()
            values.append(gaps.get(token, default))
    gap = np.array(values, np.float32)
    contrast = np.full(len(gap), -3.0, np.float32)
    return TokenScores(
        sample_id=sample.sample_id,
        token_ids=np.arange(len(gap), dtype=np.int32),
        token_starts=np.array([start for start, _ in spans], np.int32),
        token_ends=np.array([end for _, end in spans], np.int32),
        token_turns=np.array(turns, np.int16),
        text_hash=table.text_hash(sample.scored_texts),
        logit_gap=gap + 1,
        logprob_clean=np.minimum(contrast + gap, 0),
        logprob_contrast=contrast,
    )


def picture(color: tuple[int, int, int] = (200, 60, 40)) -> Image.Image:
    return Image.new("RGB", (24, 16), color)


def write_run(folder: Path, shards: Mapping[str, Sequence[Entry]], **summary: Any) -> MemorySource:
    """Write ``_SUCCESS``, ``_run.json`` and a published file per shard; returns the dataset."""
    published, failures, tokens = [], {}, 0
    for name, entries in shards.items():
        results = [result for _, result in entries]
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        optional = {name for result in results if isinstance(result, TokenScores) for name in result.optional}
        rows = table.build_table(results, 0, weights.Method(), {"fingerprint": {"columns": sorted(optional)}})
        pq.write_table(rows, path, row_group_size=50)
        failed = alone = 0
        for index, result in enumerate(results):
            if isinstance(result, Failure):
                failed += 1
                entry = failures.setdefault(result.code.value, {"count": 0, "examples": []})
                entry["count"] += 1
                place = {"shard": name, "row_index": index, "sample_id": result.sample_id, "message": result.message}
                entry["examples"] = [*entry["examples"], place][:10]
            elif result.text_only:
                alone += 1
            else:
                tokens += len(result.token_ids)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        ok = len(results) - failed - alone
        counts = {"rows": len(results), "ok": ok, "text_only": alone, "failed": failed}
        published.append({"name": name, **counts, "bytes": path.stat().st_size, "sha256": digest})
    totals = {key: sum(shard[key] for shard in published) for key in ("rows", "ok", "text_only", "failed")}
    document = {
        "started_at": "2026-01-02T03:04:05+00:00",
        "finished_at": "2026-01-02T03:06:05+00:00",
        "seconds_scoring": 110.0,
        **totals,
        "failures": failures,
        "tokens": tokens,
        "rows_per_second": totals["rows"] / 110,
        "tokens_per_second": tokens / 110,
        "model": "a/model",
        "method": weights.Method().to_dict(),
        "contrast": "blank",
        "dtype": "float32",
        "layout": "sidecar",
        "shards": published,
        **summary,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "_SUCCESS").write_text(json.dumps(document))
    fingerprint = {"model": "a/model", "weights_sha256": "0" * 64}
    record = RunRecord(document["started_at"], "data", fingerprint, {}, document["method"], "sidecar", 50)
    (folder / "_run.json").write_bytes(record.to_bytes())
    return MemorySource({name: [sample for sample, _ in entries] for name, entries in shards.items()})
