"""The command, from a dataset to PRIOR's weights: train, score the texts, score the images, read both."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.cli.inspect import main as inspect
from pipelines.cli.score import main as score
from pipelines.cli.train_text_reference import main
from scorer.columns import LOGPROB_TEXT
from scorer.errors import TableError
from scorer.mini import SAMPLE_PATH
from scorer.training import WeightTable, read_weights
from scorer.training.export.__main__ import main as export
from scorer.weights import METHODS
from tests.methods import ready
from tests.pipelines.outputs import problems, rewrite
from tests.pipelines.outputs import with_value as cell

SMALL = ["--hidden", "64", "--layers", "1", "--vocab-size", "300", "--epochs", "1", "--held-out", "0.2"]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few rows of the sample (data), a text reference (lm), the texts' scores (text), and the images' (vlm)."""
    root = tmp_path_factory.mktemp("prior")
    (root / "data").mkdir()
    table = pq.read_table(next(iter(sorted(SAMPLE_PATH.glob("*.parquet"))))).slice(0, 8)
    captions = table["caption"].to_pylist()
    captions[1] = "Très naïve 🪁 kite № 1:  two  spaces,\nand a line break."
    table = table.set_column(table.schema.get_field_index("caption"), "caption", pa.array(captions))
    pq.write_table(table, root / "data" / "a.parquet")
    common = ["--executor", "local", "--input", str(root / "data"), "--no-report", "--method", "prior"]
    assert main(["--input", str(root / "data"), "--output", str(root / "lm"), *SMALL]) == 0
    alone = ["--model", str(root / "lm"), "--contrast", "removed"]
    assert score([*common, "--output", str(root / "text"), *alone]) == 0
    assert score([*common, "--output", str(root / "vlm")]) == 0
    return root


def test_priors_weights_are_read_from_both_outputs(made: Path) -> None:
    table = WeightTable.open(made / "vlm", method="prior", text=made / "text")
    plain = WeightTable.open(made / "vlm", method="prior")
    alone = read_weights(made / "text")
    for row, text, other in zip(table, alone, plain, strict=True):
        assert row.scores is not None and text.scores is not None and row.weights is not None
        assert row.scores.token_ids.tolist() != text.scores.token_ids.tolist()  # two tokenizers
        assert row.scores.is_stop.sum() == text.scores.is_stop.sum() == 1
        total = row.scores.optional[LOGPROB_TEXT].sum()
        assert total == pytest.approx(text.scores.logprob_contrast.sum(), rel=1e-5)
        assert row.weights.mean() == pytest.approx(1, rel=1e-5)
        assert not np.allclose(row.weights, other.weights)


def test_texts_scored_without_their_image_column_are_joined_just_the_same(made: Path, tmp_path: Path) -> None:
    arguments = [
        "--executor",
        "local",
        "--input",
        str(made / "data"),
        "--output",
        str(tmp_path / "text"),
        "--no-report",
    ]
    alone = ["--model", str(made / "lm"), "--contrast", "removed", "--method", "prior", "--image-column", "none"]
    assert score([*arguments, *alone]) == 0
    assert all(row.text_only for row in read_weights(tmp_path / "text"))
    without, beside = (
        WeightTable.open(made / "vlm", method="prior", text=text) for text in (tmp_path / "text", made / "text")
    )
    for row, other in zip(without, beside, strict=True):
        assert row.weights is not None and other.weights is not None
        np.testing.assert_allclose(row.weights, other.weights, atol=1e-5)


