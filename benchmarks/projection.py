"""Time the projection of published weights onto a trainer's tokens: ``python -m benchmarks.projection``.

Measures CPU seconds of one thread for 1,000 rows of at least 200 trainer tokens: with
:class:`scorer.training.WeightAligner` in batches, and the naive way, which tokenizes each text again for its offsets
and averages each token's weight over bytes in Python. Both start from the trainer's labels and must agree; they run in
turn, five pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from scorer.results import TokenScores
from scorer.spans import token_byte_spans
from scorer.table import text_hash
from scorer.training import WeightAligner, WeightedText, WeightRow

ROWS, TOKENS, PAIRS, BATCH = 1000, 200, 5, 8
PROMPT, END = "Describe the picture.", "<end>"
RESULTS = Path(__file__).parent / "results" / "projection.json"


def make_tokenizer(texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2000, initial_alphabet=alphabet, special_tokens=[END], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def make_rows(tokenizer: Tokenizer, words: list[str], rng: random.Random) -> list[tuple[Any, Any, WeightedText]]:
    """Return ids, labels and published row of each text; the reference model's tokens are words."""
    rows = []
    prompt = tokenizer.encode(PROMPT, add_special_tokens=False).ids
    for index in range(ROWS):
        text, ids = "", []
        while len(ids) < TOKENS - 1:
            text += (" " if text else "") + rng.choice(words)
            ids = tokenizer.encode(text, add_special_tokens=False).ids
        pieces = [piece if i == 0 else f" {piece}" for i, piece in enumerate(text.split(" "))]
        sizes = np.array([len(piece.encode()) for piece in pieces], np.int32)
        ends = np.cumsum(sizes, dtype=np.int32)
        gap = np.zeros(len(pieces), np.float32)
        turns = np.zeros(len(pieces), np.int16)
        digest = text_hash([text])
        scores = TokenScores(str(index), sizes, ends - sizes, ends, turns, digest, gap, gap, gap)
        weights = np.array([1 + 4 * rng.random() for _ in pieces], np.float32)
        trained = [*ids, tokenizer.token_to_id(END)]
        sequence, labels = np.array([*prompt, *trained]), np.array([-100] * len(prompt) + trained)
        row = WeightRow("train.parquet", index, str(index), "ok", None, scores, weights)
        rows.append((sequence, labels, WeightedText(row, [text])))
    return rows


def ours(aligner: WeightAligner, rows: list[tuple[Any, Any, WeightedText]]) -> list[Any]:
    out: list[Any] = []
    for first in range(0, len(rows), BATCH):
        ids, labels, samples = zip(*rows[first : first + BATCH], strict=True)
        out += aligner(ids, labels, samples)
    return out


def naive(tokenizer: Tokenizer, rows: list[tuple[Any, Any, WeightedText]]) -> list[Any]:
    out = []
    for _, labels, sample in rows:
        text, scores = sample.texts[0], sample.row.scores
        assert scores is not None
        assert sample.row.weights is not None
        assert scores.text_hash == text_hash(sample.texts)
        encoding = tokenizer.encode(text, add_special_tokens=False)
        per_byte = [0.0] * len(text.encode())
        for weight, start, end in zip(sample.row.weights, scores.token_starts, scores.token_ends, strict=True):
            for byte in range(start, end):
                per_byte[byte] = float(weight)
        weights = [0.0 if label == -100 else 1.0 for label in labels]
        first = next(i for i, label in enumerate(labels) if label != -100)
        spans = token_byte_spans(text, encoding.tokens, encoding.offsets)
        for i, (start, end) in enumerate(zip(*spans, strict=True)):
            weights[first + i] = sum(per_byte[start:end]) / (end - start)
        out.append(weights)
    return out


def seconds(work: Any, *arguments: Any) -> tuple[float, Any]:
    start = time.process_time()
    result = work(*arguments)
    return time.process_time() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    rng = random.Random(0)
    letters = "abcdefghijklmnoprstuvwxyzéß日"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(3000)]
    tokenizer = make_tokenizer(words)
    rows = make_rows(tokenizer, words, rng)
    started, aligner = seconds(WeightAligner, tokenizer)
    pairs = []
    for _ in range(PAIRS):
        fast, got = seconds(ours, aligner, rows)
        slow, wanted = seconds(naive, tokenizer, rows)
        worst = max(float(np.abs(a - np.array(b)).max()) for a, b in zip(got, wanted, strict=True))
        assert worst < 1e-5, f"the two ways differ by {worst}, more than 1e-5"
        pairs.append((fast, slow))
    fast, slow = (sorted(times) for times in zip(*pairs, strict=True))
    ratios = sorted(slow / fast for fast, slow in pairs)
    tokens = sum(len(labels) for _, labels, _ in rows)
    result = {
        "rows": ROWS,
        "tokens_per_row": round(tokens / ROWS, 1),
        "batch": BATCH,
        "seconds": {"median": median(fast), "range": [fast[0], fast[-1]]},
        "naive_seconds": {"median": median(slow), "range": [slow[0], slow[-1]]},
        "naive_over_ours": {"median": median(ratios), "range": [ratios[0], ratios[-1]]},
        "seconds_to_read_vocabulary": started,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{ROWS} rows of {tokens / ROWS:.0f} tokens, batches of {BATCH}, CPU seconds on one thread, {PAIRS} pairs")
    print(f"{'':24}{'median':>10}{'range':>20}")
    for name, times in (("ours, s (target: 1.0)", fast), ("naive, s", slow), ("naive / ours", ratios)):
        print(f"{name:24}{median(times):10.3f}{f'{times[0]:.3f}–{times[-1]:.3f}':>20}")


if __name__ == "__main__":
    main()
