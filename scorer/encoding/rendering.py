"""Tokenize a conversation so that every token's place in the scored text is known by construction.

All questions below are answered with markers that no data can spell:

* *Where is the scored text?* :class:`~scorer.encoding.template.ChatTemplate` cuts the rendered conversation into the
  template's own fragments and the texts between them. The prompt is their concatenation, so each text's place is known.
* *What ends a turn?* Of a conversation that ends with an answer, the first control token that the template writes after
  that answer. Nothing else can follow the last turn, so the header of a next one is not mistaken for it.
* *What is a control token?* A caption may spell ``<image>`` or ``<|im_end|>``. The tokenizer is cloned with its
  control tokens renamed to unguessable strings, and only the template's fragments are rewritten to use them. The whole
  prompt is then encoded at once, as the reference model saw it in training (encoding the caption alone would change
  the tokens at its edges), and whatever the data spells stays text.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from scorer.encoding.control_tokens import with_renamed_tokens
from scorer.encoding.template import ChatTemplate, RenderTemplate, WrittenText
from scorer.errors import FailureCode, RowError
from scorer.spans import token_byte_spans
from scorer.types import BoolArray, Int16Array, Int32Array, Int64Array, Turn


@dataclass(frozen=True, slots=True)
class RenderedTokens:
    """A rendered and tokenized conversation.

    Attributes:
        ids: int64 [L], all tokens, images expanded to their placeholder tokens.
        scored: int64 [N], positions of the scored tokens in ``ids``, ascending.
        starts, ends: int32 [N], half-open UTF-8 byte span of each scored token within its turn's original text. White
            space that the template trims is in no span. A stop token's span is empty and lies at the end of the text.
        turns: int16 [N], index of the scored turn that each token belongs to.
        is_stop: bool [N], whether the token is the template's stop token, which ends its turn.
        images: int64 [n], position of each image's first placeholder token in ``ids``.
    """

    ids: Int64Array
    scored: Int64Array
    starts: Int32Array
    ends: Int32Array
    turns: Int16Array
    is_stop: BoolArray
    images: Int64Array


@dataclass(frozen=True, slots=True)
class _Scored:
    """A scored text in the prompt.

    Attributes:
        first: the character of the prompt at which the text begins.
        stop: the character at which the stop token begins that ends the text's turn; None if there is none.
    """

    text: WrittenText
    first: int
    stop: int | None

    def earlier_by(self, count: int) -> _Scored:
        """Return the text's place in a prompt without its first ``count`` characters."""
        return replace(self, first=self.first - count, stop=None if self.stop is None else self.stop - count)


