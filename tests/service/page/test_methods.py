"""The page's choice of methods is what the server tells; it knows a method's formula, or asks for the weights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.webdriver.support.select import Select

from scorer import assembly
from scorer.weights import METHODS
from service import routes, schemas
from service.page import assets
from tests.methods import set_by_hand
from tests.service.page.browser import Browser
from tests.service.page.server import Answer, Server
from tests.toy_columns import register
from tests.toy_method import READS_OPTIONAL, TOY, plant

PORT = """
PORTS.toy = (raw, { power, cap }) =>
  Float32Array.from(raw.clean, (clean) => Math.min(power * Math.exp(clean), cap ?? Infinity));
"""
CAPTION = "There are two purple hearts at the upper right."


def opened(server: Server, browser: Browser, picture: Path) -> Browser:
    server.reset()
    browser.open(server.url)
    browser.choose(picture)
    browser.write(CAPTION)
    browser.score()
    return browser


@pytest.fixture
def ported(server: Server, chromium: Browser, picture: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    """A scored caption on a page whose server has the toy's record, and whose script has its port."""
    plant(monkeypatch)
    script = assets()["weights.js"]
    patched = replace(script, body=script.body + PORT.encode(), etag='"with the port"')
    monkeypatch.setitem(assets(), "weights.js", patched)
    yield opened(server, chromium, picture)
    assert chromium.complaints() == []


