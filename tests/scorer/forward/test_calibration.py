"""The token budget comes from what a trial pass takes of the device's memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from scorer.contrasts import Capability
from scorer.engine import Scorer
from scorer.forward import calibration
from tests.scorer.scoring import load

GIB = 2**30


@pytest.fixture
def scorer(chatml_model: Path) -> Scorer:
    return load(chatml_model)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A pretended CUDA device with 24 GiB free, on which a pass leaves a peak of 5 MiB over 1 MiB."""
    state = SimpleNamespace(free=24 * GIB, before=2**20, peak=6 * 2**20, resets=0)

    def reset(device: Any) -> None:
        state.resets += 1

    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: state.before)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: state.peak)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (state.free, 80 * GIB))
    return state


@pytest.mark.parametrize(
    ("free", "per_token", "expected"),
    [
        (80 * GIB, 600_000, 32_768),  # a large GPU: the cap
        (16 * GIB, 600_000, 8192),  # 14,316 fit half of it
        (2 * GIB, 600_000, 1024),  # 1,789 do
        (1 * GIB, 600_000, 1024),  # 894 do: the floor
        (0, 600_000, 1024),
    ],
)
def test_a_power_of_two_that_half_of_the_free_memory_holds(free: int, per_token: float, expected: int) -> None:
    assert calibration.fitting_tokens(free, per_token) == expected


def test_a_small_difference_in_free_memory_gives_the_same_batches() -> None:
    assert calibration.fitting_tokens(16 * GIB, 6e5) == calibration.fitting_tokens(15 * GIB, 6.1e5)


def test_the_trial_pass_is_what_is_measured(scorer: Scorer, device: SimpleNamespace) -> None:
    run = scorer.usage
    assert calibration.bytes_per_token(scorer.model, 512) == 5 * 2**20 / 512
    assert (scorer.usage - run).tokens == 512
    assert device.resets == 1, "an earlier peak would count"


def test_on_a_gpu_memory_decides(scorer: Scorer, device: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(scorer.model), "device", SimpleNamespace(type="cuda"))
    monkeypatch.setattr(calibration, "bytes_per_token", lambda model, tokens: 5 * 2**20)
    assert calibration.batch_tokens(scorer.model, 4096) == 2048
    device.free = 200 * GIB
    assert calibration.batch_tokens(scorer.model, 4096) == 16_384


def test_a_model_that_cannot_run_text_alone_is_not_tried(
    scorer: Scorer, device: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(scorer.model), "device", SimpleNamespace(type="cuda"))
    monkeypatch.setattr(scorer.model, "family", SimpleNamespace(capabilities=frozenset({Capability.IMAGES})))
    assert calibration.batch_tokens(scorer.model, 4096) == calibration.DEFAULT_TOKENS
    assert device.resets == 0


def test_the_budget_is_calibrated_unless_given(chatml_model: Path) -> None:
    assert load(chatml_model).budget.tokens == calibration.DEFAULT_TOKENS
    assert load(chatml_model, max_batch_tokens=77).budget.tokens == 77
