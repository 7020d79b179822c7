"""Partners of rows: a derangement of the images of a group, from their bytes and the seed alone."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorer import Sample, TokenScores
from scorer.encoding.encoder import Encoder
from scorer.encoding.shuffling import partners_of, with_partners
from scorer.errors import FailureCode
from scorer.partners import GROUP_ROWS, find_partners, group_of
from scorer.results import Failure
from scorer.types import Turn
from tests.scorer.scoring import assert_equal_scores, load, picture
from tests.scorer.test_contrast_images import photo

BYTES = 10**7


@given(st.integers(1, 1000), st.data())
def test_groups_divide_the_rows(rows: int, data: st.DataObject) -> None:
    row_index = data.draw(st.integers(0, rows - 1))
    group = group_of(row_index, rows)
    assert row_index in group and group.stop <= rows
    assert {group_of(i, rows) for i in group} == {group}
    assert group.start % GROUP_ROWS == 0
    assert len(group) == rows or GROUP_ROWS // 2 <= len(group) < GROUP_ROWS * 3 // 2


@given(st.lists(st.lists(st.integers(0, 6), max_size=3), max_size=20), st.integers(0, 3), st.randoms())
def test_each_row_gets_other_images(drawn: list[list[int]], seed: int, order: random.Random) -> None:
    images = [tuple(f"image {i}" for i in one) for one in drawn]
    digests = [tuple(name.encode() for name in one) or None for one in images]
    found = find_partners(images, digests, seed)
    for own, partners in zip(images, found, strict=True):
        fitting = {other for other in images if own and len(other) == len(own) and not set(other) & set(own)}
        assert set(partners) == fitting and len(partners) == len(fitting)
    mixed = order.sample(range(len(images)), len(images))
    again = find_partners([images[i] for i in mixed], [digests[i] for i in mixed], seed)
    assert again == [found[i] for i in mixed], "the order of the rows does not matter"


@given(st.integers(2, 40), st.integers(0, 100))
def test_distinct_images_are_deranged(count: int, seed: int) -> None:
    images = [(bytes([i]),) for i in range(count)]
    first = [partners[0] for partners in partners_of(images, seed, BYTES)]
    assert sorted(first) == images
    assert all(own != other for own, other in zip(images, first, strict=True))


def test_seeds_differ() -> None:
    images = [(bytes([i]),) for i in range(40)]
    zero, one = (partners_of(images, seed, BYTES) for seed in (0, 1))
    assert sum(a[0] == b[0] for a, b in zip(zero, one, strict=True)) < 10


def test_images_are_told_apart_by_their_bytes(tmp_path: Path) -> None:
    """A file and its bytes are one image; a file that is not there takes no part."""
    photo((9, 9)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    path, missing = str(tmp_path / "a.png"), str(tmp_path / "b.png")
    found = partners_of([(path,), (data,), (photo((9, 9), 1),), (missing,), ()], 0, BYTES)
    assert [len(partners) for partners in found] == [1, 1, 1, 0, 0]
    assert found[0][0] == found[1][0] != found[2][0]


def rows(count: int) -> list[Sample]:
    return [Sample.caption(str(i), picture(40, 40, i), f"A kite, {i} boats.") for i in range(count)]


def test_scores_are_those_of_the_contrast_image(chatml_model: Path) -> None:
    """The partner's image, given as the row's own contrast image, has the same scores; another one has not."""
    samples = rows(5)
    found = load(chatml_model, contrast="shuffled", noise_seed=2).score(samples)
    partnered = list(with_partners(samples, 2, BYTES))
    as_column = load(chatml_model, contrast="image")
    expected = as_column.score([replace(one, contrast_images=one.partners[0]) for one in partnered])
    other = as_column.score([replace(one, contrast_images=one.partners[1]) for one in partnered])
    for result, same, different in zip(found, expected, other, strict=True):
        assert_equal_scores(result, same)
        assert isinstance(result, TokenScores) and isinstance(different, TokenScores)
        assert np.abs(result.logit_gap - different.logit_gap).max() > 1e-3


def test_a_partner_that_does_not_decode_is_passed_over(chatml_model: Path) -> None:
    encoder = load(chatml_model, contrast="shuffled").encoder
    own, good = rows(2)
    broken = (b"\x89PNG\r\n\x1a\nno image",)
    same = (picture(40, 40, 0),)
    skipped = encoder.encode(replace(own, partners=(broken, same, (), good.images)))
    assert (
        skipped.contrast.pixels_digest == encoder.encode(replace(own, partners=(good.images,))).contrast.pixels_digest
    )


@pytest.mark.parametrize(
    ("partners", "said"),
    [
        ((), "none of the 0 candidates can be used .every other row near it"),
        (((picture(40, 40, 0),),), "none of the 1 candidates can be used .they look the same"),
        (((b"no image",),), "the last one says: image starts with b'no image'"),
    ],
)
def test_a_row_without_a_usable_partner_is_refused(
    chatml_model: Path, partners: tuple[tuple[object, ...], ...], said: str
) -> None:
    encoder: Encoder = load(chatml_model, contrast="shuffled").encoder
    found = encoder.try_encode(replace(rows(1)[0], partners=partners))
    assert isinstance(found, Failure) and found.code is FailureCode.CONTRAST_UNDEFINED
    assert re.search(said, found.message) and "'blank'" in found.message


def test_rows_without_images_take_no_part_and_are_kept(chatml_model: Path) -> None:
    bare = Sample("bare", (), (Turn("user", ("Hello?",)), Turn("assistant", ("A kite.",))))
    alone, text, pair = load(chatml_model, contrast="shuffled").score([*rows(1), bare, rows(2)[1]])
    assert isinstance(text, TokenScores) and text.text_only
    expected = load(chatml_model, contrast="shuffled").score(rows(2))
    assert_equal_scores(alone, expected[0])
    assert_equal_scores(pair, expected[1])


def test_a_list_of_one_image_is_refused(chatml_model: Path) -> None:
    (found,) = load(chatml_model, contrast="shuffled").score(rows(1))
    assert isinstance(found, Failure) and found.code is FailureCode.CONTRAST_UNDEFINED
