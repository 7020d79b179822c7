"""Generate scenes whose captions are partly wrong or vague: the training data of `training_gain`.

A caption states facts (colour, shape, size, count, place, background). At a noise level p, every fact is independently
stated wrongly with probability p / 2 (another value, consistently throughout the text) and replaced by a word that
fits every image with probability p / 2 ("thing" for "circle").
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from scorer.mini.language.caption_writer import Fact, Span
from scorer.mini.language.captions import BACKGROUND, LAYOUT, NUMBER_WORDS, Caption, possibilities, write
from scorer.mini.language.phrases import FULL, TERSE
from scorer.mini.sample_data import SCHEMA as SAMPLE_SCHEMA
from scorer.mini.world import Scene, World, sample_scene, seeded
from scorer.mini.world.drawing import draw

WORLD: Final = World(
    shapes=("circle", "square", "triangle", "cross"),
    colours=("red", "green", "blue", "yellow", "purple"),
    sizes=("large",),
    group_numbers=(1,),
)
"""A part of the packaged model's world that a small student can learn from scratch in a minute: one group per image."""

OTHER_WORLD: Final = World(
    shapes=("star", "ring", "heart"), colours=("pink", "brown"), sizes=("large",), group_numbers=(1,)
)
"""Where a student learns to describe images before it is fine-tuned: the same book, other colours and shapes."""

BOOK: Final = replace(TERSE, openers=FULL.openers, endings=FULL.endings, closers=FULL.closers)
"""Plain noun phrases with all openers, endings and closers around them, so that most words are filler."""

GENERIC: Final = "generic"
"""The label of a vague word that replaced one that the image determines."""

IMAGE_SIZE: Final = 80
"""Pixels per side in the dataset."""

SCHEMA: Final = pa.schema([SAMPLE_SCHEMA.field(name) for name in ("id", "image", "caption", "truth")])

# The vague replacement of each word; none of these is in the grammar.
_GENERIC_WORDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(WORLD.colours, "coloured"),
    **dict.fromkeys(WORLD.backgrounds, "plain"),
    **dict.fromkeys(WORLD.shapes, "thing"),
    **{word + ("es" if word == "cross" else "s"): "things" for word in WORLD.shapes},
    **dict.fromkeys(NUMBER_WORDS.values(), "several"),
}
_GENERIC_KINDS: Final = ("colour", "shape", "count", "background")


@dataclass(frozen=True, slots=True)
class Example:
    """A scene and what its caption says about it."""

    scene: Scene
    caption: Caption


def clean(seed: str, count: int, world: World = WORLD) -> list[Example]:
    """Return scenes with true captions; different seeds keep training and held-out scenes apart."""
    return list(_examples(seed, count, 0.0, world))


def noisy(seed: str, count: int, noise: float) -> list[Example]:
    """Return the same scenes at every noise level, with captions in which a share of the facts is spoilt.

    Args:
        noise: that share, 0 to 1.
    """
    return list(_examples(seed, count, noise, WORLD))


def _examples(seed: str, count: int, noise: float, world: World) -> Iterator[Example]:
    for index in range(count):
        rng = seeded("gain", seed, index)
        scene = sample_scene(rng, world)
        spoilt = seeded("gain noise", seed, index, str(noise))
        false, generic = _spoilt_facts(scene, spoilt, noise)
        yield Example(scene, _made_generic(write(scene, rng, false=false, world=world, book=BOOK), generic))


def _spoilt_facts(scene: Scene, rng: random.Random, noise: float) -> tuple[dict[Fact, Any], set[str]]:
    """Return the facts that are stated wrongly, and the words to replace with vague ones."""
    (group,) = scene.groups
    true = {
        ("colour", 0): group.colour,
        ("shape", 0): group.shape,
        ("size", 0): group.size,
        ("count", 0): group.count,
        LAYOUT: scene.layout,
        BACKGROUND: scene.background,
    }
    values = possibilities(WORLD)
    false: dict[Fact, Any] = {}
    generic: set[str] = set()
    for fact, value in true.items():
        drawn = rng.random()
        others = [other for other in values[fact] if other != value]
        if drawn < noise / 2 and others:
            false[fact] = rng.choice(others)
        elif drawn < noise and fact[0] in _GENERIC_KINDS:
            generic |= _words(value)
    return false, generic


def _words(value: Any) -> set[str]:
    """Return the spellings of a colour, shape, count or background."""
    if isinstance(value, int):
        return {NUMBER_WORDS[value]} if value in NUMBER_WORDS else set()
    return {value, value + "s", value + "es"}


def _made_generic(caption: Caption, words: set[str]) -> Caption:
    """Return the caption with each of `words` replaced by a vague one, and its spans moved accordingly."""
    data = caption.text.encode()
    text, spans, done = b"", [], 0
    for span in caption.spans:
        word, label = data[span.start : span.end].decode(), span.label
        if word in words:
            word, label = _GENERIC_WORDS[word], GENERIC
        text += data[done : span.start]
        done = span.end
        spans.append(Span(len(text), len(text) + len(word.encode()), label))
        text += word.encode()
    return Caption(text.decode(), tuple(spans), caption.planted)


def write_shard(examples: list[Example], path: Path) -> None:
    """Write the examples as a dataset of one Parquet shard, with images as PNG."""
    rows = []
    for index, example in enumerate(examples):
        stream = io.BytesIO()
        draw(example.scene, IMAGE_SIZE).save(stream, "PNG")
        truth = [{"start": span.start, "end": span.end, "label": span.label} for span in example.caption.spans]
        name = f"{path.stem}-{index:05d}"
        image = {"bytes": stream.getvalue(), "path": f"{name}.png"}
        rows.append({"id": name, "image": image, "caption": example.caption.text, "truth": truth})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, compression="zstd")
