"""Quantities of whole predictions: exact in any blocks and chunks, in no more memory than the labels' scores take."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scorer import TokenScores
from scorer.columns import ASKED, of_contrast
from scorer.errors import BatchTooLargeError
from scorer.forward import LabelScores, Quantities, fast, head, labels, score_full_forwards
from scorer.forward.head import Head
from scorer.forward.model import ReferenceModel
from scorer.forward.packed import BatchResult, PackedForward, PreparedBatch
from scorer.forward.pairs import CLEAN, CONTRAST, States, Waiting, divergences, split_divergences, states_of
from scorer.forward.self_check import TOLERANCE, compare
from tests.scorer import distributions
from tests.scorer.scoring import load, samples

ALL = Quantities.asked_for(ASKED)
CPU = torch.device("cpu")


class HeadAlone:
    """What is asked of a model to project states, and nothing else."""

    def __init__(self, vocabulary: int, width: int, dtype: torch.dtype, softcap: float | None = None) -> None:
        torch.manual_seed(0)
        self.module = nn.Linear(width, vocabulary, bias=False).to(dtype).requires_grad_(False)
        self._head = Head(self.module)
        self._softcap = softcap
        self.vocabulary, self.block, self.projection_width = vocabulary, self._head.block, self._head.width

    def project(self, hidden: Tensor) -> Iterator[Tensor]:
        for logits in self._head.logits(hidden):
            yield logits if self._softcap is None else torch.tanh(logits / self._softcap) * self._softcap

    def exact(self, hidden: Tensor) -> Tensor:
        logits = hidden.double() @ self.module.weight.double().T
        return logits if self._softcap is None else torch.tanh(logits / self._softcap) * self._softcap


def states(count: int, width: int, dtype: torch.dtype, seed: int, scale: float = 3.0) -> Tensor:
    return (scale * torch.randn(count, width, generator=torch.Generator().manual_seed(seed))).to(dtype)


@torch.inference_mode()
def computed(model: Any, clean: Tensor, contrast: Tensor, wanted: Tensor) -> distributions.Columns:
    """The columns of labels whose states are given, as both paths compute them."""
    scores = [labels.project_labels(model, side, wanted, ALL.own) for side in (clean, contrast)]
    pairs = zip(
        *(states_of(side, one, [len(wanted)]) for side, one in zip((clean, contrast), scores, strict=True)), strict=True
    )
    (found,) = split_divergences(divergences(model, list(pairs), ALL.joint, CPU), [len(wanted)], ALL.joint)
    ((first,), (second,)) = (labels.split_scores(one, [len(wanted)], ALL.own) for one in scores)
    return {
        **found,
        "entropy_clean": first.distribution["entropy"],
        "entropy_contrast": second.distribution["entropy"],
        "top1_clean": first.logit >= first.distribution["top_logit"],
        "top1_contrast": second.logit >= second.distribution["top_logit"],
    }


VOCABULARY, WIDTH, COUNT = 203, 32, 60


@pytest.mark.parametrize("scale", [0.01, 3.0, 20.0], ids=["flat", "usual", "certain"])
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("words", [7, 100, 10**6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quantities_are_exact_in_any_blocks(
    dtype: torch.dtype, words: int, softcap: float | None, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "WEIGHTS_BLOCK", words * WIDTH)
    model = HeadAlone(VOCABULARY, WIDTH, dtype, softcap)
    assert (model.block == VOCABULARY) == (dtype == torch.float32 or words > VOCABULARY)
    monkeypatch.setattr(labels, "LOGITS_CHUNK", 29 * model.projection_width)
    clean, contrast = (states(COUNT, WIDTH, dtype, seed, scale) for seed in (1, 2))
    contrast[:5] = clean[:5]  # equal predictions
    wanted = torch.arange(COUNT)
    wanted[:30] = model.exact(clean)[:30].argmax(1)  # labels that are the top, of any block
    expected = distributions.naive(model.exact(clean), model.exact(contrast), wanted.numpy())
    found = computed(model, clean, contrast, wanted)
    assert distributions.error(found, expected) < 1e-5
    assert (found["top1_clean"][:30]).all() and not found["top1_clean"].all() and not found["top1_contrast"].all()
    for name in ALL.joint:
        assert (found[name] >= 0).all()
        assert (found[name][:5] == 0).all()
        assert scale == 0.01 or found[name][5:].min() > 1e-4
    assert (found["js"] <= math.log(2) + 1e-6).all()
    # Negative controls: the other direction, and the prediction of the next label.
    assert scale == 0.01 or distributions.error({"kl": found["kl_reverse"]}, {"kl": expected["kl"]}) > 1e-3
    if scale > 1:
        rolled = {name: np.roll(values, 1) for name, values in found.items()}
        assert all(distributions.error({n: rolled[n]}, {n: expected[n]}) > 1e-3 for n in expected)


def test_small_divergences_keep_their_digits() -> None:
    """The second-order terms alone are left: Σ p·(log p − log q) by itself loses them to rounding."""
    model = HeadAlone(50_000, WIDTH, torch.float32)
    clean = states(8, WIDTH, torch.float32, 1)
    contrast = clean + 1e-3 * states(8, WIDTH, torch.float32, 2)
    expected = distributions.naive(model.exact(clean), model.exact(contrast), np.zeros(8, np.int64))
    found = computed(model, clean, contrast, torch.zeros(8, dtype=torch.int64))
    for name in ("kl", "kl_reverse"):
        assert expected[name].max() < 1e-4
        np.testing.assert_allclose(found[name], expected[name], rtol=0.02)
    np.testing.assert_allclose(found["js"], expected["js"], atol=2e-7)


def test_a_label_that_its_class_masks_with_the_lowest_number_has_no_divergences() -> None:
    """Its log-sum-exp is lost in its logit; a divergence computed without would look like any other."""
    model = HeadAlone(VOCABULARY, WIDTH, torch.float32)
    plain = model.project

    def masked(hidden: Tensor) -> Iterator[Tensor]:
        for logits in plain(hidden):
            logits[:, 3] = torch.finfo(torch.float32).min
            yield logits

    model.project = masked  # type: ignore[method-assign]  # as a class that masks a token does
    clean, contrast = (states(COUNT, WIDTH, torch.float32, seed) for seed in (1, 2))
    wanted = torch.arange(COUNT)
    found = computed(model, clean, contrast, wanted)
    for name in ALL.joint:
        assert np.flatnonzero(np.isnan(found[name])).tolist() == [3]


@pytest.mark.parametrize("words", [7, 10**6], ids=["blocks", "whole"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_words_that_no_branch_allows_add_nothing(
    dtype: torch.dtype, words: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class that masks a part of its vocabulary gives these words logits of −∞; whole blocks may be masked."""
    monkeypatch.setattr(head, "WEIGHTS_BLOCK", words * WIDTH)
    model = HeadAlone(VOCABULARY, WIDTH, dtype)
    model.module.bias = nn.Parameter(torch.zeros(VOCABULARY, dtype=dtype), requires_grad=False)
    allowed = torch.arange(VOCABULARY) % 3 > 0
    allowed[:20] = allowed[-20:] = False
    model.module.bias[~allowed] = -math.inf
    clean, contrast = (states(COUNT, WIDTH, dtype, seed) for seed in (1, 2))
    wanted = torch.arange(40, 40 + 3 * COUNT, 3)[:COUNT] % 150 + 25
    wanted = wanted[allowed[wanted]]
    clean, contrast = clean[: len(wanted)], contrast[: len(wanted)]
    among = (torch.cumsum(allowed, 0) - 1)[wanted]  # the labels' places among the allowed words
    expected = distributions.naive(model.exact(clean)[:, allowed], model.exact(contrast)[:, allowed], among.numpy())
    assert len(wanted) > 10
    assert distributions.error(computed(model, clean, contrast, wanted), expected) < 1e-5


