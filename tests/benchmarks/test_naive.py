"""The naive way gives our scores in any batches and projects nothing but labels: else it would be no yardstick."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import engine_gpu, naive, shapes
from benchmarks.random_models import SHAPES
from scorer.config import ScorerConfig
from scorer.engine import Scorer
from scorer.results import TokenScores
from scorer.types import EncodedSample


# Qwen-VL's class renumbers the tokens after a hidden image, which is not what `masked` means.
@pytest.mark.parametrize(("name", "contrast"), [*((name, "blank") for name in SHAPES), ("LLaVA-1.5-7B", "masked")])
def test_the_naive_way_gives_the_same_scores(name: str, contrast: str, tmp_path: Path) -> None:
    scorer = Scorer(SHAPES[name](tmp_path, tiny=True), ScorerConfig(dtype="float32", contrast=contrast))
    rows = [scorer.encoder.encode(sample) for sample in engine_gpu.samples(5, 90)]
    assert len({row.length for row in rows}) > 2, "rows of one length would need no padding"
    ours = scorer.score_encoded(rows)
    budget = 2 * max(row.length for row in rows)
    found = naive.score(scorer.model, naive.as_processed(rows), budget)
    assert all(map(agree, ours, found))
    assert not any(map(agree, ours, found[::-1][:2])), "another row's scores would pass"
    assert all(abs(result.logit_gap).max() > 1e-3 for result in ours), "a gap of zero would prove nothing"


def agree(ours: TokenScores, naive: naive.Scores) -> bool:
    own = (ours.logit_gap, ours.logprob_clean, ours.logprob_contrast)
    pairs = list(zip(own, (one.numpy() for one in naive), strict=True))
    return all(len(a) == len(b) and np.abs(a - b).max() < 1e-4 for a, b in pairs)


def test_only_labels_are_projected_and_batches_keep_to_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    model = shapes.llava(shapes.SMALL, 1, shapes.small_vision(28))
    rows = [shapes.row(i, 3, n, 4, 28) for i, n in enumerate((5, 40, 9, 8))]
    rows.append(two_turns(rows[1]))
    projected: list[int] = []
    passes: list[tuple[int, ...]] = []
    head = model.model.get_output_embeddings()
    head.register_forward_hook(lambda module, args, output: projected.append(args[0].shape[:-1].numel()))
    model.model.register_forward_pre_hook(
        lambda module, args, kwargs: passes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    budget = 2 * rows[1].length
    naive.score(model, rows, budget)
    assert sum(projected) == 2 * sum(len(row.token_ids) for row in rows)
    assert passes == [(2, rows[1].length - 1)] * 2 + [(3, rows[2].length - 1)] * 2, "longest first, each branch once"


def two_turns(row: EncodedSample) -> EncodedSample:
    """Return the row with only its first two and last two tokens as labels."""
    index = row.clean.label_index[[0, 1, -2, -1]]
    clean, contrast = (replace(branch, label_index=index) for branch in (row.clean, row.contrast))
    return replace(row, token_ids=row.token_ids[[0, 1, -2, -1]], clean=clean, contrast=contrast)


def test_pixels_are_made_floats_once(tmp_path: Path) -> None:
    scorer = Scorer(SHAPES["LLaVA-1.5-7B"](tmp_path, tiny=True), ScorerConfig(dtype="float32"))
    rows = [scorer.encoder.encode(sample) for sample in engine_gpu.samples(3, 90)]
    processed = naive.as_processed(rows)
    for row, one in zip(rows, processed, strict=True):
        for branch, other in ((row.clean, one.clean), (row.contrast, one.contrast)):
            pixels: Any = other.pixels["pixel_values"]
            assert pixels.dtype == np.float32
            assert torch.equal(torch.from_numpy(pixels), torch.from_numpy(np.asarray(branch.pixels["pixel_values"])))
    assert len({id(one.contrast.pixels) for one in processed}) == 1
