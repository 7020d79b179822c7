"""Could a similarity of patches and tokens replace two passes of a reference model?

Scores that need no language model, on the captions that `benchmarks.grounding` uses in free language: the similarity of
a caption's token to the image, by the reference's own image features and embeddings, and by small dual encoders that are
trained on the same drawn world (`benchmarks.dual_encoders`). The gap of a similarity is the one with the image minus the
one with a blank, as for a reference. For each score: AUROC visual / filler, true / contradictory, and FLOPs a row.

    python -m benchmarks.baselines [--model DIR] [--captions N] [--steps N]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.dual_encoders import KINDS, SIDE, DualEncoder, images_of, padded, train
from scorer.engine import Scorer
from scorer.forward.flops import count_flops
from scorer.mini import MODEL_PATH
from scorer.mini.evaluation import HeldOut, held_out_language
from scorer.mini.language.caption_writer import CONTRADICTORY, FILLER, VISUAL
from scorer.mini.language.compose import compose
from scorer.mini.language.filler import TRAINING
from scorer.mini.language.labels import token_labels
from scorer.mini.world import Scene, sample_scene, seeded
from scorer.mini.world.drawing import draw
from scorer.results import TokenScores
from scorer.statistics import Estimate, Numbers, auroc, bootstrap
from scorer.types import EncodedSample, Sample

RESULTS: Final = Path(__file__).parent / "results" / "baselines.json"
IMAGE_SIZE: Final = 160
BATCH: Final = 64
QUESTIONS: Final = {"visual / filler": (VISUAL, FILLER), "true / contradictory": (VISUAL, CONTRADICTORY)}


class Held:
    """Captions, their scores by the reference, and each token's label."""

    def __init__(self, scorer: Scorer, pairs: Sequence[HeldOut]) -> None:
        self.scenes = [pair.scene for pair in pairs]
        self.samples = [
            Sample.caption(f"{i}", draw(pair.scene, IMAGE_SIZE), pair.caption.text) for i, pair in enumerate(pairs)
        ]
        self.results: list[TokenScores] = []
        for result in scorer.score(self.samples):
            if not isinstance(result, TokenScores):
                raise RuntimeError(f"a sample could not be scored: {result}")
            self.results.append(result)
        self.ids = [result.token_ids[~result.is_stop].tolist() for result in self.results]
        self.labels = [
            np.array(
                token_labels(
                    result.token_starts[~result.is_stop].tolist(),
                    result.token_ends[~result.is_stop].tolist(),
                    pair.caption.spans,
                ),
                dtype=object,
            )
            for result, pair in zip(self.results, pairs, strict=True)
        ]

    def figures(self, scores: Sequence[Numbers]) -> dict[str, Estimate]:
        """Return both AUROCs of scores, an array for each caption, by bootstrap over captions."""

        def area(high: str, low: str, rows: Any) -> float:
            above = np.concatenate([scores[i][self.labels[i][: len(scores[i])] == high] for i in rows])
            below = np.concatenate([scores[i][self.labels[i][: len(scores[i])] == low] for i in rows])
            return auroc(above, below)

        return {
            question: bootstrap(len(scores), lambda rows, h=high, b=low: area(h, b, rows), resamples=200)
            for question, (high, low) in QUESTIONS.items()
        }


@torch.inference_mode()
def own_features(scorer: Scorer, held: Held) -> tuple[list[Numbers], int]:
    """Return, for each token, the cosine of its embedding with the most similar image token, and the FLOPs a row.

    Both are what the decoder's first layer reads; no similarity was trained between them.
    """
    model = scorer.model.model
    embeddings = F.normalize(model.get_input_embeddings().weight.float(), dim=-1)
    scores = []
    encoded = [row for row in map(scorer.encoder.try_encode, held.samples) if isinstance(row, EncodedSample)]

    def features(row: EncodedSample) -> torch.Tensor:
        pixels = torch.from_numpy(np.asarray(row.clean.pixels["pixel_values"]))
        found = model.model.get_image_features(pixel_values=pixels)
        return F.normalize(torch.cat(list(getattr(found, "pooler_output", found))).float().flatten(0, -2), dim=-1)

    for row, ids in zip(encoded, held.ids, strict=True):
        scores.append((embeddings[ids] @ features(row).T).amax(1).double().numpy())
    return scores, count_flops(lambda: features(encoded[0]))


