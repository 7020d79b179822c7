"""The benchmark of weighted training measures what it says: noise, judge, weights, choices and figures."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks import training_gain
from benchmarks.gain import choice, cost, noisy, plots, references, results, tables
from benchmarks.gain.cells import FINE_TUNED, SCRATCH, SPLITS, TEST, VALIDATION, Cell
from benchmarks.gain.learning import LABELS, Lesson, cal_in_the_step, new_student, train
from benchmarks.gain.measures import judge
from benchmarks.gain.methods import GROUNDED, IN_STEP, ORACLE, UNIFORM, USUAL, Weighting
from benchmarks.gain.references import SELF
from benchmarks.gain.results import FIGURES, Interval, Results
from benchmarks.gain.running import Progress
from benchmarks.gain.student import UNKNOWN, id_of, student_tokenizer, train_tokenizer
from benchmarks.gain.workshop import Need, Settings, Workshop
from scorer.mini import MODEL_PATH
from scorer.mini.language.caption_writer import CONTRADICTORY, FILLER, VISUAL
from scorer.results import TokenScores
from scorer.training import read_weights
from scorer.training.text_reference import text_logprobs
from scorer.types import Float32Array
from scorer.weights import cal, grounded, prior, vig

CLEAN = noisy.clean("test", 300)
SPOILT = noisy.noisy("test", 300, 0.4)
NOISE, ROWS = 0.4, 24
SETTINGS = Settings(
    rows=ROWS,
    steps=2,
    fine_steps=1,
    pretraining_steps=1,
    early_steps=1,
    batch=8,
    held_out=4,
    text_epochs=1,
    threads=1,
)
FULL = training_gain.FULL


def labels(example: noisy.Example) -> list[str]:
    return [span.label for span in example.caption.spans]


def cell(method: str, **others: Any) -> Cell:
    k, floor = (4.0, 0.0) if method == GROUNDED else (None, None)
    return replace(Cell(TEST, SCRATCH, FULL, NOISE, method, k, floor, choice.usual_rate(SCRATCH), 0), **others)


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
    for word in (*noisy.OTHER_WORLD.colours, *noisy.OTHER_WORLD.shapes):
        assert judge(f"a {word}", CLEAN[0].scene) == (False, True), "a word of the world before is false here"


def test_the_worlds_share_no_colour_or_shape() -> None:
    for kind in ("colours", "shapes"):
        assert not set(getattr(noisy.WORLD, kind)) & set(getattr(noisy.OTHER_WORLD, kind))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gain")


@pytest.fixture(scope="module")
def workshop(folder: Path) -> Workshop:
    """24 spoilt captions, scored by the packaged model and by a language model that was trained on them."""
    made = Workshop(SETTINGS, folder, {FULL: MODEL_PATH})
    for need in dict.fromkeys(need for method in ("CAL", "PRIOR") for need in made.needs(cell(method))):
        made.make(need)
    return made


@pytest.fixture(scope="module")
def lesson(workshop: Workshop) -> Lesson:
    return workshop.lesson(TEST, NOISE)


def test_the_same_captions_give_the_same_tokens() -> None:
    """Else a student would begin elsewhere wherever a broken-off run goes on."""
    captions = [one.caption.text for one in SPOILT]
    first, second = (train_tokenizer(captions).get_vocab() for _ in range(2))
    assert first == second
    assert "▁triangle" in first


def test_the_students_tokenizer_knows_all_that_is_written() -> None:
    tokenizer = student_tokenizer()
    unknown = id_of(tokenizer, UNKNOWN)
    for one in (*CLEAN, *SPOILT, *noisy.clean("test", 300, noisy.OTHER_WORLD)):
        assert unknown not in tokenizer.encode(one.caption.text).ids, one.caption.text


def plain_weights(workshop: Workshop, method: str) -> Iterator[Float32Array]:
    """Yield each caption's weights by its method's formula, on the reference model's tokens."""
    found = [row.scores for row in read_weights(workshop.score(TEST, NOISE, FULL))]
    rows = [scores for scores in found if scores is not None]
    assert len(rows) == ROWS
    gains = [float(np.mean(row.logprob_clean.astype(float) - row.logprob_contrast)) for row in rows]
    threshold, _ = read_weights(workshop.score(TEST, NOISE, FULL)).gaps().rows.top(0.7)
    assert threshold == pytest.approx(sorted(gains, reverse=True)[math.ceil(0.7 * ROWS) - 1], rel=0.016)
    texts = [row.scores for row in read_weights(workshop.score_text(TEST, NOISE))]
    for row, text in zip(rows, texts, strict=True):
        assert text is not None
        with_text = replace(row, optional={**row.optional, "logprob_text": text_logprobs(text, row)})
        yield {
            "CAL": lambda row=row: cal(row, edges="paper"),
            "PRIOR": lambda row=with_text: prior(row),
            "VIG": lambda row=row: vig(row, threshold=threshold),
            GROUNDED: lambda row=row: np.maximum(grounded(row, k=8.0), np.float32(0.2)),
        }[method]()


