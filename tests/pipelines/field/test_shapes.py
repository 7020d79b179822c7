"""Shapes of datasets that people publish: each is read right, or refused with the columns and what to do."""

from __future__ import annotations

import base64
import decimal
import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.output.record import RunRecord
from pipelines.sources import ReadRow, column_source
from pipelines.sources.account import describe_account
from pipelines.sources.columns import Columns, check_shard
from pipelines.sources.images import ImageOptions
from scorer.errors import ConfigError, FailureCode
from scorer.training import WeightTable
from scorer.training.collator import texts_of
from scorer.types import IMAGE, Turn
from tests.pipelines.helpers import run
from tests.pipelines.sources.helpers import captions, failure, make_job, read_all, sample, source, texts

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 60
TALK = [{"from": "human", "value": "<image>\nWhat is shown?"}, {"from": "gpt", "value": "A red square."}]
ASKED = (Turn("user", (IMAGE, "What is shown?")), Turn("assistant", ("A red square.",)))


def images(count: int = 1) -> pa.Array:
    return pa.array([{"bytes": b"i", "path": None}] * count, STRUCT)


def parquet(folder: Path, name: str = "a", **columns: Any) -> Path:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def rows_of(folder: Path, **columns: Any) -> list[ReadRow]:
    return read_all(source(parquet(folder, **columns)))


def json_lines(folder: Path, *records: Any, name: str = "a.jsonl") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def refused(folder: Path, asked: Columns | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        source(folder, columns=asked or Columns()).shards()
    return str(caught.value)


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


# --- conversations as strings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["conversations", "messages", "conversation"])
@pytest.mark.parametrize("stored", [json.dumps(TALK), json.dumps(TALK, indent=2), json.dumps(json.dumps(TALK))])
def test_a_json_string_is_a_conversation(tmp_path: Path, name: str, stored: str) -> None:
    good, bad = rows_of(tmp_path, image=images(2), **{name: [stored, "[{'from': 'human'}]"]})
    assert sample(good).turns == ASKED
    assert failure(bad).code is FailureCode.CONVERSATION_INVALID
    assert "not valid JSON" in failure(bad).message


def test_a_struct_of_lists_and_a_list_of_json_strings_are_conversations(tmp_path: Path) -> None:
    """The first is how Hugging Face's Sequence feature stores a list of structs."""
    columns = {"from": [one["from"] for one in TALK], "value": [one["value"] for one in TALK]}
    (row,) = rows_of(tmp_path / "a", image=images(), conversations=pa.array([columns]))
    assert sample(row).turns == ASKED
    (row,) = rows_of(tmp_path / "b", image=images(), messages=[[json.dumps(one) for one in TALK]])
    assert sample(row).turns == ASKED


@pytest.mark.parametrize("markup", [json.dumps(TALK), str(TALK), json.dumps({"messages": TALK}), json.dumps(TALK[:1])])
@pytest.mark.parametrize("listed", [False, True])
def test_a_conversation_is_no_caption(tmp_path: Path, markup: str, listed: bool) -> None:
    wrap = (lambda one: [one]) if listed else (lambda one: one)
    bad, good = rows_of(tmp_path, image=images(2), text=[wrap(markup), wrap('[1] A "role" of paper: {x}.')])
    assert "--messages-column" in failure(bad).message
    assert failure(bad).code is FailureCode.TEXT_INVALID
    assert (captions(good).texts[0] if listed else texts([good])[0]).startswith("[1]")


def test_a_json_string_may_begin_with_a_mark_or_wrap_its_messages(tmp_path: Path) -> None:
    stored = ["\ufeff" + json.dumps(TALK), json.dumps({"id": 7, "conversations": TALK})]
    assert [sample(row).turns for row in rows_of(tmp_path / "a", image=images(2), conversations=stored)] == [ASKED] * 2
    (row,) = rows_of(tmp_path / "b", image=images(), caption=stored[:1])
    assert "list of messages stored as a string" in failure(row).message


PARTS = [{"type": "image"}, {"type": "text", "text": "What is shown?"}]
ANSWER = [{"type": "text", "text": "A red square."}]


@pytest.mark.parametrize("answer", ["A red square.", json.dumps(ANSWER)])
def test_a_content_may_spell_its_parts_as_json(tmp_path: Path, answer: str) -> None:
    talk = [said("user", json.dumps(PARTS)), said("assistant", answer)]
    (row,) = rows_of(tmp_path, image=images(), messages=[talk])
    assert sample(row).turns == ASKED


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is shown?", json.dumps(ANSWER)),  # asked in plain text: the answer is JSON in its own right
        (json.dumps(PARTS[1:]), json.dumps([{"type": "text", "text": "Red", "bbox": [0, 0, 1, 1]}])),
        (json.dumps(PARTS[1:]), json.dumps([{"type": "table", "text": "Red"}])),
        (json.dumps(PARTS[1:]), "[{not JSON}]"),
    ],
)
def test_an_answer_that_is_json_stays_as_it_is(tmp_path: Path, question: str, answer: str) -> None:
    (row,) = rows_of(tmp_path, image=images(), messages=[[said("user", question), said("assistant", answer)]])
    assert sample(row).turns == (ASKED[0], Turn("assistant", (answer,)))


