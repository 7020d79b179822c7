"""Does weighting help? Train small VLMs from scratch on partly wrong captions, with and without weights.

    python -m benchmarks.training_gain                     # what is missing of 90 trainings, tables, plot and cost
    python -m benchmarks.training_gain --only summary      # tables and plot of the results so far
    python -m benchmarks.training_gain --only cost         # what the weights cost per training step

The reference model scores each dataset once, with the job that users run; every student reads the weights from its
Parquet. Data, steps and order of rows are the same for all methods of a seed. Results are saved after each training,
and an interrupted run resumes where it stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.gain import cost, noisy, summary
from benchmarks.gain.learning import METHODS, Lesson, train
from benchmarks.gain.measures import measure
from benchmarks.gain.student import images_of
from pipelines.cli.score import main as score_dataset

RESULTS = Path(__file__).parent / "results" / "training_gain.json"
PLOT = Path(__file__).parents[1] / "docs" / "training_gain.png"
NOISES = (0.0, 0.2, 0.4)
PARTS = ("trainings", "summary", "cost")


def prepare(folder: Path, noise: float, rows: int) -> tuple[list[noisy.Example], Path]:
    """Return the examples of a noise level and the folder of their weights, scoring them the first time."""
    examples = noisy.noisy("train", rows, noise)
    data, weights = folder / f"data-{noise}-{rows}", folder / f"weights-{noise}-{rows}"
    if not (weights / "_SUCCESS").exists():
        noisy.write_shard(examples, data / "train.parquet")
        arguments = ["--input", str(data), "--output", str(weights), "--no-report", "--executor", "local"]
        arguments.append("--no-stop-token")  # every student gives the end of a caption one constant weight
        if code := score_dataset(arguments):
            raise SystemExit(code)
    return examples, weights


def trainings(options: argparse.Namespace, document: dict[str, Any]) -> None:
    """Train every cell that is not in `document` yet, and save after each.

    Seeds are the outermost loop, so that an interrupted run has covered all methods and noise levels alike.
    """
    for noise in options.noises:
        lesson = Lesson.read(*prepare(options.folder, noise, options.rows))
        document["weights"] = document.get("weights", {}) | {str(noise): lesson.weights_by_label()}
    cells = {
        f"noise {noise}, {method}, seed {seed}": (noise, method, seed)
        for seed, noise, method in product(range(options.seeds), options.noises, options.methods)
    }
    missing = {name: cell for name, cell in cells.items() if name not in document["cells"]}
    for name, figures in _examinations(missing, options):
        noise, method, seed = missing[name]
        document["cells"][name] = {"noise": noise, "method": method, "seed": seed, **figures}
        print(name, {figure: round(value, 3) for figure, value in figures.items()}, flush=True)
        write(options.out, document)


def _examinations(
    cells: Mapping[str, tuple[float, str, int]], options: argparse.Namespace
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the results of each cell as they complete."""
    if options.jobs == 1:
        _begin(options)
        yield from ((name, _examined(*cell)) for name, cell in cells.items())
        return
    # Spawned processes, because torch's threads do not survive a fork.
    with ProcessPoolExecutor(options.jobs, get_context("spawn"), _begin, (options,)) as pool:
        running = {pool.submit(_examined, *cell): name for name, cell in cells.items()}
        yield from ((running[done], done.result()) for done in as_completed(running))


_options: argparse.Namespace
"""The options, set in each process of the pool."""


def _begin(options: argparse.Namespace) -> None:
    global _options
    _options = options
    _lesson.cache_clear()
    _held_out.cache_clear()
    torch.set_num_threads(options.threads)


@cache
def _lesson(noise: float) -> Lesson:
    return Lesson.read(*prepare(_options.folder, noise, _options.rows))


@cache
def _held_out() -> tuple[list[noisy.Example], torch.Tensor]:
    held = noisy.clean("held out", _options.held_out)
    return held, images_of(held)


def _examined(noise: float, method: str, seed: int) -> dict[str, float]:
    """Train one student and examine it."""
    lesson = _lesson(noise)
    student = train(lesson, method, seed, _options.steps, _options.batch)
    return measure(student, lesson.tokenizer, *_held_out())


def write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--noises", nargs="+", type=float, default=NOISES, metavar="P")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=4000, help="captions in each training set")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--held-out", type=int, default=300, help="scenes and captions that students are examined on")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at the same time, one process each")
    parser.add_argument("--threads", type=int, default=1, help="torch threads per training")
    parser.add_argument("--pairs", type=int, default=7, help="rounds when measuring the cost")
    parser.add_argument("--folder", type=Path, default=Path("out/gain"), help="datasets and weights")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--plot", type=Path, default=PLOT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    settings = {name: getattr(options, name) for name in ("rows", "steps", "batch", "held_out")}
    document = json.loads(options.out.read_text()) if options.out.exists() else {"settings": settings, "cells": {}}
    if document["settings"] != settings:
        parser.error(f"{options.out} holds results of {document['settings']}, not of {settings}; give another --out")
    if "trainings" in options.only:
        trainings(options, document)
    if "summary" in options.only:
        print(summary.table(document["cells"]))
        print(summary.weights_table(document["weights"]))
        summary.plot(document["cells"], options.plot)
    if "cost" in options.only:
        examples, weights = prepare(options.folder, 0.0, options.rows)
        document["cost"] = cost.measure(Lesson.read(examples, weights), options.batch, options.pairs)
        print(cost.table(document["cost"]))
        write(options.out, document)


if __name__ == "__main__":
    main()