def test_a_logit_that_is_no_number_makes_its_quantities_none() -> None:
    model = HeadAlone(VOCABULARY, WIDTH, torch.float32)
    model.module.bias = nn.Parameter(torch.zeros(VOCABULARY), requires_grad=False)
    model.module.bias[3] = math.nan
    clean, contrast = (states(4, WIDTH, torch.float32, seed) for seed in (1, 2))
    found = computed(model, clean, contrast, torch.arange(10, 14))
    assert all(np.isnan(values).all() for values in found.values() if values.dtype != np.bool_)


def test_predictions_that_exclude_each_other_are_ln_2_apart_and_no_more() -> None:
    """Logits near ±1,000 are rounded to 6e-5, and so are log-sum-exps: shares of words sum to a little more than 1."""
    generator = torch.Generator().manual_seed(0)
    side = torch.cat([torch.zeros(500), torch.full((500,), -200.0)])
    drawn = 3 * torch.randn(2, 40, 1000, generator=generator)
    offset = 1000 * torch.rand(40, 1, generator=generator)
    clean, contrast = drawn[0] + side + offset, drawn[1] + side.flip(0) - offset

    class Logits:
        vocabulary = block = projection_width = 1000

        def project(self, hidden: Tensor) -> Iterator[Tensor]:
            yield hidden.clone()

    js = computed(Logits(), clean, contrast, torch.zeros(40, dtype=torch.int64))["js"]
    np.testing.assert_allclose(js, math.log(2), rtol=1e-3)
    assert js.max() <= np.float32(math.log(2))


