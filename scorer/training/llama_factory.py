"""Train with LLaMA-Factory's v1 and one loss weight per token.

Its renderer knows only one weight per message, but its loss, Σ w·nll / Σ w, takes one per token (``loss_weights``).
The narrowest patch is between the two: after the renderer has produced ids and labels, the ``loss_weights`` are
replaced. In the training script::

    from scorer.training import llama_factory

    llama_factory.install()
    from llamafactory.v1.trainers.sft_trainer import run_sft

    run_sft()

The dataset must be one that ``tokensight export --to llama-factory`` wrote. Release 0.9.5 renders text only: its v1
templates refuse images, which is a limit of that trainer and not of the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from scorer.errors import TableError
from scorer.training.alignment import WeightAligner
from scorer.training.rows import WeightRow
from scorer.training.weighted_text import WeightedText


class WeightedRenderer:
    """Wrap a v1 renderer and take the weights of its samples from their ``extra_info``.

    Args:
        renderer: ``llamafactory.v1.core.utils.rendering.Renderer``.
        aligner: for its tokenizer; None creates one.
    """

    def __init__(self, renderer: Any, aligner: WeightAligner | None = None) -> None:
        self.renderer = renderer
        self.aligner = aligner or WeightAligner(renderer.processor)

    def __getattr__(self, name: str) -> Any:
        if name == "renderer":  # not set yet while unpickling
            raise AttributeError(name)
        return getattr(self.renderer, name)

    def process_samples(self, samples: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return the wrapped renderer's result with per-token ``loss_weights``.

        Raises:
            TableError: a sample has no weights, or its texts are not those that were scored.
            SpanError: the texts are not found in the labelled tokens.
        """
        inputs: list[Any] = self.renderer.process_samples(list(samples))
        ids, labels = ([one[name] for one in inputs] for name in ("input_ids", "labels"))
        weights = self.aligner(ids, labels, [_weighted(sample) for sample in samples])
        for one, own in zip(inputs, weights, strict=True):
            one["loss_weights"] = own.tolist()
        return inputs


def install() -> None:
    """Make v1's model engine use :class:`WeightedRenderer` in this process from now on."""
    from llamafactory.v1.core import model_engine  # type: ignore[import-not-found]  # only in the trainer's environment

    own = model_engine.Renderer
    model_engine.Renderer = lambda template, processor: WeightedRenderer(own(template, processor))


def _weighted(sample: Mapping[str, Any]) -> WeightedText:
    info = json.loads(sample.get("extra_info") or "{}")
    if "messages" not in sample or "token_weights" not in info:
        raise TableError(
            f"a sample has {', '.join(sample)}; messages, and extra_info with token_weights, are needed: write the "
            "dataset with tokensight export --to llama-factory, and load it without a converter"
        )
    texts = [
        "".join(part["value"] for part in message["content"] if part["type"] == "text")
        for message in sample["messages"]
        if message["role"] == "assistant"
    ]
    return WeightedText(WeightRow.from_record(info["token_weights"], str(info.get("id", "?"))), texts)
