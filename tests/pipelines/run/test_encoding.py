"""A unit's rows are read, encoded and scored as they are asked for, in blocks; only results are kept."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.output import attempts
from pipelines.run import encoding
from pipelines.run.captions import EncodedRow
from pipelines.run.encoding import BLOCK_BYTES, READ_ROWS, BlockEncoder
from pipelines.run.job import PreparedRun, prepare
from pipelines.run.scoring import Supply, score_rows
from pipelines.sources import Captions
from scorer.errors import BatchTooLargeError, FailureCode, RunError
from scorer.results import Failure, Result, TokenScores
from scorer.types import BytePixels, EncodedSample, Sample, Turn
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import IMAGE, make_job
from tests.pipelines.ray_engines import WrappedScorer

ROWS = 100


class Heavy:
    """Gives rows pixels of a size that follows from their number; remembers which it has encoded, and its pixels."""

    def __init__(self, sizes: dict[int, int], shared: BytePixels | None = None) -> None:
        self.sizes = sizes
        self.shared = shared
        self.encoded: list[str] = []
        self.pixels: list[weakref.ref[Any]] = []

    def try_encode(self, sample: Sample) -> EncodedSample | Failure:
        self.encoded.append(sample.sample_id)
        row = FakeEngine().encoder().try_encode(sample)
        if isinstance(row, Failure):
            return row
        number = int(sample.sample_id.removeprefix("a.parquet"))
        # Not written to, so that the test takes no such memory.
        pixels = self.shared or np.zeros(self.sizes.get(number, self.sizes.get(-1, 1)), np.uint8)
        self.pixels.append(weakref.ref(pixels if isinstance(pixels, np.ndarray) else pixels.values))
        return dataclasses.replace(row, clean=dataclasses.replace(row.clean, pixels={"pixel_values": pixels}))

    @property
    def alive(self) -> int:
        return sum(pixels() is not None for pixels in self.pixels)


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedRun:
    names = [f"a.parquet{i}" for i in range(ROWS)]
    images = pa.array([{"bytes": b"ok", "path": None}] * ROWS, IMAGE)
    (tmp_path / "data").mkdir()
    table = pa.table({"id": names, "image": images, "caption": [f"kite № {name}" for name in names]})
    pq.write_table(table, tmp_path / "data" / "a.parquet", row_group_size=7)
    return prepare(make_job(tmp_path / "data", tmp_path / "out", rows_per_unit=ROWS))


def blocks(prepared: PreparedRun, encoder: Heavy, chunk: int = READ_ROWS) -> list[encoding.Block]:
    (unit,) = prepared.plans[0].units
    source, found = BlockEncoder(prepared.work.source, encoder), list[encoding.Block]()
    at = 0
    while at < ROWS:
        found.append(source.block(unit.shard, at, min(at + chunk, ROWS)))
        at += len(found[-1].rows)
    return found


@pytest.mark.parametrize(
    ("size", "rows"),
    [(6_000_000, 10), (BLOCK_BYTES // 2, 1), (BLOCK_BYTES // 2 - 1_000, 2), (2 * BLOCK_BYTES, 1), (10, READ_ROWS)],
)
def test_a_block_holds_as_many_rows_as_fit(prepared: PreparedRun, size: int, rows: int) -> None:
    encoder = Heavy({-1: size})
    found = blocks(prepared, encoder)
    assert len(found[1].rows) in (rows, ROWS - rows)
    assert all(block.nbytes <= BLOCK_BYTES or len(block.rows) == 1 for block in found)
    ids = [row.sample_id for block in found for row in block.rows]
    assert ids == [f"a.parquet{i}" for i in range(ROWS)]
    assert sorted(encoder.encoded) == sorted({*encoder.encoded}), "what did not fit is not encoded again"


def test_a_row_larger_than_a_block_is_one_by_itself(prepared: PreparedRun) -> None:
    found = blocks(prepared, Heavy({-1: 1_000_000, 10: 2 * BLOCK_BYTES}))
    assert [row.sample_id for row in next(block for block in found if block.nbytes > BLOCK_BYTES).rows] == [
        "a.parquet10"
    ]


def test_what_rows_share_counts_once(prepared: PreparedRun) -> None:
    shared = BytePixels(np.zeros((1, 3, 2_000, 2_000), np.uint8), np.zeros((3, 256), np.float32))
    found = blocks(prepared, Heavy({}, shared))
    assert [len(block.rows) for block in found] == [READ_ROWS, ROWS - READ_ROWS]
    assert found[0].nbytes < 2 * shared.nbytes


def test_rows_beyond_a_block_are_not_read_again(prepared: PreparedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    source_type, asked = type(prepared.work.source), list[tuple[int, int]]()
    read = source_type.read

    def spy(self: Any, shard: Any, start: int, stop: int) -> Any:
        asked.append((start, stop))
        return read(self, shard, start, stop)

    monkeypatch.setattr(source_type, "read", spy)
    source, (unit,) = BlockEncoder(prepared.work.source, Heavy({-1: 20_000_000})), prepared.plans[0].units
    assert len(source.block(unit.shard, 0, 8).rows) == 3
    assert len(source.block(unit.shard, 50, 58).rows) == 3, "another chunk in between, as with calls that wait"
    assert [row.sample_id for row in source.block(unit.shard, 3, 8).rows] == [f"a.parquet{i}" for i in (3, 4, 5)]
    assert asked == [(0, 8), (50, 58)]


def test_no_more_pixels_are_held_than_a_block_and_a_batch(prepared: PreparedRun) -> None:
    encoder, most = Heavy({-1: 6_000_000}), 0
    (unit,) = prepared.plans[0].units

    class Watching(WrappedScorer[FakeEngine]):
        def score_batches(self, rows: Iterable[EncodedSample | Failure], max_batch_tokens: int) -> list[Result]:
            return self.inner.score_batches(self.watched(rows), max_batch_tokens)

        def watched(self, rows: Iterable[EncodedSample | Failure]) -> Iterator[EncodedSample | Failure]:
            nonlocal most
            for row in rows:
                most = max(most, encoder.alive)
                yield row
                del row

    scored = prepared.work.score(
        unit, prepared.work.encode(unit, encoder), Watching(FakeEngine(), FakeEngine().scorer())
    )
    gc.collect()
    assert len(scored.results) == ROWS
    assert BLOCK_BYTES // 6_000_000 <= most <= 2 * BLOCK_BYTES // 6_000_000, "two blocks at most, never the unit"
    assert encoder.alive == 0, "the results hold none"


def test_seconds_are_counted_where_they_are_spent(prepared: PreparedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    (unit,) = prepared.plans[0].units

    class Slow(Heavy):
        def try_encode(self, sample: Sample) -> EncodedSample | Failure:
            time.sleep(0.002)
            return super().try_encode(sample)

    engine = FakeEngine(seconds_per_row=0.004)
    stages = prepared.work.score(unit, prepared.work.encode(unit, Slow({})), engine.scorer()).stages
    assert stages["encode"] >= 0.002 * (ROWS - 1)
    assert 0.004 * (ROWS - 2) <= stages["score"] < 0.004 * ROWS + stages["encode"], "waiting for rows is not scoring"
    assert stages["read"] > 0


def test_batches_that_do_not_fit_have_the_rows_encoded_again(prepared: PreparedRun) -> None:
    (unit,) = prepared.plans[0].units
    encoder = Heavy({})

    class Tight(WrappedScorer[FakeEngine]):
        def score_batches(self, rows: Iterable[EncodedSample | Failure], max_batch_tokens: int) -> list[Result]:
            if max_batch_tokens > 12:
                next(iter(rows))
                raise BatchTooLargeError(f"a batch of {max_batch_tokens} tokens ran out of memory", 12)
            return self.inner.score_batches(rows, max_batch_tokens)

    scored = prepared.work.score(unit, prepared.work.encode(unit, encoder), Tight(FakeEngine(), FakeEngine().scorer()))
    assert scored.cut == 12
    assert attempts.cut_of(prepared.work.store, unit) == 12
    assert [row.sample_id for row in scored.results] == [f"a.parquet{i}" for i in range(ROWS)]
    assert encoder.encoded.count("a.parquet0") == 2


def test_what_the_rows_raise_is_not_taken_for_the_scorers(caplog: pytest.LogCaptureFixture) -> None:
    def rows() -> Iterator[EncodedRow]:
        yield Failure("a", FailureCode.IMAGE_MISSING, "")
        raise ValueError("an encoder is gone")

    class Rows:
        def __iter__(self) -> Iterator[EncodedRow]:
            return rows()

    with pytest.raises(ValueError, match="an encoder is gone"):
        score_rows(Rows(), FakeEngine().scorer(), 8192)
    assert not caplog.text, "no row is tried alone"


def test_known_failures_are_kept_and_their_rows_not_touched(prepared: PreparedRun) -> None:
    (unit,) = prepared.plans[0].units
    encoder = Heavy({})
    known = {i: Failure(f"a.parquet{i}", FailureCode.WORKER_CRASH, "died") for i in (0, 40, 41, ROWS - 1)}
    rows = list(prepared.work.encode(unit, encoder, known))
    assert [row.sample_id for row in rows] == [f"a.parquet{i}" for i in range(ROWS)]
    assert [i for i, row in enumerate(rows) if row in known.values()] == sorted(known)
    assert not {one.sample_id for one in known.values()} & {*encoder.encoded}


def test_an_encoder_that_raises_on_every_row_of_a_unit_is_at_fault_whatever_the_blocks(prepared: PreparedRun) -> None:
    class Broken:
        def __init__(self, sound: str = "") -> None:
            self.sound = sound

        def try_encode(self, sample: Sample) -> EncodedSample | Failure:
            if sample.sample_id != self.sound:
                raise AssertionError("spans")
            return FakeEngine().encoder().try_encode(sample)

    (unit,) = prepared.plans[0].units
    with pytest.raises(RunError, match=f"the encoder raised on each of {ROWS} rows"):
        list(prepared.work.encode(unit, Broken()))
    rows = list(prepared.work.encode(unit, Broken(f"a.parquet{READ_ROWS + 1}")))
    assert sum(isinstance(row, Failure) for row in rows) == ROWS - 1, "whole blocks may fail"


def test_a_supply_tells_when_rows_began_and_which_there_were() -> None:
    rows = [Failure(str(i), FailureCode.IMAGE_MISSING, "") for i in range(3)]
    supply = Supply(rows)
    assert supply.began is None
    assert list(supply) == rows
    assert list(supply) == rows
    assert supply.sample_ids == ["0", "1", "2"]
    assert supply.began is not None
    assert supply.waited < 1


def test_captions_are_joined_from_rows_that_are_gone() -> None:
    question = Turn.question(1, "Describe.")
    rows = [Captions(f"r{i}", (b"ok",), question, ("a kite", "", "two boats")) for i in range(2)]
    results = score_rows(encoding.encode_rows(rows, FakeEngine().encoder()), FakeEngine().scorer(), 8192)
    assert [result.sample_id for result in results] == ["r0", "r1"]
    assert all(isinstance(one, TokenScores) and one.token_turns.tolist() == [0, 0, 2, 2] for one in results)
