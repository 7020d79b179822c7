"""Find where a model's chat template puts a conversation's texts.

A template is a program. It may trim a text, leave a turn out, or write other words depending on what a text says. The
model sees what the template renders, so nothing is assumed about the template:

1. Render the conversation.
2. Render a conversation of the same shape with a marker in place of every text, and cut it at the markers. The pieces
   are the template's own fragments.
3. Fragments and texts, alternating, must equal the rendered conversation character by character; only white space
   that the template trims from a text's ends may be missing.

Each text's place is therefore known without searching. A template that does anything else to a text fails the row.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from scorer.errors import FailureCode, RowError
from scorer.messages import to_messages
from scorer.types import ContentPart, Turn

log = logging.getLogger(__name__)

RenderTemplate = Callable[[list[dict[str, Any]]], str]
"""(Hugging Face messages) → the prompt as a string, with special tokens spelled out."""

_REMEDY: Final = "leave out what the template does not accept, or use another reference model"


@dataclass(frozen=True, slots=True)
class WrittenText:
    """One text as the template writes it.

    Attributes:
        shown: the text without the white space that the template trims.
        start: the byte of the turn's text at which ``shown`` begins.
        end: the byte of the turn's text at which this text ends, with the white space that the template trims.
        scored_turn: index among the scored turns; None for a text that is not scored.
    """

    shown: str
    start: int
    end: int
    scored_turn: int | None


@dataclass(frozen=True, slots=True)
class Written:
    """A rendered conversation: the template's n + 1 fragments, and the n nonempty texts between them."""

    fragments: tuple[str, ...]
    texts: tuple[WrittenText, ...]


@dataclass(frozen=True, slots=True)
class _Text:
    """One text of the conversation before rendering; ``start`` is its first byte in the turn's text."""

    text: str
    message: str
    start: int
    scored_turn: int | None


class ChatTemplate:
    """A chat template and its treatment of texts; the module's docstring explains how."""

    def __init__(self, render: RenderTemplate) -> None:
        self._render = render
        # Digits: a template that changes case leaves the marker unchanged; comparing the texts detects the change.
        self._marker = f"\U000f0002{secrets.randbits(64)}:"
        self._fragments = lru_cache(maxsize=1024)(self._fragments_of_shape)
        self._ending = lru_cache(maxsize=2)(self._ending_after_answer)

    def write(self, turns: Sequence[Turn]) -> Written:
        """Render a conversation; neighbouring texts in a turn count as one.

        Raises:
            RowError: ``template_failed`` if the template refuses the conversation, or drops, repeats, reorders or
                changes a text; ``text_invalid`` if a text cannot be encoded as UTF-8.
        """
        turns = [_with_joined_texts(turn) for turn in turns]
        texts = list(_texts(turns))
        for text in texts:
            _check_utf8(text.text)
        rendered = self._rendered(turns)
        shape = self._shape(turns)
        fragments = self._fragments(shape)
        shown = _shown(rendered, fragments, texts)
        if len(shown) < len(texts):
            self._fragments.cache_clear()  # some templates write the date, so yesterday's fragments do not match
            fragments = self._fragments(shape)
            shown = _shown(rendered, fragments, texts)
        if len(shown) < len(texts):
            wrong = texts[len(shown)]
            raise RowError(
                FailureCode.TEMPLATE_FAILED,
                f"the model's chat template changes {wrong.message}, {wrong.text[:80]!r}, or what it writes around it "
                f"depends on what a text says; it may only trim white space from a text's ends: {_REMEDY}",
            )
        return Written(fragments, tuple(shown))

    def ending(self, images: int) -> str:
        """Return what the template writes after the last text of a conversation that ends with an answer.

        Args:
            images: the number of images in the question.

        Returns:
            Empty, with a warning, if the template refuses such a conversation.
        """
        return self._ending(images)

    def _ending_after_answer(self, images: int) -> str:
        conversation = (Turn.question(images, "What is it?"), Turn("assistant", ("A kite.",)))
        try:
            return self._fragments(self._shape(conversation))[-1]
        except RowError as error:
            log.warning("no stop token is scored, since it cannot be told from the chat template: %s", error.message)
            return ""

    def _rendered(self, turns: Sequence[Turn]) -> str:
        try:
            return self._render(to_messages(turns))
        except Exception as error:  # a Jinja template is arbitrary code: raise_exception(), type errors, …
            raise RowError(
                FailureCode.TEMPLATE_FAILED,
                f"the model's chat template refuses the roles {[turn.role for turn in turns]}: {error}; {_REMEDY}",
            ) from error

    def _shape(self, turns: Sequence[Turn]) -> tuple[Turn, ...]:
        """Return the conversation with a marker in place of every text; empty texts, which have no place, stay."""
        shape, count = [], 0
        for turn in turns:
            parts: list[ContentPart] = []
            for part in turn.content:
                is_text = isinstance(part, str) and part != ""
                parts.append(f"{self._marker}{count}\U000f0003" if is_text else part)
                count += is_text
            shape.append(Turn(turn.role, tuple(parts)))
        return tuple(shape)

    def _fragments_of_shape(self, shape: tuple[Turn, ...]) -> tuple[str, ...]:
        """Return the template's text before, between and after the markers."""
        pieces = re.split(f"{self._marker}(\\d+)\U000f0003", self._rendered(shape))
        order = [int(i) for i in pieces[1::2]]
        messages = [text.message for text in _texts(shape)]
        if order == list(range(len(messages))):
            return tuple(pieces[::2])
        dropped = [message for i, message in enumerate(messages) if i not in order]
        does = f"drops {', '.join(dropped)}" if dropped else f"repeats or reorders texts: it writes {order}"
        raise RowError(
            FailureCode.TEMPLATE_FAILED,
            f"the model's chat template {does}; each text must appear once, in order and unchanged: {_REMEDY}",
        )


