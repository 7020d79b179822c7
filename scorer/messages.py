"""Parse datasets' conversations into :class:`~scorer.types.Sample`, and write turns as Hugging Face messages.

Three are read: Hugging Face's ``{"role", "content"}`` (content a string, or a list of typed parts), LLaVA's
``{"from", "value"}``, and pairs such as the_cauldron's ``{"user", "assistant"}``. A key that is null counts as absent,
since tools that join both formats fill in nulls. A list may also be stored as a JSON string, or as a struct of lists.

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

_MARKER_AND_BREAKS: Final = re.compile("\n?<image>\n?")
_LISTED: Final = re.compile(r"\s*\[\s*\{\s*(['\"])(role|from|content|value|user|human)\1\s*:")
"""How a list of messages begins that was turned into a string by something else than a JSON writer."""
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
        prompt: messages before these, or a user turn's text; None for none.
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
    if isinstance(found, Mapping):
        columns = {name: value for name, value in found.items() if value is not None}
        lengths = {len(value) if isinstance(value, list) else -1 for value in columns.values()}
        if len(lengths) == 1 and -1 not in lengths:
            found = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if not isinstance(found, Sequence) or isinstance(found, (str, bytes)) or not found:
        raise _invalid(f"messages are {_short(messages)}; a list of at least one message is needed")
    return [_parsed(message) if isinstance(message, str) else message for message in found]


def is_conversation_text(text: str) -> bool:
    """Whether a text is a list of messages that was turned into a string, and so is no text to score."""
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
        found = next((found[key] for key in ("messages", "conversations", "conversation") if key in found), [found])
    if not isinstance(found, list) or not found:
        return False
    return all(isinstance(one, dict) and _is_message(one) for one in found)


def _is_message(message: Mapping[str, Any]) -> bool:
    if {"role", "from"} & set(message) and {"content", "value"} & set(message):
        return True
    return any(user in message and assistant in message for user, assistant in PAIR_KEYS)


def _parsed(text: str) -> Any:
    try:
        found = json.loads(text)
        found = json.loads(found) if isinstance(found, str) else found
    except (ValueError, RecursionError) as error:
        raise _invalid(f"the messages are the string {_short(text)}, which is not valid JSON: {error}") from error
    if "\\ud" in text.lower():  # an escaped surrogate: legal JSON, but not a character unless paired
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            problem = f"the messages contain half a surrogate pair: {error.reason}"
            raise RowError(FailureCode.TEXT_INVALID, problem) from error
    return found


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
    before: list[Turn] = []
    if isinstance(prompt, str) and not _LISTED.match(prompt):
        before = [Turn("user", (prompt,))]
    elif prompt is not None:
        found = [*message_list(prompt), *found]
    held: list[Any] = []
    turns = [_turn(i, message, held) for i, message in enumerate(_single(found))]
    return [*before, *turns], held


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


def _turn(index: int, message: Any, held: list[Any]) -> Turn:
    if not isinstance(message, Mapping):
        raise _invalid(f"message {index} is {_short(message)}; a mapping with role and content is needed")
    name = _first(message, "role", "from")
    role = _ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        what = "models' templates have no place for a tool's turn" if _is_tool(name) else "it is unknown"
        raise _invalid(f"message {index} has the role {_short(name)}: {what}; known roles: {', '.join(_ROLES)}")
    content = _first(message, "content", "value")
    parts = (content,) if isinstance(content, str) else content
    if not isinstance(parts, Sequence) or isinstance(parts, bytes):
        raise RowError(
            FailureCode.TEXT_INVALID,
            f"message {index} has the content {_short(content)}; a string or a list of parts is needed",
        )
    turn = Turn(role, tuple(_part(index, part, held) for part in parts))
    if role != "user" and IMAGE in turn.content:
        raise _invalid(f"message {index} ({role}) holds an image; images belong in user turns")
    return turn


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
