"""Training, end to end at a tiny size, and the samples it learns from."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from scorer.errors import ConfigError
from scorer.mini import MODEL_PATH, train
from scorer.mini.batches import REMOVED, Batch, Rows, SceneEncoder, Stage, TrainingRow, collate
from scorer.mini.language.caption_writer import CONTRADICTORY
from scorer.mini.language.captions import drill
from scorer.mini.language.compose import compose_false
from scorer.mini.language.phrases import REPETITIVE, Phrasebook
from scorer.mini.objective import SceneProbe, losses
from scorer.mini.packaging import IMAGE_TOKENS, build_model
from scorer.mini.world import sample_scene

TOKENIZER = AutoTokenizer.from_pretrained(MODEL_PATH)
ENCODER = SceneEncoder(TOKENIZER)


SMALL = [
    *("--seed", "7", "--workers", "0", "--rows", "2", "--tokenizer-captions", "50", "--captions-evaluated", "8"),
    *("--hidden", "32", "--layers", "1", "--vision-hidden", "32", "--vision-layers", "1"),
]
ONE_OF_EACH = [word for stage in ("drill", "read", "look", "name", "describe") for word in (f"--{stage}", "1")]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return AutoModelForImageTextToText.from_pretrained(checkpoint).state_dict()


def test_a_step_of_each_stage_from_nothing_to_a_checkpoint_that_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train.main(["--out", str(tmp_path), *ONE_OF_EACH, *SMALL])
    output = capsys.readouterr().out
    found = [float(line.split("answers ")[1].split()[0]) for line in output.splitlines() if "answers" in line]
    assert len(found) == 2  # the first step and the last
    assert all(math.isfinite(loss) for loss in found)
    measured = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert [figures["on"] for figures in measured] == ["templates", "training", "reserved"]
    assert all("blank logprob visual/filler" in figures for figures in measured)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert model.dtype == torch.float16
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert processor.tokenizer.encode("<image>") == [model.config.image_token_id]


def test_a_run_that_was_interrupted_continues_to_the_same_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*ONE_OF_EACH[:-1], "3", *SMALL, "--save-every", "2"]
    train.main(["--out", str(tmp_path / "whole"), *options])
    steps = iter(range(100))

    def losses_until_interrupted(*arguments: Any) -> Any:
        if next(steps) == 5:
            raise KeyboardInterrupt
        return losses(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(train, "losses", losses_until_interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.main(["--out", str(tmp_path / "cut"), *options])
    capsys.readouterr()
    train.main(["--out", str(tmp_path / "cut"), *options])
    assert "step 4 of 7" in capsys.readouterr().out
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_a_run_with_other_options_is_not_continued(tmp_path: Path) -> None:
    train.main(["--out", str(tmp_path), *ONE_OF_EACH, *SMALL])
    with pytest.raises(ConfigError, match=r"run\.pt is the state of a run with the recipe .*describe 1 .*describe 2 "):
        train.main(["--out", str(tmp_path), *ONE_OF_EACH[:-1], "2", *SMALL])


def test_weaker_models_are_kept_once_they_reach_a_quality(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "QUALITIES", (0.0, 1.1))
    train.main(["--out", str(tmp_path), *ONE_OF_EACH, *SMALL])
    assert [kept.name for kept in (tmp_path / "checkpoints").iterdir()] == ["auroc-0.00"]
    kept = weights(tmp_path / "checkpoints" / "auroc-0.00")
    assert all(torch.equal(tensor, kept[name]) for name, tensor in weights(tmp_path).items())


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


def seeing(batch: Batch) -> torch.Tensor:
    """Which token (first T) sees which, bool [B, T, T], put together from the segments."""
    whole = torch.zeros(*batch.ids.shape, batch.ids.shape[1], dtype=torch.bool)
    for k, segment in enumerate(batch.segments):
        own, opening = slice(segment.start, segment.end), slice(0, batch.segments[0].end)
        if k:
            whole[:, own, opening] = segment.visible[:, :, : opening.stop]
        whole[:, own, own] = segment.visible[:, :, -(segment.end - segment.start) :]
    return whole


def test_branches_see_the_opening_and_themselves_only() -> None:
    drawn = rows(1)
    batch = collate(drawn, ENCODER)
    visible = seeing(batch)
    assert all(segment.start % 8 == 0 for segment in batch.segments)
    for b, row in enumerate(drawn):
        opening = len(row.opening)
        branches = sorted(row.branches, key=lambda branch: len(branch.ids))
        assert len(branches) == len(batch.segments) - 1
        for branch, segment in zip(branches, batch.segments[1:], strict=True):
            inside = slice(segment.start, segment.start + len(branch.ids))
            assert batch.ids[b, inside].tolist() == branch.ids
            seen = visible[b, inside]
            assert torch.equal(seen[:, inside], torch.ones_like(seen[:, inside]).tril())
            assert seen[:, opening:].sum() == seen[:, inside].sum()
            shown = batch.ids[b, :opening] == ENCODER.image_id
            assert seen[:, :opening][:, shown].all() == (branch.mode == "shown")
            assert seen[:, :opening][:, ~shown].all()
            first = opening - IMAGE_TOKENS if branch.mode == "removed" else opening
            assert batch.positions[b, inside].tolist() == list(range(first, first + len(branch.ids)))


def test_only_answers_are_learnt() -> None:
    drawn = rows(1)
    batch = collate(drawn, ENCODER)
    for b in range(6):
        ids, learnt = batch.ids[b].tolist(), (batch.weights[b] > 0).tolist()
        chosen = [token for token, wanted in zip(ids, learnt, strict=True) if wanted]
        assert chosen.count(ENCODER.end_id) == len(drawn[b].branches)
        assert ENCODER.start_id not in chosen
        assert ENCODER.image_id not in chosen


def test_of_a_false_caption_all_but_the_error_is_learnt() -> None:
    rng = random.Random(4)
    caption = compose_false(sample_scene(rng), rng)
    labels = ENCODER.caption(caption)[1]
    whole, part = (ENCODER.first("shown", "?", caption, unlearnt).weights for unlearnt in ((), (CONTRADICTORY,)))
    assert whole != part
    answer = slice(len(part) - 2 - len(labels), len(part) - 2)
    assert [weight == 0 for weight in part[answer]] == [label == CONTRADICTORY for label in labels]


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
