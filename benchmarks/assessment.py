"""Do the label-free figures of `tokensight assess` order reference models as the truth does?

Reference models of different quality are assessed on fresh scenes and captions, without labels. Beside that stand the
true figures, which only drawn scenes allow: every word of their captions is labelled. The table gives both for each
model, and below it the rank correlation of each label-free figure with the true AUROC over the models. Two controls
must come last: a model of random weights, and a model that is shown other rows' images.

    python -m benchmarks.assessment --models 0.70=DIR 0.80=DIR 0.90=DIR full=DIR [--captions N]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from scorer.assessment.assess import Assessment, assess
from scorer.checkpoint.files import Checkpoint
from scorer.config import ScorerConfig
from scorer.engine import Scorer
from scorer.mini import MODEL_PATH
from scorer.mini.evaluation import HeldOut, held_out_language
from scorer.mini.language.caption_writer import CONTRADICTORY, FILLER, VISUAL
from scorer.mini.language.filler import TRAINING
from scorer.mini.language.labels import token_labels
from scorer.mini.world.drawing import draw
from scorer.results import TokenScores
from scorer.statistics import auroc, rank_correlation
from scorer.types import Sample

RESULTS: Final = Path(__file__).parent / "results" / "assessment.json"
IMAGE_SIZE: Final = 160
RANDOM: Final = "random weights"
OTHERS: Final = "images of other rows"
FIGURES: Final = {
    "own image": lambda a: a.own_image.auroc.value,
    "own image wins": lambda a: a.own_image.wins.value,
    "word swaps, gap": lambda a: a.word_swaps.gap.value,
    "word swaps, image": lambda a: a.word_swaps.image.value,
    "bits per byte": lambda a: -a.reading.bits_per_byte.value,
    "integration rate": lambda a: float("nan") if a.modality is None else -a.modality.rate,
}
"""Label-free figures with a sign such that more is better."""


def random_weights(path: str) -> Scorer:
    """Return a scorer of the same architecture whose weights are drawn at random."""
    import torch

    scorer = Scorer(Checkpoint.locate(path), ScorerConfig())
    torch.manual_seed(0)
    for parameter in scorer.model.model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.02)
    return scorer


def samples_of(pairs: Sequence[HeldOut]) -> list[Sample]:
    return [Sample.caption(f"{i}", draw(pair.scene, IMAGE_SIZE), pair.caption.text) for i, pair in enumerate(pairs)]


def truth(scorer: Scorer, samples: Sequence[Sample], pairs: Sequence[HeldOut]) -> dict[str, float]:
    """Return the true AUROCs of the log-probability gap over the words of labelled captions.

    Raises:
        RuntimeError: a sample failed.
    """
    labels, gaps = [], []
    for pair, result in zip(pairs, scorer.score(samples), strict=True):
        if not isinstance(result, TokenScores):
            raise RuntimeError(f"a sample could not be scored: {result}")
        words = ~result.is_stop
        labels += token_labels(
            result.token_starts[words].tolist(), result.token_ends[words].tolist(), pair.caption.spans
        )
        gaps.append(result.logprob_gap[words].astype(np.float64))
    label, gap = np.array(labels, dtype=object), np.concatenate(gaps)
    return {
        "visual / filler": auroc(gap[label == VISUAL], gap[label == FILLER]),
        "true / contradictory": auroc(gap[label == VISUAL], gap[label == CONTRADICTORY]),
    }


def examined(scorer: Scorer, samples: Sequence[Sample], pairs: Sequence[HeldOut]) -> tuple[Assessment, dict[str, Any]]:
    found = assess(scorer, samples)
    figures = {name: figure(found) for name, figure in FIGURES.items()}
    return found, {
        "verdict": str(found.verdict.grade),
        "figures": figures,
        "truth": truth(scorer, samples, pairs),
        "findings": [asdict(one) for one in found.verdict.findings],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="+", metavar="NAME=DIR", default=[f"packaged={MODEL_PATH}"])
    parser.add_argument("--captions", type=int, default=200)
    parser.add_argument("--seed", default="assessment")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    pairs = held_out_language(options.seed, options.captions, TRAINING, false_share=0.2)
    samples = samples_of(pairs)
    models = dict(model.split("=", 1) for model in options.models)
    found: dict[str, Any] = {}
    for name, path in models.items():
        _, found[name] = examined(Scorer.load(path), samples, pairs)
        print(name, found[name]["verdict"], found[name]["figures"], found[name]["truth"], flush=True)
    best = list(models.values())[-1]
    others = [*samples[7:], *samples[:7]]
    shown = [replace(own, images=other.images) for own, other in zip(samples, others, strict=True)]
    controls = {RANDOM: (random_weights(best), samples), OTHERS: (Scorer.load(best), shown)}
    for name, (scorer, rows) in controls.items():
        _, found[name] = examined(scorer, rows, pairs)
        print(name, found[name]["verdict"], found[name]["figures"], found[name]["truth"], flush=True)
    questions = ("visual / filler", "true / contradictory")
    true = {question: [entry["truth"][question] for entry in found.values()] for question in questions}
    order = {}
    for name in FIGURES:
        figures = [entry["figures"][name] for entry in found.values()]
        order[name] = {question: rank_correlation(figures, true[question]) for question in questions}
    document = {"captions": options.captions, "seed": options.seed, "models": found, "rank correlation": order}
    options.out.write_text(json.dumps(document, indent=1, default=str) + "\n")
    print(table(document))


def table(document: dict[str, Any]) -> str:
    """Return a table of the models and one of the rank correlations, in Markdown."""
    names = list(FIGURES)
    lines = [
        f"| model | verdict | visual / filler | true / contradictory | {' | '.join(names)} |",
        "|" + "---|" * (4 + len(names)),
    ]
    for model, entry in document["models"].items():
        true = [f"{value:.3f}" for value in entry["truth"].values()]
        figures = [f"{abs(entry['figures'][name]):.3f}" for name in names]
        lines.append(f"| {model} | {entry['verdict']} | {' | '.join(true)} | {' | '.join(figures)} |")
    lines.append("")
    lines += ["| figure | rank correlation, visual / filler | true / contradictory |", "|---|---|---|"]
    for name, correlations in document["rank correlation"].items():
        lines.append(f"| {name} | {' | '.join(f'{value:.2f}' for value in correlations.values())} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