@pytest.mark.parametrize("method", ["CAL", "PRIOR", "VIG", GROUNDED])
def test_students_train_with_the_published_weights(workshop: Workshop, lesson: Lesson, method: str) -> None:
    """By the formula, carried over byte by byte, divided by the dataset's mean; an end weighs 1."""
    weighting = Weighting(method, 8.0, 0.2) if method == GROUNDED else Weighting(method)
    found = lesson.weights(workshop.scores(TEST, NOISE, FULL, None), weighting).numpy()
    expected = []
    rows = workshop.scores(TEST, NOISE, FULL, None).rows()
    for row, tokens, weights in zip(rows, lesson.tokens, plain_weights(workshop, method), strict=True):
        per_byte = np.repeat(weights, row.token_ends - row.token_starts)
        expected.append([per_byte[start:end].mean() for start, end in zip(tokens.starts, tokens.ends, strict=True)])
    mean = np.mean(np.concatenate(expected))
    assert mean > 0
    for index, row_expected in enumerate(expected):
        n = len(row_expected)
        np.testing.assert_allclose(found[index, :n], np.array(row_expected) / mean, rtol=1e-4, atol=1e-6)
        assert found[index, n] == 1 and not found[index, n + 1 :].any()


def test_every_method_has_mean_one_over_the_dataset(workshop: Workshop, lesson: Lesson) -> None:
    means = {}
    for method in USUAL:
        weights = workshop.weights(cell(method))
        assert weights is not None
        words = torch.cat([row[: n - 1] for row, n in zip(weights, lesson.lengths.tolist(), strict=True)])
        assert float(words.mean()) == pytest.approx(1, rel=1e-5), method
        means[method] = lesson.means(weights)
        assert set(means[method]) == set(LABELS)
    assert means["CAL"][VISUAL] > means["CAL"][FILLER]
    assert means[ORACLE][CONTRADICTORY] == means[ORACLE][noisy.GENERIC] == 0 < means[ORACLE][VISUAL]


