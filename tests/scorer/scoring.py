"""What tests of whole scorers share: rows of every kind, loading on the CPU, the scores that transformers gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from scorer import Sample, Scorer, ScorerConfig, TokenScores
from scorer.contrast_images import (
    blank_image,
    blurred_image,
    diffused_image,
    downsampled_image,
    noise_image,
    patched_image,
)
from scorer.contrasts import CONTRASTS as RECORDS
from scorer.types import IMAGE, Turn

CONTRASTS = list(RECORDS)
SIZES = [(1, 1), (8, 8), (300, 9), (20, 60), (60, 20), (64, 64)]
TEXTS = ["A", "A red kite.", "très naïve 日本語 🪁 kite! " * 4, " A boat, spelled <image> <|im_end|> ", "word " * 60]
TOLERANCE = 1e-5


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def load(path: Path, **options: Any) -> Scorer:
    return Scorer.load(path, ScorerConfig(device="cpu", **options))


def assert_equal_scores(result: object, expected: object) -> None:
    assert isinstance(result, TokenScores)
    assert isinstance(expected, TokenScores)
    assert result.sample_id == expected.sample_id
    np.testing.assert_array_equal(result.token_ids, expected.token_ids)
    for name in ("logit_gap", "logprob_clean", "logprob_contrast"):
        np.testing.assert_allclose(getattr(result, name), getattr(expected, name), atol=TOLERANCE)


def samples() -> list[Sample]:
    rows = []
    for i, (width, height) in enumerate(SIZES):
        for j, text in enumerate(TEXTS):
            image = picture(width, height, i)
            rows.append(Sample.caption(f"{i}-{j}", image, text, contrast_image=picture(30, 30, 100 + i)))
    rows.append(conversation())
    return [with_partner(row) for row in rows]


def with_partner(sample: Sample) -> Sample:
    """The sample with another row's images: neither its own nor its contrast images."""
    return replace(sample, partners=(tuple(picture(33, 41, 200 + i) for i in range(len(sample.images))),))


def conversation() -> Sample:
    turns = (
        Turn("system", ("Be brief.",)),
        Turn("user", ("First ", IMAGE, " then ", IMAGE, "?")),
        Turn("assistant", ("A red kite.",)),
        Turn("user", ("And?",)),
        Turn("assistant", ("Two boats over a blue sky.",)),
    )
    images = (picture(20, 40, 7), picture(40, 20, 8))
    return Sample("talk", images, turns, (picture(9, 9, 9), picture(8, 8, 10)))


def hugging_face_scores(scorer: Scorer, sample: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The oracle: transformers' own processor and full forward, one sample, full logits; no code of ours but images."""
    processor, model = scorer.encoder._processor, scorer.model.model
    config = scorer.config
    messages = [
        {
            "role": turn.role,
            "content": [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in turn.content],
        }
        for turn in sample.turns
    ]
    prompt = processor.apply_chat_template(messages, tokenize=False)
    clean = processor(images=list(sample.images), text=prompt, return_tensors="pt")
    image_tokens = clean["input_ids"] == model.config.image_token_id
    ids = clean["input_ids"]
    contrast = dict(clean)
    if config.contrast == "removed":
        contrast = {"input_ids": ids[~image_tokens][None]}
    elif config.contrast == "masked":
        contrast["attention_mask"] = (~image_tokens).long()
        contrast["position_ids"] = torch.arange(ids.shape[1])[None]
    else:
        made = {
            "blank": lambda im: blank_image(im.size, scorer.encoder.contrast_options),
            "blur": lambda im: blurred_image(im, scorer.encoder.contrast_options),
            "noise": lambda im: noise_image(im.size, scorer.encoder.contrast_options),
            "patches": lambda im: patched_image(im, scorer.encoder.contrast_options),
            "diffusion": lambda im: diffused_image(im, scorer.encoder.contrast_options),
            "downsample": lambda im: downsampled_image(im, scorer.encoder.contrast_options),
        }
        other = {"image": sample.contrast_images, "shuffled": (*sample.partners, ())[0]}
        images = other.get(config.contrast) or map(made[config.contrast], sample.images)
        contrast = dict(processor(images=list(images), text=prompt, return_tensors="pt"))
    with torch.inference_mode():
        clean_logits = model(**clean).logits[0, :-1]
        contrast_logits = model(**contrast).logits[0, :-1]
    clean_labels, contrast_labels = ids[0, 1:], contrast["input_ids"][0, 1:]
    keep = ~image_tokens[0, 1:]
    keep_contrast = torch.ones_like(contrast_labels, dtype=torch.bool) if config.contrast == "removed" else keep
    a = clean_logits.gather(1, clean_labels[:, None])[keep, 0]
    b = contrast_logits.gather(1, contrast_labels[:, None])[keep_contrast, 0]
    la = clean_logits.log_softmax(-1).gather(1, clean_labels[:, None])[keep, 0]
    lb = contrast_logits.log_softmax(-1).gather(1, contrast_labels[:, None])[keep_contrast, 0]
    return (a - b).numpy(), la.numpy(), lb.numpy()
