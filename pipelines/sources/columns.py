"""Find the columns of a dataset: those named by options, the others by type and by the names that datasets use.

A column is chosen automatically only if there is a single candidate. Anything else is an error that lists the columns
and names the option that settles the choice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import pyarrow as pa

from scorer.errors import ConfigError

OPTIONS: Final[Mapping[str, str]] = {
    "image": "--image-column",
    "text": "--text-column",
    "messages": "--messages-column",
    "id": "--id-column",
    "prompt": "--prompt-column",
    "contrast_image": "--contrast image:COLUMN",
}
"""The command-line option for each role."""

Names = str | tuple[str, ...]
"""A column, or several whose values form a list in this order."""

IMAGE_NAMES: Final = ("image", "images", "img", "picture", "jpg", "jpeg", "png", "image_bytes")
IMAGE_PATH_NAMES: Final = ("image_path", "image_file", "img_path", "file_name", "filename", "filepath", "path")
IMAGE_URL_NAMES: Final = ("image_url", "image_urls", "img_url", "url", "urls")
TEXT_NAMES: Final = ("caption", "text", "txt", "description", "answer", "captions", "texts", "descriptions")
MESSAGE_NAMES: Final = ("messages", "conversations", "conversation")
ID_NAMES: Final = ("id", "sample_id", "image_id", "uid", "uuid", "key", "__key__")

_NUMBERED: Final = re.compile(r"(caption|text|description)s?_?([0-9]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The column of each role; None if there is none. Once resolved, either ``text`` or ``messages`` is set.

    A name with commas that is not itself a column's name means several columns: texts of the same image, or images of
    one row.
    """

    image: Names | None = None
    text: Names | None = None
    messages: str | None = None
    id: str | None = None
    prompt: str | None = None
    contrast_image: Names | None = None

    def names(self) -> list[str]:
        """Return the columns to read, each once."""
        found = (getattr(self, field.name) for field in fields(self))
        return list(dict.fromkeys(name for value in found for name in _each(value)))


def resolve(schema: pa.Schema, asked: Columns, shard: str, *, needs_contrast: bool = False) -> Columns:
    """Complete ``asked`` with the columns that the schema leaves no doubt about.

    Args:
        schema: the first shard's schema.
        asked: the columns named by options.
        shard: the shard's name, for messages.
        needs_contrast: whether the contrast ``image`` is used, which reads its image from a separate column.

    Raises:
        ConfigError: a named column is missing or has the wrong type, or a role has no column or several candidates.
    """
    found = _Finder(schema, shard)
    asked = _split(asked, schema.names)
    for role, accepts, expected in _ACCEPTS:
        for name in _each(getattr(asked, role)):
            found.check(role, name, accepts, expected)
    if asked.text is not None and asked.messages is not None:
        raise ConfigError("--text-column and --messages-column are both given; give only one of them")
    text, messages = asked.text, asked.messages
    if text is None and messages is None:
        text, messages = found.texts(taken=set(asked.names()))
    if needs_contrast and asked.contrast_image is None:
        raise found.error("the contrast 'image' needs a column of other images; name it", "contrast_image")
    taken = {name for value in (text, messages, asked.contrast_image, asked.prompt) for name in _each(value)}
    image = asked.image or found.image(taken)
    identifier = asked.id or found.id(taken | set(_each(image)))
    return Columns(
        image=image,
        text=text,
        messages=messages,
        id=identifier,
        prompt=asked.prompt,
        contrast_image=asked.contrast_image if needs_contrast else None,
    )


def describe(schema: pa.Schema) -> str:
    """Format a schema as one line per column: its name and its type."""
    width = max((len(name) for name in schema.names), default=0)
    return "\n".join(f"  {field.name:<{width}}  {field.type}" for field in schema)


