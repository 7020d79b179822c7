"""Each method against a plain rendering of what its paper publishes, written apart from the product's code.

What differs on purpose, and by how much, is in docs/fidelity.md; the sizes are bounded here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from scorer.results import TokenScores
from scorer.training.excess_loss import excess_loss_cross_entropy
from scorer.types import Float32Array
from scorer.weighting.dataset_gaps import DatasetGaps
from scorer.weights import Method, cal, pgpo, prior, tpo, vppo

VOCABULARY = 11
STOP = 2


@dataclass(frozen=True)
class Conversation:
    """One sample as a trainer holds it: what a model returned at each position, and the label there.

    Attributes:
        labels: the next token at each position; −100 at those of a prompt.
        with_image, without_image: logits, float64 [positions, vocabulary].
        scores: the same sample as the product stores it, of the labelled positions alone.
    """

    labels: list[int]
    with_image: np.ndarray
    without_image: np.ndarray
    scores: TokenScores


def conversation(seed: int, turns: list[int], entry_0: float | None = None) -> Conversation:
    """Return random turns of these many words, each after a prompt and with a stop token.

    Args:
        entry_0: how far the image raises the logit of vocabulary entry 0; None for a random gap.
    """
    rng = np.random.default_rng(seed)
    labels, turn_of = list[int](), list[int]()
    for turn, words in enumerate(turns):
        prompt = int(rng.integers(2, 6))
        answer = [*rng.integers(3, VOCABULARY, words).tolist(), STOP]
        labels += [-100] * prompt + answer
        turn_of += [turn] * len(answer)
    without_image = rng.normal(0, 3, (len(labels), VOCABULARY))
    with_image = without_image + rng.normal(1.5, 3, without_image.shape)
    if entry_0 is not None:
        with_image[:, 0] = without_image[:, 0] + entry_0
    at = np.array([i for i, label in enumerate(labels) if label != -100])
    own = np.array(labels)[at]
    positions = np.arange(len(at), dtype=np.int32)
    scores = TokenScores(
        "s",
        own.astype(np.int32),
        positions,
        positions + 1,
        np.array(turn_of, np.int16),
        "hash",
        (with_image - without_image)[at, own].astype(np.float32),
        log_softmax(with_image)[at, own].astype(np.float32),
        log_softmax(without_image)[at, own].astype(np.float32),
        optional={"is_stop": own == STOP},
    )
    return Conversation(labels, with_image, without_image, scores)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


conversations = st.builds(conversation, st.integers(0, 2**32 - 1), st.lists(st.integers(1, 6), min_size=1, max_size=4))
shielded = st.builds(
    conversation, st.integers(0, 2**32 - 1), st.lists(st.integers(1, 6), min_size=1, max_size=4), st.floats(-9, 1)
)
"""Conversations in which vocabulary entry 0 gains at most 1 logit, as far as CAL's clamp cuts off."""


def published_cal(sample: Conversation) -> Float32Array:
    """CAL's weights of a batch of one (arXiv 2405.17871 and its ``llava_llama.py``): at every position the label's
    logit difference, entry 0's where there is no label; then clamp to [1, 5]; then average over three positions."""
    clamped = []
    for position, label in enumerate(sample.labels):
        entry = max(label, 0)
        gap = float(sample.with_image[position, entry]) - float(sample.without_image[position, entry])
        clamped.append(min(5.0, max(1.0, gap)))
    pooled = []
    for position, label in enumerate(sample.labels):
        if label != -100:
            around = clamped[max(0, position - 1) : position + 2]
            pooled.append(sum(around) / len(around))
    return np.array(pooled, np.float32)


@given(shielded)
def test_cal_with_the_papers_edges_is_the_authors_code_on_one_sample(sample: Conversation) -> None:
    assert_allclose(cal(sample.scores, edges="paper"), published_cal(sample), rtol=1e-5)


@given(conversations)
def test_cal_with_the_papers_edges_differs_by_entry_0_alone(sample: Conversation) -> None:
    """Entry 0's gap is not stored: where it exceeds 1, ours is lower, at the ends of turns, by at most 4/3."""
    ours, theirs = cal(sample.scores, edges="paper"), published_cal(sample)
    turns = sample.scores.token_turns
    first = np.insert(np.diff(turns) != 0, 0, True)
    last = np.append(np.diff(turns) != 0, False)  # nothing follows the last turn
    assert_allclose(ours[~first & ~last], theirs[~first & ~last], rtol=1e-5)
    assert np.all(theirs - ours >= -1e-5)
    assert np.all(theirs - ours <= (5 - 1) / 3 + 1e-5)


