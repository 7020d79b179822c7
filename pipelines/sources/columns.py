"""Find the columns of a dataset: those named by options, the others by the names and types that datasets use.

Nothing is guessed in silence. A column that no option names is taken only under a name that :data:`ROLES` lists (an
image also by Hugging Face's image type), and only if there is a single candidate; every choice has its reason in
:class:`Choices`. Anything else is an error that lists the columns and names the option that settles the choice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

import pyarrow as pa

from pipelines.sources.column_types import (
    has_message_keys,
    is_binary,
    is_id,
    is_image,
    is_image_struct,
    is_messages,
    is_pairs,
    is_text,
    is_unknown,
    listed,
    parts_hold_images,
    reads_as_messages,
    reads_as_prompt,
)
from scorer.errors import ConfigError

Names = str | tuple[str, ...]
"""A column, or several whose values form a list in this order; the empty tuple for explicitly none."""

NONE: Final = "none"
"""What an option says instead of a column's name: the role has no column, and none is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The column of each role; None if there is none. Once resolved, either ``text`` or ``messages`` is set.

    A name with commas that is not itself a column's name means several columns: texts of the same image, or images of
    one row. An ``image`` of ``()`` means that no column has the images: message parts have them, or rows have none.

    Attributes:
        complete: whether these are the columns of an earlier run, to be read as they are: nothing is looked for.
        own: of an earlier run, the columns of shards that have their own, by the shard's name.
    """

    image: Names | None = None
    text: Names | None = None
    messages: str | None = None
    id: str | None = None
    prompt: str | None = None
    contrast_image: Names | None = None
    complete: bool = field(default=False, compare=False)
    own: Mapping[str, Columns] = field(default_factory=dict, compare=False)

    def names(self) -> list[str]:
        """Return the columns to read, each once."""
        return list(dict.fromkeys(name for value in self.roles().values() for name in _each(value)))

    def roles(self) -> dict[str, Names | None]:
        """Return the column of each role, as plain data."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("complete", "own")}


@dataclass(frozen=True, slots=True)
class Choices:
    """The columns that are read, and why.

    Attributes:
        reasons: why each column was taken, by role.
        passed_over: why a column with a known name was not taken, by its name.
        own: the choices of shards whose columns have other names, by the shard's name.
    """

    columns: Columns
    reasons: Mapping[str, str]
    passed_over: Mapping[str, str]
    own: Mapping[str, Choices] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the columns and the reasons as plain data: ``columns``, ``taken``, ``passed_over`` and ``own``."""
        own = {"own": {name: one.to_dict() for name, one in self.own.items()}} if self.own else {}
        columns = {role: list(_each(name)) for role, name in self.columns.roles().items() if role in self.reasons}
        return {"columns": columns, "taken": dict(self.reasons), "passed_over": dict(self.passed_over), **own}

    def lines(self) -> list[str]:
        """Return what a run prints: one line for each role, and one for each column that was passed over."""
        taken = [
            f"{role}: {_join(_each(name)) or NONE} ({self.reasons[role]})"
            for role, name in self.columns.roles().items()
            if role in self.reasons
        ]
        lines = [*taken, *(f"passed over: {name} ({why})" for name, why in self.passed_over.items())]
        alike: dict[tuple[str, ...], list[str]] = {}
        for name, one in self.own.items():
            alike.setdefault(tuple(one.lines()), []).append(name)
        for own, names in alike.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            lines += [f"in {names[0]}{more}:", *(f"  {line}" for line in own)]
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What a column may be read as.

    Attributes:
        option: the command-line option that names it.
        accepts: whether a column of this type can be read so.
        expected: the accepted types in words.
        names: known names in lower case, under which a column is taken without being named; best first.
    """

    option: str
    accepts: Callable[[pa.DataType], bool]
    expected: str
    names: tuple[str, ...] = ()


