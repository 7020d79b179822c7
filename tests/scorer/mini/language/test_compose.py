"""Captions in free language: labelled spans, true words, planted errors, words kept from training."""

import re
from collections import Counter
from functools import cache

import pytest

from scorer.mini.language import filler_english, frames, lexicon
from scorer.mini.language.caption_writer import CONTRADICTORY, FILLER, VISUAL
from scorer.mini.language.captions import FALSIFIABLE, Caption
from scorer.mini.language.compose import ENGLISH, FRENCH, compose, compose_false, converse
from scorer.mini.language.filler import RESERVED, TRAINING, Filler, share, word_list
from scorer.mini.language.speaker import language
from scorer.mini.language.surface import UPPER, Surface
from scorer.mini.world import Group, Item, Scene, sample_scene, seeded

FUNCTION_WORDS = """
    a an the of in on at to with for from and as it its is are was were isn't that this than no not other another one my
    they them these corner side thing shape object sign more your our plus must over left further
"""


def plain(rng_part: int) -> tuple[Scene, Caption]:
    """A scene and its caption in English, without errors of spelling."""
    rng = seeded("test language", rng_part)
    scene = sample_scene(rng)
    return scene, compose(scene, rng, tongue=ENGLISH, surface=Surface(rng))


@cache
def plain_pairs() -> list[tuple[Scene, Caption]]:
    return [plain(k) for k in range(1000)]


@cache
def false_pairs() -> list[tuple[Scene, Caption]]:
    pairs = []
    for k in range(300):
        rng = seeded("test false language", k)
        scene = sample_scene(rng)
        pairs.append((scene, compose_false(scene, rng, tongue=ENGLISH, surface=Surface(rng))))
    return pairs


def words(caption: Caption, *labels: str) -> list[str]:
    data = caption.text.encode()
    return [data[span.start : span.end].decode().lower() for span in caption.spans if span.label in labels]


def test_spans_are_in_order_and_leave_out_only_white_space() -> None:
    for k in range(500):
        rng = seeded("test spans", k)
        caption = compose(sample_scene(rng), rng)
        data, end = caption.text.encode(), 0
        for span in caption.spans:
            assert end <= span.start < span.end
            assert not data[end : span.start].strip()
            end = span.end
        assert not data[end:].strip()


def test_a_seed_gives_one_caption() -> None:
    assert [plain(k) for k in range(30)] == plain_pairs()[:30]


def test_a_true_caption_names_only_what_the_image_has() -> None:
    colours = {word: colour for mapping in lexicon.COLOURS for colour, word in mapping.items()}
    shapes = {word: shape for mapping in lexicon.SHAPES for shape, word in mapping.items() if " " not in word}
    shapes |= {lexicon.plural(word): shape for word, shape in shapes.items()}
    named = 0
    for scene, caption in plain_pairs():
        assert CONTRADICTORY not in {span.label for span in caption.spans}
        for word in words(caption, VISUAL):
            if word in colours:
                assert colours[word] in {group.colour for group in scene.groups}, caption.text
                named += 1
            if word in shapes and word not in ("plus", "pluses"):
                assert shapes[word] in {group.shape for group in scene.groups}, caption.text
                named += 1
    assert named > 1500


def test_most_words_are_filler_but_many_are_visual() -> None:
    labels = Counter(span.label for _, caption in plain_pairs() for span in caption.spans)
    assert set(labels) == {VISUAL, FILLER}
    assert 0.2 < labels[VISUAL] / labels.total() < 0.5


def test_captions_hardly_ever_share_a_template() -> None:
    told = lexicon.visual_words()
    templates = Counter(
        " ".join("_" if word in told else word for word in words(caption, VISUAL, FILLER))
        for _, caption in plain_pairs()
    )
    assert len(templates) > 900


@pytest.mark.parametrize("kind", FALSIFIABLE)
def test_errors_of_every_kind_are_planted(kind: str) -> None:
    assert sum(caption.planted == kind for _, caption in false_pairs()) >= 5