@given(shielded)
def test_cal_with_a_turns_edges_differs_at_the_ends_of_turns_alone(sample: Conversation) -> None:
    difference = cal(sample.scores) - published_cal(sample)
    turns = sample.scores.token_turns
    inner = np.zeros(len(turns), np.bool_)
    inner[1:-1] = (turns[:-2] == turns[1:-1]) & (turns[1:-1] == turns[2:])
    assert_allclose(difference[inner], 0, atol=1e-5)
    assert np.all((difference >= -1e-5) & (difference <= 4 / 3 + 1e-5))


def test_the_comparison_sees_the_edges() -> None:
    """Negative control: the first word of a turn differs by up to 4/3, the last stop token of a sample by nothing."""
    differences = [cal(s.scores) - published_cal(s) for s in (conversation(seed, [3], 0.0) for seed in range(200))]
    first, last = ([d[i] for d in differences] for i in (0, -1))
    assert max(first) > 1.2
    assert max(map(abs, last)) < 1e-5


@given(conversations, st.floats(0.25, 4))
def test_prior_is_the_papers_loss_weight(sample: Conversation, alpha: float) -> None:
    """PRIOR, arXiv 2505.08971: wᵢ = (1 − P(tᵢ))^α, and k · wᵢ / Σw in the loss of k tokens."""
    raw = [(1 - math.exp(logprob)) ** alpha for logprob in sample.scores.logprob_contrast.tolist()]
    assert_allclose(prior(sample.scores, alpha=alpha), [len(raw) * w / sum(raw) for w in raw], rtol=1e-4, atol=1e-5)


def test_the_comparison_sees_a_weight_that_is_not_normalised() -> None:
    """Negative control."""
    sample = conversation(0, [5])
    raw = 1 - np.exp(sample.scores.logprob_contrast)
    with pytest.raises(AssertionError):
        assert_allclose(prior(sample.scores), raw, rtol=1e-2)


datasets = st.builds(
    lambda seed, lengths: [conversation(seed + i, [words]) for i, words in enumerate(lengths)],
    st.integers(0, 2**31),
    st.lists(st.integers(1, 9), min_size=1, max_size=30),
)


def gap_of(scores: TokenScores) -> np.ndarray:
    return scores.logprob_clean.astype(np.float64) - scores.logprob_contrast.astype(np.float64)


def published_vig(dataset: list[Conversation], share: float, threshold: float | None = None) -> list[list[float]]:
    """VIG's loss masks, arXiv 2602.17186: of each sample, log(PPL without ÷ PPL with the image); the threshold is the
    least of the top ``share`` of samples; those reach it are trained on, in their tokens that reach it."""
    losses = [
        [
            (-clean, -contrast)
            for clean, contrast in zip(s.scores.logprob_clean.tolist(), s.scores.logprob_contrast.tolist(), strict=True)
        ]
        for s in dataset
    ]
    of_samples = []
    for sample in losses:
        with_image = math.exp(sum(clean for clean, _ in sample) / len(sample))
        without = math.exp(sum(contrast for _, contrast in sample) / len(sample))
        of_samples.append(math.log(without / with_image))
    if threshold is None:
        threshold = sorted(of_samples, reverse=True)[math.ceil(share * len(dataset) - 1e-9) - 1]
    return [
        [1.0 if gain >= threshold and contrast - clean >= threshold else 0.0 for clean, contrast in sample]
        for gain, sample in zip(of_samples, losses, strict=True)
    ]


def gaps_of(dataset: list[Conversation]) -> DatasetGaps:
    return sum((DatasetGaps.of(gap_of(s.scores), np.array([0, len(gap_of(s.scores))])) for s in dataset), DatasetGaps())


@given(datasets, st.floats(-2, 2))
def test_vig_is_the_papers_mask_at_one_threshold(dataset: list[Conversation], threshold: float) -> None:
    method = Method("vig", {"threshold": threshold})
    assert [method(sample.scores).tolist() for sample in dataset] == published_vig(dataset, 0.7, threshold)


