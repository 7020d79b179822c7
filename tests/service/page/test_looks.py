"""Keyboard, screen reader, both colour schemes, a phone, and texts that are hard to show."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.service.page.browser import Browser
from tests.service.page.server import Server

AA = 4.5
"""WCAG 2.2, 1.4.3: contrast of text."""
LINES = 3.0
"""1.4.11: contrast of what has to be seen of a control, and of the focus."""


def focused(page: Browser) -> str:
    return page.js("const a = document.activeElement; return a.id || a.value || a.textContent")


def press(page: Browser, *keys: str) -> None:
    ActionChains(page.driver).send_keys(*keys).perform()


def score_text(page: Browser, picture: Path, text: str) -> None:
    page.choose(picture)
    page.write(text)
    page.score()


def test_everything_is_done_with_the_keyboard(page: Browser) -> None:
    page.js("document.getElementById('samples').children[2].focus()")
    press(page, Keys.SPACE)
    page.settled()
    page.wait(lambda: page.tokens())
    order = []
    for _ in range(18):
        press(page, Keys.TAB)
        order.append(focused(page))
    assert order[3:18] == [
        "caption",
        "prompt",
        "score",
        "gap",
        "First",
        "contrast",
        "further",
        "method",
        "param-low",
        "param-high",
        "param-window",
        "param-edges",
        "copy-json",
        "copy-curl",
        "All numbers",
    ]
    press(page, Keys.ENTER)
    assert page.one("#numbers").get_attribute("open") is not None
    page.one("#by [value=gap]").send_keys(Keys.ARROW_RIGHT)
    assert page.one("#captions").get_attribute("data-by") == "logit"
    page.js("document.getElementById('caption').focus()")
    page.one("#caption").send_keys(" Yes.", Keys.CONTROL + Keys.ENTER)
    page.settled()
    assert page.text("#captions").endswith("star. Yes.")


def test_arrow_keys_walk_through_the_tokens(page: Browser) -> None:
    page.sample(2)
    tokens = page.tokens()
    page.js("document.querySelector('#captions .t').focus()")
    press(page, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert focused(page) == tokens[1]
    page.js("document.addEventListener('keydown', (event) => (window.scrolls = !event.defaultPrevented))")
    press(page, Keys.END)
    assert page.js("return document.activeElement === [...document.querySelectorAll('#captions .t')].at(-1)")
    assert page.js("return window.scrolls") is False
    press(page, Keys.ARROW_RIGHT, Keys.HOME)
    assert focused(page) == tokens[0]
    assert len(page.all('#captions .t[tabindex="0"]')) == 1
    assert len(page.all('#captions .t[aria-selected="true"]')) == 1


@pytest.mark.parametrize("way", ["hover", "focus"])
def test_a_token_shows_its_numbers(page: Browser, way: str) -> None:
    page.sample(2)
    token = page.all("#captions .t")[page.tokens().index("three")]
    if way == "hover":
        ActionChains(page.driver).move_to_element(token).perform()
    else:
        page.js("arguments[0].focus()", token)
    tip = page.one("#tip")
    page.wait(tip.is_displayed)
    assert token.get_attribute("aria-describedby") == "tip"
    rows = dict(line.rsplit("\t", 1) for line in page.js(ROWS))
    assert list(rows) == ["with the image", "with a blank image", "gap", "logit gap", "weight"]
    assert rows["with the image"].endswith(" %") and float(rows["gap"].replace("−", "-")) < -7
    assert "less likely with the image" in page.text("#tip p") and page.text("#tip b") == "three"
    inside = page.js("const r = arguments[0].getBoundingClientRect(); return [r.left, r.top, r.right]", tip)
    assert inside[0] >= 0 and inside[1] >= 0 and inside[2] <= 1160
    press(page, Keys.ESCAPE)
    assert not tip.is_displayed()


ROWS = "return [...document.querySelectorAll('#tip tr')].map((r) => [...r.cells].map((c) => c.textContent).join('\\t'))"


def test_the_numbers_follow_the_settings(page: Browser) -> None:
    page.sample(2)
    page.js("document.getElementById('numbers').open = true; document.querySelector('#captions .t').focus()")
    page.wait(lambda: len(page.all("#numbers tbody tr")) == len(page.tokens()))
    page.js("document.getElementById('method').value = 'prior'")
    page.js("document.getElementById('method').dispatchEvent(new Event('change'))")
    weights = page.js("return [...document.querySelectorAll('#numbers tbody tr')].map((r) => r.lastChild.textContent)")
    assert page.js(ROWS)[-1] == f"weight\t{weights[0]}"
    assert len(set(weights)) > 10


def test_names_and_roles(page: Browser) -> None:
    page.sample(0)
    unnamed = page.js(
        """
        const named = (e) => e.labels?.length || e.ariaLabel || e.textContent.trim() || e.querySelector("img")?.alt;
        return [...document.querySelectorAll("button, input, select, textarea, summary, [role=listbox]")]
          .filter((e) => !named(e)).map((e) => e.outerHTML)
        """
    )
    assert unnamed == []
    assert page.js("return [...document.images].filter((i) => !i.hidden && !i.alt).length") == 0
    assert page.js("return document.documentElement.lang") == "en"
    assert page.one("#status").get_attribute("role") == "status"
    assert {t.get_attribute("role") for t in page.all("#captions .t")} == {"option"}
    levels = page.js("return [...document.querySelectorAll('h1, h2, h3')].map((h) => h.tagName)")
    assert levels[0] == "H1" and levels.count("H1") == 1


CONTRAST = """
const parse = (colour) => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return { rgb: [r, g, b], alpha: a / 255 };
};
const light = ([r, g, b]) => {
  const linear = (v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
};
const ratio = (a, b) => {
  const [high, low] = [light(a), light(b)].sort((x, y) => y - x);
  return (high + 0.05) / (low + 0.05);
};
const behind = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const { rgb, alpha } = parse(getComputedStyle(e).backgroundColor);
    if (alpha > 0.99) return rgb;
  }
};
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_read_on_every_colour(page: Browser, dark: bool) -> None:
    page.media(dark)
    page.sample(2)
    found = page.js(
        CONTRAST
        + """
        const out = {};
        const token = document.querySelector("#captions .t");
        for (const by of ["gap", "logit", "weight"]) {
          document.getElementById("captions").dataset.by = by;
          for (let level = -4; level <= 4; level++) {
            token.dataset.level = level;
            const style = getComputedStyle(token);
            out[`${by} ${level}`] = ratio(parse(style.color).rgb, behind(token));
            if (level < 0 && by === "gap") {
              token.dataset.doubt = level;
              const line = parse(getComputedStyle(token).textDecorationColor).rgb;
              out[`line ${level}`] = ratio(line, behind(token)) * 1.5; // to be held against 3 as text against 4.5
            }
          }
        }
        return out;
        """
    )
    assert len(found) == 27 + 4
    assert {name: value for name, value in found.items() if value < AA} == {}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_other_text_can_be_read(page: Browser, server: Server, dark: bool) -> None:
    page.media(dark)
    page.sample(2)
    page.js("document.getElementById('numbers').open = true; document.querySelector('#captions .t').focus()")
    page.js("document.getElementById('problem').hidden = false")
    page.wait(lambda: page.all("#numbers td"))
    found = page.js(
        CONTRAST
        + """
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        const low = [];
        let seen = 0;
        while (walker.nextNode()) {
          const element = walker.currentNode.parentElement;
          const drawn = element.checkVisibility() && !element.closest("option");
          if (!walker.currentNode.textContent.trim() || !drawn) continue;
          seen++;
          const value = ratio(parse(getComputedStyle(element).color).rgb, behind(element));
          if (value < 4.5) low.push([element.outerHTML, value]);
        }
        const focus = parse(getComputedStyle(document.documentElement).getPropertyValue("--down")).rgb;
        return [low, seen, ratio(focus, behind(document.body)), getComputedStyle(document.body).backgroundColor];
        """
    )
    assert found[0] == [] and found[1] > 100
    assert found[2] >= LINES
    assert found[3] == ("rgb(20, 21, 24)" if dark else "rgb(250, 249, 247)")