def test_half_a_surrogate_pair_in_parts_fails_its_row(tmp_path: Path) -> None:
    parts = '[{"type": "text", "text": "\\ud83d"}]'
    (row,) = rows_of(tmp_path, image=images(), messages=[[said("user", parts), said("assistant", "Red.")]])
    assert (failure(row).code, "half a surrogate pair" in failure(row).message) == (FailureCode.TEXT_INVALID, True)


def test_parts_may_be_a_struct_of_lists(tmp_path: Path) -> None:
    talk = [
        said("user", {"type": ["image", "text"], "text": [None, "What is shown?"]}),
        said("assistant", {"type": ["text"], "text": ["A red square."]}),
    ]
    (row,) = rows_of(tmp_path, images=images(), messages=[talk])
    assert sample(row).turns == ASKED


@pytest.mark.parametrize("listed", ['["a cat", "a pet"]', "['a cat', 'a pet']", " ['a cat'\n 'a pet']\n"])
def test_a_list_of_captions_in_a_string_is_no_caption(tmp_path: Path, listed: str) -> None:
    for name, column in (("a", [listed]), ("b", [[listed, "x"]])):
        (row,) = rows_of(tmp_path / name, image=images(), caption=column)
        assert failure(row).code is FailureCode.TEXT_INVALID
        assert "list of strings stored as a string" in failure(row).message
    (row,) = rows_of(tmp_path / "c", image=images(), question=["List the animals as JSON."], answer=[listed])
    assert texts([row]) == [listed]  # a question may ask for it
    for plain in ('["a" in gold]', "[a sign] 'stop'", "['tis the season"):
        (row,) = rows_of(tmp_path / "d", image=images(), caption=[plain])
        assert texts([row]) == [plain]


@pytest.mark.parametrize(
    "talk",
    [
        "<|im_start|>user\n<image>What?<|im_end|>\n<|im_start|>assistant\nRed.<|im_end|>",
        "<s>[INST] <image>\nWhat? [/INST] Red.</s>",
        "USER: <image>\nWhat? ASSISTANT: Red.",
        " ### Human: What? ### Assistant: Red.",
    ],
)
def test_a_conversation_in_a_chat_template_is_no_caption(tmp_path: Path, talk: str) -> None:
    (row,) = rows_of(tmp_path / "a", image=images(), text=[talk])
    assert "written in a chat template" in failure(row).message
    (row,) = rows_of(tmp_path / "b", image=images(), question=["What does the page say?"], answer=[talk])
    assert texts([row]) == [talk]


@pytest.mark.parametrize("text", ["A page that says USER: hi ASSISTANT: ho", "ASSISTANT: before USER: it", "[/INST] ["])
def test_words_of_a_template_may_be_in_a_caption(tmp_path: Path, text: str) -> None:
    (row,) = rows_of(tmp_path, image=images(), caption=[text])
    assert texts([row]) == [text]


def test_half_a_surrogate_pair_in_a_json_string_fails_its_row(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, image=images(), messages=[json.dumps(TALK).replace("red", "\\ud83d")])
    assert failure(row).code is FailureCode.TEXT_INVALID


# --- which columns ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("license",), ("split",), ("alt_text",), ("was_said", "split"), ("answer",)])
def test_an_unknown_name_is_not_taken(tmp_path: Path, names: tuple[str, ...]) -> None:
    said = refused(parquet(tmp_path, image=images(), **{name: ["CC-BY"] for name in names}))
    assert "--text-column" in said
    assert all(name in said for name in (*names, "struct<bytes: binary, path: string>"))
    (row,) = read_all(source(tmp_path, columns=Columns(text=names[0])))
    assert texts([row]) == ["CC-BY"]


def test_another_image_of_the_row_leaves_doubt(tmp_path: Path) -> None:
    both = parquet(tmp_path / "a", image=images(), image_2=images(), caption=["a"])
    assert "several columns may hold the image (image, image_2)" in refused(both)
    (row,) = read_all(source(both, columns=Columns(image="image,image_2")))
    assert len(sample(row).images) == 2
    (row,) = read_all(source(both, columns=Columns(image="image")))
    assert len(sample(row).images) == 1


