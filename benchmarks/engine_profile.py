"""Measure where scoring spends its time, and how close each stage comes to the rate of a plain matrix product."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import naive, shapes
from scorer.forward import FastPath, ReferenceModel

# The stages' names are keys of the stored results.
VISION = "image"
DECODER = "decoder"
REST = "vocabulary, copies, the rest"


def matmul_rate(device: torch.device | str, dtype: torch.dtype, size: int) -> float:
    """Return the FLOPs per second of a square matrix product on the device, the best of ten."""

    def product() -> float:
        started = time.perf_counter()
        a @ b
        if a.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2.0 * size**3 / min(product() for _ in range(10))


@contextmanager
def metered(model: ReferenceModel, read: Callable[[], float]) -> Iterator[Counter[str]]:
    """Count by stage how much ``read`` (seconds or FLOPs so far) grows inside the tower and the decoder of a LLaVA."""
    spent: Counter[str] = Counter()
    began: list[float] = []

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        began.append(read())

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any, stage: str | None = None) -> None:
        name = stage or DECODER
        spent[name] += read() - began.pop()

    base = model.model.model
    handles = []
    for module, stage in (
        (base.vision_tower, VISION),
        (base.multi_modal_projector, VISION),
        (base.language_model, None),
    ):
        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(partial(after, stage=stage), with_kwargs=True))
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()


def stages(model: ReferenceModel, run: Callable[[], object], rounds: int) -> dict[str, dict[str, float]]:
    """Return each stage's FLOPs, and its median seconds over ``rounds`` runs."""
    run()  # warms the kept prefix
    with FlopCounterMode(display=False) as counter, metered(model, lambda: float(counter.get_total_flops())) as flops:
        run()
    flops[REST] = counter.get_total_flops() - flops.total()
    times = []
    for _ in range(rounds):
        with metered(model, time.perf_counter) as seconds:
            started = time.perf_counter()
            run()
            seconds[REST] = time.perf_counter() - started - seconds.total()
        times.append(seconds)
    return {
        stage: {"flops": flops[stage], "seconds": sorted(one[stage] for one in times)[rounds // 2]}
        for stage in (VISION, DECODER, REST)
        if flops[stage] or times[0][stage]
    }


def measure(model: ReferenceModel, rows: int, rounds: int, cache_bytes: int) -> dict[str, Any]:
    """Return the stages of the fast and the naive way on the same rows, and the rate of a 2,048² matrix product."""
    samples = [shapes.row(i, 16, 48) for i in range(rows)]
    path = FastPath(model, ["blank"], cache_bytes)
    return {
        "matmul_flops_per_second": matmul_rate("cpu", torch.float32, 2048),
        "fast": stages(model, lambda: path.score(samples), rounds),
        "naive": stages(model, lambda: naive.score_batch(model, samples), rounds),
    }


def read(found: dict[str, Any], way: str) -> list[tuple[str, str]]:
    """Return each stage's shares of FLOPs and of time, and its rate as a share of the matrix product's."""
    flops, seconds = (sum(one[key] for one in found[way].values()) for key in ("flops", "seconds"))
    lines = []
    for stage, one in found[way].items():
        rate = one["flops"] / one["seconds"] / found["matmul_flops_per_second"]
        shares = f"{one['flops'] / flops:.1%} of FLOPs, {one['seconds'] / seconds:.1%} of time"
        lines.append((stage, f"{shares}, at {rate:.2f} of the matrix product's rate"))
    return lines
