"""A conversation → token ids, with every token's place in the scored text known by construction.

Two problems are solved here, both by writing the rendered prompt in an alphabet that no data can spell:

* *Where is the scored text?* The chat template is rendered once per conversation shape with a marker in place of
  every text. Cutting at the markers gives the template's own fragments; a sample's prompt is fragments and texts
  joined, so each text's place is known and never searched for.
* *What is a control token?* A caption may spell ``<image>`` or ``<|im_end|>``. The tokenizer is cloned with its
  control tokens renamed to unguessable strings, and only the template's fragments are rewritten to them. Then the
  whole prompt is encoded at once, as the reference model saw it in training (encoding the caption alone would change
  the tokens at its edges), and what the data spells stays text.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from scorer.control import with_renamed_tokens
from scorer.errors import FailureCode, RowError
from scorer.spans import token_byte_spans
from scorer.types import Int16Array, Int32Array, Int64Array, Turn

Shape = tuple[tuple[str, tuple[bool, ...]], ...]
"""A conversation without its texts: per turn its role and, per part, whether it is an image."""

RenderTemplate = Callable[[list[dict[str, Any]]], str]
"""Messages in Hugging Face's form → the prompt as a string, special tokens spelled out."""


@dataclass(frozen=True, slots=True)
class RenderedTokens:
    """A rendered and tokenized conversation.

    Attributes:
        ids: int64 [L], all tokens, images expanded to their placeholder tokens.
        scored: int64 [N], positions in ``ids`` of the scored tokens, ascending.
        starts, ends: int32 [N], half-open UTF-8 byte span of each scored token within its turn's text.
        turns: int16 [N], which scored text the token belongs to.
        images: int64 [n], position in ``ids`` of each image's first placeholder token.
    """

    ids: Int64Array
    scored: Int64Array
    starts: Int32Array
    ends: Int32Array
    turns: Int16Array
    images: Int64Array


class ChatTokenizer:
    """Renders conversations through a chat template and tokenizes them. See the module's docstring.

    Args:
        tokenizer: the model's fast tokenizer (the ``tokenizers`` backend).
        control_tokens: strings of the tokens that only the template may write.
        render: the model's chat template.
        slot: what the template writes in an image's place; a control token. None for a model without images.
        image_token: the token that an image's features take the place of; a control token, or None.
        bos: id of the token that the tokenizer itself puts before a prompt; the template may write it instead.
            None for none.
        bos_behind_images: placeholders begin the prompt and ``bos`` follows them; the text is tokenized as if it
            began the prompt.
        apart: the first scored text is tokenized apart from the prompt, as the model saw it in training.

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
        bos_behind_images: bool = False,
        apart: bool = False,
    ) -> None:
        nonce = secrets.token_hex(8)
        self._names = {token: f"\U000f0000{nonce}:{i}\U000f0001" for i, token in enumerate(control_tokens)}
        self._tokenizer = with_renamed_tokens(tokenizer, self._names)
        longest_first = sorted(self._names, key=len, reverse=True)
        self._control_pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._marker = f"\U000f0002{nonce}:"
        self._render = render
        self._slot = None if slot is None else self._names[slot]
        self._image_token = image_token or ""
        image_token_id = None if image_token is None else tokenizer.token_to_id(image_token)
        self._image_token_id = -1 if image_token_id is None else image_token_id
        self._image_run = re.compile(f"(?:{re.escape(self._image_token)})+")
        self._bos = bos
        self._apart = apart
        self._lead = self._names[self._image_token] if bos_behind_images else ""
        self._fragments = lru_cache(maxsize=1024)(self._fragments_of_shape)

    def encode(self, turns: Sequence[Turn], images: Sequence[str]) -> RenderedTokens:
        """Tokenize a conversation.

        Args:
            turns: the conversation, with n images.
            images: for each image the text that stands for it in the prompt, as the model's processor writes it.

        Raises:
            RowError: ``template_failed`` if the template refuses the conversation or drops or repeats a text or an
                image; ``text_invalid`` if a text cannot be encoded as UTF-8.
        """
        turns = [_merge_texts(turn) for turn in turns]
        shape = tuple((turn.role, tuple(not isinstance(part, str) for part in turn.content)) for turn in turns)
        fragments, runs_of_image = self._with_images(self._fragments(shape), images)
        texts = [(turn.role == "assistant", part) for turn in turns for part in turn.content if isinstance(part, str)]
        for _, text in texts:
            _check_utf8(text)

        prompt, scored_spans = fragments[0], []
        for (is_scored, text), fragment in zip(texts, fragments[1:], strict=True):
            if is_scored:
                scored_spans.append((len(prompt), len(prompt) + len(text)))
            prompt += text + fragment
        lead = len(self._lead) if prompt.startswith(self._lead) else 0
        prompt, scored_spans = prompt[lead:], [(first - lead, last - lead) for first, last in scored_spans]
        rendered = _locate(prompt, self._tokenized(prompt, scored_spans[0][0]), scored_spans)
        if lead:
            rendered = _inserted(rendered, 0, self._image_token_id)
        rendered = self._expand(rendered, runs_of_image)
        place = runs_of_image[0][0] if lead else 0
        if self._bos is None or (place < len(rendered.ids) and rendered.ids[place] == self._bos):
            return rendered
        # As an id, not as a string: a Metaspace tokenizer puts its space before the first word only where the word
        # begins the string, and so did the reference model's own tokenizer, which adds BOS behind the fact.
        return _inserted(rendered, place, self._bos)

    def _tokenized(self, prompt: str, first_scored: int) -> Encoding:
        if not self._apart:
            return self._tokenizer.encode(prompt, add_special_tokens=False)
        parts = (prompt[:first_scored], prompt[first_scored:])
        encodings = [self._tokenizer.encode(part, add_special_tokens=False) for part in parts if part]
        return Encoding.merge(encodings, growing_offsets=True)

    def _with_images(self, fragments: Sequence[str], images: Sequence[str]) -> tuple[list[str], list[list[int]]]:
        """Put each image's text into its slot, a run of placeholder tokens written once; and the runs' lengths.

        Placeholders are encoded together with the text around them, because neighbours can merge: Gemma 3 writes line
        breaks around an image that may follow a line break of the prompt.
        """
        if self._slot is None:
            return list(fragments), []
        slot = self._slot
        slots = sum(fragment.count(slot) for fragment in fragments)
        if slots != len(images):
            raise RowError(
                FailureCode.TEMPLATE_FAILED,
                f"the model's chat template writes {slots} image placeholders for {len(images)} images",
            )
        width = len(self._image_token)
        lengths = [[(m.end() - m.start()) // width for m in self._image_run.finditer(text)] for text in images]
        queue = iter(images)

        def written(match: re.Match[str]) -> str:
            once = self._image_run.sub(self._image_token, next(queue))
            return self._control_pattern.sub(lambda control: self._names[control[0]], once)

        return [re.sub(re.escape(slot), written, fragment) for fragment in fragments], lengths

    def _expand(self, rendered: RenderedTokens, runs_of_image: Sequence[Sequence[int]]) -> RenderedTokens:
        """Repeat each placeholder token as often as its run is long, and move positions along.

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

    def _fragments_of_shape(self, shape: Shape) -> tuple[str, ...]:
        """The template's text between the conversation's texts, control tokens renamed."""
        messages, count = [], 0
        for role, images in shape:
            content: list[dict[str, str]] = []
            for is_image in images:
                content.append(
                    {"type": "image"} if is_image else {"type": "text", "text": f"{self._marker}{count}\U000f0003"}
                )
                count += not is_image
            messages.append({"role": role, "content": content})
        try:
            rendered = self._render(messages)
        except Exception as error:  # a Jinja template is arbitrary code: raise_exception(), type errors, …
            raise RowError(
                FailureCode.TEMPLATE_FAILED,
                f"the model's chat template refuses the roles {[role for role, _ in shape]}: {error}",
            ) from error
        pieces = re.split(f"{self._marker}(\\d+)\U000f0003", rendered)
        fragments, order = pieces[::2], [int(i) for i in pieces[1::2]]
        if order != list(range(count)):
            raise RowError(
                FailureCode.TEMPLATE_FAILED,
                f"the model's chat template writes the texts {order} of {count} for the roles "
                f"{[role for role, _ in shape]}; each must appear once and in order",
            )
        return tuple(self._control_pattern.sub(lambda match: self._names[match[0]], part) for part in fragments)