def test_a_mask_beside_an_image_is_not_the_image(tmp_path: Path) -> None:
    src = source(parquet(tmp_path / "a", mask=images(), depth=images(), image=[PNG], caption=["a"]))
    (row,) = read_all(src)
    assert (sample(row).images, src.fingerprint()["columns"]["image"]) == ((PNG,), "image")
    doubt = parquet(tmp_path / "b", mask=images(), image=["a.png"], caption=["a"])
    assert "several columns may hold the image (mask, image)" in refused(doubt)


def test_a_column_of_encoded_bytes_is_an_image(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, image=pa.array([PNG]).dictionary_encode(), caption=["a"])
    assert sample(row).images == (PNG,)


def test_an_answer_that_cannot_be_read_leaves_doubt(tmp_path: Path) -> None:
    columns = {"image": images(), "question": ["Which?"], "answer": pa.array([1], pa.int8()), "solution": ["It flies."]}
    assert "several columns may hold the text (question + solution, answer)" in refused(parquet(tmp_path, **columns))
    (row,) = read_all(source(tmp_path, columns=Columns(text="solution")))
    assert sample(row).turns[0].content == (IMAGE, "Which?")


def test_answers_that_are_no_messages_are_refused_as_a_whole(tmp_path: Path) -> None:
    answers = [[{"answer": "cat", "answer_confidence": "yes"}]]
    said_ = refused(parquet(tmp_path, image=images(), question=["What?"], answers=answers, best=["cat"]))
    assert "no text column was found" in said_
    (row,) = read_all(source(tmp_path, columns=Columns(text="best", prompt="question")))
    assert texts([row]) == ["cat"]


@pytest.mark.parametrize(
    "name", ["options", "choices", "history", "system", "hint", "context", "tools", "video", "audio"]
)
def test_what_usually_belongs_to_a_prompt_is_said_to_be_unread(tmp_path: Path, name: str) -> None:
    src = source(parquet(tmp_path, image=images(), query=["What?"], response=["Red."], **{name: ["x"]}))
    choices = src.choices()
    assert choices is not None
    assert any(line.startswith(f"passed over: {name} (usually ") for line in choices.lines())


def test_an_interleaved_document_is_no_list_of_captions(tmp_path: Path) -> None:
    cells = [[{"bytes": b"i", "path": None}, None, None], [{"bytes": b"i", "path": None}, None]]
    documents = [[None, "Red.", "A square."], ["Red.", None]]
    first, second = rows_of(tmp_path, images=pa.array(cells, pa.list_(STRUCT)), texts=documents)
    assert "a document of 3 parts, each a text or an image" in failure(first).message
    assert captions(second).texts == ("Red.", "")  # two captions of one image, of which one is null


def test_a_row_of_another_name_is_not_a_row_without(tmp_path: Path) -> None:
    """Beyond the rows in which columns are looked for, a record may have its image or question under another name."""
    (tmp_path / "p.png").write_bytes(PNG)
    asked = {"image": "p.png", "question": "What?", "answer": "Red."}
    later = (
        {**asked, "image": None, "images": ["p.png"]},
        {"query": "Where?", "image": "p.png", "answer": "Here."},
        {**asked, "image": None, "images": []},
        {**asked, "question": None, "query": ""},
        {**asked, "img": "another", "query": "other"},
    )
    json_lines(tmp_path, *[asked] * 40, *later)
    image, question, text_only, unasked, whole = read_all(source(tmp_path))[40:]
    assert failure(image).code is FailureCode.IMAGE_MISSING
    assert "nothing in 'image', which is read, but has 'images'" in failure(image).message
    assert "nothing in 'question', which is read, but has 'query'" in failure(question).message
    assert sample(text_only).images == ()
    assert sample(unasked).turns[0].content == (IMAGE, "Describe.")
    assert sample(whole).turns[0].content == (IMAGE, "What?")


