"""Captions from held-out phrase books carry true labels: visual by enumeration, contradictory by every reading."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import pytest

from benchmarks.phrase_books import (
    ATTRIBUTES,
    BACKGROUND,
    KINDS,
    PLACES,
    Book,
    Template,
    Writer,
    facts_told,
    false_value,
    fill,
    possible_values,
    read_book,
    read_books,
    stated,
    write_from,
)
from scorer.mini.language.caption_writer import CONTRADICTORY, FILLER, VISUAL
from scorer.mini.language.captions import Caption
from scorer.mini.world import Scene, World, sample_scene, seeded

BOOKS = read_books()
EVERYTHING = Book(
    "everything",
    "a test",
    capitals=False,
    templates=(
        Template(
            'so ({a1} {size1:little/big} {shape1} [is|are]1 {where1-2} {count2} {colour2} {shape2})<,> "{colour1}"! '
            "{kinds} on {background}, {corner2:upper/lower}; {row1} {side1} {shape1}",
            None,
        ),
    ),
)


def words(caption: Caption) -> list[tuple[str, str]]:
    text = caption.text.encode()
    return [(text[span.start : span.end].decode(), span.label) for span in caption.spans]


def scene_of(groups: int, *, exactly: bool = False) -> Scene:
    scenes = (sample_scene(seeded("phrase books", index)) for index in range(10_000))
    return next(s for s in scenes if len(s.groups) == groups or (not exactly and len(s.groups) > groups))


def test_there_are_at_least_four_books_of_many_openings() -> None:
    assert len(BOOKS) >= 4
    for book in BOOKS:
        assert len(book.templates) >= 80
        assert len({" ".join(template.text.split()[:3]) for template in book.templates}) >= 60


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.name)
def test_every_template_of_a_book_can_be_written(book: Book) -> None:
    for template in book.templates:
        scene = scene_of(template.groups)
        caption = fill(book, template, scene, range(template.groups), {})
        labels = {label for _, label in words(caption)}
        assert VISUAL in labels, template
        assert CONTRADICTORY not in labels, template
        for span, following in zip(caption.spans, caption.spans[1:], strict=False):
            assert span.start < span.end <= following.start


def test_a_word_is_visual_exactly_if_another_open_value_would_put_another_word_there() -> None:
    """The same by brute force: the words of every possible assignment of values that shares the text so far."""
    template = EVERYTHING.templates[0]
    scene = scene_of(2)
    true = facts_told(scene, (0, 1))
    possible = possible_values(World(), 2)
    caption = fill(EVERYTHING, template, scene, (0, 1), {})
    for changed, values in possible.items():
        for value in values:
            if changed[0] == "colour" and value == true["colour", 3 - changed[1]]:
                continue  # two groups never share a colour
            other = words(fill(EVERYTHING, template, scene, (0, 1), {changed: value}))
            first = next((k for k, (a, b) in enumerate(zip(words(caption), other, strict=False)) if a[0] != b[0]), None)
            if first is not None:
                assert words(caption)[first][1] == VISUAL, (changed, value, caption.text)
    fixed = {"so", "(", "is", "are", ")", '"', '"!', "on", ",", ";", "the", "of"}
    assert {word for word, label in words(caption) if label == FILLER} >= fixed - {"is", "are", "the", "of"}
    spoken = [label for word, label in words(caption) if word in true["shape", 1] + "es" and len(word) > 3]
    assert spoken == [VISUAL, FILLER]  # a word repeated follows from the text


def contradicted(scene: Scene, template: Template, told: dict[tuple[str, int], object]) -> bool:
    """Whether no reading of the template, group for group, makes all that it states true of `scene`."""
    return not any(
        all(facts_told(scene, mentioned)[fact] == told[fact] for fact in stated(template))
        for mentioned in permutations(range(len(scene.groups)), template.groups)
    )


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.name)
def test_a_false_word_is_false_whichever_groups_a_caption_is_about(book: Book) -> None:
    kinds = set()
    for index in range(300):
        rng = seeded("false", book.name, index)
        scene = sample_scene(rng)
        template = rng.choice([one for one in book.templates if one.groups <= len(scene.groups)])
        mentioned = rng.sample(range(len(scene.groups)), template.groups)
        true = facts_told(scene, mentioned)
        fact = rng.choice(list(stated(template)))
        value = false_value(scene, fact, true[fact], rng)
        if fact == PLACES or value == true[fact]:
            continue
        kinds.add(fact[0])
        assert contradicted(scene, template, {**true, fact: value})
        assert not contradicted(scene, template, true)
    assert kinds >= {"count", "colour", "shape"}


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.name)
def test_a_false_caption_has_one_false_word_and_a_true_one_has_none(book: Book) -> None:
    for index in range(60):
        rng = seeded("one", book.name, index)
        scene = sample_scene(rng)
        _, false = write_from(book, scene, rng, false=True)
        _, true = write_from(book, scene, rng)
        assert [label for _, label in words(false)].count(CONTRADICTORY) == 1
        assert false.planted in {*ATTRIBUTES, BACKGROUND[0], KINDS[0], PLACES[0]}
        assert CONTRADICTORY not in dict(words(true)).values()
        assert true.planted is None


def test_a_place_is_falsified_only_where_the_text_says_whose_it_is() -> None:
    book = Book("places", "a test", capitals=False, templates=(Template("{corner1}: {count1} {shape1}", None),))
    for index in range(200):
        rng = seeded("places", index)
        scene = sample_scene(rng)
        if len(scene.groups) > 1:
            _, caption = write_from(book, scene, rng, false=True)
            assert caption.planted != PLACES[0]


def test_a_count_has_to_be_said_before_what_depends_on_it() -> None:
    book = Book("early", "a test", capitals=False, templates=(Template("{shape1}, {count1}", None),))
    with pytest.raises(ValueError, match="used before the text has stated it"):
        write_from(book, scene_of(1), seeded("early"))


def test_sentences_start_with_a_capital_where_the_book_has_them() -> None:
    template = Template("{count1} {shape1}. {background} paper", None)
    scene = scene_of(1)
    for capitals in (True, False):
        book = Book("case", "a test", capitals, (template,))
        caption = fill(book, template, scene, (0,), {})
        assert caption.text[0].isupper() == capitals
        assert caption.text.split(". ")[1][0].isupper() == capitals


@pytest.mark.parametrize(
    ("text", "problem"),
    [("{count1} {hue1}", "is no slot"), ("{count1", "a slot that is none"), ("[is|are]", "a slot that is none")],
)
def test_a_slot_that_is_none_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "book.json"
    path.write_text(json.dumps({"name": "x", "voice": "y", "capitals": False, "templates": [text]}))
    with pytest.raises(ValueError, match=problem):
        write_from(read_book(path), scene_of(1), seeded("slots"))


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "book.json"
    path.write_text(json.dumps({"name": "x", "voice": "y", "template": []}))
    with pytest.raises(ValueError, match="has the keys"):
        read_book(path)


def test_a_literal_keeps_its_bytes() -> None:
    writer = Writer({}, {}, {}, capitals=False)
    writer.literal("naïve – ")
    writer.literal("🙂", None)
    writer.literal(" so.")
    assert writer.text == "naïve – 🙂 so."
    assert [writer.text.encode()[s.start : s.end].decode() for s in writer.spans] == ["naïve", "–", "so."]