def test_weights_of_nothing_are_refused(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = [np.zeros(len(one.starts), np.float32) for one in lesson.tokens]
    monkeypatch.setattr(Lesson, "word_weights", lambda *arguments: nothing)
    with pytest.raises(ValueError, match="nothing can be learned"):
        lesson.weights(None, Weighting(UNIFORM))


def test_weights_are_derived_once_and_equal_those_derived_again(
    workshop: Workshop, lesson: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Workshop(SETTINGS, workshop.folder, workshop.models)
    calls = []
    derive = Lesson.weights

    def counted(self: Lesson, *arguments: Any) -> torch.Tensor:
        calls.append(arguments)
        return derive(self, *arguments)

    monkeypatch.setattr(Lesson, "weights", counted)
    kept = [mine.weights(cell("VIG", seed=seed, rate=rate)) for seed, rate in ((0, 1e-3), (1, 2e-3), (0, 1e-3))]
    assert len(calls) == 1
    again = derive(lesson, workshop.scores(TEST, NOISE, FULL, None), Weighting("VIG"))
    for found in kept:
        assert found is not None and torch.equal(found, again)
    four, eight = (mine.weights(cell(GROUNDED, k=k)) for k in (4.0, 8.0))
    assert four is not None and eight is not None and not torch.equal(four, eight)


def test_the_step_that_makes_its_own_weights_follows_the_formula(lesson: Lesson) -> None:
    student = new_student(0)
    student.head.weight.data *= 20  # gaps beyond both bounds
    images, ids, targets, _ = lesson.batch([0, 1, 2], torch.ones(lesson.ids.shape))
    with torch.no_grad():
        logits = student(images, ids[:, :-1])
        blank = student(torch.full_like(images, 128), ids[:, :-1])
    found = cal_in_the_step(student, images, ids[:, :-1], targets, logits)
    for b in range(3):
        n = int((targets[b] >= 0).sum())
        at = targets[b, :n, None]
        gap = (logits[b, :n].gather(-1, at) - blank[b, :n].gather(-1, at))[:, 0].numpy()
        assert gap.min() < 1 < 5 < gap.max() or n < 5
        scores = SimpleNamespace(logit_gap=gap, token_turns=np.zeros(n, dtype=np.int16))
        np.testing.assert_allclose(found[b, :n], cal(scores), rtol=1e-4)  # type: ignore[arg-type]  # all that it reads
        assert not found[b, n:].any()


def test_a_student_scores_captions_as_a_reference_would(lesson: Lesson) -> None:
    student = new_student(0)
    student.head.weight.data *= 20
    texts = [one.caption.text for one in lesson.examples]
    found = references.score(student, lesson.images, lesson.tokens, texts, batch=5).rows()
    assert len(found) == ROWS
    for index in (0, 7, ROWS - 1):
        ids = torch.tensor([lesson.tokens[index].ids])
        image = lesson.images[index : index + 1]
        with torch.no_grad():
            clean, grey = (student(x, ids[:, :-1])[0] for x in (image, torch.full_like(image, 128)))
        at = ids[0][:, None]
        one = found[index]
        for column, expected in (
            (one.logit_gap, clean.gather(-1, at) - grey.gather(-1, at)),
            (one.logprob_clean, clean.log_softmax(-1).gather(-1, at)),
            (one.logprob_contrast, grey.log_softmax(-1).gather(-1, at)),
        ):
            np.testing.assert_allclose(column, expected[:, 0], rtol=1e-3, atol=1e-3)
        assert np.abs(one.logit_gap).max() > 0.1
        assert one.is_stop.tolist() == [False] * (len(one.token_ids) - 1) + [True]
    weights = lesson.weights(references.Own(found), Weighting("VIG"))
    assert 0 < float((weights > 0).float().mean()) < 1
    derived = [grounded(one)[:-1] for one in found]
    mean = np.concatenate(derived).mean()
    np.testing.assert_allclose(
        lesson.weights(references.Own(found), Weighting(GROUNDED, 4.0, 0.0))[0, : len(derived[0])],
        derived[0] / mean,
        rtol=1e-4,
    )


def test_a_reference_that_knows_the_truth_has_an_auroc_of_one(lesson: Lesson) -> None:
    def scored(value: dict[str, float]) -> references.Own:
        rows = []
        for tokens, row in zip(lesson.tokens, lesson.labels, strict=True):
            n = len(row)
            gaps = np.array([value[label or FILLER] for label in row], np.float32)
            columns = {"token_ids": np.zeros(n, np.int32), "token_turns": np.zeros(n, np.int16)}
            spans = {"token_starts": tokens.starts, "token_ends": tokens.ends}
            zeros = np.zeros(n, np.float32)
            own = {"logit_gap": gaps, "logprob_clean": gaps, "logprob_contrast": zeros}
            rows.append(TokenScores(sample_id="", text_hash="", **columns, **spans, **own))
        return references.Own(rows)

    right = {VISUAL: 2.0, noisy.GENERIC: 1.0, FILLER: 0.0, CONTRADICTORY: -2.0}
    assert lesson.aurocs(scored(right)) == {"visual / filler": 1, "true / contradictory": 1}
    wrong = {**right, VISUAL: -1.0, CONTRADICTORY: -1.0}
    assert lesson.aurocs(scored(wrong)) == {"visual / filler": 0, "true / contradictory": 0.5}


def test_intervals_are_student_s() -> None:
    rng = np.random.default_rng(0)
    for count in (2, 5, 10, 21):
        values = rng.random(count).tolist()
        found = Interval.of(values)
        low, high = stats.t.interval(0.95, count - 1, loc=np.mean(values), scale=stats.sem(values))
        assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high), rel=5e-3)
        assert found.count == count
    assert Interval.of([0.5]) == Interval(0.5, math.inf, 1)
    many = rng.random(60).tolist()
    low, high = stats.t.interval(0.95, 59, loc=np.mean(many), scale=stats.sem(many))
    assert Interval.of(many).half == pytest.approx((high - low) / 2, rel=0.06)
    assert Interval.of(many).half > (high - low) / 2, "beyond the table, wider and never narrower"


