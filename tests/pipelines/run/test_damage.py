"""What is damaged on disk or by hand is rebuilt by the next run, or refused by name."""

from __future__ import annotations

import json
import logging
import math
import pickle
import re
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.executors.local import LocalExecutor
from pipelines.output.commit import DamagedUnitsError, PublishedShard, find_marker
from pipelines.output.compaction import compact
from pipelines.output.contents import look
from pipelines.output.plan import ShardPlan
from pipelines.output.store import open_store
from pipelines.run.job import prepare
from pipelines.run.score_unit import UnitWork
from scorer.errors import OtherRunError, RunError
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import RecordingWatch, caption_table, make_job, published, run, snapshot
from tests.pipelines.outputs import flip, problems, published_marker, stop_after

Damage = Callable[[Path], object]

DAMAGE: dict[str, Damage] = {
    "empty": lambda path: path.write_bytes(b""),
    "white space": lambda path: path.write_bytes(b"\n"),
    "torn": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe{}"),
    "null": lambda path: path.write_bytes(b"null"),
    "an object without keys": lambda path: path.write_bytes(b"{}"),
    "a number for a name": lambda path: edit(path, lambda d: d.update(sha256=3)),
    "a list for counts": lambda path: edit(path, lambda d: d.update(failures=[1])),
    "a word for a count": lambda path: edit(path, lambda d: d.update(rows="5")),
    "a time that is none": lambda path: edit(path, lambda d: d.update(sessions={"a": [math.nan, 1.0]})),
    "a time beyond floats": lambda path: edit(path, lambda d: d.update(stages={"read": 10**400})),
    "other rows": lambda path: edit(path, lambda d: d.update(rows=d["rows"] + 1)),
}