IMAGE_PATH_NAMES: Final = ("image_path", "image_file", "img_path", "file_name", "filename", "filepath", "path")
IMAGE_URL_NAMES: Final = ("image_url", "image_urls", "img_url", "url", "urls")
IMAGE_NAMES: Final = (
    *("image", "images", "img", "picture", "photo", "jpg", "jpeg", "png", "webp"),
    *("image_bytes", "img_bytes", "image_data", "image_base64", "base64"),
)
CAPTION_NAMES: Final = ("caption", "text", "txt", "description", "captions", "texts", "descriptions")
REWRITTEN_NAMES: Final = (
    *("long_caption", "short_caption", "detailed_caption", "generated_caption", "re_caption", "recaption"),
    *("long_captions", "short_captions", "re_captions", "recaptions"),
)
"""Captions that often stand beside an original one, which comes first; taken if they are the only ones."""
ANSWER_NAMES: Final = ("answer", "answers", "output", "response", "completion", "solution")
"""Texts that answer a question of the same row; taken only together with it."""
_PLAIN_ANSWERS: Final = ("answer", "answers")
"""An answer that cannot be read, such as the number of a choice, leaves doubt whether another column answers."""
CONTEXT_NAMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("options", "choices"), "the options of a question"),
    "history": "earlier turns",
    "system": "a system turn",
    **dict.fromkeys(("hint", "context"), "a part of a question"),
    "tools": "the tools of a conversation",
    **dict.fromkeys(("video", "videos"), "a video"),
    **dict.fromkeys(("audio", "audios"), "sound"),
}
"""Names of what usually belongs to a question or a conversation, and what it is; never read."""
QUESTION_NAMES: Final = ("question", "query", "instruction", "prompt", "problem", "input")
PAIRS: Final[Mapping[str, tuple[str, ...]]] = {
    "question": ("answer", "answers", "response", "solution", "output"),
    "query": ("response", "answer", "answers", "output"),
    "instruction": ("output", "response", "answer"),
    "prompt": ("completion", "response", "answer", "output"),
    "problem": ("solution", "answer"),
    "input": ("output", "answer"),
}
"""Names of a question, and those of its answer: the question becomes the user's turn."""
TEXT_NAMES: Final = (*CAPTION_NAMES, *REWRITTEN_NAMES, *ANSWER_NAMES)

_IMAGE_EXPECTED: Final = "an image (struct<bytes, path>, binary, or a path, URL or base64 as string)"
ROLES: Final[Mapping[str, Role]] = {
    "image": Role(
        option="--image-column",
        accepts=listed(is_image),
        expected=_IMAGE_EXPECTED,
        names=(*IMAGE_NAMES, *IMAGE_PATH_NAMES, *IMAGE_URL_NAMES),
    ),
    "text": Role(
        option="--text-column",
        accepts=listed(is_text),
        expected="a string or a list of strings",
        names=TEXT_NAMES,
    ),
    "messages": Role(
        option="--messages-column",
        accepts=reads_as_messages,
        expected="a list of messages (list<struct<role, content>>, list<struct<from, value>>, "
        "list<struct<user, assistant>>, or such a list as a JSON string)",
        names=("messages", "conversations", "conversation"),
    ),
    "id": Role(
        option="--id-column",
        accepts=is_id,
        expected="a string, a number, a UUID or bytes",
        names=("id", "sample_id", "question_id", "image_id", "uid", "uuid", "key", "__key__"),
    ),
    "prompt": Role(
        option="--prompt-column",
        accepts=reads_as_prompt,
        expected="a string or a list of messages",
        names=QUESTION_NAMES,
    ),
    "contrast_image": Role(
        option="--contrast image:COLUMN",
        accepts=listed(is_image),
        expected=_IMAGE_EXPECTED,
    ),
}
"""Every role. Whatever looks for a column, checks one or speaks of its option goes by these."""

OPTIONS: Final[Mapping[str, str]] = {name: role.option for name, role in ROLES.items()}
"""The command-line option for each role."""
MESSAGE_NAMES: Final = ROLES["messages"].names
ID_NAMES: Final = ROLES["id"].names

_NUMBERED_TEXT: Final = re.compile(r"(caption|text|description)s?_?([0-9]+)", re.IGNORECASE)
_NUMBERED_IMAGE: Final = re.compile(r"(image|img)_?([0-9]+)", re.IGNORECASE)


# --- choice -----------------------------------------------------------------------------------------------------


