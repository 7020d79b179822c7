"""Hugging Face's Trainer: the loss by hand, and the same step however it is cut into micro-batches."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from scorer.errors import ConfigError, TableError, WeightsError
from scorer.training import WeightAligner, WeightedCollator, WeightedText
from scorer.training.huggingface import WeightedTrainer
from scorer.training.weighted_steps import refuse_what_loses_weights
from tests.scorer.training import distributed_driver
from tests.scorer.training.chat_collator import ChatCollator, arguments
from tests.scorer.training.conftest import Scored

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def model(chatml_model: Path) -> Iterator[Any]:
    yield AutoModelForImageTextToText.from_pretrained(chatml_model)


@pytest.fixture(scope="module")
def processor(chatml_model: Path) -> Any:
    return AutoProcessor.from_pretrained(chatml_model)


def weighted(scored: Scored, processor: Any, **options: Any) -> WeightedCollator:
    return WeightedCollator(ChatCollator(processor), WeightAligner(processor, **options), scored.table())


def by_hand(model: Any, batch: dict[str, Tensor], divide_by: str) -> float:
    """One token at a time, in double precision."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values")}
    with torch.no_grad():
        logits = model(**inputs).logits.double().numpy()
    top = bottom = 0.0
    for row, labels in enumerate(batch["labels"].tolist()):
        for t in range(1, len(labels)):
            if labels[t] != -100:
                scores = logits[row, t - 1]
                nll = np.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[labels[t]]
                weight = float(batch["token_weights"][row, t])
                top += weight * nll
                bottom += weight if divide_by == "weights" else 1
    return top / bottom


@pytest.mark.parametrize("normalization", ["weights", "tokens"])
def test_the_loss_by_hand(scored: Scored, model: Any, processor: Any, tmp_path: Path, normalization: str) -> None:
    collator = weighted(scored, processor, mean="sequence" if normalization == "tokens" else "none")
    batch = collator(scored.messages()[:4])
    trainer = WeightedTrainer(model, arguments(tmp_path), data_collator=collator, normalization=normalization)
    seen: list[set[str]] = []
    model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(set(kwargs)), with_kwargs=True)
    loss = trainer.compute_loss(model, batch).item()
    assert loss == pytest.approx(by_hand(model, batch, normalization), rel=1e-6)
    assert seen[0] == {"input_ids", "attention_mask", "pixel_values"}  # neither weights nor labels
    plain = {**batch, "token_weights": (batch["labels"] != -100).float()}
    assert abs(trainer.compute_loss(model, plain).item() - loss) > 1e-3  # negative control
    if normalization == "tokens":
        weights, labels = batch["token_weights"], batch["labels"]
        means = [float(w[label != -100].mean()) for w, label in zip(weights, labels, strict=True)]
        assert_allclose(means, 1, rtol=1e-5)


def test_the_weights_in_a_batch_are_the_published_ones(scored: Scored, processor: Any) -> None:
    samples = scored.messages()[:3]
    batch = weighted(scored, processor)(samples)
    assert batch["token_weights"].dtype == torch.float32
    assert batch["token_weights"].shape == batch["labels"].shape
    for row, sample in enumerate(samples):
        published = scored.table().find(sample["id"])
        text = sample["messages"][1]["content"][0]["text"]
        ids, labels = batch["input_ids"][row].numpy(), batch["labels"][row].numpy()
        (wanted,) = WeightAligner(processor)([ids], [labels], [WeightedText(published, [text])])
        assert_allclose(batch["token_weights"][row], wanted)
        assert published.scores is not None
        assert published.weights is not None
        size = published.scores.token_ends - published.scores.token_starts
        spent = sum(
            len(processor.tokenizer.decode([i])) * w for i, w, label in zip(ids, wanted, labels, strict=True) if w != 1
        )
        assert spent > 0
        assert (published.weights * size).sum() >= spent  # ASCII captions: bytes are characters


STEPS = [(8, 1), (4, 2), (2, 4), (1, 8)]


@pytest.mark.parametrize("normalization", ["weights", "tokens"])
def test_a_step_is_the_same_however_it_is_cut(
    scored: Scored, chatml_model: Path, processor: Any, tmp_path: Path, normalization: Any
) -> None:
    """1 × 8 = 2 × 4 = 4 × 2 = 8 × 1: loss and parameters after an optimizer's step."""

    def train(batch: int, accumulate: int, cls: type[WeightedTrainer] = WeightedTrainer) -> tuple[float, Tensor]:
        model = AutoModelForImageTextToText.from_pretrained(chatml_model)
        args = arguments(tmp_path, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulate)
        collator = weighted(scored, processor)
        trainer = cls(model, args, data_collator=collator, train_dataset=samples, normalization=normalization)
        loss = trainer.train().training_loss
        return loss, torch.cat([p.detach().flatten() for p in model.parameters()])

    samples: Any = scored.messages()[:8]
    (loss, parameters), *others = (train(*cut) for cut in STEPS)
    before = AutoModelForImageTextToText.from_pretrained(chatml_model).parameters()
    assert (torch.cat([p.detach().flatten() for p in before]) - parameters).abs().max() > 1e-3  # it trained
    for other_loss, other in others:
        assert other_loss == pytest.approx(loss, rel=1e-6)
        assert_allclose(other.numpy(), parameters.numpy(), atol=1e-6)

    class EachItsOwn(WeightedTrainer):
        """Negative control: every micro-batch divided by its own Σ w."""

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            total = self.total(inputs) * self.current_gradient_accumulation_steps
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch=total)

    wrong, _ = train(2, 4, EachItsOwn)
    assert abs(wrong - loss) > 1e-5 * loss


