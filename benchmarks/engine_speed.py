"""Measure what scoring costs in time, padding and memory on a CPU: the parts of `engine.py` that run a model."""

from __future__ import annotations

import ctypes
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import naive, shapes
from benchmarks.engine_flops import flops
from scorer.config import MAX_BATCH_TOKENS
from scorer.forward import FastPath, ReferenceModel
from scorer.forward.packed import BUCKETS

CACHE = 2**32
COCO_CAPTION = 14
"""Tokens of a COCO caption: 10.5 words on average."""


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def paired(one: Callable[[], object], other: Callable[[], object], pairs: int) -> dict[str, Any]:
    """Return the seconds of ``one`` ÷ those of ``other``, run in turn; the first pair is a warm-up, not counted."""
    times = [(seconds(one), seconds(other)) for _ in range(pairs + 1)][1:]
    ratios = [a / b for a, b in times]
    return {
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "seconds": [[round(a, 3), round(b, 3)] for a, b in times],
    }


def against_naive(model: ReferenceModel, rows: int, pairs: int, image_tokens: int, size: int) -> dict[str, Any]:
    """Return naive ÷ fast in wall-clock time, after comparing their results."""
    samples = naive.as_processed([shapes.row(i, 16, 48, image_tokens, size) for i in range(rows)])
    path = FastPath(model, ["blank"], CACHE)
    worst = 0.0
    slow = naive.score_batch(model, samples)
    for (clean, contrast), (gap, logprob, _) in zip(path.score(samples), slow, strict=True):
        worst = max(worst, float(np.abs(clean.logit - contrast.logit - gap.cpu().numpy()).max()))
        worst = max(worst, float(np.abs(clean.logprob - logprob.cpu().numpy()).max()))
    theirs, ours = partial(naive.score_batch, model, samples), partial(path.score, samples)
    return {
        **paired(theirs, ours, pairs),
        "flops_ratio": flops(theirs) / flops(ours),
        "largest_difference": worst,
        "parameters": model.model.num_parameters(),
    }


def compiled(pairs: int, image_tokens: int, size: int) -> dict[str, Any]:
    """Return time without ``torch.compile`` ÷ with it on batches of three lengths, and seconds of the first batches."""
    lengths = (30, 40, 50)
    batches = [[shapes.row(10 * n + i, 16, n, image_tokens, size) for i in range(4)] for n in lengths]

    def path(compiled: bool) -> FastPath:
        model = shapes.llava(shapes.LLAVA_300M, 4, shapes.small_vision(size))
        return FastPath(ReferenceModel(model.model, model.family, compiled), ["blank"], CACHE)

    fast, slow = path(True), path(False)
    first = seconds(lambda: [fast.score(batch) for batch in batches])
    found = paired(
        lambda: [slow.score(batch) for batch in batches], lambda: [fast.score(batch) for batch in batches], pairs
    )
    return {**found, "first_seconds": first}


def five_captions(model: ReferenceModel, caption: int, pairs: int, image_tokens: int, size: int) -> dict[str, Any]:
    """Return the time of two images with five captions each ÷ that of the same images with one caption each."""
    images = [shapes.row(i, 16, caption, image_tokens, size) for i in range(2)]
    five = [shapes.with_caption(image, k, caption) for image in images for k in range(5)]
    path = FastPath(model, ["blank"], CACHE)
    return paired(lambda: path.score(five), lambda: path.score(images), pairs)


