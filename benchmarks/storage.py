"""Measure what a published token costs: ``python -m benchmarks.storage``.

The packaged model scores fresh scenes until there are 200,000 tokens; the rows are written as a run writes them. For
each list column and each encoding that fits its type, with and without a dictionary, at three levels of zstd, this
prints bytes a token, and milliseconds to write and to read a million tokens on one thread (median of five). Then it
writes whole files: as pyarrow would, as a run does, and with raw scores of fewer bits, whose errors it prints.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipelines.output.encodings import writer_options
from scorer import Sample, Scorer, ScorerConfig, TokenScores
from scorer.columns import COLUMNS, Column
from scorer.config import ALL_BITS
from scorer.mini import MODEL_PATH
from scorer.mini.evaluation import held_out
from scorer.mini.world.drawing import draw
from scorer.results import Result
from scorer.score_bits import rounded
from scorer.table import build_table
from scorer.versions import versions
from scorer.weights import Method

RESULTS: Final = Path(__file__).parent / "results" / "storage.json"
TOKENS: Final = 200_000
IMAGE_SIZE: Final = 160
REPEATS: Final = 5
LEVELS: Final = (1, 3, 9)
GROUPS: Final = (256, 4096)
"""Rows of a row group: a unit's, by default and in a large run."""
BITS: Final = (16, 12, 10, 7)


def score(tokens: int) -> list[Result]:
    """Return the packaged model's scores of as many scenes as have ``tokens`` tokens; one in ten captions is wrong."""
    scorer = Scorer.load(MODEL_PATH, ScorerConfig(device="cpu"))
    results: list[Result] = []
    found = 0
    while found < tokens:
        first = len(results)
        pairs = held_out(f"storage {first}", 256, false_share=0.1)
        samples = [
            Sample.caption(f"scene-{first + i:05}", draw(pair.scene, IMAGE_SIZE), pair.caption.text)
            for i, pair in enumerate(pairs)
        ]
        results += scorer.score(samples)
        found = sum(len(one.token_ids) for one in results if isinstance(one, TokenScores))
        print(f"{found:,} of {tokens:,} tokens scored", flush=True)
    return results


def choices(column: Column) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the encodings that fit a column's type, as options of pyarrow's writer."""
    path = f"{column.name}.list.element"
    yield "dictionary", {"use_dictionary": True}
    yield "plain", {"use_dictionary": False}
    name = "BYTE_STREAM_SPLIT" if pa.types.is_floating(column.element) else "DELTA_BINARY_PACKED"
    yield name, {"use_dictionary": False, "column_encoding": {path: name}}


def measure(table: pa.Table, tokens: int, group: int, **options: Any) -> dict[str, float]:
    """Write and read a table. Return bytes a token, and milliseconds for a million tokens."""
    writing, reading = [], []
    for _ in range(REPEATS):
        buffer = io.BytesIO()
        start = time.perf_counter()
        pq.write_table(table, buffer, row_group_size=group, **options)
        writing.append(time.perf_counter() - start)
        start = time.perf_counter()
        with pq.ParquetFile(io.BytesIO(buffer.getvalue())) as file:
            back = file.read(use_threads=False)
        reading.append(time.perf_counter() - start)
    assert _same(back, table)
    return {
        "bytes_per_token": round(len(buffer.getvalue()) / tokens, 3),
        "write_ms": round(1e9 * median(writing) / tokens, 1),
        "read_ms": round(1e9 * median(reading) / tokens, 1),
    }


def _same(left: pa.Table, right: pa.Table) -> bool:
    """Whether tables hold the same values; here, none is NaN."""
    return all(
        left.column(name).combine_chunks().to_pylist() == right.column(name).combine_chunks().to_pylist()
        for name in right.column_names
    )


def columns(table: pa.Table, tokens: int, groups: Sequence[int] = GROUPS) -> dict[str, Any]:
    """Measure every list column with every encoding that fits it."""
    found: dict[str, Any] = {}
    for column in COLUMNS:
        if not column.per_token or column.name not in table.column_names:
            continue
        one = table.select([column.name])
        for group in groups:
            for name, options in choices(column):
                for level in LEVELS:
                    key = f"{column.name}, {group} rows, {name}, zstd {level}"
                    found[key] = measure(one, tokens, group, compression="zstd", compression_level=level, **options)
    return found


def files(results: Sequence[Result], tokens: int) -> dict[str, Any]:
    """Measure whole files: as pyarrow writes them, as a run does, and with fewer bits."""
    found: dict[str, Any] = {}
    for group in GROUPS:
        table = _table(results)
        found[f"pyarrow's defaults, {group} rows"] = measure(table, tokens, group, compression="zstd")
        for bits in (ALL_BITS, *BITS):
            table = _table([rounded(one, bits) if isinstance(one, TokenScores) else one for one in results])
            found[f"as a run, {bits} bits, {group} rows"] = measure(
                table, tokens, group, **writer_options(table.schema)
            )
    table = _table(results)
    for column in COLUMNS:
        if column.name in table.column_names:
            one = table.select([column.name])
            found[f"as a run, {column.name}"] = measure(one, tokens, GROUPS[1], **writer_options(one.schema))
    return found


def errors(results: Sequence[Result]) -> dict[str, Any]:
    """Return what fewer bits do to the gaps and to the weights of CAL: rms and largest difference."""
    scores = [one for one in results if isinstance(one, TokenScores)]
    values = {
        "logit_gap": lambda one: one.logit_gap,
        "logprob_gap": lambda one: one.logprob_gap,
        "cal": Method("cal"),
        "cal-logprob": Method("cal-logprob"),
        "prior": Method("prior"),
    }
    found: dict[str, Any] = {}
    for bits in BITS:
        fewer = [rounded(one, bits) for one in scores]
        found[f"{bits} bits"] = {}
        for name, value in values.items():
            full, less = (np.concatenate([value(one) for one in rows]).astype(np.float64) for rows in (scores, fewer))
            difference = np.abs(full - less)
            found[f"{bits} bits"][name] = {
                "rms": float(np.sqrt(np.mean(difference**2))),
                "largest": float(difference.max()),
            }
    return found


def _table(results: Sequence[Result]) -> pa.Table:
    return build_table(results, 0, Method("cal"), {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    results = score(options.tokens)
    table = _table(results)
    tokens = sum(len(one.token_ids) for one in results if isinstance(one, TokenScores))
    result = {
        "rows": len(results),
        "tokens": tokens,
        "columns": columns(table, tokens),
        "files": files(results, tokens),
        "errors": errors(results),
        "versions": versions("pyarrow", "numpy"),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    show(result)


def show(result: Mapping[str, Any]) -> None:
    """Print the tables."""
    print(f"{result['rows']:,} rows, {result['tokens']:,} tokens; milliseconds for a million tokens")
    for part in ("columns", "files"):
        print(f"\n{'':72}{'bytes a token':>14}{'write, ms':>11}{'read, ms':>10}")
        for name, one in result[part].items():
            print(f"{name:72}{one['bytes_per_token']:14.3f}{one['write_ms']:11.0f}{one['read_ms']:10.0f}")
    print(f"\n{'':24}{'rms':>10}{'largest':>10}")
    for bits, values in result["errors"].items():
        for name, one in values.items():
            print(f"{bits + ', ' + name:24}{one['rms']:10.1e}{one['largest']:10.1e}")


if __name__ == "__main__":
    main()