def test_the_table_of_student_s_t_is_scipy_s() -> None:
    for freedom, found in enumerate(results._T, 1):
        assert found == pytest.approx(stats.t.ppf(0.975, freedom), abs=6e-4)


def document(found: dict[Cell, float], **others: Any) -> dict[str, Any]:
    """Return a file of results in which every figure of a cell is the one given."""
    stored = {one.name: {**asdict(one), **dict.fromkeys(FIGURES, value)} for one, value in found.items()}
    return {"cells": stored, **others}


def test_a_difference_is_that_of_the_same_students() -> None:
    """As a paired t test has it; the same figures with their students shuffled have another interval."""
    rng = np.random.default_rng(0)
    students = rng.random(10)
    ours, theirs = students + 0.1 + 0.01 * rng.random(10), students
    found = document(
        {
            cell(method, seed=seed): values[seed]
            for method, values in ((GROUNDED, ours), ("CAL", theirs))
            for seed in range(10)
        }
        | {cell(GROUNDED, seed=10): 9.0}  # without a partner, it does not count
    )
    difference = Results.select(found, SCRATCH, FULL).difference(NOISE, GROUNDED, "CAL", "visual_accuracy")
    assert difference is not None and difference.count == 10
    low, high = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (difference.mean - difference.half, difference.mean + difference.half) == pytest.approx(
        (low, high), rel=1e-3
    )
    unpaired = stats.ttest_ind(ours, theirs).confidence_interval(0.95)
    assert unpaired.high - unpaired.low > 5 * (high - low)
    assert Results.select(found, SCRATCH, FULL).difference(NOISE, GROUNDED, "VIG", "visual_accuracy") is None


def test_tables_read_the_chosen_hyper_parameters_alone() -> None:
    rate = choice.usual_rate(SCRATCH)
    found = {
        cell("CAL", rate=rate): 0.5,
        cell("CAL", rate=2 * rate): 0.6,
        cell(GROUNDED): 0.7,
        cell(GROUNDED, k=8.0): 0.8,
        cell("CAL", rate=2 * rate, split=VALIDATION): 0.9,
        cell("CAL", rate=2 * rate, start=FINE_TUNED): 0.91,
        cell("CAL", rate=2 * rate, reference="poor"): 0.92,
        cell("PRIOR"): 0.93,
    }
    chosen = {GROUNDED: {"k": 8.0, "floor": 0.0}, "rates": {SCRATCH: {"CAL": 2 * rate}}}

    def shown(reference: str, **others: Any) -> dict[str, float]:
        selected = Results.select(document(found, **others), SCRATCH, reference, FULL)
        return {method: ones["exact_match"] for (_, method, _), ones in selected.figures.items()}

    assert shown(FULL) == {"CAL": 0.5, GROUNDED: 0.7, "PRIOR": 0.93}
    assert shown(FULL, chosen=chosen) == {"CAL": 0.6, GROUNDED: 0.8, "PRIOR": 0.93}
    assert shown("poor", chosen=chosen) == {"CAL": 0.92, "PRIOR": 0.93}, "PRIOR reads no reference model"


WEIGHTINGS = choice.weightings(USUAL, {})
RATE_CELLS = choice.rate_cells(SCRATCH, FULL, WEIGHTINGS, (0.2,), 2)
GROUNDED_CELLS = choice.grounded_cells(FULL, (0.0, 0.2), 2)


def test_choices_never_see_what_tables_are_made_of() -> None:
    options = training_gain._parser().parse_args([])
    tested = set(range(SPLITS[TEST].first_student, SPLITS[TEST].first_student + options.seeds))
    for one in (*RATE_CELLS, *GROUNDED_CELLS):
        assert one.split == VALIDATION
        assert one.seed not in tested
    names = [name for split in SPLITS.values() for name in (split.training, split.held_out)]
    assert len(set(names)) == 4
    drawn = [[example.scene for example in noisy.clean(name, 200)] for name in names]
    for i, scenes in enumerate(drawn):
        for others in drawn[i + 1 :]:
            assert not [scene for scene in scenes if scene in others]
    best = {one: 0.5 + 0.1 * (one.rate == 4e-3) for one in RATE_CELLS}
    tempting = {replace(one, split=TEST, seed=one.seed - 1000): 0.99 * (one.rate == 1e-3) for one in RATE_CELLS}
    found = training_gain.of(document({**best, **tempting}))
    assert set(choice.choose_rates(found, RATE_CELLS).values()) == {4e-3}
    with pytest.raises(ValueError, match="never by this one"):
        choice.choose_rates(found, list(tempting))


