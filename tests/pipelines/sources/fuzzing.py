"""Records with one value replaced by something odd, in every format; what must hold of reading them.

A file holds good rows, and a few whose values are mutated where they stand: another type, null, huge, nested, half a
surrogate pair, an odd URL or path. Reading and encoding it gives one entry per row, leaves the good rows as they are
without the others, and raises nothing. (The good rows come first, since columns are detected from those.)
"""

from __future__ import annotations

import io
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from PIL import Image

from pipelines.run.encoding import encode_rows
from pipelines.sources import ReadRow
from pipelines.sources.columns import Columns
from pipelines.sources.formats import open_source
from scorer.encoding.encoder import Encoder
from scorer.mini import MODEL_PATH
from scorer.results import Failure
from scorer.table import build_table
from scorer.types import EncodedSample
from scorer.weights import Method
from tests.pipelines.sources.helpers import tar_bytes

GOOD_FIRST: Final = 32
"""Rows from which the columns of an indexed file are detected."""

RAW: Final[Mapping[str, str]] = {
    "@deep": "[" * 3000 + "]" * 3000,
    "@deeper": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "@digits": "1" * 5000,
    "@overflow": "1e999",
}
"""JSON that Python's encoder does not write."""

ODD: Final[tuple[Any, ...]] = (
    *(None, True, 0, -1, 2**31, 2**70, 0.5, float("nan"), float("inf")),
    *(
        "",
        " ",
        "\n",
        "\x00",
        "\ud800",
        "\udfff\ud800",
        "🪁\u202e",
        "<image>",
        "<image>" * 3,
        "<|im_end|>",
        "x" * 100_000,
    ),
    *(
        "http://[IMG]/x.jpg",
        "http://[::1",
        "https://",
        "http://\ud800/",
        "http://a.b:99999/x",
        "HTTP://x y/",
        "://",
        "x://",
    ),
    *("file://[", "file:///", "s3://[b]/x", "data:image/png;base64,AAAA", "data:,", "data:image/png;base64,\ud800"),
    *(
        "../" * 50,
        "/dev/null",
        "/",
        ".",
        "a/b" * 3000,
        "\x00.png",
        "p.png\x00",
        "p.png/",
        "~",
        "C:\\x.png",
        "nowhere.png",
    ),
    *([], {}, [[]], [None], [{}], {"bytes": None, "path": None}, {"bytes": "p.png", "path": 3}, {"path": ["p.png"]}),
    *(["user"], {"role": ["user"]}, {"role": {}, "content": 1}, {"from": None, "value": None}, {"type": ["text"]}),
    *({"type": "image"}, {"type": "text"}, {"type": "text", "text": 7}, [["p.png"], None], ["a", ["b", ["c"]]]),
    *RAW,
)

Path_ = tuple[Any, ...]


@cache
def good_image() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(buffer, "PNG")
    return buffer.getvalue()


@cache
def encoder() -> Encoder:
    """The packaged model's: a real one, on a real tokenizer and template."""
    return Encoder.load(MODEL_PATH)


def caption_record(i: int) -> dict[str, Any]:
    return {"id": f"r{i}", "image": "p.png", "caption": f"A red circle {i}.", "prompt": "What is it?"}


def llava_record(i: int) -> dict[str, Any]:
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": f"A red circle {i}."}]
    return {"id": f"r{i}", "image": "p.png", "conversations": turns}


def parts_record(i: int) -> dict[str, Any]:
    question = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    answer = [{"type": "text", "text": f"A red circle {i}."}]
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": f"r{i}", "images": ["p.png"], "messages": messages}


def several_record(i: int) -> dict[str, Any]:
    return {"id": i, "image": {"bytes": None, "path": "p.png"}, "captions": [f"A red circle {i}.", "A circle."]}


SHAPES: Final[tuple[tuple[Callable[[int], dict[str, Any]], Columns], ...]] = (
    (caption_record, Columns(prompt="prompt", id="id")),
    (llava_record, Columns(id="id")),
    (parts_record, Columns()),
    (several_record, Columns(text="captions", id="id")),
)

_words = st.text(max_size=20)
_leaves = st.none() | st.booleans() | st.integers() | st.floats() | _words
_json = st.recursive(_leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_words, inner, max_size=4))
odd_values: st.SearchStrategy[Any] = st.sampled_from(ODD) | _json


