"""A text reference learns what is scored, continues after it was killed, and scores as it was trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertLMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
)

from scorer import Sample, TokenScores
from scorer.errors import ConfigError, FailureCode, MissingPackageError, ModelError
from scorer.results import Failure
from scorer.text_reference import texts, train
from scorer.text_reference.recipe import Recipe
from scorer.text_reference.start import BEGIN, END
from scorer.text_reference.texts import split
from scorer.types import Turn
from tests.scorer import tiny
from tests.scorer.scoring import load

COLOURS = ("red", "blue", "très 🪁 naïve", "green")
NOUNS = ("kite", "boat", "square", "circle", "tree")
ROWS = [
    Sample.caption(f"{i}", b"", f"A {COLOURS[i % 4]} {NOUNS[i % 5]} over {i} boats.", prompt="What?") for i in range(20)
]
TINY = Recipe(
    vocab_size=300, hidden=64, layers=1, context=128, epochs=3, batch_size=5, held_out=0.2, learning_rate=3e-3
)
DATASET = {"prompt": "What?", "shards": [{"name": "a"}]}


def trained(output: Path, recipe: Recipe = TINY, rows: Any = ROWS, **options: Any) -> dict[str, Any]:
    return train.train(lambda: rows, output, recipe, **{"dataset": DATASET, **options})


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("lm") / "out"
    trained(output)
    return output


def test_the_record_says_what_was_trained(reference: Path) -> None:
    record = json.loads((reference / "text_reference.json").read_text())
    assert record["recipe"] == TINY.to_dict()
    assert record["dataset"] == DATASET
    rows = record["rows"]
    assert rows["trained_on"] + rows["held_out"] == 20 and rows["held_out"] >= 1 and rows["failed"] == 0
    assert not (reference / "_training").exists()
    model = AutoModelForCausalLM.from_pretrained(reference)
    assert record["parameters"] == sum(parameter.numel() for parameter in model.parameters())


def test_the_perplexity_is_that_of_the_saved_model_and_better_than_none(reference: Path) -> None:
    """By hand, a row at a time; the control: a model of the same shape that was not trained."""
    _, held_out = split(ROWS, TINY.held_out, TINY.seed)
    tokenizer = AutoTokenizer.from_pretrained(reference)

    def perplexity(model: Any) -> float:
        nats = []
        for sample in held_out:
            before = tokenizer(f"{BEGIN}What?\n", add_special_tokens=False)["input_ids"]
            own = tokenizer(f"{sample.scored_texts[0]}{END}", add_special_tokens=False)["input_ids"]
            with torch.inference_mode():
                logprobs = model(torch.tensor([[*before, *own]])).logits[0].log_softmax(-1)
            nats += [-float(logprobs[len(before) - 1 + i, token]) for i, token in enumerate(own)]
        return float(np.exp(np.mean(nats)))

    figures = json.loads((reference / "text_reference.json").read_text())["held_out"]
    model = AutoModelForCausalLM.from_pretrained(reference)
    assert figures["perplexity"] == pytest.approx(perplexity(model), rel=1e-4)
    assert figures["bytes"] == sum(len(sample.scored_texts[0].encode()) for sample in held_out)
    nats = np.log(figures["perplexity"]) * figures["tokens"]
    assert figures["bits_per_byte"] == pytest.approx(nats / np.log(2) / figures["bytes"], rel=1e-6)
    torch.manual_seed(0)
    assert perplexity(LlamaForCausalLM(model.config).eval()) > 2 * figures["perplexity"]


def test_it_scores_its_texts_and_their_ends_without_images(reference: Path) -> None:
    scorer = load(reference, contrast="removed")
    sample = Sample("a", (), (Turn("user", ("What?",)), Turn("assistant", (" très 🪁 <|end|> kite\n",))))
    (result,) = scorer.score([sample])
    assert isinstance(result, TokenScores)
    assert result.is_stop.tolist() == [False] * (len(result.is_stop) - 1) + [True]
    text = sample.scored_texts[0].encode()
    assert result.token_starts[0] == 0 and result.token_ends[-2] == len(text)  # no white space is trimmed
    assert (result.token_starts[1:] == result.token_ends[:-1]).all()
    assert np.isfinite(result.logprob_contrast).all()


class Killed(BaseException):
    """What a signal does to a process: nothing gets to clean up."""


def test_a_run_that_was_killed_continues_to_the_same_model(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, said = Trainer._save_checkpoint, list[str]()

    def kill(self: Trainer, *arguments: Any, **options: Any) -> None:
        save(self, *arguments, **options)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_checkpoint", kill)
        with pytest.raises(Killed):
            trained(tmp_path / "out")
    with pytest.raises(ConfigError, match="layers was 1, is 2"):  # a checkpoint is not thrown away
        trained(tmp_path / "out", Recipe(**{**TINY.to_dict(), "layers": 2}))
    assert not (tmp_path / "out" / "text_reference.json").exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["_training"]
    damaged = tmp_path / "out" / "_training" / "checkpoint-999"  # killed while it was being written: no state
    damaged.mkdir()
    (damaged / "config.json").write_text("{")
    record = trained(tmp_path / "out", say=said.append)
    assert any(line.startswith("continuing from checkpoint-") and "999" not in line for line in said)
    assert record == json.loads((reference / "text_reference.json").read_text())
    weights = [(path / "model.safetensors").read_bytes() for path in (reference, tmp_path / "out")]
    assert weights[0] == weights[1]
    other = trained(tmp_path / "other", Recipe(**{**TINY.to_dict(), "seed": 1}))  # the control
    assert other["held_out"] != record["held_out"]


def test_a_run_that_was_killed_after_training_does_not_train_again(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*arguments: Any, **options: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(train, "evaluate", kill)
        with pytest.raises(Killed):
            trained(tmp_path / "out")
    monkeypatch.setattr(Trainer, "train", kill)
    assert trained(tmp_path / "out") == json.loads((reference / "text_reference.json").read_text())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(p.name for p in reference.iterdir())


def test_other_options_may_follow_an_attempt_that_trained_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 distinct texts"):
        trained(tmp_path / "out", rows=[])
    with pytest.raises(ConfigError, match="1 distinct texts"):
        trained(tmp_path / "out", Recipe(**{**TINY.to_dict(), "layers": 2}), ROWS[:1])


def test_what_is_trained_is_not_trained_again(reference: Path) -> None:
    def unread() -> Iterator[Sample]:
        raise AssertionError("the rows were read")

    said: list[str] = []
    record = train.train(unread, reference, TINY, DATASET, said.append)
    assert record["held_out"]["tokens"] > 0
    assert "already trained" in said[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recipe": Recipe(**{**TINY.to_dict(), "layers": 2})}, "layers was 1, is 2"),
        ({"dataset": {**DATASET, "shards": []}}, r"shards was \[\{'name': 'a'\}\], is \[\]"),
        ({"dataset": {**DATASET, "prompt": "Why?"}}, "prompt was 'What\\?', is 'Why\\?'"),
    ],
    ids=["recipe", "dataset", "prompt"],
)
def test_other_options_are_refused(reference: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"holds a training with other options: {said}; give the same ones"):
        trained(reference, **change)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds 1 files or folders that do not belong .*notes\.txt.*empty folder"):
        trained(tmp_path)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError, match=r"file cannot be written \(.*\); give another folder"):
        trained(file)


BAD = Failure("b", FailureCode.TEXT_MISSING, "the text is null")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "has 0 distinct texts in 0 readable rows; at least 2 are needed"),
        ([BAD], "has 0 distinct texts in 0 readable rows; .* 1 rows cannot be read or encoded; the first: b: the text"),
        (ROWS[:1] * 3, "has 1 distinct texts in 3 readable rows"),
        (
            [Sample.caption("a", b"", " "), Sample.caption("b", b"", "\n")],
            "has 0 distinct texts in 2 readable rows",
        ),
        (
            [Sample.caption("a", b"", " kite" * 250_000), Sample.caption("b", b"", " boat" * 250_000)],
            r"0 rows can be trained on and 0 are held out, .*; 2 rows cannot be read or encoded; the first: .*bytes",
        ),
    ],
    ids=["empty", "unreadable", "one", "white", "too long"],
)
def test_too_few_texts_are_refused(tmp_path: Path, rows: list[Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        trained(tmp_path / "out", rows=rows)


def test_rows_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    blank = Sample.caption("w", b"", " ")
    record = trained(tmp_path / "out", Recipe(**{**TINY.to_dict(), "epochs": 1}), [*ROWS, BAD, blank])
    assert record["rows"]["failed"] == 2


def test_equal_texts_are_on_one_side_of_the_split_and_order_does_not_matter() -> None:
    rows = [*ROWS, *ROWS[::-1]]
    first, held = split(rows, 0.3, 0)
    assert {s.scored_texts for s in first}.isdisjoint({s.scored_texts for s in held})
    assert len(first) + len(held) == 40 and len(held) % 2 == 0
    again, _ = split(rows[::-1], 0.3, 0)
    assert {s.scored_texts for s in again} == {s.scored_texts for s in first}
    other, _ = split(rows, 0.3, 1)
    assert {s.scored_texts for s in other} != {s.scored_texts for s in first}


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_each_side_of_the_split_has_a_row(share: float) -> None:
    first, held = split(ROWS, share, 0)
    assert min(len(first), len(held)) == 1


@pytest.mark.parametrize("seed", range(8))
def test_a_text_that_cannot_be_scored_is_not_the_one_that_is_held_out(seed: int) -> None:
    blank = [Sample.caption(str(i), b"", " " * i) for i in range(20)]
    first, held = split([*blank, *ROWS[:2]], 1e-9, seed)
    assert [sample.scored_texts[0].strip() != "" for sample in held] == [True]
    assert len(first) == 21


def test_only_the_answers_are_labels_in_a_padded_batch(reference: Path) -> None:
    encoder = load(reference, contrast="removed").encoder
    turns = (Turn("user", ("Q",)), Turn("assistant", ("yes",)), Turn("user", ("R",)), Turn("assistant", ("no, no",)))
    examples, failures = texts.encode([Sample("a", (), turns), ROWS[0]], encoder)
    assert not failures
    batch = train.collate(examples)
    tokenizer = AutoTokenizer.from_pretrained(reference)
    for row, expected in enumerate((f"yes{END}no, no{END}", f"{ROWS[0].scored_texts[0]}{END}")):
        labels = batch["labels"][row]
        assert tokenizer.decode(labels[labels != -100], clean_up_tokenization_spaces=False) == expected
        scored = labels != -100
        assert torch.equal(labels[scored], batch["input_ids"][row][scored])
        assert int(batch["attention_mask"][row].sum()) == len(examples[row].ids)
        assert not scored[len(examples[row].ids) :].any()
    assert examples[0].scored_bytes == 9


def test_a_base_is_trained_further_with_its_own_template(reference: Path, tmp_path: Path) -> None:
    tokenizer = tiny.byte_level_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}<|im_end|>{% endfor %}"
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), intermediate_size=32, **shape)).save_pretrained(
        tmp_path / "base"
    )
    tokenizer.save_pretrained(tmp_path / "base")
    record = trained(tmp_path / "out", Recipe(base=str(tmp_path / "base"), epochs=1, held_out=0.2))
    assert record["recipe"]["base"] == str(tmp_path / "base")
    before, after = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("base", "out"))
    assert not torch.equal(before.get_input_embeddings().weight, after.get_input_embeddings().weight)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == tokenizer.chat_template


def test_a_tokenizer_of_ones_own_gets_the_template(tmp_path: Path) -> None:
    tokenizer = tiny.sentencepiece_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    trained(tmp_path / "out", Recipe(**{**TINY.to_dict(), "epochs": 1, "tokenizer": str(tmp_path / "tokenizer")}))
    (result,) = load(tmp_path / "out", contrast="removed").score([Sample.caption("a", b"", "A red kite.")])
    assert isinstance(result, TokenScores)
    assert result.is_stop[-1] and np.isfinite(result.logprob_contrast).all()


def test_a_base_that_is_no_causal_language_model_is_refused(tmp_path: Path) -> None:
    tiny.make_llava(tmp_path / "vlm", tiny.byte_level_tokenizer(), tiny.CHATML)
    with pytest.raises(ConfigError, match=r"vlm' has type 'llava', which takes images; give a causal language model"):
        trained(tmp_path / "1", Recipe(base=str(tmp_path / "vlm")))
    with pytest.raises(ModelError, match=r"config\.json"):
        trained(tmp_path / "2", Recipe(base=str(tmp_path)))
    tokenizer = tiny.byte_level_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path / "endless")
    with pytest.raises(ConfigError, match=r"endless' has no EOS"):
        trained(tmp_path / "3", Recipe(tokenizer=str(tmp_path / "endless")))
    with pytest.raises(ConfigError, match=r"the tokenizer '.*nowhere' cannot be loaded"):
        trained(tmp_path / "4", Recipe(tokenizer=str(tmp_path / "nowhere")))


def test_a_base_that_sees_later_tokens_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    """It would learn to copy the text, at a perplexity of 1."""
    tokenizer = tiny.byte_level_tokenizer()
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(tokenizer), initializer_range=0.5, **shape)
    BertLMHeadModel(config).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    with pytest.raises(ConfigError, match=r"bert' has type 'bert' and also uses later tokens"):
        trained(tmp_path / "out", Recipe(base=str(tmp_path / "bert")))


def test_a_base_with_the_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=100, intermediate_size=32, **shape)).save_pretrained(tmp_path / "base")
    tiny.byte_level_tokenizer().save_pretrained(tmp_path / "base")
    with pytest.raises(ConfigError, match=r"base' has embeddings for 100 tokens, but its tokenizer .* the id \d+;"):
        trained(tmp_path / "out", Recipe(base=str(tmp_path / "base")))


def test_training_that_diverges_ends_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training diverged: .* at a learning rate of 1e\+30; lower --learning-rate"):
        trained(tmp_path, Recipe(**{**TINY.to_dict(), "learning_rate": 1e30}))
    assert not (tmp_path / "text_reference.json").exists()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("vocab_size", 10, "--vocab-size is 10; it must be a whole number of at least 300"),
        ("hidden", 100, "--hidden is 100; it must be a multiple of 64"),
        ("layers", True, "--layers is True; it must be a whole number of at least 1"),
        ("held_out", 1.0, "--held-out is 1.0; it must be a share between 0 and 1"),
        ("learning_rate", float("nan"), "--learning-rate is nan; it must be a positive number"),
        ("tokenizer", "x", "--tokenizer 'x' is given with --base 'y', which has one of its own; leave one out"),
    ],
)
def test_options_are_checked(option: str, value: Any, said: str) -> None:
    base = {"base": "y"} if option == "tokenizer" else {}
    with pytest.raises(ConfigError) as caught:
        Recipe(**{option: value}, **base)
    assert str(caught.value) == said


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scorer.extras._is_installed", lambda module: module != "accelerate")
    with pytest.raises(MissingPackageError, match=r"pip install 'tokensight\[text-reference\]'"):
        trained(tmp_path / "out")
    assert not (tmp_path / "out").exists()
