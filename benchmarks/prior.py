"""Compare what may serve as PRIOR's reference: the model without its image, or a language model trained on captions.

The captions are those of ``benchmarks/grounding.py``: fresh scenes, every word labelled, none of them in the sample
that the language model is trained on. For each reference, this prints the AUROC of 1 − P and of PRIOR's weights
(which are normalised within a row), with 95 % intervals (bootstrap over captions):

- visual / filler: words that the image changes against words that it does not;
- true / contradictory: true visual words against words that the image contradicts.

    tokensight train-text-reference --input scorer/mini/sample --output out/lm
    python -m benchmarks.prior --text-reference out/lm [--model DIR] [--captions N] [--seed S]
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.grounding import IMAGE_SIZE, table
from benchmarks.labelled import STOP, Score, Scored, markdown_cell
from scorer.columns import LOGPROB_TEXT
from scorer.config import ScorerConfig
from scorer.engine import Scorer
from scorer.mini import MODEL_PATH
from scorer.mini.evaluation import held_out
from scorer.mini.language.caption_writer import FILLER, VISUAL
from scorer.mini.language.captions import Caption
from scorer.mini.language.labels import token_labels
from scorer.mini.world.drawing import draw
from scorer.results import TokenScores
from scorer.text_reference.train import RECORD
from scorer.training.text_reference import text_logprobs
from scorer.types import Sample
from scorer.weights import prior

CONTRASTS = ("removed", "blank")
RESULTS = Path(__file__).parent / "results" / "prior.json"

SCORES: dict[str, Score] = {
    "1 − P": lambda row: -np.expm1(reference_logprobs(row.scores).astype(np.float64)),
    "prior": lambda row: prior(row.scores).astype(np.float64),
}


def reference_logprobs(scores: TokenScores) -> Any:
    """Return what PRIOR reads, float32 [N]: the text reference's log-probabilities if they are joined."""
    return scores.optional.get(LOGPROB_TEXT, scores.logprob_contrast)


def score(scorer: Scorer, samples: Sequence[Sample]) -> list[TokenScores]:
    """Score samples. Raises RuntimeError if one fails."""
    found = []
    for result in scorer.score(samples):
        if not isinstance(result, TokenScores):
            raise RuntimeError(f"{result.sample_id} could not be scored: {result}")
        found.append(result)
    return found


def labelled(scores: TokenScores, caption: Caption) -> Scored:
    """Return scores with the label of each token."""
    labels = token_labels(scores.token_starts.tolist(), scores.token_ends.tolist(), caption.spans)
    column = np.where(scores.is_stop, STOP, np.array(labels, dtype=object))
    return Scored(column, scores, np.zeros(len(column)))


def stop_weight(rows: Sequence[Scored]) -> float:
    """Return the mean of PRIOR's weights of stop tokens; the mean of all is 1."""
    return float(np.mean(np.concatenate([prior(row.scores)[row.labels == STOP] for row in rows])))


def measure(model: str, text_reference: str, captions: int, seed: str, resamples: int) -> dict[str, Any]:
    """Return everything this benchmark reports, as plain data."""
    pairs = held_out(seed, captions)
    samples = [
        Sample.caption(f"{index}", draw(pair.scene, IMAGE_SIZE), pair.caption.text) for index, pair in enumerate(pairs)
    ]
    options = {"dtype": "float32", "device": "cpu"}
    by_reference = {
        contrast: score(Scorer.load(model, ScorerConfig(contrast=contrast, **options)), samples)
        for contrast in CONTRASTS
    }
    alone = score(Scorer.load(text_reference, ScorerConfig(contrast="removed", **options)), samples)
    by_reference["text reference"] = [
        replace(one, optional={**one.optional, LOGPROB_TEXT: text_logprobs(text, one)})
        for one, text in zip(by_reference[CONTRASTS[0]], alone, strict=True)
    ]
    figures: dict[str, Any] = {"captions": captions, "seed": seed, "references": {}}
    figures["text_reference"] = json.loads((Path(text_reference) / RECORD).read_text(encoding="utf-8"))["held_out"]
    for name, found in by_reference.items():
        rows = [labelled(one, pair.caption) for one, pair in zip(found, pairs, strict=True)]
        own = np.concatenate([reference_logprobs(row.scores) for row in rows])
        labels = np.concatenate([row.labels for row in rows])
        figures["references"][name] = {
            "scores": table(rows, SCORES, resamples, 0),
            "nats": {label: float(-own[labels == label].mean()) for label in (VISUAL, FILLER, STOP)},
            "stop_weight": stop_weight(rows),
        }
    return figures


def markdown(figures: dict[str, Any]) -> str:
    """Format the figures as Markdown tables for the documentation."""
    lines = ["| reference | | visual / filler | true / contradictory |", "|---|---|---|---|"]
    for name, found in figures["references"].items():
        for kind, row in found["scores"].items():
            lines.append(f"| {name} | {kind} | {' | '.join(map(markdown_cell, row.values()))} |")
    lines += ["", "| reference | −log P: visual | filler | stop | stop token's weight |", "|---|---|---|---|---|"]
    for name, found in figures["references"].items():
        nats = " | ".join(f"{value:.2f}" for value in found["nats"].values())
        lines.append(f"| {name} | {nats} | {found['stop_weight']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="References of the method prior on scenes with known truth.")
    parser.add_argument("--text-reference", required=True, help="what tokensight train-text-reference has written")
    parser.add_argument("--model", default=str(MODEL_PATH), help="directory or hub id of the reference model")
    parser.add_argument("--captions", type=int, default=300, help="captions to score; half of them have an error")
    parser.add_argument("--seed", default="benchmark", help="seed of the held-out scenes")
    parser.add_argument("--resamples", type=int, default=200, help="bootstrap resamples")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file for the figures")
    options = parser.parse_args()
    figures = measure(options.model, options.text_reference, options.captions, options.seed, options.resamples)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(markdown(figures))


if __name__ == "__main__":
    main()