def paths(value: Any, before: Path_ = ()) -> list[Path_]:
    """Every position of a value, the whole left out."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, inner in items for path in ((*before, key), *paths(inner, (*before, key)))]


def replaced(record: dict[str, Any], path: Path_, how: str, value: Any) -> dict[str, Any]:
    """The record with the value at ``path`` replaced, left out, wrapped or repeated."""
    record = deepcopy(record)
    parent: Any = record
    for key in path[:-1]:
        parent = parent[key]
    key = path[-1]
    old = parent[key]
    if how == "drop":
        del parent[key]
    else:
        parent[key] = {"set": value, "wrap": [old], "name": {"value": old}, "repeat": [old, value, old]}[how]
    return record


@st.composite
def mutated(draw: st.DrawFn, record: dict[str, Any]) -> dict[str, Any]:
    """A record with one or two values mutated."""
    for _ in range(draw(st.integers(1, 2))):
        places = paths(record)
        if not places:
            break
        path = draw(st.sampled_from(places))
        how = draw(st.sampled_from(["set"] * 6 + ["drop", "wrap", "name", "repeat"]))
        record = replaced(record, path, how, deepcopy(draw(odd_values)))
    return record


def dumped(record: Any) -> bytes:
    text = json.dumps(record)
    for name, raw in RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text.encode()


@cache
def _good_rows(make: Callable[[int], dict[str, Any]]) -> list[bytes]:
    return [dumped(make(i)) for i in range(GOOD_FIRST)]


Written = tuple[Columns, bytes, list[int]]
"""The columns to name, the file's bytes, and the rows that are mutated."""


@st.composite
def json_files(draw: st.DrawFn, kind: str) -> Written:
    make, columns = draw(st.sampled_from(SHAPES))
    rows = _good_rows(make)
    bad = [dumped(draw(mutated(make(i)))) for i in range(draw(st.integers(1, 3)))]
    if kind == "jsonl" and draw(st.booleans()):
        raw = draw(st.binary(min_size=1, max_size=40)).replace(b"\n", b"n")
        bad.append(b'{"id": ' + raw)
    places = list(range(len(rows), len(rows) + len(bad)))
    rows = [*rows, *bad, dumped(make(99))]
    return columns, b"[" + b",\n".join(rows) + b"]" if kind == "json" else b"\n".join(rows) + b"\n", places


@st.composite
def tar_files(draw: st.DrawFn) -> Written:
    record = {"caption": "unread", "prompt": "What is it?"}
    rows = [_members(i, record) for i in range(GOOD_FIRST)]
    for i in range(draw(st.integers(1, 3))):
        members = _members(GOOD_FIRST + i, draw(mutated(record)))
        name, data = draw(st.sampled_from(members))
        odd = draw(
            st.sampled_from([b"", b"\xff\xfe", b"{", b"[1]", b"null", b'"x"', b"\x00" * 9, data[:20], data * 2])
            | st.binary(max_size=60)
        )
        suffix = draw(st.sampled_from(["txt", "json", "png", "jpg", "", "TXT", "a.b", "caption", "é", "\udcff", "cls"]))
        key = name.partition(".")[0]
        how = draw(st.sampled_from(["set", "drop", "add", "rename"]))
        if how in ("set", "rename"):
            members[members.index((name, data))] = (name, odd) if how == "set" else (f"{key}.{suffix}", data)
        elif how == "drop":
            members.remove((name, data))
        else:
            members.append((f"{key}.{suffix}", odd))
        rows.append(members)
    places = list(range(GOOD_FIRST, len(rows)))
    rows.append(_members(99, record))
    return Columns(prompt="prompt"), tar_bytes([member for members in rows for member in members]), places


def _members(i: int, record: dict[str, Any]) -> list[tuple[str, bytes]]:
    key = f"{i:03}"
    return [(f"{key}.png", good_image()), (f"{key}.txt", b"A red circle."), (f"{key}.json", dumped(record))]


_text = st.none() | st.sampled_from([x for x in ODD if isinstance(x, str) and x not in RAW]) | _words
_bytes = _text.map(lambda text: None if text is None else text.encode(errors="surrogatepass")) | st.binary(max_size=30)
_STRUCT: Final = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_MESSAGES: Final = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_GOOD_MESSAGES: Final = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A red circle."}]


def _in_utf8(text: str | None) -> str | None:
    return None if text is None else text.encode(errors="replace").decode()


_nullable_text = _text.map(_in_utf8)
_image = st.none() | st.fixed_dictionaries({"bytes": _bytes | st.just(good_image()), "path": _nullable_text})
_message = st.none() | st.fixed_dictionaries(
    {"role": _nullable_text | st.sampled_from(["user", "assistant"]), "content": _nullable_text}
)

