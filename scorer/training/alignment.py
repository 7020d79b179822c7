"""Align published weights with the tokens of a trainer that has another tokenizer and chat template.

Only the trainer's token ids and labels are needed: :mod:`scorer.training.placement` locates the scored texts in them
by their bytes, and :func:`scorer.spans.project` transfers the weights for a whole batch in one call. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from scorer.errors import ConfigError, SpanError
from scorer.spans import project
from scorer.training.headers import template_headers
from scorer.training.means import check_mean
from scorer.training.placement import NotPlacedError, Place, Text, headers_of, place, place_from_end
from scorer.training.vocabulary import TokenBytes
from scorer.training.weighted_text import WeightedText
from scorer.types import BoolArray, Float32Array, Int64Array

IGNORE_INDEX: Final = -100
"""Label of a position that is not trained on; the convention of torch and transformers."""

TruncationSide = Literal["right", "left"]
"""The end of a sequence that a trainer cuts off."""

_MAX_HEADERS: Final = 64
"""Headers remembered at most: a template has one or two, but where prompts are labelled, each is part of one."""

Ids = Sequence[Any] | npt.NDArray[Any]
"""One array of integers per sequence: a list of arrays of any lengths, or the rows of one array."""


@dataclass
class _Batch:
    """The spans to project in one call at the end, and where their weights go."""

    starts: list[npt.NDArray[Any]] = field(default_factory=list)
    ends: list[npt.NDArray[Any]] = field(default_factory=list)
    groups: list[npt.NDArray[Any]] = field(default_factory=list)
    places: list[tuple[int, npt.NDArray[Any]]] = field(default_factory=list)  # sequence, positions in it


class WeightAligner:
    """Assign a weight to every labelled token of a trainer's sequences.

    Args:
        tokenizer: the trainer's tokenizer or processor; see :class:`scorer.training.vocabulary.TokenBytes`.
        max_length: the length, in tokens, at which the trainer truncates sequences. Only a sequence this long may lack
            texts, and only if nothing else stands where they would be. None if nothing is truncated.
        template_weight: the weight of labelled tokens outside the scored texts, such as a role header, and the end of a
            turn if the output has no weight for it; None for the mean weight of the sequence's rows, so that such
            tokens count alike whatever the method's scale. If the token that ends a turn had weight 0, the model would
            never learn to stop.
        truncation_side: ``right``, or ``left`` for a trainer that keeps the end of a sequence. The other side's
            truncation is refused, as the texts are then not found.
        headers: labelled texts that the trainer's template writes before an answer, such as ``assistant``. Those of the
            tokenizer's own chat template are known, and what precedes the texts of a complete sequence is remembered,
            so they are needed only if the first sequences of another template are truncated.
        unscored: the weight of text without a score: rows that failed, and the rest of a text that was truncated when
            it was scored. None refuses such text.
        mean: ``sequence`` scales the weights of each sequence's labelled tokens to average 1 (PRIOR's k·w/Σw), for a
            loss that divides by the number of tokens; ``none`` leaves them unchanged, for a loss that divides by Σw, or
            for weights that were read with the dataset's mean. A sequence whose weights are all 0 is left unchanged.

    Raises:
        SpanError: the tokenizer does not preserve the bytes of a text.
        ConfigError: an option is out of range.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_length: int | None = None,
        template_weight: float | None = None,
        truncation_side: TruncationSide = "right",
        headers: Sequence[str] = (),
        unscored: float | None = None,
        mean: Literal["none", "sequence"] = "none",
    ) -> None:
        for name, value in (("template_weight", template_weight), ("unscored", unscored)):
            if value is not None and not 0 <= value <= float(np.finfo(np.float32).max):
                raise ConfigError(f"{name} is {value}; it must be at least 0 and a finite float32")
        check_mean(mean, ("none", "sequence"))
        if max_length is not None and max_length < 1:
            raise ConfigError(f"max_length is {max_length}; it must be at least 1, or None if nothing is truncated")
        self.vocabulary = TokenBytes(tokenizer)
        self.max_length = max_length
        if isinstance(headers, str):
            raise ConfigError(f"headers is {headers!r}; it must be a list of texts, as in headers=[{headers!r}]")
        if truncation_side not in get_args(TruncationSide):
            raise ConfigError(f"truncation_side is {truncation_side!r}; it must be 'right' or 'left'")
        self.template_weight = template_weight
        self.truncation_side = truncation_side
        self._headers = template_headers(tokenizer) | {header.strip().encode() for header in headers} - {b""}
        self.unscored = unscored
        self.mean = mean

    def __call__(
        self,
        input_ids: Ids,
        labels: Ids,
        samples: Sequence[WeightedText | Sequence[WeightedText]],
        lengths: Sequence[int] | None = None,
    ) -> list[Float32Array]:
        """Return the weights of B sequences.

        Args:
            input_ids: int [B, T], or B arrays int [T]; they may include image placeholders and padding.
            labels: the same shape; -100 marks positions that are not trained on.
            samples: the content of each of the B sequences: one row with its texts, or, for a packed sequence, several
                in the order in which they were packed.
            lengths: the number of tokens without padding in each sequence, which is compared with ``max_length``;
                None for T.

        Returns:
            B arrays float32 [T] ≥ 0, aligned with ``labels``; 0 where the label is -100.

        Raises:
            SpanError: a text is not in its sequence, or occurs there more than once; the message names the row.
            TableError: a text is not the one that was scored, or the row was not scored.
        """
        if not len(input_ids) == len(labels) == len(samples):
            raise SpanError(
                f"{len(input_ids)} sequences, {len(labels)} labels, {len(samples)} samples: give one of each"
            )
        rows = [(one,) if isinstance(one, WeightedText) else tuple(one) for one in samples]
        for one in (one for row in rows for one in row):
            one.check(self.unscored)
        first_group = np.cumsum([0, *(len(one.texts) for row in rows for one in row)]).tolist()
        targets, out = _Batch(), []
        first_sample = np.cumsum([0, *map(len, rows)]).tolist()
        sizes = []
        for i in range(len(rows)):
            ids, label = np.asarray(input_ids[i]), np.asarray(labels[i])
            if ids.ndim != 1 or ids.shape != label.shape:
                raise SpanError(f"sequence {i} has ids {ids.shape} and labels {label.shape}; both must be [T]")
            out.append(np.where(label == IGNORE_INDEX, 0.0, self._template_weight(rows[i])).astype(np.float32))
            sizes.append(len(ids) if lengths is None else int(lengths[i]))
        for i in sorted(range(len(rows)), key=lambda i: self._is_cut(sizes[i])):  # complete ones show the headers
            ids, label = np.asarray(input_ids[i]), np.asarray(labels[i])
            self._add_targets(targets, i, ids, label, sizes[i], rows[i], first_group[first_sample[i] :], out[i])
        self._project(targets, [one for row in rows for one in row], first_group, out)
        if self.mean == "none":
            return out
        return [_mean_one(weights, label) for weights, label in zip(out, labels, strict=True)]

    def _add_targets(
        self,
        targets: _Batch,
        sequence: int,
        ids: npt.NDArray[Any],
        labels: npt.NDArray[Any],
        length: int,
        samples: Sequence[WeightedText],
        first_group: Sequence[int],
        weights: Float32Array,
    ) -> None:
        """Find the sequence's texts, and the byte spans of its labelled tokens in them; weight its stop tokens."""
        labelled = labels != IGNORE_INDEX
        stops = [one.stop_weights(self.unscored) for one in samples]
        runs = self._runs(ids, labelled)
        segments = [b"".join([self.vocabulary.token_bytes[i] for i in ids[start:end].tolist()]) for start, end in runs]
        wanted = [
            (group + turn, one, one.texts[turn], stop_weights.get(turn))
            for group, one, stop_weights in zip(first_group, samples, stops, strict=False)
            for turn in (range(len(one.texts)) if one.turns is None else one.turns)
        ]
        cut = self._is_cut(length)
        if self.truncation_side == "left":
            open_start = bool(runs) and runs[0][0] in (0, len(ids) - length)  # padded on the right, or on the left
            locate = partial(place_from_end, segments=segments, cut=cut, open_start=open_start)
        else:
            open_end = bool(runs) and runs[-1][1] in (len(ids), length)  # padded on the left, or on the right
            locate = partial(place, segments=segments, cut=cut, open_end=open_end, headers=self._headers)
        texts = [text for _, _, text, _ in wanted]
        try:
            found = _find(texts, locate)
        except NotPlacedError as error:
            raise SpanError(_not_found(error, wanted, segments, length, self.max_length)) from error
        if len(self._headers) < _MAX_HEADERS:
            self._headers |= headers_of([one for _, one in found], segments)
        for (group, _, _, stop_weight), (text, one) in zip(wanted, found, strict=True):
            if one is not None:
                start, end = runs[one.segment]
                # The trainer's own stop token, whatever its name: the special token that is labelled next.
                if stop_weight is not None and labelled[end : end + 1].all() and _ends(text, one, segments):
                    weights[end : end + 1] = stop_weight
                _add_place(targets, sequence, np.arange(start, end), self.vocabulary.lengths[ids[start:end]], text, one)
                targets.groups.append(np.full(len(targets.starts[-1]), group))

    def _is_cut(self, length: int) -> bool:
        """Return whether a sequence of so many tokens may have been truncated."""
        return self.max_length is not None and length >= self.max_length

    def _runs(self, ids: npt.NDArray[Any], labelled: BoolArray) -> list[tuple[int, int]]:
        """Return the half-open range of positions of each run of labelled tokens that are not special."""
        known = (ids >= 0) & (ids < len(self.vocabulary))
        if (labelled & ~known).any():
            at = int(np.argmax(labelled & ~known))
            raise SpanError(
                f"position {at} is trained on and has the id {ids[at]}, but the tokenizer has ids 0 to "
                f"{len(self.vocabulary) - 1}; give the tokenizer that produced the ids"
            )
        positions = np.flatnonzero(labelled & ~self.vocabulary.special[np.where(known, ids, 0)])
        breaks = np.flatnonzero(np.diff(positions) != 1) + 1
        edges = [0, *breaks.tolist(), len(positions)] if len(positions) else []
        return [(int(positions[a]), int(positions[b - 1]) + 1) for a, b in pairwise(edges)]

    def _project(
        self, targets: _Batch, samples: Sequence[WeightedText], first_group: Sequence[int], out: list[Float32Array]
    ) -> None:
        if not targets.starts:
            return
        spans = [one.spans(group, self.unscored) for one, group in zip(samples, first_group, strict=False)]
        weights, starts, ends, groups = (np.concatenate(arrays) for arrays in zip(*spans, strict=True))
        carried = self._carry(
            weights,
            starts,
            ends,
            np.concatenate(targets.starts),
            np.concatenate(targets.ends),
            source_groups=groups,
            target_groups=np.concatenate(targets.groups),
        )
        done = 0
        for sequence, positions in targets.places:
            found = carried[done : done + len(positions)]
            known = ~np.isnan(found)  # else there is nothing of the text in the token: it stays with the template's
            out[sequence][positions[known]] = found[known]
            done += len(positions)

    def _carry(self, values: Float32Array, *spans: Any, **groups: Any) -> Float32Array:
        """Carry the values of scored tokens onto the trainer's: spans and groups are those of :mod:`scorer.spans`."""
        return project(values, *spans, **groups, uncovered=np.nan if self.unscored is None else self.unscored)

    def _template_weight(self, row: Sequence[WeightedText]) -> float:
        """Return the weight of labelled tokens outside the texts of a sequence."""
        if self.template_weight is not None:
            return self.template_weight
        weights = [one.usable_weights(self.unscored) for one in row]
        found = np.concatenate([np.zeros(0, np.float32), *weights])
        return float(found.mean(dtype=np.float64)) if len(found) else 1.0


