"""Find each token's byte span in a text, and move weights between tokenizers. Pure numpy.

The text's UTF-8 bytes are all that the tokens of two tokenizers have in common. :func:`token_byte_spans` finds the
exact bytes of one tokenizer's tokens; :func:`project` carries weights from one tokenizer's tokens to another's, and
:func:`apportion` carries what adds up, such as log-probabilities.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from scorer.errors import SpanError
from scorer.token_bytes import byte_level_bytes, sentencepiece_bytes
from scorer.types import Float32Array, Int32Array, Int64Array

Offset = tuple[int, int]
IntArray = npt.NDArray[np.integer[Any]]


def char_to_byte(text: str) -> Int64Array:
    """Return the UTF-8 byte at which each character starts, int64 [len(text) + 1]; the last one is the byte length."""
    code_points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    width = 1 + (code_points >= 0x80).astype(np.int64) + (code_points >= 0x800) + (code_points >= 0x10000)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(width)])


def token_byte_spans(text: str, tokens: Sequence[str], offsets: Sequence[Offset]) -> tuple[Int32Array, Int32Array]:
    """Return the half-open UTF-8 byte span of every token in ``text``.

    A fast tokenizer reports offsets in characters, so the pieces of one multi-byte character all claim the whole
    character, and byte-level tokenizers may trim the space that a token carries. The first method that applies is used:

    1. Lossless: the bytes that the token strings represent (byte-level alphabet, or SentencePiece with byte
       fallback), joined end to end, equal the text. The spans then partition the text exactly.
    2. Otherwise (lower-casing, Unicode normalisation, unknown tokens): the reported offsets. Where two tokens claim
       the same bytes, the first takes as many as its own string represents.

    Tokens that represent no text ([CLS], end of sequence, a SentencePiece dummy prefix) have empty spans.

    Args:
        text: the text that was tokenized; valid Unicode.
        tokens: N token strings, as the vocabulary spells them (``Encoding.tokens``).
        offsets: N (start, end) pairs in characters of ``text`` (``Encoding.offsets``); (0, 0) marks a special token.

    Returns:
        int32 [N] starts and int32 [N] ends, both non-decreasing, 0 ≤ start ≤ end ≤ bytes of ``text``; no two spans
        share a byte.

    Raises:
        SpanError: tokens and offsets differ in number, or offsets lie outside the text or run backwards.
    """
    _check_offsets(text, tokens, offsets)
    data = text.encode("utf-8")
    special = [offset == (0, 0) for offset in offsets]
    for bytes_of in (byte_level_bytes, sentencepiece_bytes):
        for silent in ([False] * len(tokens), special):
            lengths = _lossless_lengths(data, tokens, silent, bytes_of)
            if lengths is not None:
                ends = np.cumsum(lengths, dtype=np.int64)
                return (ends - lengths).astype(np.int32), ends.astype(np.int32)
    return _spans_from_offsets(text, data, tokens, offsets)


def _check_offsets(text: str, tokens: Sequence[str], offsets: Sequence[Offset]) -> None:
    if len(tokens) != len(offsets):
        raise SpanError(f"{len(tokens)} tokens came with {len(offsets)} offsets; give one (start, end) per token")
    edges = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    outside = (edges[:, 0] < 0) | (edges[:, 0] > edges[:, 1]) | (edges[:, 1] > len(text))
    if outside.any():
        i = int(np.argmax(outside))
        raise SpanError(
            f"token {i} ({tokens[i]!r}) has offsets {tuple(offsets[i])} in a text of {len(text)} characters; "
            "0 ≤ start ≤ end ≤ length must hold: give the text that was tokenized"
        )
    placed = np.flatnonzero(edges.any(axis=1))  # the others are special
    backwards = np.diff(edges[placed, 0]) < 0
    if backwards.any():
        i = int(placed[int(np.argmax(backwards)) + 1])
        raise SpanError(f"token {i} ({tokens[i]!r}) starts at character {offsets[i][0]}, before its predecessor")


def _lossless_lengths(
    data: bytes, tokens: Sequence[str], silent: Sequence[bool], bytes_of: Callable[[str], bytes | None]
) -> Int64Array | None:
    """Return each token's number of bytes, int64 [N], if the tokens' joined bytes equal ``data``; otherwise None.

    One dummy space in front is allowed. ``silent`` tokens represent nothing.
    """
    token_bytes = []
    for token, empty in zip(tokens, silent, strict=True):
        own_bytes = b"" if empty else bytes_of(token)
        if own_bytes is None:
            return None
        token_bytes.append(own_bytes)
    joined = b"".join(token_bytes)
    if joined != data and joined != b" " + data:
        return None
    lengths = np.array([len(one) for one in token_bytes], dtype=np.int64)
    if len(joined) > len(data):
        lengths[np.flatnonzero(lengths)[0]] -= 1
    return lengths


def _spans_from_offsets(
    text: str, data: bytes, tokens: Sequence[str], offsets: Sequence[Offset]
) -> tuple[Int32Array, Int32Array]:
    """Apply method 2 of :func:`token_byte_spans`: walk the offsets left to right, assigning each byte once."""
    to_byte = char_to_byte(text)
    claimed = [(int(to_byte[start]), int(to_byte[end])) for start, end in offsets]
    starts, ends, cursor = [], [], 0
    for i, (start, end) in enumerate(claimed):
        next_start = claimed[i + 1][0] if i + 1 < len(claimed) and claimed[i + 1][1] > 0 else len(data)
        start, end = max(start, cursor), max(end, cursor)
        alone = cursor == start < end == next_start  # touches both neighbours: nothing to look for
        found = None if alone else _find_token(data, tokens[i], start, cursor)
        if found is not None:
            start = found[0]
            own_end = start + found[1]
            if own_end > end and data[end:own_end].isspace():  # the tokenizer trimmed trailing space
                end = own_end
        if next_start < end:  # shares bytes with the next token: take this piece's own bytes, leave the rest
            cut = start + (len(byte_level_bytes(tokens[i]) or b" ") if found is None else found[1])
            end = min(end, max(cut, next_start, start))
        else:
            end = max(end, _end_with_folded(text, offsets, i, to_byte))
        starts.append(start)
        ends.append(end)
        cursor = end
    return np.array(starts, dtype=np.int32), np.array(ends, dtype=np.int32)


def _end_with_folded(text: str, offsets: Sequence[Offset], i: int, to_byte: Int64Array) -> int:
    """Return the end byte of token ``i``, including unclaimed characters that normalisation folded into it.

    NFC reports a composed letter at its first character alone, and accent stripping reports nothing for the accent;
    the remaining bytes belong to the letter before them.
    """
    start, end = offsets[i]
    limit = offsets[i + 1][0] if i + 1 < len(offsets) and offsets[i + 1][1] > 0 else len(text)
    while start < end < limit and _folds(text[start:end], text[end]):
        end += 1
    return int(to_byte[end])


def _folds(before: str, char: str) -> bool:
    """Return whether ``char`` is a combining mark, or composes with the text before it (Hangul syllables)."""
    if char.isascii():
        return False
    composed = len(unicodedata.normalize("NFC", before + char)) <= len(unicodedata.normalize("NFC", before))
    return composed or unicodedata.category(char).startswith("M")


def _find_token(data: bytes, token: str, start: int, floor: int) -> tuple[int, int] | None:
    """Return (start, length) of the token's own bytes at ``start``, or earlier by its spaces; not before ``floor``."""
    byte_level = byte_level_bytes(token)
    readings = [sentencepiece_bytes(token), token.encode("utf-8")]
    for own in readings if byte_level is None else [byte_level, *readings]:
        spaces = len(own) - len(own.lstrip(b" "))
        for candidate in (start - spaces, start):
            if candidate >= floor and data.startswith(own, candidate):
                return candidate, len(own)
        if spaces and start == 0 and data.startswith(own[1:]):  # its first space is a dummy prefix
            return 0, len(own) - 1
    return None