def test_an_image_beside_messages_of_earlier_rows_that_hold_theirs_is_not_dropped(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(PNG)
    parts = [{"type": "image", "image": "p.png"}, {"type": "text", "text": "What?"}]
    asked = [{"role": "user", "content": parts}, said("assistant", "Red.")]
    plain = [said("user", "What?"), said("assistant", "Red.")]
    rows = [*[{"messages": asked}] * 40, {"messages": plain, "image": "p.png"}, {"messages": plain, "image": None}]
    json_lines(tmp_path, *rows)
    held, beside, alone = read_all(source(tmp_path))[39:]
    assert len(sample(held).images) == 1
    assert failure(beside).code is FailureCode.IMAGE_MISSING
    assert "the row has 'image'; name it with --image-column, or give --image-column none" in failure(beside).message
    assert sample(alone).images == ()
    unread = read_all(source(tmp_path, columns=Columns(image=())))[40]
    assert sample(unread).images == (), "the user said so"


def test_several_answers_to_a_prompt_of_messages_fail(tmp_path: Path) -> None:
    asked = [[said("user", "What?")]] * 2
    one, two = rows_of(tmp_path, image=images(2), prompt=asked, answer=[["Red."], ["Red.", "A square."]])
    assert sample(one).scored_texts == ("Red.",)
    assert failure(two).message.startswith("the row has 2 answers to a prompt of messages")


def test_unknown_bytes_are_no_image(tmp_path: Path) -> None:
    assert "mask" in refused(parquet(tmp_path, mask=[b"i"], caption=["a"]))


def test_a_run_says_which_columns_it_took_and_records_it(tmp_path: Path) -> None:
    parquet(tmp_path / "data", image=images(), caption=["a kite"], long_caption=["a red kite"], url=["http://x/y"])
    job = make_job(tmp_path / "data", tmp_path / "out", columns=Columns(text="caption"))
    choices = job.source.choices()
    assert choices is not None
    assert choices.lines()[:2] == [
        "image: image (type struct<bytes, path>)",
        "text: caption (named by --text-column)",
    ]
    assert any(
        line.startswith("passed over: long_caption (a known name; to read it: --text-column")
        for line in choices.lines()
    )
    run(job)
    document = json.loads((tmp_path / "out" / "_run.json").read_bytes())
    assert document["choices"] == choices.to_dict()
    del document["choices"]  # as earlier releases wrote it
    assert RunRecord.from_bytes(json.dumps(document).encode()).choices == {}


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("question", "answer"),
        ("instruction", "output"),
        ("instruction", "response"),
        ("query", "response"),
        ("prompt", "completion"),
        ("prompt", "response"),
        ("problem", "solution"),
    ],
)
def test_a_question_is_the_user_s_turn(tmp_path: Path, question: str, answer: str) -> None:
    parquet(tmp_path, image=images(2), **{question: ["What colour?", "<image>\nAnd here?"], answer: ["Red.", "Blue."]})
    for asked in (Columns(), Columns(text=answer), Columns(prompt=question)):
        first, second = read_all(source(tmp_path, columns=asked))
        assert sample(first).turns == (Turn("user", (IMAGE, "What colour?")), Turn("assistant", ("Red.",)))
        assert sample(second).turns[0].content == (IMAGE, "And here?")
    first, _ = read_all(source(tmp_path, columns=Columns(text=answer, prompt="none")))
    assert sample(first).turns[0].content == (IMAGE, "Describe.")


def test_answers_to_one_question_and_several_questions(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path / "a", image=images(), question=["What?"], answers=[["Red.", "Crimson."]])
    assert captions(row).texts == ("Red.", "Crimson.")
    assert captions(row).question.text == "What?"
    several = parquet(tmp_path / "b", image=images(), question=["q"], query=["q"], answer=["a"])
    assert "(question + answer, query + answer)" in refused(several)
    assert "--prompt-column" in refused(several, Columns(text="answer"))
    both = parquet(tmp_path / "c", image=images(), question=["q"], answer=["a"], caption=["c"])
    assert "(caption, question + answer)" in refused(both)


# --- conversations in other forms -------------------------------------------------------------------------------


def test_pairs_of_user_and_assistant(tmp_path: Path) -> None:
    pairs = [
        {"user": "What?", "assistant": "Red.", "source": "x"},
        {"user": "Sure?", "assistant": "Yes.", "source": "x"},
    ]
    (row,) = rows_of(tmp_path, images=pa.array([[{"bytes": b"i", "path": None}]], pa.list_(STRUCT)), texts=[pairs])
    assert [turn.role for turn in sample(row).turns] == ["user", "assistant"] * 2
    assert sample(row).turns[0].content == (IMAGE, "What?")
    assert sample(row).scored_texts == ("Red.", "Yes.")


def test_prompt_and_completion_are_the_collator_s_texts(tmp_path: Path) -> None:
    prompt = [said("user", "Hi"), said("assistant", "Hello."), said("user", "What?")]
    cases = (
        (prompt, [said("assistant", "Red.")], ("Hello.", "Red.")),
        (prompt, "Red.", ("Hello.", "Red.")),
        ("What?", "Red.", ("Red.",)),
        (json.dumps(prompt), "Red.", ("Hello.", "Red.")),
        (json.dumps(prompt), json.dumps([said("assistant", "Red.")]), ("Hello.", "Red.")),
        (json.dumps([{"type": "image"}, {"type": "text", "text": "What?"}]), "Red.", ("Red.",)),
        (
            [said("user", json.dumps([{"type": "text", "text": "What?"}]))],
            [said("assistant", json.dumps([{"type": "text", "text": "Red."}]))],
            ("Red.",),
        ),
    )
    for i, (before, completion, scored) in enumerate(cases):
        (row,) = rows_of(tmp_path / str(i), image=images(), prompt=[before], completion=[completion])
        assert sample(row).scored_texts == scored
        assert sample(row).turns[0].content[0] is IMAGE
        found, trained = texts_of({"prompt": before, "completion": completion})
        assert tuple(found) == scored
        assert list(trained or range(len(scored))) == [len(scored) - 1]


