"""Axolotl's own chat-template strategy on an exported file: it trains on the selected words, and the ends of turns."""

from __future__ import annotations

import json
from pathlib import Path

from scorer.spans import char_to_byte
from scorer.training.export.__main__ import main as export
from scorer.weights import Method
from tests.scorer.training.conftest import Scored
from tests.scorer.training.libraries import drive
from tests.scorer.training.trainers import BYTE_LEVEL


def test_its_own_labels_are_the_selection(scored: Scored, chatml_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    arguments = ["--weights", str(scored.weights), "--data", str(scored.data), "--output", str(file)]
    assert export(["--to", "axolotl", "--method", "vig-row", "--method-param", "keep=0.4", *arguments]) == 0
    written = [json.loads(line) for line in file.read_text().splitlines()]
    seen = drive("axolotl", tmp_path, file, chatml_model)
    for row, example, selected, everything in zip(scored.rows(), written, seen["selected"], seen["all"], strict=True):
        kept = wanted_characters(scored, row["id"], row["caption"])
        text: str = row["caption"]
        (detail,) = (m["train_detail"] for m in example["messages"] if m["role"] == "assistant")
        assert [part["begin_offset"] for part in detail] == [0, *(part["end_offset"] + 1 for part in detail[:-1])]
        assert detail[-1]["end_offset"] == len(text) - 1
        for part in detail:
            assert set(kept[part["begin_offset"] : part["end_offset"] + 1]) == {part["train"]}
        encoding = BYTE_LEVEL.backend_tokenizer.encode(text, add_special_tokens=False)
        ids, labels = selected["input_ids"], selected["labels"]
        first = next(i for i in range(len(ids)) if ids[i : i + len(encoding.ids)] == encoding.ids)
        assert first > 0
        assert any(not char.isascii() for char in "".join(row["caption"] for row in scored.rows()))
        for i, (start, end) in enumerate(encoding.offsets):
            trained = labels[first + i] != -100
            if len(set(kept[start:end])) == 1:  # a token across a boundary may go either way
                assert trained == kept[start], (text, start, end)
        assert labels[first + len(encoding.ids)] == BYTE_LEVEL.convert_tokens_to_ids("<|im_end|>")
        assert all(label == -100 for label in labels[:first])
        # Negative control: without the field, the whole answer is trained on.
        assert everything["labels"][first : first + len(encoding.ids)] == encoding.ids
        assert -100 in labels[first : first + len(encoding.ids)]


def wanted_characters(scored: Scored, sample_id: str, text: str) -> list[bool]:
    row = scored.table(method=Method("vig-row", {"keep": 0.4})).find(sample_id)
    assert row.scores is not None
    assert row.weights is not None
    kept = [True] * int(row.scores.token_ends[-1])
    for weight, start, end in zip(row.weights, row.scores.token_starts, row.scores.token_ends, strict=True):
        kept[start:end] = [bool(weight)] * int(end - start)
    return [kept[start] for start in char_to_byte(text)[:-1]]