def test_an_image_is_not_read_and_a_row_without_one_counts(made: Path, tmp_path: Path, capsys: Captured) -> None:
    """Paths to nowhere, a URL whose host is not allowed, several captions, conversations with places for images."""
    talk = [{"role": "user", "content": "<image>What is it?"}, {"role": "assistant", "content": "A kite."}]
    rows: list[dict[str, Any]] = [
        {"image": "nowhere.jpg", "messages": talk},
        {"image": "https://example.org/x.jpg", "messages": [talk[0], {"role": "assistant", "content": "Two boats."}]},
        {"image": None, "messages": [{**talk[0], "content": "What?"}, {"role": "assistant", "content": "No image."}]},
        {"image": "nowhere.jpg", "messages": []},
    ]
    data = tmp_path / "data" / "talk.jsonl"
    data.parent.mkdir()
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["--input", str(data), "--output", str(tmp_path / "lm"), *SMALL]) == 0
    printed = capsys.readouterr()
    assert "; 1 failed" in printed.out and "perplexity" in printed.out
    record = json.loads((tmp_path / "lm" / "text_reference.json").read_text())
    assert record["rows"]["trained_on"] + record["rows"]["held_out"] == 3

    captions = tmp_path / "captions" / "several.jsonl"
    captions.parent.mkdir()
    captions.write_text(json.dumps({"image": "nowhere.jpg", "captions": ["A kite.", None, "Two boats."]}) + "\n")
    arguments = ["--input", str(captions), "--output", str(tmp_path / "lm2"), "--text-column", "captions"]
    assert main([*arguments, *SMALL]) == 0
    record = json.loads((tmp_path / "lm2" / "text_reference.json").read_text())
    assert record["rows"] == {"trained_on": 1, "held_out": 1, "failed": 0}


def test_repeating_the_command_trains_nothing_and_another_dataset_is_refused(
    made: Path, tmp_path: Path, capsys: Captured
) -> None:
    arguments = ["--output", str(made / "lm"), *SMALL]
    assert main(["--input", str(made / "data"), *arguments]) == 0
    assert "already trained; nothing to do" in capsys.readouterr().err
    assert main(["--input", str(SAMPLE_PATH), *arguments]) == 2
    assert "holds a training with other options: input was" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--hidden", "65"], "--hidden is 65; it must be a multiple of 64"),
        (["--input", "no/such/data"], "no/such/data"),
        (["--text-column", "nothing"], "no column 'nothing'"),
    ],
)
def test_a_wrong_option_ends_in_a_message_and_trains_nothing(
    made: Path, tmp_path: Path, capsys: Captured, arguments: list[str], said: str
) -> None:
    output = tmp_path / "lm"
    assert main(["--input", str(made / "data"), "--output", str(output), *arguments]) == 2
    error = capsys.readouterr().err.partition("error: ")[2]
    assert said in error and "Traceback" not in error
    assert not (output / "text_reference.json").exists()


def test_an_output_inside_the_dataset_is_refused(made: Path, capsys: Captured) -> None:
    assert main(["--input", str(made / "data"), "--output", str(made / "data" / "lm")]) == 2
    assert "overlap" in capsys.readouterr().err


def test_inspect_finds_the_texts_scores_sound_and_says_what_they_are(
    made: Path, tmp_path: Path, capsys: Captured
) -> None:
    assert inspect([str(made / "text")]) == 0
    printed = capsys.readouterr().out
    assert "reference    the texts alone, by a language model" in printed
    assert "nan" not in printed and "gap in nats" not in printed
    assert inspect([str(made / "vlm")]) == 0
    printed = capsys.readouterr().out
    assert "reference    the contrast blank, no text reference; read_weights(…, text=…) joins one" in printed
    assert "gap in nats" in printed
    assert json.loads((made / "text" / "_run.json").read_text())["fingerprint"]["image_processor"] is None


def test_a_gap_in_the_scores_of_a_language_model_is_damage(made: Path, tmp_path: Path) -> None:
    """And the control: a language model's NaN in a vision-language model's output is damage, too."""
    from pipelines.output.row_check import RowCheck
    from scorer.columns import of_run, undefined

    fingerprints = {
        name: json.loads((made / name / "_run.json").read_text())["fingerprint"] for name in ("text", "vlm")
    }
    faults: dict[tuple[str, str], set[str]] = {}
    for rows in fingerprints:
        batch = pq.read_table(made / rows / "a.parquet").combine_chunks().to_batches()[0]
        for name, fingerprint in fingerprints.items():
            check = RowCheck(of_run(fingerprint), undefined(fingerprint))
            check.add(batch)
            faults[rows, name] = set(check.faults)
    assert faults["text", "text"] == faults["vlm", "vlm"] == set()
    assert faults["vlm", "text"] == {
        f"has a {name} that is not NaN, from a model without images" for name in ("logit_gap", "logprob_clean")
    }
    assert faults["text", "vlm"] == {f"has a {name} that is not finite" for name in ("logit_gap", "logprob_clean")}


