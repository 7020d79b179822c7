"""A run with several contrasts, through the command: columns, reader, checks, what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr

from pipelines.cli import inspect, score
from scorer.display.levels import signed
from scorer.errors import ConfigError, TableError
from scorer.mini import SAMPLE_PATH
from scorer.training import RowSelection, read_weights
from scorer.training.export import __main__ as export
from scorer.weighting.dataset_gaps import Histogram
from scorer.weights import Method
from tests.pipelines.report.html_page import Page

COLUMNS = ["logit_gap_masked", "logprob_masked", "logit_gap_blur", "logprob_blur"]


def run(output: Path, contrasts: str) -> Path:
    argv = ["--input", str(SAMPLE_PATH), "--output", str(output), "--contrast", contrasts, "--executor", "local"]
    assert score.main([*argv, "--dtype", "float32", "--device", "cpu", "--max-failed-rows", "2%"]) == 0
    return output


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("together") / "out", "blank,masked,blur")


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("masked") / "out", "masked")


def tables(output: Path) -> list[Path]:
    return sorted(output.glob("*.parquet"))


def test_each_further_contrast_has_its_columns(together: Path) -> None:
    for path in tables(together):
        names = pq.read_schema(path).names
        assert [name for name in names if name in COLUMNS] == COLUMNS
        assert names.index("logprob_blur") < names.index("token_weights")
    assert inspect.main([str(together)]) == 0


def test_each_contrast_has_its_gaps(together: Path, masked: Path) -> None:
    published = read_weights(together)
    assert set(published.summary["gaps"]) == {"blank", "masked", "blur"}
    for contrast in ("blank", "masked", "blur"):
        rows = [row.scores for row in published if row.ok and row.scores is not None]
        rows = rows if contrast == "blank" else [row.with_contrast(contrast) for row in rows]
        gaps = [row.logprob_clean.astype(np.float64) - row.logprob_contrast for row in rows]
        assert published.gaps(contrast).tokens == Histogram.of(np.concatenate(gaps))
    assert published.gaps("masked").rows.total == read_weights(masked).gaps().rows.total
    assert published.gaps("masked") != published.gaps("blur")


def test_each_contrast_has_its_mean_and_its_rows(together: Path) -> None:
    """The recorded mean is the first contrast's; rows are kept by the gap with the contrast that is read."""
    first = read_weights(together, method="cal", mean="dataset")
    for method in ("cal", "grounded"):
        published = read_weights(together, method=method, contrast="masked", mean="dataset")
        weights = [row.weights for row in published if row.weights is not None and not row.text_only]
        assert np.concatenate(weights).mean(dtype=np.float64) == pytest.approx(1, abs=1e-6)
        assert published.mean_weight != first.mean_weight
    half = RowSelection(keep=0.5)
    by_blank, by_blur = (read_weights(together, method="cal", contrast=one, rows=half) for one in ("blank", "blur"))
    assert by_blur.min_gap == read_weights(together).gaps("blur").rows.top(0.5)[0] != by_blank.min_gap
    kept = [[row.sample_id for row in one if row.status == "ok"] for one in (by_blank, by_blur)]
    assert kept[0] != kept[1] and abs(len(kept[0]) - len(kept[1])) < 10