def test_the_best_candidate_is_chosen_on_equal_terms() -> None:
    """By the mean over noise levels and students: what is best in one place only is not."""

    def value(one: Cell) -> float:
        """Of four values of k and, at the best, of two floors."""
        by_k = {1.0: 0.5, 2.0: 0.6, 4.0: 0.55, 8.0: 0.9 if one.noise == 0 else 0.1}
        return by_k[one.k or 0] + (one.floor or 0) / 10

    values = {one: value(one) for one in GROUNDED_CELLS}
    assert {one.floor for one in GROUNDED_CELLS} == {0.0}
    assert choice.choose_grounded(training_gain.of(document(values)), GROUNDED_CELLS) == {"k": 2.0, "floor": 0.0}
    floors = choice.grounded_cells(FULL, (0.0, 0.2), 2, k=2.0)
    values |= {one: value(one) for one in floors}
    assert choice.choose_grounded(training_gain.of(document(values)), floors) == {"k": 2.0, "floor": choice.FLOORS[1]}
    missing = dict(list(values.items())[1:])
    with pytest.raises(ValueError, match="is missing"):
        choice.choose_grounded(training_gain.of(document(missing)), GROUNDED_CELLS)
    with pytest.raises(ValueError, match="not compared on the same"):
        choice.choose_grounded(training_gain.of(document(values)), GROUNDED_CELLS[1:])
    by_method = {one: 0.5 + (one.rate == {"CAL": 1e-3, UNIFORM: 4e-3}.get(one.method, 2e-3)) / 10 for one in RATE_CELLS}
    rates = choice.choose_rates(training_gain.of(document(by_method)), RATE_CELLS)
    assert rates == {**dict.fromkeys(USUAL, 2e-3), "CAL": 1e-3, UNIFORM: 4e-3}


def test_a_fine_tuned_student_goes_on_from_its_pretraining(workshop: Workshop) -> None:
    before = {name: value.clone() for name, value in new_student(0).state_dict().items()}
    state = workshop.pretrained(0)
    assert all(torch.equal(state[name], again) for name, again in workshop.pretrained(0).items())
    assert not torch.equal(state["head.weight"], before["head.weight"])
    started = []
    fine_tune = cell(UNIFORM, start=FINE_TUNED)
    with pytest.MonkeyPatch.context() as patch:

        def noticed(student: Any, *arguments: Any, steps: int, **others: Any) -> Any:
            started.append(({n: v.clone() for n, v in student.state_dict().items()}, steps))
            return train(student, *arguments, steps=steps, **others)

        patch.setattr("benchmarks.gain.workshop.train", noticed)
        workshop.examine(fine_tune)
        workshop.examine(cell(UNIFORM))
    (fine, fine_steps), (scratch, steps) = started
    assert all(torch.equal(fine[name], state[name]) for name in state)
    assert all(torch.equal(scratch[name], before[name]) for name in before)
    assert (fine_steps, steps) == (SETTINGS.fine_steps, SETTINGS.steps)


def test_an_early_state_is_one_on_the_way(workshop: Workshop, lesson: Lesson) -> None:
    """The schedule is the whole training's, so that it is the state that the student itself goes through."""
    weights = lesson.weights(None, Weighting(UNIFORM))
    options = {"seed": 3, "rate": choice.usual_rate(SCRATCH), "batch": SETTINGS.batch}
    on_the_way = train(new_student(3), lesson, weights, steps=2, stop_after=1, **options).state_dict()
    short = train(new_student(3), lesson, weights, steps=3, stop_after=1, **options).state_dict()
    found = workshop.early(TEST, NOISE, 3)
    assert all(torch.equal(found[name], value) for name, value in on_the_way.items())
    assert not all(torch.equal(found[name], value) for name, value in short.items())