def test_images_inside_parts_need_no_column(tmp_path: Path) -> None:
    parts = [
        {"type": "image", "text": None, "image": {"bytes": b"i", "path": None}},
        {"type": "text", "text": "What?", "image": None},
    ]
    kind = pa.list_(
        pa.struct(
            [
                ("role", pa.string()),
                ("content", pa.list_(pa.struct([("type", pa.string()), ("text", pa.string()), ("image", STRUCT)]))),
            ]
        )
    )
    talk = [said("user", parts), said("assistant", [{"type": "text", "text": "Red."}])]
    src = source(parquet(tmp_path, messages=pa.array([talk], kind)))
    (row,) = read_all(src)
    assert (sample(row).images, sample(row).turns[0].content) == ((b"i",), (IMAGE, "What?"))
    assert src.fingerprint()["columns"]["image"] == ()


def test_image_urls_and_untyped_parts_in_json(tmp_path: Path) -> None:
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()

    def talk(part: Any) -> list[Any]:
        return [said("user", [part, {"type": "text", "text": "What?"}]), said("assistant", "Red.")]

    parts = (
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "image_url", "image_url": url},
        {"type": "input_image", "image_url": url},
        {"image": url},
    )
    json_lines(tmp_path, *({"messages": talk(part)} for part in parts))
    rows = read_all(source(tmp_path))
    assert [sample(row).images for row in rows] == [(PNG,)] * 4
    json_lines(tmp_path, {"messages": talk({"type": "image_url", "image_url": "https://example.org/x.png"})})
    (row,) = read_all(source(tmp_path, columns=Columns(image="none")))
    assert failure(row).code is FailureCode.IMAGE_URL_REFUSED
    json_lines(tmp_path, {"messages": talk({"type": "image"}), "caption_of": "x"})
    assert "--image-column" in refused(tmp_path)


def test_unified_structs_and_roles(tmp_path: Path) -> None:
    null = {"role": None, "content": None, "from": None, "value": None}
    talk = [null | {"from": "human", "value": "x"}, null | {"role": "assistant", "value": "Red."}]
    tool = [said("user", "x"), said("tool", "{}"), said("assistant", "Red.")]
    wrong = [said(["user"], "x"), said("assistant", "Red.")]  # type: ignore[arg-type]
    system = [said("developer", "Be brief."), said("User", "x"), said("assistant", "Red.")]
    json_lines(tmp_path, *({"image": "p.png", "messages": one} for one in (talk, tool, wrong, system)))
    unified, tool_row, wrong_row, system_row = read_all(source(tmp_path))
    assert sample(unified).turns[0].content == (IMAGE, "x")
    assert "'tool': models' templates have no place" in failure(tool_row).message
    assert failure(wrong_row).code is FailureCode.CONVERSATION_INVALID
    assert [turn.role for turn in sample(system_row).turns] == ["system", "user", "assistant"]


# --- images -----------------------------------------------------------------------------------------------------


def test_base64_in_an_image_column_and_a_path_that_looks_like_it(tmp_path: Path) -> None:
    plain = base64.b64encode(PNG).decode()
    jpeg = b"\xff\xd8\xff\xe0" + b"1" * 80  # in base64 it begins like an absolute path
    wrapped = plain[:40] + "\n" + plain[40:]
    long_path = "a" * 70
    cells = [plain, f"data:;base64,{plain}", long_path, wrapped, base64.b64encode(jpeg).decode()]
    parquet(tmp_path, image=cells, caption=["x"] * len(cells))
    rows = read_all(source(tmp_path))
    assert [sample(row).images[0] for row in rows] == [PNG, PNG, str(tmp_path / long_path), PNG, jpeg]
    there = tmp_path / plain
    there.parent.mkdir(parents=True, exist_ok=True)
    there.write_bytes(b"a file")
    assert sample(read_all(source(tmp_path))[0]).images == (str(there),)


def test_base64_in_a_binary_column_is_decoded_and_other_bytes_are_not(tmp_path: Path) -> None:
    """Known by the signature, as in strings; whatever else is letters and digits is the decoder's to refuse."""
    plain = base64.b64encode(PNG)
    cells = [plain, b"data:image/png;base64," + plain, PNG, b"A" * 80, plain[:40], plain + b"\xff"]
    wanted = [PNG, PNG, *cells[2:]]
    parquet(tmp_path / "a", image=pa.array(cells, pa.binary()), caption=["x"] * len(cells))
    assert [sample(row).images[0] for row in read_all(source(tmp_path / "a"))] == wanted
    structs = pa.array([{"bytes": cell, "path": "x.png"} for cell in cells], STRUCT)
    parquet(tmp_path / "b", image=structs, caption=["x"] * len(cells))
    assert [sample(row).images[0] for row in read_all(source(tmp_path / "b"))] == wanted
    cut, large = (read_all(source(tmp_path / name, images=options))[0] for name, options in cut_and_large(tmp_path))
    assert failure(cut).code is FailureCode.IMAGE_UNREADABLE
    assert failure(large).code is FailureCode.IMAGE_TOO_LARGE


