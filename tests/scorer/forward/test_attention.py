"""The attention of a packed batch equals each row's own, on both backends."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scorer.forward.attention import (
    AttentionPlan,
    FlexAttention,
    SegmentedAttention,
    VarlenAttention,
    flex,
    tower_attention,
    varlen,
)
from scorer.forward.attention import plan as plans
from scorer.forward.attention.flex import visible_blocks
from scorer.forward.model import ForwardRow
from scorer.forward.segments import Forest, KeptSegment, Layout, Path, lay_out
from scorer.types import Int64Array
from tests.scorer.forward.naive_flash import naive_flash

HEADS, GROUPS, SIZE = 4, 2, 8
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")

BACKENDS = [SegmentedAttention, FlexAttention]


def row(ids: list[int], first_label: int, blocks: Int64Array | None = None, digest: bytes = b"") -> ForwardRow:
    count = len(ids)
    return ForwardRow(
        ids=np.array(ids),
        positions=np.arange(count)[None],
        attend=np.ones(count, dtype=np.bool_),
        label_index=np.arange(first_label, count),
        pixels={},
        pixels_digest=digest,
        token_inputs={},
        places=np.arange(count),
        blocks=blocks,
    )


def forest(seed: int, blocks: str = "none", captions_only: bool = False) -> list[Path]:
    """Rows of two images with prompts and captions, some shared. Every state is read, or only the captions'."""
    rng = np.random.default_rng(seed)
    paths, trees = [], Forest()
    for _ in range(int(rng.integers(1, 12))):
        image, prompt = (int(n) for n in rng.integers(0, 2, 2))
        before = [100 + image] * 9 + [200 + prompt] * (3 + prompt)
        caption = [int(t) for t in rng.integers(300, 310, int(rng.integers(1, 40)))]
        block = None
        if blocks == "image":
            block = np.where(np.arange(len(before) + len(caption)) < 9, 0, -1)
        elif blocks == "prefix":
            block = np.where(np.arange(len(before) + len(caption)) < len(before), 0, -1)
        one = row(before + caption, len(before) if captions_only else 1, block, bytes([image]))
        cuts = [len(before)] if blocks == "prefix" else [9, len(before)]
        paths.append(trees.add(one, cuts))
    return paths