# Memory


def peak_bytes(run: Callable[[], object]) -> int:
    """The most bytes that torch held at once for ``run``, above what it held before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    results: Any = profiler.profiler
    events = sorted(
        (one for one in results.kineto_results.events() if one.name() == "[memory]"), key=lambda one: one.start_ns()
    )
    return max(itertools.accumulate(int(one.nbytes()) for one in events))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_big_vocabulary_takes_no_more_memory_than_its_labels_do(dtype: torch.dtype) -> None:
    model: Any = HeadAlone(152_000, 64, dtype)
    count = labels.LOGITS_CHUNK // model.projection_width + 40  # more than a chunk
    clean, contrast = (states(count, 64, dtype, seed) for seed in (1, 2))
    wanted = torch.arange(count)

    @torch.inference_mode()
    def labels_alone() -> None:
        for side in (clean, contrast):
            labels.project_labels(model, side, wanted)

    today, ours = peak_bytes(labels_alone), peak_bytes(lambda: computed(model, clean, contrast, wanted))
    assert today > 2**26
    assert ours <= 1.1 * today, (ours, today)


@torch.inference_mode()
def test_twice_the_pairs_at_once_would_take_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of the test above."""
    from scorer.forward import pairs

    model: Any = HeadAlone(152_000, 64, torch.float32)
    clean, contrast = (states(150, 64, torch.float32, seed) for seed in (1, 2))
    today = peak_bytes(lambda: labels.project_labels(model, clean, torch.arange(150)))
    monkeypatch.setattr(pairs, "_SHARE", 1)
    assert peak_bytes(lambda: computed(model, clean, contrast, torch.arange(150))) > 1.5 * today


# Rows


def distribution_error(ours: list[tuple[LabelScores, ...]], theirs: list[tuple[LabelScores, ...]]) -> float:
    worst = 0.0
    for row, other in zip(ours, theirs, strict=True):
        for branch, (a, b) in enumerate(zip(row, other, strict=True)):
            assert set(a.distribution) == set(b.distribution) == {*ALL.own, *(ALL.joint if branch else ())}
            for name, values in b.distribution.items():
                assert np.isfinite(values).all()
                off = np.abs(a.distribution[name] - values) / np.maximum(1, np.abs(values))
                worst = max(worst, float(off.max()))
    return worst


CONTRASTS = {"contrast": "blank", "further_contrasts": ("blur", "masked", "noise")}
"""Two that are constant and two that are not: states wait for some, and some for states."""


def scored(path: Path, budget: int = 400, **options: Any) -> list[TokenScores]:
    scorer = load(path, **CONTRASTS, **options)
    results = scorer.score_batches([scorer.encoder.encode(sample) for sample in samples()], budget)
    assert scorer.path == "fast"
    assert all(isinstance(one, TokenScores) for one in results)
    return cast(list[TokenScores], results)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("states_bytes", [0, 5000, 2**28])
