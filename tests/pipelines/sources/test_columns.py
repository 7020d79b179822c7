from __future__ import annotations

import pyarrow as pa
import pytest

from pipelines.sources.columns import Columns, choose
from scorer.errors import ConfigError

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
HF_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def found(fields: dict[str, pa.DataType], asked: Columns | None = None, **options: bool) -> Columns:
    return choose(pa.schema(fields.items()), asked or Columns(), "part-0.parquet", **options).columns


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"image": STRUCT, "caption": pa.string()}, Columns(image="image", text="caption")),
        ({"id": pa.int64(), "jpg": pa.binary(), "txt": pa.string()}, Columns(image="jpg", text="txt", id="id")),
        ({"photo": pa.large_binary(), "TEXT": pa.large_string()}, Columns(image="photo", text="TEXT")),
        ({"file_name": pa.string(), "text": pa.string()}, Columns(image="file_name", text="text")),
        ({"images": pa.list_(STRUCT), "messages": HF_MESSAGES}, Columns(image="images", messages="messages")),
        ({"image": STRUCT, "other": STRUCT, "caption": pa.string()}, Columns(image="image", text="caption")),
        # the struct is the image, the string beside it is not
        ({"image_path": pa.string(), "scan": STRUCT, "text": pa.string()}, Columns(image="scan", text="text")),
        (
            {"image": pa.dictionary(pa.int32(), pa.string()), "text": pa.dictionary(pa.int8(), pa.string())},
            Columns(image="image", text="text"),
        ),
        (  # an image has several questions, a question one answer
            {"image_id": pa.int64(), "question_id": pa.int64(), "image": STRUCT, "caption": pa.string()},
            Columns(image="image", text="caption", id="question_id"),
        ),
        (
            {"image_id": pa.int64(), "id": pa.string(), "image": STRUCT, "caption": pa.string()},
            Columns(image="image", text="caption", id="id"),
        ),
    ],
)
def test_plain_datasets_need_no_options(fields: dict[str, pa.DataType], expected: Columns) -> None:
    assert found(fields) == expected


@pytest.mark.parametrize(
    ("fields", "option"),
    [
        ({"caption": pa.string()}, "--image-column"),
        ({"a": STRUCT, "b": STRUCT, "caption": pa.string()}, "--image-column"),
        ({"image": STRUCT}, "--text-column or --messages-column"),
        ({"image": STRUCT, "caption": pa.string(), "text": pa.string()}, "--text-column or --messages-column"),
        ({"image": STRUCT, "caption": pa.string(), "messages": HF_MESSAGES}, "--text-column or --messages-column"),
        ({"image": STRUCT, "one": pa.string(), "two": pa.string()}, "--text-column or --messages-column"),
    ],
)
def test_a_doubt_lists_the_columns_and_names_the_option(fields: dict[str, pa.DataType], option: str) -> None:
    with pytest.raises(ConfigError) as caught:
        found(fields)
    message = str(caught.value)
    assert option in message
    assert "part-0.parquet" in message
    for name, kind in fields.items():
        assert name in message
        assert str(kind) in message


def test_a_named_column_wins_over_the_usual_names() -> None:
    fields = {"image": STRUCT, "scan": pa.binary(), "caption": pa.string(), "alt": pa.string(), "key": pa.string()}
    asked = Columns(image="scan", text="alt", id="caption", prompt="key")
    assert found(fields, asked) == asked


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Columns(text="nope"), "there is no column 'nope'; name another with --text-column"),
        (Columns(text="n"), "column 'n' is int64, not a string or a list of strings; name another with --text-column"),
        (Columns(image="n"), "column 'n' is int64, not an image"),
        (Columns(messages="n"), "column 'n' is int64, not a list of messages"),
        (Columns(id="image"), "not a string, a number, a UUID or bytes; name another with --id-column"),
    ],
)
def test_a_named_column_must_exist_and_fit(asked: Columns, message: str) -> None:
    with pytest.raises(ConfigError, match="The columns of part-0") as caught:
        found({"image": STRUCT, "text": pa.string(), "n": pa.int64()}, asked)
    assert message in str(caught.value)


def test_text_and_messages_exclude_each_other() -> None:
    fields = {"image": STRUCT, "text": pa.string(), "messages": HF_MESSAGES}
    with pytest.raises(ConfigError, match="both given"):
        found(fields, Columns(text="text", messages="messages"))


def test_the_image_contrast_needs_a_column_of_its_own() -> None:
    fields = {"image": STRUCT, "other": STRUCT, "text": pa.string()}
    with pytest.raises(ConfigError, match="--contrast image:COLUMN"):
        found(fields, needs_contrast=True)
    asked = Columns(contrast_image="other")
    assert found(fields, asked, needs_contrast=True).contrast_image == "other"
    # left out where no contrast reads it: it would be read for nothing
    assert found(fields, asked).contrast_image is None