def dense(
    query: Tensor, key: Tensor, value: Tensor, allowed: np.ndarray, scale: float, softcap: float | None
) -> Tensor:
    key, value = (one.repeat_interleave(HEADS // GROUPS, dim=1) for one in (key, value))
    scores = query @ key.transpose(-1, -2) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    return scores.masked_fill(~torch.from_numpy(allowed), float("-inf")).softmax(-1) @ value


def rule_of_a_row(one: ForwardRow, window: int | None, ignore: bool) -> np.ndarray:
    """Who sees whom in one row, in the words of transformers' masks."""
    count = len(one.ids)
    q, k = np.arange(count)[:, None], np.arange(count)[None]
    same = np.zeros((count, count), dtype=bool)
    if one.blocks is not None:
        same = (one.blocks[:, None] == one.blocks[None]) & (one.blocks[None] >= 0)
    near = np.ones_like(same) if window is None else k > q - window
    if ignore:
        return ((k <= q) & near) | same
    return ((k <= q) | same) & near


def embedded(ids: Int64Array, places: Int64Array, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values that follow from a token and its place in its row."""
    rng = np.random.default_rng(seed)
    words = rng.standard_normal((400, (HEADS + 2 * GROUPS) * SIZE)).astype(np.float32)
    where = rng.standard_normal((100, (HEADS + 2 * GROUPS) * SIZE)).astype(np.float32)
    both = torch.from_numpy(words[ids] + where[places % 100]).view(1, len(ids), -1, SIZE).transpose(1, 2)
    return both[:, :HEADS], both[:, HEADS : HEADS + GROUPS], both[:, HEADS + GROUPS :]


def error(
    paths: list[Path],
    backend: Any,
    window: int | None = None,
    ignore: bool = False,
    softcap: float | None = None,
    size: int | None = None,
    change: Any = lambda layout: layout.plan,
) -> float:
    """The largest difference of any row's packed attention from its own."""
    layout = lay_out(paths, size, ignore)
    places = np.concatenate([s.row.places[s.start : s.stop] for s in layout.segments])
    places = np.concatenate([places, np.arange(len(layout.ids) - len(places))])
    q, k, v = embedded(layout.ids, places, seed=1)
    kept = {id(one): one for one in layout.kept}
    for one in reversed(kept.values()):
        (before_k, before_v), *_ = one.layers
        k, v = torch.cat([before_k, k], dim=2), torch.cat([before_v, v], dim=2)
    attend = backend(change(layout), [window])
    attend.place({name: torch.from_numpy(array) for name, array in attend.arrays.items()})
    out = attend(q, k, v, 0.3, window, softcap)
    worst = 0.0
    for path, reads in zip(paths, layout.reads, strict=True):
        end = int(path.row.label_index[-1])
        alone = replace(
            path.row, ids=path.row.ids[:end], blocks=None if path.row.blocks is None else path.row.blocks[:end]
        )
        own = dense(*embedded(alone.ids, np.arange(end), seed=1), rule_of_a_row(alone, window, ignore), 0.3, softcap)
        inside = reads >= 0  # the state after a kept root is not run again
        if inside.any():
            got, expected = out[0][:, reads[inside]], own[0][:, path.row.label_index[inside] - 1]
            worst = max(worst, float((got - expected).abs().max()))
    return worst


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("blocks", ["none", "image", "prefix"])
@pytest.mark.parametrize(("window", "ignore"), [(None, False), (7, False), (7, True), (1000, False)])
def test_packed_rows_attend_as_if_alone(backend: Any, blocks: str, window: int | None, ignore: bool) -> None:
    for seed in range(6):
        assert error(forest(seed, blocks), backend, window, ignore) < 1e-5, seed


@pytest.mark.parametrize("backend", BACKENDS)
def test_scores_are_capped_and_a_dead_segment_changes_nothing(backend: Any) -> None:
    for seed in range(3):
        assert error(forest(seed), backend, softcap=2.0, size=1024) < 1e-5
        assert error(forest(seed), backend, softcap=None, size=1024) < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_kept_root_stands_before_the_batch(backend: Any) -> None:
    for seed in range(4):
        paths = forest(seed, captions_only=True)
        roots = list({id(path.root): path.root for path in paths}.values())
        for root in roots[:1]:
            ids = root.row.ids[: root.stop]
            _, key, value = embedded(ids, np.arange(len(ids)), seed=1)
            root.kept = KeptSegment([(key, value)], torch.zeros(1))
        assert error(paths, backend) < 1e-5


def test_a_wrong_plan_would_be_seen() -> None:
    """Negative control: a key seen beyond its segment, and one that is seen too late."""

    def longer(layout: Layout) -> AttentionPlan:
        layout.plan.until[:] = layout.plan.queries
        return layout.plan

    def later(layout: Layout) -> AttentionPlan:
        layout.plan.since[:] += 1
        layout.plan.since[-1] = 0
        return layout.plan

    for change in (longer, later):
        assert error(forest(1), FlexAttention, change=change) > 0.01
    assert error(forest(1, "image"), SegmentedAttention, window=7, ignore=True) < 1e-5
    assert error(forest(1, "image"), SegmentedAttention, window=7, change=_ignoring) > 0.001


def _ignoring(layout: Layout) -> AttentionPlan:
    layout.plan.blocks_ignore_window = True
    return layout.plan


def test_calls_cover_every_query_once_and_stay_small() -> None:
    for seed in range(20):
        plan = lay_out(forest(seed)).plan
        covered = [i for call in plan.calls for i in range(*call.queries)]
        assert covered == list(range(plan.queries))
        for call in plan.calls:
            allowed = plan.mask(replace(call, keys=((0, plan.keys),)), None)
            inside = np.zeros(plan.keys, dtype=bool)
            for start, stop in call.keys:
                inside[start:stop] = True
            assert not allowed[:, ~inside].any(), "a key that a query may see is in its call"


def test_captions_of_one_image_share_calls() -> None:
    trees = Forest()
    paths = [trees.add(row([1] * 50 + [300 + i] * 10, 50), [50]) for i in range(100)]
    plan = lay_out(paths).plan
    assert len(plan.calls) <= 2 + 100 * 9 // plans.CHUNK * 2
    assert all(stop - start <= plans.CHUNK for start, stop in (call.queries for call in plan.calls[1:]))


def test_blocks_that_nobody_sees_are_skipped_and_whole_ones_are_not_masked() -> None:
    trees = Forest()
    paths = [trees.add(row([1] * 600 + [300 + i] * 200, 600), [600]) for i in range(4)]
    paths += [trees.add(row([2 + i] * 700, 500), []) for i in range(3)]
    plan = lay_out(paths, 4096).plan
    everything = replace(plan.calls[0], queries=(0, plan.queries), keys=((0, plan.keys),))
    allowed = plan.mask(everything, None)
    seen, whole = visible_blocks(plan, exact=True)
    for i, j in itertools.product(range(len(seen)), range(len(seen[0]))):
        pairs = allowed[i * 128 : (i + 1) * 128, j * 128 : (j + 1) * 128]
        assert not whole[i, j] or pairs.all()
        assert seen[i, j] or not pairs.any()
    needed = sum(
        allowed[i * 128 : (i + 1) * 128, j * 128 : (j + 1) * 128].any()
        for i, j in itertools.product(range(len(seen)), range(len(seen[0])))
    )
    assert seen.sum() <= 1.1 * needed, "few blocks are computed for nothing"
    assert whole.sum() > 0.3 * seen.sum()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lengths", [[5], [4, 4, 4], [4, 2, 4, 2, 1], [1, 7]])
def test_windows_of_a_tower_see_themselves_whole(backend: Any, lengths: list[int]) -> None:
    count = sum(lengths)
    q, k, v = (torch.randn(1, HEADS, count, SIZE, generator=torch.Generator().manual_seed(n)) for n in range(3))
    attend = tower_attention(lengths, backend)
    attend.place({name: torch.from_numpy(array) for name, array in attend.arrays.items()})
    out = attend(q, k, v, 0.5, None, None)
    start = 0
    for length in lengths:
        own = slice(start, start + length)
        expected = (q[:, :, own] @ k[:, :, own].transpose(-1, -2) * 0.5).softmax(-1) @ v[:, :, own]
        torch.testing.assert_close(out[:, :, own], expected, atol=1e-5, rtol=1e-5)
        start += length


def test_flex_attention_that_does_not_run_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cpu = torch.device("cpu")
    flex.runs_on.cache_clear()
    assert flex.runs_on(cpu, torch.float32, 16)

    def broken(*args: Any, **kwargs: Any) -> Tensor:
        raise ValueError("NYI: head dimension must be a power of 2\nand more")

    monkeypatch.setattr(flex, "flex_attention", broken)
    with caplog.at_level("WARNING"):
        assert not flex.runs_on(cpu, torch.float32, 80)
    assert "with heads of 80 (ValueError: NYI: head dimension must be a power of 2)" in caplog.text
    flex.runs_on.cache_clear()


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "flash", naive_flash)


@pytest.mark.usefixtures("on_cpu")
def test_variable_lengths_are_merged_into_what_rows_attend_to_alone() -> None:
    for seed in range(12):
        assert error(forest(seed), VarlenAttention) < 1e-5, seed
        assert error(forest(seed), VarlenAttention, window=1000, size=1024) < 1e-5, seed
    for seed in range(6):
        paths = forest(seed, captions_only=True)
        root = paths[0].root
        ids = root.row.ids[: root.stop]
        root.kept = KeptSegment([embedded(ids, np.arange(len(ids)), seed=1)[1:]], torch.zeros(1))
        assert error(paths, VarlenAttention) < 1e-5, seed
    for lengths in ([5], [4, 2, 4, 2, 1]):
        test_windows_of_a_tower_see_themselves_whole(VarlenAttention, lengths)


@pytest.mark.usefixtures("on_cpu")
def test_a_level_left_out_or_parts_merged_otherwise_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative controls."""
    deep = [seed for seed in range(12) if VarlenAttention(lay_out(forest(seed)).plan, [None])._levels]
    assert len(deep) > 6
    levels = varlen._levels
    with monkeypatch.context() as changed:
        changed.setattr(varlen, "_levels", lambda pieces, kept: levels(pieces, kept)[:-1])
        assert all(error(forest(seed), VarlenAttention) > 0.01 for seed in deep)
    with monkeypatch.context() as changed:
        changed.setattr(torch, "logaddexp", lambda a, b: torch.maximum(a, b))
        assert all(error(forest(seed), VarlenAttention) > 0.01 for seed in deep)


@pytest.mark.usefixtures("on_cpu")
def test_variable_lengths_refuse_what_they_cannot_express() -> None:
    for blocks, window in (("image", None), ("prefix", None), ("none", 7)):
        with pytest.raises(ValueError, match="cannot express a sliding window, or keys that see each other both"):
            error(forest(1, blocks), VarlenAttention, window)
    with pytest.raises(ValueError, match="cannot cap scores"):
        error(forest(1), VarlenAttention, softcap=2.0)


def test_variable_lengths_are_used_where_they_agree(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cpu = torch.device("cpu")

    def agrees(flash: Any) -> bool:
        varlen.agrees_on.cache_clear()
        if flash is not None:
            monkeypatch.setattr(varlen, "flash", flash)
        return varlen.agrees_on(cpu, torch.bfloat16, 16)

    with caplog.at_level("WARNING"):
        assert not agrees(None), "torch has no such kernel for a CPU"
        assert "not used on cpu in bfloat16 with heads of 16 (" in caplog.text
        assert agrees(naive_flash)
        caplog.clear()
        assert not agrees(lambda *args, **more: (naive_flash(*args, **more)[0] + 0.1, naive_flash(*args, **more)[1]))
        assert "(it differs by 0.1" in caplog.text
        caplog.clear()
        assert not agrees(lambda *args, **more: tuple(one * float("nan") for one in naive_flash(*args, **more)))
        assert "(it differs by nan)" in caplog.text
    varlen.agrees_on.cache_clear()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own parts
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs a C++ compiler")
def test_compiled_flex_attention_reads_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uncompiled, only the rule is applied; a kernel goes by the lists of blocks."""
    monkeypatch.setattr(flex, "flex_attention", flex._compiled())
    for seed in range(2):
        assert error(forest(seed, "image"), FlexAttention, window=7, softcap=2.0, size=512) < 1e-5

    def unseen(plan: AttentionPlan, exact: bool) -> Any:
        seen, whole = visible_blocks(plan, exact)
        return np.zeros_like(seen), np.zeros_like(whole)

    monkeypatch.setattr(flex, "visible_blocks", unseen)
    assert error(forest(0), FlexAttention) > 0.01
