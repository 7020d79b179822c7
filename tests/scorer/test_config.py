"""Every option is checked once, and only options that change scores reach the fingerprint."""

from __future__ import annotations

import dataclasses
import json
import pickle
from typing import Any, get_args

import pytest

from scorer.config import EXECUTION_ONLY, DType, ScorerConfig
from scorer.contrasts import CONTRASTS
from scorer.errors import ConfigError
from scorer.types import DEFAULT_PROMPT

# One valid value other than the default for every option: a new option must be added here.
CHANGED: dict[str, Any] = {
    "contrast": "masked",
    "further_contrasts": ["noise"],
    "distribution_columns": ["kl"],
    "dtype": "bfloat16",
    "device": "cpu",
    "device_map": "auto",
    "tensor_parallel": 2,
    "attention": "eager",
    "quantization": "int8",
    "adapter": "lora",
    "compile": True,
    "prompt": "What is this?",
    "truncate": True,
    "stop_token": False,
    "blank_color": (1, 2, 3),
    "blank_size": (2, 3),
    "blur_radius": 0.5,
    "noise_seed": 7,
    "jpeg_draft": True,
    "score_bits": 10,
    "max_text_bytes": 10,
    "max_image_bytes": 10,
    "max_image_pixels": 10,
    "contrast_cache_bytes": 10,
    "max_batch_tokens": 10,
}


def test_every_option_is_covered_here() -> None:
    assert set(CHANGED) == {field.name for field in dataclasses.fields(ScorerConfig)}
    default = ScorerConfig().to_dict()
    assert all(value != default[name] for name, value in CHANGED.items())


@pytest.mark.parametrize("name", CHANGED)
def test_the_fingerprint_changes_exactly_with_what_changes_scores(name: str) -> None:
    changed = ScorerConfig(**{name: CHANGED[name]}).fingerprint() != ScorerConfig().fingerprint()
    assert changed == (name not in EXECUTION_ONLY)


def test_an_option_that_came_later_leaves_earlier_fingerprints_as_they_were() -> None:
    assert "stop_token" not in ScorerConfig(stop_token=False).fingerprint()
    assert ScorerConfig().fingerprint()["stop_token"] is True
    assert "max_text_bytes" not in ScorerConfig().fingerprint()
    assert ScorerConfig(max_text_bytes=10).fingerprint()["max_text_bytes"] == 10
    assert "blank_size" not in ScorerConfig().fingerprint()
    assert ScorerConfig(blank_size=(2, 3)).fingerprint()["blank_size"] == [2, 3]
    assert "further_contrasts" not in ScorerConfig().fingerprint()
    assert "columns" not in ScorerConfig(stop_token=False).fingerprint()
    assert "distribution_columns" not in ScorerConfig().fingerprint()
    assert "tensor_parallel" not in ScorerConfig().fingerprint()
    assert ScorerConfig(tensor_parallel=2).fingerprint()["tensor_parallel"] == 2
    assert "jpeg_draft" not in ScorerConfig().fingerprint()
    assert ScorerConfig(jpeg_draft=True).fingerprint()["jpeg_draft"] is True
    assert "score_bits" not in ScorerConfig().fingerprint()
    assert ScorerConfig(score_bits=10).fingerprint()["score_bits"] == 10


def test_defaults() -> None:
    config = ScorerConfig()
    assert (config.contrast, config.dtype, config.prompt) == ("blank", "float32", DEFAULT_PROMPT)
    assert config.blank_color is None


ALONE = {"adapter": None, "quantization": None, "device_map": None, "compile": False}
"""Options that exclude ``tensor_parallel``, and the first two each other, at their defaults."""


@pytest.mark.parametrize(
    "changes",
    [
        {},
        CHANGED | ALONE,
        CHANGED | {"tensor_parallel": 1, "adapter": None},
        CHANGED | {"tensor_parallel": 1, "quantization": None},
    ],
)
def test_plain_data_round_trips(changes: dict[str, Any]) -> None:
    config = ScorerConfig(**changes)
    assert ScorerConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert hash(config) == hash(ScorerConfig(**changes))
    assert json.loads(json.dumps(config.fingerprint())) == config.fingerprint()


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_every_contrast_is_accepted(contrast: Any) -> None:
    assert ScorerConfig(contrast=contrast).contrast == contrast


@pytest.mark.parametrize("dtype", get_args(DType))
def test_every_dtype_is_accepted(dtype: Any) -> None:
    assert ScorerConfig(dtype=dtype).dtype == dtype


def test_a_list_of_three_is_a_color() -> None:
    assert ScorerConfig.from_dict({"blank_color": [0, 128, 255]}).blank_color == (0, 128, 255)


