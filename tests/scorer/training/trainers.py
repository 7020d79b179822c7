"""How trainers render conversations: ids, and labels that are -100 where nothing is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scorer.types import Float32Array
from tests.scorer import tiny

BYTE_LEVEL = tiny.byte_level_tokenizer()
SENTENCEPIECE = tiny.sentencepiece_tokenizer()

IdsAndLabels = tuple[list[int], list[int]]


def chatml(tokenizer: Any, turns: Sequence[tuple[str, str]], header_trained: bool = False) -> IdsAndLabels:
    """Questions and answers, of which answers and the ends of their turns are labelled."""
    ids: list[int] = []
    labels: list[int] = []
    for question, answer in turns:
        start, end = "<|im_start|>", "<|im_end|>\n"
        prompt = f"{start}user\n{question}{end}"
        header = f"{start}assistant\n"
        pieces = [(prompt, False), (f"{header}{answer}{end}", True)]
        if not header_trained:
            pieces = [(prompt + header, False), (f"{answer}{end}", True)]
        for text, trained in pieces:
            new = tokenizer.encode(text, add_special_tokens=False)
            ids += new
            labels += new if trained else [-100] * len(new)
    return ids, labels


def vicuna(tokenizer: Any, turns: Sequence[tuple[str, str]], header_trained: bool = False) -> IdsAndLabels:
    """LLaVA-1.5's way: a space before the answer, </s> behind it."""
    ids, labels = [1], [-100]
    for question, answer in turns:
        prompt, rest = f"USER: {question} ASSISTANT:", f"{answer}</s>"
        if header_trained:
            prompt, rest = f"USER: {question}", f" ASSISTANT: {answer}</s>"
        for text, trained in ((prompt, False), (rest, True)):
            new = tokenizer.encode(text, add_special_tokens=False)
            ids += new
            labels += new if trained else [-100] * len(new)
    return ids, labels


def by_token(tokenizer: Any, ids: list[int], weights: Float32Array) -> list[tuple[str, float]]:
    return [(tokenizer.decode([i]), round(float(w), 6)) for i, w in zip(ids, weights, strict=True) if w]


def spelled(tokenizer: Any, ids: list[int], weights: Float32Array) -> dict[float, str]:
    """What the tokens of each weight spell, put end to end."""
    chosen = {round(float(w), 6): [i for i, v in zip(ids, weights, strict=True) if v == w] for w in np.unique(weights)}
    return {weight: tokenizer.decode(some) for weight, some in chosen.items()}