def _with_joined_texts(turn: Turn) -> Turn:
    """Join neighbouring texts, so that no token lies in two of them."""
    parts: list[ContentPart] = []
    for part in turn.content:
        if isinstance(part, str) and parts and isinstance(parts[-1], str):
            parts[-1] += part
        else:
            parts.append(part)
    return Turn(turn.role, tuple(parts))


def _texts(turns: Sequence[Turn]) -> Iterator[_Text]:
    scored_turns = 0
    for i, turn in enumerate(turns):
        is_scored, start = turn.role == "assistant", 0
        for part in turn.content:
            if isinstance(part, str) and part:
                yield _Text(part, f"message {i} ({turn.role})", start, scored_turns if is_scored else None)
                start += len(part.encode(errors="surrogatepass"))
        scored_turns += is_scored


def _check_utf8(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError(
            FailureCode.TEXT_INVALID, f"the text cannot be encoded as UTF-8 at character {error.start}: {error.reason}"
        ) from error


def _shown(rendered: str, fragments: Sequence[str], texts: Sequence[_Text]) -> list[WrittenText]:
    """Return what ``rendered`` shows of each text, up to the first that does not match.

    rendered   <user>What?<end><assistant>A kite.<end>
    fragments  <user>····· <end><assistant>·······<end>      the second text was "·A kite.\\n": shown from byte 1
    """
    found: list[WrittenText] = []
    place = len(fragments[0])
    if not rendered.startswith(fragments[0]):
        return found
    for text, fragment in zip(texts, fragments[1:], strict=True):
        for trimmed, shown in _trimmed(text.text):
            if rendered.startswith(shown + fragment, place):
                start, end = text.start + len(trimmed.encode()), text.start + len(text.text.encode())
                found.append(WrittenText(shown, start, end, text.scored_turn))
                place += len(shown) + len(fragment)
                break
        else:
            return found
    return found if place == len(rendered) else found[:-1]


def _trimmed(text: str) -> Iterator[tuple[str, str]]:
    """Yield (trimmed prefix, remaining text) for each way in which templates trim, starting with no trimming.

    A template trims line breaks or all white space, at one end or both.
    """
    for left in (text, text.lstrip("\n"), text.lstrip()):
        for shown in (left, left.rstrip("\n"), left.rstrip()):
            yield text[: len(text) - len(left)], shown
