"""A checkpoint with a damaged file is refused by that file's name, before anything is scored."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from scorer import Sample, Scorer
from scorer.checkpoint.fingerprint import fingerprint
from scorer.checkpoint.intact import _OBJECTS, check_weights
from scorer.config import ScorerConfig
from scorer.errors import ModelError
from scorer.mini import MODEL_PATH
from scorer.results import Failure
from tests.scorer.scoring import picture

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = "model-00001-of-00002.safetensors"

Damage = Callable[[Path], object]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL_PATH, tmp_path / "model"))


def refused(model: Path) -> str:
    """The message with which the model is refused: by whoever loads it, and before that by its fingerprint."""
    with pytest.raises(ModelError) as first:
        fingerprint(model, ScorerConfig(device="cpu"))
    with pytest.raises(ModelError) as second:
        Scorer.load(model, ScorerConfig(device="cpu"))
    assert str(first.value) == str(second.value)
    return str(first.value)


@pytest.mark.parametrize("name", _OBJECTS)
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"null", "it is None, not an object"),
        (b"[1]", "it is [1], not an object"),
        (b'{"a":', "it is not JSON"),
        (b"\xff", "it is not UTF-8: byte 0 is 0xff"),
    ],
)
def test_a_damaged_document_is_named(model: Path, name: str, content: bytes, why: str) -> None:
    (model / name).write_bytes(content)
    message = refused(model)
    assert message.startswith(f"{model}/{name} of model {model} is damaged: {why}")
    assert message.endswith("download or save the model again")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("tokenizer.json", "{}", "KeyError: 'added_tokens'; check its tokenizer and processor files"),
        ("tokenizer.json", '{"added_tokens": [], "model": 3}', "check its tokenizer and processor files"),
        ("config.json", "{}", "model_type"),
        ("config.json", '{"model_type": "llava", "text_config": 3}', "(?s)cannot be read: .*check .*config.json"),
        ("processor_config.json", "{}", "check its tokenizer and processor files"),
        ("processor_config.json", '{"processor_class": 3}', r"processor_config\.json names the processor class 3"),
        ("chat_template.jinja", b"\xff", r"chat_template\.jinja of model .* is damaged: it is not UTF-8"),
    ],
)
def test_a_document_with_other_contents_is_refused(model: Path, name: str, content: str | bytes, why: str) -> None:
    (model / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert re.search(why, refused(model))


def test_a_processor_class_that_transformers_lacks_is_named(model: Path) -> None:
    file = model / "processor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "processor_class": "NoSuchProcessor"}))
    assert f"{file} names the processor class 'NoSuchProcessor', which transformers " in refused(model)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * 8),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(path.read_bytes()[:50]),
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
    ],
    ids=["empty", "no header", "torn", "torn header", "longer"],
)
@pytest.mark.parametrize("sharded", [False, True])
def test_damaged_weights_are_named(model: Path, damage: Damage, sharded: bool) -> None:
    if sharded:
        split(model)
    file = model / (SHARD if sharded else WEIGHTS)
    damage(file)
    size = file.stat().st_size
    assert refused(model).startswith(f"{file} of model {model} is damaged: it has {size:,} bytes and does not open: ")


INDEXES: dict[str, tuple[Callable[[dict[str, str]], object], str]] = {
    "not an object": (lambda _: [1], "it is [1], not an object"),
    "no map": (lambda _: {"metadata": {}}, "its weight_map is None, not an object of file names"),
    "an empty map": (lambda _: {"weight_map": {}}, "its weight_map is {}, not an object of file names"),
    "a list": (lambda _: {"weight_map": [1]}, "its weight_map is [1], not"),
    "a number for a name": (lambda _: {"weight_map": {"a": 1}}, "its weight_map is {'a': 1}, not"),
    "metadata": (lambda files: {"weight_map": files, "metadata": 1}, "its metadata is 1, not an object"),
    "a missing file": (
        lambda files: {"metadata": {}, "weight_map": {**files, "x": "model-00009-of-00002.safetensors"}},
        "1 of the 2 files that it names are missing, the first is model-00009-of-00002.safetensors",
    ),
}


@pytest.mark.parametrize("damage", INDEXES)
def test_a_damaged_index_is_named(model: Path, damage: str) -> None:
    make, why = INDEXES[damage]
    split(model)
    files = json.loads((model / INDEX).read_text())["weight_map"]
    (model / INDEX).write_text(json.dumps(make(files)))
    assert refused(model).startswith(f"{model / INDEX} of model {model} is damaged: {why}")


def test_a_sound_index_is_loaded(model: Path) -> None:
    split(model)
    check_weights(model, "m")
    Scorer.load(model, ScorerConfig(device="cpu"))


def without(model: Path, part: str) -> str:
    """Drop the first parameter whose name contains ``part`` from the weights; return its name."""
    weights = load_file(model / WEIGHTS)
    name = next(name for name in sorted(weights) if part in name)
    del weights[name]
    save_file(weights, model / WEIGHTS, metadata={"format": "pt"})
    return name


@pytest.mark.parametrize("part", ["language_model", "projector"])
def test_no_score_rests_on_a_parameter_that_the_weights_lack(
    model: Path, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    without(model, part)
    scorer = Scorer.load(model, ScorerConfig(device="cpu"))
    (result,) = scorer.score([Sample.caption("1", picture(64, 64, 1), "a red circle")])
    assert isinstance(result, Failure) and result.code == "non_finite"
    assert re.search(r"lack \d of its parameters, the first is \S+: they are set to NaN", caplog.text)


def split(model: Path) -> None:
    """Turn the one file of weights into an index and the file that it names."""
    with safe_open(model / WEIGHTS, framework="numpy") as file:
        names = list(file.keys())
    (model / WEIGHTS).rename(model / SHARD)
    (model / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, SHARD)}))