def cut_and_large(folder: Path) -> list[tuple[str, ImageOptions]]:
    """Base64 of one character too many in ``c``, and in ``d`` of an image over the limit."""
    plain = base64.b64encode(PNG).rstrip(b"=")
    parquet(folder / "c", image=pa.array([plain + b"A" * (5 - len(plain) % 4)], pa.binary()), caption=["x"])
    parquet(folder / "d", image=pa.array([base64.b64encode(PNG + bytes(9000))], pa.binary()), caption=["x"])
    return [("c", ImageOptions()), ("d", ImageOptions(max_bytes=12_000 - 9000))]


def test_numbered_images_and_their_nulls(tmp_path: Path) -> None:
    one = {"bytes": b"1", "path": None}
    columns = {f"image_{i}": pa.array([one, one if i == 1 else None], STRUCT) for i in (1, 2, 10)}
    src = source(parquet(tmp_path, text=["a", "b"], **columns))
    assert [len(sample(row).images) for row in read_all(src)] == [3, 1]
    assert src.columns.image == ("image_1", "image_2", "image_10")


@pytest.mark.parametrize("absent", [None, [], [None], [{"bytes": None, "path": None}], [{"bytes": b"", "path": ""}]])
def test_a_row_without_an_image_is_text_only_unless_it_has_a_place_for_one(tmp_path: Path, absent: Any) -> None:
    def talk(text: str) -> list[Any]:
        return [said("user", text), said("assistant", "Red.")]

    column = pa.array([[{"bytes": b"i", "path": None}], absent, absent], pa.list_(STRUCT))
    seen, plain, marked = rows_of(tmp_path, images=column, messages=[talk("<image>Hi"), talk("Hi"), talk("<image>Hi")])
    assert sample(seen).images == (b"i",)
    assert (sample(plain).images, sample(plain).turns[0].content) == ((), ("Hi",))
    assert failure(marked).code is FailureCode.IMAGE_MISSING


# --- JSON -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "table",
    [
        {"image": ["p.png", "p.png"], "caption": ["a", "b"]},
        {"info": {"year": 2014}, "images": [{"id": 1, "file_name": "p.png"}], "annotations": [{"caption": "a"}]},
        {"data": [{"image": "p.png", "caption": "a"}]},
        {"version": "1.0", "data": [{"image": "p.png", "caption": "a"}]},
        {"image": {"0": "p.png"}, "caption": {"0": "a"}},
        {"train": [], "test": [{"image": "p.png", "caption": "a"}]},
    ],
)
def test_an_object_that_holds_a_table_is_not_a_row(tmp_path: Path, table: dict[str, Any]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(table))
    said = refused(tmp_path)
    assert all(repr(key) in said for key in table)
    assert "array of records" in said


@pytest.mark.parametrize(
    "record",
    [
        {"image": "p.png", "caption": "A red square."},
        {"image": "p.png", "caption": "A red square.", "objects": [{"box": [1, 2]}]},
        {"images": ["p.png"], "messages": [said("user", "x"), said("assistant", "A red square.")]},
    ],
)
def test_an_object_that_is_a_row_is_one(tmp_path: Path, record: dict[str, Any]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(record))
    assert texts(read_all(source(tmp_path))) == ["A red square."]


@pytest.mark.parametrize("early", [{"images": []}, {"images": None}, {}, {"images": [], "caption": 7}])
def test_the_first_rows_do_not_veto_a_column(tmp_path: Path, early: dict[str, Any]) -> None:
    first = [{"caption": "t"} | early] * 40
    json_lines(tmp_path, *first, {"images": "p.png", "caption": "a"}, {"images": ["p.png", "q.png"], "caption": "b"})
    rows = read_all(source(tmp_path))
    assert [len(sample(row).images) for row in rows[40:]] == [1, 2]
    if early.get("caption") == 7:
        assert failure(rows[0]).code is FailureCode.TEXT_INVALID


@pytest.mark.parametrize(("before", "found"), [(2**14 - 1, True), (2**14, False)])
def test_a_column_must_show_in_the_first_16_384_rows(tmp_path: Path, before: int, found: bool) -> None:
    rows = [{"caption": "x"}] * before
    json_lines(tmp_path, *rows, {"caption": "x", "image": "p.png"}, *rows[:2000])
    if found:
        assert source(tmp_path).fingerprint()["columns"]["image"] == "image"
    else:
        assert "no image column was found" in refused(tmp_path)


