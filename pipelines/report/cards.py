"""Rows with their texts and images: count their words, and prepare the samples to show."""

from __future__ import annotations

import base64
import heapq
import io
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from pipelines.output.reader import Window
from pipelines.sources import Captions, Source
from scorer import table
from scorer.config import ScorerConfig
from scorer.display.html import STOP
from scorer.display.levels import gap_level, weight_level
from scorer.display.token_runs import token_runs
from scorer.display.words import words
from scorer.encoding.images import load_image
from scorer.errors import RowError, TableError
from scorer.training.rows import ScoredRow
from scorer.types import DEFAULT_PROMPT, ImageSource, Sample

CONTRADICTED: Final = 8
"""Maximum number of rows shown because a word may contradict the image."""
DOUBT: Final = -math.log(2)
"""A word with this gap or less, in nats, is doubtful: the image at least halves its probability."""
MAX_TOKEN_RUNS: Final = 400
"""Only the beginning of a longer text is shown."""
MAX_IMAGES: Final = 4
THUMBNAIL: Final = 320

_SPACES: Final = str.maketrans({" ": "␣", "\n": "↵", "\r": "↵", "\t": "⇥"})


@dataclass(frozen=True)
class Doubt:
    """The word of a row that the image contradicts most: its tokens, and its gap in nats (the sum over them)."""

    text: str
    turn: int
    tokens: tuple[int, ...]
    gap: float


@dataclass
class Collected:
    """What reading the texts found: every scored word with its gap, and the rows to show.

    Attributes:
        words: Scored words and their gaps, in nats.
        differences: By further contrast: scored words, and how much their gap exceeds the first contrast's, in nats.
        picks: The wanted rows, in the order in which they were given.
        doubts: The rows with the most negative words, worst first.
        rows: Number of rows read.
        changed: Number of rows left out because their text has changed since it was scored.
    """

    words: list[tuple[str, float]] = field(default_factory=list)
    differences: defaultdict[str, list[tuple[str, float]]] = field(default_factory=lambda: defaultdict(list))
    picks: list[tuple[ScoredRow, Sample]] = field(default_factory=list)
    doubts: list[tuple[Doubt, ScoredRow, Sample]] = field(default_factory=list)
    rows: int = 0
    changed: int = 0


@dataclass(frozen=True)
class ShownPart:
    """A token run of a caption: the coloured text and the white space around it; ``number`` is None if not scored.

    A stop token, which has no text, is a mark behind its turn's.
    """

    before: str
    text: str
    after: str
    number: int | None
    levels: Mapping[str, int]
    marked: bool
    is_stop: bool = False


@dataclass(frozen=True)
class Number:
    """The scores of one token run. Over several tokens (parts of a character), gaps add and probabilities multiply."""

    text: str
    tokens: int
    logprob_gap: float
    logit_gap: float
    clean: float
    contrast: float
    weight: float
    further_gaps: Sequence[float] = ()
    """Log-probability gaps of the further contrasts, in nats."""


@dataclass(frozen=True)
class Turn:
    """One scored turn, and the question before it (empty for the default prompt)."""

    question: str
    parts: Sequence[ShownPart]
    left_out: int


@dataclass(frozen=True)
class Card:
    """One row as shown in the report."""

    sample_id: str
    place: str
    images: Sequence[str]
    notes: Sequence[str]
    turns: Sequence[Turn]
    numbers: Sequence[Number]
    doubt: Doubt | None


def pick(rows: Sequence[ScoredRow], count: int, seed: int) -> list[ScoredRow]:
    """Pick up to ``count`` of ``rows`` at random, taking one from each shard in turn."""
    rng = np.random.default_rng([seed, 1])
    by_shard: defaultdict[str, list[ScoredRow]] = defaultdict(list)
    for index in rng.permutation(len(rows)):
        by_shard[rows[index].shard].append(rows[index])
    queues = list(by_shard.values())
    picked: list[ScoredRow] = []
    while queues and len(picked) < count:
        picked += [queue.pop() for queue in queues[: count - len(picked)]]
        queues = [queue for queue in queues if queue]
    return picked


def collect(
    source: Source,
    rows: Mapping[Window, Sequence[ScoredRow]],
    wanted: Sequence[ScoredRow],
    further_contrasts: Sequence[str] = (),
) -> Collected:
    """Read the texts of ``rows`` from the dataset, each window once, without keeping images that are not shown.

    A row whose text has changed since it was scored is counted and left out.

    Raises:
        TableError: The dataset lacks a shard that was scored, or a row's number is not one of its window.
    """
    result = Collected()
    place = {(row.shard, row.row_index): i for i, row in enumerate(wanted)}
    found: dict[int, tuple[ScoredRow, Sample]] = {}
    best: list[tuple[float, int, Doubt, ScoredRow, Sample]] = []  # a heap with the least doubtful row on top
    for row, sample in _samples(source, rows, result):
        result.rows += 1
        doubt = None
        gaps = row.scores.logprob_gap.astype(np.float64)
        further = {name: row.scores.with_contrast(name).logprob_gap - gaps for name in further_contrasts}
        for turn, text in enumerate(sample.scored_texts):
            own = np.flatnonzero(row.scores.token_turns == turn)
            for word in words(text, row.scores.token_starts[own], row.scores.token_ends[own]):
                tokens = tuple(int(own[token]) for token in word.tokens)
                gap = float(gaps[list(tokens)].sum())
                if math.isnan(gap):
                    continue
                result.words.append((word.text, gap))
                for name, difference in further.items():
                    more = float(difference[list(tokens)].sum())
                    if math.isfinite(more):
                        result.differences[name].append((word.text, more))
                if gap <= DOUBT and (doubt is None or gap < doubt.gap):
                    doubt = Doubt(word.text, turn, tokens, gap)
        if (row.shard, row.row_index) in place:
            found[place[row.shard, row.row_index]] = (row, sample)
        if doubt is not None:
            heapq.heappush(best, (-doubt.gap, -result.rows, doubt, row, sample))
            if len(best) > CONTRADICTED:
                heapq.heappop(best)
    result.picks = [found[i] for i in sorted(found)]
    result.doubts = [(doubt, row, sample) for _, _, doubt, row, sample in sorted(best, reverse=True)]
    return result