def choose(schema: pa.Schema, asked: Columns, shard: str, *, needs_contrast: bool = False) -> Choices:
    """Complete ``asked`` with the columns that the schema leaves no doubt about.

    Args:
        schema: of a shard with rows.
        asked: the columns named by options.
        shard: the shard's name, for messages.
        needs_contrast: whether the contrast ``image`` is used, which reads its image from a separate column.

    Raises:
        ConfigError: a named column is missing or has the wrong type, or a role has no column or several candidates.
    """
    found = _Finder(schema, shard)
    asked, unwanted = _without_none(_split(asked, schema.names), schema.names)
    for role, value in asked.roles().items():
        for name in _each(value):
            found.check(role, name)
    if asked.text is not None and asked.messages is not None:
        raise ConfigError("--text-column and --messages-column are both given; give only one of them")
    if asked.complete:
        reasons = {role: "as recorded" for role, value in asked.roles().items() if value is not None}
        return Choices(replace(asked, complete=False, own={}), reasons, {})
    taken = {role: f"named by {OPTIONS[role]}" for role, value in asked.roles().items() if value is not None}
    text, messages, prompt = asked.text, asked.messages, asked.prompt
    if text is None and messages is None:
        one = found.text(asked, taken=set(asked.names()), prompts="prompt" not in unwanted)
        text, messages, prompt = one.text, one.messages, prompt or one.prompt
        taken |= {"text" if text is not None else "messages": one.reason}
    elif prompt is None and "prompt" not in unwanted:
        prompt = found.question(str(text or messages), set(asked.names()))
    if prompt is not None and asked.prompt is None:
        taken["prompt"] = f"known name, the question of {text or messages}"
    if needs_contrast and asked.contrast_image is None:
        raise found.error("the contrast 'image' needs a column of other images; name it", "contrast_image")
    others = {name for value in (text, messages, asked.contrast_image, prompt) for name in _each(value)}
    image = asked.image
    if image is None:
        image, taken["image"] = found.image(others, messages)
    identifier = asked.id
    if identifier is None and "id" not in unwanted:
        identifier = found.id(others | set(_each(image)))
        if identifier is not None:
            taken["id"] = "known name; a row without an id is named SHARD#ROW"
    contrast = asked.contrast_image if needs_contrast else None
    if contrast is None:
        taken.pop("contrast_image", None)
    columns = Columns(image=image, text=text, messages=messages, id=identifier, prompt=prompt, contrast_image=contrast)
    return Choices(columns, taken, found.passed_over(set(columns.names())))


def check_shard(columns: Columns, first: tuple[str, pa.Schema], other: tuple[str, pa.Schema]) -> None:
    """Refuse a shard whose columns cannot be read as those of the first.

    Types may differ as long as each can be read in its role, since every value is read by its own type. A shard may
    lack the id column: its rows are named ``<shard>#<row>``.

    Args:
        first, other: name and schema of the shard where the columns were found, and of another one that has rows.

    Raises:
        ConfigError: naming both shards and both types.
    """
    (first_name, first_schema), (name, schema) = first, other
    for role, value in columns.roles().items():
        for column in _each(value):
            count = schema.names.count(column)
            if count == 0 and role == "id":
                continue
            kind = schema.field(column).type if count == 1 else None
            if kind is not None and (ROLES[role].accepts(kind) or is_unknown(kind)):
                continue
            actual = f"is {kind}" if kind is not None else "is missing" if count == 0 else f"occurs {count} times"
            raise ConfigError(
                f"column {column!r} {actual} in shard {name} but is {first_schema.field(column).type} in {first_name}; "
                f"it must be {ROLES[role].expected}. Repair the shard, leave it out, or name another column with "
                f"{OPTIONS[role]}. The columns of {name}:\n{describe(schema)}"
            )


def known_ids(schema: pa.Schema) -> dict[str, pa.Field]:
    """Return the columns that may be an id by name and type, in the order in which they are preferred."""
    found = [field for field in schema if field.name.lower() in ID_NAMES and is_id(field.type)]
    return {field.name: field for field in sorted(found, key=lambda field: ID_NAMES.index(field.name.lower()))}


