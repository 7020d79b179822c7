"""Picture and caption in, coloured tokens out: in Chromium, with real scores of the packaged model."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from scorer import Sample, Scorer, ScorerConfig
from scorer.contrasts import CONTRASTS
from scorer.display.levels import gap_level
from scorer.mini import MODEL_PATH
from scorer.weights import Method
from service.schemas import contrast_names
from tests.service.helpers import KEY
from tests.service.page.browser import Browser
from tests.service.page.server import Server

CAPTION = "There are two purple hearts at the upper right."


@cache
def scorer_for(contrast: Any) -> Scorer:
    return Scorer.load(MODEL_PATH, ScorerConfig(contrast=contrast))


def expected(picture: Path, text: str, contrast: str = "blank", prompt: str | None = None) -> Any:
    (scores,) = scorer_for(contrast).score([Sample.caption("1", picture.read_bytes(), text, prompt)])
    return scores


def pick(page: Browser, name: str, value: str) -> None:
    Select(page.one(f"#{name}")).select_by_value(value)


def slide(page: Browser, name: str, value: float) -> None:
    script = (
        "const s = document.getElementById(arguments[0]); s.value = arguments[1];"
        "s.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    page.js(script, f"param-{name}", value)


def weights(page: Browser) -> list[float]:
    return [token["weight"] for token in json.loads(page.copy("json"))["tokens"]]


@pytest.fixture
def scored(page: Browser, picture: Path) -> Browser:
    """The page with a scored caption."""
    page.choose(picture)
    page.write(CAPTION)
    page.score()
    return page


def test_upload_and_score(page: Browser, server: Server, picture: Path) -> None:
    page.choose(picture)
    page.one("#caption").send_keys(CAPTION)
    assert page.text("#image-name") == picture.name
    page.wait(lambda: page.js("return document.getElementById('preview').naturalWidth") == 256)
    page.score()
    assert "".join(page.tokens()) == CAPTION.replace(" ", "")
    assert page.text("#captions") == CAPTION
    scores = expected(picture, CAPTION)
    answer = json.loads(page.copy("json"))
    assert [token["id"] for token in answer["tokens"]] == scores.token_ids.tolist()
    assert [token["logit_gap"] for token in answer["tokens"]] == pytest.approx(scores.logit_gap.tolist(), abs=1e-4)
    assert weights(page) == pytest.approx(Method()(scores).tolist(), abs=1e-4)
    right = page.tokens().index("right")
    assert page.levels()[right] == "-4"
    mark = page.all("#captions .t")[-1]
    assert mark.get_attribute("class") == "t stop" and mark.get_attribute("aria-label") == "end of the text"
    assert page.js("return getComputedStyle(arguments[0], '::before').content", mark) == '"end"'
    assert page.levels()[-1] == str(gap_level(float(scores.logprob_gap[-1])))
    page.js("arguments[0].focus()", mark)
    assert page.text("#tip").startswith("end")
    assert server.faults.scored == ["POST"]


def test_the_contradicted_token_is_underlined_in_every_view(scored: Browser) -> None:
    token = scored.all("#captions .t")[scored.tokens().index("right")]
    for view in ("gap", "logit", "weight"):
        scored.js("document.querySelector(`#by [value=${arguments[0]}]`).click()", view)
        assert token.value_of_css_property("text-decoration-line") == "underline"
    plain = scored.all("#captions .t")[scored.tokens().index("There")]
    assert plain.value_of_css_property("text-decoration-line") == "none"
    assert scored.text("#doubt").startswith("right is ")
    assert "underlined" in scored.text("#legend")


def test_a_sample_is_scored_when_it_is_picked(page: Browser, server: Server) -> None:
    page.sample(2)
    assert page.all("#samples button")[2].get_attribute("aria-pressed") == "true"
    assert page.text("#doubt").startswith("three is over 10,000 times less likely")
    assert server.faults.scored == ["POST"]
    page.sample(0)
    assert [button.get_attribute("aria-pressed") for button in page.all("#samples button")].count("true") == 1
    assert page.text("#captions").startswith("At first sight")


def test_a_sample_that_comes_late_does_not_replace_the_one_that_was_picked_after(page: Browser, server: Server) -> None:
    page.js(
        """
        const own = window.fetch;
        window.fetch = (url, options) => {
          if (!url.includes("scene-00016")) return own(url, options);
          return new Promise((resolve) => (window.late = () => own(url, options).then(resolve)));
        };
        """
    )
    page.all("#samples button")[0].click()
    page.sample(2)
    page.module("await window.late(); await new Promise((resolve) => setTimeout(resolve, 100));")
    page.settled()
    assert page.js("return document.getElementById('caption').value").startswith("First of all there is one huge")
    assert server.faults.scored == ["POST"]


def test_a_method_and_its_settings_change_the_colours_without_a_request(
    scored: Browser, server: Server, picture: Path
) -> None:
    scores = expected(picture, CAPTION)
    before = scored.levels()
    pick(scored, "method", "prior")
    assert scored.one("#by [value=weight]").is_selected()
    assert scored.one("#captions").get_attribute("data-by") == "weight"
    assert scored.levels() != before
    assert weights(scored) == pytest.approx(Method("prior")(scores).tolist(), abs=1e-4)
    slide(scored, "alpha", 3)
    assert weights(scored) == pytest.approx(Method("prior", {"alpha": 3})(scores).tolist(), abs=1e-4)
    pick(scored, "method", "vig-row")
    slide(scored, "keep", 0.3)
    assert weights(scored) == Method("vig-row", {"keep": 0.3})(scores).tolist()
    assert set(scored.levels()) == {"0", "4"}
    assert scored.js("return [...document.querySelectorAll('#legend i')].map((i) => i.textContent)") == ["0", "1"]
    scored.one("#set-threshold").click()
    assert scored.all("#param-keep") == [], "the threshold decides"
    assert weights(scored) == Method("vig-row", {"threshold": 0.5})(scores).tolist()
    slide(scored, "threshold", 0.25)
    assert weights(scored) == Method("vig-row", {"threshold": 0.25})(scores).tolist()
    scored.one("#set-threshold").click()
    assert weights(scored) == Method("vig-row", {"keep": 0.3})(scores).tolist()
    pick(scored, "method", "cal")
    slide(scored, "window", 1)
    slide(scored, "high", 2.5)
    clamp = {"low": 1.0, "high": 2.5, "window": 1}
    assert weights(scored) == pytest.approx(Method("cal", clamp)(scores).tolist(), abs=1e-4)
    slide(scored, "low", 4)  # takes the other end along
    assert scored.one("#param-high").get_attribute("value") == "4"
    assert set(weights(scored)) == {4.0}
    assert server.faults.scored == ["POST"]


def test_contrasts_are_told_in_the_servers_words(scored: Browser) -> None:
    script = "return [...document.getElementById('contrast').options].map((option) => [option.value, option.text])"
    offered = scored.js(script)
    assert sorted(offered) == sorted([name, CONTRASTS[name].phrase] for name in contrast_names())
    pick(scored, "contrast", "removed")
    scored.settled()
    scored.js("document.getElementById('numbers').open = true")
    scored.wait(lambda: f"with {CONTRASTS['removed'].phrase}" in scored.text("#numbers thead"))


def test_a_contrast_is_asked_for_once(scored: Browser, server: Server, picture: Path) -> None:
    blank = scored.levels()
    pick(scored, "contrast", "removed")
    scored.settled()
    assert len(server.faults.scored) == 2
    answer = json.loads(scored.copy("json"))
    gaps = [token["logit_gap"] for token in answer["tokens"]]
    assert answer["contrast"] == "removed"
    assert gaps == pytest.approx(expected(picture, CAPTION, "removed").logit_gap.tolist(), abs=1e-4)
    pick(scored, "contrast", "blank")
    assert scored.levels() == blank
    pick(scored, "contrast", "removed")
    assert json.loads(scored.copy("json"))["contrast"] == "removed"
    assert len(server.faults.scored) == 2
    scored.score()  # asked again by hand: a new answer
    assert len(server.faults.scored) == 3


def test_the_prompt_is_sent(scored: Browser, picture: Path) -> None:
    scored.one("#prompt").send_keys("What is this?" + Keys.ENTER)
    scored.settled()
    gaps = [token["logit_gap"] for token in json.loads(scored.copy("json"))["tokens"]]
    prompted = expected(picture, CAPTION, prompt="What is this?").logit_gap.tolist()
    assert gaps == pytest.approx(prompted, abs=1e-4)
    assert gaps != pytest.approx(expected(picture, CAPTION).logit_gap.tolist(), abs=1e-4)


def test_a_changed_caption_is_said_to_be_changed(scored: Browser) -> None:
    assert "stale" not in scored.one("#result").get_attribute("class")
    scored.write(CAPTION + " So!")
    assert "stale" in scored.one("#result").get_attribute("class")
    assert scored.text("#status") == "Changed since the last scoring."
    scored.score()
    assert "stale" not in scored.one("#result").get_attribute("class")
    assert scored.text("#captions") == CAPTION + " So!"


def test_nothing_to_score_is_said(page: Browser, server: Server, picture: Path) -> None:
    page.one("#score").click()
    assert page.text("#status") == "Choose an image first."
    assert page.js("return document.activeElement.id") == "file"
    page.choose(picture)
    page.write(" \n")
    page.one("#score").click()
    assert page.text("#status") == "Enter a caption first."
    assert page.js("return document.activeElement.id") == "caption"
    assert server.faults.scored == []


DROP = """
const data = new DataTransfer();
data.items.add(new File([Uint8Array.from(arguments[0])], arguments[1], { type: arguments[2] }));
const target = document.querySelector(arguments[3]);
const options = { bubbles: true, cancelable: true };
if (arguments[4] === "paste") target.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, ...options }));
else for (const kind of ["dragover", "drop"])
  target.dispatchEvent(new DragEvent(kind, { dataTransfer: data, ...options }));
