"""Train the captioner of the plain PyTorch example with Lightning: ``python examples/train_lightning.py --help``.

Lightning averages the losses of ``accumulate_grad_batches`` batches, each divided by the batch's Σ w, as CAL's authors
train. This differs from one large batch only if Σ w varies much between batches.
"""

from __future__ import annotations

import argparse
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from train_plain_pytorch import Captioner, collate, encode, read_dataset, train_tokenizer

from scorer.training import weighted_cross_entropy


class WeightedCaptioner(lightning.LightningModule):
    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.model = Captioner(vocabulary)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor, Tensor], _: int) -> Tensor:
        pixels, ids, labels, weights = batch
        logits = self.model(pixels, ids)[:, :-1]  # logits[t] predicts ids[t]: the shift is done
        loss = weighted_cross_entropy(logits, labels, weights, shift=False)
        self.log("loss", loss, batch_size=len(ids))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def main(arguments: list[str] | None = None) -> lightning.Trainer:
    parser = argparse.ArgumentParser(description="Train a small captioner with precomputed token weights.")
    parser.add_argument("--data", required=True, help="folder of Parquet shards with the columns image and caption")
    parser.add_argument("--weights", required=True, help="output of tokensight score on that folder")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args(arguments)

    lightning.seed_everything(0, verbose=False)
    rows = read_dataset(options.data, options.weights)
    tokenizer = train_tokenizer([caption for _, caption, _ in rows])
    examples = [encode(*row, tokenizer) for row in rows]
    rows: Any = examples  # a list works as a Dataset, though the loader's type does not say so
    loader = DataLoader(rows, batch_size=options.batch, shuffle=True, collate_fn=collate)
    trainer = lightning.Trainer(
        max_steps=options.steps,
        accelerator="auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(WeightedCaptioner(tokenizer.get_vocab_size()), loader)
    print(f"loss of the last step: {trainer.callback_metrics['loss'].item():.3f}")
    return trainer


if __name__ == "__main__":
    main()
