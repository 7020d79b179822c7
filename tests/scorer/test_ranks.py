"""Processes that share a model's weights give the scores of one process, end alike, and end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from scorer import Sample, Scorer, ScorerConfig, TokenScores, ranks
from scorer.columns import ASKED
from scorer.errors import BatchTooLargeError, ConfigError, ModelError
from scorer.forward.packed import PackedForward
from scorer.ranks import Start
from tests.scorer import failing_rank, tiny
from tests.scorer.families.cases import MAKERS
from tests.scorer.scoring import assert_equal_scores, load, picture, samples

ROWS = [Sample.caption(str(n), picture(50, 30, n % 2), "A red kite over two boats. " * n) for n in (1, 2, 3)]


@pytest.fixture
def shared(chatml_model: Path) -> Iterator[Scorer]:
    """A scorer whose model two processes share; its followers end with the test."""
    scorer = load(chatml_model, tensor_parallel=2)
    yield scorer
    scorer.close()


def followers(scorer: Scorer) -> list[subprocess.Popen[bytes]]:
    assert scorer._ranks is not None
    return scorer._ranks._processes


def test_two_processes_give_the_scores_of_one(chatml_model: Path, shared: Scorer) -> None:
    one = load(chatml_model)
    for contrast in ("blank", "masked", "noise"):
        scorer = shared.with_contrast(contrast)
        for found, expected in zip(scorer.score(samples()), one.with_contrast(contrast).score(samples()), strict=True):
            assert_equal_scores(found, expected)
        assert scorer.path == "fast"
    weight = shared.model.model.get_decoder().layers[0].mlp.up_proj.weight
    assert weight.to_local().shape[0] * 2 == weight.shape[0], "each process holds half of it"
    assert shared.fingerprint == {**one.fingerprint, "tensor_parallel": 2}


def test_several_contrasts_are_shared_alike(chatml_model: Path, shared: Scorer) -> None:
    """Also two choices that begin with the same contrast."""
    one = load(chatml_model)
    for contrasts in (("blank", "masked"), ("blank", "blur", "removed")):
        found = shared.with_contrast(*contrasts).score(ROWS)
        for ours, expected in zip(found, one.with_contrast(*contrasts).score(ROWS), strict=True):
            assert_equal_scores(ours, expected)
            assert isinstance(ours, TokenScores) and isinstance(expected, TokenScores)
            assert ours.further_contrasts == contrasts[1:]
            for name in contrasts[1:]:
                assert_equal_scores(ours.with_contrast(name), expected.with_contrast(name))


def test_shared_weights_project_in_float32_too(chatml_model: Path) -> None:
    """In bfloat16, a class's logits give few distinct gaps; see tests/scorer/forward/test_head.py."""
    scorer = load(chatml_model, tensor_parallel=2, dtype="bfloat16")
    try:
        found = [one for one in scorer.score(samples()) if isinstance(one, TokenScores)]
        gaps = np.concatenate([one.logit_gap for one in found])
        assert len(np.unique(gaps)) > 0.95 * len(gaps) > 1000
    finally:
        scorer.close()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_distribution_columns_are_shared_alike(chatml_model: Path, dtype: str) -> None:
    options = {"dtype": dtype, "distribution_columns": ASKED, "further_contrasts": ("noise",)}
    scorer = load(chatml_model, tensor_parallel=2, **options)
    try:
        rows = [scorer.encoder.encode(sample) for sample in ROWS]
        found = scorer.score_batches(rows, 400)
        for ours, expected in zip(found, load(chatml_model, **options).score_batches(rows, 400), strict=True):
            assert isinstance(ours, TokenScores) and isinstance(expected, TokenScores)
            for name, values in expected.optional.items():
                if values.dtype == np.float32:
                    tolerance = 1e-5 if dtype == "float32" else 0.2
                    np.testing.assert_allclose(ours.optional[name], values, atol=tolerance, err_msg=name)
            assert (ours.optional["kl"] != ours.optional["kl_noise"]).any()
        assert scorer.path == "fast"
    finally:
        scorer.close()