def project(
    weights: Float32Array,
    source_starts: IntArray,
    source_ends: IntArray,
    target_starts: IntArray,
    target_ends: IntArray,
    *,
    source_groups: IntArray | None = None,
    target_groups: IntArray | None = None,
    uncovered: float | Literal["error"] = "error",
    empty: float | Literal["error"] = "error",
) -> Float32Array:
    """Project the weights of N source tokens onto M target tokens of the same text.

    A target token's weight is the mean of the source weights over its bytes. So Σ weight · bytes is preserved wherever
    the targets cover what the sources cover, equal spans get equal weights, and raising a source weight never
    lowers a target weight. Naive form::

        per_byte[start_i:end_i] = weights[i] for every source i
        out[j] = mean(per_byte[start_j:end_j])

    Args:
        weights: float32 [N]; a NaN reaches only the targets that share a byte with it.
        source_starts, source_ends: integer [N], half-open byte spans; ascending and disjoint within a group.
        target_starts, target_ends: integer [M], half-open byte spans of the same text, in any order.
        source_groups, target_groups: integer [N] and [M], sources ascending; spans of different groups lie in
            different turns. Pass a sample's ``token_turns``, or one number per turn of every sample in a batch.
        uncovered: the weight of a byte that no source covers (because the reference text was truncated, or its chat
            template trims white space), or ``error``.
        empty: the weight of a target with no bytes, or ``error``. Choose it with care: a weight of 0 for the token
            that ends a turn trains a model that never stops.

    Returns:
        float32 [M]. Runs in O((N + M) log(N + M)).

    Raises:
        SpanError: the spans violate the above, or ``uncovered`` or ``empty`` is ``error`` and a target needs it.
    """
    source, target = _matched(
        weights, source_starts, source_ends, target_starts, target_ends, source_groups, target_groups
    )
    mass, covered = _mass_and_cover(np.asarray(weights, np.float64), source, target)
    length = target[:, 1] - target[:, 0]
    missing = length - covered
    if uncovered == "error":
        _refuse(missing > 0, missing, "has {} bytes that no source span covers; give uncovered=<weight>")
    else:
        mass += np.where(missing > 0, missing * uncovered, 0.0)
    if empty == "error":
        _refuse(length == 0, length, "covers {} bytes (a special token?); leave it out or give empty=<weight>")
    out = np.full(len(target), np.nan if empty == "error" else empty)
    np.divide(mass, length, out=out, where=length > 0)
    return out.astype(np.float32)