@pytest.fixture
def portless(server: Server, chromium: Browser, picture: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    """The same without the port."""
    plant(monkeypatch)
    yield opened(server, chromium, picture)
    assert [line for line in chromium.complaints() if "Failed to load resource" not in line] == []


def choose(page: Browser, method: str) -> None:
    Select(page.one("#method")).select_by_value(method)


def slide(page: Browser, name: str, value: float) -> None:
    script = (
        "const s = document.getElementById(arguments[0]); s.value = arguments[1];"
        "s.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    page.js(script, f"param-{name}", value)


def answer(page: Browser) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(page.copy("json"))
    return found


def by_hand(found: dict[str, Any], power: float, cap: float = np.inf) -> list[float]:
    clean = np.array([token["logprob_clean"] for token in found["tokens"]])
    return np.minimum(power * np.exp(clean), cap).tolist()  # type: ignore[no-any-return]


def weights(found: dict[str, Any]) -> list[float]:
    return [token["weight"] for token in found["tokens"]]


def settings(page: Browser) -> list[str]:
    """What is drawn of the method's parameters: ids of the inputs."""
    script = "return [...document.querySelectorAll('#params :is(input, select)')].map((input) => input.id)"
    found: list[str] = page.js(script)
    return found


def test_methods_labels_and_sliders_are_the_records(page: Browser) -> None:
    options = page.js("return [...document.querySelectorAll('#method option')].map((o) => [o.value, o.textContent])")
    assert options == [[record.name, record.label] for record in METHODS.values()]
    for record in METHODS.values():
        page.js("document.getElementById('result').hidden = false")
        choose(page, record.name)
        by_hand = set_by_hand(record)
        first = {p.name: by_hand.get(p.name, p.default) for p in record.parameters}
        hidden = {p.overrides for p in record.parameters if first[p.name] is not None}
        expected = []
        for parameter in record.parameters:
            value = first[parameter.name]
            if parameter.name in hidden:
                continue
            expected += [f"set-{parameter.name}"] * (parameter.nullable and parameter.name not in by_hand)
            if value is None:
                continue
            expected.append(f"param-{parameter.name}")
            assert page.text(f"#params label[for=param-{parameter.name}]") == parameter.label
            if parameter.type == "choice":
                offered = Select(page.one(f"#param-{parameter.name}"))
                assert [option.text for option in offered.options] == list(parameter.choices)
                assert offered.first_selected_option.text == value
                continue
            slider = page.one(f"#param-{parameter.name}")
            for name, own in (("min", "minimum"), ("max", "maximum"), ("step", "step")):
                assert float(slider.get_attribute(name) or "nan") == getattr(parameter.slider, own)
            assert float(slider.get_attribute("value") or "nan") == value
        assert settings(page) == expected


def test_a_chosen_word_derives_the_weights_again(server: Server, chromium: Browser, picture: Path) -> None:
    page = opened(server, chromium, picture)
    choose(page, "cal")
    before = answer(page)
    Select(page.one("#param-edges")).select_by_value("paper")
    found = answer(page)
    assert found["method_params"]["edges"] == "paper"
    scores = [token["logit_gap"] for token in found["tokens"]]
    assert weights(before)[0] == pytest.approx(np.clip(scores[:2], 1, 5).mean(), abs=1e-5)
    assert weights(found)[0] == pytest.approx((1 + np.clip(scores[:2], 1, 5).sum()) / 3, abs=1e-5)
    assert weights(found)[1:-1] == weights(before)[1:-1]
    assert chromium.complaints() == []


@pytest.mark.parametrize("module", ["settings.js", "result.js", "scale.js", "legend.js", "main.js", "derive.js"])
def test_only_the_port_knows_a_method_by_its_name(module: str) -> None:
    script = assets()[module].body.decode()
    for record in METHODS.values():
        names = [record.name, *(parameter.name for parameter in record.parameters)]
        quoted = [name for name in names if re.search(rf"""["'`]{re.escape(name)}["'`]""", script)]
        assert quoted == [], f"{module} names {quoted}"
    assert not re.search(r"\b(vig|vig-row|vppo|pgpo|tpo|prior|cal-logprob|grounded)\b", script, re.IGNORECASE)


def test_a_planted_method_with_a_port_appears_and_recolours_without_a_request(ported: Browser, server: Server) -> None:
    choose(ported, "toy")
    assert ported.js("return document.querySelector('#method option:checked').textContent") == TOY.label
    assert ported.all("#method b") == [], "a label is text"
    assert settings(ported) == ["param-power", "set-cap"]
    found = answer(ported)
    assert (found["method"], found["method_params"]) == ("toy", {"power": 2, "cap": None})
    assert weights(found) == pytest.approx(by_hand(found, 2), rel=1e-6)
    slide(ported, "power", 3.5)
    ported.one("#set-cap").click()
    assert settings(ported) == ["param-power", "set-cap", "param-cap"]
    found = answer(ported)
    assert found["method_params"] == {"power": 3.5, "cap": 1}
    assert weights(found) == pytest.approx(by_hand(found, 3.5, 1), rel=1e-6)
    assert server.faults.scored == ["POST"]
    assert server.faults.weighed == 0


def test_the_legend_of_a_planted_method_is_its_records(
    ported: Browser, server: Server, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    legend = "return [...document.querySelectorAll('#legend i')].map((i) => i.textContent)"
    choose(ported, "toy")
    assert len(ported.js(legend)) == 5
    plant(monkeypatch, replace(TOY, binary=True))
    choose(opened(server, ported, picture), "toy")
    assert ported.js(legend) == ["0", "1"]
    plant(monkeypatch, replace(TOY, bounds=("cap", "power"), parameters=(TOY.parameters[0], not_null())))
    choose(opened(server, ported, picture), "toy")
    assert ported.js(legend) == ["0.5", "0.8", "1.1", "1.4", "1.7"]


def not_null() -> Any:
    return replace(TOY.parameters[1], nullable=False, default=0.5)


def test_a_planted_method_without_a_port_is_weighed_by_the_server(portless: Browser, server: Server) -> None:
    before = answer(portless)
    choose(portless, "toy")
    portless.wait(lambda: server.faults.weighed == 1 and "Deriving" not in portless.text("#status"))
    found = answer(portless)
    assert (found["method"], found["method_params"]["power"]) == ("toy", 2)
    assert weights(found) == pytest.approx(by_hand(found, 2), rel=1e-5)
    assert weights(found) != weights(before)
    portless.module(  # as a slider that is being moved
        """
        const slider = document.getElementById("param-power");
        for (slider.value of [1, 1.5, 3, 3.5]) {
          slider.dispatchEvent(new Event("input", { bubbles: true }));
          await new Promise((resolve) => setTimeout(resolve, 10));
        }
        """
    )
    portless.wait(lambda: server.faults.weighed >= 2 and "Deriving" not in portless.text("#status"))
    found = answer(portless)
    assert found["method_params"]["power"] == 3.5
    assert weights(found) == pytest.approx(by_hand(found, 3.5), rel=1e-5)
    assert server.faults.weighed == 2, "asked once, when the slider rested"
    assert server.faults.scored == ["POST"]
    portless.score()  # its weights come with the answer
    assert weights(answer(portless)) == pytest.approx(by_hand(found, 3.5), rel=1e-5)
    assert (server.faults.weighed, len(server.faults.scored)) == (2, 2)


def test_the_server_weighs_every_contrast(
    server: Server, chromium: Browser, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weigh(scores: Any, *, power: float = 2.0, cap: float | None = None) -> Any:
        return np.asarray(-power * scores.logprob_contrast, np.float32)

    plant(monkeypatch, replace(TOY, function=weigh, columns=("logprob_contrast",)))
    page = opened(server, chromium, picture)

    def wait_for(requests: int) -> None:
        page.wait(lambda: server.faults.weighed == requests and "Deriving" not in page.text("#status"))

    def weights_of(power: float) -> list[list[str]]:
        tokens = answer(page)["tokens"]
        return [[f"{-power * t[name]:.2f}" for name in ("logprob_contrast", "logprob_patches")] for t in tokens]

    choose(page, "toy")
    wait_for(1)
    Select(page.one("#further")).select_by_value("patches")
    page.settled()
    wait_for(2)  # the weights of the first contrast came with the answer
    page.js("document.getElementById('numbers').open = true")
    page.wait(lambda: page.all("#numbers tbody tr"))
    shown = (
        "return [...document.querySelectorAll('#numbers tbody tr')]"
        ".map((row) => [5, 9].map((i) => row.cells[i].textContent))"
    )
    assert page.js(shown) == weights_of(2)
    assert any(first != further for first, further in weights_of(2)), "a negative control"
    slide(page, "power", 3.5)
    wait_for(4)
    assert page.js(shown) == weights_of(3.5)
    assert chromium.complaints() == []


def test_what_the_method_reads_besides_is_sent(
    server: Server, chromium: Browser, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch)
    result = assembly._scores
    monkeypatch.setattr(
        assembly, "_scores", lambda *given: replace(scores := result(*given), optional={"toy": scores.logit_gap * 2})
    )
    monkeypatch.setattr(routes, "WeightsRequest", schemas.weights_request())
    plant(monkeypatch, READS_OPTIONAL)
    page = opened(server, chromium, picture)
    choose(page, "toy")
    page.wait(lambda: server.faults.weighed == 1 and "Weighing" not in page.text("#status"))
    found = answer(page)
    assert found["method"] == "toy"
    assert weights(found) == pytest.approx([4 * token["logit_gap"] for token in found["tokens"]], rel=1e-5)
    assert chromium.complaints() == []


def test_until_the_server_has_weighed_the_old_weights_are_shown_as_what_they_are(
    portless: Browser, server: Server
) -> None:
    before = answer(portless)
    problem = {"title": "Not weighed", "detail": "64 are waiting", "status": 429, "code": "queue_full"}
    server.faults.weights.append(Answer(429, {**problem, "type": "about:blank", "request_id": "abc"}))
    choose(portless, "toy")
    portless.wait(lambda: portless.one("#problem").is_displayed())
    assert "64 are waiting" in portless.text("#problem")
    assert answer(portless) == before, "with the method that they are by"
    portless.one("#problem button").click()
    portless.wait(lambda: server.faults.weighed == 2 and "Deriving" not in portless.text("#status"))
    assert answer(portless)["method"] == "toy"
    assert not portless.one("#problem").is_displayed()


def test_a_method_that_is_left_is_not_waited_for(portless: Browser, server: Server) -> None:
    portless.js(
        """
        const select = document.getElementById("method");
        for (select.value of ["toy", "prior"]) select.dispatchEvent(new Event("change"));
        """
    )
    assert portless.text("#status") == ""
    assert answer(portless)["method"] == "prior"
    portless.module("await new Promise((resolve) => setTimeout(resolve, 400));")
    assert answer(portless)["method"] == "prior"
    assert server.faults.weighed == 0
