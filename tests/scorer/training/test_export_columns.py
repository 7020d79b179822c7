"""What the exporter reads of a dataset is what the run read: its columns, its prompt, its formats."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sources.arrow import SUFFIXES as ARROW_SUFFIXES
from pipelines.sources.columns import Columns
from pipelines.sources.formats import FORMATS, open_source
from pipelines.sources.images import ImageOptions
from pipelines.sources.jsonl import JsonLines
from pipelines.sources.webdataset import WebDataset
from scorer.training.export.__main__ import main
from scorer.training.export.dataset import SUFFIXES
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import make_job, run
from tests.pipelines.sources.json_files import packed

Captured = pytest.CaptureFixture[str]
IMAGE = {"bytes": b"ok", "path": None}


class Asking(FakeEngine):
    """An engine whose fingerprint has a prompt, as every real one's has."""

    def fingerprint(self) -> dict[str, Any]:
        return {**super().fingerprint(), "prompt": "What is it?"}


def scored(folder: Path, rows: dict[str, list[Any]], columns: Columns, **options: Any) -> Path:
    """A dataset of one shard, and its output in ``out``."""
    (folder / "data").mkdir()
    pq.write_table(pa.table(rows), folder / "data" / "x.parquet")
    run(make_job(folder / "data", folder / "out", Asking(), columns=columns, **options))
    return folder


def exported(folder: Path, *more: str, data: bool = True) -> list[dict[str, Any]]:
    assert export(folder, *more, data=data) == 0
    return [json.loads(line) for line in (folder / "x.jsonl").read_text().splitlines()]


def export(folder: Path, *more: str, data: bool = True) -> int:
    given = ["--data", str(folder / "data")] if data else []
    arguments = ["--to", "jsonl", "--weights", str(folder / "out"), "--output", str(folder / "x.jsonl"), *given]
    return main([*arguments, *more])


def said(example: dict[str, Any]) -> list[str]:
    """Every turn in one string, an image as ``▣``."""
    return ["".join(part.get("text", "▣") for part in message["content"]) for message in example["messages"]]


NUMBERED: dict[str, list[Any]] = {
    "key": ["a", "b"],
    "front": [IMAGE, IMAGE],
    "side": [IMAGE, IMAGE],
    "caption_0": ["a red kite", "one sea"],
    "caption_1": ["two boats", None],
    "text": ["not read", "not read"],
    "task": ["Describe it.", None],
}
READ = Columns(image=("front", "side"), text=("caption_0", "caption_1"), id="key", prompt="task")
WANTED = {
    "a#0": ["▣▣Describe it.", "a red kite"],
    "a#1": ["▣▣Describe it.", "two boats"],
    "b#0": ["▣▣What is it?", "one sea"],
}


@pytest.mark.parametrize("layout", ["sidecar", "merged"])
def test_what_was_read_is_what_is_written(tmp_path: Path, layout: str) -> None:
    """Several columns of captions and of images, a column of prompts, and the run's prompt where that is null."""
    written = exported(scored(tmp_path, NUMBERED, READ, layout=layout), data=layout == "sidecar")
    assert {example["id"]: said(example) for example in written} == WANTED
    assert [len(example["images"]) for example in written] == [2, 2, 2]


def test_columns_that_were_renamed_since(tmp_path: Path, capsys: Captured) -> None:
    scored(tmp_path, NUMBERED, READ)
    renamed = dict(zip(["key", "f", "s", "c0", "c1", "text", "t"], NUMBERED.values(), strict=True))
    pq.write_table(pa.table(renamed), tmp_path / "data" / "x.parquet")
    more: list[str] = []
    for absent, option, value in (
        ("caption_0", "--text-column", "c0,c1"),
        ("front", "--image-column", "f,s"),
        ("task", "--prompt-column", "t"),
    ):
        assert export(tmp_path, *more) == 2
        problem = f"has no column '{absent}'; it has key, f, s, c0, c1, text, t: name the column with {option}"
        assert problem in capsys.readouterr().err
        more += [option, value]
    assert {example["id"]: said(example) for example in exported(tmp_path, *more)} == WANTED


