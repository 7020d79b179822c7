"""Train a small captioner in plain PyTorch with weights computed ahead of training.

    tokensight score --input scorer/mini/sample --output weights
    python examples/train_plain_pytorch.py --data scorer/mini/sample --weights weights

The trainer has another model and another tokenizer than the reference model; they share nothing but the captions.
Three calls do the work: ``read_weights`` reads the rows of the published output, ``project`` transfers the weights from
the reference model's tokens to the trainer's, and ``weighted_cross_entropy`` computes the loss.
"""

from __future__ import annotations

import argparse
import io
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn

from scorer.spans import project, token_byte_spans
from scorer.training import WeightRow, read_weights, weighted_cross_entropy

IMAGE_SIZE, PATCH, WIDTH, MAX_TOKENS = 64, 16, 96, 256
PATCHES = (IMAGE_SIZE // PATCH) ** 2
END = "<end>"
END_WEIGHT = 1.0  # where the output has none: with weight 0 the model would never learn to stop


@dataclass(frozen=True)
class Example:
    pixels: Tensor  # float32 [3, IMAGE_SIZE, IMAGE_SIZE]
    ids: list[int]
    weights: list[float]  # one per id


def read_dataset(data: str, weights: str) -> list[tuple[bytes, str, WeightRow]]:
    """Return image, caption and weights of every scored row: a published file has its shard's name and rows."""
    rows = []
    published = read_weights(weights)
    for shard in published.shards:
        table = pq.read_table(f"{data}/{shard}", columns=["image", "caption"])
        for row in published.shard(shard):
            if row.ok:  # leave out rows that could not be scored: they have no weights
                image, caption = (table[name][row.row_index].as_py() for name in ("image", "caption"))
                row.check_text([caption])  # refuse a caption that is not, byte for byte, the one that was scored
                rows.append((image["bytes"], caption, row))
    return rows


def train_tokenizer(captions: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=384, initial_alphabet=alphabet, special_tokens=[END], show_progress=False)
    tokenizer.train_from_iterator(captions, trainer)
    return tokenizer


def encode(image: bytes, caption: str, row: WeightRow, tokenizer: Tokenizer) -> Example:
    assert row.scores is not None and row.weights is not None
    encoding = tokenizer.encode(caption)
    starts, ends = token_byte_spans(caption, encoding.tokens, encoding.offsets)
    weights = project(row.weights, row.scores.token_starts, row.scores.token_ends, starts, ends)
    stop = row.weights[row.scores.is_stop].tolist()  # the reference model's stop token, which has an empty span
    resized = Image.open(io.BytesIO(image)).convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE))
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255
    return Example(
        pixels,
        [*encoding.ids[: MAX_TOKENS - 1], tokenizer.token_to_id(END)],
        [*weights[: MAX_TOKENS - 1].tolist(), stop[0] if stop else END_WEIGHT],
    )


def collate(examples: list[Example]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return pixels [B, 3, H, W] and aligned ids, labels and weights [B, T]; padding has label -100 and weight 0."""
    shape = len(examples), max(len(example.ids) for example in examples)
    ids, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, -100)
    weights = torch.zeros(shape)
    for b, example in enumerate(examples):
        n = len(example.ids)
        ids[b, :n] = labels[b, :n] = torch.tensor(example.ids)
        weights[b, :n] = torch.tensor(example.weights)
    return torch.stack([example.pixels for example in examples]), ids, labels, weights


class Captioner(nn.Module):
    """A causal transformer over image patches followed by text."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.words = nn.Embedding(vocabulary, WIDTH)
        self.places = nn.Parameter(torch.randn(PATCHES + MAX_TOKENS, WIDTH) * 0.02)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, vocabulary)

    def forward(self, pixels: Tensor, ids: Tensor) -> Tensor:
        """Return logits [B, 1 + T, V]: those of the last patch, which predicts the first token, then the text's."""
        image = self.patches(pixels).flatten(2).transpose(1, 2)  # [B, PATCHES, WIDTH]
        x = torch.cat([image, self.words(ids)], dim=1)
        x = x + self.places[: x.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        hidden = self.body(x, mask=mask, is_causal=True)
        logits: Tensor = self.head(hidden[:, PATCHES - 1 :])
        return logits


def main(arguments: list[str] | None = None) -> list[tuple[float, float]]:
    parser = argparse.ArgumentParser(description="Train a small captioner with precomputed token weights.")
    parser.add_argument("--data", required=True, help="folder of Parquet shards with the columns image and caption")
    parser.add_argument("--weights", required=True, help="output of tokensight score on that folder")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    rows = read_dataset(options.data, options.weights)
    tokenizer = train_tokenizer([caption for _, caption, _ in rows])
    examples = [encode(*row, tokenizer) for row in rows]
    model = Captioner(tokenizer.get_vocab_size())
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for step in range(options.steps):
        chosen = torch.randint(len(examples), (options.batch,)).tolist()
        pixels, ids, labels, weights = collate([examples[i] for i in chosen])
        logits = model(pixels, ids)[:, :-1]  # logits[t] predicts ids[t]: the shift is done
        loss = weighted_cross_entropy(logits, labels, weights, shift=False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            uniform = weighted_cross_entropy(logits, labels, torch.ones_like(weights), shift=False)
        losses.append((loss.item(), uniform.item()))
        if step % 5 == 0 or step == options.steps - 1:
            print(f"step {step:3d}   weighted loss {loss.item():.3f}   uniform loss {uniform.item():.3f}")
    return losses


if __name__ == "__main__":
    main()
