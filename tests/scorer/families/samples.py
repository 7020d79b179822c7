"""The samples that every family is held to, and what a family's checkpoint is described by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from scorer import Sample, Scorer, ScorerConfig
from scorer.checkpoint.files import Checkpoint
from scorer.contrasts import DEFAULT
from scorer.encoding.encoder import Encoder
from scorer.families import Family
from scorer.types import IMAGE, Turn
from tests.scorer.scoring import picture, with_partner

TOLERANCE = 1e-5
"""float32, relative to max(1, |x|)."""

SIZES = [(1, 1), (8, 8), (1500, 40), (30, 50), (50, 30), (64, 64)]
LONG = "A red kite over two boats, très naïve 日本語 🪁! " * 30
PROMPT = "What is it?"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One checkpoint under test.

    Attributes:
        path: the saved checkpoint.
        special_tokens: control tokens of the family that a caption and a prompt spell.
        refused: sizes that the family's own image processor refuses.
        several_images: a sample may hold more than one image.
        several_turns: a conversation may have more than one assistant turn.
        long: a caption of at least 300 tokens.
        nested_images: the processor is given a sample's images as a list of its own, [[a, b]].
        inputs: (scorer, sample, images) → what the family's own processor makes of a sample that it is not given as
            a rendered prompt.
        tolerance: see :data:`TOLERANCE`.
    """

    path: Path
    special_tokens: tuple[str, ...]
    refused: frozenset[tuple[int, int]] = frozenset()
    several_images: bool = True
    several_turns: bool = True
    nested_images: bool = False
    long: str = LONG
    inputs: Callable[[Scorer, Sample, Sequence[Any]], dict[str, Any]] | None = None
    tolerance: float = TOLERANCE

    def load(self, contrast: str = DEFAULT, **options: Any) -> Scorer:
        """The engine on this checkpoint, for a test to do with as it likes."""
        return Scorer.load(self.path, ScorerConfig(device="cpu", contrast=contrast, **options))

    def shared(self, contrast: str = DEFAULT) -> Scorer:
        """The engine on this checkpoint, on weights that are loaded once: nothing of it may be changed."""
        return _shared(self.path).with_contrast(contrast)

    @property
    def family(self) -> Family:
        """The checkpoint's record."""
        return Checkpoint.locate(self.path).family

    def encoder(self) -> Encoder:
        """The engine's encoder alone, with the default contrast."""
        return Encoder.load(self.path, ScorerConfig(device="cpu"))

    def rows(self) -> list[Sample]:
        """Mixed sizes and lengths, shared images, special tokens as text, several images and turns; last, the
        :meth:`few_rows`."""
        rows = [caption(f"{w}x{h} short", (w, h), "A") for w, h in self._sizes]
        rows += [caption(f"prompt {n}", (50, 30), "A kite.", "What is it? " * n) for n in (1, 3)]
        return [*rows, caption("long", (50, 30), self.long), *self.few_rows()]

    def few_rows(self) -> list[Sample]:
        """One row of every size, and of every kind that is encoded differently."""
        rows = [caption(f"{w}x{h}", (w, h), "A red kite over boats.") for w, h in self._sizes]
        rows += [self.spelling(), caption("medium", (50, 30), self.long[:40]), caption("bare", (50, 30), "A kite.", "")]
        if self.several_images:
            rows.append(two_images())
        if self.several_turns:
            rows.append(two_turns(images=2 if self.several_images else 1))
        return rows

    @property
    def _sizes(self) -> list[tuple[int, int]]:
        return [size for size in SIZES if size not in self.refused]

    def spelling(self, word: str | None = None) -> Sample:
        """A prompt and a caption that spell the special tokens, or ``word`` in the place of each."""
        spelled = " ".join(word or token for token in self.special_tokens)
        return caption("spelling", (30, 50), f"A {spelled} kite", f"What is {spelled} here?")


@lru_cache(maxsize=1)  # a file's tests stand together
def _shared(path: Path) -> Scorer:
    return Scorer.load(path, ScorerConfig(device="cpu"))


def caption(name: str, size: tuple[int, int], text: str, prompt: str = PROMPT) -> Sample:
    """One image and its caption; images of one size are the same image."""
    image = picture(*size, seed=size[0])
    return with_partner(Sample.caption(name, image, text, prompt=prompt, contrast_image=picture(40, 44, seed=3)))


def two_images() -> Sample:
    """Two images of different sizes in one turn."""
    turns = (Turn("user", ("First ", IMAGE, " then ", IMAGE, "?")), Turn("assistant", ("A boat, a kite.",)))
    images = (picture(20, 40, 7), picture(40, 20, 8))
    return with_partner(Sample("two images", images, turns, (picture(44, 40, 9),) * 2))


def two_turns(images: int = 2) -> Sample:
    """Two scored turns; with two images, the second stands behind the first scored text."""
    second = (IMAGE, "And?") if images == 2 else ("And?",)
    turns = (
        Turn("user", (IMAGE, PROMPT)),
        Turn("assistant", ("A red kite.",)),
        Turn("user", second),
        Turn("assistant", ("Two boats.",)),
    )
    shown = (picture(50, 30, 50), picture(40, 20, 8))[:images]
    return with_partner(Sample("two turns", shown, turns, (picture(44, 40, 9),) * images))