def test_an_export_derives_weights_from_any_contrast(together: Path, tmp_path: Path) -> None:
    def weights(*options: str) -> dict[str, list[float]]:
        file = tmp_path / "train.jsonl"
        argv = ["--to", "jsonl", "--weights", str(together), "--data", str(SAMPLE_PATH), "--output", str(file)]
        assert export.main([*argv, *options]) == 0
        records = map(json.loads, file.read_text().splitlines())
        return {record["id"]: record["token_weights"]["weights"] for record in records}

    first, masked = weights("--method", "cal"), weights("--method", "cal", "--contrast", "masked")
    table = read_weights(together, method="cal", contrast="masked")
    assert first.keys() == masked.keys() and first != masked
    for row in table:
        if row.sample_id in masked:
            np.testing.assert_array_equal(np.float32(masked[row.sample_id]), row.weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--contrast", "masked"], "the contrast 'masked' is given without a method"),
        (
            ["--method", "cal", "--contrast", "noise"],
            "the contrast 'noise'; it has blank, masked, blur",
        ),
    ],
)
def test_an_export_refuses_a_contrast_that_it_cannot_use(
    together: Path, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [
        "--to",
        "jsonl",
        "--weights",
        str(together),
        "--data",
        str(SAMPLE_PATH),
        "--output",
        str(tmp_path / "x.jsonl"),
    ]
    assert export.main([*argv, *options]) == 2
    assert message in capsys.readouterr().err


def test_the_report_compares_contrasts(together: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    assert inspect.main([str(together), "--html", str(file)]) == 0
    page = Page(file)
    table = next(one for one in page.root.all("table") if "agreement" in one.text)
    rows = [[cell.text.strip() for cell in (*row.all("th"), *row.all("td"))] for row in table.all("tr")[1:]]
    assert [row[0].split()[0] for row in rows] == ["blank", "masked", "blur"]
    scored = [row.scores for row in read_weights(together) if row.scores is not None and not row.text_only]
    for row, name in zip(rows[1:], ("masked", "blur"), strict=True):
        gaps = np.concatenate([one.with_contrast(name).logprob_gap for one in scored])
        assert row[1] == signed(float(gaps.mean(dtype=np.float64)))
        expected = spearmanr(np.concatenate([one.logprob_gap for one in scored]), gaps).statistic
        assert row[4] == signed(float(expected))
        assert float(expected) < 0.99
        assert row[5] and row[6]
    assert rows[0][4] == "–"
    headers = [cell.text for cell in page.root.all("th")]
    assert {"gap, masked", "gap, blur"} <= set(headers)


def test_a_further_contrast_is_what_it_is_alone(together: Path, masked: Path) -> None:
    pairs = list(zip(read_weights(together), read_weights(masked), strict=True))
    differs = 0.0
    for ours, alone in pairs:
        assert ours.status == alone.status
        if ours.scores is None or alone.scores is None or ours.text_only:
            continue
        assert np.array_equal(ours.scores.token_ids, alone.scores.token_ids)
        gap = ours.scores.optional["logit_gap_masked"]
        np.testing.assert_allclose(gap, alone.scores.logit_gap, atol=1e-4)
        differs = max(differs, float(np.abs(ours.scores.logit_gap - alone.scores.logit_gap).max()))
    assert differs > 0.1  # the first contrast's gap would be seen in its place


def test_a_reader_derives_weights_from_the_contrast_that_it_names(together: Path, masked: Path) -> None:
    alone = list(read_weights(masked, method="cal"))
    ours = list(read_weights(together, method="cal", contrast="masked"))
    first = list(read_weights(together, method="cal", contrast="blank"))
    stored = list(read_weights(together))
    for one, other, plain, kept in zip(ours, alone, first, stored, strict=True):
        if one.weights is None or other.weights is None:
            assert one.status == other.status
            continue
        np.testing.assert_allclose(one.weights, other.weights, atol=1e-4)
        np.testing.assert_array_equal(plain.weights, kept.weights)
    assert any(
        a.weights is not None and b.weights is not None and np.abs(a.weights - b.weights).max() > 0.1
        for a, b in zip(ours, first, strict=True)
    )


def test_a_contrast_that_the_run_lacks_is_refused_with_the_choices(together: Path) -> None:
    with pytest.raises(TableError, match="no scores for the contrast 'noise'; it has blank, masked, blur"):
        list(read_weights(together, method="cal", contrast="noise"))
    with pytest.raises(ConfigError, match="'masked' is given without a method"):
        read_weights(together, contrast="masked")
    (row,) = [row for row in list(read_weights(together))[:1] if row.scores is not None]
    with pytest.raises(TableError, match="no scores for the further contrast 'noise'; it has masked, blur"):
        Method("cal")(row.scores.with_contrast("noise"))


def test_what_people_see_names_them_all(together: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(together)]) == 0
    assert "contrasts blank, masked, blur; float32" in capsys.readouterr().out
    card = (together / "README.md").read_text()
    assert "| further contrast | `masked`" in card
    assert "| `logit_gap_blur` |" in card


def test_one_given_twice_or_unknown_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--input", str(SAMPLE_PATH), "--output", str(tmp_path / "out"), "--contrast"]
    assert score.main([*argv, "blank,blank"]) == 2
    assert "'blank' is given twice" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        score.main([*argv, "blank,fog"])
    assert "'fog' is not one of blank, masked" in capsys.readouterr().err
