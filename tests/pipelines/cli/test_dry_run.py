"""``--dry-run`` tells what a run would do, and does nothing of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipelines.cli import options, score
from pipelines.cli.dry_run import estimates, marked
from pipelines.output.store.local import LocalStore
from pipelines.run.engine import CheckpointEngine
from pipelines.run.estimate import WINDOW_ROWS, WINDOWS, Calibration, sample_rows
from pipelines.run.job import prepare
from scorer.mini import SAMPLE_PATH
from scorer.types import Branch, EncodedSample
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import make_job, run, snapshot, write_dataset


@pytest.fixture
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "CheckpointEngine", lambda *_: FakeEngine())


@pytest.fixture
def no_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a dry run must not write")

    for name in ("put", "create", "staged"):
        monkeypatch.setattr(LocalStore, name, refuse)


def command(dataset: Path, output: Path, *more: str) -> list[str]:
    return ["--input", str(dataset), "--output", str(output), "--rows-per-unit", "5", "--dry-run", *more]


@pytest.mark.usefixtures("fake_model", "no_writes")
def test_a_plan_is_shown_and_nothing_is_written(
    dataset: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(dataset.parent)
    assert score.main(command(dataset, output)) == 0
    assert snapshot(dataset.parent) == before
    assert not output.exists()
    said = capsys.readouterr().out
    for expected in (
        "3 shards, 38 rows",
        "image: image, text: caption, id: id",
        "no rows scored yet",
        "8 of up to 5 rows",
        "4 of 38 sampled rows would fail",
        "a.parquet row 3: image_unreadable, the image does not decode",
        "about 4 (4 of 38)",
    ):
        assert expected in said
    assert re.search(r"a\.parquet row 0 \(a\.parquet0\): 4 of 5 tokens scored\n    <0>⟦(<\d+>){4}⟧", said)


@pytest.mark.usefixtures("fake_model")
def test_what_is_scored_is_left_out(dataset: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ready = prepare(make_job(dataset, output))
    for unit in ready.pending[:2]:
        ready.work.run(unit, FakeEngine().encoder(), FakeEngine().scorer())
    assert score.main(command(dataset, output)) == 0
    said = capsys.readouterr().out
    assert "10 rows scored, 28 left" in said
    assert "what 28 rows would cost" in said
    run(make_job(dataset, output))
    before = snapshot(output)
    assert score.main(command(dataset, output)) == 0
    assert "every row has already been scored" in capsys.readouterr().out
    assert snapshot(output) == before


@pytest.mark.usefixtures("fake_model")
def test_another_runs_output_is_refused_as_in_earnest(
    dataset: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(make_job(dataset, output))
    assert score.main(command(dataset, output, "--method", "prior")) == 2
    assert '"cal" → "prior"' in capsys.readouterr().err
    assert score.main(command(dataset, output, "--method", "prior", "--force-new-run")) == 0
    assert f"nothing is written to {output}-2" in capsys.readouterr().out
    assert not Path(f"{output}-2").exists()


def test_the_packaged_model_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score.main(["--input", str(SAMPLE_PATH), "--output", str(tmp_path / "out"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert "<|im_start|>user↵<image>×64 ↵Describe the image.<|im_end|>" in said
    bracketed = re.search(r"⟦[A-Z][^⟦⟧]* [^⟦⟧]*\.<\|im_end\|>⟧", said)
    assert bracketed, "the caption and its stop token, and nothing of the prompt, are in brackets"
    (flops,) = re.findall(r"^FLOPs +(\S+) \((\S+) a row\)", said, re.MULTILINE)
    assert 1e8 < float(flops[1]) < 1e10
    assert float(flops[0]) == pytest.approx(240 * float(flops[1]), rel=0.01)


@pytest.mark.parametrize("rows_per_unit", [1, 5, 83, 1000])
def test_rows_are_sampled_all_over_the_dataset_and_once(tmp_path: Path, rows_per_unit: int) -> None:
    data = write_dataset(tmp_path / "data", {"a.parquet": 1000})
    ready = prepare(make_job(data, tmp_path / "out", rows_per_unit=rows_per_unit), write=False)
    rows, seconds = sample_rows(ready.work.source, ready.pending, FakeEngine())
    places = [row.row_index for row in rows]
    assert places == sorted(set(places))
    assert len(places) == WINDOWS * min(WINDOW_ROWS, rows_per_unit)
    assert places[0] == 0
    assert max(b - a for a, b in pairwise([*places, 1000])) <= 1000 / WINDOWS + WINDOW_ROWS + 1
    assert seconds > 0


def test_tokens_are_spelled_by_stretches_and_repeats_once() -> None:
    def spell(ids: Sequence[int]) -> str:
        return bytes(ids).decode()

    ids = np.array([*b"a", *b"#####", *"é".encode(), *b"xy", *b"zz", *b"!"], dtype=np.int64)
    branch = Branch(ids, np.ones(len(ids), bool), np.array([8, 9, 12]), {}, b"")
    none = np.zeros(3, np.int32)
    row = EncodedSample("", none, none, none, none.astype(np.int16), "", branch, branch)
    assert marked(row, spell) == "a#×5 é⟦xy⟧zz⟦!⟧"


def test_estimates_say_what_is_assumed() -> None:
    measured = Calibration(100, 2, 30.0, 400.0, 0.01, 0.5, 2e12)
    cpu = dict(estimates(measured, 3600, "cpu"))
    assert cpu["GPU-hours"].startswith("0.02 at 100 TFLOP/s (assumed")
    assert cpu["rows failed"] == "about 72 (2 of 100)"
    assert cpu["FLOPs"] == "7.2e+15 (2e+12 a row)"
    assert cpu["scoring"] == "30:00 of one device like this machine's (cpu: 2 rows/s)"
    assert cpu["balance"].startswith("0.02 CPU cores")
    gpu = dict(estimates(measured, 7200, "NVIDIA H100"))
    assert gpu["GPU-hours"] == "1 (measured)"
    none = dict(estimates(Calibration(5, 5, 0, 0, 0.01, None, None), 100, "cpu"))
    assert none["scoring"] == "none of the sampled rows can be scored"
    assert "GPU-hours" not in none


def test_a_models_own_device_is_told() -> None:
    from scorer.config import ScorerConfig

    assert CheckpointEngine("m", ScorerConfig(device="cpu")).device() == "cpu"
