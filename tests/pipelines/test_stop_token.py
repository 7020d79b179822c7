"""Stop tokens from a run to a trainer's file, by the packaged model; and outputs that have none."""

from __future__ import annotations

import io
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.cli.inspect import main as inspect
from pipelines.run.engine import CheckpointEngine
from pipelines.sources.shuffled import ShuffledSource
from scorer import ScorerConfig
from scorer.errors import OtherRunError
from scorer.mini import MODEL_PATH
from scorer.training import read_weights
from scorer.training.export.__main__ import main as export
from scorer.weights import Method
from tests.pipelines.helpers import IMAGE, make_job, run
from tests.pipelines.outputs import problems, rewrite, with_value

CAPTIONS = [["A red circle.", "", "two blue hearts"], ["a heart"]]
FILE = "x.parquet"


def engine(stop_token: bool) -> CheckpointEngine:
    return CheckpointEngine(str(MODEL_PATH), ScorerConfig(device="cpu", stop_token=stop_token))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = []
    for color in ("red", "blue"):
        file = io.BytesIO()
        Image.new("RGB", (40, 40), color).save(file, "PNG")
        images.append({"bytes": file.getvalue(), "path": None})
    folder = tmp_path_factory.mktemp("data")
    table = pa.table({"image": pa.array(images, IMAGE), "captions": pa.array(CAPTIONS, pa.list_(pa.string()))})
    pq.write_table(table, folder / FILE)
    return folder


@pytest.fixture(scope="module")
def outputs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """By whether stop tokens are scored."""
    found = {}
    for stop_token in (True, False):
        found[stop_token] = tmp_path_factory.mktemp("out") / "run"
        run(make_job(data, found[stop_token], engine(stop_token)))
    return found


def test_captions_that_are_joined_have_one_each(outputs: dict[bool, Path]) -> None:
    with_stops, without = ({row.row_index: row for row in read_weights(outputs[on])} for on in (True, False))
    assert problems(outputs[True]) == problems(outputs[False]) == []
    for index, texts in enumerate(CAPTIONS):
        scores, plain = with_stops[index].scores, without[index].scores
        assert scores is not None and plain is not None
        stop = scores.is_stop
        assert scores.token_turns[stop].tolist() == [k for k, text in enumerate(texts) if text]
        sizes = [len(text) for text in texts if text]
        assert scores.token_starts[stop].tolist() == scores.token_ends[stop].tolist() == sizes
        assert scores.token_ids[~stop].tobytes() == plain.token_ids.tobytes()
        np.testing.assert_allclose(scores.logit_gap[~stop], plain.logit_gap, atol=1e-5)
        assert not plain.is_stop.any() and "is_stop" not in plain.optional
        weights = with_stops[index].weights
        assert weights is not None
        np.testing.assert_array_equal(weights, Method()(scores))
        vig, of_text = Method("vig-row")(scores), Method("vig-row")(plain)
        np.testing.assert_array_equal(vig[~stop], of_text)
        assert (vig[stop] == 1).all()


