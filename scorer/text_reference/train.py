"""Train a text reference with the Hugging Face Trainer; a run that was killed continues from its last checkpoint.

DIR/text_reference.json    what was trained on what, and the held-out perplexity; written last
DIR/config.json, …         the model and its tokenizer, as transformers saves them
DIR/_training/             settings, untrained model, checkpoints and the best one while training; removed at the end
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from scorer.config import ScorerConfig
from scorer.documents import parse_object
from scorer.encoding.encoder import Encoder
from scorer.errors import ConfigError, RunError, explain
from scorer.extras import require
from scorer.results import Failure
from scorer.text_reference.recipe import Recipe
from scorer.text_reference.start import save_start
from scorer.text_reference.texts import Example, encode, split
from scorer.types import Sample
from scorer.versions import versions

RECORD: Final = "text_reference.json"
_TRAINING: Final = "_training"
_SETTINGS: Final = "settings.json"
_START: Final = "start"
_BEST: Final = "best"
_STEP: Final = "step.json"
_STATE: Final = "trainer_state.json"
_STEPS_BETWEEN_CHECKPOINTS: Final = 1000
_PATIENCE: Final = 3
"""Checkpoints without a lower held-out loss after which training stops."""
_IGNORED: Final = -100
_MOST_NATS: Final = 700
"""A mean −log P whose exponential is still a float64."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """How well a model predicts texts that it was not trained on.

    Attributes:
        tokens: scored tokens, stop tokens among them.
        nats: their Σ −log P.
        bytes: the size of their texts, in UTF-8.
    """

    tokens: int
    nats: float
    bytes: int

    @property
    def perplexity(self) -> float:
        """exp(mean −log P of a token); comparable between models with the same tokenizer only."""
        return math.exp(min(self.nats / self.tokens, _MOST_NATS))

    @property
    def bits_per_byte(self) -> float:
        """−log₂ P of the texts and their ends, per byte; comparable whatever the tokenizer."""
        return self.nats / math.log(2) / max(1, self.bytes)

    def to_dict(self) -> dict[str, float]:
        """Return the figures as plain data."""
        return {
            "tokens": self.tokens,
            "bytes": self.bytes,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
        }


def train(
    samples: Callable[[], Iterable[Sample | Failure]],
    output: Path,
    recipe: Recipe,
    dataset: Mapping[str, Any],
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Train a text reference, or continue to; return the record, which is in ``text_reference.json`` too.

    A row is encoded as a scoring run will encode it: prompt, questions and earlier turns are context, the scored texts
    and their stop tokens are what is predicted. The checkpoint with the lowest held-out loss is kept.

    Args:
        samples: reads the rows, those that cannot be read as failures; called if there is something to train.
        output: a folder that is empty, or holds this training, begun or finished.
        recipe: the options.
        dataset: identifies the rows and how they are read, prompt included, as plain data.
        say: receives a line for each event worth showing.

    Raises:
        ConfigError: the output holds something else, there are too few texts, the base does not fit, or training
            diverges.
        MissingPackageError: accelerate is not installed.
        ModelError: the base cannot be found.
        RunError: training cannot continue.
    """
    require("accelerate", wanted_by="training a text reference", extra="text-reference")
    settings = json.loads(json.dumps({"recipe": recipe.to_dict(), "dataset": dataset}))
    finished = _begin(output, settings)
    if finished is not None:
        say(f"{output} is already trained; nothing to do")
        return finished
    found = list(samples())
    unread = [row for row in found if isinstance(row, Failure)]
    try:
        trained_on, held_out = split((row for row in found if isinstance(row, Sample)), recipe.held_out, recipe.seed)
    except ConfigError as error:
        raise ConfigError(f"{error}{_why(unread)}") from error
    with _quiet_transformers():
        return _train(trained_on, held_out, unread, output, recipe, settings, say)


