"""What goes wrong is shown, in words, and nothing that was sent becomes markup."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.support.select import Select

from tests.service.page.browser import Browser
from tests.service.page.server import Answer, Server

ATTACK = '<img src=x onerror="pwned=1"><script>pwned=1</script>\';pwned=1//'


@pytest.fixture
def failing(server: Server, chromium: Browser, picture: Path) -> Iterator[Browser]:
    """The page with a picture and a caption, ready to be scored; its console will tell of the failure."""
    server.reset()
    chromium.open(server.url)
    chromium.choose(picture)
    chromium.write("Two purple hearts.")
    yield chromium
    assert not [line for line in chromium.complaints() if "Failed to load resource" not in line]
    assert chromium.js("return window.pwned") is None


def problem(status: int, code: str, detail: str) -> dict[str, object]:
    names = {"type": "about:blank", "title": "Not scored", "request_id": "abc123"}
    return {**names, "status": status, "code": code, "detail": detail}


def test_the_servers_own_problem_is_shown(failing: Browser, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    failing.choose(broken)
    failing.score()
    assert "image_unreadable" in failing.text("#problem code")
    assert failing.one("#problem").get_attribute("role") == "alert"
    assert failing.one("#problem").is_displayed()
    assert not failing.one("#result").is_displayed()


def test_busy_says_when_to_try_again(failing: Browser, server: Server) -> None:
    server.faults.answers.append(Answer(429, problem(429, "queue_full", "64 are waiting"), {"retry-after": "7"}))
    failing.score()
    text = failing.text("#problem")
    assert "64 are waiting" in text and "queue_full" in text and "request abc123" in text
    assert "Try again in 7 s." in text
    failing.one("#problem button").click()
    failing.settled()
    assert not failing.one("#problem").is_displayed()
    assert failing.text("#captions") == "Two purple hearts."


ODD_ANSWERS = [
    (Answer(502, "<h1>Bad gateway</h1>", media_type="text/html"), ["502", "http_502"]),
    (Answer(500, "{broken", media_type="application/json"), ["500", "http_500"]),
    (Answer(200, "<html>", media_type="text/html"), ["not JSON", "not_json"]),
    (Answer(503, ["odd"], media_type="application/json"), ["503", "http_503"]),
    (
        Answer(422, {**problem(422, "bad_request", "no"), "errors": [{"loc": ["body", "text"], "msg": "too long"}]}),
        ["Not scored", "body.text: too long"],
    ),
]


def test_odd_answers_are_shown(failing: Browser, server: Server) -> None:
    for answer, words in ODD_ANSWERS:
        server.faults.answers.append(answer)
        failing.score()
        assert [word for word in words if word not in failing.text("#problem")] == []


def test_a_server_that_is_gone_is_said_to_be(failing: Browser) -> None:
    with failing.offline():
        failing.score()
        assert "cannot be reached" in failing.text("#problem")
        failing.js("document.getElementById('problem').hidden = true")
        failing.all("#samples button")[1].click()
        failing.wait(lambda: failing.one("#problem").is_displayed())
        assert "cannot be reached" in failing.text("#problem")
        failing.score()
    failing.one("#problem button").click()
    failing.settled()
    assert failing.text("#captions") == "Two purple hearts."


def test_a_failed_contrast_leaves_what_was_there(failing: Browser, server: Server) -> None:
    failing.score()
    levels = failing.levels()
    server.faults.answers.append(Answer(503, problem(503, "not_ready", "loading")))
    Select(failing.one("#contrast")).select_by_value("masked")
    failing.wait(lambda: failing.one("#problem").is_displayed())
    assert failing.one("#contrast").get_attribute("value") == "blank"
    assert failing.levels() == levels


def test_an_outdated_request_is_aborted(failing: Browser, server: Server) -> None:
    server.faults.gate.clear()
    failing.one("#score").click()
    failing.wait(lambda: len(server.faults.scored) == 1)
    assert failing.text("#status") == "Scoring…"
    server.faults.gate.set()
    failing.sample(0)
    failing.wait(lambda: server.faults.disconnected == 1)
    assert failing.text("#captions").startswith("At first sight")
    assert not failing.one("#problem").is_displayed()


def test_a_request_can_be_cancelled(failing: Browser, server: Server) -> None:
    server.faults.gate.clear()
    failing.one("#score").click()
    failing.one("#cancel").click()
    failing.wait(lambda: server.faults.disconnected == 1)
    assert failing.text("#status") == "Cancelled."
    assert not failing.one("#cancel").is_displayed()
    assert not failing.one("#problem").is_displayed()


def test_a_server_without_models_is_an_error_that_can_be_tried_again(failing: Browser, server: Server) -> None:
    server.faults.models.append(Answer(503, problem(503, "not_ready", "the model is loading")))
    failing.driver.get(server.url)
    failing.wait(lambda: "the model is loading" in failing.text("#problem"))
    failing.one("#problem button").click()
    failing.wait(lambda: failing.text("#model") == "mini")
    assert not failing.one("#problem").is_displayed()


def test_nothing_is_scored_before_the_server_has_said_by_which_methods(failing: Browser, server: Server) -> None:
    loading = Answer(503, problem(503, "not_ready", "the model is loading"))
    server.faults.models += [loading, loading]
    failing.driver.get(server.url)
    failing.wait(lambda: "the model is loading" in failing.text("#problem"))
    failing.wait(lambda: len(failing.all("#samples button")) == 6)
    failing.sample(0)
    assert "the model is loading" in failing.text("#problem")
    assert server.faults.scored == []
    failing.one("#problem button").click()
    failing.wait(lambda: failing.tokens() != [])
    assert server.faults.scored == ["POST"]
    assert failing.text("#model") == "mini"


def test_markup_in_a_caption_a_file_name_or_an_error_is_text(failing: Browser, server: Server, tmp_path: Path) -> None:
    pictures = len(failing.all("img"))
    path = tmp_path / '"><img src=x onerror="pwned=1">.png'
    path.write_bytes((tmp_path / "two blue triangles.png").read_bytes())
    failing.choose(path)
    failing.write(ATTACK)
    failing.one("#prompt").send_keys(ATTACK)
    failing.score()
    assert failing.text("#captions") == ATTACK
    assert failing.text("#image-name") == path.name
    failing.js("document.getElementById('numbers').open = true")
    failing.js("document.querySelector('#captions .t').focus()")
    failing.wait(lambda: failing.text("#numbers tbody") != "")
    body = {**problem(422, ATTACK, ATTACK), "title": ATTACK, "request_id": ATTACK, "errors": [{"msg": f"{ATTACK}!"}]}
    server.faults.answers.append(Answer(422, body))
    failing.score()
    assert failing.text("#problem").count(ATTACK) == 5
    assert len(failing.all("img")) == pictures
    assert failing.all("#problem script") == []
