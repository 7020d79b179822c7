"""Measure what scoring costs compared with one clean forward pass and with the naive way; print a table, write JSON.

    python -m benchmarks.engine                  # everything, about ten minutes on two cores
    python -m benchmarks.engine --only padding memory

FLOPs are counted on the meta device and repeat exactly; times are ratios of runs that alternate in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import engine_flops, engine_profile, engine_speed, shapes
from scorer.forward import ReferenceModel

RESULT = Path(__file__).parent / "results" / "engine.json"
IMAGE = {"image_tokens": shapes.IMAGE_TOKENS, "size": 336}


TOWER = shapes.CLIP_B_336 | {"num_hidden_layers": 6}
MODELS_300M: dict[str, Callable[[], ReferenceModel]] = {
    "152k": lambda: shapes.llava(shapes.QWEN_300M, 8, TOWER, 152_064, tied=True),
    "32k": lambda: shapes.llava(shapes.LLAVA_300M, 15, TOWER),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the table: a figure's name, its target, its measured value, and whether it reached the target."""

    name: str
    target: str
    value: str
    reached: bool


def flops(pairs: int) -> tuple[list[Figure], dict[str, Any]]:
    found = engine_flops.measure_all()
    figures = []
    for contrasts, counts in found.items():
        most = 1 + 0.075 * len(contrasts.split(", "))
        figures.append(_at_most(f"`{contrasts}`: FLOPs ÷ clean forward", most, counts["fast_over_clean"]))
        if contrasts == "blank":
            gap, naive = counts["gap_only_over_clean"], counts["naive_over_fast"]
            figures.append(_at_most("`blank`, gap without log-probabilities", 1.08, gap))
            figures.append(_at_least("naive FLOPs ÷ ours, 7B shape", 1.85, naive))
    return figures, found


def naive(pairs: int) -> tuple[list[Figure], dict[str, Any]]:
    found = {name: engine_speed.against_naive(make(), 6, pairs, **IMAGE) for name, make in MODELS_300M.items()}
    figures = [
        _at_least(f"naive time ÷ ours, 300 M parameters, vocabulary {name} (FLOPs {one['flops_ratio']:.2f})", 1.7, one)
        for name, one in found.items()
    ]
    return figures, found


def five_captions(pairs: int) -> tuple[list[Figure], dict[str, Any]]:
    model = shapes.llava(shapes.LLAVA_300M, 4, shapes.CLIP_B_336)
    found = {
        str(length): engine_speed.five_captions(model, length, pairs, **IMAGE)
        for length in (engine_speed.COCO_CAPTION, 48)
    }
    figures = [_at_most(f"five captions of {n} tokens ÷ one, time", 1.5, found[str(n)]) for n in (14, 48)]
    return figures, found


def padding(pairs: int) -> tuple[list[Figure], dict[str, Any]]:
    found = engine_speed.padding(_small(), 1024, **IMAGE)
    texts = "texts of 20–400 tokens"
    return [
        Figure(f"padding, {texts}", "0", f"{found['padding']:.1%}", found["padding"] == 0),
        Figure(f"rounding to few shapes, GPU, {texts}", "", f"{found['rounding']:.1%}", True),
    ], found


def memory(pairs: int) -> tuple[list[Figure], dict[str, Any]]:
    found = engine_speed.memory()
    return [
        _at_most("peak memory of tensors, vocabulary 152k ÷ 32k", 1.1, found),
        Figure("the same, resident memory (one run)", "", f"{found['resident_ratio']:.2f}", True),
    ], found


def processes(pairs: int) -> tuple[list[Figure], dict[str, Any]]:
    found = engine_speed.processes(pairs)
    return [_at_least("rows/s, two processes ÷ one", 1.7, found)], found


def profile(pairs: int) -> tuple[list[Figure], dict[str, Any]]:
    found = {name: engine_profile.measure(make(), 2, pairs, engine_speed.CACHE) for name, make in MODELS_300M.items()}
    figures = []
    for name, one in found.items():
        for way in ("fast", "naive"):
            title = f"{way} way, 300 M parameters, vocabulary {name}"
            figures += [Figure(f"{title}: {stage}", "", text, True) for stage, text in engine_profile.read(one, way)]
    return figures, found


def compiled(pairs: int) -> tuple[list[Figure], dict[str, Any]]:
    found = engine_speed.compiled(pairs, **IMAGE)
    _, text = _reading(found)
    return [
        Figure("time without `--compile` ÷ with it", "", f"{text}, first batches {found['first_seconds']:.0f} s", True)
    ], found


PARTS: dict[str, Callable[[int], tuple[list[Figure], dict[str, Any]]]] = {
    "flops": flops,
    "naive": naive,
    "five_captions": five_captions,
    "padding": padding,
    "memory": memory,
    "processes": processes,
    "profile": profile,
    "compiled": compiled,
}


def _small() -> ReferenceModel:
    return shapes.llava(shapes.SMALL | {"hidden_size": 64}, 1, shapes.small_vision(IMAGE["size"]))


def _at_most(name: str, limit: float, found: float | dict[str, Any]) -> Figure:
    value, text = _reading(found)
    return Figure(name, f"≤ {limit}", text, value <= limit)


def _at_least(name: str, limit: float, found: float | dict[str, Any]) -> Figure:
    value, text = _reading(found)
    return Figure(name, f"≥ {limit}", text, value >= limit)


def _reading(found: float | dict[str, Any]) -> tuple[float, str]:
    """Return a ratio and its text, with the range if it was measured several times."""
    if isinstance(found, float):
        return found, f"{found:.3f}"
    spread = f" ({found['lowest']:.2f}–{found['highest']:.2f})" if "lowest" in found else ""
    return found["ratio"], f"{found['ratio']:.2f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--pairs", type=int, default=5, help="runs of each side to compare")
    options = parser.parse_args()
    stored = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    print("| figure | target | measured | |\n|---|---|---|---|")
    for part in options.only:
        figures, stored[part] = PARTS[part](options.pairs)
        for figure in figures:
            mark = "✓" if figure.reached else "✗"
            print(f"| {figure.name} | {figure.target} | {figure.value} | {mark} |", flush=True)
    stored["machine"] = {"cpus": os.cpu_count(), "processor": platform.machine(), "torch": torch.__version__}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(stored, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
