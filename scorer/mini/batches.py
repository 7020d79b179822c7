"""Build training rows: images with several dialogues about each, which share its image tokens.

A row contains the prompt up to the end of the image once, then branches that do not see each other::

    <|im_start|>user <image>...<image> | \n Describe ... A red circle. <|im_end|> | \n What do ... <|im_end|> | ...
    branch 0 (all see it)              | branch 1                                 | branch 2

Each branch has the positions it would have on its own, so a row teaches the same as its dialogues one by one, at half
the cost. The mix includes the contrast inputs: branches that do not see the image tokens, and rows with a blank image.
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from scorer.mini.inputs import BLANK, INPUTS, SHOWN, Pixels, training_image
from scorer.mini.language.caption_writer import CONTRADICTORY, FILLER, VISUAL
from scorer.mini.language.captions import Caption, drill, write
from scorer.mini.language.compose import compose, compose_false, converse
from scorer.mini.language.labels import token_labels
from scorer.mini.language.phrases import FULL, READING, TO_THE_LEFT, TO_THE_RIGHT, UPWARD, Phrasebook
from scorer.mini.language.prompts import PLAIN, any_prompt
from scorer.mini.packaging import END, IMAGE, IMAGE_SIZE, IMAGE_TOKENS, START
from scorer.mini.world import CELLS, Scene, World, in_order, sample_scene, seeded

SYSTEM = "You are a helpful assistant."

# How a branch sees the image of its row.
MASKED, REMOVED = "masked", "removed"
MIX = (*[SHOWN] * 13, *[MASKED] * 2, *[REMOVED] * 2)
"""The modes of branches in rows whose image is not replaced."""

FILLER_WEIGHT = 0.5
"""Loss weight of words that the image does not change; it depends only on earlier text, so the optimum is the same."""

DIALOGUES_EVERY = 12

KINDS = (*["caption"] * 32, *["question"] * 4, *["false"] * 3, "other", *["template"] * 3)
"""What a branch of a stage of free language is. Of a false caption, all but the error is learnt, and of another scene's
caption the filler: what a text says is then known, and what it is about must not disturb the rest."""

ERRORS = (CONTRADICTORY,)


@dataclass(slots=True)
class Branch:
    """A dialogue after the first image: token ids, their loss weights as targets, and the numbers of further images."""

    mode: str
    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    images: list[int] = field(default_factory=list)

    def add(self, ids: Sequence[int], weights: Sequence[float] | None = None) -> None:
        self.ids += ids
        self.weights += weights or [0.0] * len(ids)


class SceneEncoder:
    """Encode dialogues as the chat template does, but piece by piece, so that every token's role is known."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._fast = tokenizer.backend_tokenizer
        self.image_id, self.start_id, self.end_id = tokenizer.convert_tokens_to_ids([IMAGE, START, END])
        self.pad_id: int = tokenizer.pad_token_id
        self.newline_id = self.encode("\n")[0]

    def encode(self, text: str) -> list[int]:
        return list(self._fast.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._fast.decode(list(ids), skip_special_tokens=False))

    def caption(self, caption: Caption) -> tuple[list[int], list[str | None]]:
        """Return the ids and labels of a caption's tokens."""
        encoding = self._fast.encode(caption.text, add_special_tokens=False)
        # A byte-level token is spelled with one character per byte.
        ends = list(accumulate(len(token) for token in encoding.tokens))
        return list(encoding.ids), token_labels([0, *ends[:-1]], ends, caption.spans)

    def opening(self, *, system: bool, image: bool = True) -> list[int]:
        """Return the prompt up to the end of the first image, or up to its place, with or without a system turn."""
        before = [self.start_id, *self.encode(f"system\n{SYSTEM}"), self.end_id, self.newline_id] if system else []
        return [*before, self.start_id, *self.encode("user\n"), *[self.image_id] * (IMAGE_TOKENS * image)]

    def answer(self, branch: Branch, prompt: str, caption: Caption, unlearnt: Collection[str] = ()) -> None:
        """Append the text of a question, and its answer, in which words with the labels `unlearnt` have no loss."""
        branch.add([*self.encode(prompt), self.end_id])
        branch.add([self.newline_id, self.start_id, *self.encode("assistant\n")])
        ids, labels = self.caption(caption)
        by_label: dict[str | None, float] = {FILLER: FILLER_WEIGHT, None: FILLER_WEIGHT, **dict.fromkeys(unlearnt, 0.0)}
        weights = [by_label.get(label, 1.0) for label in labels]
        branch.add([*ids, self.end_id], [*weights, FILLER_WEIGHT])
        branch.add([self.newline_id])

    def first(self, mode: str, prompt: str, caption: Caption, unlearnt: Collection[str] = ()) -> Branch:
        """Return a branch of one question and its answer."""
        branch = Branch(mode, [self.newline_id], [0.0])
        self.answer(branch, prompt, caption, unlearnt)
        return branch

    def further(self, branch: Branch, image: int | None, prompt: str, caption: Caption) -> None:
        """Append a question and its answer, with an image of their own if given."""
        branch.add([self.start_id, *self.encode("user\n")])
        if image is not None:
            placeholders = [] if branch.mode == REMOVED else [self.image_id] * IMAGE_TOKENS
            branch.images += [] if branch.mode == REMOVED else [image]
            branch.add([*placeholders, self.newline_id])
        self.answer(branch, prompt, caption)


