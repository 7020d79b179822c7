"""An output with every kind of row: scored, without an image, failed."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.pipelines.helpers import caption_table, make_job, run


def write_mixed(root: Path, **options: object) -> Path:
    """Score two shards of 30 rows, each fifth without an image; return the output."""
    (root / "data").mkdir()
    for name in ("a", "b"):
        table = caption_table(30, name)
        images = [None if i % 5 == 4 else image for i, image in enumerate(table["image"].to_pylist())]
        table = table.set_column(1, "image", pa.array(images, table.schema.field("image").type))
        pq.write_table(table, root / "data" / f"{name}.parquet")
    summary = run(make_job(root / "data", root / "out", **options))
    assert summary["ok"] and summary["text_only"] and summary["failed"]
    return root / "out"