"""


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(page: Browser, picture: Path, way: str) -> None:
    page.js(DROP, list(picture.read_bytes()), "a.png", "image/png", "#caption", way)
    assert page.text("#image-name") == "a.png"
    page.write(CAPTION)
    page.score()
    assert page.text("#captions") == CAPTION


def test_a_dropped_text_file_is_refused(page: Browser) -> None:
    page.js(DROP, [97], "notes.txt", "text/plain", "#drop", "drop")
    assert "notes.txt is of type text/plain" in page.text("#problem")
    assert page.text("#image-name") == ""


def test_a_copied_command_gives_the_copied_json(scored: Browser, picture: Path, tmp_path: Path, run_shell: Any) -> None:
    hostile = "it's \"two\" $HOME `id` $(id) \\ !! %s ;type=x\n\n{}'\nJSON\nEOF é 🪁\t&"
    scored.write(hostile)
    scored.one("#prompt").send_keys('What\'s "$1"; `this`?')
    scored.score()
    pick(scored, "method", "vig-row")
    slide(scored, "keep", 0.3)
    copied = json.loads(scored.copy("json"))
    command = scored.copy("curl")
    assert f'image=@"{picture.name}"' in command
    answer = json.loads(run_shell(command, picture.parent))
    assert answer["turns"] == copied["turns"] == [hostile]
    for name in ("method", "method_params", "contrast", "fingerprint", "model", "tokens"):
        assert answer[name] == copied[name]
    assert answer["totals"] == pytest.approx(copied["totals"])


def test_a_copied_command_carries_a_picture_that_is_no_file(page: Browser, tmp_path: Path, run_shell: Any) -> None:
    page.sample(0)
    page.write("It's a $TEST\nJSON\n`ls`")
    page.score()
    answer = json.loads(run_shell(page.copy("curl"), tmp_path))
    copied = json.loads(page.copy("json"))
    assert answer["turns"] == ["It's a $TEST\nJSON\n`ls`"]
    assert answer["tokens"] == copied["tokens"]


def test_a_file_name_with_quotes_survives_the_shell(page: Browser, picture: Path, run_shell: Any) -> None:
    odd = picture.with_name('-it\'s "a" $x;type=text `b`, ü.png')
    odd.write_bytes(picture.read_bytes())
    page.choose(odd)
    page.write(CAPTION)
    page.score()
    assert json.loads(run_shell(page.copy("curl"), odd.parent))["turns"] == [CAPTION]


def test_without_a_clipboard_the_text_is_shown(scored: Browser) -> None:
    scored.js("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
    scored.one("#copy-json").click()
    scored.wait(lambda: scored.one("#copied").get_attribute("open") is not None)
    text = scored.js("return document.getElementById('copied-text').value")
    assert json.loads(text)["turns"] == [CAPTION]
    scored.one("#copied-text").send_keys(Keys.ESCAPE)
    assert scored.one("#copied").get_attribute("open") is None


def test_a_server_with_a_key(locked_server: Server, chromium: Browser, tmp_path: Path, run_shell: Any) -> None:
    """A browser gives the key as a password; a command line is told to."""
    chromium.open(locked_server.url.replace("//", f"//anyone:{KEY}@"))
    chromium.sample(0)
    assert chromium.text("#captions").startswith("At first sight")
    command = chromium.copy("curl")
    assert '-H "Authorization: Bearer $API_KEY"' in command and KEY not in command
    assert json.loads(run_shell(command, tmp_path))["tokens"] == json.loads(chromium.copy("json"))["tokens"]
    assert [line for line in chromium.complaints() if "401" not in line] == []
