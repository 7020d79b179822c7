"""Create the README's image of the page: ``python docs/page_screenshot.py URL docs/page.png``.

Needs a running service, Chromium and chromedriver on the path, and the extra ``dev``. The image shows a sample whose
caption contradicts it.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

WIDTH, HEIGHT = 1160, 958
SAMPLE = "#samples button:nth-child(5)"
LIMIT = 300_000
SECONDS = 60
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # opens only a page of this machine
    "--disable-gpu",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
)


def screenshot(url: str) -> bytes:
    """Return a PNG of the page at ``url`` once the sample is scored."""
    options = ChromeOptions()
    for option in OPTIONS:
        options.add_argument(option)
    with Chrome(options=options, service=ChromeService(shutil.which("chromedriver"))) as driver:
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(url)
        wait = WebDriverWait(driver, SECONDS)
        wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, SAMPLE))[0].click()
        wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, "#captions .t"))
        return driver.get_screenshot_as_png()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("image", type=Path)
    options = parser.parse_args()
    Image.open(io.BytesIO(screenshot(options.url))).convert("RGB").quantize(256).save(options.image, optimize=True)
    size = options.image.stat().st_size
    if size > LIMIT:
        sys.exit(f"{options.image} has {size:,} bytes, more than {LIMIT:,}; reduce HEIGHT")
    print(f"{options.image}: {size:,} bytes")


if __name__ == "__main__":
    main()