def test_the_contrast_test_sees_faint_text(page: Browser) -> None:
    """Negative control."""
    page.sample(2)
    script = 'const t = document.querySelector("#captions .t"); t.style.color = "#b06a20"; t.dataset.level = 4;'
    value = page.js(CONTRAST + script + "return ratio(parse(getComputedStyle(t).color).rgb, behind(t))")
    assert value < AA


def test_a_phone_shows_all_without_scrolling_sideways(server: Server, chromium: Browser) -> None:
    server.reset()
    chromium.open(server.url, 360, 780)
    assert wide(chromium) == []
    chromium.sample(3)
    chromium.js("document.getElementById('numbers').open = true; document.querySelectorAll('#captions .t')[8].focus()")
    for method in ("cal", "prior", "vig-row"):
        chromium.js("document.getElementById('method').value = arguments[0]", method)
        chromium.js("document.getElementById('method').dispatchEvent(new Event('change'))")
        assert wide(chromium) == []
    chromium.js("document.getElementById('set-threshold').click()")
    assert wide(chromium) == []
    assert chromium.complaints() == []


def wide(page: Browser) -> list[str]:
    """What reaches beyond the right edge, the insides of scrolling tables aside."""
    return page.js(
        """
        if (innerWidth !== 360 || document.documentElement.scrollWidth > 360) return ["the page"];
        return [...document.querySelectorAll("body *")]
          .filter((e) => e.checkVisibility() && !e.closest(".hidden, .scroll *"))
          .filter((e) => e.getBoundingClientRect().right > 360.5).map((e) => e.outerHTML)
        """
    )