@given(datasets, st.integers(1, 100))
def test_vigs_threshold_is_the_papers_within_a_bin(dataset: list[Conversation], percent: int) -> None:
    """Below the exact quantile by at most 1.6 % of it: no row that the paper keeps is dropped, no more than its bin."""
    share = percent / 100
    threshold = Method("vig", {"keep": share}).with_gaps(gaps_of(dataset)).params["threshold"]
    means = sorted((float(gap_of(sample.scores).mean()) for sample in dataset), reverse=True)
    exact = means[math.ceil(share * len(means) - 1e-9) - 1]
    assert -1e-9 <= exact - threshold <= max(abs(exact) / 64, 2 / 1024)


def test_the_comparison_sees_a_selection_within_each_row() -> None:
    """Negative control: our selection within a row keeps tokens of every row, and other ones."""
    dataset = [conversation(seed, [8]) for seed in range(40)]
    ours = [Method("vig-row")(sample.scores).tolist() for sample in dataset]
    theirs = published_vig(dataset, 0.7)
    assert all(any(row) for row in ours)
    assert sum(not any(row) for row in theirs) == 12
    agreement = np.mean(np.concatenate(ours) == np.concatenate(theirs))
    assert agreement < 0.8


def published_k3(sample: Conversation, most: float = math.inf) -> list[float]:
    """The low-variance KL of VPPO's code: log-probabilities' difference clamped to ±20, the result to [0, most]."""
    pairs = zip(sample.scores.logprob_clean.tolist(), sample.scores.logprob_contrast.tolist(), strict=True)
    differences = [min(max(contrast - clean, -20.0), 20.0) for clean, contrast in pairs]
    return [min(max(math.exp(d) - d - 1, 0.0), most) for d in differences]


def published_vppo(sample: Conversation, keep: float) -> list[float]:
    """VPPO's mask, arXiv 2510.09285 and ``dp_actor.py``: the ⌈keep · n⌉ tokens of an answer with the greatest KL."""
    found = published_k3(sample, most=10.0)
    ranks = sorted(range(len(found)), key=lambda i: -found[i])
    kept = ranks[: math.ceil(keep * len(found) - 1e-9)]
    return [1.0 if i in kept else 0.0 for i in range(len(found))]


@given(conversations, st.sampled_from([0.2, 0.4, 1.0]))
def test_vppo_is_the_papers_mask(sample: Conversation, keep: float) -> None:
    assert vppo(sample.scores, keep=keep).tolist() == published_vppo(sample, keep)


def test_vppo_keeps_what_the_image_contradicts() -> None:
    """As published: its dependency has no sign. VIG's gain, the negative control, drops such a word first."""
    found = conversation(0, [3]).scores
    contradicted = replace(
        found, logprob_clean=np.float32([-9, -1, -1, -1]), logprob_contrast=np.float32([-1, -3, -1, -1])
    )
    assert vppo(contradicted, keep=0.25).tolist() == [1, 0, 0, 0]
    assert Method("vig-row", {"keep": 0.25})(contradicted)[0] == 0


def published_pgpo(sample: Conversation, threshold: float, boost: float) -> list[float]:
    """PGPO, arXiv 2604.01840: compressed, scaled within the answer, gated by a threshold, and of unchanged mass."""
    compressed = [math.log(1 + value) for value in published_k3(sample)]
    least, greatest = min(compressed), max(compressed)
    scaled = [(value - least) / (greatest - least) for value in compressed]
    gated = [i / threshold if i < threshold else 1 + boost * (i - threshold) / (1 - threshold) for i in scaled]
    return [value * len(gated) / sum(gated) for value in gated]


@given(conversations, st.sampled_from([0.2, 0.4, 0.8]), st.floats(0, 4))
def test_pgpo_is_the_papers_weight(sample: Conversation, threshold: float, boost: float) -> None:
    weights = pgpo(sample.scores, threshold=threshold, boost=boost)
    assert_allclose(weights, published_pgpo(sample, threshold, boost), rtol=1e-4, atol=1e-5)
    assert weights.mean() == pytest.approx(1, abs=1e-5)


def test_pgpo_without_a_difference_is_uniform() -> None:
    found = conversation(0, [3]).scores
    assert pgpo(replace(found, logprob_clean=found.logprob_contrast)).tolist() == [1, 1, 1, 1]


