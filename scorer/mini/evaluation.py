"""Measure how well a model in training tells words apart: the small, direct twin of `benchmarks/grounding.py`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from transformers import LlavaForConditionalGeneration

from scorer.mini.batches import SceneEncoder, TrainingRow, collate
from scorer.mini.inputs import BLANK, SHOWN
from scorer.mini.language.caption_writer import CONTRADICTORY, FILLER, VISUAL
from scorer.mini.language.captions import Caption, write, write_false
from scorer.mini.language.compose import compose, compose_false
from scorer.mini.language.filler import RESERVED, TRAINING
from scorer.mini.language.prompts import PROMPT
from scorer.mini.language.surface import CASES, DROPPED, Surface
from scorer.mini.objective import hidden_states, image_features, with_blank
from scorer.mini.packaging import IMAGE_SIZE
from scorer.mini.world import Scene, sample_scene, seeded
from scorer.mini.world.drawing import draw
from scorer.statistics import auroc

Column = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A scene that training never sees, and its caption."""

    scene: Scene
    caption: Caption


def held_out(seed: int | str, count: int, *, false_share: float = 0.5) -> list[HeldOut]:
    """Return `count` fresh scenes and captions; the first `false_share` of them have one planted error each."""
    pairs = []
    for index in range(count):
        rng = seeded("held out", seed, index)
        scene = sample_scene(rng)
        pairs.append(HeldOut(scene, (write_false if index < false_share * count else write)(scene, rng)))
    return pairs


def held_out_language(seed: int | str, count: int, part: str, *, false_share: float = 0.5) -> list[HeldOut]:
    """Return the same in free language, of the words and frames of training or of those reserved; without typos."""
    pairs = []
    for index in range(count):
        rng = seeded("held out language", part, seed, index)
        scene = sample_scene(rng)
        surface = Surface(rng, rng.choice(CASES), rng.choice(DROPPED))
        write_one = compose_false if index < false_share * count else compose
        pairs.append(HeldOut(scene, write_one(scene, rng, part=part, surface=surface)))
    return pairs


@dataclass(frozen=True, slots=True)
class Predictions:
    """Values for each token of a set of captions, concatenated: the label's logit and log-probability, and the mean
    logit over the vocabulary."""

    logit: Column
    logprob: Column
    mean: Column


@torch.no_grad()
def predict(
    model: LlavaForConditionalGeneration, encoder: SceneEncoder, pairs: Sequence[HeldOut], mode: str
) -> tuple[list[str | None], Predictions]:
    """Return the label and the predictions of every caption token, with the image shown or hidden as `mode` says."""
    labels: list[str | None] = []
    columns: list[list[torch.Tensor]] = [[], [], []]
    for first in range(0, len(pairs), 32):
        rows = []
        for pair in pairs[first : first + 32]:
            branch = encoder.first(SHOWN if mode == BLANK else mode, PROMPT, pair.caption)
            image = np.asarray(draw(pair.scene, IMAGE_SIZE))
            rows.append(TrainingRow([pair.scene], [image], encoder.opening(system=False), [branch], mode == BLANK))
            labels += encoder.caption(pair.caption)[1]
        batch = collate(rows, encoder)
        hidden = hidden_states(model, batch, image_features(model, with_blank(batch.pixels)))
        chosen = (batch.weights[:, 1:] > 0) & (batch.ids[:, 1:] != encoder.end_id)
        logits = model.lm_head(hidden[:, :-1][chosen]).float()  # [tokens, vocabulary]
        logit = logits.gather(1, batch.ids[:, 1:][chosen][:, None])[:, 0]
        for column, value in zip(columns, (logit, logit - logits.logsumexp(1), logits.mean(1)), strict=True):
            column.append(value)
    return labels, Predictions(*(torch.cat(column).double().numpy() for column in columns))


def grounding(
    model: LlavaForConditionalGeneration,
    encoder: SceneEncoder,
    pairs: Sequence[HeldOut],
    modes: Sequence[str] = (BLANK,),
) -> dict[str, float]:
    """Measure the gaps on `pairs` with each of the contrasts `modes`.

    Returns: the AUROC of both gaps for both questions; the median and the 95th percentile of their size on filler; and
    the perplexity of true captions, given the image.
    """
    model.eval()
    found, shown = predict(model, encoder, pairs, SHOWN)
    labels = np.array(found, dtype=object)
    filler, true = labels == FILLER, labels != CONTRADICTORY
    figures = {"perplexity": float(np.exp(-shown.logprob[true].mean()))}
    for mode in modes:
        contrast = predict(model, encoder, pairs, mode)[1]
        for name, gap in (("logit", shown.logit - contrast.logit), ("logprob", shown.logprob - contrast.logprob)):
            visual = gap[labels == VISUAL]
            figures[f"{mode} {name} visual/filler"] = auroc(visual, gap[filler])
            figures[f"{mode} {name} true/contradictory"] = auroc(visual, gap[labels == CONTRADICTORY])
            figures[f"{mode} {name} filler, median"] = float(np.median(np.abs(gap[filler])))
            figures[f"{mode} {name} filler, 95 %"] = float(np.percentile(np.abs(gap[filler]), 95))
    model.train()
    return figures


def validation(seed: int | str, count: int) -> dict[str, list[HeldOut]]:
    """Return what a training run is measured on: `count` captions of templates and of either part of the language."""
    return {
        "templates": held_out(seed, count),
        TRAINING: held_out_language(seed, count, TRAINING),
        RESERVED: held_out_language(seed, count, RESERVED),
    }
