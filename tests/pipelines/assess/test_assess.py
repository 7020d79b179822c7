"""``tokensight assess``: the grade of real data, and of data that must not be trusted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForImageTextToText

from pipelines.assess.rows import choose_rows
from pipelines.cli.assess import UNUSABLE, main
from pipelines.cli.options import parse_options
from pipelines.cli.source_options import make_source
from pipelines.sources import Source
from scorer.mini import MODEL_PATH, SAMPLE_PATH

Change = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


def dataset(folder: Path, change: Change, rows: int = 240) -> Path:
    """The packaged sample without its planted failures, changed."""
    tables = [pq.read_table(path) for path in sorted(SAMPLE_PATH.glob("*.parquet"))]
    sample = [
        {name: row[name] for name in ("id", "image", "caption")}
        for table in tables
        for row in table.to_pylist()
        if row["planted"] is None
    ]
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(change(sample[:rows]), schema=_SCHEMA), folder / "train.parquet")
    return folder


_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("caption", pa.string()),
    ]
)


def assessed(data: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    status = main(["--input", str(data), "--json", "--no-html", *more])
    return status, json.loads(capsys.readouterr().out)


def test_the_packaged_model_is_good_on_its_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--input", str(SAMPLE_PATH)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("verdict: good;")
    assert "assessment.html: page written" in captured.err
    page = (tmp_path / "assessment.html").read_text(encoding="utf-8")
    assert '<section class="verdict" data-grade="good">' in page
    assert "own image against another row" in page


def test_images_of_other_rows_are_unusable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def shuffled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row | {"image": rows[i - 97]["image"]} for i, row in enumerate(rows)]

    status, found = assessed(dataset(tmp_path / "data", shuffled), capsys)
    assert (status, found["verdict"]) == (UNUSABLE, "unusable")
    assert "own_image" in [reason["measure"] for reason in found["reasons"] if reason["grade"] == "unusable"]


_CHARACTERS = "一个红色的大圆形在左上角三只蓝星星下面有绿方块灰背景图片里可以看见"
_LETTERS = "هذه صورة فيها ثلاث دوائر حمراء كبيرة في الأعلى ونجمة زرقاء"


@pytest.mark.parametrize("language", ["Chinese", "Arabic"])
def test_a_language_that_the_model_cannot_read_is_unusable(
    language: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def translated(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        arabic = _LETTERS.split()
        texts = [
            "".join(_CHARACTERS[(7 * i + k * k) % len(_CHARACTERS)] for k in range(12))
            if language == "Chinese"
            else " ".join(arabic[(5 * i + k * k) % len(arabic)] for k in range(6))
            for i in range(len(rows))
        ]
        return [row | {"caption": text} for row, text in zip(rows, texts, strict=True)]

    status, found = assessed(dataset(tmp_path / "data", translated, 60), capsys)
    assert (status, found["verdict"]) == (UNUSABLE, "unusable")
    assert {"bits_per_byte", "pieces"} <= {one["measure"] for one in found["reasons"] if one["grade"] == "unusable"}


def test_a_random_model_is_unusable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(MODEL_PATH, tmp_path / "model")
    torch.manual_seed(0)
    config = AutoModelForImageTextToText.from_pretrained(MODEL_PATH).config
    AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path / "model")
    data = dataset(tmp_path / "data", lambda rows: rows, 100)
    status, found = assessed(data, capsys, "--model", str(tmp_path / "model"))
    assert (status, found["verdict"]) == (UNUSABLE, "unusable")


def test_a_row_that_fails_costs_only_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def spoilt(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row | ({"caption": None} if i % 3 == 0 else {}) for i, row in enumerate(rows)]

    status, found = assessed(dataset(tmp_path / "data", spoilt, 30), capsys)
    assert status == 0
    assert (found["rows"], found["failures"]) == (30, {"text_missing": 10})
    assert "failed" in [reason["measure"] for reason in found["reasons"]]


def test_an_empty_dataset_is_doubtful(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = assessed(dataset(tmp_path / "data", lambda rows: rows, 0), capsys)
    assert (status, found["verdict"], found["rows"]) == (0, "doubtful", 0)
    assert found["own_image"]["auroc"]["value"] is None


@pytest.mark.parametrize("rows", ["0", "1", "-3"])
def test_too_few_rows_are_refused(rows: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--input", str(SAMPLE_PATH), "--rows", rows]) == 2
    assert f"--rows is {rows}; it must be 2 or more" in capsys.readouterr().err


def source(data: Path) -> Source:
    options = parse_options(["--input", str(data), "--output", str(data) + "-out"])
    from pipelines.cli.options import make_config

    return make_source(options, make_config(options))


def test_rows_come_from_all_over_the_dataset() -> None:
    chosen = choose_rows(source(SAMPLE_PATH), 24)
    assert chosen.rows == 240
    places = [int(sample.sample_id.removeprefix("scene-")) for sample in chosen.samples]
    assert len(places) == 24
    assert places == sorted(set(places))
    assert min(places) < 20
    assert max(places) > 150


@pytest.mark.parametrize("count", [2, 7, 239, 240, 1000])
def test_as_many_rows_are_read_as_asked_for(count: int) -> None:
    chosen = choose_rows(source(SAMPLE_PATH), count)
    assert len(chosen.samples) + sum(chosen.unread.values()) == min(count, 240)
