"""The benchmark of weighted training measures what it says: its noise, its judge, its weights, its intervals."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks import training_gain
from benchmarks.gain import noisy, summary
from benchmarks.gain.cost import cal_in_the_step
from benchmarks.gain.learning import LABELS, METHODS, Lesson
from benchmarks.gain.measures import judge
from benchmarks.gain.student import Student, train_tokenizer
from scorer.mini.language.caption_writer import CONTRADICTORY, FILLER, VISUAL
from scorer.weights import cal

CLEAN = noisy.clean("test", 300)
SPOILT = noisy.noisy("test", 300, 0.4)
NOISE, ROWS = 0.4, 24


def labels(example: noisy.Example) -> list[str]:
    return [span.label for span in example.caption.spans]


def test_noise_spoils_facts_and_leaves_the_scenes() -> None:
    assert (
        [one.scene for one in CLEAN]
        == [one.scene for one in SPOILT]
        == [one.scene for one in noisy.noisy("test", 300, 0.0)]
    )
    assert {label for one in CLEAN for label in labels(one)} == {VISUAL, FILLER}
    found = [label for one in SPOILT for label in labels(one) if label != FILLER]
    shares = {label: found.count(label) / len(found) for label in set(found)}
    assert 0.12 < shares[CONTRADICTORY] < 0.25
    assert 0.07 < shares[noisy.GENERIC] < 0.2, "a size and a place have no word that says nothing"


def test_spans_are_the_words_of_the_text_that_stands_there() -> None:
    for one in SPOILT:
        data = one.caption.text.encode()
        words = [data[span.start : span.end].decode() for span in one.caption.spans]
        assert "".join(words) == re.sub(r"\s", "", one.caption.text)
        generic = {word for word, span in zip(words, one.caption.spans, strict=True) if span.label == noisy.GENERIC}
        assert generic <= {"coloured", "plain", "thing", "things", "several"}
        assert not generic & set(re.findall(r"\w+", CLEAN[0].caption.text))


def test_a_true_caption_is_judged_right_and_a_false_one_is_not() -> None:
    for one in CLEAN:
        assert judge(one.caption.text, one.scene) == (True, False), one.caption.text
    for one in SPOILT:
        right, contradicts = judge(one.caption.text, one.scene)
        assert contradicts == (CONTRADICTORY in labels(one)), one.caption.text
        assert not (contradicts and right)
    assert judge("the picture is empty.", CLEAN[0].scene) == (False, False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gain")


@pytest.fixture(scope="module")
def lesson(folder: Path) -> Lesson:
    """24 spoilt captions, scored by the packaged model."""
    return Lesson.read(*training_gain.prepare(folder, NOISE, ROWS))


def test_the_same_captions_give_the_same_tokens() -> None:
    """Else a student would begin elsewhere wherever a broken-off run goes on."""
    captions = [one.caption.text for one in SPOILT]
    first, second = (train_tokenizer(captions).get_vocab() for _ in range(2))
    assert first == second
    assert "▁triangle" in first


def test_students_train_with_the_published_weights(lesson: Lesson) -> None:
    for index, (row, tokens) in enumerate(zip(lesson.rows, lesson.tokens, strict=True)):
        assert row.scores is not None
        data = lesson.examples[index].caption.text.encode()
        expected = []
        per_byte = np.repeat(cal(row.scores), row.scores.token_ends - row.scores.token_starts)
        for start, end in zip(tokens.starts, tokens.ends, strict=True):
            expected.append(per_byte[start:end].mean())
        assert len(per_byte) == len(data)
        np.testing.assert_allclose(lesson.weights("CAL", index), [*expected, 1.0], rtol=1e-5)
        spoilt = [label in (CONTRADICTORY, noisy.GENERIC) for label in lesson.labels[index]]
        np.testing.assert_array_equal(lesson.weights("oracle", index)[:-1] == 0, spoilt)
    means = lesson.weights_by_label()
    assert set(means) == set(METHODS) and set(means["CAL"]) == set(LABELS)
    assert means["CAL"][VISUAL] > means["CAL"][FILLER]


def test_the_step_that_makes_its_own_weights_follows_the_formula(lesson: Lesson) -> None:
    torch.manual_seed(0)
    student = Student(lesson.tokenizer.get_vocab_size())
    student.head.weight.data *= 20  # gaps beyond both bounds
    pictures, ids, targets, _ = lesson.batch([0, 1, 2], "CAL")
    with torch.no_grad():
        logits = student(pictures, ids[:, :-1])
        blank = student(torch.full_like(pictures, 128), ids[:, :-1])
    found = cal_in_the_step(student, pictures, ids[:, :-1], targets, logits)
    for b in range(3):
        n = int((targets[b] >= 0).sum())
        at = targets[b, :n, None]
        gap = (logits[b, :n].gather(-1, at) - blank[b, :n].gather(-1, at))[:, 0].numpy()
        assert gap.min() < 1 < 5 < gap.max() or n < 5
        scores = SimpleNamespace(logit_gap=gap, token_turns=np.zeros(n, dtype=np.int16))
        np.testing.assert_allclose(found[b, :n], cal(scores), rtol=1e-4)  # type: ignore[arg-type]  # all that it reads
        assert not found[b, n:].any()


def test_intervals_are_student_s() -> None:
    values = [0.61, 0.64, 0.6, 0.66, 0.59]
    mean, half = summary.interval(values)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-3)
    assert summary.interval([0.5]) == (0.5, math.inf)


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    figures = dict.fromkeys(summary.FIGURES, 0.5)
    cells = {
        "a": {"noise": 0.0, "method": "CAL", "seed": 0, **figures},
        "b": {"noise": 0.2, "method": "uniform", "seed": 0, **figures},
    }
    assert summary.table(cells).splitlines()[2:] == [
        "| 0% | CAL | 50.0 | 50.0 | 50.0 | 1 |",
        "| 20% | uniform | 50.0 | 50.0 | 50.0 | 1 |",
    ]
    summary.plot(cells, tmp_path / "plot.png")


def test_a_run_goes_on_where_it_stopped(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*more: str) -> dict[str, object]:
        out = tmp_path / "gain.json"
        small = ["--rows", str(ROWS), "--batch", "8", "--noises", str(NOISE), "--folder", str(folder)]
        small += ["--held-out", "4", "--jobs", "1", "--only", "trainings", "summary"]
        training_gain.main([*small, "--out", str(out), "--plot", str(tmp_path / "plot.png"), "--seeds", "1", *more])
        cells: dict[str, object] = json.loads(out.read_text())["cells"]
        return cells

    assert list(run("--steps", "1", "--methods", "CAL")) == ["noise 0.4, CAL, seed 0"]
    first = run("--steps", "1")
    assert len(first) == len(METHODS)
    assert "| 40% | CAL |" in capsys.readouterr().out
    assert run("--steps", "1", "--seeds", "2").items() > first.items()
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    with pytest.raises(SystemExit):
        run("--steps", "2")
    assert "give another --out" in capsys.readouterr().err
