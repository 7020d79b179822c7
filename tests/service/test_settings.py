"""Options: from the environment and flags, refused where they cannot be meant."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from scorer.config import ScorerConfig
from scorer.errors import ConfigError
from scorer.mini import MODEL_PATH
from service.__main__ import main
from service.settings import PREFIX, Settings, check_environment


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)


def test_without_any_option_the_packaged_model_is_served() -> None:
    found = Settings()
    assert (found.model, found.model_name, found.api_keys) == (str(MODEL_PATH), "mini", ())


def test_options_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENSIGHT_API_KEYS", "first-key-1, second-key-2 ,")
    monkeypatch.setenv("TOKENSIGHT_ALLOW_IMAGE_HOST", "a.example.org,*.example.net:8443")
    monkeypatch.setenv("TOKENSIGHT_CONTRASTS", "blur,blank")
    monkeypatch.setenv("TOKENSIGHT_QUEUE_SIZE", "64")
    monkeypatch.setenv("TOKENSIGHT_REVISION", "")
    found = Settings()
    assert [key.get_secret_value() for key in found.api_keys] == ["first-key-1", "second-key-2"]
    assert found.allow_image_host == ("a.example.org", "*.example.net:8443")
    assert found.contrasts == ("blur", "blank")
    assert (found.queue_size, found.revision) == (64, None)


def test_keys_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENSIGHT_API_KEYS", "a-secret-key")
    found = Settings()
    for text in (found.masked(), repr(found), str(found)):
        assert "a-secret-key" not in text
    assert json.loads(found.masked())["api_keys"] == ["**********"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"api_keys": "short"}, "fewer than 8 characters"),
        ({"contrast": "image"}, "Input should be"),
        ({"contrast": "blur", "contrasts": "blank"}, "'blur' is not one of contrasts"),
        ({"max_items": 100, "queue_size": 10}, "max_items=100 exceeds queue_size=10"),
        ({"allow_image_host": "http://x.org/"}, "not a full DNS name"),
        ({"allow_image_host": "127.0.0.1"}, "not a full DNS name"),
        ({"trust_remote_code": True}, "Extra inputs"),
        ({"port": 70_000}, "less than or equal"),
        ({"queue_size": 0}, "greater than or equal"),
        ({"request_seconds": "nan"}, "finite|greater"),
        ({"adapter": "x", "quantization": "int8"}, "use one or the other"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings(**options)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TOKENSIGHT_API_KEY", "TOKENSIGHT_API_KEYS"),
        ("TOKENSIGHT_APIKEYS", "TOKENSIGHT_API_KEYS"),
        ("TOKENSIGHT_ALLOW_IMAGE_HOSTS", "TOKENSIGHT_ALLOW_IMAGE_HOST"),
    ],
)
def test_a_misspelt_variable_does_not_open_the_service(name: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is unknown; did you mean {meant}"):
        check_environment({name: "a-secret-key"})


def test_other_variables_are_let_be() -> None:
    check_environment(
        {"TOKENSIGHT_STORES": "x", "TOKENSIGHT_REQUIRED_STORES": "x", "tokensight_api_keys": "x", "A": ""}
    )


def test_wrong_options_end_with_status_2_and_say_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "70000"]) == 2
    assert "error: --port is 70000: it must be less than or equal to 65535" in capsys.readouterr().err
    assert main(["--max-items", "1000"]) == 2
    assert "max_items=1000 exceeds queue_size=256" in capsys.readouterr().err


def test_every_option_of_the_engine_that_matters_is_passed_on() -> None:
    found = Settings(dtype="bfloat16", truncate=True, prompt="What?", max_image_pixels=7, contrast_cache_bytes=80)
    expected = ScorerConfig(
        dtype="bfloat16",
        truncate=True,
        prompt="What?",
        max_image_pixels=7,
        contrast_cache_bytes=10,
        max_image_bytes=found.max_image_bytes,
    )
    assert found.scorer_config() == expected, "the cache's memory is shared by eight contrasts"
