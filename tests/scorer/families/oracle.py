"""transformers' own processor and class, one sample at a time, all logits: no code of ours but the altered images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from scorer import Sample, Scorer
from scorer.contrast_images import blank_image
from scorer.forward import LabelScores
from scorer.messages import to_messages
from scorer.types import Turn
from tests.scorer.families.samples import Case
from tests.scorer.scoring import picture


def processor_inputs(case: Case, scorer: Scorer, sample: Sample, images: Sequence[Any]) -> dict[str, Any]:
    """What the model's own processor makes of the rendered conversation."""
    if case.inputs is not None:
        return case.inputs(scorer, sample, images)
    processor = scorer.encoder._processor
    messages = [
        {
            "role": turn.role,
            "content": [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in turn.content],
        }
        for turn in sample.turns
    ]
    prompt = processor.apply_chat_template(messages, tokenize=False)
    pictures = [list(images)] if case.nested_images else list(images)
    return dict(processor(images=pictures, text=[prompt], return_tensors="pt"))


def oracle_inputs(case: Case, scorer: Scorer, sample: Sample) -> tuple[dict[str, Any], dict[str, Any]]:
    """The clean and the blank inputs."""
    blanks = [blank_image(image.size, scorer.encoder.contrast_options) for image in sample.images]
    clean, blank = (processor_inputs(case, scorer, sample, images) for images in (sample.images, blanks))
    return clean, blank


def stop_positions(case: Case, scorer: Scorer, sample: Sample) -> list[int]:
    """Where the processor's own tokens end each answer, told without its template.

    Two conversations that differ in one answer alone have equal tokens behind it: of these, the first that is special.
    White space may come before it.
    """
    tokenizer = scorer.encoder._processor.tokenizer
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    found = []
    for k, turn in enumerate(sample.turns):
        if turn.role != "assistant":
            continue
        turns = (*sample.turns[:k], Turn("assistant", ("Other words, 7",)), *sample.turns[k + 1 :])
        ids, others = (
            processor_inputs(case, scorer, one, sample.images)["input_ids"][0].tolist()
            for one in (sample, replace(sample, turns=turns))
        )
        behind = next(n for n in range(len(ids)) if ids[-n - 1] != others[-n - 1])
        for at in range(len(ids) - behind, len(ids)):
            if ids[at] in special:
                found.append(at)
                break
            if not tokenizer.decode([ids[at]]).isspace():
                break
    return found


def text_only_oracle_inputs(case: Case, scorer: Scorer, sample: Sample) -> dict[str, Any]:
    """The contrast's inputs for ``masked`` (image tokens hidden, positions kept) and ``removed`` (taken out)."""
    inputs = processor_inputs(case, scorer, sample, sample.images)
    ids = inputs["input_ids"]
    shown = ids != scorer.model.model.config.image_token_id
    if scorer.config.contrast == "removed":
        per_token = {name for name, values in inputs.items() if values.shape == ids.shape}
        return {name: inputs[name][shown][None] for name in per_token}
    base = getattr(scorer.model.model, "model", None)
    if hasattr(base, "get_rope_index"):
        positions, _ = base.get_rope_index(**{n: v for n, v in inputs.items() if n != "attention_mask"})
    else:
        positions = scorer.checkpoint.family.first_position + torch.arange(ids.shape[1])[None]
    return {**inputs, "attention_mask": shown.long(), "position_ids": positions}


def text_alone_inputs(case: Case, scorer: Scorer, sample: Sample) -> dict[str, Any]:
    """What the model's own template and tokenizer make of a conversation without images, with its token types."""
    if case.inputs is not None:
        ids = case.inputs(scorer, sample, [picture(30, 50, 1)])["input_ids"]
        ids = ids[ids != scorer.encoder.image_token_id][None]
    else:
        processor = scorer.encoder._processor
        prompt = scorer.encoder.render(to_messages(sample.turns))
        ids = processor.tokenizer([prompt], return_tensors="pt")["input_ids"]
    branch = scorer.encoder.encode(sample).contrast
    types = scorer.checkpoint.family.token_inputs(ids[0].numpy(), int(branch.label_index[0]), -1)
    return {"input_ids": ids, **{name: torch.from_numpy(values)[None] for name, values in types.items()}}


def oracle_logits(scorer: Scorer, inputs: dict[str, Any], label_index: np.ndarray) -> torch.Tensor:
    """The class's own logits of all words where the labels are predicted, float32 [N, V]."""
    with torch.inference_mode():
        logits = scorer.model.model(**inputs).logits[0].float()  # [T, V]
    return logits[torch.from_numpy(label_index - 1)]


def oracle_scores(scorer: Scorer, inputs: dict[str, Any], label_index: np.ndarray) -> LabelScores:
    """The class's own logits of the labels."""
    predicting = oracle_logits(scorer, inputs, label_index)
    labels = inputs["input_ids"][0, torch.from_numpy(label_index)][:, None]
    logprobs = predicting.log_softmax(-1)
    return LabelScores(*(values.gather(1, labels)[:, 0].numpy() for values in (predicting, logprobs)))