def describe(schema: pa.Schema) -> str:
    """Format a schema as one line per column: its name and its type."""
    width = max((len(name) for name in schema.names), default=0)
    return "\n".join(f"  {field.name:<{width}}  {field.type}" for field in schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """One way to read the text."""

    reason: str
    text: Names | None = None
    messages: str | None = None
    prompt: str | None = None

    def __str__(self) -> str:
        answer = _join(_each(self.text or self.messages))
        return answer if self.prompt is None else f"{self.prompt} + {answer}"


class _Finder:
    def __init__(self, schema: pa.Schema, shard: str) -> None:
        self.schema = schema
        self.shard = shard

    def error(self, problem: str, *roles: str) -> ConfigError:
        """Return an error that ends in the options of these roles as its remedy."""
        return self.refusal(f"{problem} with {' or '.join(OPTIONS[role] for role in roles)}")

    def refusal(self, problem: str) -> ConfigError:
        return ConfigError(f"{problem}. The columns of {self.shard}:\n{describe(self.schema)}")

    def check(self, role: str, name: str) -> None:
        if self.schema.names.count(name) != 1:
            count = self.schema.names.count(name)
            problem = f"there are {count} columns {name!r}" if count else f"there is no column {name!r}"
            raise self.error(f"{problem}; name another", role)
        kind = self.schema.field(name).type
        if not (ROLES[role].accepts(kind) or is_unknown(kind)):
            raise self.error(f"column {name!r} is {kind}, not {ROLES[role].expected}; name another", role)

    def text(self, asked: Columns, taken: set[str], *, prompts: bool) -> _Candidate:
        """Find the only way to read the text."""
        captions = self._named(CAPTION_NAMES, listed(is_text), taken)
        found = [_Candidate(text=name, reason="known name") for name in captions]
        numbered = self._numbered(_NUMBERED_TEXT, is_text, taken)
        if numbered:
            found.append(_Candidate(text=numbered, reason="known name, numbered"))
        if not found:
            rewritten = self._named(REWRITTEN_NAMES, listed(is_text), taken)
            found = [_Candidate(text=name, reason="known name") for name in rewritten]
        for name in self._named(MESSAGE_NAMES, reads_as_messages, taken):
            how = "" if is_messages(self.schema.field(name).type) else ", strings that hold JSON"
            found.append(_Candidate(messages=name, reason=f"known name{how}"))
        for name in self._named(("texts",), is_pairs, taken):
            found.append(_Candidate(messages=name, reason="known name, pairs of question and answer"))
        answers = self._named(ANSWER_NAMES, _reads_as_answer, taken)
        unread = self._named(_PLAIN_ANSWERS, lambda kind: not (_reads_as_answer(kind) or is_unknown(kind)), taken)
        alone = []
        for name in answers:
            asked_by = [asked.prompt] if asked.prompt else self.questions(name, taken) if prompts else []
            found += [self._answer(name, question) for question in asked_by]
            if not asked_by and name.lower() == "answer":
                alone.append(name)
            elif asked_by and unread and name.lower() not in _PLAIN_ANSWERS:
                alone += [one for one in unread if one not in alone]
        if len(found) == 1 and not alone:
            return found[0]
        if found:
            several = _join([*map(str, found), *alone])
            raise self.error(f"several columns may hold the text ({several}); name one", "text", "messages")
        if alone:
            raise self.refusal(
                f"column {alone[0]!r} is known as the answer to a question, but no question column was found; name the "
                f"question with {OPTIONS['prompt']}, or take the answer alone with {OPTIONS['text']} {alone[0]}"
            )
        raise self.error("no text column was found; name it", "text", "messages")

    def _answer(self, name: str, question: str | None) -> _Candidate:
        if has_message_keys(self.schema.field(name).type):
            return _Candidate(messages=name, prompt=question, reason=f"known name, answers {question}")
        return _Candidate(text=name, prompt=question, reason=f"known name, answers {question}")

    def questions(self, answer: str, taken: set[str]) -> list[str]:
        """Find the columns of known names that this column may answer."""
        names = [question for question, answers in PAIRS.items() if answer.lower() in answers]
        return self._named(names, reads_as_prompt, taken | {answer})

    def question(self, answer: str, taken: set[str]) -> str | None:
        """Find the only column that a named column answers."""
        found = self.questions(answer, taken)
        if len(found) > 1:
            problem = f"several columns may hold the question that {answer} answers ({_join(found)})"
            option = OPTIONS["prompt"]
            raise self.refusal(f"{problem}; name one with {option}, or read none of them with {option} {NONE}")
        return found[0] if found else None

    def image(self, taken: set[str], messages: str | None) -> tuple[Names, str]:
        numbered = self._numbered(_NUMBERED_IMAGE, listed(is_image), taken)
        structs = self._typed(listed(is_image_struct), taken)
        if not numbered and not any(name.lower() in IMAGE_NAMES for name in structs):  # a struct may be a mask
            if self._named(IMAGE_NAMES, listed(is_binary), taken):
                structs = []
            elif structs and (paths := self._named(IMAGE_NAMES, listed(is_text), taken)):
                several = _join([*structs, *paths])
                raise self.error(f"several columns may hold the image ({several}); name it", "image")
        ranks = (
            (structs, "type struct<bytes, path>"),
            (self._named(IMAGE_NAMES, listed(is_binary), taken), "known name, bytes"),
            # A WebDataset member such as input.jpg: the last part of its suffix says what it is.
            (self._named(IMAGE_NAMES, listed(is_binary), taken, last_part=True), "known suffix, bytes"),
            (self._named((*IMAGE_NAMES, *IMAGE_PATH_NAMES), listed(is_text), taken), "known name"),
            (self._named(IMAGE_URL_NAMES, listed(is_text), taken), "known name"),
        )
        candidates, reason = next((rank for rank in ranks if rank[0]), ([], ""))
        known = [name for name in candidates if name.lower() in IMAGE_NAMES]
        chosen = candidates if len(candidates) == 1 else known
        if len(numbered) > 1 and not known and set(candidates) <= set(numbered):
            return numbered, "known name, numbered; nulls are absent images"
        if len(chosen) == 1 and numbered and chosen[0] not in numbered:
            candidates = [*chosen, *numbered]
        elif len(chosen) == 1:
            return chosen[0], reason if len(candidates) == 1 or reason.startswith("known") else f"known name, {reason}"
        if candidates:
            raise self.error(f"several columns may hold the image ({_join(candidates)}); name it", "image")
        if messages is not None and parts_hold_images(self.schema.field(messages).type):
            return (), f"the parts of {messages} hold their images"
        empty = self._named(ROLES["image"].names, is_unknown, taken)
        if len(empty) == 1:
            return empty[0], "known name, null in every row that was looked at"
        option = OPTIONS["image"]
        raise self.refusal(
            f"no image column was found; name it with {option}, or give {option} {NONE} if message parts hold the "
            "images or rows have none"
        )

    def id(self, taken: set[str]) -> str | None:
        named = self._named(ID_NAMES, is_id, taken)
        # In the order of ID_NAMES, not of the schema: `id` wins over `image_id`. The id is only a label, so guessing
        # does no harm.
        return min(named, key=lambda name: ID_NAMES.index(name.lower()), default=None)

    def passed_over(self, taken: set[str]) -> dict[str, str]:
        """Say of every known name that is not read which role it is known for, and what would read it."""
        found: dict[str, str] = {}
        for field_ in self.schema:
            if field_.name in taken:
                continue
            if field_.name.lower() in CONTEXT_NAMES:
                what = CONTEXT_NAMES[field_.name.lower()]
                found[field_.name] = (
                    f"usually {what}, and not read; put what the model should see into the prompt or messages"
                )
                continue
            roles = [name for name, role in ROLES.items() if field_.name.lower() in role.names]
            fits = [name for name in roles if ROLES[name].accepts(field_.type)]
            if fits:
                found[field_.name] = f"a known name; to read it: {OPTIONS[fits[0]]} {field_.name}"
            elif roles:
                found[field_.name] = f"a known name, but {field_.type} is not {ROLES[roles[0]].expected}"
        return found

    def _numbered(
        self, pattern: re.Pattern[str], accepts: Callable[[pa.DataType], bool], taken: set[str]
    ) -> tuple[str, ...]:
        """Find caption_0, caption_1 and so on, sorted by number."""
        found = [(match, name) for name in self._typed(accepts, taken) if (match := pattern.fullmatch(name))]
        return tuple(name for _, name in sorted((int(match[2]), name) for match, name in found))

    def _typed(self, accepts: Callable[[pa.DataType], bool], taken: set[str]) -> list[str]:
        return [field.name for field in self.schema if field.name not in taken and accepts(field.type)]

    def _named(
        self, names: Sequence[str], accepts: Callable[[pa.DataType], bool], taken: set[str], *, last_part: bool = False
    ) -> list[str]:
        """Return the columns of known names; with ``last_part``, those whose last dotted part is one."""
        return [
            name
            for name in self._typed(accepts, taken)
            if (name.lower().rpartition(".")[2] if last_part else name.lower()) in names
        ]


def _reads_as_answer(kind: pa.DataType) -> bool:
    return listed(is_text)(kind) or has_message_keys(kind)


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


def _without_none(asked: Columns, columns: Iterable[str]) -> tuple[Columns, set[str]]:
    """Replace the word ``none``, unless a column has that name. Return also the roles that it was said of."""
    roles = {role for role in ("image", "id", "prompt") if getattr(asked, role) == NONE and NONE not in columns}
    without: dict[str, Any] = {role: () if role == "image" else None for role in roles}
    return replace(asked, **without), roles


def _join(names: Sequence[str]) -> str:
    return ", ".join(names)