def test_states_that_are_due_change_no_value(
    chatml_model: Path, states_bytes: int, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast, "STATES_BYTES", states_bytes)
    scorer = load(chatml_model, **CONTRASTS)
    rows = [scorer.encoder.encode(sample) for sample in samples()]
    path = fast.FastPath(scorer.model, scorer.config.contrasts, 2**20, quantities=ALL)
    plain = score_full_forwards(scorer.model, rows, ALL)
    score = path.score_kept if kept else path.score_rows
    found = dict(score(rows, 400))
    ours = [tuple(cast(LabelScores, found[i, k]) for k in range(len(row.branches))) for i, row in enumerate(rows)]
    assert distribution_error(ours, plain) < 1e-5
    assert compare(ours, plain, "float32").difference < 1e-5
    mixed = [(row[0], row[2], row[1], *row[3:]) for row in ours]  # another contrast's would be seen
    assert distribution_error(mixed, plain) > 1e-3


def waiting_states(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes that wait, batch by batch."""
    sizes: list[int] = []
    own = Waiting.meet

    def watched(self: Waiting, *arguments: Any) -> Any:
        complete = own(self, *arguments)
        sizes.append(sum(one.hidden.nbytes for one in (*self._clean.values(), *self._others.values())))
        return complete

    monkeypatch.setattr(Waiting, "meet", watched)
    return sizes


def test_the_states_that_wait_are_bounded(chatml_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = waiting_states(monkeypatch)
    unbounded = scored(chatml_model, distribution_columns=ASKED)
    whole = max(sizes)
    assert sizes[-1] == 0
    sizes.clear()
    row = max(len(one.token_ids) for one in unbounded) * 32 * 4
    monkeypatch.setattr(fast, "STATES_BYTES", 2 * row)
    bounded = scored(chatml_model, distribution_columns=ASKED)
    assert whole > 6 * row
    # Its states, or those of each contrast that came first, wait for a row.
    assert max(sizes) <= 3 * row * len(CONTRASTS["further_contrasts"])
    assert sizes[-1] == 0
    for one, other in zip(bounded, unbounded, strict=True):
        for name, values in other.arrays.items():
            np.testing.assert_allclose(one.arrays[name], values, atol=2e-5, err_msg=name)


def test_what_is_due_follows_from_the_rows(chatml_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16, whose scores depend on the batch: a resumed run gives the same bytes."""
    monkeypatch.setattr(fast, "STATES_BYTES", 20_000)
    first, again = (scored(chatml_model, distribution_columns=ASKED, dtype="bfloat16") for _ in range(2))
    monkeypatch.setattr(fast, "STATES_BYTES", 2**28)
    other = scored(chatml_model, distribution_columns=ASKED, dtype="bfloat16")
    moved = 0
    for one, same, elsewhere in zip(first, again, other, strict=True):
        for name, values in one.arrays.items():
            assert values.tobytes() == same.arrays[name].tobytes()
            moved += values.tobytes() != elsewhere.arrays[name].tobytes()
    assert moved  # other batches round otherwise


@pytest.mark.parametrize("asked", [("entropy",), ("top1",), ("entropy", "top1"), ASKED])
def test_the_columns_change_no_byte_of_the_others(chatml_model: Path, asked: tuple[str, ...]) -> None:
    for one, other in zip(
        scored(chatml_model, distribution_columns=asked, dtype="bfloat16"),
        scored(chatml_model, dtype="bfloat16"),
        strict=True,
    ):
        assert len(one.arrays) > len(other.arrays)
        for name, values in other.arrays.items():
            assert values.tobytes() == one.arrays[name].tobytes(), name


def test_no_state_waits_for_what_a_branch_has_by_itself(chatml_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = waiting_states(monkeypatch)
    monkeypatch.setattr(fast, "STATES_BYTES", 0)  # would divide the batches
    scored(chatml_model, distribution_columns=("entropy", "top1"))
    assert sizes == []


def test_each_contrast_s_columns_are_those_of_a_run_with_it_alone(chatml_model: Path) -> None:
    together = scored(chatml_model, distribution_columns=ASKED)
    for name in CONTRASTS["further_contrasts"]:
        scorer = load(chatml_model, contrast=name, distribution_columns=ASKED)
        alone = scorer.score_batches([scorer.encoder.encode(sample) for sample in samples()], 400)
        for ours, own in zip(together, alone, strict=True):
            assert isinstance(own, TokenScores)
            assert {column.name for column in of_contrast(name, ASKED)} <= set(ours.optional)
            seen = ours.with_contrast(name)
            for column, values in own.arrays.items():
                np.testing.assert_allclose(seen.arrays[column], values, atol=1e-5, err_msg=column)
    gaps = [one.optional["kl"] - one.with_contrast("blur").optional["kl"] for one in together]
    assert np.abs(np.concatenate(gaps)).max() > 1e-3


@pytest.mark.parametrize("passes", ["fast", "plain"])
def test_low_precision_is_near_float32(chatml_model: Path, passes: str) -> None:
    """bfloat16's states are what errs: those of this tiny model, by less than 0.01 nats rms."""
    found = []
    for dtype in ("float32", "bfloat16"):
        scorer = load(chatml_model, distribution_columns=ASKED, dtype=dtype)
        if passes == "plain":
            scorer._fast = None
        found.append([one for one in scorer.score(samples()) if isinstance(one, TokenScores)])
    full, low = found
    assert len(full) == len(low) == len(samples())
    for name in (*ALL.joint, "entropy_clean", "entropy_contrast"):
        off = np.concatenate([a.optional[name] - b.optional[name] for a, b in zip(full, low, strict=True)])
        assert 0 < np.sqrt((off**2).mean()) < 0.01, name
        assert np.abs(off).max() < 0.06, name


# Failures


def test_a_row_that_alone_does_not_fit_leaves_the_others(chatml_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "STATES_BYTES", 0)  # every row is scored by itself
    expected = scored(chatml_model, distribution_columns=ASKED)
    longest = max(range(len(expected)), key=lambda i: len(expected[i].token_ids))
    sound = PackedForward.run

    def tight(self: PackedForward, batch: PreparedBatch, keep: Any = ()) -> BatchResult:
        if len(batch.layout.reads[0]) == len(expected[longest].token_ids):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sound(self, batch, keep)

    monkeypatch.setattr(PackedForward, "run", tight)
    scorer = load(chatml_model, **CONTRASTS, distribution_columns=ASKED)
    results = scorer.score_batches([scorer.encoder.encode(sample) for sample in samples()], 1)
    size = len(expected[longest].token_ids)
    for one, own in zip(results, expected, strict=True):
        assert isinstance(one, TokenScores) == (len(own.token_ids) != size)
        if isinstance(one, TokenScores):
            for name, values in own.arrays.items():
                np.testing.assert_allclose(one.arrays[name], values, atol=1e-5, err_msg=name)


def test_pairs_that_do_not_fit_in_memory_are_the_caller_s_to_cut(
    chatml_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(fast, "divergences", full)
    scorer = load(chatml_model, distribution_columns=("kl",))
    with pytest.raises(BatchTooLargeError):
        scorer.score_batches([scorer.encoder.encode(sample) for sample in samples()], 1000)


def test_nan_in_a_prediction_fails_its_row(chatml_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = load(chatml_model, distribution_columns=ASKED)
    own = fast.split_divergences

    def spoilt(*arguments: Any) -> Any:
        rows = own(*arguments)
        rows[0]["js"][0] = np.nan
        return rows

    scorer.score(samples()[:1])  # the check comes first, and would see it
    monkeypatch.setattr(fast, "split_divergences", spoilt)
    (failed,) = scorer.score(samples()[:1])
    assert not isinstance(failed, TokenScores)
    assert "NaN or infinity for 1 of" in failed.message


# What waits


def state(value: float) -> States:
    return States(torch.full((1, 1), value), torch.zeros(1))


def test_either_branch_may_come_first() -> None:
    waiting = Waiting(2)
    clean, first, second = (state(value) for value in range(3))
    assert waiting.meet([(0, CONTRAST)], [first]) == []
    assert waiting.meet([(0, CLEAN), (1, CLEAN)], [clean, state(9)]) == [((0, CONTRAST), (clean, first))]
    assert waiting.meet([(0, 2)], [second]) == [((0, 2), (clean, second))]
    assert list(waiting._clean) == [1] and not waiting._others


def test_what_waits_is_copied_to_the_host() -> None:
    """A part of a batch's states would keep all of them."""
    waiting = Waiting(1)
    batch = torch.zeros(2, 3)
    parts = [States(part, torch.zeros(1)) for part in batch.split(1)]
    waiting.meet([(0, CLEAN), (1, CLEAN)], parts)
    waiting.to_host()
    assert all(part.hidden.untyped_storage().nbytes() == 3 * 4 for part in parts)


# The check


@pytest.mark.parametrize("name", [*ALL.own, *ALL.joint])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_check_allows_what_logits_that_move_by_the_limit_explain(name: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    limit, largest = 1e-3, 0.0  # small beside 1: the derivation is of first order
    for scale in (0.1, 1.0, 4.0, 12.0):
        logits = torch.from_numpy(scale * rng.normal(size=(2, 200, 500)))
        label = np.zeros(200, np.int64)
        # The worst move of all logits, by the limit each, up or down: that along a gradient.
        logits.requires_grad_()
        value = _quantity(name, logits)
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        moved = logits.detach() + limit * gradient.sign()
        before, after = (
            LabelScores(label.astype(np.float32), label.astype(np.float32), {name: v.detach().float().numpy()})
            for v in (value, _quantity(name, moved))
        )
        difference = compare([(after,)], [(before,)], dtype).difference
        largest = max(largest, difference)
    assert 0.2 * limit < largest <= 1.01 * limit


def _quantity(name: str, logits: Tensor) -> Tensor:
    logp, logq = logits.log_softmax(-1)
    p, q = logp.exp(), logq.exp()
    if name == "top_logit":
        return logits[0].amax(-1)
    if name == "entropy":
        return -(p * logp).sum(-1)
    if name == "js":
        logm = ((p + q) / 2).log()
        return ((p * (logp - logm)).sum(-1) + (q * (logq - logm)).sum(-1)) / 2
    return (p * (logp - logq)).sum(-1) if name == "kl" else (q * (logq - logp)).sum(-1)


@pytest.mark.parametrize("name", [*ALL.own, *ALL.joint])
def test_a_quantity_that_differs_fails_the_check(name: str) -> None:
    values = np.ones(3, np.float32)
    wrong = np.array([1, 1, 1 + 6 * TOLERANCE["float32"]], np.float32)
    nan = np.array([1, 1, np.nan], np.float32)
    sound = LabelScores(values, -values, {name: values})
    assert compare([(sound,)], [(sound,)], "float32").passed
    for bad in (wrong, nan):
        other = LabelScores(values, -values, {name: bad})
        assert not compare([(other,)], [(sound,)], "float32").passed
        assert not compare([(sound,)], [(other,)], "float32").passed


def test_a_fast_path_that_pairs_wrong_states_is_given_up(chatml_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Waiting.meet

    def crossed(self: Waiting, *arguments: Any) -> Any:
        complete = own(self, *arguments)
        pairs = [pair for _, pair in complete]
        return [
            (item, (States(clean.hidden.roll(1, 0), clean.totals.roll(1, 0)), contrast))
            for (item, _), (clean, contrast) in zip(complete, pairs, strict=True)
        ]

    expected = scored(chatml_model, distribution_columns=ASKED)
    monkeypatch.setattr(Waiting, "meet", crossed)
    scorer = load(chatml_model, **CONTRASTS, distribution_columns=ASKED)
    results = scorer.score_batches([scorer.encoder.encode(sample) for sample in samples()], 400)
    assert scorer.path == "plain"
    for one, own_scores in zip(results, expected, strict=True):
        assert isinstance(one, TokenScores)
        for name, values in own_scores.arrays.items():
            np.testing.assert_allclose(one.arrays[name], values, atol=1e-5, err_msg=name)


def test_the_bytes_of_a_state_are_those_of_the_decoder(chatml_model: Path) -> None:
    for dtype, size in (("float32", 4), ("bfloat16", 2)):
        model = load(chatml_model, dtype=dtype).model
        assert isinstance(model, ReferenceModel)
        assert model.state_bytes == 32 * size