def apportion(
    values: Float32Array,
    source_starts: IntArray,
    source_ends: IntArray,
    target_starts: IntArray,
    target_ends: IntArray,
    *,
    source_groups: IntArray | None = None,
    target_groups: IntArray | None = None,
) -> Float32Array:
    """Divide the values of N source tokens among M target tokens of the same text, in proportion to shared bytes.

    For quantities that add up, such as log-probabilities: Σ value is preserved wherever the targets cover what the
    sources cover, a target that is exactly a run of sources has their sum, and equal spans have equal values. Naive
    form::

        per_byte[start_i:end_i] = values[i] / (end_i - start_i) for every source i
        out[j] = sum(per_byte[start_j:end_j])

    Args:
        values: float32 [N]; those of sources without bytes are left out, and a NaN reaches only the targets that share
            a byte with it.
        source_starts, source_ends, target_starts, target_ends, source_groups, target_groups: as in :func:`project`.

    Returns:
        float32 [M]; NaN for a target that has no bytes, or a byte that no source covers.

    Raises:
        SpanError: the spans violate what :func:`project` asks of them.
    """
    source, target = _matched(
        values, source_starts, source_ends, target_starts, target_ends, source_groups, target_groups
    )
    length = np.maximum(source[:, 1] - source[:, 0], 1)
    sums, covered = _mass_and_cover(np.asarray(values, np.float64) / length, source, target)
    whole = (covered == target[:, 1] - target[:, 0]) & (covered > 0)
    return np.where(whole, sums, np.nan).astype(np.float32)


