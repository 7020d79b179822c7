"""Training, end to end at a tiny size, and the samples it learns from."""

import math
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from scorer.mini import MODEL_PATH, train
from scorer.mini.batches import REMOVED, Rows, SceneEncoder, Stage, TrainingRow, collate
from scorer.mini.captions import drill
from scorer.mini.objective import SceneProbe, losses
from scorer.mini.packaging import IMAGE_TOKENS, build_model
from scorer.mini.phrases import REPETITIVE, Phrasebook

TOKENIZER = AutoTokenizer.from_pretrained(MODEL_PATH)
ENCODER = SceneEncoder(TOKENIZER)


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
    steps = [word for stage in ("drill", "read", "look", "name", "describe") for word in (f"--{stage}", "1")]
    train.main(["--out", str(tmp_path), "--seed", "7", "--workers", "0", *steps, *sizes])
    output = capsys.readouterr().out
    found = [float(line.split("answers ")[1].split()[0]) for line in output.splitlines() if "answers" in line]
    assert len(found) == 2  # the first step and the last
    assert all(math.isfinite(loss) for loss in found)
    assert "blank logprob visual/filler" in output
    model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert model.dtype == torch.float16
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert processor.tokenizer.encode("<image>") == [model.config.image_token_id]


def rows(steps: int, seed: int = 1) -> list[TrainingRow]:
    stage = Stage("describe", steps, rows=6, captions=4, free=True)
    made = Rows(ENCODER, stage, seed)
    return [made[k] for k in range(len(made))]


def test_rows_are_seeded_and_all_kinds_of_input_occur() -> None:
    drawn = rows(12, seed=3)
    assert len(drawn) == 72
    assert [row.branches for row in drawn] == [row.branches for row in rows(12, seed=3)]
    assert drawn[0].branches != rows(1, seed=4)[0].branches
    assert {branch.mode for row in drawn for branch in row.branches} == {"shown", "masked", "removed"}
    assert {row.blank for row in drawn} == {True, False}
    assert any(len(row.images) > 1 for row in drawn)


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


@pytest.mark.parametrize("book", [None, REPETITIVE])
def test_text_alone_is_learnt_without_pictures(book: Phrasebook | None) -> None:
    stage = Stage("text", 1, rows=4, captions=1, book=book, modes=(REMOVED,))
    made = Rows(ENCODER, stage, 5)
    batch = collate([made[k] for k in range(4)], ENCODER)
    assert len(batch.pixels) == len(batch.image_numbers) == len(batch.cells) == 0
    assert not (batch.ids == ENCODER.image_id).any()
    model = build_model(TOKENIZER, hidden=32, layers=1)
    answers, seen = losses(model, SceneProbe(32), batch)
    answers.backward()
    assert answers > 1
    assert not seen.any()
    learnt = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert "model.language_model.embed_tokens.weight" in learnt
    assert not any("vision_tower" in name and model.get_parameter(name).grad.abs().max() > 0 for name in learnt)


def test_after_its_first_round_a_drill_says_nothing_new() -> None:
    for seed in range(20):
        words = drill(random.Random(seed), words=48).text.lower().split()
        period = len(set(words))
        assert 4 <= period <= 12
        assert words == [words[k % period] for k in range(48)]


def test_matrices_inside_the_towers_go_to_muon_and_every_parameter_once() -> None:
    model, probe = build_model(TOKENIZER, hidden=32, layers=1), SceneProbe(32)
    muon, adamw = train.build_optimizers(model, probe, train.Recipe(stages=()))
    groups = [{id(p) for group in one.param_groups for p in group["params"]} for one in (muon, adamw)]
    assert groups[0].isdisjoint(groups[1])
    assert groups[0] | groups[1] == {id(p) for p in (*model.parameters(), *probe.parameters())}
    assert id(model.model.language_model.layers[0].mlp.up_proj.weight) in groups[0]
    for other in (model.lm_head.weight, model.model.language_model.embed_tokens.weight, probe.background.weight):
        assert id(other) in groups[1]