def test_it_is_scored_in_every_contrast_of_a_run(data: Path, tmp_path: Path) -> None:
    contrasts = ("shuffled", "blur@0.02", "masked")
    found = {}
    for on in (True, False):
        config = ScorerConfig(device="cpu", stop_token=on, contrast=contrasts[0], further_contrasts=contrasts[1:])
        job = make_job(data, tmp_path / str(on), CheckpointEngine(str(MODEL_PATH), config))
        run(replace(job, source=ShuffledSource(job.source, config.noise_seed, config.max_image_bytes)))
        assert problems(tmp_path / str(on)) == []
        rows = list(read_weights(tmp_path / str(on)))
        assert [row.error for row in rows] == [None] * len(CAPTIONS)
        found[on] = [row.scores for row in rows]
    for scores, plain in zip(found[True], found[False], strict=True):
        assert scores is not None and plain is not None
        stop = scores.is_stop
        assert list(scores.optional) == ["is_stop", *plain.optional]
        assert list(plain.optional) == [
            "logit_gap_blur_0_02",
            "logprob_blur_0_02",
            "logit_gap_masked",
            "logprob_masked",
        ]
        for name in ("logit_gap", "logprob_clean", "logprob_contrast", *plain.optional):
            assert np.isfinite(scores.arrays[name][stop]).all()
            np.testing.assert_allclose(scores.arrays[name][~stop], plain.arrays[name], atol=1e-5)
        seen = [scores.arrays[name][stop] for name in ("logprob_contrast", "logprob_blur_0_02", "logprob_masked")]
        for one, other in itertools.combinations(seen, 2):
            assert (np.abs(one - other) > 1e-5).all()
    for contrast in contrasts:
        for row in read_weights(tmp_path / "True", method="vig-row", contrast=contrast):
            assert row.scores is not None and row.weights is not None
            assert (row.weights[row.scores.is_stop] == 1).all()


DAMAGED: dict[str, tuple[str, Any, str]] = {
    "the last token of the text": (
        "is_stop",
        lambda v: [*v[:-2], True, False],
        "row 1 has a stop token whose span is not empty",
    ),
    "two in a turn": ("token_turns", lambda v: [0] * len(v), "row 0 has a token behind its turn's stop token"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_its_place_is_checked(outputs: dict[bool, Path], tmp_path: Path, damage: str) -> None:
    column, change, expected = DAMAGED[damage]
    copy = tmp_path / "copy"
    shutil.copytree(outputs[True], copy)
    rewrite(copy, FILE, with_value(column, int(expected[4]), change))
    found = problems(copy)
    assert any(expected in problem.message for problem in found), found


@pytest.mark.parametrize("begun_with", [True, False])
def test_a_run_is_not_resumed_with_the_other_setting(data: Path, outputs: dict[bool, Path], begun_with: bool) -> None:
    with pytest.raises(OtherRunError, match=r"fingerprint\.stop_token") as caught:
        run(make_job(data, outputs[begun_with], engine(not begun_with)))
    assert ("give --no-stop-token to go on with it" in str(caught.value)) == (not begun_with)
    run(make_job(data, outputs[begun_with], engine(begun_with)))


def test_what_holds_spans_carries_its_weight_and_axolotl_cannot(
    data: Path, outputs: dict[bool, Path], tmp_path: Path
) -> None:
    written = {}
    for stop_token, output in outputs.items():
        for format in ("jsonl", "axolotl"):
            file = tmp_path / f"{stop_token}.{format}"
            given = ["--weights", str(output), "--data", str(data), "--output", str(file), "--prompt", "Describe."]
            assert export(["--to", format, *given, *(["--threshold", "3"] if format == "axolotl" else [])]) == 0
            written[stop_token, format] = [json.loads(line) for line in file.read_text().splitlines()]
    for one, other in zip(written[True, "jsonl"], written[False, "jsonl"], strict=True):
        own, plain = one["token_weights"], other["token_weights"]
        assert own["is_stop"] == [False] * len(plain["weights"]) + [True]
        assert own["starts"][-1] == own["ends"][-1] == plain["ends"][-1]
        assert "is_stop" not in plain
    for one in written[True, "axolotl"]:
        details = one["messages"][-1]["train_detail"]
        assert all(part["begin_offset"] <= part["end_offset"] for part in details)
        assert details[-1]["end_offset"] == len(one["messages"][-1]["content"]) - 1


def test_both_are_told(outputs: dict[bool, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for stop_token, output in outputs.items():
        assert ("| `is_stop` |" in (output / "README.md").read_text()) == stop_token
        assert inspect([str(output), "--json"]) == 0
        fingerprint = json.loads(capsys.readouterr().out)["run"]["fingerprint"]
        assert fingerprint.get("columns") == (["is_stop"] if stop_token else None)
        assert inspect([str(output), "--sample", "2"]) == 0
        capsys.readouterr()
