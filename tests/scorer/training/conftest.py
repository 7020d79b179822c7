"""A small dataset that the packaged model has really scored, once a session."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.cli.score import main as score
from pipelines.run.engine import CheckpointEngine
from scorer import ScorerConfig
from scorer.mini import MODEL_PATH, SAMPLE_PATH
from scorer.training import WeightTable
from tests.pipelines.helpers import make_job, run

SHARDS = {"train-0.parquet": (0, 6), "train-1.parquet": (15, 6)}
"""Published name → first row in the packaged sample, and rows. The second holds a row whose image is cut off."""

BROKEN = "scene-00018"


@dataclass(frozen=True)
class Scored:
    """A dataset of captions, and its published weights in both layouts."""

    data: Path
    weights: Path
    merged: Path

    def rows(self) -> list[dict[str, Any]]:
        """The dataset's rows that were scored, in order."""
        rows = [row for name in SHARDS for row in pq.read_table(self.data / name).to_pylist()]
        return [row for row in rows if row["id"] != BROKEN]

    def table(self, **options: Any) -> WeightTable:
        return WeightTable.open(self.weights, **options)

    def messages(self) -> list[dict[str, Any]]:
        """The scored rows as trainers of chat models take them: id, images and messages."""
        return [
            {
                "id": row["id"],
                "images": [Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")],
                "messages": chat("Describe the image.", row["caption"]),
            }
            for row in self.rows()
        ]


def chat(question: str, answer: str) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    root = tmp_path_factory.mktemp("scored")
    (root / "data").mkdir()
    sample = pq.read_table(SAMPLE_PATH / "train-00000-of-00002.parquet", columns=["id", "image", "caption"])
    for name, (first, count) in SHARDS.items():
        pq.write_table(sample.slice(first, count), root / "data" / name)
    engine = CheckpointEngine(str(MODEL_PATH), ScorerConfig(device="cpu"))
    for layout in ("sidecar", "merged"):
        summary = run(make_job(root / "data", root / layout, engine, layout=layout, rows_per_unit=6))
        assert summary["failed"] == 1
    return Scored(root / "data", root / "sidecar", root / "merged")


@pytest.fixture(scope="session")
def llava_scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LLaVA's JSON: conversations of two turns, with images in a folder; ``weights`` is its output."""
    root = tmp_path_factory.mktemp("llava")
    (root / "data" / "images").mkdir(parents=True)
    sample = pq.read_table(SAMPLE_PATH / "train-00000-of-00002.parquet").slice(0, 4).to_pylist()
    records = []
    for row in sample:
        (root / "data" / "images" / f"{row['id']}.jpg").write_bytes(row["image"]["bytes"])
        records.append({"id": row["id"], "image": f"{row['id']}.jpg", "conversations": two_turns(row["caption"])})
    (root / "data" / "train.json").write_text(json.dumps(records, ensure_ascii=False))
    arguments = [
        "--input",
        str(root / "data" / "train.json"),
        "--image-root",
        str(root / "data" / "images"),
        "--no-report",
    ]
    assert score([*arguments, "--output", str(root / "weights"), "--executor", "local", "--device", "cpu"]) == 0
    return root


def two_turns(caption: str) -> list[dict[str, str]]:
    first, _, rest = caption.partition(". ")
    return [
        {"from": "human", "value": "<image>\nWhat is there?"},
        {"from": "gpt", "value": first},
        {"from": "human", "value": "And what else?"},
        {"from": "gpt", "value": rest or "Nothing."},
    ]
