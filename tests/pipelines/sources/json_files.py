"""Records as JSON arrays and JSON Lines, plain and compressed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

RECORDS = [{"id": f"r{i}", "image": f"pics/{i}.jpg", "caption": f'kite № {i} "über" {{[,]}} \\'} for i in range(10)]


def lines(records: list[Any]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def packed(data: bytes, codec: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(data)
    return bytes(sink.getvalue().to_pybytes())


def write_json(folder: Path, kind: str, records: list[Any] = RECORDS) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"train.{kind}"
    written = {
        "json": lambda: json.dumps(records, ensure_ascii=False, indent=1).encode(),
        "jsonl": lambda: lines(records),
        "jsonl.gz": lambda: gzip.compress(lines(records)),
        "jsonl.zst": lambda: packed(lines(records), "zstd"),
    }
    path.write_bytes(written[kind]())
    return path


KINDS = ("json", "jsonl", "jsonl.gz", "jsonl.zst")