# name → the column's type, a good value, odd values
_IMAGE_COLUMNS: Final = (
    (_STRUCT, {"bytes": good_image(), "path": None}, _image),
    (pa.list_(_STRUCT), [{"bytes": good_image(), "path": None}], st.none() | st.lists(_image, max_size=3)),
    (pa.binary(), good_image(), _bytes),
    (pa.string(), "p.png", _nullable_text),
)
_TEXT_COLUMNS: Final = (
    ("caption", pa.string(), "A red circle.", _nullable_text),
    ("caption", pa.large_string(), "A red circle.", _nullable_text),
    ("caption", pa.list_(pa.string()), ["A red circle."], st.none() | st.lists(_nullable_text, max_size=3)),
    ("messages", _MESSAGES, _GOOD_MESSAGES, st.none() | st.lists(_message, max_size=4)),
)
_ID_COLUMNS: Final = (
    (pa.string(), "r", _nullable_text),
    (pa.int64(), 7, st.none() | st.integers(-(2**63), 2**63 - 1)),
    (pa.uint64(), 7, st.none() | st.integers(0, 2**64 - 1)),
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[Columns, pa.Table, list[int]]:
    image_type, good_picture, odd_picture = draw(st.sampled_from(_IMAGE_COLUMNS))
    text_name, text_type, good_text, odd_text = draw(st.sampled_from(_TEXT_COLUMNS))
    id_type, good_id, odd_id = draw(st.sampled_from(_ID_COLUMNS))
    good = {"id": good_id, "image": good_picture, text_name: good_text, "prompt": "What is it?"}
    odd = {"id": odd_id, "image": odd_picture, text_name: odd_text, "prompt": _nullable_text}
    bad = []
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(good)))
        bad.append({**good, name: draw(odd[name])})
    rows = [good, good, *bad, good]
    types = {"id": id_type, "image": image_type, text_name: text_type, "prompt": pa.string()}
    columns = {name: pa.array([row[name] for row in rows], types[name]) for name in good}
    if draw(st.booleans()):  # Parquet does not promise that a string column is UTF-8
        name = draw(st.sampled_from([name for name in good if types[name] == pa.string()]))
        values = [None if row[name] is None else str(row[name]).encode() for row in rows]
        values[2] = draw(st.sampled_from([b"\xff", b"\xed\xa0\x80", b"ok\xc3"]))
        columns[name] = pa.array(values, pa.binary()).view(pa.string())
    asked = Columns(prompt="prompt", image="image", id="id")
    return asked, pa.table(columns), list(range(2, 2 + len(bad)))


@st.composite
def parquet_files(draw: st.DrawFn) -> Written:
    asked, table, places = draw(tables())
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=draw(st.integers(1, 6)))
    return asked, sink.getvalue(), places


@st.composite
def arrow_files(draw: st.DrawFn) -> Written:
    """A stream, as ``datasets`` saves it, or the format with a footer, in batches of a few rows."""
    asked, table, places = draw(tables())
    sink = io.BytesIO()
    begin = draw(st.sampled_from([pa.ipc.new_stream, pa.ipc.new_file]))
    with begin(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=draw(st.integers(1, 6)))
    return asked, sink.getvalue(), places


FILES: Final[Mapping[str, tuple[str, st.SearchStrategy[Written]]]] = {
    "parquet": ("parquet", parquet_files()),
    "arrow": ("arrow", arrow_files()),
    "webdataset": ("tar", tar_files()),
    "json": ("json", json_files("json")),
    "jsonl": ("jsonl", json_files("jsonl")),
}
"""Format → the suffix of its files, and files with mutated rows."""


def check(format: str, written: Written) -> Counter[str]:
    """Read and encode a file, and hold it to the module's promise. The outcomes of the mutated rows, by code."""
    asked, data, places = written
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "p.png").write_bytes(good_image())
        path = Path(folder) / f"a.{FILES[format][0]}"
        path.write_bytes(data)
        source = open_source(str(path), format, asked, prompt="Describe.")
        (shard,) = source.shards()
        rows = source.read(shard.part(0, shard.rows), 0, shard.rows)
        outcomes = _outcomes(rows, places)
    others = [i for i in range(len(rows)) if i not in places]
    assert not [rows[i] for i in others if isinstance(rows[i], Failure)]
    assert len({_content(rows[i]) for i in others}) == 1, "a good row was changed by another"
    return outcomes


def _outcomes(rows: Sequence[ReadRow], places: Sequence[int]) -> Counter[str]:
    """Encode the mutated rows beside a good one, and store the failures."""
    tried = [rows[0], *(rows[i] for i in places)]
    encoded = encode_rows(tried, encoder())
    assert [row.sample_id for row in encoded] == [row.sample_id for row in tried]
    assert isinstance(encoded[0], EncodedSample) or not isinstance(encoded[0], Failure)
    failures = [row for row in encoded if isinstance(row, Failure)]
    assert build_table(failures, 0, Method(), {}).num_rows == len(failures)
    return Counter(row.code.value if isinstance(row, Failure) else "ok" for row in encoded[1:])


def _content(row: ReadRow) -> str:
    """What a good row's sample holds beside its number."""
    assert not isinstance(row, Failure)
    turns = row.turns if hasattr(row, "turns") else (row.question, *row.texts)
    return "".join(c for c in repr((turns, [str(image)[-40:] for image in row.images])) if not c.isdigit())
