"""Rows know their partners, however they are read: the same in any unit, block, process and order."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.cli import score
from pipelines.cli.options import build_parser, make_job
from pipelines.output.plan import Unit, plan
from pipelines.run import encoding
from pipelines.run.captions import EncodedCaptions
from pipelines.run.encoding import EncodedUnit
from pipelines.run.job import prepare
from pipelines.sources import Captions, ReadRow, Shard, shuffled
from pipelines.sources.parquet import ParquetSource
from pipelines.sources.shuffled import ShuffledSource
from scorer import Sample, Scorer, ScorerConfig, TokenScores
from scorer.encoding.encoder import Encoder
from scorer.mini import MODEL_PATH
from scorer.partners import group_of
from scorer.results import Failure
from scorer.types import EncodedSample
from tests.pipelines.helpers import IMAGE
from tests.pipelines.sources.helpers import source, tar_bytes
from tests.scorer.test_contrast_images import photo

ROWS = 150
TEXT = "A red kite over two boats."
Partners = tuple[tuple[Any, ...], ...]


def png(number: int) -> bytes:
    with io.BytesIO() as file:
        photo((30, 20), number).save(file, "PNG")
        return file.getvalue()


def dataset(folder: Path, kind: str, rows: int = ROWS) -> Path:
    """Two captions an image; row 7's image is broken, row 9 has none."""
    images = [b"broken" if i == 7 else None if i == 9 else png(i // 2) for i in range(rows)]
    folder.mkdir()
    if kind == "parquet":
        cells = [{"bytes": data, "path": None} for data in images]
        table = pa.table({"image": pa.array(cells, IMAGE), "caption": [f"{TEXT} {i}" for i in range(rows)]})
        pq.write_table(table, folder / "x.parquet", row_group_size=11)
    elif kind == "jsonl":
        lines = []
        for i, data in enumerate(images):
            if data is not None:
                (folder / f"{i}.png").write_bytes(data)
            lines.append(json.dumps({"image": None if data is None else f"{i}.png", "caption": f"{TEXT} {i}"}))
        (folder / "x.jsonl").write_text("\n".join(lines))
    else:
        members = []
        for i, data in enumerate(images):
            members += [] if data is None else [(f"{i:03d}.png", data)]
            members.append((f"{i:03d}.txt", f"{TEXT} {i}".encode()))
        (folder / "x.tar").write_bytes(tar_bytes(members))
    return folder


def open_shuffled(folder: Path, seed: int = 0) -> tuple[ShuffledSource, Shard]:
    made = ShuffledSource(source(folder), seed, 10**7)
    (shard,) = made.shards()
    return made, shard


def partners(rows: Sequence[ReadRow]) -> list[Partners]:
    return [() if isinstance(row, Failure) else row.partners for row in rows]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "tar"])
def test_partners_do_not_depend_on_how_rows_are_read(tmp_path: Path, kind: str) -> None:
    made, shard = open_shuffled(dataset(tmp_path / "data", kind))
    whole = partners(made.read(shard, 0, ROWS))
    assert sum(map(bool, whole)) >= ROWS - 2
    for rows in (1, 7, 64):
        for planned in plan([shard], rows)[0].units[:: 1 if rows > 1 else 13]:
            sent, unit = pickle.loads(pickle.dumps((made, planned)))
            middle = (unit.start + unit.stop) // 2
            for start, stop in ((middle, unit.stop), (unit.start, middle)):  # as chunks, in any order
                read = sent.read(unit.shard.part(start, stop), start, stop)
                assert partners(read) == whole[start:stop]


def test_a_partner_is_of_the_same_group_and_has_another_image(tmp_path: Path) -> None:
    made, shard = open_shuffled(dataset(tmp_path / "data", "parquet"))
    rows = made.read(shard, 0, ROWS)
    for i, row in enumerate(rows):
        if i in (7, 9):
            continue
        assert isinstance(row, Sample)
        group = group_of(i, ROWS)
        near = {one.images for k in group if isinstance(one := rows[k], Sample) and one.images}
        assert set(row.partners) == near - {row.images}
        if i % 2 and i - 1 not in (7, 9):
            assert row.partners == rows[i - 1].partners, "captions of one image share their partner"  # type: ignore[union-attr]


