"""One optimizer's step of WeightedTrainer in as many processes as ``torchrun`` starts: ``WEIGHTS DATA MODEL OUT``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from scorer.training import WeightAligner, WeightedCollator, WeightTable
from scorer.training.huggingface import WeightedTrainer
from tests.scorer.training.chat_collator import ChatCollator, arguments
from tests.scorer.training.conftest import Scored


def main(weights: str, data: str, model_path: str, out: str, batch: str) -> None:
    torch.set_num_threads(1)
    scored = Scored(Path(data), Path(weights), Path(weights))
    processor = AutoProcessor.from_pretrained(model_path)
    model = AutoModelForImageTextToText.from_pretrained(model_path)
    collator = WeightedCollator(ChatCollator(processor), WeightAligner(processor), WeightTable.open(weights))
    args = arguments(
        Path(out).parent,
        per_device_train_batch_size=int(batch),
        gradient_accumulation_steps=2,
        train_sampling_strategy="sequential",
        ddp_find_unused_parameters=True,
    )
    trainer = WeightedTrainer(model, args, data_collator=collator, train_dataset=scored.messages()[:8])
    loss = trainer.train().training_loss
    if trainer.is_world_process_zero():
        parameters = torch.cat([p.detach().flatten() for p in model.parameters()])
        torch.save({"loss": loss, "parameters": parameters, "world": args.world_size}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