def _find(
    texts: Sequence[str], locate: Callable[[Sequence[Text]], list[Place | None]]
) -> list[tuple[Text, Place | None]]:
    """Return every text with its place: unchanged or, if that fails, normalised as some tokenizers do (NFC).

    Raises:
        NotPlacedError: both fail.
    """
    plain = [Text.of(text) for text in texts]
    try:
        return list(zip(plain, locate(plain), strict=True))
    except NotPlacedError:
        normal = [Text.normalized(text) for text in texts]
        if normal == plain:
            raise
    return list(zip(normal, locate(normal), strict=True))


def _add_place(
    targets: _Batch, sequence: int, positions: npt.NDArray[Any], lengths: Int64Array, text: Text, found: Place
) -> None:
    """Add the tokens of a segment that contain bytes of the text, with the spans of those bytes."""
    ends = np.cumsum(lengths) - found.at
    starts = np.clip(ends - lengths, 0, found.size) + found.start
    ends = np.clip(ends, 0, found.size) + found.start
    holding = ends > starts
    if text.edges is not None:
        starts, ends = text.edges[0][starts], text.edges[1][ends]
    targets.starts.append(starts[holding])
    targets.ends.append(ends[holding])
    targets.places.append((sequence, positions[holding]))


def _ends(text: Text, found: Place, segments: Sequence[bytes]) -> bool:
    """Return whether the text is there to its end, with nothing but white space behind it in its segment."""
    whole = found.start + found.size >= len(text.lead) + len(text.core)
    return whole and not segments[found.segment][found.at + found.size :].strip()