def test_a_training_needs_what_its_method_reads(workshop: Workshop) -> None:
    scores, text = Need("score", (TEST, NOISE, FULL)), Need("score_text", (TEST, NOISE))
    assert workshop.needs(cell(UNIFORM)) == workshop.needs(cell(ORACLE)) == workshop.needs(cell(IN_STEP)) == []
    assert workshop.needs(cell("CAL")) == [scores]
    assert workshop.needs(cell("PRIOR")) == [scores, text]
    assert workshop.needs(cell("CAL", start=FINE_TUNED)) == [scores, Need("pretrained", (0,))]
    assert workshop.needs(cell("CAL", reference=SELF, seed=5)) == [Need("early", (TEST, NOISE, 5))]
    assert [choice.worth_training(ORACLE, noise) for noise in (0.0, 0.2)] == [False, True]


def test_the_time_left_counts_steps() -> None:
    """A fine-tuning of half the steps counts half."""
    every = [cell("CAL"), cell("VIG"), cell("CAL", start=FINE_TUNED), cell("VIG", start=FINE_TUNED)]
    progress = Progress(every, replace(SETTINGS, steps=400, fine_steps=200), jobs=2)
    figures = {**dict.fromkeys(FIGURES, 0.5), "seconds": 600.0}
    assert progress.line(every[0], figures).endswith("about 10 min left")
    assert progress.line(every[2], {**figures, "seconds": 300.0}).startswith("[2/4] ")
    assert "about 1 min left" not in progress.line(every[1], figures)


