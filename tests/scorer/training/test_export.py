"""Files that the exporter writes: read back as their readers do, row for row; and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from numpy.testing import assert_array_equal
from transformers import AutoProcessor

from pipelines.sources.columns import Columns
from scorer.messages import scored_texts
from scorer.training import WeightAligner, WeightedCollator, WeightRow, WeightTable
from scorer.training.export.__main__ import main
from scorer.training.export.formats import FORMATS
from scorer.weights import METHODS, Method
from tests.pipelines.helpers import make_job, run
from tests.scorer.training.chat_collator import ChatCollator
from tests.scorer.training.conftest import BROKEN, Scored

Captured = pytest.CaptureFixture[str]


def export(to: str, scored: Scored, file: Path, *more: str) -> Path:
    arguments = ["--weights", str(scored.weights), "--data", str(scored.data), "--output", str(file)]
    assert main(["--to", to, *arguments, *more]) == 0
    return file


@pytest.mark.parametrize("merged", [False, True])
def test_jsonl_is_a_dataset_with_its_weights(scored: Scored, tmp_path: Path, capsys: Captured, merged: bool) -> None:
    """Read by ``datasets``, and given to a trainer's collator with no table: the same weights."""
    file = tmp_path / "train.jsonl"
    source = [str(scored.merged)] if merged else [str(scored.weights), "--data", str(scored.data)]
    assert main(["--to", "jsonl", "--weights", *source, "--output", str(file)]) == 0
    assert capsys.readouterr().out == f"11 examples in {file}; 1 of 12 rows were not scored and are left out\n"
    rows = load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert [row["id"] for row in rows] == [row["id"] for row in scored.rows()]
    assert BROKEN not in rows["id"]
    for row, original in zip(rows, scored.rows(), strict=True):
        assert scored_texts(row["messages"]) == (original["caption"],)
        (image,) = row["images"]
        assert Path(image).read_bytes() == original["image"]["bytes"]
        published, back = scored.table().find(row["id"]), WeightRow.from_record(row["token_weights"], row["id"])
        assert published.scores is not None
        assert back.scores is not None
        assert_array_equal(back.weights, published.weights)
        assert_array_equal(back.scores.token_starts, published.scores.token_starts)
        back.check_text([original["caption"]])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_exported(scored: Scored, tmp_path: Path, method: str) -> None:
    """Those that take a threshold from the dataset's gaps, too: an exporter reads a finished run."""
    lines = export("jsonl", scored, tmp_path / "x.jsonl", "--method", method).read_text().splitlines()
    table = scored.table(method=method)
    assert isinstance(table.published.derive, Method) and not table.published.derive.needs_gaps
    for row in map(json.loads, lines):
        found = WeightRow.from_record(row["token_weights"], row["id"]).weights
        assert_array_equal(found, table.find(row["id"]).weights)


@pytest.mark.parametrize(("suffix", "magic"), [(".gz", b"\x1f\x8b"), (".bz2", b"BZh"), (".zst", b"\x28\xb5\x2f\xfd")])
@pytest.mark.parametrize("to", ["jsonl", "llava-json"])
def test_a_file_is_compressed_as_its_name_says(
    to: str, scored: Scored, llava_scored: Path, tmp_path: Path, suffix: str, magic: bytes
) -> None:
    llava = llava_scored / "weights", llava_scored / "data" / "train.json"
    weights, data = llava if to == "llava-json" else (scored.weights, scored.data)
    arguments = ["--to", to, "--weights", str(weights), "--data", str(data)]
    files = [tmp_path / "train.json", tmp_path / f"train.json{suffix}"]
    for file in files:
        assert main([*arguments, "--output", str(file)]) == 0
    assert files[1].read_bytes().startswith(magic)
    with pa.input_stream(str(files[1]), compression="detect") as stream:
        unpacked = stream.read()
    images = f"{files[1].with_suffix('.images').name}/".encode(), f"{files[0].with_suffix('.images').name}/".encode()
    assert unpacked.replace(*images) == files[0].read_bytes()


def test_a_collator_reads_weights_from_records(scored: Scored, chatml_model: Path, tmp_path: Path) -> None:
    processor = AutoProcessor.from_pretrained(chatml_model)
    lines = export("jsonl", scored, tmp_path / "x.jsonl").read_text().splitlines()
    records = {row["id"]: row["token_weights"] for row in map(json.loads, lines)}
    samples = [{**sample, "token_weights": records[sample["id"]]} for sample in scored.messages()[:3]]
    parts = ChatCollator(processor), WeightAligner(processor)
    by_record = WeightedCollator(*parts, lambda sample: WeightRow.from_record(sample["token_weights"], sample["id"]))
    by_table = WeightedCollator(*parts, scored.table())
    assert_array_equal(by_record(samples)["token_weights"], by_table(samples)["token_weights"])


