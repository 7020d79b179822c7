"""Headless Chromium with the page in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

WAIT = 30
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # it opens one page of this machine
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--lang=en",
)


class NoBrowserError(Exception):
    """Chromium or its driver is not installed."""


def _path(*names: str) -> str:
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        raise NoBrowserError(f"none of {', '.join(names)} is on the path; apt-get install chromium chromium-driver")
    return found


class Browser:
    """What the tests do with the page."""

    def __init__(self, profile: Path) -> None:
        options = ChromeOptions()
        options.binary_location = _path("chromium", "chromium-browser", "google-chrome")
        for option in (*OPTIONS, f"--user-data-dir={profile}"):
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = Chrome(options=options, service=ChromeService(_path("chromedriver")))
        self.driver.set_script_timeout(WAIT)
        permissions = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
        self.driver.execute_cdp_cmd("Browser.grantPermissions", permissions)

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.driver.quit()

    def open(self, url: str, width: int = 1160, height: int = 900, dark: bool = False) -> None:
        """The page in a window of this size; waits for the samples, which come last."""
        self.media(dark)
        self.size(width, height)
        self.driver.get(url)
        self.wait(lambda: len(self.all("#samples button")) == 6 and self.text("#model") != "")
        self.complaints()

    def media(self, dark: bool) -> None:
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    @contextmanager
    def offline(self) -> Iterator[None]:
        """No server can be reached."""
        conditions = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.driver.execute_cdp_cmd("Network.enable", {})
        self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", conditions)
        try:
            yield
        finally:
            self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {**conditions, "offline": False})

    def complaints(self) -> list[str]:
        """What the console has said since the last call: errors, and violations of the policy."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]

    def wait(self, condition: Any) -> None:
        WebDriverWait(self.driver, WAIT, poll_frequency=0.02).until(lambda _: condition())

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """textContent: what is there, seen or not."""
        return self.js("return document.querySelector(arguments[0]).textContent", selector)

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def module(self, script: str, *arguments: Any) -> Any:
        """Run ``script`` as the body of an async function; it may import the page's modules."""
        wrapped = (
            "const done = arguments[arguments.length - 1]; const args = [...arguments].slice(0, -1);"
            f"(async () => {{ {script} }})().then(done, (error) => done({{error: String(error)}}));"
        )
        return self.driver.execute_async_script(wrapped, *arguments)

    def write(self, text: str) -> None:
        """The caption, as if typed; WebDriver itself cannot type characters beyond the BMP."""
        self.js(
            "const c = document.getElementById('caption'); c.value = arguments[0];"
            "c.dispatchEvent(new Event('input', {bubbles: true}))",
            text,
        )

    def choose(self, path: Path) -> None:
        self.one("#file").send_keys(str(path))

    def score(self) -> None:
        self.one("#score").click()
        self.settled()

    def settled(self) -> None:
        """The answer, or the error, is shown."""
        self.wait(lambda: self.one("#score-form").get_attribute("aria-busy") == "false")

    def sample(self, number: int) -> None:
        self.js("document.getElementById('score-form').removeAttribute('aria-busy')")
        self.all("#samples button")[number].click()
        self.settled()

    def clipboard(self) -> str:
        """What was copied, once it is there."""
        self.wait(lambda: "Copied" in self.text("#status"))
        return self.module("return navigator.clipboard.readText()")

    def copy(self, what: str) -> str:
        """Press "Copy JSON" or "Copy curl", and take what was copied."""
        self.js("document.getElementById('status').textContent = ''")
        self.one(f"#copy-{what}").click()
        return self.clipboard()

    def tokens(self) -> list[str]:
        return self.js("return [...document.querySelectorAll('#captions .t')].map((t) => t.textContent)")

    def levels(self) -> list[str]:
        return self.js("return [...document.querySelectorAll('#captions .t')].map((t) => t.dataset.level)")

    def shot(self, path: Path) -> None:
        """The whole page as PNG."""
        height = self.js("return document.documentElement.scrollHeight")
        width = self.js("return document.documentElement.clientWidth")
        self.size(width, height)
        self.driver.save_screenshot(str(path))
