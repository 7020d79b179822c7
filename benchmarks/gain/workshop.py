"""Make what trainings need, each once and on disk, and train one cell with it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gain import noisy, references
from benchmarks.gain.cells import FINE_TUNED, SCRATCH, SPLITS, Cell
from benchmarks.gain.choice import usual_rate
from benchmarks.gain.learning import Lesson, new_student, train
from benchmarks.gain.measures import measure
from benchmarks.gain.methods import IN_STEP, METHODS, UNIFORM, Weighting
from benchmarks.gain.references import SELF, Own, Published, Scores
from benchmarks.gain.student import Student, images_of, student_tokenizer
from pipelines.cli.score import main as score_dataset
from pipelines.cli.train_text_reference import main as train_text_reference

PRETRAINING = "pretraining"
"""The seed of the scenes of another world that students are trained on before they are fine-tuned."""


@dataclass(frozen=True)
class Settings:
    """What every result depends on, apart from its cell.

    Attributes:
        rows: captions in each training set.
        steps: of a student from scratch.
        fine_steps, pretraining_steps: of one that is fine-tuned, and of its training before that.
        early_steps: after which a student's state is its own reference.
        batch: captions a step.
        held_out: scenes and captions that students are examined on.
        text_epochs: passes over the captions when PRIOR's text reference is trained.
        threads: of torch; another number rounds differently.
    """

    rows: int
    steps: int
    fine_steps: int
    pretraining_steps: int
    early_steps: int
    batch: int
    held_out: int
    text_epochs: int
    threads: int


@dataclass(frozen=True)
class Need:
    """Something that cells need and that is made once: a dataset's scores, a text reference's, or a student's state.

    Attributes:
        kind: the name of a method of :class:`Workshop`.
        arguments: its arguments.
    """

    kind: str
    arguments: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.kind} {' '.join(map(str, self.arguments))}"


class Workshop:
    """The folder of what was made, and one process's copies of it in memory.

    Args:
        settings: see :class:`Settings`.
        folder: for datasets, scores and states of students; safe to share among processes that make different things.
        models: the directories of reference models, by name.
    """

    def __init__(self, settings: Settings, folder: Path, models: Mapping[str, Path]) -> None:
        self.settings, self.folder, self.models = settings, folder, models
        # A seed's cells follow each other, so few states and datasets are in use at a time.
        self.lesson = lru_cache(8)(self._lesson)
        self._held_out = lru_cache(2)(self._draw_held_out)
        self._published = lru_cache(16)(self._open)
        self._own = lru_cache(2)(self._score_itself)
        self._weights = lru_cache(64)(self._derive)
        self._digest = lru_cache(None)(lambda name: references.digest(models[name]))

    def needs(self, cell: Cell) -> list[Need]:
        """Return what a cell needs, apart from what is drawn."""
        found = []
        compared = METHODS[cell.method]
        if compared.name is not None and cell.reference != SELF:
            found.append(Need("score", (cell.split, cell.noise, cell.reference)))
        if compared.of_text:
            found.append(Need("score_text", (cell.split, cell.noise)))
        if compared.of_reference and cell.reference == SELF:
            found.append(Need("early", (cell.split, cell.noise, cell.seed)))
        if cell.start == FINE_TUNED:
            found.append(Need("pretrained", (cell.seed,)))
        return found

    def make(self, need: Need) -> None:
        """Make what is needed, if it does not exist yet."""
        torch.set_num_threads(self.settings.threads)
        getattr(self, need.kind)(*need.arguments)

    def examine(self, cell: Cell) -> dict[str, float]:
        """Train a cell's student and examine it on held-out scenes.

        Returns:
            its figures, and the seconds of the training and its examination: on the clock, and of this process.
        """
        torch.set_num_threads(self.settings.threads)  # scoring may have changed it, and so the rounding
        lesson = self.lesson(cell.split, cell.noise)
        weights = self.weights(cell)
        student, steps = new_student(cell.seed), self.settings.steps
        if cell.start == FINE_TUNED:
            student.load_state_dict(self.pretrained(cell.seed))
            steps = self.settings.fine_steps
        held_out = self._held_out(cell.split)
        clock, own = time.perf_counter(), time.process_time()
        train(student, lesson, weights, seed=cell.seed, rate=cell.rate, steps=steps, batch=self.settings.batch)
        figures = measure(student, lesson.tokenizer, *held_out)
        return {
            **figures,
            "seconds": round(time.perf_counter() - clock, 2),
            "process_seconds": round(time.process_time() - own, 2),
        }

    def weights(self, cell: Cell) -> Tensor | None:
        """Return the weights of a cell's training set, [N, T], derived once; None if they are computed in the step."""
        if cell.method == IN_STEP:
            return None
        seed = cell.seed if cell.reference == SELF else None
        return self._weights(cell.split, cell.noise, cell.reference, seed, cell.weighting)

    def scores(self, split: str, noise: float, reference: str, seed: int | None) -> Scores:
        """Return a training set's scores by a reference; `seed` is the student's whose own they are."""
        if reference == SELF:
            assert seed is not None
            return self._own(split, noise, seed)
        return self._published(split, noise, reference)

    def score(self, split: str, noise: float, reference: str) -> Path:
        """Score a training set by a reference model, with the job that users run."""
        output = self.folder / f"scores-{self._digest(reference)[:12]}-{self._set(split, noise)}"
        self._run_once(output, ["--input", str(self.data(split, noise)), "--model", str(self.models[reference])])
        return output

    def score_text(self, split: str, noise: float) -> Path:
        """Train a small language model on the captions of a training set, and score them by it."""
        data, epochs = self.data(split, noise), self.settings.text_epochs
        model = self.folder / f"text-reference-{epochs}-{self._set(split, noise)}"
        small = ["--hidden", "128", "--layers", "2", "--vocab-size", "1024", "--batch-size", "32"]
        _succeed(train_text_reference(["--input", str(data), "--output", str(model), "--epochs", str(epochs), *small]))
        output = self.folder / f"text-scores-{epochs}-{self._set(split, noise)}"
        of_text = ["--contrast", "removed", "--method", "prior"]
        self._run_once(output, ["--input", str(data), "--model", str(model), *of_text])
        return output

    def data(self, split: str, noise: float) -> Path:
        """Return the folder of a training set, written the first time."""
        folder = self.folder / f"data-{self._set(split, noise)}"
        file = folder / "train.parquet"
        if not file.exists():
            partial = self.folder / f".{folder.name}-{time.time_ns()}" / file.name  # two processes may write the same
            noisy.write_shard(self._examples(split, noise), partial)
            folder.mkdir(exist_ok=True)
            partial.replace(file)
            partial.parent.rmdir()
        return folder

    def pretrained(self, seed: int) -> dict[str, Tensor]:
        """Return a student's state after training on true captions of another world."""
        steps, rows = self.settings.pretraining_steps, self.settings.rows

        def make() -> Student:
            lesson = Lesson.of(noisy.clean(PRETRAINING, rows, noisy.OTHER_WORLD))
            return self._train(lesson, seed, steps)

        return self._state(f"pretrained-{seed}-{steps}-{rows}-{self.settings.batch}", make)

    def early(self, split: str, noise: float, seed: int) -> dict[str, Tensor]:
        """Return an early state of a student that is trained with uniform weights."""
        settings = self.settings

        def make() -> Student:
            return self._train(self.lesson(split, noise), seed, settings.steps, settings.early_steps)

        name = f"early-{seed}-{settings.early_steps}-of-{settings.steps}-{settings.batch}-{self._set(split, noise)}"
        return self._state(name, make)

    def _train(self, lesson: Lesson, seed: int, steps: int, stop_after: int | None = None) -> Student:
        return train(
            new_student(seed),
            lesson,
            lesson.weights(None, Weighting(UNIFORM)),
            seed=seed,
            rate=usual_rate(SCRATCH),
            steps=steps,
            batch=self.settings.batch,
            stop_after=stop_after,
        )

    def _state(self, name: str, make: Callable[[], Student]) -> dict[str, Tensor]:
        tokenizer = hashlib.sha256(student_tokenizer().to_str().encode()).hexdigest()[:12]
        path = self.folder / f"{name}-threads-{self.settings.threads}-{tokenizer}.pt"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.{time.time_ns()}")
            torch.save(make().state_dict(), partial)
            partial.replace(path)
        state: dict[str, Tensor] = torch.load(path, weights_only=True)
        return state

    def _set(self, split: str, noise: float) -> str:
        return f"{split}-{noise}-{self.settings.rows}"

    def _examples(self, split: str, noise: float) -> list[noisy.Example]:
        return noisy.noisy(SPLITS[split].training, self.settings.rows, noise)

    def _lesson(self, split: str, noise: float) -> Lesson:
        return Lesson.of(self._examples(split, noise))

    def _draw_held_out(self, split: str) -> tuple[list[noisy.Example], Tensor]:
        held_out = noisy.clean(SPLITS[split].held_out, self.settings.held_out)
        return held_out, images_of(held_out)

    def _open(self, split: str, noise: float, reference: str) -> Published:
        text = self.folder / f"text-scores-{self.settings.text_epochs}-{self._set(split, noise)}"
        published = Published(self.score(split, noise, reference), text)
        published.check_texts([example.caption.text for example in self.lesson(split, noise).examples])
        return published

    def _score_itself(self, split: str, noise: float, seed: int) -> Own:
        lesson = self.lesson(split, noise)
        student = new_student(seed)
        student.load_state_dict(self.early(split, noise, seed))
        texts = [example.caption.text for example in lesson.examples]
        return references.score(student, lesson.images, lesson.tokens, texts)

    def _derive(self, split: str, noise: float, reference: str, seed: int | None, weighting: Weighting) -> Tensor:
        scores = None
        if METHODS[weighting.method].name is not None:
            scores = self.scores(split, noise, reference, seed)
        return self.lesson(split, noise).weights(scores, weighting)

    def _run_once(self, output: Path, arguments: Iterable[str]) -> None:
        if not (output / "_SUCCESS").exists():
            _succeed(score_dataset([*arguments, "--output", str(output), "--no-report", "--executor", "local"]))


def _succeed(code: int) -> None:
    """Raise RuntimeError if a command has failed; it has said why."""
    if code:
        raise RuntimeError(f"a command failed with exit status {code}; its message is above")