def padding(model: ReferenceModel, rows: int, image_tokens: int, size: int) -> dict[str, Any]:
    """Return the shares of padding and of rounding in all tokens, for log-uniform texts of 20 to 400 tokens."""
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.uniform(np.log(20), np.log(400), rows)).astype(int)
    found: dict[str, Any] = {"waste_in_given_order": _padded_in_order(lengths + image_tokens + 17, MAX_BATCH_TOKENS)}
    for name, bucket in (("padding", None), ("rounding", MAX_BATCH_TOKENS // BUCKETS)):
        samples = (shapes.row(i, 16, int(n), image_tokens, size) for i, n in enumerate(lengths))
        before = model.usage
        for _ in FastPath(model, ["blank"], bucket=bucket).score_rows(samples, MAX_BATCH_TOKENS):
            pass
        found[name] = (model.usage - before).waste
    return found


def _padded_in_order(lengths: Sequence[int], budget: int) -> float:
    """Return the same share for the clean pass alone, with rows batched in the given order."""
    size = budget // max(lengths)
    batches = [lengths[i : i + size] for i in range(0, len(lengths), size)]
    return 1 - sum(lengths) / sum(len(batch) * max(batch) for batch in batches)


def memory_of_vocabulary(vocabulary: int) -> dict[str, int]:
    """Return the peak memory of scoring, in bytes above what the process used before, with the weights loaded.

    ``tensor_bytes`` is what tensors take at once, as torch counts it, which repeats; ``peak_bytes`` is resident memory,
    which the heap and the mathematical library widen by a different amount in each run. Linux only, where the
    high-water mark of resident memory can be reset.
    """
    model = shapes.llava(shapes.SMALL, 4, shapes.small_vision(56), vocabulary)
    rows = [shapes.row(i, 16, 300, 16, 56) for i in range(16)]
    path = FastPath(model, ["blank"], CACHE)
    path.score(rows[:2])
    ctypes.CDLL(None).malloc_trim(0)  # memory freed but not returned would hide part of the peak
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    path.score(rows)
    resident = _status("VmHWM") - before
    return {
        "vocabulary": vocabulary,
        "tensor_bytes": peak_of_tensors(partial(path.score, rows)),
        "peak_bytes": resident,
    }


def peak_of_tensors(run: Callable[[], object]) -> int:
    """Return the most bytes of tensors that ``run`` allocates on the CPU and holds at once."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    events = (event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]")
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(changes))


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def rate_of_process(rows: int, rounds: int) -> float:
    """Return this process's rows per second on one thread. Waits for a line of input, so that all start together."""
    torch.set_num_threads(1)
    model = shapes.llava(shapes.SMALL, 8, shapes.small_vision(168))
    samples = [shapes.row(i, 16, 48, 144, 168) for i in range(rows)]
    path = FastPath(model, ["blank"], CACHE)
    path.score(samples)
    print("ready", flush=True)
    sys.stdin.readline()
    return rows * rounds / seconds(lambda: [path.score(samples) for _ in range(rounds)])


def processes(pairs: int) -> dict[str, Any]:
    """Return the rows per second of two processes ÷ those of one, each on one thread, measured in turn."""
    ratios = []
    for _ in range(pairs):
        alone = sum(_rates(1))
        ratios.append(sum(_rates(2)) / alone)
    return {"ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}


def _rates(count: int) -> list[float]:
    workers = [_child("rate_of_process", 8, 12) for _ in range(count)]
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return [_answer(worker) for worker in workers]


def memory(small: int = 32_064, large: int = 152_064) -> dict[str, Any]:
    """Return the peak memory with a large vocabulary ÷ that with a small one, each in a fresh process."""
    found = [_answer(_child("memory_of_vocabulary", size)) for size in (small, large)]
    few, many = found
    return {
        "ratio": many["tensor_bytes"] / few["tensor_bytes"],
        "resident_ratio": many["peak_bytes"] / few["peak_bytes"],
        "peaks": found,
    }


def _child(function: str, *arguments: int) -> subprocess.Popen[str]:
    code = f"import json; from benchmarks import engine_speed as e; print(json.dumps(e.{function}(*{arguments!r})))"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )


def _answer(child: subprocess.Popen[str]) -> Any:
    output, _ = child.communicate(timeout=600)
    if child.returncode:
        raise RuntimeError(f"a benchmark's process exited with status {child.returncode}")
    return json.loads(output.splitlines()[-1])