def test_what_is_refused_names_the_options_that_settle_it(tmp_path: Path) -> None:
    json_lines(tmp_path, {"caption": "x"})
    assert "name it with --image-column, or give --image-column none if" in refused(tmp_path)
    json_lines(tmp_path, {"image": "p.png", "answer": "x"})
    alone = refused(tmp_path)
    assert "no question column was found; name the question with --prompt-column" in alone
    assert "or take the answer alone with --text-column answer." in alone
    assert source(tmp_path, columns=Columns(text="answer")).fingerprint()["columns"]["text"] == "answer"
    json_lines(tmp_path, {"image": "p.png", "question": "w", "instruction": "v", "answer": "x"})
    asked = Columns(text="answer")
    assert "name one with --prompt-column, or read none of them with --prompt-column none." in refused(tmp_path, asked)


# --- ids --------------------------------------------------------------------------------------------------------

UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("column", "ids", "stored"),
    [
        (pa.array([7, None]), [7, np.int32(7), 7.0, "7"], "7"),
        (pa.array([7.5, None]), [7.5, np.float64(7.5), "7.5"], "7.5"),
        (pa.array([np.float32(0.1), None], pa.float32()), [np.float32(0.1)], str(float(np.float32(0.1)))),
        (pa.array([UUID.bytes, None], pa.binary(16)), [UUID, UUID.bytes, str(UUID)], str(UUID)),
        (pa.array([UUID.bytes, None], pa.uuid()), [UUID, UUID.bytes, str(UUID)], str(UUID)),
        (pa.array([b"row", None]), [b"row", "row"], "row"),
        (pa.array([decimal.Decimal("7.50"), None]), [decimal.Decimal("7.5"), "7.5"], "7.5"),
        (pa.array(["x", None], pa.large_string()), ["x", np.str_("x")], "x"),
        (pa.array(["x", None]).dictionary_encode(), ["x"], "x"),
        (pa.array([7, None]).dictionary_encode(), [7], "7"),
    ],
)
def test_ids_of_every_type_are_kept_and_found(tmp_path: Path, column: pa.Array, ids: list[Any], stored: str) -> None:
    parquet(tmp_path / "data", id=column, image=images(2), caption=["a", "b"])
    run(make_job(tmp_path / "data", tmp_path / "out"))
    table = WeightTable.open(tmp_path / "out")
    assert [row.sample_id for row in table] == [stored, "a.parquet#1"]
    for one in ids:
        assert table.find(one).row_index == 0


def test_a_late_id_in_json_is_found_by_its_name_only(tmp_path: Path) -> None:
    """JSON has no schema, and all of it is not parsed to look for an id that may not be there."""
    early = [{"image": "p.png", "caption": "x"}] * 40
    json_lines(tmp_path, *early, {"image": "p.png", "caption": "x", "id": 7})
    assert read_all(source(tmp_path))[-1].sample_id == "a.parquet#40"
    assert read_all(source(tmp_path, columns=Columns(id="id")))[-1].sample_id == "7"


def test_a_list_is_no_id(tmp_path: Path) -> None:
    src = source(parquet(tmp_path, id=[["x"]], image=images(), caption=["a"]))
    assert [row.sample_id for row in read_all(src)] == ["a.parquet#0"]
    assert any("passed over: id (a known name, but list" in line for line in src.choices().lines())


# --- shards that differ -----------------------------------------------------------------------------------------


def test_shards_are_read_by_their_own_types(tmp_path: Path) -> None:
    swapped = pa.struct([("path", pa.string()), ("bytes", pa.binary())])
    parquet(tmp_path, "a", image=pa.nulls(0), caption=pa.nulls(0))
    parquet(tmp_path, "b", id=pa.array([1], pa.int32()), image=images(), caption=["1"])
    parquet(tmp_path, "c", n=[1], caption=pa.array(["2"], pa.large_string()), image=images(), id=pa.array([2]))
    parquet(
        tmp_path,
        "d",
        image=pa.array([{"bytes": b"i", "path": None}], swapped),
        caption=pa.array(["3"]).dictionary_encode(),
    )
    parquet(tmp_path, "e", id=[5.0], image=pa.nulls(1), caption=["4"])
    parquet(tmp_path, "f", id=["six"], image=images(), caption=[["5", "6"]])
    rows = read_all(source(tmp_path))
    assert texts(rows[:-1]) == ["1", "2", "3", "4"]
    assert captions(rows[-1]).texts == ("5", "6")
    assert [row.sample_id for row in rows] == ["1", "2", "d.parquet#0", "5", "six"]


