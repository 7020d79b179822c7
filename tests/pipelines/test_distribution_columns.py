"""A run with ``--columns``, through the command: columns, reader, checks, card, what repeats it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.cli import inspect, score
from pipelines.cli.options import build_parser
from scorer.columns import ASKED, asked_for, of_contrast, raw
from scorer.mini import SAMPLE_PATH
from scorer.training import WeightTable, read_weights
from tests.pipelines.outputs import problems, rewrite
from tests.pipelines.outputs import with_value as cell

FILE = "rows.parquet"
ALONE = 3
"""The row without an image."""
FIRST = ["kl", "kl_reverse", "js", "entropy_clean", "entropy_contrast", "top1_clean", "top1_contrast"]
FURTHER = ["kl_masked", "kl_reverse_masked", "js_masked", "entropy_masked", "top1_masked"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = pq.read_table(sorted(SAMPLE_PATH.glob("*.parquet"))[0]).slice(0, 10)
    images = rows["image"].to_pylist()
    images[ALONE] = None
    at = rows.schema.get_field_index("image")
    pq.write_table(
        rows.set_column(at, rows.schema.field(at), pa.array(images, rows.schema.field(at).type)), folder / FILE
    )
    return folder


def run(data: Path, output: Path, *more: str) -> Path:
    argv = ["--input", str(data), "--output", str(output), "--executor", "local", "--device", "cpu", "--no-report"]
    assert score.main([*argv, *more]) == 0
    return output


@pytest.fixture(scope="module")
def output(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("run") / "out"
    return run(data, place, "--contrast", "blank,masked", "--columns", "top1, kl,entropy,js")


@pytest.fixture
def copy(output: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(output, tmp_path / "copy"))


def test_the_columns_stand_before_the_weights_each_with_its_type(output: Path) -> None:
    schema = pq.read_schema(output / FILE)
    added = [*FIRST, "logit_gap_masked", "logprob_masked", *FURTHER]
    at = schema.names.index("token_weights")
    assert schema.names[at - len(added) : at] == added
    for name in added:
        assert schema.field(name).type.value_type == (pa.bool_() if "top1" in name else pa.float32())
    assert [column.name for column in asked_for(ASKED)] == FIRST
    parquet = pq.ParquetFile(output / FILE).metadata.row_group(0)
    chunks = {parquet.column(i).path_in_schema.split(".")[0]: parquet.column(i) for i in range(parquet.num_columns)}
    assert all("BYTE_STREAM_SPLIT" in chunks[name].encodings for name in added if "top1" not in name)


def test_a_row_is_read_with_them_and_with_another_contrast_in_their_place(output: Path) -> None:
    (row, *_) = read_weights(output)
    assert row.scores is not None
    assert row.scores.further_contrasts == ("masked",)
    masked = row.scores.with_contrast("masked").optional
    assert {masked[name].tobytes() for name in ("kl", "entropy_contrast", "top1_contrast")} == {
        row.scores.optional[name].tobytes() for name in ("kl_masked", "entropy_masked", "top1_masked")
    }
    assert masked["entropy_clean"] is row.scores.optional["entropy_clean"]
    assert row.scores.optional["top1_clean"].any() and not row.scores.optional["top1_clean"].all()
    (derived, *_) = read_weights(output, method=lambda scores: scores.optional["kl"], contrast="masked")
    np.testing.assert_array_equal(derived.weights, row.scores.optional["kl_masked"])
    assert (derived.weights != row.scores.optional["kl"]).any()
    found = WeightTable.open(output).row(FILE, 0)
    assert found.scores is not None
    np.testing.assert_array_equal(found.scores.optional["js"], row.scores.optional["js"])


def test_a_row_without_an_image_has_what_its_text_has(output: Path) -> None:
    scores = list(read_weights(output))[ALONE].scores
    assert scores is not None and scores.text_only
    for name, values in scores.optional.items():
        if name in ("entropy_contrast", "entropy_masked"):
            assert (values > 0).all()
        elif values.dtype != np.bool_:
            assert np.isnan(values).all() == (name != "logprob_masked"), name
    assert not scores.optional["top1_clean"].any()
    assert scores.optional["top1_contrast"].any(), "language alone predicts some words"


def test_the_card_and_the_run_s_record_tell(output: Path) -> None:
    card = (output / "README.md").read_text()
    for column in (*asked_for(ASKED), *of_contrast("masked", ASKED)):
        assert f"| `{column.name}` | {column.meaning} |" in card
    assert "KL(clean‖contrast)" in card and "with the contrast `masked` is from that with the image" in card
    fingerprint = json.loads((output / "_run.json").read_text())["fingerprint"]
    assert fingerprint["distribution_columns"] == list(ASKED)
    assert fingerprint["columns"] == ["is_stop", *FIRST, "logit_gap_masked", "logprob_masked", *FURTHER]


def test_the_run_s_own_configuration_repeats_it(data: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(yaml.safe_load((output / "_config.yaml").read_text())["columns"]) == set(ASKED)
    before = (output / FILE).read_bytes()
    assert score.main(["--config", str(output / "_config.yaml")]) == 0
    assert (output / FILE).read_bytes() == before
    capsys.readouterr()
    other = ["--contrast", "blank,masked", "--columns", "kl", "--executor", "local", "--device", "cpu"]
    assert score.main(["--input", str(data), "--output", str(output), *other]) == 2
    assert "fingerprint.distribution_columns" in capsys.readouterr().err


def test_without_the_option_nothing_of_it_is_written(data: Path, output: Path, tmp_path: Path) -> None:
    plain = run(data, tmp_path / "out", "--contrast", "blank,masked")
    names = pq.read_schema(plain / FILE).names
    assert not {*FIRST, *FURTHER} & set(names)
    table, more = pq.read_table(plain / FILE), pq.read_table(output / FILE)
    assert all(str(table[name].to_pylist()) == str(more[name].to_pylist()) for name in names)  # NaN is not NaN
    assert "columns" not in yaml.safe_load((plain / "_config.yaml").read_text())
    assert "distribution_columns" not in json.loads((plain / "_run.json").read_text())["fingerprint"]


def test_rounded_scores_are_rounded_here_too(data: Path, tmp_path: Path) -> None:
    out = run(data, tmp_path / "out", "--columns", "kl,js,entropy,top1", "--score-bits", "1")
    (row, *_) = read_weights(out)
    assert row.scores is not None
    for name in ("kl", "kl_reverse", "js", "entropy_clean", "entropy_contrast"):
        mantissas = np.frexp(row.scores.optional[name])[0]
        assert set(np.unique(mantissas)) <= {0.0, 0.5, 0.75}
    assert problems(out) == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("kl,gap", "'gap' is not one of kl, js, entropy, top1, each given once"),
        ("kl,kl", "'kl' is not one of kl, js, entropy, top1, each given once"),
        ("", "'' is not one of"),
    ],
)
def test_what_is_asked_for_is_known(asked: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--input", "i", "--output", "o", "--columns", asked])
    assert f"argument --columns: {said}" in capsys.readouterr().err


# Damage


def test_a_sound_output_passes(output: Path) -> None:
    assert problems(output) == problems(output, quick=True) == []
    assert inspect.main([str(output)]) == 0


def first(value: Any) -> Any:
    return lambda values: [value, *values[1:]]


DAMAGED: dict[str, tuple[Any, str]] = {
    "negative": (cell("kl", 1, first(-0.01)), "row 1 has a kl that is not from 0 to inf"),
    "of a further contrast": (
        cell("kl_reverse_masked", 1, first(-1.0)),
        "row 1 has a kl_reverse_masked that is not from",
    ),
    "above ln 2": (cell("js", 1, first(0.8)), "row 1 has a js that is not from 0 to 0.75"),
    "beyond any vocabulary": (
        cell("entropy_clean", 1, first(30.0)),
        "row 1 has a entropy_clean that is not from 0 to 24",
    ),
    "not a number": (cell("entropy_masked", 1, first(math.nan)), "row 1 has a entropy_masked that is not finite"),
    "one less": (cell("top1_clean", 1, lambda v: v[:-1]), "row 1 has a different number of top1_clean than of"),
    "null inside": (cell("top1_masked", 1, first(None)), "row 1 has a null inside top1_masked"),
    "text alone with a divergence": (cell("js", ALONE, first(0.1)), "is text_only but has a js that is not NaN"),
    "text alone with a clean entropy": (
        cell("entropy_clean", ALONE, first(1.0)),
        "is text_only but has a entropy_clean that is not NaN",
    ),
    "text alone with a clean top": (cell("top1_clean", ALONE, first(True)), "but has a top1_clean that is true"),
    "text alone with half an entropy": (
        cell("entropy_contrast", ALONE, first(math.nan)),
        "its entropy_contrast is neither finite nor all NaN",
    ),
    "absent": (lambda table: table.drop_columns(["kl"]), "it lacks columns kl"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damage_is_told(copy: Path, damage: str) -> None:
    change, expected = DAMAGED[damage]
    rewrite(copy, FILE, change)
    assert any(expected in problem.message for problem in problems(copy)), problems(copy)


def test_every_column_in_nats_is_bounded_from_below() -> None:
    assert all(column.bounds[0] == 0 for column in raw(FIRST) if column.asked and column.dtype == np.float32)