def test_an_unbroken_text_stays_inside_a_phone(server: Server, chromium: Browser, picture: Path) -> None:
    server.reset()
    chromium.open(server.url, 360, 780)
    long_name = picture.with_name("x" * 200 + ".png")
    long_name.write_bytes(picture.read_bytes())
    score_text(chromium, long_name, "supercalifragilistic" * 12)
    assert wide(chromium) == []


def test_white_space_and_emoji(page: Browser, picture: Path) -> None:
    text = "One star.\n\nTwo 👩‍👩‍👧 rings 🪁!\tEnd  "
    score_text(page, picture, text)
    shown = page.text("#captions")
    assert "↵" in shown and "⇥" in shown
    assert "inset" in page.one("#captions .space").value_of_css_property("box-shadow")
    tokens = page.tokens()
    assert "👩‍👩‍👧" in tokens and "🪁" in tokens
    assert "\ufffd" not in shown
    page.js("document.querySelectorAll('#captions .t')[arguments[0]].focus()", tokens.index("🪁"))
    assert page.text("#tip b") == "🪁" and re.search(r"\d tokens", page.text("#tip .count"))
    # A line break is still one: what follows stands further down.
    tops = page.js("return [...document.querySelectorAll('#captions .t')].map((t) => t.getBoundingClientRect().top)")
    assert tops[-1] > tops[0] + 50


def test_text_from_right_to_left(page: Browser, picture: Path) -> None:
    score_text(page, picture, "שני משולשים כחולים")
    assert page.text("#captions") == "שני משולשים כחולים"
    assert page.js("return getComputedStyle(document.querySelector('.caption')).direction") == "rtl"
    lefts = page.js("return [...document.querySelectorAll('#captions .t')].map((t) => t.getBoundingClientRect().left)")
    assert all(left >= right for left, right in pairwise(lefts))
    page.js("document.querySelector('#captions .t').focus()")
    press(page, Keys.ARROW_LEFT)
    assert page.js("return document.activeElement === document.querySelectorAll('#captions .t')[1]")


def test_a_caption_that_fills_the_context_recolours_in_one_go(page: Browser, picture: Path) -> None:
    """Slider moves go through without a request, and draw nothing anew: the elements stay."""
    sentence = "There are two large purple hearts at the upper right. "
    score_text(page, picture, (sentence * 170).strip())
    assert len(page.tokens()) > 1850
    assert page.js("return document.querySelectorAll('#numbers tr').length") == 0  # made when it is opened
    found = page.js(
        """
        const first = document.querySelector("#captions .t");
        const slider = document.getElementById("param-high");
        const levels = [];
        for (const value of [2, 3, 4]) {
          slider.value = value;
          slider.dispatchEvent(new Event("input", { bubbles: true }));
          levels.push([...document.querySelectorAll("#captions .t")].map((t) => t.dataset.level).join(""));
        }
        return [new Set(levels).size, first.isConnected];
        """
    )
    assert found == [3, True]
