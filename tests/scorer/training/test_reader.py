"""Published outputs are read back as they were scored; everything else is refused."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from scorer.errors import ConfigError, FailureCode, TableError
from scorer.results import Failure, Result, TokenScores
from scorer.table import SCHEMA, SCORE_FIELDS, build_table, schema_with, text_hash
from scorer.training.reader import read_weights
from scorer.weights import Method, RawScores
from tests.scorer.test_weights import scores_of

TEXTS = ["a red kite", "two boats"]


def scored(sample_id: str, gap: list[float]) -> TokenScores:
    return dataclasses.replace(scores_of(gap), sample_id=sample_id, text_hash=text_hash(TEXTS))


SHARDS: dict[str, list[Result]] = {
    "train-1.parquet": [
        scored("a", [1, 2, 3]),
        Failure("b", FailureCode.IMAGE_MISSING, "no such file: b.jpg"),
        scored("c", [9]),
    ],
    "more/train-0.parquet": [scored("d", [4, 4])],
}


def publish(output: Path, shards: Mapping[str, list[Result]] = SHARDS, *, finished: bool = True) -> Path:
    """An output as the pipeline leaves it."""
    for name, results in shards.items():
        path = output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(build_table(results, 0, Method(), {"contrast": "blank"}), path)
    for hidden in ("_units/u.1.parquet", "_commits/u.json", "_run.json", ".tmp-x.parquet"):
        path = output / hidden
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not a table")
    if finished:
        names = [{"name": name, "rows": len(results)} for name, results in shards.items()]
        (output / "_SUCCESS").write_text(json.dumps({"rows": 4, "shards": names}))
    return output


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return publish(tmp_path / "out")


def test_rows_come_back_in_the_runs_order(output: Path) -> None:
    published = read_weights(output)
    assert published.shards == tuple(SHARDS)
    assert published.summary["rows"] == 4
    rows = list(published)
    assert [(row.shard, row.row_index, row.sample_id, row.ok) for row in rows] == [
        ("train-1.parquet", 0, "a", True),
        ("train-1.parquet", 1, "b", False),
        ("train-1.parquet", 2, "c", True),
        ("more/train-0.parquet", 0, "d", True),
    ]
    for row, result in zip(rows, [r for shard in SHARDS.values() for r in shard], strict=True):
        if isinstance(result, Failure):
            assert (row.status, row.error) == ("image_missing", "no such file: b.jpg")
            assert row.scores is None
            assert row.weights is None
            continue
        assert row.scores is not None
        assert row.weights is not None
        assert row.scores.text_hash == result.text_hash
        for field in SCORE_FIELDS:
            got, wanted = getattr(row.scores, field.name), getattr(result, field.name)
            assert got.dtype == wanted.dtype
            assert_array_equal(got, wanted)
        assert_array_equal(row.weights, Method()(result))
        assert row.weights.dtype == np.float32
        assert row.weights.flags.writeable  # torch.from_numpy warns about memory that is not


def test_one_shard(output: Path) -> None:
    published = read_weights(output)
    assert [row.sample_id for row in published.shard("more/train-0.parquet")] == ["d"]
    with pytest.raises(TableError, match=r"has no shard 'x\.parquet'; it has train-1\.parquet, more/train-0\.parquet"):
        next(published.shard("x.parquet"))


@pytest.mark.parametrize(
    ("part", "ids"),
    [("train-1.parquet", ["a", "b", "c"]), ("more/train-0.parquet", ["d"]), ("more", ["d"])],
)
def test_a_part_of_a_finished_output(output: Path, part: str, ids: list[str]) -> None:
    published = read_weights(output / part)
    assert published.root == str(output)
    assert [row.sample_id for row in published] == ids


def test_a_folder_is_not_its_names_beginning(tmp_path: Path) -> None:
    output = publish(tmp_path / "out", {"a/x.parquet": [scored("1", [1])], "ab.parquet": [scored("2", [1])]})
    assert [row.sample_id for row in read_weights(output / "a")] == ["1"]


def test_any_fsspec_url(output: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(output), "/reader-test", recursive=True)
    try:
        published = read_weights("memory://reader-test")
        assert [row.sample_id for row in published] == ["a", "b", "c", "d"]
        assert [row.sample_id for row in read_weights("memory://reader-test/more")] == ["d"]
    finally:
        memory.rm("/reader-test", recursive=True)


def test_more_rows_than_one_batch(tmp_path: Path) -> None:
    many: list[Result] = [
        Failure(str(i), FailureCode.IMAGE_MISSING, "") if i % 3 else scored(str(i), [1.0] * (i % 7 + 1))
        for i in range(2500)
    ]
    rows = list(read_weights(publish(tmp_path / "out", {"x.parquet": many})))
    assert [row.sample_id for row in rows] == [str(i) for i in range(2500)]
    assert [0 if row.weights is None else len(row.weights) for row in rows] == [
        0 if i % 3 else i % 7 + 1 for i in range(2500)
    ]


def halved(scores: RawScores) -> Any:
    return scores.logit_gap / 2


@pytest.mark.parametrize("method", ["prior", Method("cal", {"high": 2}), halved])
def test_weights_are_derived_at_read_time(output: Path, method: Any) -> None:
    derive = Method(method) if isinstance(method, str) else method
    for row in read_weights(output, method=method):
        if row.ok:
            assert row.weights is not None
            assert_array_equal(row.weights, derive(row.scores))


def test_a_wrong_method_is_refused(output: Path) -> None:
    with pytest.raises(ConfigError, match="unknown weighting method 'calm'"):
        read_weights(output, method="calm")
    with pytest.raises(
        TableError, match=r"row 0 of train-1\.parquet: the method returned weights of shape \(1,\) for 3"
    ):
        list(read_weights(output, method=lambda scores: scores.logit_gap[:1]))


def test_a_changed_caption_is_refused(output: Path) -> None:
    first, failed, *_ = read_weights(output)
    first.check_text(TEXTS)
    for changed in (["a red kite ", "two boats"], ["a red kitetwo boats"], ["a red ", "kitetwo boats"], []):
        with pytest.raises(TableError, match=r"row 0 of train-1\.parquet \(sample 'a'\): the text .* has hash"):
            first.check_text(changed)
    with pytest.raises(TableError, match=r"sample 'b'\) was not scored: image_missing \(no such file"):
        failed.check_text(TEXTS)


def test_an_unfinished_output_is_refused_unless_allowed(tmp_path: Path) -> None:
    output = publish(tmp_path / "out", finished=False)
    with pytest.raises(TableError, match=r"does not belong to a finished run: no _SUCCESS .*allow_unfinished=True"):
        read_weights(output)
    published = read_weights(output, allow_unfinished=True)
    assert published.shards == ("more/train-0.parquet", "train-1.parquet")  # and nothing with an underscore or a dot
    assert len(list(published)) == 4
    assert len(list(read_weights(output / "train-1.parquet", allow_unfinished=True))) == 3


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"shards": [{"name": "other.parquet", "rows": 1}]}'])
def test_another_programs_success_above_is_not_ours(tmp_path: Path, content: str) -> None:
    (tmp_path / "_SUCCESS").write_text(content)  # Spark leaves an empty one
    output = publish(tmp_path / "out", finished=False)
    with pytest.raises(TableError, match="does not belong to a finished run"):
        read_weights(output)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"there is nothing at .*absent; give the output"):
        read_weights(tmp_path / "absent")
    with pytest.raises(TableError, match="holds no published shard"):
        read_weights(tmp_path, allow_unfinished=True)


def replace_rows(path: Path) -> None:
    pq.write_table(build_table(SHARDS["more/train-0.parquet"], 0, Method(), {}), path)


def drop_columns(path: Path) -> None:
    pq.write_table(pq.read_table(path).drop_columns(["logit_gap", "status"]), path)


def raise_version(path: Path) -> None:
    schema = schema_with({"format_version": 99})
    pq.write_table(pq.read_table(path).replace_schema_metadata(schema.metadata), path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (replace_rows, "has 1 rows, but the run published 3; it was replaced"),
        (drop_columns, "has no columns logit_gap, status; it has sample_id, row_index"),
        (raise_version, "has format version 99; this release reads version 1"),
        (Path.unlink, "is gone, though the run published it"),
        (lambda path: path.write_bytes(b"PAR1 cut short"), "is not a readable Parquet file"),
    ],
)
def test_a_damaged_shard_is_refused(output: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(output / "train-1.parquet")
    published = read_weights(output)
    assert [row.sample_id for row in published.shard("more/train-0.parquet")] == ["d"]  # the others go on
    with pytest.raises(TableError, match=message):
        list(published.shard("train-1.parquet"))


def test_merged_layout_and_tables_rewritten_by_others(output: Path) -> None:
    """More columns, other orders and wider list types do not matter."""
    path = output / "train-1.parquet"
    table = pq.read_table(path)
    wide = pa.schema([f.with_type(pa.large_list(f.type.value_type)) if pa.types.is_list(f.type) else f for f in SCHEMA])
    table = table.cast(wide).select(SCHEMA.names[::-1]).append_column("caption", pa.array(["x"] * 3))
    pq.write_table(table, path)
    assert [row.sample_id for row in read_weights(output)] == ["a", "b", "c", "d"]


BLOCKED = """
import sys
for name in ("torch", "transformers", "tokenizers", "ray", "fastapi", "PIL", "pipelines", "service"):
    sys.modules[name] = None  # importing it raises
from scorer.training import read_weights
from scorer.spans import project
rows = list(read_weights(sys.argv[1], method="prior"))
row = rows[0]
carried = project(row.weights, row.scores.token_starts, row.scores.token_ends, [0], [3])
from scorer.training import WeightAligner, WeightedCollator, WeightTable, WeightedText
table = WeightTable.open(sys.argv[1], method="vig-row")
assert table.find("c").weights.tolist() == [1.0] == table.row("train-1.parquet", 2).weights.tolist()
print(len(rows), row.weights.sum(), carried)
"""


def test_reading_needs_neither_torch_nor_ray_nor_a_model(output: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", BLOCKED, str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.split()[:2] == ["4", "3.0"]
