"""The student of `training_gain`: a small VLM with a tower, a tokenizer and an initialisation of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.gain.noisy import Example
from scorer.mini.drawing import draw
from scorer.spans import token_byte_spans

PICTURE: Final = 48
GRID: Final = 3
"""Image tokens a side: four halvings of the picture."""
IMAGE_TOKENS: Final = GRID * GRID
WIDTH: Final = 96
MAX_TOKENS: Final = 64
VOCABULARY: Final = 600
PAD, END, UNKNOWN = "<pad>", "<end>", "<unk>"


def train_tokenizer(captions: Sequence[str]) -> Tokenizer:
    """BPE on lower-cased characters: nothing like the reference's bytes. The same captions give the same ids.

    No trainer with prefixes for the insides of words (WordPiece): those number their pieces in an order that each
    process draws anew, and a student would begin elsewhere whenever a broken-off run goes on.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[PAD, END, UNKNOWN], show_progress=False)
    tokenizer.train_from_iterator(captions, trainer)
    return tokenizer


@dataclass(frozen=True, slots=True)
class Tokens:
    """A caption in the student's tokens: ids [N] with the end, and byte spans [N - 1] of those before it."""

    ids: list[int]
    starts: np.ndarray
    ends: np.ndarray


def encode(tokenizer: Tokenizer, text: str) -> Tokens:
    """Raises ValueError where a caption is longer than the student reads: cut captions would measure something else."""
    encoding = tokenizer.encode(text)
    if len(encoding.ids) >= MAX_TOKENS:
        raise ValueError(f"caption has {len(encoding.ids)} tokens, the student reads {MAX_TOKENS - 1}: {text!r}")
    starts, ends = token_byte_spans(text, encoding.tokens, encoding.offsets)
    return Tokens([*encoding.ids, tokenizer.token_to_id(END)], starts, ends)


class Block(nn.Module):
    """Causal attention and a feed-forward layer, each behind a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.inner, self.outer = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, WIDTH] → the same."""
        b, t, _ = x.shape
        q, k, v = self.qkv(self.norms[0](x)).view(b, t, 3, 4, WIDTH // 4).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, WIDTH))
        return x + self.outer(F.gelu(self.inner(self.norms[1](x))))


class Student(nn.Module):
    """Convolutions halve the picture four times; its 9 cells go before the text into a causal decoder."""

    def __init__(self, vocabulary: int, layers: int = 2) -> None:
        super().__init__()
        sizes = (3, 24, 48, 96, WIDTH)
        convolutions: list[nn.Module] = []
        for i in range(4):
            convolutions += [
                nn.Conv2d(sizes[i], sizes[i + 1], 3, stride=2, padding=1),
                nn.GroupNorm(8, sizes[i + 1]),
                nn.GELU(),
            ]
        self.tower = nn.Sequential(*convolutions, nn.Conv2d(WIDTH, WIDTH, 3, padding=1))
        self.words = nn.Embedding(vocabulary, WIDTH)
        self.places = nn.Parameter(torch.randn(IMAGE_TOKENS + MAX_TOKENS, WIDTH) * 0.02)
        self.blocks = nn.ModuleList(Block() for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, vocabulary)
        nn.init.normal_(self.words.weight, std=0.02)

    def forward(self, pictures: Tensor, ids: Tensor) -> Tensor:
        """Logits [B, 1 + T, V] for uint8 pictures [B, 3, H, W] and ids [B, T]; position 0 predicts the first token."""
        seen = self.tower(pictures.float() / 127.5 - 1).flatten(2).transpose(1, 2)  # [B, IMAGE_TOKENS, WIDTH]
        x = torch.cat([seen, self.words(ids)], 1)
        x = x + self.places[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x[:, IMAGE_TOKENS - 1 :]))
        return logits

    @torch.inference_mode()
    def describe(self, pictures: Tensor, end: int, most: int = 32) -> list[list[int]]:
        """Greedy captions, without the end."""
        ids = torch.zeros((len(pictures), 0), dtype=torch.long)
        for _ in range(most):
            following = self(pictures, ids)[:, -1].argmax(-1, keepdim=True)
            ids = torch.cat([ids, following], 1)
            if bool((ids == end).any(1).all()):
                break
        rows: list[list[int]] = ids.tolist()
        return [row[: row.index(end)] if end in row else row for row in rows]


def pictures_of(examples: Sequence[Example]) -> Tensor:
    """uint8 [N, 3, PICTURE, PICTURE], drawn anew at the student's size."""
    drawn = [np.array(draw(example.scene, PICTURE)) for example in examples]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()
