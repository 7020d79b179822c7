"""Weights where LLaVA puts image features into the sequence: the loss by hand on the spliced sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig

from scorer.errors import WeightsError
from scorer.training.llava import LlavaWeightsMixin
from tests.scorer.training.splice import IGNORE, PLACEHOLDER, SplicingLlava

CONFIG = LlamaConfig(
    vocab_size=50,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    pad_token_id=0,
    initializer_range=0.5,
)
FEATURES = 5


class Weighted(LlavaWeightsMixin, SplicingLlava):
    """What a user of LLaVA writes."""


def model_of(**options: Any) -> Weighted:
    torch.manual_seed(0)
    return Weighted(CONFIG, **options).eval()


def batch() -> dict[str, Tensor]:
    """Two conversations with one and two images, prompts masked, the first padded."""
    rows = [
        [1, PLACEHOLDER, 7, 8, 20, 21, 22, 2],
        [1, 5, PLACEHOLDER, 9, 30, 31, 2, PLACEHOLDER, 6, 32, 33, 2],
    ]
    trained = [[4, 5, 6, 7], [4, 5, 6, 9, 10, 11]]
    size = max(map(len, rows))
    ids = torch.tensor([row + [0] * (size - len(row)) for row in rows])
    labels, weights = torch.full_like(ids, IGNORE), torch.zeros(ids.shape)
    for i, positions in enumerate(trained):
        labels[i, positions] = ids[i, positions]
        weights[i, positions] = torch.arange(1.0, len(positions) + 1)
    mask = torch.tensor([[1] * len(row) + [0] * (size - len(row)) for row in rows])
    images = torch.randn(3, FEATURES, CONFIG.hidden_size, generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "images": images, "token_weights": weights}


def by_hand(model: Weighted, inputs: dict[str, Tensor], context: int = 64) -> float:
    """Each conversation alone, unpadded: nll of each label at the place that counting gives it."""
    top = bottom = 0.0
    images = iter(inputs["images"])
    for ids, labels, weights in zip(inputs["input_ids"], inputs["labels"], inputs["token_weights"], strict=True):
        length = int((ids != 0).sum())
        own = torch.stack([next(images) for _ in range(int((ids == PLACEHOLDER).sum()))])
        with torch.no_grad():
            logits = SplicingLlava.forward(model, ids[None, :length], images=own).logits[0].double().numpy()
        for t in range(length):
            place = t + (FEATURES - 1) * int((ids[:t] == PLACEHOLDER).sum())
            if labels[t] != IGNORE and place < context:
                scores = logits[place - 1]
                nll = np.log(np.exp(scores).sum()) - scores[int(labels[t])]
                top += float(weights[t]) * nll
                bottom += float(weights[t])
    return top / bottom


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("context", [64, 18])
def test_the_loss_by_hand(side: str, context: int) -> None:
    """Padded on either side; and cut, so that the second conversation loses its last answer's end."""
    inputs = batch()
    wanted = by_hand(model_of(context=64), inputs, context)
    model = model_of(context=context, side=side)
    outputs = model(**inputs)
    assert outputs.loss.item() == pytest.approx(wanted, rel=1e-5)
    assert outputs.logits.shape[1] == min(context, 12 + 2 * (FEATURES - 1))
    ones = {**inputs, "token_weights": (inputs["labels"] != IGNORE).float()}
    plain = model(**{name: value for name, value in inputs.items() if name != "token_weights"}).loss
    if context == 64:
        assert model(**ones).loss.item() == pytest.approx(plain.item(), rel=1e-5)  # LLaVA's own mean
    assert abs(plain.item() - wanted) > 1e-3  # negative control: the weights do something
    rolled = {**inputs, "token_weights": inputs["token_weights"].roll(1, dims=1)}
    assert abs(model(**rolled).loss.item() - wanted) > 1e-3  # and at their own places only


def test_the_gradient_is_the_weighted_losss() -> None:
    inputs = batch()
    model = model_of()
    model(**inputs).loss.backward()
    got = model.lm_head.weight.grad.clone()
    model.zero_grad()
    inputs["token_weights"] *= 10  # only proportions matter
    model(**inputs).loss.backward()
    torch.testing.assert_close(model.lm_head.weight.grad, got)
    assert got.abs().max() > 0


def test_without_weights_it_is_llava() -> None:
    inputs = batch()
    del inputs["token_weights"]
    torch.manual_seed(0)
    own = SplicingLlava(CONFIG).eval()(**inputs)
    torch.testing.assert_close(model_of()(**inputs).loss, own.loss)
    assert own.loss > 0


def test_what_does_not_fit_is_refused() -> None:
    inputs = batch()
    with pytest.raises(WeightsError, match=r"labels have shape \(2, 12\), token_weights \(2, 11\)"):
        model_of()(**{**inputs, "token_weights": inputs["token_weights"][:, 1:]})
    with pytest.raises(WeightsError, match=r"labels have shape None"):
        model_of()(**{name: value for name, value in inputs.items() if name != "labels"})

    class Blind(LlavaWeightsMixin, SplicingLlava):
        def prepare_inputs_labels_for_multimodal(self, *args: Any, **kwargs: Any) -> Any:
            return SplicingLlava.prepare_inputs_labels_for_multimodal(self, *args, **kwargs)

    torch.manual_seed(0)
    with pytest.raises(WeightsError, match="Blind did not call prepare_inputs_labels_for_multimodal"):
        Blind(CONFIG)(**inputs)
