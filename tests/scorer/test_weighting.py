"""The records tell the truth about their functions, and what they tell is enough."""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scorer.columns import LOGPROB_TEXT
from scorer.errors import ConfigError, TableError
from scorer.results import TokenScores
from scorer.training import read_weights
from scorer.weighting.parameters import Parameter, Slider
from scorer.weighting.record import WeightingMethod
from scorer.weights import DEFAULT_METHOD, METHODS, Method
from tests.methods import set_by_hand
from tests.pipelines.helpers import make_job, run, write_dataset
from tests.toy_method import READS_OPTIONAL, TOY, plant

ROOT = Path(__file__).parents[2]
RECORDS = [*METHODS.values(), TOY]
every_record = pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)


def scores(seed: int = 0, turns: tuple[int, ...] = (7, 5)) -> TokenScores:
    rng = np.random.default_rng(seed)
    places = np.arange(sum(turns), dtype=np.int32)
    gap, clean, contrast = (rng.normal(0, 9, len(places)).astype(np.float32) for _ in range(3))
    clean, contrast = np.minimum(clean, 0), np.minimum(contrast, 0)
    turn = np.repeat(np.arange(len(turns)), turns).astype(np.int16)
    return TokenScores("s", places, places, places, turn, "", gap, clean, contrast)


def cut(whole: TokenScores, turn: int) -> TokenScores:
    own = whole.token_turns == turn
    names = ("token_ids", "token_starts", "token_ends", "token_turns", "logit_gap", "logprob_clean", "logprob_contrast")
    return replace(whole, **{name: getattr(whole, name)[own] for name in names})


class Watched:
    """Scores that note which of their columns are read."""

    def __init__(self, scores: TokenScores) -> None:
        self.scores, self.read = scores, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self.scores, name)


@every_record
def test_a_record_has_words_and_a_source(record: WeightingMethod) -> None:
    for text in (record.name, record.label, record.words, record.formula, record.paper):
        assert text.strip()
    assert re.search(r"\b(19|20)\d\d$", record.paper), "who and when"
    assert record.arxiv is None or re.fullmatch(r"\d{4}\.\d{4,5}", record.arxiv)
    assert record.words.endswith(".") and "\n" not in record.words
    for parameter in record.parameters:
        assert parameter.label and parameter.meaning and "\n" not in parameter.meaning
        assert parameter.name in record.formula.replace("α", "alpha"), "a formula names its parameters"
    for column in set(record.columns) - {"token_turns"}:
        assert column in record.formula, "and its columns"


