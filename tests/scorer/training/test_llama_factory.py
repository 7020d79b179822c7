"""LLaMA-Factory v1's own data engine, renderer, padding and loss on an exported file; and the renderer's refusals."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from scorer.errors import SpanError, TableError
from scorer.training import WeightAligner, WeightedText
from scorer.training.export.__main__ import main as export
from scorer.training.llama_factory import WeightedRenderer
from tests.scorer.training.conftest import Scored
from tests.scorer.training.libraries import drive
from tests.scorer.training.rows import row_of
from tests.scorer.training.trainers import BYTE_LEVEL, chatml, spelled


def weighted_mean(seen: dict[str, Any]) -> float:
    weights, nll = np.array(seen["loss_weights"])[:, 1:], np.array(seen["nll"])
    return float((weights * nll).sum() / weights.sum())


def test_its_own_loss_is_the_weighted_one(scored: Scored, chatml_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    arguments = ["--weights", str(scored.weights), "--data", str(scored.data), "--output", str(file)]
    assert export(["--to", "llama-factory", *arguments]) == 0
    samples = [WeightedText(scored.table().find(row["id"]), [row["caption"]]) for row in scored.rows()]
    for cutoff, seen in drive("llamafactory", tmp_path, file, chatml_model, "2048", "40").items():
        weighted, plain = seen["weighted"], seen["plain"]
        assert (weighted["input_ids"], weighted["labels"]) == (plain["input_ids"], plain["labels"])
        assert weighted["loss"] == pytest.approx(weighted_mean(weighted), rel=1e-5)
        assert plain["loss"] == pytest.approx(weighted_mean(plain), rel=1e-5)
        assert set(np.unique(plain["loss_weights"])) == {0.0, 1.0}  # negative control: by itself, one weight a message
        assert abs(weighted["loss"] - plain["loss"]) > 2e-5
        ids, labels = np.array(weighted["input_ids"]), np.array(weighted["labels"])
        wanted = WeightAligner(BYTE_LEVEL, max_length=int(cutoff), headers=["assistant"])(ids, labels, samples)
        assert_allclose(weighted["loss_weights"], wanted, rtol=1e-6)
        assert len(np.unique(wanted)) > 20


class Renderer:
    """What the wrapper needs of one: v1's makes ids and labels of messages."""

    processor = BYTE_LEVEL

    def process_samples(self, samples: list[Any]) -> list[dict[str, Any]]:
        out = []
        for sample in samples:
            turns = [message["content"][0]["value"] for message in sample["messages"]]
            ids, labels = chatml(BYTE_LEVEL, list(zip(turns[::2], turns[1::2], strict=True)), header_trained=True)
            weights = [float(label != -100) for label in labels]
            out.append({"input_ids": ids, "labels": labels, "loss_weights": weights})
        return out


def sample(question: str, answer: str, **info: Any) -> dict[str, Any]:
    messages = [
        {"role": role, "content": [{"type": "text", "value": text}]}
        for role, text in (("user", question), ("assistant", answer))
    ]
    return {"messages": messages, "extra_info": json.dumps(info)}


def test_by_hand() -> None:
    record = row_of(["a red kite"], {"a": 3, "red": 5}).to_record()
    renderer = WeightedRenderer(Renderer())
    (one,) = renderer.process_samples([sample("a red kite?", "a red kite", id="x", token_weights=record)])
    got = spelled(BYTE_LEVEL, one["input_ids"], np.array(one["loss_weights"], np.float32))
    assert (got[3], got[5], got[2]) == ("a", " red", " kite")
    ((mean, rest),) = [(weight, text) for weight, text in got.items() if weight not in (0, 2, 3, 5)]
    assert (mean, rest) == (pytest.approx(10 / 3), "<|im_start|>assistant\n<|im_end|>\n")  # of the row's weights
    assert pickle.loads(pickle.dumps(renderer)).processor.get_vocab() == BYTE_LEVEL.get_vocab()


def test_refusals() -> None:
    renderer = WeightedRenderer(Renderer())
    record = row_of(["a red kite"]).to_record()
    with pytest.raises(TableError, match=r"a sample has messages, extra_info; .*--to llama-factory"):
        renderer.process_samples([sample("?", "a red kite")])
    with pytest.raises(TableError, match=r"sample 'x'\): the text 'a red kites' has hash"):
        renderer.process_samples([sample("?", "a red kites", id="x", token_weights=record)])
    for broken in ({**record, "ends": record["ends"][1:]}, {"weights": [1.0]}):
        with pytest.raises(TableError, match=r"the weights of sample 'x' have .* all lists of one length"):
            renderer.process_samples([sample("?", "a red kite", id="x", token_weights=broken)])
    wrong = {**record, "text_hash": row_of(["A RED KITE"]).to_record()["text_hash"]}

    class Lower(Renderer):
        def process_samples(self, samples: list[Any]) -> list[dict[str, Any]]:
            return super().process_samples([sample("?", "a red kite") for _ in samples])

    with pytest.raises(SpanError, match="is not, or not in this order, in the labelled tokens"):
        WeightedRenderer(Lower()).process_samples([sample("?", "A RED KITE", id="x", token_weights=wrong)])