def test_further_contrasts_and_their_columns_are_in_the_fingerprint() -> None:
    config = ScorerConfig.from_dict({"contrast": "blur", "further_contrasts": ["blank", "noise"]})
    assert config.contrasts == ("blur", "blank", "noise")
    assert config.fingerprint()["further_contrasts"] == ["blank", "noise"]
    assert config.fingerprint()["columns"] == [
        "is_stop",
        "logit_gap_blank",
        "logprob_blank",
        "logit_gap_noise",
        "logprob_noise",
    ]


def test_distribution_columns_are_in_file_order_and_each_contrast_has_its_own() -> None:
    config = ScorerConfig.from_dict({"distribution_columns": ["top1", "kl"], "further_contrasts": ["masked"]})
    assert config.distribution_columns == ("kl", "top1")
    assert config == ScorerConfig(distribution_columns=("kl", "top1"), further_contrasts=("masked",))
    assert config.fingerprint()["distribution_columns"] == ["kl", "top1"]
    first = ["kl", "kl_reverse", "top1_clean", "top1_contrast"]
    masked = ["logit_gap_masked", "logprob_masked", "kl_masked", "kl_reverse_masked", "top1_masked"]
    assert config.fingerprint()["columns"] == ["is_stop", *first, *masked]


@pytest.mark.parametrize(
    ("further", "said"),
    [(["blank"], "'blank' is given twice"), (["fog"], "is 'fog'"), ("noise", "a list of contrasts")],
)
def test_further_contrasts_are_known_and_named_once(further: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ScorerConfig(contrast="blank", further_contrasts=further)


def test_a_list_of_two_is_a_size() -> None:
    assert ScorerConfig.from_dict({"blank_size": [672, 448]}).blank_size == (672, 448)


def test_unknown_options_are_refused_and_the_known_ones_named() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown scorer option batch, contrasts; known options: contrast, further_contrasts, dtype"
    ):
        ScorerConfig.from_dict({"contrasts": "blank", "batch": 1})


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ScorerConfig().dtype = "float16"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contrast": "black"}, "contrast is 'black'; it must be one of blank, masked, removed, blur, noise, patches"),
        ({"contrast": None}, "contrast is None"),
        ({"contrast": ["blank"]}, "contrast is"),
        ({"dtype": "fp16"}, "dtype is 'fp16'; it must be one of float32, bfloat16, float16"),
        ({"device": ""}, "device is ''; it must be a device name or 'auto'"),
        ({"device": 0}, "device is 0"),
        ({"prompt": None}, "prompt is None; it must be a string"),
        ({"jpeg_draft": 1}, "jpeg_draft is 1; it must be true or false"),
        ({"truncate": 1}, "truncate is 1; it must be true or false"),
        ({"stop_token": 0}, "stop_token is 0; it must be true or false"),
        ({"blank_color": (0, 0)}, r"blank_color is \(0, 0\); it must be three integers in 0–255"),
        ({"blank_color": (0, 0, 256)}, "blank_color"),
        ({"blank_color": (0, 0, True)}, "blank_color"),
        ({"blank_color": "red"}, "blank_color is 'red'"),
        ({"blank_size": (10, 0)}, r"blank_size is \(10, 0\); it must be two integers of at least 1"),
        ({"blank_size": (10,)}, r"blank_size is \(10,\)"),
        ({"blank_size": (10, True)}, "blank_size"),
        ({"blank_size": "10x10"}, "blank_size is '10x10'"),
        ({"blur_radius": 0}, r"blur_radius is 0; it must be a number in \(0, 1\]"),
        ({"blur_radius": 1.5}, "blur_radius is 1.5"),
        ({"blur_radius": float("nan")}, "blur_radius is nan"),
        ({"blur_radius": "0.1"}, "blur_radius is '0.1'"),
        ({"noise_seed": -1}, "noise_seed is -1; it must be an integer of at least 0"),
        ({"max_image_bytes": 0}, "max_image_bytes is 0; it must be an integer of at least 1"),
        ({"max_image_pixels": 1e8}, "max_image_pixels is 100000000.0"),
        ({"max_batch_tokens": True}, "max_batch_tokens is True"),
        ({"score_bits": 24}, "score_bits is 24; it must be an integer from 1 to 23"),
        ({"score_bits": 0}, "score_bits is 0"),
        ({"score_bits": True}, "score_bits is True"),
        (
            {"distribution_columns": ["kl", "gap"]},
            r"is \['kl', 'gap'\]; it must be a list of kl, js, entropy, top1, each",
        ),
        ({"distribution_columns": ["kl", "kl"]}, "distribution_columns is"),
        ({"distribution_columns": "kl"}, "distribution_columns is 'kl'"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScorerConfig(**options)