def card(row: ScoredRow, sample: Sample, weights: tuple[float, float], doubt: Doubt | None = None) -> Card:
    """Build the card of a row; ``weights`` is the range that the weight colours span."""
    images, notes = [], []
    for image in sample.images[:MAX_IMAGES]:
        try:
            images.append(thumbnail(image))
        except RowError as error:  # readable when scored, so changed since
            notes.append(f"image not shown: {error.message}")
    if len(sample.images) > MAX_IMAGES:
        notes.append(f"{len(sample.images) - MAX_IMAGES} more images")
    numbers: list[Number] = []
    questions = _questions(sample)
    turns = [_turn(row, i, text, questions[i], numbers, weights, doubt) for i, text in enumerate(sample.scored_texts)]
    return Card(sample.sample_id, f"{row.shard}, row {row.row_index}", images, notes, turns, numbers, doubt)


def thumbnail(source: ImageSource) -> str:
    """Return the image as a data URI of at most ``THUMBNAIL`` × ``THUMBNAIL`` pixels. Raises RowError if unreadable."""
    limits = ScorerConfig()
    image = load_image(source, max_bytes=limits.max_image_bytes, max_pixels=limits.max_image_pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    data = io.BytesIO()
    image.save(data, "WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def _samples(
    source: Source, rows: Mapping[Window, Sequence[ScoredRow]], result: Collected
) -> Iterator[tuple[ScoredRow, Sample]]:
    shards = {shard.name: shard for shard in source.shards()}
    for window, scored in rows.items():
        if window.shard not in shards:
            raise TableError(
                f"the dataset has no shard {window.shard!r}, which was scored; give the dataset of the run"
            )
        read = source.read(shards[window.shard], window.start, window.stop) if scored else []
        for row in scored:
            if not window.start <= row.row_index < window.start + len(read):
                raise TableError(
                    f"shard {row.shard!r} of the output has row_index {row.row_index} among rows {window.start} to "
                    f"{window.stop - 1}; its file is damaged: run the scoring command again with --verify"
                )
            found = read[row.row_index - window.start]
            sample = found.shown() if isinstance(found, Captions) else found
            if isinstance(sample, Sample) and table.text_hash(sample.scored_texts) == row.scores.text_hash:
                yield row, sample
            else:
                result.changed += 1


def _questions(sample: Sample) -> list[str]:
    """Return the user's text before each scored turn, or an empty string for the default prompt."""
    questions, said = [], ""
    for turn in sample.turns:
        if turn.role == "assistant":
            questions.append("" if said == DEFAULT_PROMPT else said)
            said = ""
        else:
            said = f"{said} {turn.text}".strip()
    return questions


def _turn(
    row: ScoredRow,
    turn: int,
    text: str,
    question: str,
    numbers: list[Number],
    weights: tuple[float, float],
    doubt: Doubt | None,
) -> Turn:
    of_turn, is_stop = row.scores.token_turns == turn, row.scores.is_stop
    own = np.flatnonzero(of_turn & ~is_stop)
    cut = token_runs(text, row.scores.token_starts[own], row.scores.token_ends[own])
    parts = []
    for run in cut[:MAX_TOKEN_RUNS]:
        tokens = own[run.first : run.last]
        core = run.text.strip() or run.text
        at = run.text.index(core)
        levels: Mapping[str, int] = {}
        number = None
        if len(tokens):
            number = len(numbers)
            numbers.append(_number(row, core if core.strip() else core.translate(_SPACES), tokens))
            levels = _levels(numbers[-1], weights)
        marked = doubt is not None and any(int(token) in doubt.tokens for token in tokens)
        parts.append(ShownPart(run.text[:at], core, run.text[at + len(core) :], number, levels, marked))
    for token in np.flatnonzero(of_turn & is_stop):
        numbers.append(_number(row, STOP, [token]))
        parts.append(ShownPart(" ", STOP, "", len(numbers) - 1, _levels(numbers[-1], weights), False, is_stop=True))
    return Turn(question, parts, max(0, len(cut) - MAX_TOKEN_RUNS))


def _levels(scores: Number, weights: tuple[float, float]) -> dict[str, int]:
    """Return the step of each colouring."""
    return {
        "p": gap_level(scores.logprob_gap),
        "l": gap_level(scores.logit_gap),
        "w": weight_level(scores.weight, *weights),
    }


def _number(row: ScoredRow, text: str, tokens: Any) -> Number:
    scores = row.scores

    def total(values: Any) -> float:
        return float(values[tokens].astype(np.float64).sum())

    return Number(
        text=text,
        tokens=len(tokens),
        logprob_gap=total(scores.logprob_gap),
        logit_gap=total(scores.logit_gap),
        clean=math.exp(total(scores.logprob_clean)),
        contrast=math.exp(total(scores.logprob_contrast)),
        weight=float(row.weights[tokens].astype(np.float64).mean()),
        further_gaps=[total(scores.with_contrast(name).logprob_gap) for name in scores.further_contrasts],
    )