def test_another_prompt(tmp_path: Path) -> None:
    columns = dataclasses.replace(READ, prompt=None, text="text")
    scored(tmp_path, NUMBERED, columns)
    assert said(exported(tmp_path)[0])[0] == "▣▣What is it?"
    assert said(exported(tmp_path, "--prompt", "Well?")[0])[0] == "▣▣Well?"
    assert said(exported(tmp_path, "--prompt", "")[0])[0] == "▣▣"


RECORDS = [{"id": str(i), "image": f"{i}.png", "caption": f"kite № {i}"} for i in range(3)]


def json_run(folder: Path, name: str, data: bytes, format: Any, columns: Columns | None = None) -> None:
    (folder / "data").mkdir()
    (folder / "data" / name).write_bytes(data)
    job = make_job(folder / "data", folder / "out", Asking())
    for i in range(3):
        (folder / "data" / f"{i}.png").write_bytes(b"ok")
    source = open_source(str(folder / "data"), format, columns or Columns(), prompt="What is it?")
    run(dataclasses.replace(job, source=source))


def lines(records: Sequence[Any]) -> bytes:
    return "\n\n".join(json.dumps(record, ensure_ascii=False) for record in records).encode()


@pytest.mark.parametrize("suffix", [*JsonLines.suffixes, ".JSONL.GZ"])
def test_json_lines_as_the_job_reads_them(tmp_path: Path, suffix: str) -> None:
    """Compressed or not; with a byte order mark, blank lines and a line that is no JSON, which is a row that failed."""
    data = b"\xef\xbb\xbf" + lines(RECORDS[:2]) + b"\n{broken\n" + lines(RECORDS[2:])
    data = (
        gzip.compress(data)
        if suffix.lower().endswith(".gz")
        else packed(data, "zstd")
        if suffix.endswith(".zst")
        else data
    )
    json_run(tmp_path, f"x{suffix}", data, "jsonl")
    (tmp_path / "data" / "x.json").write_text("[]")  # describes the shard: not what the run read
    written = exported(tmp_path)
    assert [said(example)[1] for example in written] == [record["caption"] for record in RECORDS]
    assert [example["images"] for example in written] == [[record["image"]] for record in RECORDS]


@pytest.mark.parametrize("name", ["x.arrow", "x.feather", "x.ARROW"])
def test_arrow_as_the_job_reads_it(tmp_path: Path, name: str) -> None:
    table, sink = pa.Table.from_pylist(RECORDS), pa.BufferOutputStream()
    with (pa.ipc.new_file if name == "x.feather" else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table)
    json_run(tmp_path, name, sink.getvalue().to_pybytes(), "arrow")
    assert [said(example)[1] for example in exported(tmp_path)] == [record["caption"] for record in RECORDS]


@pytest.mark.parametrize("array", [True, False])
def test_json_as_the_job_reads_it(tmp_path: Path, array: bool) -> None:
    json_run(tmp_path, "x.json", json.dumps(RECORDS).encode() if array else lines(RECORDS), "json")
    assert [said(example)[1] for example in exported(tmp_path)] == [record["caption"] for record in RECORDS]


def test_records_need_not_have_every_key(tmp_path: Path) -> None:
    records = [
        {"image": "0.png", "caption_0": "a red kite", "caption_1": "two boats", "task": "Name it."},
        {"image": "1.png", "caption_1": "one sea"},
    ]
    json_run(tmp_path, "x.jsonl", lines(records), "jsonl", Columns(prompt="task"))
    assert [said(example) for example in exported(tmp_path)] == [
        ["▣Name it.", "a red kite"],
        ["▣Name it.", "two boats"],
        ["▣What is it?", "one sea"],
    ]