class ChatTokenizer:
    """Renders conversations with a chat template and tokenizes them; the module's docstring explains how.

    Args:
        tokenizer: the model's fast tokenizer (the ``tokenizers`` backend).
        control_tokens: strings of the tokens that only the template may write.
        render: the model's chat template.
        slot: the control token that the template writes in an image's place; None for a model without images.
        image_token: the control token that an image's features replace; None for a model without images.
        bos: id of the token that the tokenizer itself puts before a prompt, unless the template writes it; None if
            there is no such token.
        bos_after_images: whether image placeholders begin the prompt and ``bos`` follows them; the text is tokenized as
            if it began the prompt.
        separate_text: whether the first scored text is tokenized separately from the prompt, as the model saw it in
            training.
        stop_token: whether the token that ends a scored turn is scored too.

    Raises:
        ModelError: the tokenizer cannot be cloned with renamed control tokens.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        control_tokens: Sequence[str],
        render: RenderTemplate,
        *,
        slot: str | None,
        image_token: str | None,
        bos: int | None,
        bos_after_images: bool = False,
        separate_text: bool = False,
        stop_token: bool = False,
    ) -> None:
        nonce = secrets.token_hex(8)
        self._names = {token: f"\U000f0000{nonce}:{i}\U000f0001" for i, token in enumerate(control_tokens)}
        self._tokenizer = with_renamed_tokens(tokenizer, self._names)
        longest_first = sorted(self._names, key=len, reverse=True)
        self._control_pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._template = ChatTemplate(render)
        self._slot = None if slot is None else self._names[slot]
        self._image_token = image_token or ""
        image_token_id = None if image_token is None else tokenizer.token_to_id(image_token)
        self._image_token_id = -1 if image_token_id is None else image_token_id
        self._image_run = re.compile(f"(?:{re.escape(self._image_token)})+")
        self._bos = bos
        self._separate_text = separate_text
        self._score_stops = stop_token
        self._lead = self._names[self._image_token] if bos_after_images else ""
        self._renamed = lru_cache(maxsize=1024)(self._with_control_tokens_renamed)

    def encode(self, turns: Sequence[Turn], images: Sequence[str]) -> RenderedTokens:
        """Tokenize a conversation.

        Args:
            turns: the conversation, with n images.
            images: for each image, the text that represents it in the prompt, as the model's processor writes it.

        Raises:
            RowError: ``template_failed`` if the template refuses the conversation, or drops, repeats or changes a
                text or an image; ``text_missing`` if there is no token to score; ``text_invalid`` if a text cannot be
                encoded as UTF-8.
        """
        written = self._template.write(turns)
        fragments, runs_of_image = self._with_images([self._renamed(part) for part in written.fragments], images)
        prompt, scored = fragments[0], []
        for i, (text, fragment) in enumerate(zip(written.texts, fragments[1:], strict=True)):
            if text.scored_turn is not None and text.shown:
                ends_turn = all(later.scored_turn != text.scored_turn for later in written.texts[i + 1 : i + 2])
                first = len(prompt)
                end = self._stop_in(fragment) if ends_turn else None
                scored.append(_Scored(text, first, None if end is None else first + len(text.shown) + end))
            prompt += text.shown + fragment
        lead = len(self._lead) if prompt.startswith(self._lead) else 0
        prompt, scored = prompt[lead:], [one.earlier_by(lead) for one in scored]
        rendered = _locate(prompt, self._tokenized(prompt, scored[0].first if scored else len(prompt)), scored)
        if rendered.is_stop.all():
            raise RowError(
                FailureCode.TEXT_MISSING,
                "the model's chat template and tokenizer leave no token of the text to score; remove the row",
            )
        if lead:
            rendered = _inserted(rendered, 0, self._image_token_id)
        rendered = self._expand(rendered, runs_of_image)
        place = runs_of_image[0][0] if lead else 0
        if self._bos is None or (place < len(rendered.ids) and rendered.ids[place] == self._bos):
            return rendered
        # As an id, not as a string: a Metaspace tokenizer puts its space before the first word only if the word begins
        # the string, as it did for the reference model's own tokenizer, which adds BOS after tokenizing.
        return _inserted(rendered, place, self._bos)

    @property
    def stop_token(self) -> str | None:
        """The control token that the template writes after a conversation's last answer, by its name in prompts.

        White space may stand before it. None if the template writes none there.
        """
        written = self._renamed(self._template.ending(0 if self._slot is None else 1)).lstrip()
        return next((name for name in self._names.values() if written.startswith(name)), None)

    def _stop_in(self, fragment: str) -> int | None:
        """Return where the stop token stands in what follows a turn's text: behind white space; None if it does not."""
        stop = self.stop_token if self._score_stops else None
        begins = len(fragment) - len(fragment.lstrip())
        return begins if stop is not None and fragment.startswith(stop, begins) else None

    def _tokenized(self, prompt: str, first_scored: int) -> Encoding:
        if not self._separate_text:
            return self._tokenizer.encode(prompt, add_special_tokens=False)
        parts = (prompt[:first_scored], prompt[first_scored:])
        encodings = [self._tokenizer.encode(part, add_special_tokens=False) for part in parts if part]
        return Encoding.merge(encodings, growing_offsets=True)

    def _with_images(self, fragments: Sequence[str], images: Sequence[str]) -> tuple[list[str], list[list[int]]]:
        """Put each image's text into its slot, with every run of placeholders written once; also return run lengths.

        Placeholders are encoded together with the text around them, because neighbours can merge: Gemma 3 writes line
        breaks around an image, and the prompt may have another line break next to them.
        """
        if self._slot is None:
            return list(fragments), []
        slot = self._slot
        slots = sum(fragment.count(slot) for fragment in fragments)
        if slots != len(images):
            raise RowError(
                FailureCode.TEMPLATE_FAILED,
                f"the model's chat template writes {slots} image placeholders for {len(images)} images; use another "
                "reference model, or leave out what the template does not accept",
            )
        width = len(self._image_token)
        lengths = [[(m.end() - m.start()) // width for m in self._image_run.finditer(text)] for text in images]
        queue = iter(images)

        def written(match: re.Match[str]) -> str:
            once = self._image_run.sub(self._image_token, next(queue))
            return self._with_control_tokens_renamed(once)

        return [re.sub(re.escape(slot), written, fragment) for fragment in fragments], lengths

    def _expand(self, rendered: RenderedTokens, runs_of_image: Sequence[Sequence[int]]) -> RenderedTokens:
        """Repeat each placeholder token to the length of its run, and shift positions accordingly.

        ids       <user> <start> ▢          <end> What ? <assistant> A kite     scored = [7, 8]
        expanded  <user> <start> ▢ ▢ ▢ ▢    <end> What ? <assistant> A kite     scored = [10, 11]
        """
        repeats = np.ones(len(rendered.ids), dtype=np.int64)
        places = np.flatnonzero(rendered.ids == self._image_token_id)
        runs = [length for lengths in runs_of_image for length in lengths]
        if len(places) != len(runs):
            raise AssertionError(f"{len(places)} runs of image tokens were encoded, {len(runs)} were written")
        repeats[places] = runs
        starts = np.cumsum(repeats) - repeats
        first_run = np.cumsum([0, *map(len, runs_of_image)])[:-1].astype(np.int64)
        return replace(
            rendered,
            ids=np.repeat(rendered.ids, repeats),
            scored=starts[rendered.scored],
            images=starts[places[first_run]] if len(places) else np.zeros(0, dtype=np.int64),
        )

    def _with_control_tokens_renamed(self, text: str) -> str:
        return self._control_pattern.sub(lambda match: self._names[match[0]], text)


def _inserted(rendered: RenderedTokens, place: int, token: int) -> RenderedTokens:
    """Insert a token before all scored ones."""
    return replace(
        rendered,
        ids=np.insert(rendered.ids, place, token),
        scored=rendered.scored + 1,
        images=rendered.images + (rendered.images >= place),
    )


def _columns(position: Int64Array, *values: Any) -> Int64Array:
    """Return one row of int64 for each position: the position, and each value, or that value's element for it."""
    return np.stack([position, *(np.broadcast_to(value, position.shape) for value in values)], axis=1, dtype=np.int64)


def _locate(prompt: str, encoding: Encoding, scored: Sequence[_Scored]) -> RenderedTokens:
    """Find the tokens that overlap a scored text; the span of a token that also covers template text is clipped.

    A stop token is found by its first character, and follows the tokens of a text that has any.

    prompt    assistant:·A·red·kite<end>        · is a space
    text                 [A·red·kite]
    tokens    …|:|·A|·red|·kite|<end>           "·A" is scored and spans the text's byte 0 only; <end> spans 10 to 10
    """
    token_starts, token_ends = token_byte_spans(prompt, encoding.tokens, encoding.offsets)
    found = [np.zeros((0, 5), dtype=np.int64)]  # position in ids, start, end, turn, whether it is a stop token
    for one in scored:
        text = one.text
        start = len(prompt[: one.first].encode())
        end = start + len(text.shown.encode())
        inside = np.flatnonzero((token_ends > start) & (token_starts < end) & (token_ends > token_starts))
        stop = np.zeros(0, dtype=np.int64)
        if one.stop is not None:
            place = end + len(prompt[one.first + len(text.shown) : one.stop].encode())
            stop = np.flatnonzero((token_starts <= place) & (place < token_ends))
            inside = np.setdiff1d(inside, stop)  # it may swallow the white space before it, the text's own included
            stop = stop[: len(inside)]
        starts = np.maximum(token_starts[inside], start) - start + text.start
        ends = np.minimum(token_ends[inside], end) - start + text.start
        found.append(_columns(inside, starts, ends, text.scored_turn, False))
        found.append(_columns(stop, text.end, text.end, text.scored_turn, True))
    positions, starts, ends, turns, is_stop = np.concatenate(found).T
    return RenderedTokens(
        ids=np.asarray(encoding.ids, dtype=np.int64),
        scored=positions,
        starts=starts.astype(np.int32),
        ends=ends.astype(np.int32),
        turns=turns.astype(np.int16),
        is_stop=is_stop.astype(np.bool_),
        images=np.zeros(0, dtype=np.int64),
    )