@dataclass(slots=True)
class TrainingRow:
    """A row's scenes and images (none if it is text only), its opening's ids, and its branches.

    `blank` replaces all images with the blank one.
    """

    scenes: list[Scene]
    images: list[Pixels]
    opening: list[int]
    branches: list[Branch]
    blank: bool


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of training: `steps` steps of `rows` images with `captions` captions each, in the words of `book`.

    Without a book the captions are drills, or, if `free`, in free language. If `removed` is the only mode, no image is
    drawn.
    """

    name: str
    steps: int
    rows: int
    captions: int
    book: Phrasebook | None = FULL
    modes: tuple[str, ...] = MIX
    free: bool = False

    @property
    def text_only(self) -> bool:
        return set(self.modes) == {REMOVED}


class Rows(Dataset[TrainingRow]):
    """The training rows of a stage, each built on access from its own random generator.

    In a stage of free language, one step in twelve consists of dialogues (a whole step, because rows of one length
    waste no padding).
    """

    def __init__(self, encoder: SceneEncoder, stage: Stage, seed: int) -> None:
        self.encoder, self.stage, self.seed = encoder, stage, seed

    def __len__(self) -> int:
        return self.stage.steps * self.stage.rows

    def __getitem__(self, index: int) -> TrainingRow:
        stage = self.stage
        rng = seeded("train", self.seed, stage.name, index)
        scenes = [sample_scene(rng)]
        shown = SHOWN if stage.text_only else rng.choice(INPUTS)
        dialogues = stage.free and (index // stage.rows) % DIALOGUES_EVERY == DIALOGUES_EVERY - 1
        branches = [
            self._branch(scenes, rng.choice(stage.modes) if shown == SHOWN else SHOWN, dialogues, rng)
            for _ in range(stage.captions // 2 if dialogues else stage.captions)
        ]
        if stage.text_only:
            scenes = []
        images = [training_image(scene, SHOWN if shown == BLANK else shown, rng) for scene in scenes]
        opening = self.encoder.opening(system=rng.random() < 0.1, image=not stage.text_only)
        return TrainingRow(scenes, images, opening, branches, shown == BLANK)

    def _branch(self, scenes: list[Scene], mode: str, dialogue: bool, rng: random.Random) -> Branch:
        """Return a question and its answer, or several about the first scene or about another one."""
        if dialogue:
            return self._dialogue(scenes, mode, rng)
        if not self.stage.free:
            book = self.stage.book
            return self.encoder.first(mode, rng.choice(PLAIN), write(scenes[0], rng, book=book) if book else drill(rng))
        kind = rng.choice(KINDS)
        if kind == "template":
            return self.encoder.first(mode, rng.choice(PLAIN), write(scenes[0], rng))
        if kind == "false":
            return self.encoder.first(mode, any_prompt(rng), compose_false(scenes[0], rng), ERRORS)
        if kind == "other":
            return self.encoder.first(mode, any_prompt(rng), compose(sample_scene(rng), rng), (*ERRORS, VISUAL))
        if kind == "question":
            ((prompt, caption),) = converse(scenes[0], rng, turns=1)
            return self.encoder.first(mode, prompt, caption)
        return self.encoder.first(mode, any_prompt(rng), compose(scenes[0], rng))

    def _dialogue(self, scenes: list[Scene], mode: str, rng: random.Random) -> Branch:
        if rng.random() < 0.6:
            turns = converse(scenes[0], rng, turns=rng.choice((2, 3, 4)))
            branch = self.encoder.first(mode, *turns[0])
            for turn in turns[1:]:
                self.encoder.further(branch, None, *turn)
            return branch
        branch = self.encoder.first(mode, any_prompt(rng), compose(scenes[0], rng))
        if rng.random() < 0.3:
            self.encoder.further(branch, None, any_prompt(rng), compose(scenes[0], rng))
        else:
            scenes.append(sample_scene(rng))
            self.encoder.further(branch, len(scenes) - 1, any_prompt(rng), compose(scenes[-1], rng))
        return branch


@dataclass(frozen=True, slots=True)
class Segment:
    """The tokens from `start` to `end` of every row: the openings, or a branch of each row.

    `visible` bool [B, end - start, keys]: which tokens see which. The keys of the openings are their own tokens, those
    of a branch the opening's and then its own.
    """

    start: int
    end: int
    visible: torch.Tensor


@dataclass(slots=True)
class Batch:
    """B rows over P images, of T tokens: openings, then branches, each padded to the longest of its segment.

    `pixels` uint8 [P, 3, H, W]; `ids` and `positions` int64, `weights` float32, all [B, T]; `segments`: the openings,
    then the branches. `image_numbers` int64 [n] are the image of each run of image tokens, in the order of the tokens,
    -1 for the blank one. `cells` int64 [P, cells, 8] and `backgrounds` int64 [P] are the scenes as class numbers
    (`scene_classes`).
    """

    pixels: torch.Tensor
    ids: torch.Tensor
    positions: torch.Tensor
    weights: torch.Tensor
    segments: list[Segment]
    image_numbers: torch.Tensor
    cells: torch.Tensor
    backgrounds: torch.Tensor


RANKED = (READING, TO_THE_RIGHT, TO_THE_LEFT, UPWARD)


def scene_classes(scene: Scene, world: World) -> list[list[int]]:
    """Return each cell's shape, colour, size, count and rank in each order of mention, as class numbers; 0 is empty."""
    rows = [[0] * (4 + len(RANKED)) for _ in range(CELLS)]
    for group in scene.groups:
        rows[group.cell] = [
            1 + world.shapes.index(group.shape),
            1 + world.colours.index(group.colour),
            1 + world.sizes.index(group.size),
            1 + world.counts.index(group.count),
            *(1 + in_order(scene, order).index(group) for order in RANKED),
        ]
    return rows


