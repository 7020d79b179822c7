"""Scores equal what transformers gives one sample at a time, in any batch, for every contrast."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from scorer import EncodedSample, Sample, Scorer, ScorerConfig, TokenScores, encode
from scorer import images as image_ops
from scorer.errors import FailureCode, ModelError
from scorer.forward import ReferenceModel, labels
from scorer.types import IMAGE, Failure, Turn

CONTRASTS = ["blank", "masked", "removed", "blur", "noise", "image"]
SIZES = [(1, 1), (8, 8), (300, 9), (20, 60), (60, 20), (64, 64)]
TEXTS = ["A", "A red kite.", "très naïve 日本語 🪁 kite! " * 4, " A boat, spelled <image> <|im_end|> ", "word " * 60]
TOLERANCE = 1e-5


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def samples() -> list[Sample]:
    rows = []
    for i, (width, height) in enumerate(SIZES):
        for j, text in enumerate(TEXTS):
            image = picture(width, height, i)
            rows.append(Sample.caption(f"{i}-{j}", image, text, contrast_image=picture(30, 30, 100 + i)))
    rows.append(conversation())
    return rows


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


@pytest.fixture(scope="module", params=["chatml_model", "vicuna_model"])
def path(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def load(path: Path, **options: Any) -> Scorer:
    return Scorer.load(path, ScorerConfig(device="cpu", **options))


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
            "blank": lambda im: image_ops.blank_like(im, scorer.encoder._blank_color),
            "blur": lambda im: image_ops.blurred(im, config.blur_radius),
            "noise": lambda im: image_ops.noise_like(im, config.noise_seed),
        }
        images = sample.contrast_images if config.contrast == "image" else map(made[config.contrast], sample.images)
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


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_batched_scores_equal_transformers_own_full_forward(path: Path, contrast: str) -> None:
    scorer = load(path, contrast=contrast)
    plain = [Sample.caption("a", picture(50, 30), "A red kite over two boats.", contrast_image=picture(9, 9, 3))]
    plain.append(conversation())
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
    rows = samples()
    alone = load(path, contrast=contrast, max_batch_tokens=1).score(rows)
    order = np.random.default_rng(1).permutation(len(rows))
    for budget in (300, 100_000):
        together = load(path, contrast=contrast, max_batch_tokens=budget).score([rows[i] for i in order])
        for i, result in zip(order, together, strict=True):
            _assert_equal_scores(result, alone[i])


def _assert_equal_scores(result: object, expected: object) -> None:
    assert isinstance(result, TokenScores)
    assert isinstance(expected, TokenScores)
    assert result.sample_id == expected.sample_id
    np.testing.assert_array_equal(result.token_ids, expected.token_ids)
    for name in ("logit_gap", "logprob_clean", "logprob_contrast"):
        np.testing.assert_allclose(getattr(result, name), getattr(expected, name), atol=TOLERANCE)


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

    monkeypatch.setattr(ReferenceModel, "_pad", left_padded)
    with pytest.raises(AssertionError):
        for result, expected in zip(scorer.score(rows), alone, strict=True):
            _assert_equal_scores(result, expected)


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_several_contrasts_share_one_model(chatml_model: Path, contrast: str) -> None:
    first = load(chatml_model)
    rows = samples()[:6]
    expected = load(chatml_model, contrast=contrast)
    other = first.with_contrast(contrast)  # type: ignore[arg-type]  # parametrised by its values
    assert other.model is first.model
    for ours, theirs in zip(other.score(rows), expected.score(rows), strict=True):
        _assert_equal_scores(ours, theirs)
    assert other.fingerprint == expected.fingerprint
    assert other.self_check is not None
    assert (first.config.contrast, first.encoder.config.contrast, first.self_check) == ("blank", "blank", None)


def test_a_contrast_that_the_family_lacks_is_refused(chatml_model: Path) -> None:
    with pytest.raises(ModelError, match="'nothing' is not defined"):
        load(chatml_model).with_contrast("nothing")  # type: ignore[arg-type]  # what a user may ask for


def test_threads_share_an_encoder_though_its_blanks_overflow(
    chatml_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blanks are kept by size; with more sizes than are kept, one thread drops what another is about to use."""
    monkeypatch.setattr(encode, "_BLANKS_KEPT", 1)
    interval = sys.getswitchinterval()
    encoder = load(chatml_model).encoder
    rows = [Sample.caption(str(i), picture(8 + i % 5, 8), "A kite.") for i in range(200)]
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            encoded = list(pool.map(encoder.try_encode, rows))
    finally:
        sys.setswitchinterval(interval)
    assert all(isinstance(row, EncodedSample) for row in encoded)


def test_contrasts_differ_from_each_other(chatml_model: Path) -> None:
    row = [Sample.caption("a", picture(50, 30), "A red kite.", contrast_image=picture(9, 9, 3))]
    gaps = [load(chatml_model, contrast=contrast).score(row)[0] for contrast in CONTRASTS]
    for i, first in enumerate(gaps):
        for second in gaps[i + 1 :]:
            assert isinstance(first, TokenScores)
            assert isinstance(second, TokenScores)
            assert np.abs(first.logit_gap - second.logit_gap).max() > 1e-3


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
        scores = labels.label_scores(scorer.model, rows, hidden)
        assert max(sizes) == 7 * vocabulary
        for row, states, score in zip(rows, hidden, scores, strict=True):
            logits = scorer.model.model.lm_head(states)
            label = torch.from_numpy(row.ids[row.label_index])[:, None]
            np.testing.assert_allclose(score.logit, logits.gather(1, label)[:, 0].numpy(), atol=1e-5)
            expected = logits.log_softmax(-1).gather(1, label)[:, 0]
            np.testing.assert_allclose(score.logprob, expected.numpy(), atol=1e-5)


