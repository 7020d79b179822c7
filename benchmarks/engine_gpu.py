"""Measure what scoring costs on a GPU, with models of real shapes and random weights in bfloat16.

    python -m benchmarks.engine_gpu                 # LLaVA-1.5-7B and Qwen2.5-VL-7B, on the first GPU
    python -m benchmarks.engine_gpu --tiny          # the same steps on small models, to check that they run

Times are medians of alternating rounds: ours, the bare clean forward pass of the base model, the naive way.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile

from benchmarks import naive
from benchmarks.engine_flops import flops
from benchmarks.engine_profile import matmul_rate
from benchmarks.random_models import SHAPES, RandomCheckpoint
from scorer import Sample
from scorer.config import ScorerConfig
from scorer.engine import Scorer
from scorer.forward import FastPath
from scorer.forward.plain import full_forward
from scorer.types import EncodedSample

RESULT = Path(__file__).parent / "results" / "engine_gpu.json"
WORDS = ("a", "red", "kite", "over", "two", "boats", "in", "the", "blue", "sky", "near", "large", "green", "circle")


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(run: Callable[[], object]) -> float:
    synchronize()
    started = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - started


def samples(count: int, side: int) -> list[Sample]:
    """Return JPEG images of various shapes, with captions of 10 to 250 words, log-uniform as in instruction data."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        width, height = (int(side * rng.uniform(0.6, 1.4)) for _ in range(2))
        coarse = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(stream, "JPEG")
        words = int(np.exp(rng.uniform(np.log(10), np.log(250))))
        found.append(Sample.caption(str(i), stream.getvalue(), " ".join(rng.choice(WORDS, words))))
    return found


def in_turns(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Return the seconds of each function, run in turn; the first round is a warm-up and does not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            spent = seconds(run)
            if number:
                times[name].append(spent)
    return {n: {"median": statistics.median(t), "lowest": min(t), "highest": max(t)} for n, t in times.items()}


def hottest(run: Callable[[], object], rows: int = 12) -> list[dict[str, Any]]:
    """Return the kernels that take the most time, with their shares of it."""
    cuda = torch.cuda.is_available()
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiler:
        run()
        synchronize()
    events = [
        (event.key, event.self_device_time_total if cuda else event.self_cpu_time_total)
        for event in profiler.key_averages()
    ]
    total = sum(spent for _, spent in events) or 1
    ordered = sorted(events, key=lambda event: -event[1])[:rows]
    return [{"kernel": name[:90], "share": round(spent / total, 4)} for name, spent in ordered]


def one_batch(scorer: Scorer, encoded: Sequence[EncodedSample]) -> list[EncodedSample]:
    """Return as many rows as the budget allows, of neighbouring lengths from the median up."""
    ordered = sorted(encoded, key=lambda row: row.length)
    middle = ordered[len(ordered) // 2 :]
    return middle[: max(1, scorer.max_batch_tokens // middle[len(middle) // 2].length)]


def measure(checkpoint: RandomCheckpoint, options: argparse.Namespace) -> dict[str, Any]:
    scorer = Scorer(checkpoint, ScorerConfig(dtype=options.dtype, compile=options.compile))
    data = samples(options.samples, 120 if options.tiny else 640)
    started = time.perf_counter()
    encoded = [row for row in map(scorer.encoder.try_encode, data) if isinstance(row, EncodedSample)]
    encoding = time.perf_counter() - started
    assert len(encoded) == len(data), "every image decodes"
    rows = one_batch(scorer, encoded)
    processed = naive.as_processed(rows)
    path = FastPath(scorer.model, ["blank"], scorer.config.contrast_cache_bytes)
    clean = [scorer.model.prepare(row.clean) for row in rows]
    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: path.score(rows),
        "bare": lambda: torch.inference_mode()(full_forward)(scorer.model, clean),
        "naive": lambda: naive.score_batch(scorer.model, processed),
    }
    times = in_turns(runs, options.rounds)
    work, rate = flops(runs["ours"]), matmul_rate(scorer.model.device, scorer.model.model.dtype, options.matmul)
    ours = times["ours"]["median"]
    whole = in_turns(
        {"engine": lambda: scorer.score_encoded(encoded), "end_to_end": lambda: scorer.score(data, options.threads)},
        max(1, options.rounds // 3),
    )
    return {
        "rows_in_batch": len(rows),
        "budget": scorer.max_batch_tokens,
        "tokens_in_batch": sum(row.length for row in rows),
        "self_check": None if scorer.self_check is None else [scorer.self_check.difference, scorer.self_check.limit],
        "path": scorer.path,
        "seconds": times,
        "samples_per_second": len(rows) / ours,
        "ours_over_bare": ours / times["bare"]["median"],
        "naive_over_ours": times["naive"]["median"] / ours,
        "flops": work,
        "matmul_flops_per_second": rate,
        "utilisation": work / ours / rate,
        "padding_waste": scorer.usage.waste,
        "encode_seconds_per_sample_one_thread": encoding / len(data),
        "engine_samples_per_second": len(data) / whole["engine"]["median"],
        "end_to_end_samples_per_second": len(data) / whole["end_to_end"]["median"],
        "end_to_end_over_engine": whole["engine"]["median"] / whole["end_to_end"]["median"],
        "hottest": hottest(runs["ours"]),
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| | " + " | ".join(found) + " | target |",
        "|---|" + "---|" * (len(found) + 1),
    ]
    for name, key, form, target in (
        ("samples/s, one batch", "samples_per_second", "{:.1f}", ""),
        ("÷ bare clean forward, time", "ours_over_bare", "{:.3f}", "≤ 1.12"),
        ("naive ÷ ours, time", "naive_over_ours", "{:.2f}", "≥ 1.7"),
        ("FLOPs utilisation of the measured matmul rate", "utilisation", "{:.1%}", "≥ 55 %"),
        ("samples/s, engine", "engine_samples_per_second", "{:.1f}", ""),
        ("samples/s, from JPEG bytes", "end_to_end_samples_per_second", "{:.1f}", ""),
        ("from JPEG bytes ÷ engine", "end_to_end_over_engine", "{:.1%}", "≥ 95 %"),
        ("padding", "padding_waste", "{:.1%}", ""),
    ):
        cells = [form.format(one[key]) for one in found.values()]
        lines.append(f"| {name} | {' | '.join(cells)} | {target} |")
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--tiny", action="store_true", help="use small models, only to check that the steps run")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--compile", action="store_true", help="torch.compile the models")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=12, help="threads that decode and encode ahead of the model")
    parser.add_argument("--matmul", type=int, default=8192, help="side of the matrices in the reference product")
    parser.add_argument("--out", type=Path, default=RESULT)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    options = parse(arguments)
    found = {}
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measure(SHAPES[name](Path(folder), options.tiny), options)
    print(table(found))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    document = {"device": device, "torch": torch.__version__, "tiny": options.tiny, "models": found}
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(document, indent=2) + "\n")
    return found


if __name__ == "__main__":
    main()