@given(conversations)
def test_tpo_is_the_papers_reward(sample: Conversation) -> None:
    """TPO, arXiv 2412.14487 and ``tpo_trainer.py``: σ of the difference of the label's logits, plus a half."""
    assert_allclose(tpo(sample.scores), [1 / (1 + math.exp(-gap)) + 0.5 for gap in sample.scores.logit_gap], rtol=1e-6)


def test_the_comparison_sees_the_log_probability_gap_in_place_of_the_logits() -> None:
    """Negative control: TPO takes the difference of raw logits."""
    sample = conversation(1, [5])
    other = 1 / (1 + np.exp(-gap_of(sample.scores))) + 0.5
    assert np.abs(tpo(sample.scores) - other).max() > 0.05


def losses_of(sample: Conversation, logits: np.ndarray) -> list[float]:
    """The cross-entropy of each labelled position, from the definition."""
    return [
        math.log(sum(math.exp(value) for value in logits[i])) - float(logits[i][label])
        for i, label in enumerate(sample.labels)
        if label != -100
    ]


def published_rho_1(batch: list[Conversation], students: list[np.ndarray], ratio: float) -> float:
    """Rho-1's loss, arXiv 2404.07965: −1/(N·k%) Σ I(x) log P(x), where I is 1 for the k % of the batch's N tokens that
    rank highest by the student's loss minus the reference's."""
    student = [loss for sample, logits in zip(batch, students, strict=True) for loss in losses_of(sample, logits)]
    reference = [loss for sample in batch for loss in losses_of(sample, sample.with_image)]
    excess = [own - other for own, other in zip(student, reference, strict=True)]
    count = math.ceil(ratio * len(excess) - 1e-9)
    chosen = sorted(range(len(excess)), key=lambda i: -excess[i])[:count]
    return sum(student[i] for i in chosen) / count


def rho_1(batch: list[Conversation], students: list[np.ndarray], ratio: float) -> float:
    """The product's: stored log-probabilities as the reference's losses, the student's logits as a trainer has them."""
    longest = max(len(sample.labels) for sample in batch)
    logits = torch.zeros(len(batch), longest, VOCABULARY, dtype=torch.float64)
    labels = torch.full((len(batch), longest), -100)
    reference = torch.full((len(batch), longest), math.nan)
    for i, (sample, own) in enumerate(zip(batch, students, strict=True)):
        logits[i, : len(own)] = torch.from_numpy(own)
        labels[i, : len(own)] = torch.tensor(sample.labels)
        trained = torch.tensor(sample.labels) != -100
        reference[i, : len(own)][trained] = -torch.from_numpy(sample.scores.logprob_clean)
    return float(excess_loss_cross_entropy(logits, labels, reference, share=ratio, shift=False))


@given(st.integers(0, 2**31), st.lists(st.integers(1, 9), min_size=1, max_size=5), st.sampled_from([0.2, 0.6, 0.7, 1]))
def test_rho_1_is_the_papers_loss(seed: int, lengths: list[int], ratio: float) -> None:
    batch = [conversation(seed + i, [words]) for i, words in enumerate(lengths)]
    rng = np.random.default_rng(seed)
    students = [rng.normal(0, 3, sample.with_image.shape) for sample in batch]
    assert rho_1(batch, students, ratio) == pytest.approx(published_rho_1(batch, students, ratio), rel=1e-5)


def test_the_comparison_sees_another_ranking() -> None:
    """Negative control: the student's loss alone, and a ranking within each sample."""
    batch = [conversation(seed, [9]) for seed in range(4)]
    rng = np.random.default_rng(0)
    students = [rng.normal(0, 1 + 2 * i, sample.with_image.shape) for i, sample in enumerate(batch)]
    published = published_rho_1(batch, students, 0.6)
    assert rho_1(batch, students, 0.6) == pytest.approx(published, rel=1e-5)
    losses = [losses_of(sample, logits) for sample, logits in zip(batch, students, strict=True)]
    highest = sorted((loss for sample in losses for loss in sample), reverse=True)[:24]
    assert sum(highest) / 24 != pytest.approx(published, rel=0.01)
    within = [rho_1([sample], [logits], 0.6) for sample, logits in zip(batch, students, strict=True)]
    assert sum(within) / 4 != pytest.approx(published, rel=0.01)
