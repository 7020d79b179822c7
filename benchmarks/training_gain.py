"""Does weighting help? Train small VLMs on partly wrong captions, with and without weights, and compare them.

    python -m benchmarks.training_gain                      # everything that is missing, then tables and plots
    python -m benchmarks.training_gain --only choice        # learning rates, and k and a floor of `grounded`
    python -m benchmarks.training_gain --only trainings     # students from scratch
    python -m benchmarks.training_gain --only finetuning    # students that could describe images before
    python -m benchmarks.training_gain --only references --references fair=DIR good=DIR   # worse reference models
    python -m benchmarks.training_gain --only summary       # tables and plots of the results so far
    python -m benchmarks.training_gain --only cost          # what the weights cost per training step
    python -m benchmarks.training_gain --only plan          # how many trainings are missing, and their time

The reference model scores each dataset once, with the job that users run; every student reads the weights from its
Parquet. Data, steps and order of rows are the same for all methods of a seed. Hyper-parameters are chosen on scenes and
students of their own (part `choice`, before the others). Results are saved after each training, an interrupted run
resumes where it stopped, and neither that nor --jobs changes a figure.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks.gain import choice, cost, plots, references, running, tables
from benchmarks.gain.cells import FINE_TUNED, SCRATCH, SPLITS, TEST, Cell, of
from benchmarks.gain.methods import GROUNDED, METHODS, UNIFORM, USUAL, Weighting
from benchmarks.gain.references import SELF
from benchmarks.gain.workshop import Settings, Workshop
from scorer.mini import MODEL_PATH

RESULTS = Path(__file__).parent / "results" / "training_gain.json"
DOCS = Path(__file__).parents[1] / "docs"
NOISES = (0.0, 0.2, 0.4)
FULL = "full"
"""The name of the reference model that all parts but `references` read."""
PARTS = ("choice", "trainings", "finetuning", "references", "summary", "cost", "plan")

Document = dict[str, Any]


class Run:
    """A run of the benchmark: its options and its file of results."""

    def __init__(self, options: argparse.Namespace, document: Document) -> None:
        self.options, self.document = options, document
        self.settings = Settings(**document["settings"])
        self.models: dict[str, Path] = {FULL: options.model, **dict(options.references)}

    def choose(self) -> None:
        """Choose hyper-parameters in validation: first those of `grounded`, then all methods' rates."""
        options = self.options
        chosen: dict[str, Any] = {
            "grounded_noises": list(options.choice_noises),
            "rate_noises": list(options.rate_noises),
            "students": options.choice_seeds,
        }
        if GROUNDED in options.methods:
            candidates = self._grounded_cells()
            self._train("choice of k", candidates)
            candidates = self._grounded_cells(choice.choose_grounded(of(self.document), candidates)["k"])
            self._train("choice of a floor", candidates)
            chosen[GROUNDED] = choice.choose_grounded(of(self.document), candidates)
        chosen["rates"] = {}
        for start in options.starts:
            cells = self._rate_cells(start, chosen)
            self._train(f"choice of rates, {start}", cells)
            chosen["rates"][start] = choice.choose_rates(of(self.document), cells)
        self.document["chosen"] = chosen
        self._write()

    def trainings(self, start: str) -> None:
        """Train students of one start, with each method at each noise level."""
        self._train(start, self._test_cells(start))

    def references(self) -> None:
        """Train students with weights by other reference models and by their own early state, and measure these."""
        options, noise = self.options, self.options.reference_noise
        self._train("references", self._reference_cells())
        self.document["reference_noise"] = noise
        workshop = self._workshop()
        lesson = workshop.lesson(TEST, noise)
        for name in self._reference_names():
            seeds = self._students(options.reference_seeds) if name == SELF else [None]
            found = [lesson.aurocs(workshop.scores(TEST, noise, name, seed)) for seed in seeds]
            means = {kind: statistics.mean(one[kind] for one in found) for kind in found[0]}
            self.document["references"].setdefault(name, {})["aurocs"] = means
            self._write()

    def mean_weights(self) -> None:
        """Record what the students of the test split were given: the mean weight of each kind of word."""
        workshop = self._workshop()
        for noise in self.options.noises:
            lesson = workshop.lesson(TEST, noise)
            found = {}
            for one in choice.weightings([m for m in self.options.methods if m in USUAL], self._chosen):
                cell = Cell(TEST, SCRATCH, FULL, noise, one.method, one.k, one.floor, 0.0, 0)
                weights = workshop.weights(cell)
                assert weights is not None
                found[one.method] = lesson.means(weights)
            self.document.setdefault("weights", {})[str(noise)] = found
        self._write()

    def summary(self) -> None:
        """Print tables and draw plots of the results so far."""
        print(tables.everything(self.document, FULL))
        folder: Path = self.options.plots
        if any(cell.split == TEST for cell, _ in of(self.document)):
            plots.against_noise(self.document, FULL, folder / "training_gain.png")
        if "reference_noise" in self.document:
            noise = self.document["reference_noise"]
            plots.against_auroc(self.document, FULL, noise, folder / "training_gain_references.png")

    def plan(self) -> None:
        """Print how many trainings each part has, and how long what is missing takes at the pace of those so far."""
        pace = running.pace(of(self.document), self.settings)
        parts = {}
        if GROUNDED in self.options.methods:
            k = choice.weighting(GROUNDED, self._chosen).k
            parts["choice of k and a floor"] = [*self._grounded_cells(), *self._grounded_cells(k)]
        parts |= {f"choice of rates, {start}": self._rate_cells(start, self._chosen) for start in self.options.starts}
        parts |= {start: self._test_cells(start) for start in self.options.starts}
        parts["references"] = self._reference_cells()
        seen: set[Cell] = set()  # a training that two parts share is made once
        print("| part | trainings | missing | steps of these | on one core |\n|---|---|---|---|---|")
        total = 0
        for title, cells in parts.items():
            cells = list(dict.fromkeys(cells))
            missing = [cell for cell in cells if cell.name not in self.document["cells"] and cell not in seen]
            seen.update(missing)
            steps = sum(running.steps_of(cell, self.settings) for cell in missing)
            total += steps
            print(f"| {title} | {len(cells)} | {len(missing)} | {steps:,} | {_time(steps, pace)} |")
        print(f"| all | | {len(seen)} | {total:,} | {_time(total, pace)} |")

    def cost(self) -> None:
        """Measure what weights cost a training step."""
        workshop = self._workshop()
        lesson, scores = workshop.lesson(TEST, 0.0), workshop.scores(TEST, 0.0, FULL, None)
        self.document["cost"] = cost.measure(lesson, scores, self.settings.batch, self.options.pairs)
        print(cost.table(self.document["cost"]))
        self._write()

    def _grounded_cells(self, k: float | None = None) -> list[Cell]:
        return choice.grounded_cells(FULL, self.options.choice_noises, self.options.choice_seeds, k)

    def _rate_cells(self, start: str, chosen: Mapping[str, Any]) -> list[Cell]:
        weightings = choice.weightings(self.options.methods, chosen)
        return choice.rate_cells(start, FULL, weightings, self.options.rate_noises, self.options.choice_seeds)

    def _test_cells(self, start: str) -> list[Cell]:
        options = self.options
        return [
            self._cell(start, FULL, noise, method, seed)
            for seed, noise, method in product(self._students(options.seeds), options.noises, options.methods)
            if choice.worth_training(method, noise)
        ]

    def _reference_names(self) -> list[str]:
        return [*self.models, *([SELF] if self.options.self_reference else [])]

    def _reference_cells(self) -> list[Cell]:
        options, noise = self.options, self.options.reference_noise
        methods = [UNIFORM, *(method for method in options.methods if METHODS[method].of_reference)]
        cells = [
            self._cell(SCRATCH, name if METHODS[method].of_reference else FULL, noise, method, seed)
            for seed, name, method in product(self._students(options.reference_seeds), self._reference_names(), methods)
        ]
        return list(dict.fromkeys(cells))

    @property
    def _chosen(self) -> Mapping[str, Any]:
        chosen: Mapping[str, Any] = self.document.get("chosen", {})
        return chosen

    def _cell(self, start: str, reference: str, noise: float, method: str, seed: int) -> Cell:
        one: Weighting = choice.weighting(method, self._chosen)
        rate = choice.rate(method, start, self._chosen)
        return Cell(TEST, start, reference, noise, method, one.k, one.floor, rate, seed)

    @staticmethod
    def _students(count: int) -> list[int]:
        first = SPLITS[TEST].first_student
        return list(range(first, first + count))

    def _workshop(self) -> Workshop:
        return Workshop(self.settings, self.options.folder, self.models)

    def _train(self, title: str, cells: Sequence[Cell]) -> None:
        """Train the cells that are not in the document yet."""
        missing = [cell for cell in cells if cell.name not in self.document["cells"]]
        print(f"{title}: {len(missing)} of {len(cells)} trainings are missing", flush=True)

        def done(cell: Cell, figures: dict[str, float]) -> None:
            self.document["cells"][cell.name] = {**asdict(cell), **figures}
            self._write()

        if missing:
            running.run(missing, self.settings, self.options.folder, self.models, jobs=self.options.jobs, done=done)

    def _write(self) -> None:
        path: Path = self.options.out
        path.parent.mkdir(parents=True, exist_ok=True)
        ordered = {**self.document, "cells": dict(sorted(self.document["cells"].items()))}  # whichever ended first
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)