def test_a_false_colour_or_shape_is_one_that_no_group_has() -> None:
    colours = {word: colour for mapping in lexicon.COLOURS for colour, word in mapping.items()}
    for scene, caption in false_pairs():
        (wrong,) = words(caption, CONTRADICTORY)
        if caption.planted == "colour" and wrong in colours:
            assert colours[wrong] not in {group.colour for group in scene.groups}


def test_a_size_that_another_group_has_is_not_contradictory_until_the_group_is_known() -> None:
    """Of a small red and a large blue circle, "a large" may become "a large blue circle"; "red" makes it false."""
    here = Item(0.25, 0.25, 0.06, 0.0)
    scene = Scene((Group("circle", "red", "small", 0, (here,)), Group("circle", "blue", "large", 1, (here,))), "white")
    wrong = Counter()
    for k in range(300):
        rng = seeded("test false size", k)
        caption = compose(scene, rng, false={("size", 0): "large"}, tongue=ENGLISH, surface=Surface(rng))
        wrong["".join(words(caption, CONTRADICTORY))] += 1
    assert wrong["red"] > 10
    assert wrong["large"] > 10


def test_words_of_filler_are_none_that_tell_a_fact() -> None:
    """But for function words, which stand at other places than facts do."""
    told = lexicon.visual_words() - set(FUNCTION_WORDS.split())
    for part in (TRAINING, RESERVED):
        assert not told & set(word_list(part))
    for name, listed in filler_english.WORDS.items():
        assert not told & set(re.split(r"[\s|/]+", listed.lower())), name
    for name, phrases in filler_english.PHRASES.items():
        assert not told & {word for phrase in phrases for word in phrase.lower().split()}, name


def test_reserved_words_and_frames_are_kept_from_training() -> None:
    assert not set(word_list(TRAINING)) & set(word_list(RESERVED))
    assert len(word_list(RESERVED)) > 900
    kept, held = language(TRAINING), language(RESERVED)
    for name in ("introductions", "links", "turns", "statements", "nouns"):
        assert not set(getattr(kept, name)) & set(getattr(held, name)), name
        assert len(set(getattr(held, name))) >= 3, name
    assert share(("a", "b"), TRAINING) == share(("a", "b"), RESERVED) == ("a", "b")


def test_every_name_in_a_template_is_known() -> None:
    filler = Filler(seeded("test names"))
    for templates in (value for value in vars(frames).values() if isinstance(value, tuple)):
        for template in templates:
            assert "<" not in filler.fill(template)


def test_french_is_a_share_and_agrees() -> None:
    texts = []
    for k in range(300):
        rng = seeded("test french", k)
        texts.append(compose(sample_scene(rng), rng, tongue=FRENCH, surface=Surface(rng)).text.lower())
    together = " ".join(texts)
    assert re.search(r"une (petite |grande )?étoile", together)
    assert not re.search(r"\bun (petit |grand )?étoile", together)
    assert re.search(r"(deux|trois) (petits |grands )?anneaux verts", together)


def test_answers_know_what_earlier_turns_have_said() -> None:
    known = 0
    for k in range(200):
        rng = seeded("test dialogues", k)
        turns = converse(sample_scene(rng), rng, turns=3)
        assert len(turns) == 3
        known += sum(not words(caption, VISUAL) and bool(words(caption, FILLER)) for _, caption in turns[1:])
        for _, caption in turns:
            assert all(span.end <= len(caption.text.encode()) for span in caption.spans)
    assert known > 20


def test_a_surface_changes_the_spelling_and_not_the_labels() -> None:
    for k in range(50):
        captions = []
        for case in ("sentence", UPPER):
            rng = seeded("test surface", k)
            captions.append(compose(sample_scene(rng), rng, tongue=ENGLISH, surface=Surface(seeded("spelling"), case)))
        assert captions[1].text == captions[0].text.upper()
        assert [span.label for span in captions[0].spans] == [span.label for span in captions[1].spans]
