"""Scores equal what transformers gives one sample at a time, in any batch, for every contrast."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scorer import EncodedSample, Sample, Scorer, TokenScores
from scorer.checkpoint import files
from scorer.checkpoint.fingerprint import fingerprint
from scorer.contrasts import CONTRASTS as RECORDS
from scorer.encoding import encoder as encoder_module
from scorer.errors import ConfigError
from scorer.forward import ReferenceModel, labels
from tests.scorer.scoring import (
    CONTRASTS,
    TOLERANCE,
    assert_equal_scores,
    conversation,
    hugging_face_scores,
    load,
    picture,
    samples,
    with_partner,
)


@pytest.fixture(scope="module", params=["chatml_model", "vicuna_model"])
def path(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_batched_scores_equal_transformers_own_full_forward(path: Path, contrast: str) -> None:
    scorer = load(path, contrast=contrast)
    plain = [Sample.caption("a", picture(50, 30), "A red kite over two boats.", contrast_image=picture(9, 9, 3))]
    plain = [with_partner(sample) for sample in (*plain, conversation())]
    for sample, result in zip(plain, scorer.score(plain), strict=True):
        assert isinstance(result, TokenScores)
        gap, clean, other = hugging_face_scores(scorer, sample)
        position = _positions_among_text(scorer, sample)
        np.testing.assert_allclose(result.logit_gap, gap[position], atol=TOLERANCE)
        np.testing.assert_allclose(result.logprob_clean, clean[position], atol=TOLERANCE)
        np.testing.assert_allclose(result.logprob_contrast, other[position], atol=TOLERANCE)
        # negative control: the neighbouring position, the classic off-by-one, is far away
        assert np.abs(result.logprob_clean - clean[position - 1]).max() > 0.01


def _positions_among_text(scorer: Scorer, sample: Sample) -> np.ndarray:
    """Index of each label among the predicted tokens that are no image tokens (position p is predicted at p - 1)."""
    branch = scorer.encoder.encode(sample).clean
    text_rank = np.cumsum(branch.input_ids[1:] != scorer.encoder.image_token_id) - 1
    return np.asarray(text_rank[branch.label_index - 1])


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_any_batch_composition_and_order_equals_one_at_a_time(path: Path, contrast: str) -> None:
    # What differs from "blank" by its picture alone is computed alike: a quarter of the rows, of every size, will do.
    rows = samples()[:: 1 if RECORDS[contrast].constant else -4]
    alone = load(path, contrast=contrast, max_batch_tokens=1).score(rows)
    order = np.random.default_rng(1).permutation(len(rows))
    for budget in (300, 100_000):
        together = load(path, contrast=contrast, max_batch_tokens=budget).score([rows[i] for i in order])
        for i, result in zip(order, together, strict=True):
            assert_equal_scores(result, alone[i])


def test_padding_without_its_mask_would_be_seen(chatml_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of the batch parity: padding in front of a row, unmasked, changes its scores."""
    rows = samples()[:6]
    scorer = load(chatml_model)
    alone = scorer.score(rows)

    def left_padded(self: ReferenceModel, arrays: Any, value: int) -> torch.Tensor:
        width = max(map(len, arrays))
        return torch.stack(
            [torch.from_numpy(np.pad(a, (width - len(a), 0), constant_values=value)) for a in arrays]
        ).long()

    scorer._fast = None  # only the plain path pads
    for result, expected in zip(scorer.score(rows), alone, strict=True):
        assert_equal_scores(result, expected)
    monkeypatch.setattr(ReferenceModel, "_pad", left_padded)
    with pytest.raises(AssertionError):
        for result, expected in zip(scorer.score(rows), alone, strict=True):
            assert_equal_scores(result, expected)


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_several_contrasts_share_one_model(chatml_model: Path, contrast: str) -> None:
    first = load(chatml_model)
    rows = samples()[:6]
    expected = load(chatml_model, contrast=contrast)
    other = first.with_contrast(contrast)  # type: ignore[arg-type]  # parametrised by its values
    assert other.model is first.model
    for ours, theirs in zip(other.score(rows), expected.score(rows), strict=True):
        assert_equal_scores(ours, theirs)
    assert other.fingerprint == expected.fingerprint
    assert other.self_check is not None
    assert (first.config.contrast, first.encoder.config.contrast, first.self_check) == ("blank", "blank", None)


def test_a_contrast_that_the_family_lacks_is_refused(chatml_model: Path) -> None:
    with pytest.raises(ConfigError, match="'nothing'; it must be one of blank"):
        load(chatml_model).with_contrast("nothing")