def test_a_follower_with_other_weights_is_seen_in_the_scores(
    chatml_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: half of each sum comes from the follower."""
    other = tiny.make_llava(tmp_path, tiny.byte_level_tokenizer(), tiny.CHATML, seed=1)
    send = ranks.Ranks._send_to

    def misled(self: ranks.Ranks, connection: Any, message: object) -> None:
        send(self, connection, replace(message, path=other) if isinstance(message, Start) else message)

    monkeypatch.setattr(ranks.Ranks, "_send_to", misled)
    scorer = load(chatml_model, tensor_parallel=2)
    try:
        found, expected = scorer.score_batches([scorer.encoder.encode(ROWS[0])], 1000), load(chatml_model).score(ROWS)
        assert isinstance(found[0], TokenScores) and isinstance(expected[0], TokenScores)
        assert np.abs(found[0].logit_gap - expected[0].logit_gap).max() > 1e-3
    finally:
        scorer.close()


@pytest.mark.parametrize("family", ["qwen3_vl", "gemma3", "mistral3"])
def test_other_families_are_shared_alike(family: str, tmp_path: Path) -> None:
    """With the plan of its own record; with windows in the decoder; with another vision tower."""
    path = MAKERS[family](tmp_path)
    scorer = load(path, tensor_parallel=2)
    try:
        for found, expected in zip(scorer.score(ROWS), load(path).score(ROWS), strict=True):
            assert_equal_scores(found, expected)
        assert scorer.path == "fast"
    finally:
        scorer.close()


def test_the_same_rows_and_budget_give_the_same_bytes(shared: Scorer) -> None:
    rows = [shared.encoder.encode(sample) for sample in ROWS]
    first, second = shared.score_batches(iter(rows), 200), shared.score_batches(iter(rows), 200)
    for a, b in zip(first, second, strict=True):
        assert isinstance(a, TokenScores) and isinstance(b, TokenScores)
        assert a.logit_gap.tobytes() == b.logit_gap.tobytes()
        assert a.logprob_contrast.tobytes() == b.logprob_contrast.tobytes()


def test_rows_that_cannot_be_read_end_the_request_alone(chatml_model: Path, shared: Scorer) -> None:
    rows = [shared.encoder.encode(sample) for sample in ROWS]

    def broken() -> Iterator[Any]:
        yield rows[0]
        raise OSError("the shard is gone")

    with pytest.raises(OSError, match="the shard is gone"):
        shared.score_batches(broken(), 1000)
    for found, expected in zip(shared.score_batches(rows, 1000), load(chatml_model).score(ROWS), strict=True):
        assert_equal_scores(found, expected)


def test_a_batch_too_large_for_all_is_tried_smaller(chatml_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load(chatml_model).score(ROWS)
    monkeypatch.setattr(ranks, "MODULE", "tests.scorer.failing_rank")
    monkeypatch.setattr(PackedForward, "run", failing_rank.run)
    scorer = load(chatml_model, tensor_parallel=2)
    try:
        rows = [scorer.encoder.encode(sample) for sample in ROWS * 4]
        with pytest.raises(BatchTooLargeError):
            scorer.score_batches(rows, 10_000)
        for found, one in zip(scorer.score_batches(rows, failing_rank.LIMIT), expected * 4, strict=True):
            assert_equal_scores(found, one)
    finally:
        scorer.close()


def test_a_rank_that_ends_otherwise_is_not_used_again(chatml_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the leader has too little memory."""
    scorer = load(chatml_model, tensor_parallel=2)
    rows = [scorer.encoder.encode(sample) for sample in ROWS * 4]

    def failing(self: Any, rows: Any, max_batch_tokens: int) -> Any:
        list(rows)
        raise BatchTooLargeError("only here", 10)

    monkeypatch.setattr(Scorer, "_score_batches", failing)
    # The follower waits in a reduction that the leader does not join, so that it must be ended to be heard of.
    monkeypatch.setattr(ranks.Ranks, "_receive", lambda self, connection: ranks.Outcome("", "fast"))
    with pytest.raises(ModelError, match=r"rank 1 .* with no error, on the fast path, but rank 0 with BatchTooLarge"):
        scorer.score_batches(rows, 10_000)
    assert followers(scorer)[0].poll() is not None
    with pytest.raises(ModelError, match="ended after an earlier error; load the scorer again"):
        scorer.score_batches(rows, 10_000)


def test_a_follower_that_dies_is_reported(shared: Scorer) -> None:
    (process,) = followers(shared)
    process.kill()
    process.wait()
    with pytest.raises(
        ModelError, match=r"rank 1 of the 2 that share the model's weights ended with status -9|RuntimeError"
    ):
        try:
            shared.score(ROWS)
        except RuntimeError as error:  # gloo may notice first
            raise ModelError(f"RuntimeError: {error}") from error
    assert not dist.is_initialized()


def test_followers_end_with_a_leader_that_is_killed(chatml_model: Path) -> None:
    code = (
        "import sys, time, torch; torch.set_num_threads(1)\n"
        "from scorer import Scorer, ScorerConfig\n"
        "s = Scorer.load(sys.argv[1], ScorerConfig(device='cpu', tensor_parallel=2))\n"
        "print(s._ranks._processes[0].pid, flush=True); time.sleep(100)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(chatml_model)], stdout=subprocess.PIPE) as leader:
        assert leader.stdout is not None
        follower = int(leader.stdout.readline())
        assert alive(follower)
        os.kill(leader.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while alive(follower) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(follower)


def test_an_interrupted_follower_prints_nothing(chatml_model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C reaches it with its leader, which says what happened."""
    scorer = load(chatml_model, tensor_parallel=2)
    (process,) = followers(scorer)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == -signal.SIGINT
    scorer.close()
    assert "Traceback" not in capfd.readouterr().err


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait for a parent that never asks."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_closing_ends_followers_and_leaves_the_group(chatml_model: Path) -> None:
    scorer = load(chatml_model, tensor_parallel=2)
    assert dist.is_initialized()
    with pytest.raises(ModelError, match=r"already belongs to a torch\.distributed group"):
        load(chatml_model, tensor_parallel=2)
    scorer.close()
    assert followers(scorer)[0].returncode == 0
    assert not dist.is_initialized()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device_map": "auto"}, "device_map is 'auto' and tensor_parallel is 2; it must be None"),
        ({"adapter": "lora"}, "adapter is 'lora'"),
        ({"quantization": "int8"}, "quantization is 'int8'"),
        ({"compile": True}, "compile is True"),
        ({"device": "cuda:1"}, "device is 'cuda:1' and tensor_parallel is 2.* CUDA_VISIBLE_DEVICES to choose"),
        ({"tensor_parallel": 0}, "tensor_parallel is 0; it must be an integer of at least 1"),
    ],
)
def test_options_that_exclude_it(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScorerConfig(**{"tensor_parallel": 2, **options})


def test_heads_that_cannot_be_divided_are_refused(chatml_model: Path) -> None:
    with pytest.raises(ConfigError, match=r"tensor_parallel is 4, but .* 4 attention heads and 2 key-value heads"):
        load(chatml_model, tensor_parallel=4)
    assert not dist.is_initialized()


@pytest.mark.parametrize(
    ("device", "seen", "message"),
    [
        ("cuda", 1, "tensor_parallel is 2, but the number of GPUs that torch sees here is 1; lower it, or"),
        ("cpu", 1, r"on device 'cpu', but the number of GPUs that torch sees is 1, .*; hide them"),
    ],
)
def test_devices_that_do_not_fit_are_refused(
    device: str, seen: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    with pytest.raises(ModelError, match=message):
        ranks.Ranks.start(Path(), ScorerConfig(tensor_parallel=2), device)


def test_a_decoder_without_a_plan_is_refused(
    chatml_model: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    from transformers import LlamaConfig, LlavaForConditionalGeneration

    started: list[ranks.Ranks] = []
    start: Callable[..., ranks.Ranks] = ranks.Ranks.start
    monkeypatch.setattr(ranks.Ranks, "start", lambda *args: started.append(start(*args)) or started[0])
    monkeypatch.setattr(LlamaConfig, "base_model_tp_plan", None)
    with pytest.raises(ModelError, match=r"no tensor parallel plan for the decoder .*LlamaModel.*--device-map auto"):
        load(chatml_model, tensor_parallel=2)
    assert LlavaForConditionalGeneration._tp_plan, "the class has a plan, which is for the vocabulary alone"
    assert not dist.is_initialized(), "the followers do not outlive the refusal"
    assert started[0]._processes[0].poll() is not None
