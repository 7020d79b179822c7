"""Small dual encoders for `benchmarks.baselines`, trained from scratch on drawn scenes and their captions.

Two towers that never meet but in a similarity: patches of the image, and tokens of the caption. Each loss is the
symmetric InfoNCE over the captions of a batch (Radford et al. 2021, CLIP), of another similarity of image and caption:

- `filip`: each token with its most similar patch, and each patch with its most similar token (Yao et al. 2021, FILIP,
  arXiv 2111.07783, section 3.1);
- `cg-vlm`: each token with the mean of the patches (Liu et al. 2023, CG-VLM, arXiv 2311.17945, section 3.2);
- `fdt`: patches and tokens are first expressed in a shared codebook of 256 entries, with sparsemax weights over their
  maxima (Chen et al. 2023, FDT, arXiv 2303.14865, sections 3.1 and 3.2).

A token's score for one image is its own term of that similarity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scorer.mini.world import Scene
from scorer.mini.world.drawing import draw

SIDE: Final = 80
WIDTH: Final = 96
CODES: Final = 256
MAX_TOKENS: Final = 128


def images_of(scenes: Sequence[Scene]) -> Tensor:
    """Draw scenes, float32 [N, 3, SIDE, SIDE] in [-1, 1]."""
    drawn = np.stack([np.asarray(draw(scene, SIDE)) for scene in scenes])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 127.5 - 1


class DualEncoder(nn.Module):
    """A convolutional image tower of 5 × 5 patches, a bidirectional text tower, and one of the three similarities."""

    def __init__(self, vocabulary: int, kind: str) -> None:
        super().__init__()
        sizes = (3, 32, 64, WIDTH, WIDTH)
        layers: list[nn.Module] = []
        for i in range(4):
            layers += [nn.Conv2d(sizes[i], sizes[i + 1], 3, 2, 1), nn.GroupNorm(8, sizes[i + 1]), nn.GELU()]
        self.tower = nn.Sequential(*layers, nn.Conv2d(WIDTH, WIDTH, 3, padding=1))
        self.words = nn.Embedding(vocabulary, WIDTH)
        self.places = nn.Parameter(torch.randn(MAX_TOKENS, WIDTH) * 0.02)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
        self.text = nn.TransformerEncoder(layer, 2, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.codes = nn.Parameter(torch.randn(CODES, WIDTH) * WIDTH**-0.5)
        self.scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.kind = kind

    def patches(self, images: Tensor) -> Tensor:
        """[B, 3, SIDE, SIDE] → unit vectors [B, P, WIDTH]."""
        return F.normalize(self.tower(images).flatten(2).transpose(1, 2), dim=-1)

    def tokens(self, ids: Tensor, used: Tensor) -> Tensor:
        """int64 [B, T] and which are no padding, bool [B, T] → unit vectors [B, T, WIDTH]."""
        embedded = self.words(ids) + self.places[: ids.shape[1]]
        return F.normalize(self.text(embedded, src_key_padding_mask=~used), dim=-1)

    def scores(self, patches: Tensor, tokens: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
        """Return each caption's similarity to each image, [images, captions], and each token's, [images, captions, T].

        Padding has the similarity 0.
        """
        count = used.sum(1).clamp(min=1)
        if self.kind == "filip":
            pairs = torch.einsum("ipd,ctd->icpt", patches, tokens)
            each = pairs.amax(2) * used
            back = pairs.masked_fill(~used[None, :, None], -1.0).amax(3).mean(2)
            return (each.sum(2) / count + back) / 2, each
        if self.kind == "cg-vlm":
            each = torch.einsum("id,ctd->ict", F.normalize(patches.mean(1), dim=-1), tokens) * used
            return each.sum(2) / count, each
        seen = sparsemax((patches @ self.codes.T).amax(1) * self.scale.exp())  # [images, CODES]
        affinity = tokens @ self.codes.T  # [captions, T, CODES]
        said = sparsemax(affinity.masked_fill(~used[..., None], -1e4).amax(1) * self.scale.exp())
        image, caption = (F.normalize(weights @ self.codes, dim=-1) for weights in (seen, said))
        own = F.normalize(sparsemax(affinity * self.scale.exp()) @ self.codes, dim=-1)
        return image @ caption.T, torch.einsum("id,ctd->ict", image, own) * used


def sparsemax(logits: Tensor) -> Tensor:
    """Project onto the simplex along the last axis (Martins and Astudillo 2016, arXiv 1602.02068, algorithm 1)."""
    ordered = logits.sort(dim=-1, descending=True).values
    rank = torch.arange(1, logits.shape[-1] + 1, device=logits.device)
    total = ordered.cumsum(-1)
    support = (1 + rank * ordered > total).sum(-1, keepdim=True)
    threshold = (total.gather(-1, support - 1) - 1) / support
    return (logits - threshold).clamp(min=0)


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return ids int64 [B, T], cut at MAX_TOKENS and padded with 0, and which are no padding, bool [B, T]."""
    width = min(MAX_TOKENS, max(map(len, rows)))
    ids, used = torch.zeros((len(rows), width), dtype=torch.long), torch.zeros((len(rows), width), dtype=torch.bool)
    for i, row in enumerate(rows):
        kept = torch.tensor(row[:width])
        ids[i, : len(kept)], used[i, : len(kept)] = kept, True
    return ids, used


def train(
    kind: str,
    vocabulary: int,
    batches: Callable[[int], tuple[Sequence[Scene], Sequence[Sequence[int]]]],
    steps: int,
    *,
    rate: float = 2e-3,
    seed: int = 0,
    every: int = 100,
) -> DualEncoder:
    """Train a dual encoder; `batches` returns the scenes of a step and their captions' ids. Prints progress."""
    torch.manual_seed(seed)
    model = DualEncoder(vocabulary, kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        scenes, captions = batches(step)
        ids, used = padded(captions)
        similarity = model.scores(model.patches(images_of(scenes)), model.tokens(ids, used), used)[0]
        logits, own = similarity * model.scale.exp(), torch.arange(len(scenes))
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % every == 0 or step + 1 == steps:
            right = float((logits.argmax(1) == own).float().mean())
            print(f"{kind}: step {step + 1} of {steps}, loss {loss.item():.3f}, right {right:.2f}", flush=True)
    return model.eval()


KINDS: Final[Mapping[str, str]] = {
    "filip": "FILIP: most similar patch",
    "cg-vlm": "CG-VLM: mean patch",
    "fdt": "FDT: shared codes",
}
"""The similarities, and how tables name them."""