class _Finder:
    def __init__(self, schema: pa.Schema, shard: str) -> None:
        self.schema = schema
        self.shard = shard

    def error(self, problem: str, *roles: str) -> ConfigError:
        options = " or ".join(OPTIONS[role] for role in roles)
        return ConfigError(f"{problem} with {options}. The columns of {self.shard}:\n{describe(self.schema)}")

    def check(self, role: str, name: str, accepts: Callable[[pa.DataType], bool], expected: str) -> None:
        if self.schema.names.count(name) != 1:
            count = self.schema.names.count(name)
            problem = f"there are {count} columns {name!r}" if count else f"there is no column {name!r}"
            raise self.error(f"{problem}; name another", role)
        kind = self.schema.field(name).type
        if not accepts(kind):
            raise self.error(f"column {name!r} is {kind}, not {expected}; name another", role)

    def texts(self, taken: set[str]) -> tuple[Names | None, str | None]:
        named = self._named(TEXT_NAMES, _listed(is_text), taken)
        messages = self._named(MESSAGE_NAMES, is_messages, taken)
        numbered = self._numbered(taken)
        if len(named) + len(messages) + bool(numbered) > 1:
            several = _join([*named, *messages, *numbered])
            raise self.error(f"several columns may hold the text ({several}); name one", "text", "messages")
        if messages:
            return None, messages[0]
        if numbered:
            return numbered, None
        if not named:
            skip = {*ID_NAMES, *IMAGE_NAMES, *IMAGE_PATH_NAMES, *IMAGE_URL_NAMES}
            named = [name for name in self._typed(is_text, taken) if name.lower() not in skip]
        if len(named) != 1:
            problem = f"several columns may hold the text ({_join(named)})" if named else "no text column was found"
            raise self.error(f"{problem}; name it", "text", "messages")
        return named[0], None

    def image(self, taken: set[str]) -> str:
        ranks = (
            self._typed(_listed(is_image_struct), taken),
            self._typed(_listed(is_binary), taken),
            self._named((*IMAGE_NAMES, *IMAGE_PATH_NAMES), _listed(is_text), taken),
            self._named(IMAGE_URL_NAMES, _listed(is_text), taken),
        )
        candidates = next((rank for rank in ranks if rank), [])
        known = [name for name in candidates if name.lower() in IMAGE_NAMES]
        chosen = candidates if len(candidates) == 1 else known
        if len(chosen) != 1:
            several = f"several columns may hold the image ({_join(candidates)})"
            raise self.error(f"{several if candidates else 'no image column was found'}; name it", "image")
        return chosen[0]

    def id(self, taken: set[str]) -> str | None:
        named = self._named(ID_NAMES, is_id, taken)
        # In the order of ID_NAMES, not of the schema: `id` wins over `image_id`. The id is only a label, so guessing
        # does no harm.
        return min(named, key=lambda name: ID_NAMES.index(name.lower()), default=None)

    def _numbered(self, taken: set[str]) -> tuple[str, ...]:
        """Find caption_0, caption_1 and so on, sorted by number."""
        found = [(match, name) for name in self._typed(is_text, taken) if (match := _NUMBERED.fullmatch(name))]
        return tuple(name for _, name in sorted((int(match[2]), name) for match, name in found))

    def _typed(self, accepts: Callable[[pa.DataType], bool], taken: set[str]) -> list[str]:
        return [field.name for field in self.schema if field.name not in taken and accepts(field.type)]

    def _named(self, names: Sequence[str], accepts: Callable[[pa.DataType], bool], taken: set[str]) -> list[str]:
        return [name for name in self._typed(accepts, taken) if name.lower() in names]


def _each(names: Names | None) -> tuple[str, ...]:
    return () if names is None else (names,) if isinstance(names, str) else names


def _split(asked: Columns, columns: Iterable[str]) -> Columns:
    """Split names at commas, unless a column has that very name."""
    several: dict[str, Any] = {}
    for role in ("image", "text", "contrast_image"):
        name = getattr(asked, role)
        if isinstance(name, str) and "," in name and name not in columns:
            several[role] = tuple(part.strip() for part in name.split(","))
    return replace(asked, **several)


def is_text(kind: pa.DataType) -> bool:
    """Whether the type is a string, dictionary-encoded or not."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_binary(kind: pa.DataType) -> bool:
    """Whether the type is raw bytes."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def is_image_struct(kind: pa.DataType) -> bool:
    """Whether the type is Hugging Face's image feature: ``struct<bytes: binary, path: string>``."""
    return bool(pa.types.is_struct(kind)) and {"bytes", "path"} <= {field.name for field in kind}


def is_messages(kind: pa.DataType) -> bool:
    """Whether the type is a list of message structs."""
    return _is_list(kind) and bool(pa.types.is_struct(kind.value_type))


def is_id(kind: pa.DataType) -> bool:
    """Whether the type is a string or an integer."""
    return is_text(kind) or bool(pa.types.is_integer(kind))


def _is_image(kind: pa.DataType) -> bool:
    return is_image_struct(kind) or is_binary(kind) or is_text(kind)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _listed(accepts: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType], bool]:
    """Accept the type itself or a list of it, as for several images in a row."""
    return lambda kind: accepts(kind) or (_is_list(kind) and accepts(kind.value_type))


def _join(names: Sequence[str]) -> str:
    return ", ".join(names)


_IMAGE_EXPECTED: Final = "an image (struct<bytes, path>, binary, or a path as string)"
_ACCEPTS: Final[tuple[tuple[str, Callable[[Any], bool], str], ...]] = (
    ("image", _listed(_is_image), _IMAGE_EXPECTED),
    ("contrast_image", _listed(_is_image), _IMAGE_EXPECTED),
    ("text", _listed(is_text), "a string or a list of strings"),
    ("messages", is_messages, "a list of messages (list<struct<role, content>> or list<struct<from, value>>)"),
    ("id", is_id, "a string or an integer"),
    ("prompt", is_text, "a string"),
)