def _time(steps: int, pace: float | None) -> str:
    return "unknown" if pace is None else running.duration(steps * pace)


def _reference(text: str) -> tuple[str, Path]:
    name, equals, directory = text.partition("=")
    if not (name and equals and Path(directory).is_dir()):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=DIR with a directory of a reference model")
    if name in (FULL, SELF):
        raise argparse.ArgumentTypeError(f"{name!r} is the name of another reference; choose a different one")
    return name, Path(directory)


def open_document(path: Path, settings: Settings, models: Mapping[str, Path]) -> Document:
    """Return the results so far.

    Raises:
        ValueError: they are those of other settings, or of another reference model.
    """
    document: Document = {"settings": asdict(settings), "references": {}, "cells": {}}
    if path.exists():
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["settings"] != asdict(settings):
            raise ValueError(
                f"{path} holds results of {document['settings']}, not of {asdict(settings)}; give another --out"
            )
    for name, directory in models.items():
        digest = references.digest(directory)
        known = document["references"].setdefault(name, {"weights_sha256": digest})["weights_sha256"]
        if known != digest:
            raise ValueError(
                f"{path} holds results of a reference model {name!r} with the weights {known[:12]}, but {directory} "
                f"has {digest[:12]}; give another --out, or the same model"
            )
    return document


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=PARTS, default=PARTS[:-1], metavar="PART", help=", ".join(PARTS))
    add("--model", type=Path, default=MODEL_PATH, help="directory of the reference model")
    add("--references", nargs="+", type=_reference, default=[], metavar="NAME=DIR", help="further reference models")
    add("--no-self-reference", dest="self_reference", action="store_false", help="leave out the student's own state")
    add("--methods", nargs="+", choices=METHODS, default=list(USUAL), metavar="NAME", help=", ".join(METHODS))
    add("--starts", nargs="+", choices=(SCRATCH, FINE_TUNED), default=[SCRATCH, FINE_TUNED], help="to choose rates for")
    add("--noises", nargs="+", type=float, default=NOISES, metavar="P")
    add("--seeds", type=int, default=10, help="students of each kind")
    add("--choice-noises", nargs="+", type=float, default=NOISES, metavar="P", help="to choose k and floor by")
    add("--rate-noises", nargs="+", type=float, default=(0.2,), metavar="P", help="to choose rates by")
    add("--choice-seeds", type=int, default=3, help="students that choices are made by")
    add("--reference-noise", type=float, default=0.2, metavar="P", help="at which references are compared")
    add("--reference-seeds", type=int, default=5, help="students of each reference")
    for name, value in (("rows", 4000), ("steps", 400), ("fine-steps", 200), ("pretraining-steps", 400)):
        add(f"--{name}", type=int, default=value)
    for name, value in (("early-steps", 100), ("batch", 32), ("held-out", 300), ("text-epochs", 5)):
        add(f"--{name}", type=int, default=value)
    add("--jobs", type=int, default=2, help="trainings at the same time, one process each")
    add("--threads", type=int, default=1, help="torch threads per training")
    add("--pairs", type=int, default=7, help="rounds when measuring the cost")
    add("--folder", type=Path, default=Path("out/gain"), help="datasets, scores and students' states")
    add("--out", type=Path, default=RESULTS, help="file of results")
    add("--plots", type=Path, default=DOCS, help="folder for the plots")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _parser()
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    settings = Settings(**{field.name: getattr(options, field.name) for field in fields(Settings)})
    try:
        document = open_document(options.out, settings, {FULL: options.model, **dict(options.references)})
    except ValueError as error:
        parser.error(str(error))
    benchmark = Run(options, document)
    if "plan" in options.only:
        benchmark.plan()
    if "choice" in options.only:
        benchmark.choose()
    if "trainings" in options.only:
        benchmark.trainings(SCRATCH)
        benchmark.mean_weights()
    if "finetuning" in options.only:
        benchmark.trainings(FINE_TUNED)
    if "references" in options.only:
        benchmark.references()
    if "summary" in options.only:
        benchmark.summary()
    if "cost" in options.only:
        benchmark.cost()


if __name__ == "__main__":
    main()
