"""Measure how well the scores separate words that need the image from words that do not, and false from true ones.

The reference model scores fresh scenes with captions in which every word is labelled by construction. For each contrast
input and each score, this prints two figures with 95 % intervals (bootstrap over captions):

- visual / filler: AUROC of the score for words that the image changes against words that it does not;
- true / contradictory: AUROC of the score for true visual words against words that the image contradicts.

A token has the label of the word whose bytes it overlaps; the space before a word belongs to no word, so " red" has the
label of "red". Tokens of only white space are left out.

The same figures follow for captions from each held-out phrase book (`benchmarks/phrase_books`), whose phrasing the
model was not trained on, with two more: the perplexity with the image, and how far from 0 filler's log-probability gap
is. Then come those of each method's weights, on either kind of captions (`benchmarks/grounding_weights`).

    python -m benchmarks.grounding [--books] [--model DIR] [--captions N] [--seed S]
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.grounding_weights import weight_figures, weights_markdown
from benchmarks.labelled import STOP, Column, Score, Scored, interval, markdown_cell, split
from benchmarks.phrase_books import read_books, write_from
from scorer.columns import ASKED
from scorer.config import ScorerConfig
from scorer.encoding.shuffling import with_partners
from scorer.engine import Scorer
from scorer.mini import MODEL_PATH
from scorer.mini.evaluation import HeldOut, held_out
from scorer.mini.language.caption_writer import CONTRADICTORY, FILLER, VISUAL
from scorer.mini.language.captions import Caption
from scorer.mini.language.labels import token_labels
from scorer.mini.world import sample_scene, seeded
from scorer.mini.world.drawing import draw
from scorer.results import TokenScores
from scorer.types import Branch, EncodedSample, Sample

CONTRASTS = (
    *("blank", "masked", "removed", "blur", "blur@0.02", "blur@0.05"),
    *("noise", "patches", "diffusion", "downsample", "shuffled"),
)
IMAGE_SIZE = 160
RESULTS = Path(__file__).parent / "results" / "grounding.json"

SCORES: dict[str, Score] = {
    "raw logit gap": lambda row: row.scores.logit_gap.astype(np.float64),
    "centred logit gap": lambda row: row.scores.logit_gap - row.shift,
    "log-probability gap": lambda row: row.scores.logprob_gap.astype(np.float64),
}
DISTRIBUTIONS: dict[str, Score] = {
    "KL(clean‖contrast)": lambda row: row.scores.optional["kl"].astype(np.float64),
    "KL(contrast‖clean)": lambda row: row.scores.optional["kl_reverse"].astype(np.float64),
    "Jensen–Shannon": lambda row: row.scores.optional["js"].astype(np.float64),
    "entropy drop": lambda row: row.scores.optional["entropy_contrast"] - row.scores.optional["entropy_clean"],
    "top 1 gained": lambda row: (
        row.scores.optional["top1_clean"].astype(np.float64) - row.scores.optional["top1_contrast"]
    ),
}
"""Of whole predictions: none but the last asks which word the caption has there."""
TEXT_ONLY: dict[str, Score] = {
    "1 − P, text only": lambda row: -np.expm1(row.scores.logprob_contrast.astype(np.float64))
}


@torch.inference_mode()
def direct(model: Any, branch: Branch) -> tuple[Column, Column]:
    """Return the labels' logits [N] and the vocabulary's mean logits [N] from one plain forward pass of one branch."""
    logits = model(
        input_ids=torch.from_numpy(branch.input_ids)[None],
        attention_mask=torch.from_numpy(branch.attend)[None].long(),
        position_ids=torch.arange(len(branch.input_ids))[None],
        **{name: torch.from_numpy(np.asarray(pixels)) for name, pixels in branch.pixels.items()},
    ).logits[0, branch.label_index - 1]  # [N, V]; token t is predicted at t - 1
    labels = torch.from_numpy(branch.input_ids[branch.label_index])
    return logits.gather(1, labels[:, None])[:, 0].double().numpy(), logits.mean(1).double().numpy()


def score(scorer: Scorer, samples: Sequence[Sample], captions: Sequence[Caption]) -> list[Scored]:
    """Score `samples` with the engine, and measure the common shift of the logits.

    Raises:
        RuntimeError: a sample failed, or the engine's gap differs from the plain forward pass's by more than 1e-3.
    """
    rows = []
    samples = list(with_partners(samples, scorer.config.noise_seed, scorer.config.max_image_bytes))
    for sample, caption, result in zip(samples, captions, scorer.score(samples), strict=True):
        encoded = scorer.encoder.try_encode(sample)
        if not isinstance(result, TokenScores) or not isinstance(encoded, EncodedSample):
            raise RuntimeError(f"{sample.sample_id} could not be scored: {result}")
        clean, clean_mean = direct(scorer.model.model, encoded.clean)
        contrast, contrast_mean = direct(scorer.model.model, encoded.contrast)
        error = np.abs(clean - contrast - result.logit_gap).max()
        if error > 1e-3:
            raise RuntimeError(
                f"{sample.sample_id}: the engine's gap differs from the plain forward pass's by {error:.2g}, more than "
                "1e-3"
            )
        labels = token_labels(result.token_starts.tolist(), result.token_ends.tolist(), caption.spans)
        labelled = np.where(result.is_stop, STOP, np.array(labels, dtype=object))  # a stop token is in no word
        rows.append(Scored(labelled, result, clean_mean - contrast_mean))
    return rows


def table(rows: Sequence[Scored], scores: dict[str, Score], resamples: int, seed: int) -> dict[str, Any]:
    """Return both AUROCs for every score.

    Contradictions are measured on the captions that have one, visual against filler words on the others.
    """
    false = [row for row in rows if CONTRADICTORY in row.labels]
    sane = [row for row in rows if CONTRADICTORY not in row.labels]

    def area(of: Sequence[Scored], score: Score, low: str) -> list[float]:
        return interval(split(of, [score(row) for row in of], VISUAL, low), resamples, seed)

    return {
        name: {
            "visual / filler": area(sane, score, FILLER),
            "true / contradictory": area(false, score, CONTRADICTORY),
        }
        for name, score in scores.items()
    }


def shift_figures(rows: Sequence[Scored]) -> dict[str, float]:
    """Measure how much of the raw gap is a shift common to all logits, which a softmax ignores."""
    shift = np.concatenate([row.shift for row in rows])
    gap = np.concatenate([row.scores.logit_gap for row in rows])
    filler = np.concatenate([row.labels for row in rows]) == FILLER
    return {
        "shift, mean": float(shift.mean()),
        "shift, standard deviation": float(shift.std()),
        "shift, standard deviation on filler": float(shift[filler].std()),
        "raw gap, standard deviation on filler": float(gap[filler].std()),
        "centred gap, standard deviation on filler": float((gap - shift)[filler].std()),
        "correlation of shift and raw gap on filler": float(np.corrcoef(shift[filler], gap[filler])[0, 1]),
    }


def measure(model: str, captions: int, seed: str, resamples: int) -> dict[str, Any]:
    """Return everything this benchmark reports, as plain data."""
    pairs = held_out(seed, captions)
    samples = [
        Sample.caption(f"{index}", draw(pair.scene, IMAGE_SIZE), pair.caption.text) for index, pair in enumerate(pairs)
    ]
    figures: dict[str, Any] = {"captions": captions, "seed": seed, "scores": {}, "shift": {}}
    for contrast in CONTRASTS:
        scorer = Scorer.load(
            model, ScorerConfig(contrast=contrast, dtype="float32", device="cpu", distribution_columns=ASKED)
        )
        rows = score(scorer, samples, [pair.caption for pair in pairs])
        scores = {**SCORES, **DISTRIBUTIONS, **(TEXT_ONLY if contrast == "removed" else {})}
        figures["scores"][contrast] = table(rows, scores, resamples, 0)
        figures["shift"][contrast] = shift_figures(rows)
        if contrast == "blank":
            counted = np.concatenate([row.labels for row in rows]).tolist()
            figures["tokens"] = {label: counted.count(label) for label in (VISUAL, FILLER, CONTRADICTORY)}
    return figures


def books(model: str, captions: int, seed: str, resamples: int) -> dict[str, Any]:
    """Return the figures of the grammar's captions and of each held-out phrase book's, with a blank contrast.

    Half of the captions have an error. Perplexity and filler's gap are of the others.
    """
    scorer = Scorer.load(model, ScorerConfig(contrast="blank", dtype="float32", device="cpu"))
    sources: dict[str, list[tuple[HeldOut, str | None]]] = {
        "grammar": [(pair, None) for pair in held_out(seed, captions)]
    }
    for book in read_books():
        sources[book.name] = []
        for index in range(captions):
            rng = seeded("phrase books", book.name, seed, index)
            scene = sample_scene(rng)
            prompt, caption = write_from(book, scene, rng, false=index < captions / 2)
            sources[book.name].append((HeldOut(scene, caption), prompt))
    figures: dict[str, Any] = {}
    for name, entries in sources.items():
        samples = [
            Sample.caption(f"{index}", draw(pair.scene, IMAGE_SIZE), pair.caption.text, **({"prompt": p} if p else {}))
            for index, (pair, p) in enumerate(entries)
        ]
        rows = score(scorer, samples, [pair.caption for pair, _ in entries])
        sane = [row for row in rows if CONTRADICTORY not in row.labels]
        gap = np.abs(np.concatenate([row.scores.logprob_gap[row.labels == FILLER] for row in sane]))
        surprise = np.concatenate([row.scores.logprob_clean[row.labels != STOP] for row in sane])
        figures[name] = {
            **table(rows, SCORES, resamples, 0),
            "perplexity": float(np.exp(-surprise.mean())),
            "filler's |gap|": {"median": float(np.median(gap)), "95 %": float(np.percentile(gap, 95))},
            "weights": weight_figures(rows, resamples, 0),
        }
    return figures


def markdown(figures: dict[str, Any]) -> str:
    """Format the figures as Markdown tables for the documentation."""
    lines = ["| contrast | score | visual / filler | true / contradictory |", "|---|---|---|---|"]
    for contrast, scores in figures["scores"].items():
        lines += [
            f"| `{contrast}` | {name} | {' | '.join(map(markdown_cell, row.values()))} |"
            for name, row in scores.items()
        ]
    names = list(figures["shift"]["blank"])
    lines += ["", f"| contrast | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [
        f"| `{contrast}` | {' | '.join(f'{value:.3f}' for value in row.values())} |"
        for contrast, row in figures["shift"].items()
    ]
    return "\n".join(lines)


def books_markdown(figures: dict[str, Any]) -> str:
    """Format the figures of the phrase books, and of weights, as Markdown tables."""
    lines = [
        "| captions | score | visual / filler | true / contradictory | perplexity | filler's \\|gap\\|: median, 95 % |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in figures.items():
        gap = row["filler's |gap|"]
        for score_name in ("log-probability gap", "raw logit gap"):
            cells = " | ".join(map(markdown_cell, row[score_name].values()))
            last = (
                f"{row['perplexity']:.2f} | {gap['median']:.3f}, {gap['95 %']:.2f}" if score_name[0] == "l" else " | "
            )
            lines.append(f"| {name} | {score_name} | {cells} | {last} |")
    weights = weights_markdown({name: row["weights"] for name, row in figures.items()})
    return "\n".join([*lines, "", weights])


def main() -> None:
    parser = argparse.ArgumentParser(description="Grounding of the scores on scenes with known truth.")
    parser.add_argument("--model", default=str(MODEL_PATH), help="directory or hub id of the reference model")
    parser.add_argument("--captions", type=int, default=600, help="captions to score; half of them have an error")
    parser.add_argument("--seed", default="benchmark", help="seed of the held-out scenes")
    parser.add_argument("--books", action="store_true", help="only the tables of the phrase books and of weights")
    parser.add_argument("--resamples", type=int, default=200, help="bootstrap resamples")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file for the figures")
    options = parser.parse_args()
    figures = {} if options.books else measure(options.model, options.captions, options.seed, options.resamples)
    stored = json.loads(options.out.read_text()) if options.books and options.out.exists() else {}
    figures = {**stored, **figures, "books": books(options.model, options.captions, options.seed, options.resamples)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    print(
        books_markdown(figures["books"])
        if options.books
        else f"{markdown(figures)}\n\n{books_markdown(figures['books'])}"
    )


if __name__ == "__main__":
    main()