def test_evaluation(scored: Scored, model: Any, processor: Any, tmp_path: Path) -> None:
    collator = weighted(scored, processor)
    samples: Any = scored.messages()[:4]
    args = arguments(tmp_path, per_device_eval_batch_size=4)
    trainer = WeightedTrainer(model, args, data_collator=collator, eval_dataset=samples)
    loss = trainer.evaluate()["eval_loss"]
    assert loss == pytest.approx(by_hand(model, collator(samples), "weights"), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"remove_unused_columns": True}, "remove_unused_columns=True: it drops the samples' ids; set it to False"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor: it replaces the loss; set it to 0"),
    ],
)
def test_arguments_that_lose_the_weights(model: Any, tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"WeightedTrainer cannot weight the loss with {message}"):
        WeightedTrainer(model, arguments(tmp_path, **options))


def no_loss(*_: Any, **__: Any) -> Tensor:
    raise AssertionError


@pytest.mark.parametrize(
    ("gpus", "shards", "message"),
    [
        (2, {}, "several GPUs in one process: it splits batches without their weights; launch with torchrun"),
        (1, {"cp_enabled": True}, "context, sequence or tensor parallelism: it splits labels without their weights"),
        (1, {"sp_enabled": True}, "parallelism"),
        (1, {"tp_enabled": True}, "parallelism"),
    ],
)
def test_ways_to_split_batches_that_lose_the_weights(gpus: int, shards: dict[str, bool], message: str) -> None:
    """Devices cannot be had here; what the check reads of them can."""
    plain = dict.fromkeys(("cp_enabled", "sp_enabled", "tp_enabled"), False)
    args = SimpleNamespace(remove_unused_columns=False, label_smoothing_factor=0, n_gpu=1)
    accelerator = SimpleNamespace(parallelism_config=SimpleNamespace(**plain))
    trainer: Any = SimpleNamespace(args=args, accelerator=accelerator, compute_loss_func=None)
    refuse_what_loses_weights(trainer)
    args.n_gpu, accelerator.parallelism_config = gpus, SimpleNamespace(**{**plain, **shards})
    with pytest.raises(ConfigError, match=message):
        refuse_what_loses_weights(trainer)


def test_a_loss_of_ones_own_and_other_normalizations(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="compute_loss_func: it replaces the loss; leave it out"):
        WeightedTrainer(model, arguments(tmp_path), compute_loss_func=no_loss)
    with pytest.raises(ConfigError, match="normalization is 'mean'; it must be 'weights' or 'tokens'"):
        WeightedTrainer(model, arguments(tmp_path), normalization="mean")  # type: ignore[arg-type]  # wrong on purpose


def test_a_batch_without_weights(scored: Scored, model: Any, processor: Any, tmp_path: Path) -> None:
    batch = ChatCollator(processor)(scored.messages()[:1])
    with pytest.raises(WeightsError, match=r"the batch has no 'token_weights'; it has .*WeightedCollator"):
        WeightedTrainer(model, arguments(tmp_path)).compute_loss(model, batch)


Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda sample: sample.pop("id"),
            r"a sample has no 'id'; it has images, messages: .*remove_unused_columns=False",
        ),
        (lambda sample: sample.update(id="x"), "has no row with the id 'x'"),
        (lambda sample: sample.pop("messages"), r"a sample has id, images, and no messages.*texts=<function"),
        (
            lambda sample: sample["messages"][1].update(content="A kite"),
            r"row 0 of train-0\.parquet .*'A kite' has hash",
        ),
    ],
)
def test_samples_that_cannot_be_looked_up(scored: Scored, processor: Any, change: Change, message: str) -> None:
    sample = scored.messages()[0]
    change(sample)
    with pytest.raises(TableError, match=message):
        weighted(scored, processor)([sample])


def test_a_collator_that_cuts(scored: Scored, processor: Any) -> None:
    samples = scored.messages()[:4]
    whole = weighted(scored, processor)(samples)
    collator = WeightedCollator(ChatCollator(processor, 60), WeightAligner(processor, max_length=60), scored.table())
    assert torch.equal(collator(samples)["token_weights"], whole["token_weights"][:, :60])


def test_two_processes_make_the_same_step(scored: Scored, chatml_model: Path, tmp_path: Path) -> None:
    """2 processes × 2 micro-batches of 2 rows = 1 process × 2 of 4: Σ w is gathered, and gradients are averaged."""
    paths = [str(scored.weights), str(scored.data), str(chatml_model)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", distributed_driver.__name__, *paths, str(tmp_path / "two.pt"), "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    distributed_driver.main(*paths, str(tmp_path / "one.pt"), "4")
    two, one = (torch.load(tmp_path / f"{name}.pt") for name in ("two", "one"))
    assert (two["world"], one["world"]) == (2, 1)
    before = AutoModelForImageTextToText.from_pretrained(chatml_model).parameters()
    assert (torch.cat([p.detach().flatten() for p in before]) - one["parameters"]).abs().max() > 1e-3
    assert_allclose(two["parameters"].numpy(), one["parameters"].numpy(), atol=1e-6)
