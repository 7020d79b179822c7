"""A collator and arguments for Hugging Face's Trainer, as users write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import TrainingArguments


class ChatCollator:
    """Renders, tokenizes and pads; trains on what follows the prompt. A trainer's own, as users write them."""

    def __init__(self, processor: Any, max_length: int | None = None) -> None:
        self.processor, self.max_length = processor, max_length

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        render = self.processor.apply_chat_template
        images = [image for sample in samples for image in sample["images"]]
        texts = [render(sample["messages"]) for sample in samples]
        prompts = [render(sample["messages"][:-1]) + "<|im_start|>assistant\n" for sample in samples]
        batch = self.processor(images=images, text=texts, padding=True, return_tensors="pt")
        lengths = self.processor(images=images, text=prompts, padding=True, return_tensors="pt")["attention_mask"].sum(
            -1
        )
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        for row, length in enumerate(lengths):
            labels[row, :length] = -100
        cut = {"input_ids", "attention_mask"} if self.max_length else set()
        out = {name: value[:, : self.max_length] if name in cut else value for name, value in batch.items()}
        return {**out, "labels": labels[:, : self.max_length]}


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    defaults = {
        "output_dir": str(folder),
        "report_to": [],
        "use_cpu": True,
        "save_strategy": "no",
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "optim": "sgd",
        "learning_rate": 0.5,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "num_train_epochs": 1,
        "logging_steps": 1,
        "seed": 0,
    }
    return TrainingArguments(**{**defaults, **options})