@every_record
def test_parameters_and_defaults_are_the_functions(record: WeightingMethod) -> None:
    keywords = [p for p in inspect.signature(record.function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert [(p.name, p.default) for p in keywords] == [(p.name, p.default) for p in record.parameters]
    types = {"float": (float, type(None)), "int": (int,), "choice": (str,)}
    assert all(type(p.default) in types[p.type] for p in record.parameters)
    assert record.check({}) == {p.name: p.default for p in record.parameters}, "a default is allowed"


@every_record
def test_columns_are_those_that_the_function_reads(record: WeightingMethod) -> None:
    whole = scores()
    further = {name: np.arange(len(whole.token_ids)) < 1 for name in record.if_given}
    watched = Watched(replace(whole, optional=further))
    given = set_by_hand(record)
    weights = record.function(watched, **given)
    assert watched.read - {"optional"} == set(record.columns)
    assert ("optional" in watched.read) == bool(record.if_given or record.text_reference)
    assert not record.if_given or not np.array_equal(weights, record.function(whole, **given))
    joined = record.function(replace(whole, optional={LOGPROB_TEXT: whole.logprob_clean}), **given)
    assert record.text_reference != np.array_equal(joined, record.function(whole, **given))


@every_record
def test_what_a_record_says_of_the_weights_is_so(record: WeightingMethod) -> None:
    found = []
    whole_row = False
    for seed in range(20):
        whole = scores(seed)
        given = set_by_hand(record)
        weights = record.function(whole, **given)
        apart = np.concatenate([record.function(cut(whole, turn), **given) for turn in (0, 1)])
        whole_row |= not np.array_equal(weights, apart)
        found.append(weights)
    values = np.concatenate(found)
    assert record.binary == (set(values.tolist()) <= {0.0, 1.0})
    assert record.whole_row == whole_row
    if record.bounds is not None:
        low, high = (record.check({})[name] for name in record.bounds)
        assert (values.min(), values.max()) == (low, high)


@every_record
def test_a_record_says_whether_each_token_is_weighed_alone(record: WeightingMethod) -> None:
    """With every setting of its sliders and choices; a method that says so is applied to many rows at once."""
    found = True
    for seed in range(20):
        rng = np.random.default_rng(seed)
        whole = scores(seed)
        given = set_by_hand(record)
        for parameter in record.parameters:
            if parameter.type == "choice":
                given[parameter.name] = str(rng.choice(list(parameter.choices)))
            elif parameter.name not in given and parameter.slider is not None and not parameter.nullable:
                slider = parameter.slider
                steps = round((slider.maximum - slider.minimum) / slider.step)
                given[parameter.name] = slider.minimum + slider.step * int(rng.integers(steps + 1))
        if record.ordered:
            given["low"], given["high"] = sorted((given["low"], given["high"]))
        weights = record.function(whole, **record.check(given))
        for i in range(len(weights)):
            arrays = {name: values[i : i + 1] for name, values in whole.arrays.items()}
            found &= bool(record.function(replace(whole, **arrays), **record.check(given))[0] == weights[i])
    assert record.alone == found


@every_record
def test_a_slider_lies_in_the_range_and_steps_on_the_default(record: WeightingMethod) -> None:
    defaults = record.check({})
    for parameter in record.parameters:
        slider = parameter.slider
        if parameter.type == "choice":
            assert slider is None and parameter.default in parameter.choices and len(parameter.choices) > 1
            assert all(meaning and "\n" not in meaning for meaning in parameter.choices.values())
            continue
        assert slider is not None
        start = defaults[parameter.name] if parameter.default is not None else slider.start
        assert start is not None, "a parameter that is null by default needs a start"
        assert slider.minimum <= start <= slider.maximum
        steps = round((slider.maximum - slider.minimum) / slider.step)
        values = [slider.minimum + step * slider.step for step in range(steps + 1)]
        assert values[-1] == pytest.approx(slider.maximum)
        assert min(abs(value - start) for value in values) < 1e-9
        for value in values:
            parameter.check(round(value, 9), record.name)


@every_record
def test_names_in_a_record_are_its_parameters(record: WeightingMethod) -> None:
    names = {p.name for p in record.parameters}
    assert len(names) == len(record.parameters)
    assert {name for pair in record.ordered for name in pair} | set(record.bounds or ()) <= names
    nullable = {p.name for p in record.parameters if p.nullable}
    assert set(record.of_dataset) <= nullable and bool(record.of_dataset) == (record.from_gaps is not None)
    overriding = [p for p in record.parameters if p.overrides is not None]
    assert {p.overrides for p in overriding} <= names
    assert all(p.nullable for p in overriding), "else the other one never has an effect"


@every_record
def test_a_parameter_overrides_what_has_no_effect_beside_it(record: WeightingMethod) -> None:
    for one in (p for p in record.parameters if p.nullable):
        for other in (p for p in record.parameters if p is not one):
            ends = (other.slider.minimum, other.slider.maximum)
            low, high = (record.function(scores(), **{one.name: one.slider.start, other.name: end}) for end in ends)
            assert np.array_equal(low, high) == (one.overrides == other.name)


def parameter(**options: Any) -> Parameter:
    given = {"name": "p", "label": "p", "meaning": "p", "type": "float", "default": 1.0, "slider": Slider(0, 1, 1)}
    return Parameter(**{**given, **options})


@pytest.mark.parametrize(
    ("options", "good", "bad", "words"),
    [
        ({}, [-1e9, 0, 1e9], [math.nan, math.inf, -math.inf, "1", True, None, 10**400], "be a finite number"),
        ({"minimum": 2}, [2, 3.5], [1.9], "be 2 or more"),
        ({"exclusive_minimum": 2}, [2.1], [2], "be above 2"),
        ({"maximum": 2}, [2, -5], [2.1], "be 2 or less"),
        ({"exclusive_maximum": 2}, [1.9], [2], "be below 2"),
        ({"exclusive_minimum": 0, "maximum": 1}, [1, 0.1], [0, 1.1], r"lie in \(0, 1\]"),
        ({"minimum": 0, "exclusive_maximum": 1}, [0, 0.9], [1, -0.1], r"lie in \[0, 1\)"),
        ({"type": "int"}, [1, -2, 3.0], [1.5], "be a whole number$"),
        ({"type": "int", "odd": True}, [1, -3], [2, 1.5], "be an odd number$"),
        (
            {"type": "int", "odd": True, "unit": "tokens", "minimum": 1},
            [1, 3.0],
            [-1, 2],
            "number of tokens, 1 or more",
        ),
        ({"type": "int", "minimum": 1, "maximum": 4}, [1, 4], [0, 5], r"be a whole number, in \[1, 4\]"),
        ({"nullable": True}, [None, 1], [math.nan], "be a finite number, or null for none"),
    ],
)
def test_ranges(options: dict[str, Any], good: list[Any], bad: list[Any], words: str) -> None:
    tried = parameter(**options)
    for value in good:
        found = tried.check(value, "m")
        assert found == value and type(found) in {"float": (float, type(None)), "int": (int,)}[tried.type]
    for value in bad:
        with pytest.raises(ConfigError, match=f"method 'm': p is .*; it must .*{words}") as caught:
            tried.check(value, "m")
        assert "it must be " in str(caught.value) or "it must lie " in str(caught.value)


def test_a_planted_method_is_checked_by_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="unknown weighting method 'toy'"):
        Method("toy")
    plant(monkeypatch)
    assert Method("toy").to_dict() == {"name": "toy", "params": {"power": 2.0, "cap": None}}
    assert Method("toy", {"cap": 1})(scores()).max() == 1 < Method("toy")(scores()).max()
    for params, words in (
        ({"power": 8}, r"method 'toy': power is 8.0; it must lie in \(0, 8\)"),
        ({"power": None}, "method 'toy': power is null; it must be a finite number"),
        ({"cap": -1}, "method 'toy': cap is -1.0; it must be 0 or more"),
        ({"window": 1}, "method 'toy' has no parameter window; it has power, cap"),
    ):
        with pytest.raises(ConfigError, match=words):
            Method("toy", params)


def test_a_null_is_out_of_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, replace(TOY, ordered=(("power", "cap"),)))
    Method("toy", {"power": 2})
    with pytest.raises(ConfigError, match=r"power is 2\.0 and cap is 1\.0; power ≤ cap must hold: lower power or"):
        Method("toy", {"cap": 1})


