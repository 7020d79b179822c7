"""Training, end to end at a tiny size, and the samples it learns from."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from scorer.mini import MODEL_PATH, train
from scorer.mini.batches import Encoder, Row, Rows, Stage, collate
from scorer.mini.packaging import IMAGE_TOKENS

ENCODER = Encoder(AutoTokenizer.from_pretrained(MODEL_PATH))


def test_a_step_of_each_stage_from_nothing_to_a_checkpoint_that_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = [
        "--hidden",
        "32",
        "--layers",
        "1",
        "--rows",
        "2",
        "--tokenizer-captions",
        "50",
        "--captions-evaluated",
        "8",
    ]
    steps = ["--look", "1", "--read", "1", "--name", "1", "--describe", "1"]
    train.main(["--out", str(tmp_path), "--seed", "7", "--workers", "0", *steps, *sizes])
    output = capsys.readouterr().out
    losses = [float(line.split("answers ")[1].split()[0]) for line in output.splitlines() if "answers" in line]
    assert len(losses) == 2  # the first step and the last
    assert all(math.isfinite(loss) for loss in losses)
    assert "blank logprob visual/filler" in output
    model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert model.dtype == torch.float16
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert processor.tokenizer.encode("<image>") == [model.config.image_token_id]


def rows(steps: int, seed: int = 1) -> list[Row]:
    stage = Stage("describe", steps, rows=6, captions=4, dialogues=True)
    made = Rows(ENCODER, stage, seed)
    return [made[k] for k in range(len(made))]


def test_rows_are_seeded_and_all_kinds_of_input_occur() -> None:
    drawn = rows(12, seed=3)
    assert len(drawn) == 72
    assert [row.branches for row in drawn] == [row.branches for row in rows(12, seed=3)]
    assert drawn[0].branches != rows(1, seed=4)[0].branches
    assert {branch.mode for row in drawn for branch in row.branches} == {"shown", "masked", "removed"}
    assert {row.blank for row in drawn} == {True, False}
    assert any(len(row.pictures) > 1 for row in drawn)


def test_branches_see_the_opening_and_themselves_only() -> None:
    drawn = rows(1)
    batch = collate(drawn, ENCODER)
    assert batch.ids.shape[1] % 32 == 0
    for b, row in enumerate(drawn):
        start = opening = len(row.opening)
        for branch in row.branches:
            inside = slice(start, start + len(branch.ids))
            seen = batch.visible[b, inside]
            assert torch.equal(seen[:, inside], torch.ones_like(seen[:, inside]).tril())
            assert not seen[:, opening:start].any()
            shown = batch.ids[b, :opening] == ENCODER.image_id
            assert seen[:, :opening][:, shown].all() == (branch.mode == "shown")
            assert seen[:, :opening][:, ~shown].all()
            first = opening - IMAGE_TOKENS if branch.mode == "removed" else opening
            assert batch.positions[b, inside].tolist() == list(range(first, first + len(branch.ids)))
            start += len(branch.ids)


def test_only_answers_are_learnt() -> None:
    drawn = rows(1)
    batch = collate(drawn, ENCODER)
    for b in range(6):
        ids, learnt = batch.ids[b].tolist(), (batch.weights[b] > 0).tolist()
        text = ENCODER.decode([token for token, wanted in zip(ids, learnt, strict=True) if wanted])
        assert text.count("<|im_end|>") == len(drawn[b].branches)
        assert "user" not in text
        assert "<image>" not in text