def test_llava_json(llava_scored: Path, tmp_path: Path) -> None:
    """LLaVA's reader takes the whole array, and record["image"] and record["conversations"] of it."""
    file = tmp_path / "train.json"
    arguments = ["--weights", str(llava_scored / "weights"), "--data", str(llava_scored / "data" / "train.json")]
    assert main(["--to", "llava-json", *arguments, "--output", str(file)]) == 0
    written, original = json.loads(file.read_text()), json.loads((llava_scored / "data" / "train.json").read_text())
    assert len(written) == len(original) == 4
    table = WeightTable.open(llava_scored / "weights")
    for record, source in zip(written, original, strict=True):
        assert (record["id"], record["image"]) == (source["id"], source["image"])
        assert [part["from"] for part in record["conversations"]] == ["human", "gpt", "human", "gpt"]
        assert record["conversations"][0]["value"].startswith("<image>\n")
        assert record["conversations"] == source["conversations"]
        row = WeightRow.from_record(record["token_weights"], record["id"])
        row.check_text(scored_texts(record["conversations"]))
        assert_array_equal(row.weights, table.find(record["id"]).weights)
        assert row.scores is not None
        assert set(row.scores.token_turns.tolist()) == {0, 1}


def test_several_captions_are_several_examples(tmp_path: Path) -> None:
    """By the pipeline's own job on several texts a row: caption k has its own conversation and its own weights."""
    table = pa.table(
        {
            "id": ["a", "b"],
            "image": pa.array([{"bytes": b"ok", "path": None}] * 2),
            "captions": [["a red kite", "", "two boats"], ["one sea", None, "№ 7"]],
        }
    )
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data" / "x.parquet")
    columns = Columns(image=("image",), text=("captions",))
    run(make_job(tmp_path / "data", tmp_path / "out", columns=columns))
    file = tmp_path / "x.jsonl"
    arguments = ["--weights", str(tmp_path / "out"), "--data", str(tmp_path / "data"), "--output", str(file)]
    assert main(["--to", "jsonl", "--prompt", "Describe.", *arguments]) == 0
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    texts = ["a red kite", "two boats", "one sea", "№ 7"]
    assert [row["id"] for row in rows] == ["a#0", "a#2", "b#0", "b#2"]
    assert [scored_texts(row["messages"]) for row in rows] == [(text,) for text in texts]
    for row, text in zip(rows, texts, strict=True):
        back = WeightRow.from_record(row["token_weights"])
        back.check_text([text])
        assert back.scores is not None
        assert back.scores.token_ends[-1] == len(text.encode())
        published = WeightTable.open(tmp_path / "out").find(row["id"][0])
        assert published.scores is not None
        assert published.weights is not None
        assert_array_equal(back.weights, published.weights[published.scores.token_turns == int(row["id"][2])])


def test_weights_are_derived_anew(scored: Scored, tmp_path: Path) -> None:
    file = export("jsonl", scored, tmp_path / "x.jsonl", "--method", "cal", "--method-param", "window=1")
    first = json.loads(file.read_text().splitlines()[0])
    from scorer.weights import Method

    wanted = scored.table(method=Method("cal", {"window": 1})).find(first["id"])
    assert_array_equal(WeightRow.from_record(first["token_weights"]).weights, wanted.weights)
    assert not (scored.table().find(first["id"]).weights == wanted.weights).all()


def changed(data: Path) -> None:
    table = pq.read_table(data / "train-0.parquet")
    captions = pa.array(["another", *table["caption"].to_pylist()[1:]])
    pq.write_table(table.set_column(2, "caption", captions), data / "train-0.parquet")


def shorter(data: Path) -> None:
    pq.write_table(pq.read_table(data / "train-0.parquet").slice(0, 3), data / "train-0.parquet")


def longer(data: Path) -> None:
    table = pq.read_table(data / "train-0.parquet")
    pq.write_table(pa.concat_tables([table, table]), data / "train-0.parquet")


