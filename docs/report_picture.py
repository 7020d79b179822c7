"""Make the README's picture of a report: ``python docs/report_picture.py OUTPUT/report.html docs/report.png``.

Needs Chromium on the path and the extra ``score``. The picture is the top of the page.
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
    "--no-sandbox",  # it opens one local file
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
)


def screenshot(page: Path, target: Path) -> None:
    """Write the top ``WIDTH`` × ``HEIGHT`` pixels of ``page`` as PNG."""
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
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        screenshot(options.report, shot)
        Image.open(shot).convert("RGB").quantize(256).save(options.picture, optimize=True)
    size = options.picture.stat().st_size
    if size > LIMIT:
        sys.exit(f"{options.picture} has {size:,} bytes, more than {LIMIT:,}; lower HEIGHT")
    print(f"{options.picture}: {size:,} bytes")


if __name__ == "__main__":
    main()