def edit(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    document = json.loads(path.read_bytes())
    change(document)
    path.write_bytes(json.dumps(document).encode())


class RoundsOtherwise(FakeEngine):
    """Stands for the same model on another machine."""

    def fingerprint(self) -> dict[str, Any]:
        return FakeEngine().fingerprint()


@pytest.fixture
def whole(dataset: Path, tmp_path: Path) -> dict[str, bytes]:
    """The published bytes of an undisturbed run."""
    run(make_job(dataset, tmp_path / "whole"))
    return published(tmp_path / "whole")


def unit_marker(output: Path, start: int) -> Path:
    (found,) = (output / "_commits").glob(f"*-{start}-{start + 5}.json")
    return found


class TestAnUnfinishedRun:
    """Two of five units of the first shard are committed."""

    @pytest.mark.parametrize("damage", DAMAGE)
    def test_makes_a_damaged_unit_marker_again(
        self, dataset: Path, output: Path, whole: dict[str, bytes], damage: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        stop_after(2, dataset, output)
        marker = unit_marker(output, 5)
        DAMAGE[damage](marker)
        run(make_job(dataset, output))
        assert published(output) == whole
        assert problems(output) == []
        assert f"{marker.name}, or the file that it names, was damaged; it was replaced after rows" in caplog.text

    @pytest.mark.parametrize(
        "damage", [flip, lambda path: path.unlink(), lambda path: path.write_bytes(b"")], ids=["flip", "gone", "empty"]
    )
    def test_makes_a_damaged_unit_file_again(
        self, dataset: Path, output: Path, whole: dict[str, bytes], damage: Damage, caplog: pytest.LogCaptureFixture
    ) -> None:
        stop_after(2, dataset, output)
        file = output / json.loads(unit_marker(output, 0).read_bytes())["key"]
        damage(file)
        watch = RecordingWatch()
        run(make_job(dataset, output), watch)
        assert published(output) == whole
        assert problems(output) == []
        assert f"{file.name} is" in caplog.text and "; units that are scored again: 1\n" in caplog.text
        assert "run the same command again" not in caplog.text, "this run mends it"
        assert watch.begun is not None and watch.begun[1] + watch.rows == watch.begun[0], "no row is counted twice"

    def test_replaces_the_marker_if_the_scores_differ_by_rounding(self, dataset: Path, output: Path) -> None:
        stop_after(2, dataset, output)
        file = output / json.loads(unit_marker(output, 0).read_bytes())["key"]
        flip(file)
        run(make_job(dataset, output, RoundsOtherwise(seed=1)))
        assert problems(output) == []

    @pytest.mark.parametrize("damage", DAMAGE)
    @pytest.mark.parametrize("compacted", [False, True])
    def test_makes_a_damaged_published_marker_again(
        self,
        dataset: Path,
        output: Path,
        whole: dict[str, bytes],
        damage: str,
        compacted: bool,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        run(make_job(dataset, output))
        if compacted:
            compact(look(open_store(str(output))))
        (output / "_SUCCESS").unlink()
        marker = published_marker(output, "a.parquet")
        DAMAGE[damage](marker)
        run(make_job(dataset, output))
        assert published(output) == whole
        assert problems(output) == []
        assert PublishedShard.from_bytes(marker.read_bytes()).name == "a.parquet"
        assert damage == "empty" or f"{marker.name} is not the marker of a.parquet" in caplog.text

    def test_gives_up_if_the_storage_damages_what_is_written_again(
        self, dataset: Path, output: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stop_after(2, dataset, output)
        file = output / json.loads(unit_marker(output, 0).read_bytes())["key"]
        publish = UnitWork.publish

        def damaging(self: UnitWork, planned: ShardPlan) -> PublishedShard:
            file.write_bytes(b"torn")
            return publish(self, planned)

        monkeypatch.setattr(UnitWork, "publish", damaging)
        with pytest.raises(RunError, match=r"is not what was committed .* run the same command again"):
            run(make_job(dataset, output))

    def test_is_mended_by_an_executor_that_publishes_elsewhere(
        self, dataset: Path, output: Path, whole: dict[str, bytes]
    ) -> None:
        class Elsewhere(LocalExecutor):
            def publish(self, work: UnitWork, planned: ShardPlan) -> Future[PublishedShard]:
                future: Future[PublishedShard] = Future()
                try:
                    future.set_result(work.publish(planned))
                except DamagedUnitsError as error:
                    future.set_exception(pickle.loads(pickle.dumps(error)))
                return future

        stop_after(2, dataset, output)
        flip(output / json.loads(unit_marker(output, 0).read_bytes())["key"])
        prepare(make_job(dataset, output)).execute(Elsewhere(), RecordingWatch())
        assert published(output) == whole

    def test_passes_over_files_that_are_no_markers(self, dataset: Path, output: Path) -> None:
        stop_after(2, dataset, output)
        for folder in ("_commits", "_published"):
            (output / folder).mkdir(exist_ok=True)
            for name in ("notes.txt", "x.json", "a-b-c-d.json", f"{unit_marker(output, 0).name}~"):
                (output / folder / name).write_text("x")
        assert look(open_store(str(output))).rows_committed == 10
        run(make_job(dataset, output))
        assert problems(output) == []


def test_a_marker_whose_file_is_damaged_is_no_commit(dataset: Path, output: Path) -> None:
    stop_after(2, dataset, output)
    work = prepare(make_job(dataset, output)).work
    unit = prepare(make_job(dataset, output)).plans[0].units[0]
    marker = find_marker(work.store, unit)
    assert marker is not None
    flip(output / marker.key)
    assert find_marker(work.store, unit) is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"{", "it is not JSON"),
        (b"\xff", "it is not UTF-8: byte 0 is 0xff"),
        (b"null", "it is None, not an object"),
        (b'{"format": 1}', "its started_at is None, not of type str"),
        (b'{"format": 7}', "its format is 7, but this release reads 1"),
    ],
)
@pytest.mark.parametrize("finished", [False, True])
def test_a_damaged_record_is_refused_by_name(
    dataset: Path, output: Path, content: bytes, why: str, finished: bool
) -> None:
    if finished:
        run(make_job(dataset, output))
    else:
        stop_after(2, dataset, output)
    (output / "_run.json").write_bytes(content)
    with pytest.raises(OtherRunError, match=rf"out/_run\.json, which .* cannot be read: {why}.*; restore it"):
        prepare(make_job(dataset, output))
    assert [problem.key for problem in problems(output)] == ["_run.json"]


def test_committed_rows_without_a_record_are_not_mixed_with_others(dataset: Path, output: Path) -> None:
    stop_after(2, dataset, output)
    (output / "_run.json").unlink()
    with pytest.raises(OtherRunError, match=r"committed rows but no _run\.json"):
        prepare(make_job(dataset, output, FakeEngine(seed=1)))
    assert not (output / "_run.json").exists()


def test_a_damaged_record_of_compaction_is_refused_by_name(dataset: Path, output: Path) -> None:
    run(make_job(dataset, output))
    compact(look(open_store(str(output))))
    (output / "_SUCCESS").unlink()
    (output / "a.parquet").unlink()
    for content in (b"", b"[]", b'{"shards": 3}', b'{"shards": [[]]}'):
        (output / "_compacted.json").write_bytes(content)
        with pytest.raises(RunError, match=r"_compacted\.json cannot be read: it .*; make sure .* delete the file"):
            run(make_job(dataset, output))


def test_a_vanished_shard_with_a_damaged_marker_is_told(dataset: Path, output: Path) -> None:
    stop_after(5, dataset, output)
    published_marker(output, "a.parquet").write_bytes(b"\xff")
    (dataset / "a.parquet").unlink()
    with pytest.raises(OtherRunError, match=r"vanished.*the one of the damaged _published/"):
        prepare(make_job(dataset, output))


def test_a_changed_shard_with_a_damaged_marker_is_rescored_on_request(
    dataset: Path, output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(make_job(dataset, output))
    pq.write_table(caption_table(25, "new"), dataset / "a.parquet")
    run(make_job(dataset, output, on_changed="rescore"))
    new = published_marker_of(output, dataset)
    new.write_bytes(b"{")
    with caplog.at_level(logging.WARNING), pytest.raises(OtherRunError, match="changed since they were scored"):
        prepare(make_job(dataset, output))
    assert f"{new.name} is not the marker of a.parquet" in caplog.text
    run(make_job(dataset, output, on_changed="rescore"))
    assert problems(output) == []


def published_marker_of(output: Path, dataset: Path) -> Path:
    """The marker of the first shard's current content."""
    return output / "_published" / f"{prepare(make_job(dataset, output)).plans[0].key}.json"


class TestAFinishedRun:
    """It is given again."""

    @pytest.mark.parametrize("compacted", [False, True])
    @pytest.mark.parametrize("name", ["a.parquet", "sub/b.parquet", "empty.parquet"])
    def test_finds_a_flipped_bit_and_publishes_the_file_again(
        self,
        dataset: Path,
        output: Path,
        whole: dict[str, bytes],
        name: str,
        compacted: bool,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        run(make_job(dataset, output))
        if compacted:
            compact(look(open_store(str(output))))
        flip(output / name)
        assert [problem.key for problem in problems(output)][:1] == [name]
        assert prepare(make_job(dataset, output)).summary is not None, "sizes do not tell"
        run(make_job(dataset, output, verify=True))
        assert published(output) == whole
        assert problems(output) == []
        assert (
            f"{output}/{name} is damaged: its SHA-256 differs from its marker's; it is published again" in caplog.text
        )

    def test_scores_again_what_its_units_no_longer_give(
        self, dataset: Path, output: Path, whole: dict[str, bytes], caplog: pytest.LogCaptureFixture
    ) -> None:
        run(make_job(dataset, output))
        flip(output / "a.parquet")
        flip(output / json.loads(unit_marker(output, 20).read_bytes())["key"])
        unit_marker(output, 15).write_bytes(b"\x00")
        run(make_job(dataset, output, verify=True))
        assert published(output) == whole
        assert problems(output) == []
        assert "; units that are scored again: 2\n" in caplog.text

    @pytest.mark.parametrize("damage", DAMAGE)
    def test_replaces_a_damaged_marker(self, dataset: Path, output: Path, damage: str) -> None:
        run(make_job(dataset, output))
        before = snapshot(output)
        DAMAGE[damage](published_marker(output, "a.parquet"))
        run(make_job(dataset, output, verify=True))
        assert problems(output) == []
        assert {name: data for name, (_, data) in snapshot(output).items()} == {
            name: data for name, (_, data) in before.items()
        }

    def test_writes_a_summary_that_says_what_the_markers_do(self, dataset: Path, output: Path) -> None:
        run(make_job(dataset, output))
        edit(output / "_SUCCESS", lambda d: d["shards"][0].update(sha256="0" * 64))  # type: ignore[index]
        assert problems(output) != []
        run(make_job(dataset, output, verify=True))
        assert problems(output) == []

    @pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
    def test_tells_a_size_without_being_asked(
        self, dataset: Path, output: Path, whole: dict[str, bytes], damage: Damage, caplog: pytest.LogCaptureFixture
    ) -> None:
        run(make_job(dataset, output))
        damage(output / "a.parquet")
        run(make_job(dataset, output))
        assert published(output) == whole
        assert re.search(
            r"a\.parquet (is missing|has 0 bytes, but its marker says [\d,]+); it is published", caplog.text
        )

    def test_that_is_intact_is_read_and_not_written(
        self, dataset: Path, output: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        first = run(make_job(dataset, output))
        before = snapshot(output)
        monkeypatch.setattr(FakeEngine, "scorer", None)
        assert run(make_job(dataset, output, verify=True)) == first
        assert snapshot(output) == before
        assert caplog.text == ""

    def test_in_a_bucket_too(self, dataset: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
        url = f"memory://verify-{tmp_path.name}/out"
        run(make_job(dataset, url))
        store = open_store(url)
        data = bytearray(store.get("a.parquet"))
        data[99] ^= 1
        store.put("a.parquet", bytes(data))
        run(make_job(dataset, url, verify=True))
        assert store.get("a.parquet") == whole["a.parquet"]