def no_text(data: Path) -> None:
    pq.write_table(pq.read_table(data / "train-0.parquet").drop_columns(["caption"]), data / "train-0.parquet")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (changed, "row 0 of train-0.parquet (sample 'scene-00000'): the text 'another' has hash"),
        (shorter, "the file of shard train-0.parquet has 3 rows, the run scored 6"),
        (longer, "the file of shard train-0.parquet has 12 rows, the run scored 6"),
        (no_text, "train-0.parquet has no column 'caption'; it has id, image: name the column with --text-column"),
        (
            lambda data: (data / "train-1.parquet").unlink(),
            "has no file of the shard train-1.parquet (tr",
        ),
    ],
)
def test_another_dataset_is_refused(
    scored: Scored, tmp_path: Path, capsys: Captured, damage: Any, message: str
) -> None:
    """And nothing is written, not even a part."""
    data = Path(shutil.copytree(scored.data, tmp_path / "data"))
    damage(data)
    file = tmp_path / "out" / "x.jsonl"
    arguments = ["--weights", str(scored.weights), "--data", str(data), "--output", str(file)]
    assert main(["--to", "jsonl", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not file.exists()


@pytest.mark.parametrize("cut", [0, 40, -9], ids=["empty", "torn", "no footer"])
@pytest.mark.parametrize("damaged", ["data", "weights"])
def test_a_damaged_file_is_named(scored: Scored, tmp_path: Path, capsys: Captured, damaged: str, cut: int) -> None:
    folders = {name: Path(shutil.copytree(getattr(scored, name), tmp_path / name)) for name in ("data", "weights")}
    file = next(file for file in sorted(folders[damaged].rglob("*.parquet")) if "_units" not in file.parts)
    file.write_bytes(file.read_bytes()[:cut])
    arguments = ["--weights", str(folders["weights"]), "--data", str(folders["data"])]
    assert main(["--to", "jsonl", *arguments, "--output", str(tmp_path / "x.jsonl")]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {file} ")
    assert error.endswith({"data": "as it was scored", "weights": "with --verify to publish it again"}[damaged])


def test_a_damaged_record_is_named(llava_scored: Path, tmp_path: Path, capsys: Captured) -> None:
    data = Path(shutil.copytree(llava_scored / "data", tmp_path / "data"))
    records = json.loads((data / "train.json").read_text())
    (data / "train.json").write_text(json.dumps([records[0], 3, *records[2:]]))
    arguments = ["--weights", str(llava_scored / "weights"), "--data", str(data / "train.json")]
    assert main(["--to", "jsonl", *arguments, "--output", str(tmp_path / "x.jsonl")]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: row 1 of train.parquet"), error
    assert "its record in the dataset cannot be read (TypeError: " in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "ms-swift"], "--to ms-swift writes token ids; give the trainer's tokenizer with --tokenizer"),
        (["--to", "jsonl", "--method-param", "window=1"], "--method-param is given without --method"),
        (["--to", "jsonl", "--method", "cal", "--method-param", "low=9"], "low ≤ high must hold"),
        (
            ["--to", "jsonl", "--text-column", "truth"],
            "train-0.parquet has no column 'truth'; it has id, image, cap",
        ),
        (["--to", "jsonl", "--weights", "nowhere"], "there is nothing at nowhere"),
        (["--to", "jsonl", "--image-column", "caption"], "column 'caption' holds 'Seen from"),
        (["--to", "jsonl", "--image-column", "image,image"], "--image-column is 'image,image'; name each column once"),
        (["--to", "jsonl", "--threshold", "0.3"], "--threshold is 0.3 with --to jsonl; it goes with --to axolotl"),
        (["--to", "axolotl", "--threshold", "nan"], "--threshold is nan; it must be a finite number"),
        (["--to", "jsonl", "--tokenizer", "foo"], "--tokenizer is foo with --to jsonl; it goes with --to ms-swift"),
    ],
)
def test_options_that_are_wrong(
    scored: Scored, tmp_path: Path, capsys: Captured, arguments: list[str], message: str
) -> None:
    given = ["--weights", str(scored.weights), "--data", str(scored.data), "--output", str(tmp_path / "x")]
    assert main([*given, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_an_output_inside_the_dataset_is_refused(scored: Scored, capsys: Captured) -> None:
    """A later run would take the file for a shard."""
    given = ["--weights", str(scored.weights), "--data", str(scored.data), "--output", str(scored.data / "x.jsonl")]
    assert main(["--to", "jsonl", *given]) == 2
    assert "would write into the dataset" in capsys.readouterr().err
    assert not (scored.data / "x.jsonl").exists()


def test_two_columns_of_one_name_are_refused(scored: Scored, tmp_path: Path, capsys: Captured) -> None:
    data = Path(shutil.copytree(scored.data, tmp_path / "data"))
    for path in data.glob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.append_column("caption", table["caption"]), path)
    given = ["--weights", str(scored.weights), "--data", str(data), "--output", str(tmp_path / "x.jsonl")]
    assert main(["--to", "jsonl", *given]) == 2
    assert "has 2 columns 'caption'; name another with --text-column" in capsys.readouterr().err


@pytest.mark.parametrize("to", sorted(set(FORMATS) - {"ms-swift"}))
def test_captions_that_spell_an_image(tmp_path: Path, capsys: Captured, to: str) -> None:
    """A trainer that writes pictures as ``<image>`` would take the caption for one: refused, naming the text."""
    pq.write_table(
        pa.table({"id": ["a"], "image": pa.array([{"bytes": b"ok", "path": None}]), "caption": ["an <image> here"]}),
        tmp_path / "x.parquet",
    )
    run(make_job(tmp_path / "x.parquet", tmp_path / "out"))
    arguments = ["--weights", str(tmp_path / "out"), "--data", str(tmp_path / "x.parquet"), "--prompt", ""]
    status = main(["--to", to, *arguments, "--output", str(tmp_path / "written")])
    if to == "llava-json":
        assert status == 2
        assert (
            "turn spells <image>, which the trainer would take for an image: 'an <image> here'"
            in capsys.readouterr().err
        )
    else:
        assert status == 0
        assert "an <image> here" in (tmp_path / "written").read_text()
