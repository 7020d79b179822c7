"""Parse datasets' conversations into :class:`~scorer.types.Sample`, and write turns as Hugging Face messages.

Three are read: Hugging Face's ``{"role", "content"}`` (content a string, or a list of typed parts), LLaVA's
``{"from", "value"}``, and pairs such as the_cauldron's ``{"user", "assistant"}``. A key that is null counts as absent,
since tools that join both formats fill in nulls. A list may also be stored as a JSON string, or as a struct of lists;
so may the parts of a content.

In the first two, a user turn may spell ``<image>`` where an image belongs; that marker is the datasets' own convention
and is honoured here only, in user turns only, and only if the markers match the images one to one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from scorer.errors import FailureCode, RowError
from scorer.types import IMAGE, ContentPart, ImageSource, Role, Sample, Turn

PAIR_KEYS: Final = (("user", "assistant"), ("question", "answer"), ("human", "assistant"))
"""Keys of a message that holds a question and its answer, and so stands for two turns."""
PART_IMAGE_KEYS: Final = ("image", "image_url", "url", "path", "base64")
"""Keys of a part of type image that may hold the image itself."""

_WRAPPERS: Final = ("messages", "conversations", "conversation")
"""Keys of an object that holds nothing of interest but a list of messages."""
_MARKER_AND_BREAKS: Final = re.compile("\n?<image>\n?")
_LISTED: Final = re.compile(r"\s*\[\s*\{\s*(['\"])(role|from|content|value|user|human)\1\s*:")
"""How a list of messages begins that was turned into a string by something else than a JSON writer."""
_LISTED_STRINGS: Final = re.compile(r"\s*\[\s*(['\"]).*\1\s*\]\s*", re.DOTALL)
"""A list of strings that was turned into a string, by a JSON writer or by printing it."""
_TEMPLATES: Final = (
    ("<|im_start|>user", "<|im_start|>assistant"),
    ("<|start_header_id|>user", "<|start_header_id|>assistant"),
    ("<start_of_turn>user", "<start_of_turn>model"),
    ("[INST]", "[/INST]"),
)
"""How chat templates mark a user's turn and its answer, by tokens of their own."""
_PLAIN_TEMPLATES: Final = (("USER:", "ASSISTANT:"), ("### Human:", "### Assistant:"))
"""The same in words, with which such a text begins; inside another text they may be what an image shows."""
_BYTE_ORDER_MARK: Final = "\ufeff"
_ROLES: Final[Mapping[str, Role]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
_TOOL_ROLES: Final = frozenset(
    {"tool", "function", "tool_call", "tool_calls", "tool_response", "function_call", "observation", "ipython"}
)
_IMAGE_TYPES: Final = frozenset({"image", "image_url", "input_image"})
_TEXT_TYPES: Final = frozenset({"text", "input_text", "output_text"})
_PARTS: Final = re.compile(r'\s*\[\s*\{\s*"[a-z_]+"\s*:')
"""How a list of typed parts begins that was turned into a string."""
_PART_KEYS: Final = frozenset({"type", "text", "index", "detail", *PART_IMAGE_KEYS})

OwnImage = Callable[[Any], ImageSource | None]
"""Turns the image that a message part holds into what a sample holds; None if the part's value is empty."""


def parse_conversation(
    sample_id: str,
    images: Sequence[ImageSource],
    messages: Any,
    contrast_images: Sequence[ImageSource] = (),
    *,
    prompt: Any = None,
    own_image: OwnImage | None = None,
) -> Sample:
    """Convert a dataset's message list to a sample whose assistant turns are scored.

    Images go where the messages say: at ``{"type": "image"}`` parts, else at ``<image>`` markers of user turns, else
    (neither is there) before the first user turn's text. Without any image and any place for one, the sample is text
    only.

    Args:
        images: the row's images.
        messages: a list of messages in one of the forms above.
        prompt: messages before these, or a user turn's text or parts; None for none.
        own_image: reads images that parts hold themselves; they count only if ``images`` is empty. None ignores them.

    Raises:
        RowError: ``conversation_invalid`` for an unknown role, no assistant turn, an image outside a user turn, or
            places of images that do not match ``images`` in number; ``image_missing`` if there are places and no
            image at all; ``text_invalid`` for text that is no string.
    """
    turns, held = _turns(messages, prompt)
    if not any(turn.role == "assistant" for turn in turns):
        raise _invalid("no message has the role assistant (or gpt); there is nothing to score")
    if not images and own_image is not None and held:
        own = [own_image(value) for value in held]
        images = [image for image in own if image is not None]
    turns = _place_images(turns, len(images))
    return Sample(sample_id, tuple(images), tuple(turns), tuple(contrast_images))


def question_turn(images: int, prompt: str) -> Turn:
    """The user turn of a row's own question: its images at ``<image>`` markers, else before the text.

    Raises:
        RowError: as :func:`parse_conversation`, for markers that do not match ``images`` in number.
    """
    if "<image>" not in prompt:
        return Turn.question(images, prompt)
    (turn,) = _place_images([Turn("user", (prompt,))], images)
    return turn


def is_messages_prompt(prompt: Any) -> bool:
    """Whether a prompt holds messages, or the parts of one, as such or as a JSON string, and not a user turn's text."""
    if isinstance(prompt, str):
        return is_conversation_text(prompt) or _spelled_parts(prompt) is not None
    return isinstance(_listed(prompt), list)


def answer_messages(answer: Any) -> Any:
    """Return what answers a prompt of messages as messages too: a string, a list of one, or messages as a JSON string.

    Raises:
        RowError: ``text_invalid`` for several answers, which would be joined to one text.
    """
    if isinstance(answer, list):
        if len(answer) != 1:
            problem = f"the row has {len(answer)} answers to a prompt of messages; give each a row of its own"
            raise RowError(FailureCode.TEXT_INVALID, problem)
        (answer,) = answer
    if isinstance(answer, str) and is_conversation_text(answer):
        return answer
    return [{"role": "assistant", "content": answer}]


def scored_texts(messages: Any, prompt: Any = None) -> tuple[str, ...]:
    """The texts of a dataset's message list that are scored: those of its assistant turns, in order.

    Raises:
        RowError: as in :func:`parse_conversation`, except that images are not checked.
    """
    turns, _ = _turns(messages, prompt)
    return tuple(turn.text for turn in turns if turn.role == "assistant")


def message_list(messages: Any) -> list[Any]:
    """Return a dataset's messages as a list, from the forms in which columns store them: see the module.

    Raises:
        RowError: ``conversation_invalid``, saying what was found instead.
    """
    found = _parsed(messages) if isinstance(messages, str) else messages
    found = _listed(_unwrapped(found))
    if not isinstance(found, Sequence) or isinstance(found, (str, bytes)) or not found:
        raise _invalid(f"messages are {_short(messages)}; a list of at least one message is needed")
    return [_parsed(message) if isinstance(message, str) else message for message in found]


def _unwrapped(found: Any) -> Any:
    """Return the list of messages that an object holds under its usual key, or the value itself."""
    if not isinstance(found, Mapping) or {"role", "from"} & set(found):
        return found
    return next((found[name] for name in _WRAPPERS if isinstance(found.get(name), list)), found)


def _listed(found: Any) -> Any:
    """Turn a struct of lists, as which Hugging Face's ``Sequence`` stores a list of structs, back into that list."""
    if not isinstance(found, Mapping):
        return found
    columns = {name: value for name, value in found.items() if value is not None}
    lengths = {len(value) if isinstance(value, list) else -1 for value in columns.values()}
    if len(lengths) != 1 or -1 in lengths:
        return found
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def is_listed_strings(text: str) -> bool:
    """Whether a text is a list of strings that was turned into a string, such as ``["a cat", "a pet"]``."""
    return _LISTED_STRINGS.fullmatch(text) is not None


def template_of(text: str) -> tuple[str, str] | None:
    """Return the marks of the chat template that a text is written in, of the user's turn and of the answer."""
    for user, answer in (*_TEMPLATES, *_PLAIN_TEMPLATES):
        first = text.find(user)
        if 0 <= first < text.find(answer) and ((user, answer) in _TEMPLATES or not text[:first].strip()):
            return user, answer
    return None


def is_conversation_text(text: str) -> bool:
    """Whether a text is a list of messages that was turned into a string, and so is no text to score."""
    text = text.removeprefix(_BYTE_ORDER_MARK)
    if text.lstrip()[:1] not in ("[", "{", '"'):
        return False
    if _LISTED.match(text):
        return True
    try:
        found = json.loads(text)
        if isinstance(found, str):
            found = json.loads(found)
    except (ValueError, RecursionError):
        return False
    if isinstance(found, dict):
        found = next((found[key] for key in _WRAPPERS if key in found), [found])
    if not isinstance(found, list) or not found:
        return False
    return all(isinstance(one, dict) and _is_message(one) for one in found)


def _is_message(message: Mapping[str, Any]) -> bool:
    if {"role", "from"} & set(message) and {"content", "value"} & set(message):
        return True
    return any(user in message and assistant in message for user, assistant in PAIR_KEYS)


def _parsed(text: str) -> Any:
    try:
        found = json.loads(text.removeprefix(_BYTE_ORDER_MARK))
        found = json.loads(found) if isinstance(found, str) else found
    except (ValueError, RecursionError) as error:
        raise _invalid(f"the messages are the string {_short(text)}, which is not valid JSON: {error}") from error
    _refuse_half_surrogates(text, found)
    return found


def _refuse_half_surrogates(text: str, found: Any) -> None:
    """Raise RowError for an escaped surrogate: legal JSON, but not a character unless paired."""
    if "\\ud" not in text.lower():
        return
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        problem = f"the messages contain half a surrogate pair: {error.reason}"
        raise RowError(FailureCode.TEXT_INVALID, problem) from error


def check_text_bytes(texts: Iterable[Any], limit: int) -> None:
    """Refuse a row whose texts, the prompt among them, are too long together: before they cost a tokenizer's memory.

    Args:
        texts: what is no string is left to other checks.
        limit: UTF-8 bytes of all texts.

    Raises:
        RowError: ``text_too_long``.
    """
    size = sum(len(text.encode(errors="surrogatepass")) for text in texts if isinstance(text, str))
    if size > limit:
        raise RowError(
            FailureCode.TEXT_TOO_LONG,
            f"the row's texts have {size:,} bytes, more than max_text_bytes={limit}; shorten them or raise the limit",
        )


def to_messages(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Convert turns to Hugging Face messages; every content is a list of parts of type ``text`` or ``image``."""
    return [
        {
            "role": turn.role,
            "content": [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in turn.content],
        }
        for turn in turns
    ]


def _turns(messages: Any, prompt: Any) -> tuple[list[Turn], list[Any]]:
    """Return the turns, and the images that their parts hold themselves."""
    found = message_list(messages)
    if isinstance(prompt, str) and not is_conversation_text(prompt):
        found = [{"role": "user", "content": prompt}, *found]
    elif prompt is not None:
        found = [*message_list(prompt), *found]
    held: list[Any] = []
    turns = [_turn(i, message, held) for i, message in enumerate(_with_parts(list(_single(found))))]
    return turns, held


def _single(messages: Sequence[Any]) -> Iterator[Any]:
    """Split messages that hold a question and its answer."""
    for message in messages:
        pair = None
        if isinstance(message, Mapping) and _first(message, "role", "from") is None:
            pair = next((keys for keys in PAIR_KEYS if set(keys) <= set(message)), None)
        if pair is None:
            yield message
            continue
        user, assistant = pair
        if message[user] is not None:
            yield {"role": "user", "content": message[user]}
        yield {"role": "assistant", "content": message[assistant]}


def _first(message: Mapping[str, Any], *names: str) -> Any:
    """Return the first value that is not null."""
    return next((message[name] for name in names if message.get(name) is not None), None)


def _role(message: Any) -> Role | None:
    name = _first(message, "role", "from") if isinstance(message, Mapping) else None
    return _ROLES.get(name.lower()) if isinstance(name, str) else None


def _content(message: Any) -> Any:
    return _first(message, "content", "value") if isinstance(message, Mapping) else None


def _turn(index: int, message: Any, held: list[Any]) -> Turn:
    if not isinstance(message, Mapping):
        raise _invalid(f"message {index} is {_short(message)}; a mapping with role and content is needed")
    name, role = _first(message, "role", "from"), _role(message)
    if role is None:
        what = "models' templates have no place for a tool's turn" if _is_tool(name) else "it is unknown"
        raise _invalid(f"message {index} has the role {_short(name)}: {what}; known roles: {', '.join(_ROLES)}")
    content = _content(message)
    if content is None and _first(message, "tool_calls", "function_call") is not None:
        raise _invalid(f"message {index} calls a tool; models' templates have no place for a tool's turn")
    parts = (content,) if isinstance(content, str) else _listed(content)
    if not isinstance(parts, Sequence) or isinstance(parts, bytes):
        raise RowError(
            FailureCode.TEXT_INVALID,
            f"message {index} has the content {_short(content)}; a string or a list of parts is needed",
        )
    turn = Turn(role, tuple(_part(index, part, held) for part in parts))
    if role != "user" and IMAGE in turn.content:
        raise _invalid(f"message {index} ({role}) holds an image; images belong in user turns")
    return turn


def _with_parts(messages: Sequence[Any]) -> list[Any]:
    """Parse contents that spell their parts as JSON, because a column cannot hold both strings and lists.

    An answer may be JSON in its own right: assistant turns are parsed only if a user turn of the row spells its parts.
    """
    spelled = any(_role(message) == "user" and _spelled_parts(_content(message)) for message in messages)
    if not spelled:
        return list(messages)
    return [
        message if parts is None else {"role": _first(message, "role", "from"), "content": parts}
        for message in messages
        for parts in (_spelled_parts(_content(message)),)
    ]


def _spelled_parts(text: Any) -> list[Any] | None:
    """Return the parts that a text spells as JSON; None unless all are of type text or image and nothing else."""
    if not isinstance(text, str) or not _PARTS.match(text):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    known = _TEXT_TYPES | _IMAGE_TYPES
    for part in found:
        if not (isinstance(part, dict) and part.keys() <= _PART_KEYS):
            return None
        kind = part.get("type")
        if not isinstance(kind, str) or kind not in known or (kind in _TEXT_TYPES and "text" not in part):
            return None
    _refuse_half_surrogates(text, found)
    return list(found)


def _is_tool(name: Any) -> bool:
    """Whether a role is one of those that stand for a tool's calls and answers."""
    return isinstance(name, str) and name.lower() in _TOOL_ROLES


def _part(index: int, part: Any, held: list[Any]) -> ContentPart:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind is None and isinstance(part, Mapping):  # as Qwen writes them: {"image": …}, {"text": …}
        keys = [key for key in ("text", "image", "image_url") if part.get(key) is not None]
        kind = keys[0] if len(keys) == 1 else None
    if isinstance(kind, str) and kind in _IMAGE_TYPES:
        value = _first(part, *PART_IMAGE_KEYS)
        if isinstance(value, Mapping) and value.get("url") is not None:
            value = value["url"]
        if value is not None:
            held.append(value)
        return IMAGE
    text = part.get("text") if isinstance(kind, str) and kind in _TEXT_TYPES else None
    if not isinstance(text, str):
        raise RowError(
            FailureCode.TEXT_INVALID,
            f"message {index} has the part {_short(part)}; parts are of type text (with a string) or image",
        )
    return text


def _place_images(turns: list[Turn], count: int) -> list[Turn]:
    slots = sum(turn.content.count(IMAGE) for turn in turns)
    if slots == 0:
        marked = [_split_markers(turn) if turn.role == "user" else turn for turn in turns]
        slots = sum(turn.content.count(IMAGE) for turn in marked)
        if slots == 0:
            return _prepend_images(turns, count)
        turns = marked
    if count == 0:
        problem = (
            f"the turns have places for {_images(slots)}, but the row has none; give it images or remove the places"
        )
        raise RowError(FailureCode.IMAGE_MISSING, problem)
    if slots != count:
        raise _invalid(f"the turns have places for {_images(slots)}, but the row has {count}; the numbers must match")
    return turns


def _split_markers(turn: Turn) -> Turn:
    """Split a turn's texts at ``<image>``; LLaVA writes a line break next to the marker, which belongs to it."""
    parts: list[ContentPart] = []
    for piece in turn.content:
        if not isinstance(piece, str):
            parts.append(piece)
            continue
        before, *rest = _MARKER_AND_BREAKS.split(piece)
        parts.append(before)
        for text in rest:
            parts += [IMAGE, text]
    return Turn(turn.role, tuple(part for part in parts if part != ""))


def _prepend_images(turns: list[Turn], count: int) -> list[Turn]:
    if count == 0:
        return turns
    for i, turn in enumerate(turns):
        if turn.role == "user":
            return [*turns[:i], Turn(turn.role, (IMAGE,) * count + turn.content), *turns[i + 1 :]]
    raise _invalid(f"the row has {_images(count)} but no user turn to hold them; add a user turn")


def _images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"


def _invalid(message: str) -> RowError:
    return RowError(FailureCode.CONVERSATION_INVALID, message)


def _short(value: Any) -> str:
    text = repr(value[:100] if isinstance(value, (str, bytes)) else value)
    return text if len(text) <= 80 else text[:77] + "..."
