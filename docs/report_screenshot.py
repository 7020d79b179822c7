"""Create the README's image of a report: ``python docs/report_screenshot.py OUTPUT/report.html docs/report.png``.

Needs Chromium on the path and the extra ``score``. The image shows the top of the page.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT = 1120, 1880
LIMIT = 300_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",  # opens only a local file
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
)


def screenshot(page: Path, target: Path) -> None:
    """Write the top ``WIDTH`` × ``HEIGHT`` pixels of ``page`` to ``target`` as PNG."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"none of {', '.join(BROWSERS)} is on the path; install one of them")
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, *OPTIONS, f"--user-data-dir={profile}", f"--window-size={WIDTH},{HEIGHT}"]
        command += [f"--screenshot={target}", page.resolve().as_uri()]
        subprocess.run(command, check=True, timeout=120, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("image", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        screenshot(options.report, shot)
        Image.open(shot).convert("RGB").quantize(256).save(options.image, optimize=True)
    size = options.image.stat().st_size
    if size > LIMIT:
        sys.exit(f"{options.image} has {size:,} bytes, more than {LIMIT:,}; reduce HEIGHT")
    print(f"{options.image}: {size:,} bytes")


if __name__ == "__main__":
    main()
