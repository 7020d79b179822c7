"""Two contrasts at once on the page: one caption coloured by each, and their numbers side by side."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from scorer.contrasts import CONTRASTS
from scorer.display.levels import gap_level, weight_level
from scorer.weights import Method
from service.schemas import contrast_names
from tests.service.page.browser import Browser
from tests.service.page.server import Answer, Server
from tests.service.page.test_looks import wide
from tests.service.page.test_scoring import CAPTION, expected, pick, slide

FIRST, FURTHER = "blank", "patches"
COMPARED = [f"compared with {CONTRASTS[name].phrase}" for name in (FIRST, FURTHER)]


def compare(page: Browser, further: str = FURTHER) -> None:
    pick(page, "further", further)
    page.settled()


@pytest.fixture
def compared(page: Browser, picture: Path) -> Browser:
    """The page with a caption that was scored with two contrasts."""
    page.choose(picture)
    page.write(CAPTION)
    page.score()
    compare(page)
    return page


def drawn(page: Browser, script: str) -> list[list[str]]:
    """A value of every token ``t``, for each contrast."""
    return page.js(
        "return [...document.querySelectorAll('.comparison')]"
        f".map((all) => [...all.querySelectorAll('.t')].map((t) => {script}))"
    )


def levels(page: Browser) -> list[list[str]]:
    return drawn(page, "t.dataset.level")


def cells(page: Browser, selector: str) -> list[list[str]]:
    """The texts of a table, row by row."""
    return page.js(
        "return [...document.querySelectorAll(arguments[0])].map((row) => [...row.cells].map((c) => c.textContent))",
        f"{selector} tr",
    )


def copied(page: Browser) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(page.copy("json"))
    return found


def test_the_caption_is_coloured_by_each_contrast(compared: Browser, server: Server, picture: Path) -> None:
    assert compared.js("return [...document.querySelectorAll('.comparison .label')].map((l) => l.textContent)") == (
        COMPARED
    )
    texts = "return [...document.querySelectorAll('.comparison .caption')].map((one) => one.textContent)"
    assert compared.js(texts) == [CAPTION, CAPTION]
    scores = [expected(picture, CAPTION, name) for name in (FIRST, FURTHER)]
    wanted = [[str(gap_level(float(gap))) for gap in one.logprob_gap] for one in scores]
    assert levels(compared) == wanted
    assert wanted[0] != wanted[1], "a negative control"
    doubts = drawn(compared, "t.dataset.doubt ?? '0'")
    assert [one[:-1] for one in doubts] == [[str(min(0, int(level))) for level in one[:-1]] for one in wanted]
    assert len(server.faults.scored) == 2


def test_one_request_brings_both(compared: Browser, picture: Path) -> None:
    answer = copied(compared)
    assert (answer["contrast"], answer["further_contrasts"]) == (FIRST, [FURTHER])
    for contrast, suffix in ((FIRST, ""), (FURTHER, f"_{FURTHER}")):
        gaps = [token[f"logit_gap{suffix}"] for token in answer["tokens"]]
        assert gaps == pytest.approx(expected(picture, CAPTION, contrast).logit_gap.tolist(), abs=1e-4)
    weights = [token["weight"] for token in answer["tokens"]]
    assert weights == pytest.approx(Method()(expected(picture, CAPTION, FIRST)).tolist(), abs=1e-4)


def test_nothing_else_is_the_default_and_leads_back(page: Browser, server: Server, picture: Path) -> None:
    page.choose(picture)
    page.write(CAPTION)
    page.score()
    assert page.one("#further").get_attribute("value") == ""
    assert len(page.all(".comparison")) == 1 and page.all(".comparison .label") == []
    before, alone = levels(page), copied(page)
    assert alone["further_contrasts"] == []
    compare(page)
    assert len(page.all(".comparison")) == 2
    compare(page, "")
    assert (levels(page), copied(page)) == (before, alone)
    compare(page)
    assert copied(page)["further_contrasts"] == [FURTHER]
    assert len(server.faults.scored) == 2, "both answers are kept"


def test_the_served_contrasts_are_offered_but_the_chosen_one(compared: Browser) -> None:
    script = "return [...document.getElementById('further').options].map((o) => [o.value, o.text, o.disabled])"
    offered = compared.js(script)
    phrases = sorted([name, CONTRASTS[name].phrase, name == FIRST] for name in contrast_names())
    assert offered[0] == ["", "nothing else", False]
    assert sorted(offered[1:]) == phrases
    pick(compared, "contrast", "blur")
    compared.settled()
    assert [value for value, _, disabled in compared.js(script) if disabled] == ["blur"]


def test_a_further_contrast_that_becomes_the_first_changes_places_with_it(compared: Browser) -> None:
    pick(compared, "contrast", FURTHER)
    compared.settled()
    answer = copied(compared)
    assert (answer["contrast"], answer["further_contrasts"]) == (FURTHER, [FIRST])
    assert [compared.one(f"#{name}").get_attribute("value") for name in ("contrast", "further")] == [FURTHER, FIRST]
    labels = compared.js("return [...document.querySelectorAll('.comparison .label')].map((l) => l.textContent)")
    assert labels == COMPARED[::-1]


def test_what_is_scored_next_is_compared_with_both(compared: Browser, server: Server) -> None:
    compared.sample(2)
    assert copied(compared)["further_contrasts"] == [FURTHER]
    assert len(compared.all(".comparison")) == 2
    doubts = compared.js("return [...document.querySelectorAll('#doubt p')].map((line) => line.textContent)")
    assert len(doubts) == 2
    for doubt, contrast in zip(doubts, (FIRST, FURTHER), strict=True):
        assert doubt.startswith("three is ")
        assert doubt.endswith(f"less likely with the image than with {CONTRASTS[contrast].phrase}.")
    assert len(server.faults.scored) == 3


def test_weights_follow_the_method_for_each(compared: Browser, server: Server, picture: Path) -> None:
    scores = [expected(picture, CAPTION, name) for name in (FIRST, FURTHER)]
    pick(compared, "method", "prior")
    slide(compared, "alpha", 3)
    weights = [Method("prior", {"alpha": 3})(one) for one in scores]
    largest = float(np.concatenate(weights).max())
    assert levels(compared) == [[str(weight_level(float(w), 0, largest)) for w in one] for one in weights]
    assert [token["weight"] for token in copied(compared)["tokens"]] == pytest.approx(weights[0].tolist(), abs=1e-4)
    compared.js("document.getElementById('numbers').open = true")
    compared.wait(lambda: compared.all("#numbers tbody tr"))
    rows = cells(compared, "#numbers tbody")
    assert [[row[5], row[9]] for row in rows] == [[f"{w:.2f}" for w in pair] for pair in zip(*weights, strict=True)]
    totals = {name: values for name, *values in cells(compared, "#totals tbody")}
    assert totals["mean weight"] == [f"{float(one.mean(dtype=np.float64)):.2f}" for one in weights]
    assert len(server.faults.scored) == 2
    assert server.faults.weighed == 0


def test_all_numbers_stand_side_by_side(compared: Browser, picture: Path) -> None:
    compared.js("document.getElementById('numbers').open = true")
    compared.wait(lambda: compared.all("#numbers tbody tr"))
    names = ["without", "gap", "logit gap", "weight"]
    assert cells(compared, "#numbers thead") == [["token", "with the image", *COMPARED], [*names, *names]]
    spans = compared.js("return [...document.querySelectorAll('#numbers thead th')].map((h) => [h.colSpan, h.rowSpan])")
    assert spans[:4] == [[1, 2], [1, 2], [4, 1], [4, 1]]
    rows = cells(compared, "#numbers tbody")
    assert {len(row) for row in rows} == {10}
    for at, contrast in ((3, FIRST), (7, FURTHER)):
        found = [float(row[at].replace("−", "-")) for row in rows]
        assert found == pytest.approx(expected(picture, CAPTION, contrast).logprob_gap.tolist(), abs=0.0051)
    totals = cells(compared, "#totals")
    assert totals[0] == ["", *(CONTRASTS[name].phrase for name in (FIRST, FURTHER))]
    assert totals[1] == ["tokens", str(len(rows))]
    means = [float(expected(picture, CAPTION, name).logprob_gap.mean()) for name in (FIRST, FURTHER)]
    assert [float(text.replace("−", "-")) for text in totals[2][1:]] == pytest.approx(means, abs=0.0051)


def test_the_tooltip_leaves_the_other_caption_uncovered(compared: Browser) -> None:
    compared.size(1160, 1400)
    for which in (0, 1):
        compared.js("document.querySelectorAll('.comparison')[arguments[0]].querySelector('.t').focus()", which)
        tip, other = compared.js(
            "return [document.getElementById('tip'), document.querySelectorAll('.comparison')[1 - arguments[0]]]"
            ".map((one) => one.getBoundingClientRect()).map(({ top, bottom }) => [top, bottom])",
            which,
        )
        assert tip[1] <= other[0] or other[1] <= tip[0]


@pytest.mark.parametrize("which", [0, 1])
def test_a_token_shows_the_numbers_of_both(compared: Browser, picture: Path, which: int) -> None:
    contrast = (FIRST, FURTHER)[which]
    at = compared.tokens().index("right")
    token = compared.all(".comparison")[which].find_elements("css selector", ".t")[at]
    compared.js("arguments[0].focus()", token)
    head, shared, *rows = cells(compared, "#tip")
    assert head == ["", *(CONTRASTS[name].phrase for name in (FIRST, FURTHER))]
    assert shared[0] == "with the image" and len(shared) == 2
    assert [name for name, *_ in rows] == ["without", "gap", "logit gap", "weight"]
    gaps = [float(expected(picture, CAPTION, name).logprob_gap[at]) for name in (FIRST, FURTHER)]
    assert [float(text.replace("−", "-")) for text in rows[1][1:]] == pytest.approx(gaps, abs=0.0051)
    assert abs(gaps[0] - gaps[1]) > 0.1, "a negative control"
    assert compared.text("#tip p").endswith(f"less likely with the image than with {CONTRASTS[contrast].phrase}")


def test_a_further_contrast_that_fails_is_taken_back(server: Server, chromium: Browser, picture: Path) -> None:
    server.reset()
    chromium.open(server.url)
    chromium.choose(picture)
    chromium.write(CAPTION)
    chromium.score()
    before = levels(chromium)
    detail = "an image token stands directly before the scored token 0"
    problem = {"type": "about:blank", "title": "Not scored", "status": 422, "code": "contrast_undefined"}
    server.faults.answers.append(Answer(422, {**problem, "detail": detail, "request_id": "abc123"}))
    compare(chromium)
    assert chromium.one("#problem").is_displayed() and detail in chromium.text("#problem")
    assert chromium.one("#further").get_attribute("value") == ""
    assert levels(chromium) == before
    chromium.one("#problem button").click()
    chromium.settled()
    assert chromium.one("#further").get_attribute("value") == FURTHER
    assert len(levels(chromium)) == 2
    assert [line for line in chromium.complaints() if "Failed to load resource" not in line] == []


def test_a_server_of_one_contrast_offers_no_further_one(server: Server, chromium: Browser, picture: Path) -> None:
    server.reset()
    with urllib.request.urlopen(f"{server.url}/v1/models") as response:
        models = json.load(response)
    models["models"][0]["contrasts"] = [FIRST]
    server.faults.models.append(Answer(200, models, media_type="application/json"))
    chromium.open(server.url)
    chromium.sample(0)
    assert chromium.one("#contrast").is_displayed()
    assert not chromium.one("#further").is_displayed()
    assert chromium.complaints() == []


def test_a_copied_command_asks_for_both(compared: Browser, picture: Path, run_shell: Any) -> None:
    answer = json.loads(run_shell(compared.copy("curl"), picture.parent))
    found = copied(compared)
    assert answer["further_contrasts"] == [FURTHER]
    for name in ("contrast", "further_contrasts", "fingerprint", "tokens"):
        assert answer[name] == found[name]


def test_the_keyboard_reaches_each_and_stays_within_it(compared: Browser) -> None:
    place = (
        "const t = document.activeElement; const all = [...document.querySelectorAll('.comparison')];"
        "return [all.findIndex((one) => one.contains(t)),"
        " [...(t.closest('.comparison')?.querySelectorAll('.t') ?? [])].indexOf(t)]"
    )
    count = len(levels(compared)[0])

    def press(*keys: str) -> list[int]:
        ActionChains(compared.driver).send_keys(*keys).perform()
        found: list[int] = compared.js(place)
        return found

    compared.js("document.querySelector('.comparison .t').focus()")
    assert press(Keys.END) == [0, count - 1]
    assert press(Keys.ARROW_RIGHT) == [0, count - 1]
    assert press(Keys.TAB) == [1, 0]
    assert press(Keys.ARROW_RIGHT) == [1, 1]
    assert press(Keys.HOME, Keys.ARROW_LEFT) == [1, 0]
    assert press(Keys.TAB) == [-1, -1]
    assert compared.js("return document.activeElement.id") == "contrast"
    assert press(Keys.TAB) == [-1, -1]
    assert compared.js("return document.activeElement.id") == "further"
    names = compared.js("return [...document.querySelectorAll('[role=listbox]')].map((one) => one.ariaLabel)")
    assert [name.split(",")[0] for name in names] == [f"Caption {label}" for label in COMPARED]
    assert compared.js("return document.getElementById('further').labels[0].textContent") == "and with"


def test_a_phone_shows_both_without_scrolling_sideways(server: Server, chromium: Browser) -> None:
    server.reset()
    chromium.open(server.url, 360, 780)
    chromium.sample(3)
    compare(chromium, "diffusion")
    chromium.js("document.getElementById('numbers').open = true")
    for which in (0, 1):
        chromium.js("document.querySelectorAll('.comparison')[arguments[0]].querySelectorAll('.t')[8].focus()", which)
        assert chromium.one("#tip").is_displayed()
        assert wide(chromium) == []
    assert chromium.complaints() == []
