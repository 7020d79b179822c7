"""Measure what a student has learned: visual words it predicts, captions that are right or contradict the image."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import torch
from tokenizers import Tokenizer
from torch import Tensor

from benchmarks.gain.noisy import Example
from benchmarks.gain.student import END, PAD, Student, encode, id_of
from scorer.mini.language.caption_writer import FILLER, VISUAL
from scorer.mini.language.captions import NUMBER_WORDS
from scorer.mini.language.labels import token_labels
from scorer.mini.language.phrases import FULL
from scorer.mini.world import GRID, Scene, World

_WORLD: Final = World()
"""Everything that a student may name, be it in its own world or in the one it learned before."""
_SIZE_WORDS: Final = {word: size for words in FULL.sizes for size, word in words.items()}
_SHAPE_WORDS: Final = {
    word: shape for shape in _WORLD.shapes for word in (shape, shape + ("es" if shape == "cross" else "s"))
}


_CORNER: Final = re.compile(r"\b(top|upper|bottom|lower) (left|right)\b")


def said(text: str) -> dict[str, set[object]]:
    """Return what a caption says, by kind of fact: colours, shapes, sizes, counts, backgrounds and cells."""
    found: dict[str, set[object]] = defaultdict(set)
    numbers = {word: number for number, word in NUMBER_WORDS.items()}
    for word in re.findall(r"[a-z]+", text.lower()):
        if word in _WORLD.colours:
            found["colour"].add(word)
        elif word in _WORLD.backgrounds:
            found["background"].add(word)
        elif word in _SHAPE_WORDS:
            found["shape"].add(_SHAPE_WORDS[word])
        elif word in _SIZE_WORDS:
            found["size"].add(_SIZE_WORDS[word])
        elif word in numbers:
            found["count"].add(numbers[word])
        if word in (*_WORLD.shapes, "thing"):
            found["count"].add(1)
    for height, side in _CORNER.findall(text.lower()):
        found["cell"].add(GRID * (height in ("bottom", "lower")) + (side == "right"))
    return found


def shown(scene: Scene) -> dict[str, object]:
    """Return the true facts of a scene of one group, by the same kinds."""
    (group,) = scene.groups
    return {
        "colour": group.colour,
        "shape": group.shape,
        "size": group.size,
        "count": group.count,
        "background": scene.background,
        "cell": group.cell,
    }


def judge(text: str, scene: Scene) -> tuple[bool, bool]:
    """Return whether a caption is right (it names colour and shape, and everything it says is true), and whether it
    contradicts the image (something it says is false)."""
    facts, claims = shown(scene), said(text)
    contradicts = any(claims[kind] - {value} for kind, value in facts.items())
    names = all(facts[kind] in claims[kind] for kind in ("colour", "shape"))
    return names and not contradicts, contradicts


@torch.inference_mode()
def measure(student: Student, tokenizer: Tokenizer, examples: Sequence[Example], images: Tensor) -> dict[str, float]:
    """Examine a student on held-out scenes with true captions.

    Returns:
        `visual_accuracy`: the share of visual words' tokens that are the student's most likely prediction, given the
        image and the text so far; `visual_nats` and `filler_nats`: the mean −log P of their tokens; `exact_match` and
        `contradiction`: shares of its own captions, see :func:`judge`.
    """
    student.eval()
    right = 0
    nats: dict[str, list[Tensor]] = {VISUAL: [], FILLER: []}
    judged = []
    end, pad = id_of(tokenizer, END), id_of(tokenizer, PAD)
    for first in range(0, len(examples), 64):
        part, seen = examples[first : first + 64], images[first : first + 64]
        tokens = [encode(tokenizer, example.caption.text) for example in part]
        ids = torch.full((len(part), max(len(t.ids) for t in tokens)), pad)
        chosen = {label: torch.zeros(ids.shape, dtype=torch.bool) for label in nats}
        for b, (example, t) in enumerate(zip(part, tokens, strict=True)):
            ids[b, : len(t.ids)] = torch.tensor(t.ids)
            labels = token_labels(t.starts.tolist(), t.ends.tolist(), example.caption.spans)
            for label, there in chosen.items():
                there[b, : len(labels)] = torch.tensor([one == label for one in labels])
        logits = student(seen, ids[:, :-1])  # [B, T, V]
        right += int((logits.argmax(-1) == ids)[chosen[VISUAL]].sum())
        own = -logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
        for label, there in chosen.items():
            nats[label].append(own[there])
        texts = tokenizer.decode_batch(student.describe(seen, end))
        judged += [judge(text, example.scene) for text, example in zip(texts, part, strict=True)]
    student.train()
    visual, filler = (torch.cat(nats[label]) for label in (VISUAL, FILLER))
    return {
        "visual_accuracy": right / len(visual),
        "visual_nats": float(visual.double().mean()),
        "filler_nats": float(filler.double().mean()),
        "exact_match": sum(one for one, _ in judged) / len(judged),
        "contradiction": sum(one for _, one in judged) / len(judged),
    }
