"""A whole run of every kind of dataset, and datasets that grow or change."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.cli import options, score
from pipelines.cli.options import build_parser, make_config, make_job
from pipelines.output.dataset import open_dataset
from pipelines.output.record import read_record
from pipelines.output.store import open_store
from pipelines.report.page import write_report
from pipelines.run.job import prepare
from pipelines.sources.columns import Columns
from scorer.errors import ConfigError, RunError
from scorer.mini import SAMPLE_PATH
from scorer.training import read_weights
from scorer.types import Sample
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import RecordingWatch, caption_table, published, run, snapshot, write_dataset
from tests.pipelines.helpers import make_job as make_parquet_job
from tests.pipelines.sources.helpers import make_job as make_fake_job
from tests.pipelines.sources.helpers import sample_members, tar_bytes

ROWS = 8
RECORDS = [{"id": str(i), "image": f"{i}.jpg", "caption": f"kite № {i}"} for i in range(ROWS)]
LINES = "\n".join(map(json.dumps, RECORDS)).encode()
KINDS: dict[str, Callable[[], bytes]] = {
    "tar": lambda: tar_bytes(sample_members(str(i) for i in range(ROWS))),
    "json": lambda: json.dumps(RECORDS).encode(),
    "jsonl": lambda: LINES,
    "jsonl.gz": lambda: gzip.compress(LINES),
}


def write(folder: Path, kind: str) -> Path:
    for name in ("train-0", "sub/train-1"):
        path = folder / f"{name}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(KINDS[kind]())
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_publishes_one_file_per_shard_row_for_row(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(options, "CheckpointEngine", lambda model, config, revision: FakeEngine())
    data, output = write(tmp_path / "data", kind), tmp_path / "out"
    command = ["--input", str(data), "--output", str(output), "--executor", "local", "--rows-per-unit", "3"]
    assert score.main([*command, "--no-report"]) == 0
    assert "rows ok      16" in capsys.readouterr().out
    found = read_weights(output)
    assert sorted(found.shards) == ["sub/train-1.parquet", "train-0.parquet"]
    for name in found.shards:
        rows = list(found.shard(name))
        assert [(row.row_index, row.sample_id) for row in rows] == [(i, str(i)) for i in range(ROWS)]
        for i, row in enumerate(rows):
            row.check_text([f"kite № {i}"])
    before = snapshot(output)
    assert score.main([*command, "--no-report"]) == 0
    assert snapshot(output) == before, "a finished run given again writes nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_an_output_opens_its_dataset_again_as_it_was_read(tmp_path: Path, kind: str) -> None:
    data, output = write(tmp_path / "data", kind), tmp_path / "out"
    run(make_fake_job(data, output))
    record = read_record(open_store(str(output)))
    assert record is not None
    source = open_dataset(record)
    assert json.loads(json.dumps(source.fingerprint())) == record.source
    rows = [row for shard in source.shards() for row in source.read(shard, 0, shard.rows)]
    assert [row.sample_id for row in rows] == [str(i) for i in range(ROWS)] * 2


def test_shards_of_other_names_are_opened_again_by_their_recorded_columns(tmp_path: Path) -> None:
    """Known names alone would not do: an option named the image, and two columns may hold it."""
    image = pa.array([{"bytes": b"ok", "path": None}])
    (tmp_path / "data").mkdir()
    for name, columns in {"a": {"caption": ["kite"]}, "b": {"text": ["boat"]}, "c": {"text": ["hut"]}}.items():
        pq.write_table(pa.table({"front": image, "side": image, **columns}), tmp_path / "data" / f"{name}.parquet")
    run(make_fake_job(tmp_path / "data", tmp_path / "out", columns=Columns(image=("front", "side"))))
    record = read_record(open_store(str(tmp_path / "out")))
    assert record is not None
    source = open_dataset(record)
    assert json.loads(json.dumps(source.fingerprint())) == record.source
    rows = [row for shard in source.shards() for row in source.read(shard, 0, shard.rows)]
    assert [(len(row.images), row.scored_texts) for row in rows if isinstance(row, Sample)] == [
        (2, ("kite",)),
        (2, ("boat",)),
        (2, ("hut",)),
    ]


@pytest.mark.parametrize("kind", ["tar", "jsonl.gz"])
def test_new_shards_alone_are_scored(tmp_path: Path, kind: str) -> None:
    data, output = write(tmp_path / "data", kind), tmp_path / "out"
    run(make_fake_job(data, output))
    before = snapshot(output)
    (data / f"train-2.{kind}").write_bytes(KINDS[kind]())
    watch = RecordingWatch()
    summary = run(make_fake_job(data, output), watch)
    assert (watch.rows, summary["rows"]) == (ROWS, 3 * ROWS)
    after = snapshot(output)
    assert {name for name in before if after[name] != before[name]} == {"_SUCCESS", "README.md"}


def test_a_cut_off_shard_is_a_run_with_failed_rows(tmp_path: Path) -> None:
    data = write(tmp_path / "data", "tar")
    (data / "train-0.tar").write_bytes(KINDS["tar"]()[: 1024 * 5 + 515])
    summary = run(make_fake_job(data, tmp_path / "out"))
    assert (summary["rows"], summary["ok"]) == (4 + ROWS, 2 + ROWS)
    assert {code: failed["count"] for code, failed in summary["failures"].items()} == {"row_unreadable": 2}


def test_a_report_shows_several_texts_of_a_row(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    first = pq.read_table(SAMPLE_PATH / "train-00000-of-00002.parquet", columns=["image", "caption"]).slice(0, 3)
    texts = [[caption, "a second kite"] for caption in first["caption"].to_pylist()]
    pq.write_table(pa.table({"image": first["image"], "captions": texts}), data / "x.parquet")
    job = make_fake_job(data, tmp_path / "out")
    run(job)
    write_report(job.store.root, job.source, str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text()
    assert "second" in page
    assert "data:image/webp" in page


def test_the_packaged_model_scores_a_tar(tmp_path: Path) -> None:
    """The same rows as Parquet and as WebDataset get the same scores."""
    table = pq.read_table(SAMPLE_PATH / "train-00000-of-00002.parquet").slice(0, 3)
    data = tmp_path / "parquet"
    data.mkdir()
    pq.write_table(table, data / "x.parquet")
    members = [
        member
        for row in table.to_pylist()
        for member in ((f"{row['id']}.png", row["image"]["bytes"]), (f"{row['id']}.txt", row["caption"].encode()))
    ]
    (tmp_path / "tar").mkdir()
    (tmp_path / "tar" / "x.tar").write_bytes(tar_bytes(members))
    for kind in ("parquet", "tar"):
        argv = ["--input", str(tmp_path / kind), "--output", str(tmp_path / "out" / kind), "--executor", "local"]
        assert score.main([*argv, "--no-report", "--device", "cpu"]) == 0
    ours, theirs = (list(read_weights(tmp_path / "out" / kind)) for kind in ("tar", "parquet"))
    assert [row.sample_id for row in ours] == [row.sample_id for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.scores is not None and other.scores is not None
        assert one.scores.logit_gap.tolist() == other.scores.logit_gap.tolist()
        assert one.scores.text_hash == other.scores.text_hash


# --- changed shards ---------------------------------------------------------------------------------------------


def change(path: Path, tag: str, rows: int = 25) -> None:
    pq.write_table(caption_table(rows, tag), path)


def test_a_changed_shard_is_scored_anew_as_a_whole_if_asked(tmp_path: Path) -> None:
    data, output, names = write_dataset(tmp_path / "data"), tmp_path / "out", ["a.parquet", "sub/b.parquet"]
    run(make_parquet_job(data, output))
    before = published(output, names)
    change(data / "a.parquet", "new", 27)
    with pytest.raises(RunError, match=r"1 input shards changed .* 'a\.parquet'.*--on-changed rescore"):
        run(make_parquet_job(data, output))
    assert published(output, names) == before
    watch = RecordingWatch()
    summary = run(make_parquet_job(data, output, on_changed="rescore"), watch)
    assert (watch.rows, summary["rows"]) == (27, 27 + 13)
    fresh = tmp_path / "fresh"
    run(make_parquet_job(data, fresh))
    assert published(output, names) == published(fresh, names), "nothing of the old content is left in what is read"
    finished = snapshot(output)
    for on_changed in ("error", "rescore"):
        watch = RecordingWatch()
        run(make_parquet_job(data, output, on_changed=on_changed), watch)
        assert watch.rows == 0
    assert snapshot(output) == finished


def test_a_shard_that_changes_back_is_published_from_what_was_scored(tmp_path: Path) -> None:
    data, output = write_dataset(tmp_path / "data", {"a.parquet": 25}), tmp_path / "out"
    run(make_parquet_job(data, output))
    first, original = published(output, ["a.parquet"]), (data / "a.parquet").read_bytes()
    change(data / "a.parquet", "new")
    run(make_parquet_job(data, output, on_changed="rescore"))
    (data / "a.parquet").write_bytes(original)
    with pytest.raises(RunError, match="changed"):
        run(make_parquet_job(data, output))
    watch = RecordingWatch()
    run(make_parquet_job(data, output, on_changed="rescore"), watch)
    assert watch.rows == 0
    assert published(output, ["a.parquet"]) == first


def test_a_published_file_of_equal_size_but_another_content_is_not_taken_for_this_one(tmp_path: Path) -> None:
    data, output = write_dataset(tmp_path / "data", {"a.parquet": 25}), tmp_path / "out"
    run(make_parquet_job(data, output))
    change(data / "a.parquet", "new")
    run(make_parquet_job(data, output, on_changed="rescore"))
    right = (output / "a.parquet").read_bytes()
    (output / "a.parquet").write_bytes(right[:-100] + bytes(100))
    with pytest.raises(RunError, match="changed"):
        run(make_parquet_job(data, output))
    run(make_parquet_job(data, output, on_changed="rescore"))
    assert (output / "a.parquet").read_bytes() == right


def test_a_rescore_that_was_stopped_goes_on_with_the_same_command(tmp_path: Path) -> None:
    data, output = write_dataset(tmp_path / "data", {"a.parquet": 25}), tmp_path / "out"
    run(make_parquet_job(data, output))
    change(data / "a.parquet", "new")
    begun = prepare(make_parquet_job(data, output, on_changed="rescore"))
    begun.work.run(begun.pending[0], FakeEngine().encoder(), FakeEngine().scorer())
    with pytest.raises(RunError, match="changed"):
        run(make_parquet_job(data, output))
    watch = RecordingWatch()
    run(make_parquet_job(data, output, on_changed="rescore"), watch)
    assert (watch.begun, watch.rows) == ((25, 5), 20)


# --- options ----------------------------------------------------------------------------------------------------


def parsed(*argv: str) -> object:
    return build_parser().parse_args(["--input", "i", "--output", "o", *argv])


def test_the_counterfactual_column_is_part_of_the_contrast() -> None:
    asked = parsed("--contrast", "image:other")
    assert (asked.contrast, asked.contrast_image_column) == ("image", "other")  # type: ignore[attr-defined]
    both = parsed("--contrast", "image:other", "--contrast", "blur")
    assert (both.contrast, both.contrast_image_column) == ("blur", None)  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", ["image", "image:", "blur:x", "nothing", "", ":x"])
def test_a_contrast_that_is_none(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed("--contrast", value)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "is not one of blank, masked, removed, blur[@RADIUS], noise, patches[@SHARE], " in said
    assert "shuffled and image:COLUMN" in said


def test_a_value_of_a_contrast(capsys: pytest.CaptureFixture[str]) -> None:
    assert make_config(parsed("--contrast", "blur@0.020")).contrast == "blur@0.02"
    for wrong, said in (("patches@2", "SHARE must be above 0 and at most 1"), ("blank@2", "takes no value")):
        with pytest.raises(SystemExit):
            parsed("--contrast", wrong)
        assert said in capsys.readouterr().err


def test_every_option_reaches_the_source(tmp_path: Path) -> None:
    (tmp_path / "x.data").write_text('{"a": "1.jpg", "b": "2.jpg", "one": "x", "two": "y"}')
    argv = ["--input", str(tmp_path / "x.data"), "--output", str(tmp_path / "out"), "--format", "jsonl"]
    argv += ["--image-column", "a", "--text-column", "one,two", "--contrast", "image:b", "--image-root", str(tmp_path)]
    argv += ["--allow-image-host", "a.org", "--allow-image-host", "*.b.org", "--image-url-timeout", "3"]
    argv += ["--max-image-bytes", "99", "--on-changed", "rescore"]
    job = make_job(build_parser().parse_args(argv))
    source = job.source
    (shard,) = source.shards()
    assert shard.rows == 1
    assert source.columns == Columns(image="a", text=("one", "two"), contrast_image="b")  # type: ignore[attr-defined]
    images = source.images  # type: ignore[attr-defined]
    assert (images.root, images.max_bytes) == (str(tmp_path), 99)
    assert (images.fetcher.hosts, images.fetcher.seconds) == (("a.org", "*.b.org"), 3.0)
    assert images.fetcher.max_bytes == 99
    assert job.on_changed == "rescore"
    with pytest.raises(ConfigError, match="not a full DNS name"):
        make_job(build_parser().parse_args([*argv, "--allow-image-host", "localhost"]))