def _train(
    trained_on: Sequence[Sample],
    held_out: Sequence[Sample],
    unread: Sequence[Failure],
    output: Path,
    recipe: Recipe,
    settings: Mapping[str, Any],
    say: Say,
) -> dict[str, Any]:
    """Train on the rows given, and write everything to the output."""
    import torch
    from transformers import AutoModelForCausalLM

    work = output / _TRAINING
    start = work / _START
    if not start.is_dir():
        texts = (turn.text for sample in trained_on for turn in sample.turns)
        _atomically(start, lambda folder: save_start(recipe, texts, folder))
    encoder = Encoder.load(start, ScorerConfig(contrast="removed", truncate=True))
    examples, unencoded = encode(trained_on, encoder)
    others, more = encode(held_out, encoder)
    failures = [*unread, *unencoded, *more]
    _check_enough(examples, others, failures)
    tokens = sum(len(one.scored) for one in examples)
    amounts = f"{len(examples):,} rows with {tokens:,} tokens to train on, {len(others):,} held out"
    say(f"{amounts}, {len(failures):,} failed")
    best = work / _BEST
    if not best.is_dir():
        trained = _trained(start, work, examples, others, recipe, say)
        _atomically(best, lambda folder: _save_best(folder, start, *trained))
    model = AutoModelForCausalLM.from_pretrained(best, dtype=torch.float32)
    figures = evaluate(model, others, recipe.batch_size)
    record = {
        "format_version": 1,
        **settings,
        "rows": {"trained_on": len(examples), "held_out": len(others), "failed": len(failures)},
        "tokens": tokens,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **_read(best / _STEP),
        "held_out": figures.to_dict(),
        "versions": versions("torch", "transformers", "tokenizers", "accelerate"),
    }
    for file in best.iterdir():
        if file.name != _STEP:
            shutil.copy2(file, output / file.name)
    _write(output / RECORD, record)
    shutil.rmtree(work)
    return record


def evaluate(model: Any, examples: Sequence[Example], batch_size: int) -> HeldOut:
    """Return how well a causal language model predicts the scored tokens of rows."""
    import torch

    model.eval()
    nats, tokens = 0.0, 0
    with torch.inference_mode():
        for at in range(0, len(examples), batch_size):
            batch = {name: value.to(model.device) for name, value in collate(examples[at : at + batch_size]).items()}
            labels = batch.pop("labels")[:, 1:]
            logprobs = model(**batch).logits[:, :-1].float().log_softmax(-1)
            scored = labels != _IGNORED
            own = logprobs.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
            nats -= float(own[scored].double().sum())
            tokens += int(scored.sum())
    return HeldOut(tokens, nats, sum(one.scored_bytes for one in examples))


def collate(examples: Sequence[Example]) -> dict[str, Any]:
    """Return a batch: ids, mask and labels, int64 [B, T], padded on the right; labels are -100 where nothing is scored.

    Padding repeats a row's own last token: it is hidden by the mask, and no label.
    """
    import torch

    length = max(len(one.ids) for one in examples)
    ids, labels = np.empty((len(examples), length), np.int64), np.full((len(examples), length), _IGNORED, np.int64)
    mask = np.zeros_like(ids)
    for row, one in enumerate(examples):
        ids[row, : len(one.ids)], ids[row, len(one.ids) :] = one.ids, one.ids[-1]
        labels[row, one.scored] = one.ids[one.scored]
        mask[row, : len(one.ids)] = 1
    return {name: torch.from_numpy(a) for name, a in (("input_ids", ids), ("attention_mask", mask), ("labels", labels))}


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence progress bars and warnings about weights that are tied."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _begin(output: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Prepare the output; return the record of a finished training with the same settings. Raises ConfigError."""
    held = sorted(path.name for path in output.iterdir()) if output.is_dir() else []
    if RECORD in held:
        record = _read(output / RECORD)
        _refuse_other(output, {name: record.get(name) for name in settings}, settings)
        return record
    work = output / _TRAINING
    if (work / _BEST).is_dir() or last_checkpoint(work) is not None:
        _refuse_other(output, _read(work / _SETTINGS), settings)
        return None
    others = [name for name in held if name != _TRAINING]
    if others:
        raise ConfigError(
            f"--output {output} holds {len(others)} files or folders that do not belong to a text reference "
            f"(such as {others[0]}); give an empty folder"
        )
    try:
        if work.is_dir() and (not (work / _SETTINGS).is_file() or _read(work / _SETTINGS) != settings):
            shutil.rmtree(work)  # nothing was trained yet
        work.mkdir(parents=True, exist_ok=True)
        _write(work / _SETTINGS, settings)
    except OSError as error:
        raise ConfigError(f"--output {output} cannot be written ({error.strerror}); give another folder") from error
    return None


