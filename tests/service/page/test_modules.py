"""The page's modules against the Python they are ports of, run in Chromium."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from pipelines.report.page import comparison, percent, ratio
from scorer.display.levels import gap_level, weight_level
from scorer.display.token_runs import token_runs
from scorer.types import BoolArray, Float32Array, Int16Array
from scorer.weights import METHODS, Method
from tests.service.page.browser import Browser
from tests.service.page.server import Server


@pytest.fixture(scope="module")
def page(server: Server, chromium: Browser) -> Iterator[Browser]:
    """The page, opened once: these tests use its modules, and leave it as it is."""
    chromium.open(server.url)
    yield chromium
    assert chromium.complaints() == []


DERIVE = """
const { rawScores, PORTS } = await import("/page/weights.js");
const special = (value) => (typeof value === "string" ? Number(value) : value);
const [cases, window] = args;
return cases.flatMap(({ tokens, settings }) => {
  for (const token of tokens) for (const name of Object.keys(token)) token[name] = special(token[name]);
  const raw = rawScores(tokens);
  return settings.map(([method, params]) => {
    if (window !== null && "window" in params) params.window = window;
    return [...PORTS[method](raw, params)].join(" ");
  });
});
"""


@dataclass(frozen=True, eq=False)
class Scores:
    token_turns: Int16Array
    logit_gap: Float32Array
    logprob_clean: Float32Array
    logprob_contrast: Float32Array
    optional: Mapping[str, BoolArray] = field(default_factory=dict)

    def tokens(self) -> list[dict[str, Any]]:
        """As the API sends them: NaN is null. (Infinite values, which JSON has not, travel as words here.)"""
        names = ("logit_gap", "logprob_clean", "logprob_contrast")
        return [
            {"turn": int(turn), **{name: _sent(getattr(self, name)[i]) for name in names}}
            | {name: bool(values[i]) for name, values in self.optional.items()}
            for i, turn in enumerate(self.token_turns)
        ]


def _sent(value: np.float32) -> float | str | None:
    if np.isnan(value):
        return None
    return float(value) if np.isfinite(value) else f"{'-' if value < 0 else ''}Infinity"


def _random(rng: np.random.Generator, length: int, turns: int, kind: str) -> Scores:
    columns = []
    for scale, top in ((4, None), (3, 0), (3, 0)):
        column = rng.normal(0, scale, length)
        if kind == "ties":
            column = np.round(column)
        if top is not None:
            column = np.minimum(column, top)
        if kind == "undefined":
            column[rng.random(length) < 0.1] = np.nan
        if kind == "infinite":
            column[rng.random(length) < 0.1] = -np.inf
        columns.append(column.astype(np.float32))
    turn = np.sort(rng.integers(0, turns, length)).astype(np.int16)
    last = np.append(np.diff(turn) != 0, True)
    return Scores(turn, *columns, {"is_stop": last} if rng.random() < 0.5 else {})


def _edges() -> list[Scores]:
    def one(gap: list[float], clean: list[float], contrast: list[float], turns: list[int] | None = None) -> Scores:
        columns = (np.array(column, dtype=np.float32) for column in (gap, clean, contrast))
        return Scores(np.array(turns or [0] * len(gap), dtype=np.int16), *columns)

    nan, inf = math.nan, math.inf
    return [
        one([], [], []),
        one([2.0], [-1.0], [-2.0]),
        one([nan], [nan], [nan]),
        one([9.0, -9.0, 1.0, 5.0], [-0.0] * 4, [-0.0] * 4),
        one([1.0, 2.0, 3.0], [0.0, 1e-7, -1e-7], [1e-7, 0.0, 1e-30]),  # a little above zero, by rounding
        one([inf, -inf, nan], [-inf, -inf, -1.0], [-inf, -1.0, -inf]),
        one([1.5, 4.5, 2.5, 3.5, 0.5], [-1.0] * 5, [-2.0] * 5, [0, 0, 1, 2, 2]),
        one([3.0] * 7, [-1.0] * 7, [-1.0] * 7, list(range(7))),
        one([1e38, -1e38, 1e-40], [-1e38, -1e-40, -100.0], [-1e-40, -1e38, -100.0]),
    ]


def _settings(rng: np.random.Generator) -> list[tuple[str, dict[str, Any]]]:
    low = round(float(rng.uniform(0, 3)), 1)
    clamp = {"low": low, "high": round(low + float(rng.uniform(0, 5)), 1), "window": int(rng.choice([1, 3, 5, 9, 15]))}
    paper = {**clamp, "edges": "paper"}
    return [
        ("cal", {}),
        ("cal", clamp),
        ("cal", paper),
        ("cal-logprob", clamp),
        ("cal-logprob", paper),
        ("prior", {"alpha": float(rng.choice([0, 0.5, 1, 2.7, 40]))}),
        ("vig", {"threshold": float(rng.choice([-1, 0, 0.05, 0.5, 2]))}),
        ("vig-row", {"keep": float(rng.choice([0.01, 0.07, 0.1, 0.3, 0.57, 0.7, 1.0]))}),
        ("vig-row", {"threshold": float(rng.choice([-1, 0, 0.05, 0.5, 2]))}),
        ("top-tokens", {"threshold": float(rng.choice([-1, 0, 0.05, 0.5, 2]))}),
        ("vppo", {"keep": float(rng.choice([0.07, 0.4, 1.0]))}),
        ("pgpo", {"threshold": float(rng.choice([0.1, 0.4, 0.9])), "boost": float(rng.choice([0, 2, 7]))}),
        ("tpo", {}),
        ("grounded", {"k": float(rng.choice([0, 1, 4, 20])), "epsilon": float(rng.choice([1e-6, 0.001, 0.2, 1]))}),
    ]


Case = tuple[Scores, list[tuple[str, dict[str, Any]]]]
"""Scores, and the settings to derive weights with."""


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    rng = np.random.default_rng(5)
    kinds = ("plain", "ties", "undefined", "infinite")
    scores = [_random(rng, int(rng.integers(1, 90)), int(rng.integers(1, 5)), kinds[i % 4]) for i in range(160)]
    scores += [_random(rng, 100, 1, "ties") for _ in range(8)]  # 7 % of 100 is 7
    return [(one, _settings(rng)) for one in [*scores, *_edges()]]


def _disagreements(page: Browser, cases: list[Case], window: int | None = None) -> list[tuple[str, dict[str, Any]]]:
    sent = [
        {"tokens": scores.tokens(), "settings": [(name, Method(name, params).params) for name, params in settings]}
        for scores, settings in cases
    ]
    found = page.module(DERIVE, sent, window)
    flat = [(method, params, scores) for scores, settings in cases for method, params in settings]
    wrong = []
    for (method, params, scores), text in zip(flat, found, strict=True):
        with np.errstate(invalid="ignore", over="ignore"):
            expected = Method(method, params)(scores)
        ours = np.array(text.split(), dtype=np.float32)
        assert ours.shape == expected.shape
        # There, the sum of a sample is rounded in another order, and exponentials may be: one unit in the last place.
        # Else, to the last bit.
        limit = np.spacing(np.abs(expected)) if method in ("prior", "pgpo", "tpo", "grounded") else 0.0
        with np.errstate(invalid="ignore"):
            equal = (np.isnan(ours) & np.isnan(expected)) | (ours == expected) | (np.abs(ours - expected) <= limit)
        if not equal.all():
            wrong.append((method, params))
    return wrong


def test_weights_are_those_of_the_library(page: Browser, cases: list[Case]) -> None:
    assert sum(len(settings) for _, settings in cases) > 1000
    assert _disagreements(page, cases) == []


def test_the_comparison_sees_a_wrong_window(page: Browser, cases: list[Case]) -> None:
    """Negative control."""
    wrong = _disagreements(page, cases[:60], window=7)
    assert len(wrong) > 50
    assert {method for method, _ in wrong} == {"cal", "cal-logprob"}


def test_every_method_has_a_port(page: Browser) -> None:
    found = page.module('return Object.keys((await import("/page/weights.js")).PORTS)')
    assert found == list(METHODS)


TEXTS = [
    "a red kite over two boats",
    " leading and trailing ",
    "naïve painter’s “sketchbook” – fin",
    "日本語のテキスト",
    "a 🪁 and 🚣🏽, done",
    "שלום עולם",
    "tab\there\nnew line",
    "",
]


def test_token_runs_are_the_reports(page: Browser) -> None:
    """On random cuts into tokens, within characters too; every cut of a text whose signs are one code point each."""
    rng = np.random.default_rng(3)
    sent = []
    for text in [text for text in TEXTS if "🏽" not in text]:
        length = len(text.encode())
        for _ in range(60):
            cuts = np.sort(rng.integers(0, length + 1, int(rng.integers(1, 12))))
            if rng.random() < 0.5:  # all of the text is scored
                cuts = np.unique(np.concatenate([[0], cuts, [length]]))
            sent.append((text, cuts[:-1].tolist(), cuts[1:].tolist()))
    script = 'const { tokenRuns } = await import("/page/token_runs.js"); return args[0].map((a) => tokenRuns(...a))'
    for (text, starts, ends), found in zip(sent, page.module(script, sent), strict=True):
        own = token_runs(text, np.array(starts, dtype=np.int32), np.array(ends, dtype=np.int32))
        assert [(p["text"], p["first"], p["last"]) for p in found] == [(p.text, p.first, p.last) for p in own]


def test_a_sign_of_several_code_points_is_one_token_run(page: Browser) -> None:
    script = 'const { tokenRuns } = await import("/page/token_runs.js"); return tokenRuns(...args)'
    text = "a 👩‍👩‍👧 e\u0301"
    length = len(text.encode())
    found = page.module(script, text, list(range(length)), list(range(1, length + 1)))
    assert [run["text"] for run in found] == ["a", " ", "👩‍👩‍👧", " ", "e\u0301"]
    assert [run["last"] - run["first"] for run in found] == [1, 1, 18, 1, 3]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("red", ("", "red", "")),
        (" red", (" ", "red", "")),
        (" ", ("", " ", "")),
        (" \t", ("", "␣⇥", "")),
        ("  red", ("", "␣␣red", "")),
        ("\n", ("", "↵\n", "")),
        ("\n\n The", ("", "↵\n↵\n␣The", "")),
        ("\tx ", ("", "⇥x", " ")),
        ("\u00a0x", ("", "⍽x", "")),
        ("\u200d", ("", "∅", "")),
        ("", ("", "∅", "")),
        ("\r\n", ("", "↵\n", "")),
    ],
)
def test_white_space_is_made_visible(page: Browser, text: str, expected: tuple[str, str, str]) -> None:
    found = page.module('const { drawn } = await import("/page/token_runs.js"); return drawn(args[0])', text)
    assert (found["before"], found["core"], found["after"]) == expected


def test_steps_and_words_are_the_reports(page: Browser) -> None:
    rng = np.random.default_rng(7)
    gaps = [*rng.normal(0, 3, 300).tolist(), 0.0, *(s * math.log(k) for s in (1, -1) for k in (2, 5, 20, 1e5))]
    probabilities = [*np.exp(-rng.exponential(4, 300)).tolist(), 0.0, 1.0, 0.99, 1e-6, 0.9999, 0.0995, 1e-5]
    script = """
      const scale = await import("/page/scale.js");
      const [gaps, probabilities] = args;
      return [gaps.map(scale.gapLevel), gaps.map(scale.ratio), gaps.map((gap) => scale.comparison(gap)),
        gaps.map((gap) => scale.weightLevel(gap, [1, 5])), probabilities.map(scale.percent),
        scale.gapLevel(NaN), scale.comparison(NaN)];
    """
    levels, ratios, words, weights, percents, nothing, undefined = page.module(script, gaps, probabilities)
    assert levels == [gap_level(gap) for gap in gaps]
    assert ratios == [ratio(gap) for gap in gaps]
    assert words == [comparison(gap) for gap in gaps]
    assert weights == [weight_level(gap, 1, 5) for gap in gaps]
    assert percents == [percent(p) for p in probabilities]
    assert (nothing, undefined) == (None, comparison(math.nan))


def test_a_gap_says_what_it_compares_with_where_that_must_be_named(page: Browser) -> None:
    script = 'const { comparison } = await import("/page/scale.js"); return args.map((gap) => comparison(gap, "noise"))'
    assert page.module(script, math.log(5), -math.log(2), 0) == [
        "5 times more likely with the image than with noise",
        "2 times less likely with the image than with noise",
        "as likely with the image as with noise",
    ]


def test_contrasts_have_the_words_that_were_learnt(page: Browser) -> None:
    script = """
      const { contrastPhrase, storeContrastPhrases } = await import("/page/contrasts.js");
      const before = contrastPhrase("toy");
      storeContrastPhrases({ toy: "a toy image" });
      return [before, contrastPhrase("toy"), contrastPhrase("other")];
    """
    assert page.module(script) == ["toy", "a toy image", "other"]


def test_a_shell_reads_quoted_text_back(page: Browser) -> None:
    script = 'const { quote } = await import("/page/curl.js"); return quote(args[0])'
    assert page.module(script, 'it\'s $HOME `x` "y"\n\\') == "'it'\\''s $HOME `x` \"y\"\n\\'"