def test_a_later_shard_shows_what_the_first_does_not(tmp_path: Path) -> None:
    parquet(tmp_path, "a", image=images(), caption=pa.nulls(1))
    parquet(tmp_path, "b", image=images(), caption=["2"], id=[7])
    src = source(tmp_path)
    first, second = read_all(src)
    assert read_all(source(tmp_path, columns=Columns(**src.columns.roles(), complete=True))) == [first, second]
    assert failure(first).code is FailureCode.TEXT_MISSING
    assert failure(first).sample_id == "a.parquet#0"
    assert (texts([second]), sample(second).sample_id) == (["2"], "7")


def test_an_id_that_only_the_last_of_many_shards_has_is_found(tmp_path: Path) -> None:
    for i in range(70):
        parquet(tmp_path / "data", f"{i:02}", image=images(), caption=["x"], **({"id": [7]} if i == 69 else {}))
    job = make_job(tmp_path / "data", tmp_path / "out")
    run(job)
    assert WeightTable.open(tmp_path / "out").find(7).shard == "69.parquet"
    files = json.loads((tmp_path / "out" / "_SUCCESS").read_bytes())["files"]
    assert files["without_id"] == {"count": 69, "examples": ["00.parquet", "01.parquet", "02.parquet"]}
    said = "; 69 have no id, although others do: their rows are named SHARD#ROW (00.parquet, 01.parquet, 02.parquet, …)"
    assert describe_account(files).endswith(said)


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_shards_with_ids_of_other_names(tmp_path: Path, format: str) -> None:
    """Each is read with its own; what an option says of the id holds for all."""
    tables = {"a": {}, "b": {"image_id": ["b"]}, "c": {"id": ["c"]}, "d": {"id": [["d"]]}}
    for name, columns in tables.items():
        table = pa.table({"image": images(), "caption": [name], **columns})
        if format == "parquet":
            pq.write_table(table, tmp_path / f"{name}.parquet")
        else:
            with pa.ipc.new_file(tmp_path / f"{name}.arrow", table.schema) as writer:
                writer.write_table(table)

    def ids(asked: Columns) -> tuple[list[str], int]:
        src = source(tmp_path, columns=asked)
        rows = read_all(src)
        assert texts(rows) == list(tables)
        return [row.sample_id for row in rows], src.account().get("without_id", {"count": 0})["count"]

    assert ids(Columns()) == (["a.parquet#0", "b", "c", "d.parquet#0"], 2)
    assert ids(Columns(id="none")) == ([f"{name}.parquet#0" for name in tables], 0)
    del tables["a"]
    (tmp_path / f"a.{format}").unlink()
    named = (["b", "c.parquet#0", "d.parquet#0"], 2)
    assert ids(Columns(id="image_id")) == named
    lines = source(tmp_path).choices().lines()
    assert "in c.parquet:" in lines
    assert "  id: id (known name; the shard has no image_id)" in lines


def test_shards_are_held_against_the_columns_once_for_each_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metadata differ between shards of one table, such as the rows that pandas counts."""
    for i in range(20):
        columns = {"image": images(), "caption" if i < 10 else "text": [str(i)]}
        (tmp_path / "data").mkdir(exist_ok=True)
        table = pa.table(columns).replace_schema_metadata({"pandas": str(i)})
        pq.write_table(table, tmp_path / "data" / f"{i:02}.parquet")
    checked = []
    monkeypatch.setattr(column_source, "check_shard", lambda *args: checked.append(args[2][0]) or check_shard(*args))
    src = source(tmp_path / "data")
    assert texts(read_all(src)) == [str(i) for i in range(20)]
    assert checked == ["00.parquet", "10.parquet"]
    assert len(src.fingerprint()["own_columns"]) == 10


def test_shards_that_contradict_each_other_are_both_named(tmp_path: Path) -> None:
    parquet(tmp_path, "a", image=images(), caption=["1"])
    parquet(tmp_path, "b", image=[7], caption=["1"])
    said = refused(tmp_path)
    assert "'image' is int64 in shard b.parquet but is struct<bytes: binary, path: string> in a.parquet" in said


def test_a_shard_of_another_shape_is_read_by_its_own_known_names(tmp_path: Path) -> None:
    prompt, completion = [said("user", "What?")], [said("assistant", "Red.")]
    parquet(tmp_path, "a", image=images(), conversations=[TALK])
    parquet(tmp_path, "b", image=images(), prompt=[prompt], completion=[completion])
    src = source(tmp_path)
    assert texts(read_all(src)) == ["A red square.", "Red."]
    assert "in b.parquet:" in src.choices().lines()
    assert src.fingerprint()["own_columns"]["b.parquet"]["messages"] == "completion"
    recorded = source(tmp_path, columns=Columns(**src.columns.roles(), complete=True))
    assert texts(read_all(recorded)) == ["A red square.", "Red."]