def _inserted(rendered: RenderedTokens, place: int, token: int) -> RenderedTokens:
    """One more token ahead of all scored ones."""
    return replace(
        rendered,
        ids=np.insert(rendered.ids, place, token),
        scored=rendered.scored + 1,
        images=rendered.images + (rendered.images >= place),
    )


def _merge_texts(turn: Turn) -> Turn:
    """Join neighbouring texts, so that an assistant turn is one scored text."""
    parts: list[Any] = []
    for part in turn.content:
        if isinstance(part, str) and parts and isinstance(parts[-1], str):
            parts[-1] += part
        else:
            parts.append(part)
    if turn.role == "assistant" and not parts:
        parts.append("")  # keeps token_turns in step with Sample.scored_texts
    return Turn(turn.role, tuple(parts))


def _check_utf8(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError(
            FailureCode.TEXT_INVALID, f"the text cannot be encoded as UTF-8 at character {error.start}: {error.reason}"
        ) from error


def _locate(prompt: str, encoding: Any, scored_spans: Sequence[tuple[int, int]]) -> RenderedTokens:
    """Pick the tokens that overlap a scored text; a token that also covers template text keeps the text's bytes.

    prompt    assistant:·A·red·kite<end>        · is a space
    text                 [A·red·kite]
    tokens    …|:|·A|·red|·kite|<end>           "·A" is scored and spans the text's byte 0 only
    """
    token_starts, token_ends = token_byte_spans(prompt, encoding.tokens, encoding.offsets)
    positions, starts, ends, turns = [], [], [], []
    for turn, (first, last) in enumerate(scored_spans):
        text_start = len(prompt[:first].encode())
        text_end = text_start + len(prompt[first:last].encode())
        inside = np.flatnonzero((token_ends > text_start) & (token_starts < text_end) & (token_ends > token_starts))
        positions.append(inside)
        starts.append(np.maximum(token_starts[inside], text_start) - text_start)
        ends.append(np.minimum(token_ends[inside], text_end) - text_start)
        turns.append(np.full(len(inside), turn))
    return RenderedTokens(
        ids=np.asarray(encoding.ids, dtype=np.int64),
        scored=np.concatenate(positions).astype(np.int64),
        starts=np.concatenate(starts).astype(np.int32),
        ends=np.concatenate(ends).astype(np.int32),
        turns=np.concatenate(turns).astype(np.int16),
        images=np.zeros(0, dtype=np.int64),
    )