def test_an_absent_column_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, replace(TOY, columns=("logprob_clean", "kl")))
    with pytest.raises(TableError, match="has no kl, which the method 'toy' reads; score the dataset again"):
        Method("toy")(scores())
    with pytest.raises(TableError, match="out/x has no logit_gap, which the method 'cal' reads"):
        Method("cal").check_columns(["token_turns", "logprob_clean"], "out/x")
    Method("cal").check_columns(["token_turns", "logit_gap"])


def test_an_optional_column_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, READS_OPTIONAL)
    found = Method("toy")(replace(scores(), optional={"toy": np.full(12, 3, np.float32)}))
    assert found.tolist() == [6.0] * 12


def test_an_output_without_the_column_is_refused_by_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run(make_job(write_dataset(tmp_path / "data", {"x.parquet": 3}), tmp_path / "out"))
    plant(monkeypatch, READS_OPTIONAL)
    with pytest.raises(TableError, match=r"out/x\.parquet has no toy, which the method 'toy' reads"):
        list(read_weights(tmp_path / "out", method="toy"))


def test_the_readme_tells_the_records() -> None:
    text = (ROOT / "README.md").read_text()
    table = text.partition("| `--method` |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.split(" | ")] for line in table.splitlines()[2:]]
    assert [row[0].strip("| ") for row in rows] == [
        f"`{name}`{' (default)' if name == DEFAULT_METHOD else ''}" for name in METHODS
    ]
    for row, record in zip(rows, METHODS.values(), strict=True):
        assert row[1] == record.formula
        assert row[2] == ", ".join(f"`{parameter}`" for parameter in record.parameters)
        link = record.paper if record.arxiv is None else f"[{record.paper}](https://arxiv.org/abs/{record.arxiv})"
        assert row[3].startswith(link)
    names = ", ".join(f"`{name}`" for name in METHODS)
    assert f"({names}, or a function" in (ROOT / "docs" / "training.md").read_text()