def test_formats_are_those_of_the_job() -> None:
    assert set(SUFFIXES) == {*FORMATS} - {WebDataset().name}
    assert set(SUFFIXES["jsonl"]) == set(JsonLines.suffixes)
    assert set(SUFFIXES["arrow"]) == set(ARROW_SUFFIXES)


def rewritten(folder: Path, metadata: dict[str, Any]) -> None:
    """The published file with another metadata, taken out of its run."""
    path = folder / "out" / "x.parquet"
    table = pq.read_table(path)
    (folder / "out" / "_SUCCESS").unlink()
    pq.write_table(table.replace_schema_metadata({"tokensight": json.dumps(metadata)} if metadata else None), path)


def test_files_that_do_not_say_what_was_read(tmp_path: Path, capsys: Captured) -> None:
    """Each message names the option that is needed next."""
    scored(tmp_path, NUMBERED, READ)
    rewritten(tmp_path, {})
    more = ["--allow-unfinished"]
    for message, option, value in (
        ("do not say which columns of the dataset were read", "--text-column", "caption_0,caption_1"),
        ("do not say which columns of the dataset were read", "--image-column", "front,side"),
        ("do not say which instruction it answers: give it with --prompt, or its column", "--prompt", "Describe it."),
    ):
        assert export(tmp_path, *more) == 2
        error = capsys.readouterr().err
        assert message in error and option in error
        more += [option, value]
    assert [said(example)[0] for example in exported(tmp_path, *more)] == ["▣▣Describe it."] * 3


def test_a_webdataset_is_refused_by_name(tmp_path: Path, capsys: Captured) -> None:
    scored(tmp_path, NUMBERED, READ)
    columns = {"text": "txt", "image": "image"}
    rewritten(tmp_path, {"source": {"format": WebDataset().name, "columns": columns}})
    assert export(tmp_path, "--allow-unfinished") == 2
    assert (
        "the run read webdataset, which cannot be exported (parquet, arrow, json, jsonl can); look weights up"
        in capsys.readouterr().err
    )


def test_weights_alone_need_the_dataset(tmp_path: Path, capsys: Captured) -> None:
    scored(tmp_path, NUMBERED, READ)
    assert export(tmp_path, data=False) == 2
    assert "holds weights only (--layout sidecar); give the dataset that was scored" in capsys.readouterr().err


OWN: dict[str, dict[str, list[Any]]] = {
    "a": {"image": [IMAGE], "caption": ["a red kite"]},
    "b": {"image": [IMAGE], "text": ["two boats"]},
    "c": {"img": [IMAGE], "question": ["Name it."], "answer": ["one sea"]},
    "d": {"conversations": [[{"from": "human", "value": "<image>Well?"}, {"from": "gpt", "value": "a hut"}]]},
}
OWN["d"]["image"] = [IMAGE]


@pytest.mark.parametrize("layout", ["sidecar", "merged"])
def test_every_shard_is_read_by_its_own_columns(tmp_path: Path, layout: str) -> None:
    (tmp_path / "data").mkdir()
    for name, rows in OWN.items():
        pq.write_table(pa.table(rows), tmp_path / "data" / f"{name}.parquet")
    run(make_job(tmp_path / "data", tmp_path / "out", Asking(), columns=Columns(), layout=layout))
    written = exported(tmp_path, data=layout == "sidecar")
    assert [said(example) for example in written] == [
        ["▣What is it?", "a red kite"],
        ["▣What is it?", "two boats"],
        ["▣Name it.", "one sea"],
        ["▣Well?", "a hut"],
    ]
    assert [len(example["images"]) for example in written] == [1] * 4


def test_an_option_holds_for_every_shard(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "data").mkdir()
    for name in "ab":
        pq.write_table(pa.table(OWN[name]), tmp_path / "data" / f"{name}.parquet")
    run(make_job(tmp_path / "data", tmp_path / "out", Asking(), columns=Columns()))
    assert export(tmp_path, "--text-column", "caption") == 2
    assert "b.parquet has no column 'caption'; it has image, text" in capsys.readouterr().err