def test_a_plan_counts_shared_trainings_once(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gain.json"
    digest = references.digest(MODEL_PATH)
    known = {
        "settings": asdict(SETTINGS),
        "references": {FULL: {"weights_sha256": digest}},
        **document({cell(UNIFORM): 0.5, cell(UNIFORM, start=FINE_TUNED, rate=choice.usual_rate(FINE_TUNED)): 0.5}),
    }
    for one in known["cells"].values():
        one["process_seconds"] = 180.0 * (1 if one["start"] == SCRATCH else 0.5)
    out.write_text(json.dumps(known))
    some = ("--methods", UNIFORM, "VIG", "--reference-noise", str(NOISE), "--choice-seeds", "1")
    run(folder, out, "--only", "plan", *some)
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows == [
        ["choice of rates, scratch", "6", "6", "12", "18 min"],
        ["choice of rates, fine-tuned", "6", "6", "6", "9 min"],
        [SCRATCH, "2", "1", "2", "3 min"],
        [FINE_TUNED, "2", "1", "1", "2 min"],
        ["references", "15", "13", "26", "39 min"],
        ["all", "| 27", "47", "1 h 10 min"],
    ]


def run(folder: Path, out: Path, *more: str) -> dict[str, Any]:
    """Run a small benchmark in one process, and return the file of results."""
    small = [word for name, value in asdict(SETTINGS).items() for word in (f"--{name.replace('_', '-')}", str(value))]
    small += ["--noises", str(NOISE), "--folder", str(folder), "--out", str(out), "--plots", str(out.parent)]
    training_gain.main([*small, "--seeds", "1", "--jobs", "1", *more])
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def without_seconds(found: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {key: value for key, value in one.items() if "seconds" not in key} for name, one in found["cells"].items()
    }


@pytest.mark.timeout(900)  # 20 seconds of one CPU, of which a busy machine may give little
def test_neither_an_interruption_nor_processes_change_a_figure(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = ("--only", "trainings", "finetuning", "--methods", "CAL", "oracle")
    whole = without_seconds(run(workshop.folder, tmp_path / "whole.json", *some))
    assert len(whole) == 4
    broken = tmp_path / "broken.json"
    examine, calls = Workshop.examine, []

    def interrupted(self: Workshop, one: Cell) -> dict[str, float]:
        calls.append(one)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return examine(self, one)

    with monkeypatch.context() as patch:
        patch.setattr(Workshop, "examine", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(workshop.folder, broken, *some)
    assert len(json.loads(broken.read_text())["cells"]) == 1
    torch.manual_seed(1234)  # whatever this process has drawn since
    assert without_seconds(run(workshop.folder, broken, *some)) == whole
    in_two = without_seconds(run(workshop.folder, tmp_path / "two.json", *some, "--only", "trainings", "--jobs", "2"))
    assert len(in_two) == 2 and in_two.items() <= whole.items()
    assert len({one["visual_nats"] for one in whole.values()}) == 4, "students differ, or nothing was compared"


@pytest.mark.timeout(900)  # 20 seconds of one CPU, of which a busy machine may give little
def test_all_parts_run_one_after_the_other(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "gain.json"
    few = ("--methods", UNIFORM, "VIG", GROUNDED, "--choice-seeds", "1", "--choice-noises", str(NOISE))
    few += ("--rate-noises", str(NOISE), "--reference-noise", str(NOISE), "--reference-seeds", "1")
    few += ("--references", f"twin={MODEL_PATH}")
    monkeypatch.setattr(choice, "KS", (2.0, 4.0))
    parts = [part for part in training_gain.PARTS if part != "cost"]
    found = run(workshop.folder, out, *few, "--only", *parts)
    assert set(found["chosen"]["rates"]) == {SCRATCH, FINE_TUNED}
    assert found["chosen"][GROUNDED]["k"] in choice.KS
    assert found["references"]["twin"]["aurocs"] == found["references"][FULL]["aurocs"]
    assert found["references"][FULL]["aurocs"]["visual / filler"] > 0.8
    assert set(found["references"][SELF]["aurocs"]) == {"visual / filler", "true / contradictory"}
    assert "weights_sha256" not in found["references"][SELF]
    twins = {name.replace("twin", FULL): one["visual_nats"] for name, one in found["cells"].items() if "twin" in name}
    assert len(twins) == 2
    assert all(found["cells"][name]["visual_nats"] == nats for name, nats in twins.items())
    seen = {one["visual_nats"] for one in found["cells"].values() if one["reference"] == SELF}
    assert len(seen) == 2 and not seen & set(twins.values()), "the student's own weights are others"
    shown = capsys.readouterr().out
    for line in (
        "## Student: fine-tuned",
        "| 40% | VIG |",
        "Rates, scratch",
        "## References",
        "| self |",
    ):
        assert line in shown
    for plot in ("training_gain.png", "training_gain_references.png"):
        assert (tmp_path / plot).stat().st_size > 10_000
    assert str(tmp_path) not in out.read_text(), "a file of results names no folder of the machine"
    assert run(workshop.folder, out, *few, "--only", "trainings")["cells"] == found["cells"]


def test_the_cost_is_that_of_the_same_steps(workshop: Workshop, lesson: Lesson) -> None:
    found = cost.measure(lesson, workshop.scores(TEST, NOISE, FULL, None), 8, 1, steps=2)
    assert set(found) == {cost.NONE, cost.READ, cost.IN_STEP}
    assert found[cost.NONE]["ratio"] == 1 and found[cost.IN_STEP]["milliseconds_per_step"] > 0
    assert "| a training step with |" in cost.table(found)
    read = cost.Batches(lesson, workshop.scores(TEST, NOISE, FULL, None).rows(), list(range(8)), 8)[0][3]
    kept = lesson.weights(workshop.scores(TEST, NOISE, FULL, None), Weighting("CAL"))[:8, : read.shape[1]]
    for given, normalised, n in zip(read, kept, lesson.lengths.tolist(), strict=False):
        words = given[: n - 1] / normalised[: n - 1]  # the loader's weights are the method's own
        torch.testing.assert_close(words, words[:1].expand_as(words))
        assert given[n - 1] == 1


def test_results_of_other_settings_or_models_are_refused(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gain.json"
    some = ("--only", "trainings", "--methods", UNIFORM)
    found = run(workshop.folder, out, *some)
    with pytest.raises(SystemExit):
        run(workshop.folder, out, *some, "--held-out", "5")
    assert "give another --out" in capsys.readouterr().err
    found["references"][FULL]["weights_sha256"] = "0" * 64
    out.write_text(json.dumps(found))
    with pytest.raises(SystemExit):
        run(workshop.folder, out, *some)
    assert "with the weights 000000000000" in capsys.readouterr().err
    for wrong, message in (
        ("poor", "not NAME=DIR"),
        (f"full={MODEL_PATH}", "another reference"),
        ("a=/none", "NAME=DIR"),
    ):
        with pytest.raises(SystemExit):
            run(workshop.folder, out, *some, "--references", wrong)
        assert message in capsys.readouterr().err


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    found = document({cell("CAL", noise=0.0): 0.5, cell(UNIFORM, noise=0.2): 0.5})
    selected = Results.select(found, SCRATCH, FULL)
    assert tables.figures(selected).splitlines()[2:] == [
        "| 0% | CAL | 50.0 | 50.0 | 50.0 | 0.002 | 1 |",
        "| 20% | uniform | 50.0 | 50.0 | 50.0 | 0.002 | 1 |",
    ]
    assert tables.differences(selected).splitlines()[2:] == []
    plots.against_noise(found, FULL, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
