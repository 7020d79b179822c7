"""Measure how well a model in training tells words apart: the small, direct twin of `benchmarks/grounding.py`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from transformers import LlavaForConditionalGeneration

from scorer.mini.batches import BLANK, PROMPT, REMOVED, SHOWN, SceneEncoder, TrainingRow, collate
from scorer.mini.caption_writer import CONTRADICTORY, FILLER, VISUAL
from scorer.mini.captions import Caption, write, write_false
from scorer.mini.drawing import draw
from scorer.mini.labels import auroc
from scorer.mini.objective import hidden_states, image_features, with_blank
from scorer.mini.packaging import IMAGE_SIZE
from scorer.mini.world import Scene, sample_scene, seeded

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
    model: LlavaForConditionalGeneration, encoder: SceneEncoder, pairs: Sequence[HeldOut]
) -> dict[str, float]:
    """Return the AUROC of the gaps on `pairs`, for the contrasts `blank` and `removed`."""
    model.eval()
    found, shown = predict(model, encoder, pairs, SHOWN)
    labels = np.array(found, dtype=object)
    figures = {}
    for mode in (BLANK, REMOVED):
        contrast = predict(model, encoder, pairs, mode)[1]
        for name, gap in (("logit", shown.logit - contrast.logit), ("logprob", shown.logprob - contrast.logprob)):
            visual = gap[labels == VISUAL]
            figures[f"{mode} {name} visual/filler"] = auroc(visual, gap[labels == FILLER])
            figures[f"{mode} {name} true/contradictory"] = auroc(visual, gap[labels == CONTRADICTORY])
    model.train()
    return figures