def test_arrow_shards_are_read_by_their_own_columns(tmp_path: Path) -> None:
    """A shard's name is that of its file, with another suffix: its own columns are kept under the published name."""
    (tmp_path / "data").mkdir()
    for name in "ab":
        table = pa.table(OWN[name])
        with pa.ipc.new_file(tmp_path / "data" / f"{name}.arrow", table.schema) as writer:
            writer.write_table(table)
    job = make_job(tmp_path / "data", tmp_path / "out", Asking())
    source = open_source(str(tmp_path / "data"), "arrow", Columns(), prompt="What is it?")
    run(dataclasses.replace(job, source=source))
    assert [said(example)[1] for example in exported(tmp_path)] == ["a red kite", "two boats"]


PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(60))
ENCODED = base64.b64encode(PNG)


@pytest.mark.parametrize("layout", ["sidecar", "merged"])
@pytest.mark.parametrize(
    "held",
    [
        ENCODED.decode(),
        "data:image/png;base64," + ENCODED.decode(),
        ENCODED,
        {"bytes": ENCODED, "path": None},
        {"bytes": None, "path": ENCODED.decode()},
    ],
    ids=["string", "data URL", "binary", "struct of bytes", "struct of path"],
)
def test_an_image_in_base64_is_written_as_a_file(tmp_path: Path, held: Any, layout: str) -> None:
    rows = {"image": [held, held], "caption": ["a red kite", "two boats"]}
    scored(tmp_path, rows, Columns(), layout=layout)
    written = exported(tmp_path, data=layout == "sidecar")
    assert [Path(example["images"][0]).suffix for example in written] == [".png"] * 2
    assert [Path(example["images"][0]).read_bytes() for example in written] == [PNG] * 2


def test_an_image_in_base64_inside_a_message_is_written_as_a_file(tmp_path: Path) -> None:
    parts = [{"type": "image", "image": ENCODED.decode()}, {"type": "text", "text": "Well?"}]
    talk = [{"role": "user", "content": parts}, {"role": "assistant", "content": [{"type": "text", "text": "a hut"}]}]
    json_run(tmp_path, "x.jsonl", lines([{"messages": talk}]), "jsonl")
    (example,) = exported(tmp_path)
    assert Path(example["images"][0]).read_bytes() == PNG


@pytest.mark.parametrize("root", [False, True])
def test_a_path_that_looks_like_base64_stays_a_path(tmp_path: Path, root: bool) -> None:
    """The run took it for a path, because the file exists: in the shard's folder, or in the image root."""
    name = ENCODED.decode().replace("/", "_")
    folder = tmp_path / ("pictures" if root else "data")
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"ok")
    options = {"images": ImageOptions(str(folder))} if root else {}
    (tmp_path / "data").mkdir(exist_ok=True)
    pq.write_table(pa.table({"image": [name], "caption": ["a red kite"]}), tmp_path / "data" / "x.parquet")
    source = open_source(str(tmp_path / "data"), "parquet", Columns(), prompt="What is it?", **options)
    run(dataclasses.replace(make_job(tmp_path / "data", tmp_path / "out", Asking()), source=source))
    assert [example["images"] for example in exported(tmp_path)] == [[name]]
    (folder / name).unlink()
    assert exported(tmp_path)[0]["images"] != [name], "without the file it is base64"


def test_base64_that_was_cut_since_names_the_remedy(tmp_path: Path, capsys: Captured) -> None:
    scored(tmp_path, {"image": [ENCODED.decode()], "caption": ["a red kite"]}, Columns())
    cut = ENCODED.decode().rstrip("=")
    cut += "A" * (5 - len(cut) % 4)
    pq.write_table(pa.table({"image": [cut], "caption": ["a red kite"]}), tmp_path / "data" / "x.parquet")
    assert export(tmp_path) == 2
    error = capsys.readouterr().err
    assert "x.parquet" in error and "has an image that is not valid base64" in error
    assert "give the dataset as it was scored" in error
