"""The conversation formats that datasets use → :class:`~scorer.types.Sample`, and turns → Hugging Face's messages.

Two are read: Hugging Face's ``{"role", "content"}`` (content a string, or a list of typed parts) and LLaVA's
``{"from", "value"}``. In both, a user turn may spell ``<image>`` where an image belongs; that marker is the datasets'
own convention and is honoured here only, in user turns only, and only if the markers match the images one to one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from scorer.errors import FailureCode, RowError
from scorer.types import IMAGE, ContentPart, ImageSource, Role, Sample, Turn

_MARKER_AND_BREAKS: Final = re.compile("\n?<image>\n?")
_ROLES: Final[Mapping[str, Role]] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}


def parse_conversation(
    sample_id: str,
    images: Sequence[ImageSource],
    messages: Sequence[Mapping[str, Any]],
    contrast_images: Sequence[ImageSource] = (),
) -> Sample:
    """Turn a dataset's message list into a sample whose assistant turns are scored.

    Images go where the messages say: at ``{"type": "image"}`` parts, else at ``<image>`` markers of user turns, else
    (neither is there) before the first user turn's text.

    Raises:
        RowError: ``conversation_invalid`` for an unknown role, no assistant turn, an image outside a user turn, or
            places of images that do not match ``images`` in number; ``text_invalid`` for text that is no string.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)) or not messages:
        raise _invalid(f"messages are {_short(messages)}; a list of at least one message is needed")
    turns = [_turn(i, message) for i, message in enumerate(messages)]
    if not any(turn.role == "assistant" for turn in turns):
        raise _invalid("no message has the role assistant (or gpt); there is nothing to score")
    turns = _place_images(turns, len(images))
    return Sample(sample_id, tuple(images), tuple(turns), tuple(contrast_images))


def scored_texts(messages: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The texts of a dataset's message list that are scored: those of its assistant turns, in order.

    Raises:
        RowError: as :func:`parse_conversation`; images are not looked at.
    """
    turns = [_turn(i, message) for i, message in enumerate(messages)]
    return tuple(turn.text for turn in turns if turn.role == "assistant")


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
    """Turns → messages in Hugging Face's form, every content a list of parts of type ``text`` or ``image``."""
    return [
        {
            "role": turn.role,
            "content": [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in turn.content],
        }
        for turn in turns
    ]


def _turn(index: int, message: Mapping[str, Any]) -> Turn:
    if not isinstance(message, Mapping):
        raise _invalid(f"message {index} is {_short(message)}; a mapping with role and content is needed")
    name = message.get("role", message.get("from"))
    if not isinstance(name, str) or name not in _ROLES:
        raise _invalid(f"message {index} has the role {_short(name)}; known roles: {', '.join(_ROLES)}")
    role = _ROLES[name]
    content = message.get("content", message.get("value"))
    parts = (content,) if isinstance(content, str) else content
    if not isinstance(parts, Sequence) or isinstance(parts, bytes):
        raise RowError(
            FailureCode.TEXT_INVALID,
            f"message {index} has the content {_short(content)}; a string or a list of parts is needed",
        )
    turn = Turn(role, tuple(_part(index, part) for part in parts))
    if role != "user" and IMAGE in turn.content:
        raise _invalid(f"message {index} ({role}) holds an image; images belong to user turns")
    return turn


def _part(index: int, part: Any) -> ContentPart:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "image":
        return IMAGE
    text = part.get("text") if kind == "text" else None
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
    if slots != count:
        raise _invalid(f"the messages have places for {slots} images, the row has {count}; they must match")
    return turns


def _split_markers(turn: Turn) -> Turn:
    """LLaVA writes ``<image>\\n`` before or after the question; the line break belongs to the marker."""
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
    raise _invalid(f"the row has {count} images but no user turn to place them in")


def _invalid(message: str) -> RowError:
    return RowError(FailureCode.CONVERSATION_INVALID, message)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