def _refuse_other(output: Path, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    different = [
        f"{name} was {old!r}, is {new!r}"
        for part in given
        for name, old, new in _differences(part, stored.get(part), given[part])
    ]
    if different:
        raise ConfigError(
            f"--output {output} holds a training with other options: {'; '.join(different)[:500]}; give the same ones "
            "to continue, or an empty folder"
        )


def _differences(name: str, old: Any, new: Any) -> Iterable[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(key, old.get(key), new.get(key))
    elif old != new:
        yield name, old, new


def _check_enough(examples: Sequence[Example], others: Sequence[Example], failures: Sequence[Failure]) -> None:
    if examples and others:
        return
    raise ConfigError(
        f"{len(examples)} rows can be trained on and {len(others)} are held out, but both must be at least 1"
        f"{_why(failures)}"
    )


def _why(failures: Sequence[Failure]) -> str:
    """Say how many rows cannot be used and why the first cannot; nothing if all can."""
    if not failures:
        return ""
    first = failures[0]
    return f"; {len(failures)} rows cannot be read or encoded; the first: {first.sample_id}: {first.message}"


def _check_ids(model: Any, examples: Sequence[Example], recipe: Recipe) -> None:
    """Refuse a base whose tokenizer is another model's. Raises ConfigError."""
    most, known = max(int(one.ids.max()) for one in examples), model.get_input_embeddings().num_embeddings
    if most >= known:
        raise ConfigError(
            f"--base {recipe.base!r} has embeddings for {known} tokens, but its tokenizer gives a text the id {most}; "
            "give a model with its own tokenizer"
        )


def _trained(
    start: Path, work: Path, examples: Sequence[Example], others: Sequence[Example], recipe: Recipe, say: Say
) -> tuple[Any, int]:
    """Train from the last complete checkpoint, or from the start; return the best model and its step."""
    import torch
    from transformers import (
        AutoModelForCausalLM,
        EarlyStoppingCallback,
        PrinterCallback,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )

    class Line(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
        """Says how far training is, at every evaluation."""

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **others: Any) -> None:
            perplexity = math.exp(min(metrics["eval_loss"], _MOST_NATS))
            say(f"step {state.global_step:,}/{state.max_steps:,} · held-out perplexity {perplexity:,.2f}")

    set_seed(recipe.seed)
    per_epoch = -(-len(examples) // recipe.batch_size)
    every = min(per_epoch, _STEPS_BETWEEN_CHECKPOINTS)
    cuda = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(work),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        learning_rate=recipe.peak_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, recipe.epochs * per_epoch // 10),
        weight_decay=0.1,
        seed=recipe.seed,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=every,
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_strategy="no",
        report_to="none",
        push_to_hub=False,
        disable_tqdm=True,
        use_cpu=not cuda,
        bf16=cuda and torch.cuda.is_bf16_supported(),
        remove_unused_columns=False,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # with more, the trainer would divide each batch among them
    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    _check_ids(model, [*examples, *others], recipe)
    trainer = Trainer(
        model,
        arguments,
        data_collator=collate,
        train_dataset=list(examples),
        eval_dataset=list(others),
        callbacks=[EarlyStoppingCallback(_PATIENCE), Line()],
    )
    trainer.remove_callback(PrinterCallback)
    last = last_checkpoint(work)
    if last is not None:
        say(f"continuing from {last.name}")
    try:
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    except OSError as error:
        raise RunError(f"training in {work} stopped: {explain(error)}; free space or change permissions") from error
    best = trainer.state.best_global_step
    if best is None:
        raise ConfigError(
            f"training diverged: the held-out loss was never finite at a learning rate of {recipe.peak_rate:g}; "
            "lower --learning-rate, and give an empty --output"
        )
    return trainer.model, int(best)


def last_checkpoint(work: Path) -> Path | None:
    """Return the last checkpoint that is complete: the trainer writes its state last."""
    complete = []
    for path in work.glob("checkpoint-*"):
        try:
            parse_object((path / _STATE).read_bytes())
        except (OSError, ValueError):
            continue
        complete.append(path)
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _save_best(folder: Path, start: Path, model: Any, step: int) -> None:
    """Save the model, its step, and from the start what is not the model's own: tokenizer and chat template."""
    model.save_pretrained(folder)
    for file in start.iterdir():
        if not (folder / file.name).exists() and "safetensors" not in file.name:
            shutil.copy2(file, folder / file.name)
    _write(folder / _STEP, {"best_step": step})


def _atomically(folder: Path, save: Callable[[Path], None]) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    for old in (partial, folder):
        shutil.rmtree(old, ignore_errors=True)
    partial.mkdir(parents=True)
    save(partial)
    partial.rename(folder)


def _read(path: Path) -> dict[str, Any]:
    try:
        return parse_object(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; give an empty --output") from error


def _write(path: Path, document: Mapping[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
