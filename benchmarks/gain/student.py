"""The student of `training_gain`: a small VLM whose tower, tokenizer and initialisation are not the reference's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.gain.noisy import OTHER_WORLD, Example, clean, noisy
from scorer.mini.world.drawing import draw
from scorer.spans import token_byte_spans

IMAGE_SIZE: Final = 48
GRID: Final = 3
"""Image tokens per side: the image halved four times."""
IMAGE_TOKENS: Final = GRID * GRID
WIDTH: Final = 96
MAX_TOKENS: Final = 64
VOCABULARY: Final = 600
PAD, END, UNKNOWN = "<pad>", "<end>", "<unk>"


def train_tokenizer(captions: Sequence[str]) -> Tokenizer:
    """Train BPE on lower-cased characters, unlike the reference model's bytes. The same captions give the same ids.

    WordPiece would not do: its trainer numbers pieces in an order that differs between processes, so a student would
    start differently when an interrupted run is resumed.
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
    """A caption in the student's tokens: ids [N] including the end, and byte spans [N - 1] of the others."""

    ids: list[int]
    starts: np.ndarray
    ends: np.ndarray


@cache
def student_tokenizer() -> Tokenizer:
    """Return the tokenizer of every student, whatever it is trained on: trained on captions of both worlds."""
    captions = [*noisy("tokenizer", 1000, 0.2), *clean("tokenizer", 1000, OTHER_WORLD)]
    return train_tokenizer([example.caption.text for example in captions])


def id_of(tokenizer: Tokenizer, token: str) -> int:
    """Return a special token's id."""
    found = tokenizer.token_to_id(token)
    assert found is not None, token
    return found


def encode(tokenizer: Tokenizer, text: str) -> Tokens:
    """Encode a caption.

    Raises:
        ValueError: it is longer than the student reads; truncated captions would measure something else.
    """
    encoding = tokenizer.encode(text)
    if len(encoding.ids) >= MAX_TOKENS:
        raise ValueError(f"caption has {len(encoding.ids)} tokens, the student reads {MAX_TOKENS - 1}: {text!r}")
    starts, ends = token_byte_spans(text, encoding.tokens, encoding.offsets)
    return Tokens([*encoding.ids, id_of(tokenizer, END)], starts, ends)


class Block(nn.Module):
    """Causal attention and a feed-forward layer, each after a norm."""

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
        y: Tensor = x + self.outer(F.gelu(self.inner(self.norms[1](x))))
        return y


class Student(nn.Module):
    """A small VLM: convolutions halve the image four times, and a causal decoder reads its 9 cells before the text."""

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

    def see(self, images: Tensor) -> Tensor:
        """Return the image tokens [B, IMAGE_TOKENS, WIDTH] of uint8 images [B, 3, H, W]."""
        seen: Tensor = self.tower(images.float() / 127.5 - 1).flatten(2).transpose(1, 2)
        return seen

    def read(self, seen: Tensor, ids: Tensor, last: bool = False) -> Tensor:
        """Return logits [B, 1 + T, V] for image tokens and ids [B, T]; `last` only the last position's, [B, 1, V]."""
        x = torch.cat([seen, self.words(ids)], 1)
        x = x + self.places[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x[:, -1:] if last else x[:, IMAGE_TOKENS - 1 :]))
        return logits

    def forward(self, images: Tensor, ids: Tensor) -> Tensor:
        """Return logits [B, 1 + T, V] for uint8 images [B, 3, H, W] and ids [B, T]; position 0 predicts token 0."""
        return self.read(self.see(images), ids)

    @torch.inference_mode()
    def describe(self, images: Tensor, end: int, most: int = 32) -> list[list[int]]:
        """Return greedy captions, without the end."""
        seen, ids = self.see(images), torch.zeros((len(images), 0), dtype=torch.long)
        rows: list[list[int]] = [[] for _ in images]
        writing = torch.arange(len(images))
        for _ in range(most):
            following = self.read(seen, ids, last=True).argmax(-1)  # [B, 1]
            going_on = following[:, 0] != end
            seen, writing = seen[going_on], writing[going_on]
            ids = torch.cat([ids, following], 1)[going_on]
            if not len(writing):
                break
            for row, token in zip(writing.tolist(), ids[:, -1].tolist(), strict=True):
                rows[row].append(token)
        return rows


def images_of(examples: Sequence[Example]) -> Tensor:
    """Draw the scenes at the student's size, uint8 [N, 3, IMAGE_SIZE, IMAGE_SIZE]."""
    drawn = [np.array(draw(example.scene, IMAGE_SIZE)) for example in examples]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()
