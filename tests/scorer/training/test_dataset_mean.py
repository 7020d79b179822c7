"""Weights with a mean of 1 over the dataset: what counts, where the mean is from, and what has none."""

from __future__ import annotations

import json
import math
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scorer.errors import ConfigError, TableError
from scorer.results import TokenScores
from scorer.training import RowSelection, WeightAligner, WeightedText, WeightRow, WeightTable, read_weights
from scorer.training.export.__main__ import main as export
from scorer.training.means import MEANS
from scorer.training.reader import PublishedWeights
from scorer.training.rows import Rows
from scorer.types import Float32Array
from scorer.weighting.weight_total import ExactTotal, WeightTotal
from scorer.weights import METHODS, Method
from tests.conftest import ROOT
from tests.methods import ready
from tests.scorer.training.mixed import write_mixed
from tests.scorer.training.trainers import BYTE_LEVEL


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return write_mixed(tmp_path)


def with_image(published: PublishedWeights) -> Float32Array:
    """All weights of rows with an image, end to end."""
    return np.concatenate([row.weights for row in published if row.weights is not None and not row.text_only])


def edit_summary(output: Path, **changes: Any) -> None:
    summary = json.loads((output / "_SUCCESS").read_text())
    summary.update(changes)
    (output / "_SUCCESS").write_text(json.dumps({k: v for k, v in summary.items() if v is not None}))


def doubled(scores: TokenScores) -> Float32Array:
    return np.full(len(scores.token_ids), 2, np.float32)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": "cal"},
        {"method": "grounded"},
        {"method": Method("vig", {"keep": 0.5})},
        {"method": doubled},
        {"rows": RowSelection(keep=0.5)},
        {"method": "grounded", "rows": RowSelection(min_gap=0.2)},
    ],
)
def test_the_tokens_of_rows_with_an_image_have_a_mean_of_1(output: Path, options: dict[str, Any]) -> None:
    plain, scaled = read_weights(output, **options), read_weights(output, mean="dataset", **options)
    before, after = with_image(plain), with_image(scaled)
    assert after.mean(dtype=np.float64) == pytest.approx(1, abs=1e-6)
    assert abs(before.mean(dtype=np.float64) - 1) > 0.05, "negative control"
    assert scaled.mean_weight == pytest.approx(before.mean(dtype=np.float64), rel=1e-9)
    np.testing.assert_allclose(after * scaled.mean_weight, before, rtol=1e-6)
    assert f", divided by {scaled.mean_weight:.6g}" in scaled.description
    alone = [row.weights for row in scaled if row.text_only]
    assert len(alone) == 12 and all((weights == 1).all() for weights in alone if weights is not None)


def test_a_run_that_stored_the_weights_has_recorded_their_mean(output: Path) -> None:
    """The recorded one is taken, unread, for the weights that were stored, and for no others."""
    read = read_weights(output, mean="dataset").mean_weight
    assert read is not None
    recorded = json.loads((output / "_SUCCESS").read_text())["weights"]
    assert read_weights(output).total() == WeightTotal.from_dict(recorded), "to the bit"
    assert read == WeightTotal.from_dict(recorded).mean
    edit_summary(output, weights={**recorded, "sum": recorded["sum"] * 2})
    stored = Method()
    for options in ({}, {"method": "cal"}, {"method": stored}, {"method": stored, "contrast": "blank"}):
        assert read_weights(output, mean="dataset", **options).mean_weight == pytest.approx(2 * read)
    others = [Method("cal", {"window": 1}), Method("grounded"), lambda scores: stored(scores)]
    for method in others:
        found = read_weights(output, mean="dataset", method=method).mean_weight
        assert found == pytest.approx(with_image(read_weights(output, method=method)).mean(dtype=np.float64))
    found = read_weights(output, mean="dataset", rows=RowSelection(min_gap=-100)).mean_weight
    assert found == pytest.approx(read)