def branch_start(row: TrainingRow, branch: Branch, image_id: int) -> int:
    """Return the position of a branch's first token, as if it stood alone."""
    removed = row.opening.count(image_id) if branch.mode == REMOVED else 0
    return len(row.opening) - removed


def collate(rows: Sequence[TrainingRow], encoder: SceneEncoder, multiple: int = 8) -> Batch:
    """Put `rows` into one batch.

    Within a row, branches are sorted by their lengths, so that those of a segment are about as long. Lengths of
    segments are multiples of `multiple` tokens, as few distinct shapes run faster.
    """
    ordered = [sorted(row.branches, key=lambda branch: len(branch.ids)) for row in rows]
    count = max(map(len, ordered))
    columns: list[list[Branch | None]] = [
        [branches[k] if k < len(branches) else None for branches in ordered] for k in range(count)
    ]
    lengths = [max(len(row.opening) for row in rows)]
    lengths += [max(len(branch.ids) for branch in column if branch) for column in columns]
    lengths = [-(-length // multiple) * multiple for length in lengths]
    starts = [0, *accumulate(lengths)]

    ids = torch.full((len(rows), starts[-1]), encoder.pad_id)
    positions, weights = torch.zeros_like(ids), torch.zeros(ids.shape)
    used, hiding = torch.zeros(ids.shape, dtype=torch.bool), torch.zeros((len(rows), count), dtype=torch.bool)
    for b, row in enumerate(rows):
        pieces = [(row.opening, [0.0] * len(row.opening), 0)]
        for k, branch in enumerate(ordered[b]):
            pieces.append((branch.ids, branch.weights, branch_start(row, branch, encoder.image_id)))
            hiding[b, k] = branch.mode in (MASKED, REMOVED)
        for start, (tokens, losses, position) in zip(starts, pieces, strict=False):
            piece = slice(start, start + len(tokens))
            ids[b, piece], weights[b, piece] = torch.tensor(tokens), torch.tensor(losses)
            positions[b, piece] = torch.arange(position, position + len(tokens))
            used[b, piece] = True
    return Batch(
        ids=ids,
        positions=positions,
        weights=weights,
        segments=_segments(starts, used, hiding, ids == encoder.image_id),
        **_images(rows, ordered, encoder.image_id),
    )


def _segments(starts: Sequence[int], used: torch.Tensor, hiding: torch.Tensor, is_image: torch.Tensor) -> list[Segment]:
    """Return the segments that begin at `starts`, the last of which is the end.

    `used`, `is_image` bool [B, T]; `hiding` bool [B, branches]: whether a branch hides images from itself.
    """
    opening = slice(0, starts[1])
    size = starts[1]
    segments = [Segment(0, size, (used[:, None, opening] & torch.ones(size, size, dtype=torch.bool).tril()))]
    for k, (start, end) in enumerate(pairwise(starts[1:])):
        own, size = slice(start, end), end - start
        seen = torch.cat([used[:, opening], used[:, own]], 1)
        seen &= ~(hiding[:, k, None] & torch.cat([is_image[:, opening], is_image[:, own]], 1))
        before = torch.ones(size, starts[1] + size, dtype=torch.bool).tril(starts[1])
        segments.append(Segment(start, end, seen[:, None] & before))
    return segments


def _images(rows: Sequence[TrainingRow], ordered: Sequence[Sequence[Branch]], image_id: int) -> dict[str, torch.Tensor]:
    """Return the parts of a batch that are about images; `ordered` are the rows' branches as they are laid out."""
    image_numbers: list[int] = []
    first = 0
    for row, branches in zip(rows, ordered, strict=True):
        opened = [0] * (image_id in row.opening)
        runs = [*opened, *(image for branch in branches for image in branch.images)]
        image_numbers += [-1 if row.blank else first + run for run in runs]
        first += len(row.images)
    world = World()
    scenes = [scene for row in rows for scene in row.scenes]
    drawn = [image for row in rows for image in row.images]
    pixels = np.stack(drawn) if drawn else np.empty((0, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    return {
        "pixels": torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        "image_numbers": torch.tensor(image_numbers, dtype=torch.int64),
        "cells": torch.tensor([scene_classes(scene, world) for scene in scenes]),
        "backgrounds": torch.tensor([world.backgrounds.index(scene.background) for scene in scenes]),
    }