def _mean_one(weights: Float32Array, labels: Any) -> Float32Array:
    """Scale the weights to mean 1 over the predicted positions: all labelled ones but the first of the sequence."""
    predicted = np.asarray(labels) != IGNORE_INDEX
    predicted[:1] = False
    total = float(weights[predicted].sum(dtype=np.float64))
    return weights if total == 0 else (weights * (predicted.sum() / total)).astype(np.float32)


_IF_CUT: Final = (
    ", say truncation_side='left' if it keeps the ends of sequences, name what the template writes before an answer "
    "(headers=) if that is all that is left"
)


def _not_found(
    problem: NotPlacedError,
    wanted: Sequence[tuple[int, WeightedText, str, float | None]],
    segments: Sequence[bytes],
    length: int,
    max_length: int | None,
) -> str:
    names = ", ".join(dict.fromkeys(one.row.name for _, one, _, _ in wanted))
    texts = " | ".join(repr(text[:60]) for _, _, text, _ in wanted)
    trained = " | ".join(repr(segment[:80].decode(errors="replace")) for segment in segments)
    limit = "no max_length was given" if max_length is None else f"max_length is {max_length}"
    cut = max_length is not None and length >= max_length
    return (
        f"{names}: a text {problem}. Texts: {texts}. Trained on, of {length} tokens ({limit}): "
        f"{trained or 'nothing'}. "
        "The labels must hold the assistant's texts as they were scored, and be masked elsewhere: mask the prompt, "
        "name the turns that are trained on, give the max_length at which the trainer truncates"
        f"{_IF_CUT if cut else ''}, or leave the row out"
    )
