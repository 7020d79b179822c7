"""PaliGemma 1 and 2: captions are a causal suffix behind a prefix that sees itself in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scorer import Sample, Scorer, TokenScores
from scorer.errors import FailureCode
from scorer.families import Family
from scorer.forward import score_full_forwards
from scorer.results import Failure
from scorer.types import IMAGE, Turn
from tests.scorer.families.checkpoints import paligemma
from tests.scorer.families.harness import FamilySuite, ScoreSuite, encode, error, fast_error
from tests.scorer.families.samples import LONG, Case, caption, two_turns
from tests.scorer.scoring import picture

ROWS = [caption("a", (30, 50), "A red kite over boats."), caption("b", (30, 50), "Two boats.", "And what is this?")]


def suffix_inputs(scorer: Scorer, sample: Sample, images: Sequence[Any]) -> dict[str, Any]:
    """The processor's own way to a caption: ``suffix``, tokenized apart from the prompt."""
    prompt = "<image>" * len(images) + sample.turns[0].text
    processor = scorer.encoder._processor
    inputs = processor(images=[list(images)], text=[prompt], suffix=[sample.turns[1].text], return_tensors="np")
    inputs.pop("labels")
    return {name: torch.from_numpy(values) for name, values in inputs.items()}


def case_of(path: Path) -> Case:
    return Case(
        path=path,
        special_tokens=paligemma.SPECIALS,
        several_images=False,  # the suite writes text between images, which PaliGemma has no form for
        several_turns=False,
        long=LONG[: len(LONG) // 3],  # its tokenizer knows few words
        inputs=suffix_inputs,
    )


class Suite(FamilySuite):
    def test_several_images_stand_ahead_of_the_prompt(self, case: Case) -> None:
        turns = (Turn("user", (IMAGE, IMAGE, "Which?")), Turn("assistant", ("The second.",)))
        sample = Sample("two", (picture(30, 20, 1), picture(20, 30, 2)), turns)
        scorer = case.load()
        (row,) = encode(scorer, [sample])
        inputs = suffix_inputs(scorer, sample, sample.images)
        np.testing.assert_array_equal(row.clean.input_ids, inputs["input_ids"][0][: len(row.clean.input_ids)])
        np.testing.assert_array_equal(row.clean.pixels["pixel_values"], inputs["pixel_values"])

    def test_several_turns_are_refused(self, case: Case) -> None:
        bad, good = case.load().score([two_turns(images=1), ROWS[0]])
        assert isinstance(bad, Failure)
        assert bad.code is FailureCode.TEMPLATE_FAILED
        assert "one user turn" in bad.message
        assert isinstance(good, TokenScores)

    def test_a_caption_joined_with_the_prompt_would_be_seen(self, case: Case) -> None:
        """A caption that begins with a line break: joined, it merges with the prompt's own."""
        row = caption("a", (30, 50), "\nA kite.")
        scorer = case.load()
        theirs = suffix_inputs(scorer, row, row.images)["input_ids"][0].numpy()
        ours = scorer.encoder.encode(row)
        np.testing.assert_array_equal(ours.clean.input_ids, theirs[: len(ours.clean.input_ids)])
        assert (ours.token_starts[0], ours.token_ends[-1]) == (0, len("\nA kite."))
        scorer.encoder._chat._separate_text = False
        joined = scorer.encoder.encode(row).clean.input_ids
        assert not np.array_equal(joined, theirs[: len(joined)])

    def test_token_types_are_those_of_the_processor(self, case: Case) -> None:
        scorer = case.load()
        for sample in ROWS:
            row = scorer.model.prepare(scorer.encoder.encode(sample).clean)
            theirs = suffix_inputs(scorer, sample, sample.images)["token_type_ids"][0]
            np.testing.assert_array_equal(row.token_inputs["token_type_ids"], theirs[: len(row.ids)])

    @pytest.mark.parametrize(
        "broken",
        [
            {"token_inputs": Family().token_inputs},
            {"token_inputs": lambda ids, first, image: {"token_type_ids": np.zeros_like(ids)}},
            {"first_position": 0},
        ],
        ids=["no token types", "labels in the prefix", "positions from 0"],
    )
    def test_a_broken_record_would_be_seen(self, case: Case, broken: dict[str, Any]) -> None:
        scorer = case.load()
        rows = encode(scorer, ROWS)
        right = score_full_forwards(scorer.model, rows)
        scorer.model.family = replace(scorer.model.family, **broken)
        moved = error(score_full_forwards(scorer.model, rows), right)
        if broken == {"first_position": 0}:  # rotary positions are relative: a shift of all tokens changes nothing
            assert moved <= case.tolerance
        else:
            assert moved > 0.01

    def test_a_prefix_that_is_cut_behind_the_image_would_be_seen(self, case: Case) -> None:
        scorer = case.load()
        scorer.model.family = replace(scorer.model.family, whole_prefix=False)
        # rows of one image and different prompts share what lies before the prompt
        assert fast_error(scorer, ROWS) > 0.01


class TestPaliGemma1(Suite):
    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, tmp_path_factory: pytest.TempPathFactory) -> Case:
        return case_of(paligemma.make(tmp_path_factory.mktemp("paligemma1"), version=1))


class TestPaliGemma2(Suite):
    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, tmp_path_factory: pytest.TempPathFactory) -> Case:
        return case_of(paligemma.make(tmp_path_factory.mktemp("paligemma2"), version=2))

    def test_without_the_softcap_of_the_class_numbers_differ(self, case: Case) -> None:
        scorer = case.load()
        assert scorer.model._softcap == 2.0
        rows = encode(scorer, ROWS)
        right = score_full_forwards(scorer.model, rows)
        scorer.model._softcap = None
        assert error(score_full_forwards(scorer.model, rows), right) > 0.01


class TestPaliGemma2SlidingWindow(ScoreSuite):
    """A window that is shorter than most rows."""

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, tmp_path_factory: pytest.TempPathFactory) -> Case:
        path = paligemma.make(tmp_path_factory.mktemp("paligemma2-sliding"), version=2, sliding_window=24)
        return case_of(path)
