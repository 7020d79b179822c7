"""Measure what distribution columns cost, and how exact they are: ``python -m benchmarks.distributions``.

The packaged model scores the packaged sample with all of them, in float32, bfloat16 and float16: errors are differences
from the float32 model. Their bytes a token on disk are those of a run's files. Then, at the heads of LLaVA-1.5-7B and
Qwen2.5-VL-7B in bfloat16 on one thread, both branches of some labels are projected without and with them, in pairs.
Their peak memory is held by ``tests/scorer/forward/test_pairs.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch

from benchmarks.precision import SHAPES, Projection, rms, rows
from benchmarks.storage import choices, measure
from scorer import Sample, Scorer, ScorerConfig, TokenScores
from scorer.columns import ASKED, asked_for
from scorer.forward.head import Head
from scorer.forward.labels import Quantities, project_labels
from scorer.forward.pairs import divergences, states_of
from scorer.mini import MODEL_PATH
from scorer.table import build_table
from scorer.versions import versions
from scorer.weights import Method

RESULTS: Final = Path(__file__).parent / "results" / "distributions.json"
LABELS: Final = 64
PAIRS: Final = 3
GROUP: Final = 4096
QUANTITIES: Final = Quantities.asked_for(ASKED)


def scored(samples: Sequence[Sample], dtype: str) -> list[TokenScores]:
    config = ScorerConfig(device="cpu", dtype=dtype, distribution_columns=ASKED)  # type: ignore[arg-type]  # dtype is a plain string here
    results = [one for one in Scorer.load(MODEL_PATH, config).score(samples) if isinstance(one, TokenScores)]
    assert len(results) == len(samples)
    return results


def accuracy(full: Sequence[TokenScores], samples: Sequence[Sample]) -> dict[str, Any]:
    """Return each column's error in low precision: rms and largest, in nats; of flags, the share that differs."""
    found: dict[str, Any] = {"tokens": sum(len(one.token_ids) for one in full)}
    for dtype in ("bfloat16", "float16"):
        low = scored(samples, dtype)
        found[dtype] = {}
        for column in asked_for(ASKED):
            exact, ours = (np.concatenate([one.optional[column.name] for one in results]) for results in (full, low))
            off = ours.astype(np.float64) - exact.astype(np.float64)
            found[dtype][column.name] = (
                {"rms": rms(off), "largest": float(np.abs(off).max()), "rms_of_values": rms(exact.astype(np.float64))}
                if column.dtype == np.float32
                else {"differ": float((ours != exact).mean()), "true": float(exact.mean())}
            )
    return found


def storage(results: Sequence[TokenScores]) -> dict[str, Any]:
    """Return bytes a token of each column, by encoding."""
    names = [column.name for column in asked_for(ASKED)]
    table = build_table(results, 0, Method("cal"), {"fingerprint": {"columns": ["is_stop", *names]}})
    tokens = sum(len(one.token_ids) for one in results)
    options = {"compression": "zstd", "compression_level": 3}
    return {
        column.name: {
            name: measure(table.select([column.name]), tokens, GROUP, **options, **encoding)["bytes_per_token"]
            for name, encoding in choices(column)
            if pa.types.is_floating(column.element) or name == "plain"
        }
        for column in asked_for(ASKED)
    }


@torch.inference_mode()
def work(name: str, columns: bool) -> Callable[[], object]:
    """Return a function that projects both branches of :data:`LABELS` labels at a model's head, in bfloat16."""
    vocabulary, width = SHAPES[name]
    module = torch.nn.Linear(width, vocabulary, bias=False, dtype=torch.bfloat16, device="meta")
    module = module.to_empty(device="cpu").requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for part in module.weight.split(4096):  # type: ignore[no-untyped-call]  # torch has no types for it
        part.copy_(torch.randn(part.shape, generator=generator) / width**0.5)
    sides = [torch.randn(LABELS, width, generator=generator).bfloat16() for _ in range(2)]
    wanted = torch.randint(vocabulary, (LABELS,), generator=generator)
    model: Any = Projection(Head(module))

    def run() -> None:
        found = [project_labels(model, side, wanted, QUANTITIES.own if columns else ()) for side in sides]
        if columns:
            clean, contrast = (states_of(side, one, [LABELS]) for side, one in zip(sides, found, strict=True))
            pairs = list(zip(clean, contrast, strict=True))
            divergences(model, pairs, QUANTITIES.joint, torch.device("cpu"))

    return run


@torch.inference_mode()
def cost(name: str) -> dict[str, Any]:
    """Time both in turn, in CPU seconds."""
    works = {"without": work(name, False), "with": work(name, True)}
    seconds: dict[str, list[float]] = {key: [] for key in works}
    for turn in range(PAIRS + 1):
        for key, one in works.items():
            start = time.process_time()
            one()
            if turn:  # the first one warms up
                seconds[key].append(time.process_time() - start)
    ratios = sorted(more / less for less, more in zip(seconds["without"], seconds["with"], strict=True))
    return {
        "labels": LABELS,
        **{f"cpu_seconds_{key}": median(times) for key, times in seconds.items()},
        "with_over_without": {"median": median(ratios), "range": [ratios[0], ratios[-1]]},
    }


def show(result: Mapping[str, Any]) -> None:
    """Print the tables."""
    print(f"{result['accuracy']['tokens']:,} tokens of the sample; errors against the float32 model, bytes a token")
    for dtype in ("bfloat16", "float16"):
        for name, one in result["accuracy"][dtype].items():
            shown = ", ".join(f"{key} {value:.2g}" for key, value in one.items())
            print(f"{dtype:10}{name:18}{shown}")
    for name, one in result["storage"].items():
        print(f"{name:18}" + ", ".join(f"{key} {value:.2f}" for key, value in one.items()))
    print(f"\n{LABELS} labels of two branches in bfloat16, one thread, CPU seconds, without and with all columns")
    for name, one in result["cost"].items():
        ratio = one["with_over_without"]
        print(
            f"{name:18}{one['cpu_seconds_without']:.2f} and {one['cpu_seconds_with']:.2f} s, {ratio['median']:.2f} × "
            f"({ratio['range'][0]:.2f}–{ratio['range'][1]:.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    samples = rows()
    full = scored(samples, "float32")
    result = {
        "accuracy": accuracy(full, samples),
        "storage": storage(full),
        "cost": {name: cost(name) for name in SHAPES},
        "versions": versions("torch", "pyarrow"),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    show(result)


if __name__ == "__main__":
    main()
