"""Logits are projected in float32 from low-precision states, in any number of blocks, on devices of either kind."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import CohereConfig, CohereForCausalLM

from scorer import Sample, TokenScores
from scorer.forward import head, labels
from scorer.forward.head import Head
from tests.scorer import tiny
from tests.scorer.families.checkpoints import common, paligemma
from tests.scorer.scoring import load, picture, samples

LOW = [torch.bfloat16, torch.float16]
VOCABULARY, WIDTH = 101, 32


def linear(dtype: torch.dtype, bias: bool = False) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(WIDTH, VOCABULARY, bias=bias).to(dtype).requires_grad_(False)


def states(dtype: torch.dtype, count: int = 40) -> Tensor:
    return (3 * torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(1))).to(dtype)


def exact(module: nn.Linear, hidden: Tensor) -> Tensor:
    """The oracle: the same numbers in float64."""
    out = hidden.double() @ module.weight.double().T
    return out if module.bias is None else out + module.bias.double()


def error(logits: Tensor, module: nn.Linear, hidden: Tensor) -> float:
    return float((logits.double() - exact(module, hidden)).abs().max())


@pytest.fixture
def widening(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """A device with a product that widens, as CUDA has; the shapes of its products."""
    products: list[tuple[int, ...]] = []
    own = torch.mm

    def mm(left: Tensor, right: Tensor, *, out_dtype: torch.dtype | None = None) -> Tensor:
        if out_dtype is None:
            return own(left, right)
        assert left.dtype == right.dtype != out_dtype
        products.append((*left.shape, right.shape[1]))
        return own(left.to(out_dtype), right.to(out_dtype))

    monkeypatch.setattr(torch, "mm", mm)
    head._widens.cache_clear()
    yield products
    head._widens.cache_clear()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("words", [1, 7, 100, 101, 1000])
def test_blocks_of_converted_weights_give_the_exact_logits(
    dtype: torch.dtype, bias: bool, words: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "WEIGHTS_BLOCK", words * WIDTH)
    module, hidden = linear(dtype, bias), states(dtype)
    projection = Head(module)
    blocks = list(projection.logits(hidden))
    assert [len(block.T) for block in blocks[:-1]] == [words] * ((VOCABULARY - 1) // words)
    assert error(torch.cat(blocks, dim=1), module, hidden) < 1e-5
    assert all(block.dtype == torch.float32 for block in blocks)
    assert error(module(hidden), module, hidden) > 1e-3  # what the class would return


def test_blocks_are_converted_into_one_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allocated one by one, the blocks of a head of 7B left 1.6 GB of holes in the heap."""
    monkeypatch.setattr(head, "WEIGHTS_BLOCK", 7 * WIDTH)
    places: list[int] = []
    own = head.linear

    def watched(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        places.append(weight.data_ptr())
        return own(hidden, weight, bias)

    monkeypatch.setattr(head, "linear", watched)
    kept = list(Head(linear(torch.bfloat16)).logits(states(torch.bfloat16)))
    assert len(kept) == len(places) == 15
    assert len(set(places)) == 1


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", LOW)
def test_a_product_that_widens_is_one_product(dtype: torch.dtype, bias: bool, widening: list[Any]) -> None:
    module, hidden = linear(dtype, bias), states(dtype)
    projection = Head(module)
    widening.clear()
    (logits,) = projection.logits(hidden)
    assert widening == [(len(hidden), WIDTH, VOCABULARY)]
    assert error(logits, module, hidden) < 1e-5


def test_torch_has_a_product_that_widens() -> None:
    """What the test above stands in for: torch's own signature, dtype and shape, on the device without values."""
    projection = Head(linear(torch.bfloat16).to("meta"))
    (logits,) = projection.logits(torch.empty(5, WIDTH, dtype=torch.bfloat16, device="meta"))
    assert (logits.dtype, logits.shape) == (torch.float32, (5, VOCABULARY))
    assert projection._widens


def test_a_device_is_asked_once(widening: list[Any]) -> None:
    for _ in range(3):
        assert head._widens(torch.device("cpu"), torch.bfloat16)
    assert len(widening) == 1


def test_a_product_that_rounds_does_not_widen(monkeypatch: pytest.MonkeyPatch) -> None:
    own = torch.mm
    monkeypatch.setattr(torch, "mm", lambda left, right, out_dtype: own(left, right).to(out_dtype))
    head._widens.cache_clear()
    assert not head._widens(torch.device("cpu"), torch.bfloat16)
    head._widens.cache_clear()


def test_running_out_of_memory_does_not_count_as_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **options: Any) -> Tensor:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(torch, "mm", full)
    head._widens.cache_clear()
    with pytest.raises(torch.OutOfMemoryError):
        head._widens(torch.device("cpu"), torch.bfloat16)