def _matched(
    values: Float32Array,
    source_starts: IntArray,
    source_ends: IntArray,
    target_starts: IntArray,
    target_ends: IntArray,
    source_groups: IntArray | None,
    target_groups: IntArray | None,
) -> tuple[Int64Array, Int64Array]:
    """Return source spans [N, 2], ascending and disjoint, and target spans [M, 2], with groups laid end to end.

    Raises:
        SpanError: see :func:`project`.
    """
    source, target = _spans("source", source_starts, source_ends), _spans("target", target_starts, target_ends)
    if np.shape(values) != (len(source),):
        raise SpanError(f"weights have shape {np.shape(values)} for {len(source)} source spans; give one per span")
    if source_groups is not None or target_groups is not None:
        _lay_end_to_end(source, target, source_groups, target_groups)
    if np.any(source[1:, 0] < source[:-1, 1]):
        i = int(np.argmax(source[1:, 0] < source[:-1, 1])) + 1
        raise SpanError(f"source span {i} starts before its predecessor ends; spans must be ascending and disjoint")
    return source, target


def _mass_and_cover(
    weights: npt.NDArray[np.float64], source: Int64Array, target: Int64Array
) -> tuple[npt.NDArray[np.float64], Int64Array]:
    """Return Σ weight · bytes over the covered bytes of each target, float64 [M], and their number, int64 [M].

    ``source`` [N, 2] is ascending and disjoint, so the sources of one target form a range.
    """
    first = np.searchsorted(source[:, 1], target[:, 0], side="right")
    count = np.maximum(np.searchsorted(source[:, 0], target[:, 1], side="left") - first, 0)
    # every (source i, target j) pair that may share bytes
    j = np.repeat(np.arange(len(target)), count)
    i = np.arange(len(j)) - np.repeat(np.cumsum(count) - count - first, count)
    shared = np.minimum(source[i, 1], target[j, 1]) - np.maximum(source[i, 0], target[j, 0])
    # an empty source inside a target shares no bytes, so its weight, which may be NaN, must not count
    part = np.where(shared > 0, weights[i] * shared, 0.0)
    mass = np.bincount(j, part, len(target)).astype(np.float64)  # bincount of an empty array is integer
    covered = np.bincount(j, shared, len(target)).astype(np.int64)  # whole numbers, summed as floats
    return mass, covered


def _spans(name: str, starts: IntArray, ends: IntArray) -> Int64Array:
    """Stack starts and ends, int64 [N, 2], and check them."""
    starts, ends = np.asarray(starts, np.int64), np.asarray(ends, np.int64)
    if starts.ndim != 1 or starts.shape != ends.shape:
        raise SpanError(f"{name} starts and ends have shapes {starts.shape} and {ends.shape}; both must be [N]")
    _refuse((starts < 0) | (starts > ends), starts, f"of the {name} starts at {{}}; 0 ≤ start ≤ end must hold")
    return np.stack([starts, ends], axis=1)


def _refuse(wrong: npt.NDArray[np.bool_], values: npt.NDArray[Any], problem: str) -> None:
    if wrong.any():
        i = int(np.argmax(wrong))
        raise SpanError(f"span {i} {problem.format(values[i])}")


def _lay_end_to_end(
    source: Int64Array, target: Int64Array, source_groups: IntArray | None, target_groups: IntArray | None
) -> None:
    """Shift every group's spans past those of the groups before it, in place."""
    if source_groups is None or target_groups is None:
        raise SpanError("give both source_groups and target_groups, or neither")
    for name, spans, groups in (("source", source, source_groups), ("target", target, target_groups)):
        if np.shape(groups) != (len(spans),):
            raise SpanError(f"{name}_groups have shape {np.shape(groups)} for {len(spans)} spans; give one per span")
    if np.any(np.diff(source_groups) < 0):
        raise SpanError("source_groups run backwards; they must be ascending")
    names, index = np.unique(np.concatenate([source_groups, target_groups]), return_inverse=True)
    extent = np.zeros(len(names), np.int64)
    np.maximum.at(extent, index, np.concatenate([source[:, 1], target[:, 1]]))
    base = np.cumsum(extent) - extent
    source += base[index[: len(source)], None]
    target += base[index[len(source) :], None]