def test_distribution_columns_of_a_language_model_are_sound_without_what_needs_an_image(
    made: Path, tmp_path: Path, capsys: Captured
) -> None:
    arguments = ["--executor", "local", "--input", str(made / "data"), "--output", str(tmp_path / "out"), "--no-report"]
    alone = ["--model", str(made / "lm"), "--contrast", "removed", "--method", "prior", "--columns"]
    assert score([*arguments, *alone, "kl,js,entropy,top1"]) == 0
    assert problems(tmp_path / "out") == []
    (row, *_) = read_weights(tmp_path / "out")
    assert row.ok and row.scores is not None
    found = row.scores.optional
    assert (found["entropy_contrast"] > 0).all()
    assert all(np.isnan(found[name]).all() for name in ("kl", "kl_reverse", "js", "entropy_clean"))
    rewrite(tmp_path / "out", "a.parquet", cell("top1_clean", 2, lambda values: [True, *values[1:]]))
    (problem,) = problems(tmp_path / "out")
    assert "row 2 has a top1_clean that is true, from a model without images" in problem.message


@pytest.mark.parametrize("method", [name for name, one in METHODS.items() if not one.text_reference])
def test_a_method_that_needs_images_is_refused_before_and_after(
    made: Path, tmp_path: Path, capsys: Captured, method: str
) -> None:
    arguments = ["--executor", "local", "--input", str(made / "data"), "--output", str(tmp_path / "out")]
    alone = ["--model", str(made / "lm"), "--contrast", "removed"]
    assert score([*arguments, *alone, "--method", method]) == 2
    assert "is a language model, which takes no images: choose --method prior" in capsys.readouterr().err
    assert not (tmp_path / "out" / "_run.json").exists()
    with pytest.raises(TableError, match=rf"a\.parquet has no .*, which the method '{method}' reads"):
        list(read_weights(made / "text", method=ready(method)))


def test_an_export_has_the_weights_by_the_text_reference(made: Path, tmp_path: Path) -> None:
    common = ["--to", "jsonl", "--weights", str(made / "vlm"), "--data", str(made / "data"), "--method", "prior"]
    file = tmp_path / "out.jsonl"
    assert export([*common, "--output", str(file), "--text-reference", str(made / "text")]) == 0
    table = WeightTable.open(made / "vlm", method="prior", text=made / "text")
    for line, row in zip(file.read_text().splitlines(), table, strict=True):
        assert row.weights is not None
        np.testing.assert_allclose(json.loads(line)["token_weights"]["weights"], row.weights, rtol=1e-6)
    assert export([*common[:-2], "--output", str(file), "--text-reference", str(made / "text")]) == 2


def test_an_export_leaves_out_what_the_text_reference_did_not_score(
    made: Path, tmp_path: Path, capsys: Captured
) -> None:
    cut = tmp_path / "text"
    shutil.copytree(made / "text", cut)
    (shard,) = cut.glob("*.parquet")
    table = pq.read_table(shard)
    *rest, last = table.to_pylist()
    failed = {name: last[name] for name in ("sample_id", "row_index")} | {
        "status": "text_too_long",
        "error": "too long",
    }
    pq.write_table(pa.Table.from_pylist([*rest, failed], schema=table.schema), shard)
    file = tmp_path / "out.jsonl"
    common = ["--to", "jsonl", "--weights", str(made / "vlm"), "--data", str(made / "data"), "--method", "prior"]
    arguments = [*common, "--output", str(file), "--text-reference", str(cut), "--allow-unfinished"]
    assert export(arguments) == 2
    assert "or give text_missing='nan' (tokensight export: --text-missing leave-out)" in capsys.readouterr().err
    assert not file.exists()
    assert export([*arguments, "--text-missing", "leave-out"]) == 0
    assert "1 rows have text that the text reference did not score: they are left out" in capsys.readouterr().out
    rows = list(WeightTable.open(made / "vlm", method="prior", text=made / "text"))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == len(rows) - 1
    for line, row in zip(lines, rows, strict=False):
        np.testing.assert_allclose(line["token_weights"]["weights"], row.weights, rtol=1e-6)


def test_text_missing_needs_a_text_reference(made: Path, tmp_path: Path, capsys: Captured) -> None:
    common = ["--to", "jsonl", "--weights", str(made / "vlm"), "--output", str(tmp_path / "out.jsonl")]
    assert export([*common, "--text-missing", "leave-out"]) == 2
    assert "--text-missing is leave-out without a text reference; give one with --text-reference" in (
        capsys.readouterr().err
    )