def test_an_earlier_release_recorded_none_so_the_rows_are_read(output: Path) -> None:
    before = read_weights(output, mean="dataset").mean_weight
    edit_summary(output, weights=None)
    assert read_weights(output, mean="dataset").mean_weight == before


def test_a_part_has_the_mean_of_the_whole(output: Path) -> None:
    for method in (None, "grounded"):
        whole, part = (read_weights(path, mean="dataset", method=method) for path in (output, output / "b.parquet"))
        assert part.shards == ("b.parquet",) and part.mean_weight == whole.mean_weight
        assert with_image(part).mean(dtype=np.float64) != pytest.approx(1, abs=1e-3)


def test_rows_with_unknown_weights_do_not_count(output: Path) -> None:
    def partly(scores: TokenScores) -> Float32Array:
        return np.full(len(scores.token_ids), np.nan if int(scores.text_hash, 16) % 2 else 4, np.float32)

    published = read_weights(output, method=partly, mean="dataset")
    assert published.mean_weight == 4
    assert {1.0} < {*with_image(published).tolist()}, "and those that are not known stay so"


@pytest.mark.parametrize("method", [None, *METHODS])
def test_many_rows_at_once_weigh_the_same(output: Path, method: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The total of a method that weighs each token alone is that of its rows, one by one."""
    chosen = None if method is None else ready(method)
    published = read_weights(output, method=chosen)
    one_by_one = []
    for name in published.shards:
        total = ExactTotal()
        total.add(with_image(replace(published, shards=(name,))))
        one_by_one.append(total.rounded)
    expected = WeightTotal.merged(one_by_one)
    read: list[str] = []
    row_of = Rows.__getitem__
    monkeypatch.setattr(Rows, "__getitem__", lambda rows, i: read.append(rows._shard) or row_of(rows, i))
    assert published.total() == expected
    assert replace(published, mean_weight=2).total().mean == pytest.approx(expected.mean / 2)
    assert (not read) == (method is None or METHODS[method].alone)


def test_a_number_is_divided_by_as_it_is(output: Path) -> None:
    published = read_weights(output, method=doubled, mean=4)
    assert set(with_image(published).tolist()) == {0.5}
    (output / "_SUCCESS").unlink()
    unfinished = read_weights(output, method=doubled, mean=4, allow_unfinished=True)
    assert set(with_image(unfinished).tolist()) == {0.5}


def test_a_table_keeps_the_mean_when_it_is_pickled(output: Path) -> None:
    table = WeightTable.open(output, method="grounded", mean="dataset")
    again = pickle.loads(pickle.dumps(table))
    assert again.published.mean_weight == table.published.mean_weight
    assert again.row("a.parquet", 0).weights.tolist() == table.row("a.parquet", 0).weights.tolist()


def test_what_has_no_mean_is_refused(output: Path) -> None:
    with pytest.raises(TableError, match="weights of the dataset are all 0, so they have no mean to be divided by"):
        read_weights(output, method=Method("vig", {"threshold": 1e6}), mean="dataset")
    with pytest.raises(TableError, match="weights of the dataset are none, as no row with an image is left, so"):
        read_weights(output, rows=RowSelection(min_gap=1e6), mean="dataset")
    edit_summary(output, weights={"sum": "3"})
    with pytest.raises(TableError, match=r"_SUCCESS is damaged \(the total of its weights is .*\): delete it and run"):
        read_weights(output, mean="dataset")
    (output / "_SUCCESS").unlink()
    with pytest.raises(TableError, match="is not finished, so the mean weight of its dataset is not known: let it"):
        read_weights(output, mean="dataset", allow_unfinished=True)


def test_other_means_are_refused(output: Path) -> None:
    for mean, words in (
        ("row", "mean is 'row'; it must be 'none' or 'dataset'$"),
        ("sequence", "mean is 'sequence'; it must be 'none' or 'dataset'; give it to the WeightAligner"),
        (0, "mean is 0; a mean to divide by must be finite and above 0"),
        (math.nan, "mean is nan"),
        (math.inf, "mean is inf"),
    ):
        with pytest.raises(ConfigError, match=words):
            read_weights(output, mean=mean)  # type: ignore[arg-type]


def weights_in(path: Path) -> Float32Array:
    records = [json.loads(line)["token_weights"] for line in path.read_text().splitlines()]
    return np.concatenate([np.array(record["weights"], np.float32) for record in records])


def test_exporters_scale_by_the_datasets_mean(output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "file.jsonl"
    data = str(output.parent / "data")
    arguments = ["--weights", str(output), "--data", data, "--output", str(target), "--prompt", "?"]
    arguments += ["--method", "grounded"]
    assert export(["--to", "jsonl", *arguments, "--mean", "dataset"]) == 0
    published = read_weights(output, method="grounded", mean="dataset")
    assert f"weights are divided by {published.mean_weight:.6g}, their mean over the dataset" in capsys.readouterr().out
    assert weights_in(target).tolist() == [w for row in published if row.weights is not None for w in row.weights]
    assert export(["--to", "jsonl", *arguments]) == 0
    plain = read_weights(output, method="grounded")
    assert weights_in(target).tolist() == [w for row in plain if row.weights is not None for w in row.weights]
    assert export(["--to", "jsonl", *arguments, "--mean", "sequence"]) == 2
    assert "--mean is sequence with --to jsonl, which writes no tokens of the trainer's" in capsys.readouterr().err


def test_ms_swifts_answers_keep_the_datasets_mean(output: Path, tmp_path: Path) -> None:
    model, target = tmp_path / "model", tmp_path / "file.jsonl"
    BYTE_LEVEL.save_pretrained(model)
    arguments = ["--to", "ms-swift", "--tokenizer", str(model), "--weights", str(output), "--output", str(target)]
    arguments += ["--data", str(output.parent / "data"), "--prompt", "?", "--method", "grounded"]

    def answers(*more: str) -> list[dict[str, Any]]:
        assert export([*arguments, *more]) == 0
        return [json.loads(line)["messages"][-1]["content"] for line in target.read_text().splitlines()]

    by_default = answers()
    assert by_default == answers("--mean", "sequence")
    assert [np.mean(one["loss_scale"]) for one in by_default] == pytest.approx([1] * len(by_default), abs=1e-5)
    aligner = WeightAligner(BYTE_LEVEL)
    for mean in ("none", "dataset"):
        rows = [row for row in read_weights(output, method="grounded", mean=mean) if row.ok]
        found = answers("--mean", mean)
        assert np.ptp([np.mean(one["loss_scale"]) for one in found]) > 0.1
        for one, row in zip(found, rows, strict=True):
            ids = one["token_ids"]
            (expected,) = aligner([ids], [ids], [WeightedText(row, [BYTE_LEVEL.decode(ids)])])
            assert one["loss_scale"] == pytest.approx(expected.tolist())


def test_every_mean_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        export(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"{{{','.join(MEANS)}}}" in said.replace(" ", "")
    assert all(words in said for words in MEANS.values())
    page = (ROOT / "docs" / "training.md").read_text().partition("### A mean of 1")[2].partition("###")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == sorted(MEANS)


def test_other_readers_take_the_numbers_that_were_found(output: Path) -> None:
    method, rows = Method("vig", {"keep": 0.6}), RowSelection(keep=0.5)
    published = read_weights(output, method=method, rows=rows, mean="dataset")
    assert published.mean_weight is not None
    columns = [one for name in published.shards for one in published.load(name).to_pylist()]
    for expected, one in zip(published, columns, strict=True):
        found = WeightRow.from_columns(
            one, published.derive, expected.shard, min_gap=published.min_gap, mean=published.mean_weight
        )
        assert (found.status, found.error) == (expected.status, expected.error)
        if expected.weights is not None:
            assert found.weights is not None and found.weights.tolist() == expected.weights.tolist()
    assert published.statuses()["dropped"] and published.statuses()["ok"]