def test_another_seed_gives_other_partners(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data", "parquet")
    (one, shard), (other, _) = open_shuffled(folder), open_shuffled(folder, seed=1)
    first = [[row[:1] for row in partners(made.read(shard, 0, ROWS))] for made in (one, other)]
    assert sum(a == b for a, b in zip(*first, strict=True)) < ROWS / 4


def test_a_group_is_read_once_and_few_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, shard = open_shuffled(dataset(tmp_path / "data", "parquet"))
    asked: list[tuple[int, int]] = []
    read = ParquetSource.read

    def spy(self: ParquetSource, shard: Shard, start: int, stop: int) -> list[ReadRow]:
        asked.append((start, stop))
        return read(self, shard, start, stop)

    monkeypatch.setattr(ParquetSource, "read", spy)
    for start in range(ROWS):
        made.read(shard, start, start + 1)
    assert asked == [(0, 64), (64, 150)]
    made._groups.clear()
    monkeypatch.setattr(shuffled, "_KEPT", 1)
    for start in (149, 0, 149):
        made.read(shard, start, start + 1)
    assert len(made._groups) == 1


def test_rows_that_must_not_be_touched_are_nobodys_partner(tmp_path: Path) -> None:
    made, shard = open_shuffled(dataset(tmp_path / "data", "parquet"))
    without = made.without(shard, [20, 21])
    deadly = made.read(shard, 20, 21)[0].images  # type: ignore[union-attr]
    assert any(deadly in one for one in partners(made.read(shard, 0, 64)))
    assert not any(deadly in one for one in partners(without.read(shard, 0, 64)))


def test_a_unit_with_known_failures_does_not_touch_their_images(tmp_path: Path) -> None:
    """In isolation: the failures of rows on which a process died are known, and their images would kill the next."""
    argv = ["--input", str(dataset(tmp_path / "data", "parquet")), "--output", str(tmp_path / "out")]
    job = make_job(build_parser().parse_args([*argv, "--contrast", "shuffled"]))
    work = prepare(job).work
    (shard,) = job.source.shards()
    unit = Unit("u", shard, 16, 24)
    seen: list[Partners] = []

    class Spy:
        def try_encode(self, sample: Sample) -> Failure:
            seen.append(sample.partners)
            return Failure(sample.sample_id, "text_missing", "")  # type: ignore[arg-type]

    deadly = job.source.read(shard, 20, 21)[0].images  # type: ignore[union-attr]
    for known, touched in (({}, True), ({k: Failure(str(k), "worker_crash", "") for k in (20, 21)}, False)):  # type: ignore[arg-type]
        seen.clear()
        assert len(list(work.encode(unit, Spy(), known))) == 8
        assert any(deadly in one for one in seen) is touched


def test_several_captions_of_a_row_share_a_partner(tmp_path: Path) -> None:
    table = pa.table(
        {
            "image": pa.array([{"bytes": png(i), "path": None} for i in range(3)], IMAGE),
            "caption": pa.array([[TEXT, "", "A boat."]] * 3, pa.list_(pa.string())),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    made, shard = open_shuffled(tmp_path)
    rows = made.read(shard, 0, 3)
    assert all(isinstance(row, Captions) and len(row.partners) == 2 for row in rows)
    encoder = Encoder.load(MODEL_PATH, ScorerConfig(contrast="shuffled"))
    for row in EncodedUnit(made, Unit("u", shard, 0, 3), encoder):
        assert isinstance(row, EncodedCaptions)
        (_, first), (_, second) = row.parts
        assert first.contrast.pixels["pixel_values"] is second.contrast.pixels["pixel_values"]
        assert first.contrast.pixels_digest != first.clean.pixels_digest


@pytest.mark.parametrize("read_rows", [1, 5, 64])
def test_encoded_rows_do_not_depend_on_blocks(tmp_path: Path, read_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made, shard = open_shuffled(dataset(tmp_path / "data", "parquet", 20))
    encoder = Encoder.load(MODEL_PATH, ScorerConfig(contrast="shuffled"))
    expected = [encoder.try_encode(row) for row in made.read(shard, 0, 20)]  # type: ignore[arg-type]
    monkeypatch.setattr(encoding, "READ_ROWS", read_rows)
    monkeypatch.setattr(encoding, "BLOCK_BYTES", 10_000)
    for ours, theirs in zip(EncodedUnit(made, Unit("u", shard, 0, 20), encoder), expected, strict=True):
        assert type(ours) is type(theirs)
        if isinstance(ours, EncodedSample) and isinstance(theirs, EncodedSample):
            assert ours.contrast.pixels_digest == theirs.contrast.pixels_digest
    assert isinstance(expected[7], Failure) and isinstance(expected[9], EncodedSample) and expected[9].text_only


def test_a_run_scores_as_the_library_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run's units divide the group; another seed is another run."""
    argv = ["--input", str(dataset(tmp_path / "data", "parquet", 12)), "--output", str(tmp_path / "out")]
    argv += ["--executor", "local", "--rows-per-unit", "5", "--device", "cpu", "--contrast", "shuffled", "--no-report"]
    assert score.main([*argv, "--max-failed-rows", "1"]) == 0, capsys.readouterr().err
    images = [png(i // 2) for i in range(12)]
    samples = [Sample.caption(str(i), images[i], f"{TEXT} {i}") for i in range(12) if i not in (7, 9)]
    samples.insert(7, Sample.caption("broken", b"broken", TEXT))
    results = Scorer.load(MODEL_PATH, ScorerConfig(contrast="shuffled", device="cpu")).score(samples)
    by_id = {result.sample_id: result for result in results}
    gaps = pq.read_table(tmp_path / "out" / "x.parquet").column("logit_gap").to_pylist()
    for i in range(12):
        if i not in (7, 9):
            result = by_id[str(i)]
            assert isinstance(result, TokenScores)
            np.testing.assert_allclose(gaps[i], result.logit_gap, atol=1e-4)
            assert np.abs(result.logit_gap).max() > 0.01
    assert score.main([*argv, "--noise-seed", "1"]) != 0
    assert "noise_seed" in capsys.readouterr().err


def test_the_command_line_shuffles_only_for_the_contrast(tmp_path: Path) -> None:
    argv = ["--input", str(dataset(tmp_path / "data", "parquet")), "--output", str(tmp_path / "out")]
    for contrast, shuffles in (("shuffled", True), ("blank", False), ("patches@0.3", False)):
        made = make_job(build_parser().parse_args([*argv, "--contrast", contrast])).source
        assert isinstance(made, ShuffledSource) is shuffles