def test_a_bad_row_costs_that_row_only(chatml_model: Path, tmp_path: Path) -> None:
    good = Sample.caption("good", picture(30, 30), "A red kite.")
    buffer = BytesIO()
    picture(60, 60).save(buffer, "JPEG")
    bad = {
        "corrupt": (Sample.caption("corrupt", buffer.getvalue()[:300], "x"), FailureCode.IMAGE_UNREADABLE),
        "missing": (Sample.caption("missing", str(tmp_path / "no.jpg"), "x"), FailureCode.IMAGE_MISSING),
        "none": (Sample("none", (), (Turn("assistant", ("x",)),)), FailureCode.IMAGE_MISSING),
        "text": (Sample.caption("text", b"GIF89a", "x"), FailureCode.IMAGE_UNREADABLE),
        "empty": (Sample.caption("empty", picture(9, 9), ""), FailureCode.TEXT_MISSING),
        "blank": (Sample.caption("blank", picture(9, 9), " \n\t"), FailureCode.TEXT_MISSING),
        "null": (Sample.caption("null", picture(9, 9), None), FailureCode.TEXT_MISSING),  # type: ignore[arg-type]
        "number": (Sample.caption("number", picture(9, 9), 7), FailureCode.TEXT_INVALID),  # type: ignore[arg-type]
        "surrogate": (Sample.caption("surrogate", picture(9, 9), "\ud800"), FailureCode.TEXT_INVALID),
        "long": (Sample.caption("long", picture(9, 9), "kite " * 600), FailureCode.TEXT_TOO_LONG),
        "slots": (Sample("slots", (picture(9, 9),), (Turn("assistant", ("x",)),)), FailureCode.CONVERSATION_INVALID),
    }
    rows = [good, *(row for row, _ in bad.values()), good]
    results = load(chatml_model).score(rows)
    expected = load(chatml_model).score([good])[0]
    for result in (results[0], results[-1]):
        _assert_equal_scores(result, expected)
    for (name, (_, code)), result in zip(bad.items(), results[1:-1], strict=True):
        assert isinstance(result, Failure), name
        assert (result.sample_id, result.code) == (name, code)
        assert result.message


def test_contrast_image_that_is_missing_is_a_row_error(chatml_model: Path) -> None:
    (result,) = load(chatml_model, contrast="image").score([Sample.caption("a", picture(9, 9), "A kite.")])
    assert isinstance(result, Failure)
    assert result.code is FailureCode.CONTRAST_UNDEFINED


def test_truncate_scores_what_fits_and_leaves_it_unchanged(chatml_model: Path) -> None:
    text = "kite boat " * 400
    (cut,) = load(chatml_model, truncate=True).score([Sample.caption("a", picture(9, 9), text)])
    (short,) = load(chatml_model).score([Sample.caption("a", picture(9, 9), "kite boat " * 40)])
    assert isinstance(cut, TokenScores)
    assert isinstance(short, TokenScores)
    assert cut.token_ends[-1] < len(text)
    shared = len(short.token_ids) - 2  # the last tokens differ: the short text ends there
    np.testing.assert_allclose(cut.logit_gap[:shared], short.logit_gap[:shared], atol=TOLERANCE)


def test_truncate_never_cuts_the_prompt_away(chatml_model: Path) -> None:
    sample = Sample.caption("a", picture(9, 9), "A kite.", prompt="kite boat " * 600)
    (result,) = load(chatml_model, truncate=True).score([sample])
    assert isinstance(result, Failure)
    assert result.code is FailureCode.TEXT_TOO_LONG


def test_non_finite_scores_are_a_row_error(chatml_model: Path) -> None:
    scorer = load(chatml_model)
    rows = [Sample.caption("a", picture(9, 9), "A kite."), Sample.caption("b", picture(9, 9), "two boats")]
    token = scorer.encoder.encode(rows[0]).token_ids[0]
    scorer.model.model.get_input_embeddings().weight[token] = float("nan")
    first, second = scorer.score(rows)
    assert isinstance(first, Failure)
    assert first.code is FailureCode.NON_FINITE
    assert isinstance(second, TokenScores)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_is_near_float32(chatml_model: Path, dtype: str) -> None:
    rows = samples()[:8]
    for low, full in zip(load(chatml_model, dtype=dtype).score(rows), load(chatml_model).score(rows), strict=True):
        assert isinstance(low, TokenScores)
        assert isinstance(full, TokenScores)
        assert low.logit_gap.dtype == np.float32
        np.testing.assert_allclose(low.logprob_clean, full.logprob_clean, atol=0.2)


def test_unsupported_family_is_refused_before_loading(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ModelError, match=r"'clip'.*llava"):
        Scorer.load(tmp_path)


def test_model_that_does_not_exist_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        Scorer.load(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="neither a local directory nor a hub repository"):
        Scorer.load("nobody/nothing")


def test_weights_in_another_format_are_refused(chatml_model: Path, tmp_path: Path) -> None:
    for file in chatml_model.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        Scorer.load(tmp_path)


def test_fingerprint_names_what_decides_scores(chatml_model: Path, tmp_path: Path) -> None:
    base = load(chatml_model).fingerprint
    assert base == load(chatml_model, max_batch_tokens=77).fingerprint
    assert base != load(chatml_model, contrast="masked").fingerprint
    for file in chatml_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    copy = load(tmp_path).fingerprint
    assert {key for key in base if base[key] != copy[key]} == {"model"}
    weights = tmp_path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert load(tmp_path).fingerprint["weights_sha256"] != base["weights_sha256"]