@pytest.mark.parametrize("bias", [False, True])
def test_float32_weights_are_multiplied_as_ever(bias: bool) -> None:
    module, hidden = linear(torch.float32, bias), states(torch.float32)
    (logits,) = Head(module).logits(hidden)
    assert torch.equal(logits, module(hidden))


class OwnForward(nn.Linear):
    """A linear module that knows what its weights mean, as those of bitsandbytes do."""

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden) * 2


class Opaque(Tensor):
    """Weights that cannot be taken apart."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == "__getitem__":
            raise NotImplementedError("no rows")
        return super().__torch_function__(func, types, args, kwargs or {})


def test_modules_that_are_not_plain_are_called_as_they_are() -> None:
    hidden = states(torch.bfloat16)
    own = OwnForward(WIDTH, VOCABULARY, bias=False).to(torch.bfloat16)
    opaque = linear(torch.bfloat16)
    opaque.weight = nn.Parameter(opaque.weight.as_subclass(Opaque), requires_grad=False)  # type: ignore[assignment]
    for module in (own, opaque):
        (logits,) = Head(module).logits(hidden)
        assert torch.equal(logits, module(hidden).float())


def test_an_offloaded_head_is_called_as_it_is() -> None:
    """Its weights are on no device until accelerate's hook has fetched them."""
    module = linear(torch.bfloat16).to("meta")
    module._hf_hook = object()  # type: ignore[assignment]
    module.forward = lambda hidden: hidden[:, :1]  # type: ignore[method-assign]
    (logits,) = Head(module).logits(states(torch.bfloat16))
    assert torch.equal(logits, states(torch.bfloat16)[:, :1].float())


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
@pytest.mark.parametrize("dtype", LOW)
def test_a_head_quantised_by_torchao_is_multiplied_in_float32(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    monkeypatch.setattr(head, "WEIGHTS_BLOCK", 7 * WIDTH)
    module, hidden = linear(dtype), states(dtype)
    quantize_(module, Int8WeightOnlyConfig())
    weight: Any = module.weight
    expected = hidden.double() @ (weight.qdata.double() * weight.scale.double()).T
    projection = Head(module.requires_grad_(False))
    with torch.inference_mode():
        blocks = list(projection.logits(hidden))
        theirs = module(hidden).double()
    assert len(blocks) == 15
    assert (torch.cat(blocks, dim=1).double() - expected).abs().max() < 1e-5
    assert (theirs - expected).abs().max() > 1e-3


# Labels


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("words", [5, 64, 10**6])
def test_labels_of_every_block_get_their_own_score(
    chatml_model: Path, dtype: str, words: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(chatml_model, dtype=dtype).model
    module = model.model.lm_head
    monkeypatch.setattr(head, "WEIGHTS_BLOCK", words * WIDTH)
    monkeypatch.setattr(labels, "LOGITS_CHUNK", 9 * model.projection_width)
    hidden = states(module.weight.dtype, model.vocabulary)
    wanted = torch.randperm(model.vocabulary, generator=torch.Generator().manual_seed(2))
    logit, logprob = labels.project_labels(model, hidden, wanted)
    logits = exact(module, hidden)
    expected = logits.log_softmax(-1).gather(1, wanted[:, None])[:, 0]
    assert (logit - logits.gather(1, wanted[:, None])[:, 0]).abs().max() < 1e-5
    assert (logprob - expected).abs().max() < 1e-5
    rounded = module(hidden).float().log_softmax(-1).gather(1, wanted[:, None])[:, 0]
    assert (rounded - expected).abs().max() > 1e-3


def test_a_certain_label_has_no_positive_log_probability(chatml_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1 − P(label) must not be negative: PRIOR raises it to a power."""
    model = load(chatml_model, dtype="bfloat16").model
    monkeypatch.setattr(head, "WEIGHTS_BLOCK", 5 * WIDTH)
    hidden = 30 * states(torch.bfloat16, 300)
    best = exact(model.model.lm_head, hidden).argmax(1)
    logprob = labels.project_labels(model, hidden, best)[1]
    assert (logprob <= 0).all()
    assert logprob.max() > -1e-6


def test_states_and_logits_are_held_a_chunk_at_a_time(chatml_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(chatml_model, dtype="bfloat16").model
    monkeypatch.setattr(head, "WEIGHTS_BLOCK", 5 * WIDTH)
    monkeypatch.setattr(labels, "LOGITS_CHUNK", 7 * WIDTH)
    sizes: list[int] = []
    project = model.project

    def watched(hidden: Tensor) -> Iterator[Tensor]:
        sizes.append(hidden.numel())
        for logits in project(hidden):
            sizes.append(logits.numel())
            yield logits

    monkeypatch.setattr(model, "project", watched)
    labels.project_labels(model, states(torch.bfloat16), torch.zeros(40, dtype=torch.int64))
    assert max(sizes) == 7 * WIDTH


def test_a_soft_cap_is_computed_in_float32(tmp_path: Path) -> None:
    model = load(paligemma.make(tmp_path, 2), dtype="bfloat16").model
    module = model.model.get_output_embeddings()
    hidden = 3 * torch.randn(20, module.weight.shape[1]).bfloat16()
    expected = 2.0 * torch.tanh(exact(module, hidden) / 2.0)
    ours = torch.cat(list(model.project(hidden)), dim=1).double()
    assert (ours - expected).abs().max() < 1e-5
    theirs = (2.0 * torch.tanh(module(hidden) / 2.0)).double()
    assert (theirs - expected).abs().max() > 1e-3


# Classes that compute their own logits


@pytest.fixture(scope="module")
def cohere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class that scales its logits, and whose head is found by nobody else."""
    path = tmp_path_factory.mktemp("cohere")
    tokenizer = tiny.byte_level_tokenizer()
    tokenizer.chat_template = None
    options = common.text_config("cohere", len(tokenizer), logit_scale=0.25)
    options.pop("model_type")
    torch.manual_seed(0)
    CohereForCausalLM(CohereConfig(**options)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.mark.parametrize("words", [5, 10**6])
def test_a_class_scales_float32_logits(cohere: Path, words: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = load(cohere, dtype="bfloat16", contrast="removed")
    model, module = scorer.model, scorer.model.model.lm_head
    monkeypatch.setattr(head, "WEIGHTS_BLOCK", words * WIDTH)
    seen: list[Tensor] = []
    module.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    branch = scorer.encoder.encode(Sample.caption("a", picture(9, 9), "A red kite over two boats.")).contrast
    row = model.prepare(branch)
    with torch.inference_mode():
        ours = model.hidden([row.ids], [row.positions], [row.attend])
        theirs = model.model(input_ids=torch.from_numpy(row.ids)[None]).logits
    expected = 0.25 * exact(module, seen[0])
    assert ours.dtype == torch.float32
    assert (ours.double() - expected).abs().max() < 1e-6
    assert theirs.dtype == torch.bfloat16  # the module is as it was
    assert (theirs.double() - expected).abs().max() > 1e-5


def test_the_module_is_as_it_was_after_an_error() -> None:
    module = linear(torch.bfloat16)
    with pytest.raises(KeyError), Head(module).in_float32():
        assert module(states(torch.bfloat16)).dtype == torch.float32
        raise KeyError
    assert "forward" not in vars(module)
    module.forward = own = module.forward  # type: ignore[method-assign]  # as accelerate sets it
    with Head(module).in_float32():
        assert module.forward != own
    assert module.forward == own


# Scores


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_gaps_are_not_multiples_of_what_the_dtype_can_hold(chatml_model: Path, dtype: str) -> None:
    gaps = np.concatenate(
        [one.logit_gap for one in load(chatml_model, dtype=dtype).score(samples()) if isinstance(one, TokenScores)]
    )
    assert len(gaps) > 500
    assert len(np.unique(gaps)) > 0.5 * len(gaps)