@torch.inference_mode()
def dual(model: DualEncoder, held: Held) -> tuple[list[Numbers], list[Numbers], int]:
    """Return each token's similarity to its image, the same minus that to a blank, and the FLOPs a row."""
    plain, gaps = [], []
    blank = torch.zeros((1, 3, SIDE, SIDE))
    unseen = model.patches(blank)

    def one(scene: Scene, ids: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        padded_ids, used = padded([ids])
        tokens = model.tokens(padded_ids, used)
        return (
            model.scores(model.patches(images_of([scene])), tokens, used)[1][0, 0],
            model.scores(unseen, tokens, used)[1][0, 0],
        )

    for scene, ids in zip(held.scenes, held.ids, strict=True):
        with_image, without = one(scene, ids)
        plain.append(with_image.double().numpy())
        gaps.append((with_image - without).double().numpy())
    return plain, gaps, count_flops(lambda: one(held.scenes[0], held.ids[0]))


def batches_of(scorer: Scorer, seed: str) -> Any:
    """Return the training batches by their number: fresh scenes and true captions, in the reference's tokens."""
    tokenizer = scorer.encoder._processor.tokenizer

    def batch(step: int) -> tuple[list[Scene], list[list[int]]]:
        scenes, ids = [], []
        for index in range(BATCH):
            rng = seeded("baselines", seed, step, index)
            scene = sample_scene(rng)
            scenes.append(scene)
            ids.append(tokenizer(compose(scene, rng).text, add_special_tokens=False)["input_ids"])
        return scenes, ids

    return batch


def measure(model: str, captions: int, steps: int, seed: str) -> dict[str, Any]:
    scorer = Scorer.load(model)
    held = Held(scorer, held_out_language(seed, captions, TRAINING))
    rows: dict[str, dict[str, Any]] = {}

    def add(name: str, scores: Sequence[Numbers], flops: int) -> None:
        rows[name] = {
            "flops": flops,
            **{q: [e.value, e.low, e.high] for q, e in held.figures(scores).items()},
        }
        print(name, rows[name], flush=True)

    reference = [result.logprob_gap[~result.is_stop].astype(np.float64) for result in held.results]
    add("log-probability gap of the reference", reference, count_flops(lambda: scorer.score(held.samples[:1])))
    add("own features, most similar image token", *own_features(scorer, held))
    for kind, title in KINDS.items():
        encoder = train(kind, len(scorer.encoder._processor.tokenizer), batches_of(scorer, seed), steps)
        plain, gaps, flops = dual(encoder, held)
        add(f"{title}, similarity", plain, flops)
        add(f"{title}, similarity − that to a blank", gaps, flops)
    return {"captions": captions, "steps": steps, "seed": seed, "rows": rows}


def table(document: dict[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| score | visual / filler | true / contradictory | MFLOPs a row |", "|---|---|---|---|"]
    for name, row in document["rows"].items():
        cells = ["{:.3f} ({:.3f}–{:.3f})".format(*row[question]) for question in QUESTIONS]
        lines.append(f"| {name} | {' | '.join(cells)} | {row['flops'] / 1e6:,.0f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default=str(MODEL_PATH))
    parser.add_argument("--captions", type=int, default=300)
    parser.add_argument("--steps", type=int, default=2000, help="training steps of each dual encoder")
    parser.add_argument("--seed", default="baselines")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    document = measure(options.model, options.captions, options.steps, options.seed)
    options.out.write_text(json.dumps(document, indent=1) + "\n")
    print(table(document))


if __name__ == "__main__":
    main()