def test_a_model_s_files_are_hashed_once_for_all_its_contrasts(
    chatml_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of a large model take seconds, in which a service would answer nothing."""
    hashed: list[Path] = []
    digest = files._file_digest

    def counted(file: Path) -> str:
        hashed.append(file)
        return digest(file)

    monkeypatch.setattr(files, "_file_digest", counted)
    scorer = load(chatml_model)
    others = [scorer.with_contrast("masked", "blur"), scorer.with_contrast("blur", "masked")]
    found = [one.fingerprint for one in (scorer, *others)]
    assert len(hashed) == len(set(hashed)) > 0
    assert [one["contrast"] for one in found] == ["blank", "masked", "blur"]
    for one in others:
        assert one.fingerprint == fingerprint(chatml_model, one.config) | {"path": "fast"}


def test_threads_share_an_encoder_though_its_blanks_overflow(
    chatml_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawn images are kept by size; with more sizes than fit, one thread drops what another is about to use."""
    monkeypatch.setattr(encoder_module, "_KEPT_BYTES", 8000)
    interval = sys.getswitchinterval()
    encoder = load(chatml_model, contrast="noise").encoder
    rows = [Sample.caption(str(i), picture(8 + i % 5, 8), "A kite.") for i in range(200)]
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            encoded = list(pool.map(encoder.try_encode, rows))
    finally:
        sys.setswitchinterval(interval)
    assert all(isinstance(row, EncodedSample) for row in encoded)


def test_drawn_images_are_kept_for_each_contrast_apart(chatml_model: Path) -> None:
    blank = load(chatml_model).encoder
    noise = blank.with_contrast("noise")
    rows = [Sample.caption(str(i), picture(50, 30, i), "A kite.") for i in range(2)]
    first, second = (noise.encode(row).contrast.pixels["pixel_values"] for row in rows)
    assert first is second, "drawn once for a size"
    assert blank.encode(rows[0]).contrast.pixels_digest != noise.encode(rows[0]).contrast.pixels_digest


def test_contrasts_differ_from_each_other(chatml_model: Path) -> None:
    row = [Sample.caption("a", picture(50, 30), "A red kite.", contrast_image=picture(9, 9, 3))]
    row = [replace(row[0], partners=((picture(9, 9, 4),),))]
    gaps = [load(chatml_model, contrast=contrast).score(row)[0] for contrast in CONTRASTS]
    for i, first in enumerate(gaps):
        for second in gaps[i + 1 :]:
            assert isinstance(first, TokenScores)
            assert isinstance(second, TokenScores)
            assert np.abs(first.logit_gap - second.logit_gap).max() > 1e-3


@pytest.mark.parametrize(("contrast", "times"), [("blank", 1), ("noise", 1), ("masked", 1), ("image", 2)])
def test_a_prompt_is_encoded_again_only_where_the_contrast_may_change_it(
    chatml_model: Path, contrast: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load(chatml_model, contrast=contrast).encoder
    calls: list[object] = []
    original = encoder._chat.encode
    monkeypatch.setattr(encoder._chat, "encode", lambda *given: calls.append(given) or original(*given))
    encoder.encode(samples()[0])
    assert len(calls) == times


def test_only_caption_positions_reach_the_vocabulary_projection(chatml_model: Path) -> None:
    scorer = load(chatml_model)
    rows = samples()
    scorer.score(rows)  # checks the fast path against the plain one, once
    projected: list[int] = []
    scorer.model.model.lm_head.register_forward_hook(lambda module, args, out: projected.append(args[0].shape[0]))
    results = scorer.score(rows)
    labels = sum(len(result.token_ids) for result in results if isinstance(result, TokenScores))
    assert sum(projected) == 2 * labels


def test_projection_in_chunks_equals_the_naive_form(chatml_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = load(chatml_model)
    rows = [scorer.model.prepare(scorer.encoder.encode(sample).clean) for sample in samples()]
    vocabulary = scorer.model.vocabulary
    generator = torch.Generator().manual_seed(0)
    hidden = [torch.randn(len(row.label_index), 32, generator=generator) for row in rows]
    sizes: list[int] = []
    scorer.model.model.lm_head.register_forward_hook(lambda module, args, out: sizes.append(out.numel()))
    monkeypatch.setattr(labels, "LOGITS_CHUNK", 7 * vocabulary)
    with torch.inference_mode():
        both = labels.project_labels(scorer.model, torch.cat(hidden), labels.labels_of(rows))
        scores = labels.split_scores(both, [len(states) for states in hidden])
        assert max(sizes) == 7 * vocabulary
        for row, states, score in zip(rows, hidden, scores, strict=True):
            logits = scorer.model.model.lm_head(states)
            label = torch.from_numpy(row.ids[row.label_index])[:, None]
            np.testing.assert_allclose(score.logit, logits.gather(1, label)[:, 0].numpy(), atol=1e-5)
            expected = logits.log_softmax(-1).gather(1, label)[:, 0]
            np.testing.assert_allclose(score.logprob, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_is_near_float32(chatml_model: Path, dtype: str) -> None:
    rows = samples()[:8]
    for low, full in zip(load(chatml_model, dtype=dtype).score(rows), load(chatml_model).score(rows), strict=True):
        assert isinstance(low, TokenScores)
        assert isinstance(full, TokenScores)
        assert low.logit_gap.dtype == np.float32
        np.testing.assert_allclose(low.logprob_clean, full.logprob_clean, atol=0.2)
