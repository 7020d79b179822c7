"""TRL's SFTTrainer for VLMs: the loss by hand, with and without LoRA, and the loss modes that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from numpy.testing import assert_allclose
from peft import LoraConfig, PromptTuningConfig
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from scorer.errors import ConfigError, WeightsError
from scorer.training import WeightAligner, WeightedCollator
from scorer.training.trl import WeightedSFTTrainer
from tests.scorer.training.conftest import Scored
from tests.scorer.training.test_huggingface import STEPS, by_hand

# TRL and PEFT themselves use what this release of transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning")
LORA = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")


@pytest.fixture(scope="module")
def processor(chatml_model: Path) -> Any:
    return AutoProcessor.from_pretrained(chatml_model)


@pytest.fixture(scope="module")
def samples(scored: Scored) -> Dataset:
    """Prompt and completion: TRL trains on the completion."""
    rows = [
        {"id": row["id"], "images": row["images"], "prompt": row["messages"][:1], "completion": row["messages"][1:]}
        for row in scored.messages()[:8]
    ]
    return Dataset.from_list(rows)


@pytest.fixture
def collator(scored: Scored, processor: Any) -> WeightedCollator:
    inner = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)
    return WeightedCollator(inner, WeightAligner(processor), scored.table())


def arguments(folder: Path, **options: Any) -> SFTConfig:
    defaults = {
        "output_dir": str(folder),
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "optim": "sgd",
        "learning_rate": 0.5,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "num_train_epochs": 1,
        "logging_steps": 1,
        "max_length": None,
        "per_device_eval_batch_size": 8,
    }
    return SFTConfig(**{**defaults, **options})


def trainer_of(model: Path, collator: Any, samples: Any, folder: Path, **options: Any) -> WeightedSFTTrainer:
    own = {name: options.pop(name) for name in ("peft_config", "normalization", "compute_loss_func") if name in options}
    loaded = AutoModelForImageTextToText.from_pretrained(model)
    torch.manual_seed(0)
    return WeightedSFTTrainer(
        loaded, arguments(folder, **options), collator, train_dataset=samples, eval_dataset=samples, **own
    )


@pytest.mark.parametrize("lora", [None, LORA])
@pytest.mark.parametrize("normalization", ["weights", "tokens"])
def test_the_loss_by_hand(
    chatml_model: Path, collator: Any, processor: Any, samples: Dataset, tmp_path: Path, lora: Any, normalization: Any
) -> None:
    """Evaluated, and trained in one step that is cut in two."""
    options = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "normalization": normalization}
    trainer = trainer_of(chatml_model, collator, samples, tmp_path, peft_config=lora, **options)
    batch = collator([dict(row) for row in samples])
    assert (batch["labels"] != -100).sum() > 100
    assert batch["token_weights"].unique().numel() > 10
    wanted = by_hand(trainer.model, batch, normalization)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(wanted, rel=1e-5)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert trainer.train().training_loss == pytest.approx(wanted, rel=1e-5)
    (log,) = (log for log in trainer.state.log_history if "loss" in log)
    assert 0 < log["entropy"] < 10  # TRL's own metrics are still there
    after = dict(trainer.model.named_parameters())
    assert all("lora_" in name for name in before) == (lora is not None)
    assert max(float((after[name] - value).detach().abs().max()) for name, value in before.items()) > 1e-4
    unweighted = {**batch, "token_weights": (batch["labels"] != -100).float()}
    assert abs(by_hand(trainer.model, unweighted, normalization) - wanted) > 1e-3  # negative control


def test_a_step_is_the_same_however_it_is_cut(
    chatml_model: Path, collator: Any, samples: Dataset, tmp_path: Path
) -> None:
    results = []
    for batch, accumulate in STEPS:
        options = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulate}
        trainer = trainer_of(chatml_model, collator, samples, tmp_path, **options)
        loss = trainer.train().training_loss
        results.append((loss, torch.cat([p.detach().flatten() for p in trainer.model.parameters()]).numpy()))
    for loss, parameters in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-6)
        assert_allclose(parameters, results[0][1], atol=1e-6)


def test_weights_that_are_all_small(chatml_model: Path, collator: Any, samples: Dataset, tmp_path: Path) -> None:
    """Only their proportions matter, also where Σ w is below 1, which TRL's own divisor would be clamped to."""
    trainer = trainer_of(chatml_model, collator, samples, tmp_path)
    trainer.model.eval()
    batch = collator([dict(row) for row in samples])
    small = {**batch, "token_weights": batch["token_weights"] / 1e6}
    loss = trainer.compute_loss(trainer.model, dict(batch)).item()
    assert trainer.compute_loss(trainer.model, dict(small)).item() == pytest.approx(loss, rel=1e-5)
    nothing = {**batch, "token_weights": torch.zeros_like(batch["token_weights"])}
    assert trainer.compute_loss(trainer.model, dict(nothing)).item() == 0


def no_loss(*_: Any, **__: Any) -> Any:
    raise AssertionError


@pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL's own, of some of these options
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"packing": True}, "packing=True: it joins text-only samples"),
        ({"eval_packing": True}, "packing=True: it joins text-only samples"),
        ({"padding_free": True}, "padding_free=True: it joins samples with TRL's own collator"),
        ({"loss_type": "dft"}, "loss_type='dft': it is another loss; use 'nll'"),
        ({"remove_unused_columns": True}, "remove_unused_columns=True: it drops the samples' ids"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor: it replaces the loss"),
        ({"compute_loss_func": no_loss}, "compute_loss_func: it replaces the loss"),
    ],
)
def test_loss_modes_that_cannot_carry_weights(
    chatml_model: Path, collator: Any, samples: Dataset, tmp_path: Path, options: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"WeightedSFTTrainer cannot weight the loss with {message}"):
        trainer_of(chatml_model, collator, samples, tmp_path, **options)


def test_prompt_learning_adds_positions(chatml_model: Path, collator: Any, samples: Dataset, tmp_path: Path) -> None:
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    trainer = trainer_of(chatml_model, collator, samples, tmp_path, peft_config=config)
    with pytest.raises(WeightsError, match="prompt-learning PEFT adds positions; use LoRA"):
        trainer.train()


def test_other_collators_are_refused(chatml_model: Path, collator: Any, samples: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data_collator is NoneType, .*; give a scorer\.training\.WeightedCollator"):
        trainer_of(chatml_model, None, samples, tmp_path)
    with pytest.raises(ConfigError, match="args is None; give an SFTConfig"):
        WeightedSFTTrainer(AutoModelForImageTextToText.from_pretrained(chatml_model), None, collator)
