"""Captions: every word has a span of exactly its bytes and one label; errors are planted one at a time."""

import re
from collections import Counter
from functools import cache

import pytest

from scorer.mini.language.caption_writer import CONTRADICTORY, FILLER, VISUAL
from scorer.mini.language.captions import FALSIFIABLE, Caption, write, write_false
from scorer.mini.world import Scene, World, sample_scene, seeded


def written(count: int, *, false: bool = False) -> list[tuple[Scene, Caption]]:
    pairs = []
    for index in range(count):
        rng = seeded("test captions", index)
        scene = sample_scene(rng)
        pairs.append((scene, (write_false if false else write)(scene, rng)))
    return pairs


@cache
def true_pairs() -> list[tuple[Scene, Caption]]:
    return written(1500)


@cache
def false_pairs() -> list[tuple[Scene, Caption]]:
    return written(300, false=True)


def words(caption: Caption) -> list[str]:
    data = caption.text.encode()
    return [data[span.start : span.end].decode() for span in caption.spans]


def test_spans_cover_words_and_marks_exactly() -> None:
    for _, caption in true_pairs() + false_pairs():
        # Any letters, dashes and quotation marks of one run are a word; a mark at its end stands for itself.
        assert words(caption) == re.findall(r"[^\s.,:;]+|[.,:;]", caption.text)
        assert [span.start for span in caption.spans] == sorted(span.start for span in caption.spans)


def test_spans_count_bytes_not_characters() -> None:
    wide = [caption for _, caption in true_pairs() if len(caption.text.encode()) > len(caption.text)]
    assert len(wide) > 20
    assert any(caption.spans[-1].end > len(caption.text) for caption in wide)


def test_a_seed_gives_one_caption() -> None:
    assert written(50) == true_pairs()[:50]
    assert written(20, false=True) == false_pairs()[:20]


def test_sane_captions_hold_both_labels_and_no_error() -> None:
    labels = Counter(span.label for _, caption in true_pairs() for span in caption.spans)
    assert set(labels) == {VISUAL, FILLER}
    assert min(labels.values()) > 0.25 * labels.total()
    assert all(caption.planted is None for _, caption in true_pairs())


def test_there_are_several_hundred_templates_and_up_to_five_sentences() -> None:
    world = World()
    values = {*world.colours, *world.backgrounds, *(s + end for s in world.shapes for end in ("", "s", "es"))}
    templates = {
        " ".join("_" if word.lower() in values else word for word in words(caption)) for _, caption in true_pairs()
    }
    assert len(templates) > 700
    assert {caption.text.count(".") for _, caption in true_pairs()} >= {1, 2, 3, 4}


def test_text_says_what_the_picture_shows() -> None:
    for scene, caption in true_pairs():
        said = Counter(word.lower() for word in words(caption))
        for group in scene.groups:
            assert said[group.colour]
            assert said[group.shape] or said[group.shape + "s"] or said[group.shape + "es"]
        absent = set(World().colours) - {group.colour for group in scene.groups}
        assert not absent & set(said)


@pytest.mark.parametrize("kind", FALSIFIABLE)
def test_errors_of_every_kind_are_planted(kind: str) -> None:
    assert sum(caption.planted == kind for _, caption in false_pairs()) >= 10


def test_a_false_caption_holds_one_contradictory_word_that_the_picture_contradicts() -> None:
    for scene, caption in false_pairs():
        (wrong,) = [
            word for word, span in zip(words(caption), caption.spans, strict=True) if span.label == CONTRADICTORY
        ]
        if caption.planted == "colour":
            assert wrong.lower() not in {group.colour for group in scene.groups}
        if caption.planted == "shape":
            assert wrong.rstrip("s").removesuffix("e") not in {
                g.shape.rstrip("s").removesuffix("e") for g in scene.groups
            }
        if caption.planted == "background":
            assert wrong != scene.background
        if caption.planted == "count" and len(scene.groups) == 1 and wrong.lower() in ("two", "three"):
            assert {"two": 2, "three": 3}[wrong.lower()] != scene.groups[0].count


def test_a_value_may_not_steer_the_phrasing_before_it_is_told() -> None:
    from scorer.mini.language.caption_writer import CaptionWriter

    writer = CaptionWriter({("count", 0): 2}, [{("count", 0): 2}], {("count", 0): (1, 2)})
    with pytest.raises(ValueError, match="before the text has stated it"):
        writer.value(("count", 0))
