"""ms-swift's own loader, template, collator and loss on an exported file: floats survive, if they are asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from transformers import LlamaConfig, LlamaForCausalLM

from scorer.training import WeightAligner, WeightedText
from scorer.training.export.__main__ import main as export
from tests.scorer.training.conftest import Scored
from tests.scorer.training.libraries import drive
from tests.scorer.training.trainers import BYTE_LEVEL


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("language")
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(BYTE_LEVEL), **sizes)).save_pretrained(path)
    BYTE_LEVEL.save_pretrained(path)
    return path


def test_floats_survive_to_its_own_loss(
    scored: Scored, chatml_model: Path, language_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "train.jsonl"
    arguments = ["--weights", str(scored.weights), "--data", str(scored.data), "--output", str(file)]
    assert export(["--to", "ms-swift", "--tokenizer", str(language_model), *arguments]) == 0
    written = [json.loads(line) for line in file.read_text().splitlines()]
    seen = drive("ms-swift", tmp_path, file, chatml_model, language_model)
    check_rows(scored, written, seen["floats"])
    floats, default = seen["floats"], seen["default"]
    labels, scale = np.array(floats["labels"]), np.array(floats["loss_scale"])
    count = int((labels != -100).sum())
    assert floats["loss"] == pytest.approx(float((scale[:, 1:] * np.array(floats["nll"])).sum()) / count, rel=1e-5)
    # Negative control, and the trap: without is_binary_loss_scale=False the weights are dropped without a word.
    assert "loss_scale" not in default
    assert default["input_ids"] == floats["input_ids"]
    assert abs(default["loss"] - floats["loss"]) > 1e-4
    ids, labels, scale = seen["encoded"]
    assert seen["extended"][0] == [*ids[:3], 9, 9, 9, 9, *ids[4:]]
    assert seen["extended"][2] == [*scale[:3], *[scale[3]] * 4, *scale[4:]]
    # Its templates of LLaVA lengthen ids and labels for an image and forget loss_scale; its trainer then stops.
    llava = seen["llava"]
    assert llava["input_ids"] == llava["labels"] == llava["loss_scale"] + 15


def check_rows(scored: Scored, written: list[dict[str, Any]], seen: dict[str, Any]) -> None:
    """Answers hold the published weights with mean 1, in the file and in the trainer's batch."""
    for row, example, ids, labels, scale in zip(
        scored.rows(), written, seen["input_ids"], seen["labels"], seen["loss_scale"], strict=True
    ):
        user, answer = (message["content"] for message in example["messages"])
        assert user == "<image>Describe the image."
        assert Path(example["images"][0]).read_bytes() == row["image"]["bytes"]
        own = BYTE_LEVEL(row["caption"], add_special_tokens=False)["input_ids"]
        sample = WeightedText(scored.table().find(row["id"]), [row["caption"]])
        (wanted,) = WeightAligner(BYTE_LEVEL, mean="none")([own], [own], [sample])
        wanted = wanted / wanted.mean()
        assert answer["token_ids"] == own
        assert_allclose(answer["loss_scale"], wanted, rtol=1e-5)
        first = next(i for i, label in enumerate(labels) if label != -100)
        assert ids[first : first + len(own)] == own
        assert_allclose(scale[first : first + len(own)], wanted, rtol=1e-5)
        trained = len([label for label in labels if label != -100])
        assert set(scale[first + len(own) : first + trained]) == {1.0}  # the end of the turn
        assert not any(scale[:first])
        assert len(set(answer["loss_scale"])) > 5
