"""The report of a real job, on the fake model: what the job writes is what the report reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.report.page import write_report
from tests.pipelines.helpers import make_job, run, write_dataset
from tests.pipelines.report.html_page import Page


@pytest.mark.parametrize("layout", ["sidecar", "merged"])
def test_a_job_and_its_report_agree(tmp_path: Path, layout: str) -> None:
    output = tmp_path / "out"
    job = make_job(write_dataset(tmp_path / "in"), output, layout=layout)
    summary = run(job)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    write_report(job.store.root, job.source, str(tmp_path / "report.html"))
    page = Page(tmp_path / "report.html")
    tiles = {tile.all("dt")[0].text: tile.all("dd")[0].text for tile in page.root.all("dl")[0].all("div")}
    assert (tiles["rows"], tiles["scored"], tiles["failed"]) == ("38", "34", "4")
    assert int(tiles["tokens"]) == summary["tokens"]
    captions = {caption.text for caption in page.root.all("p", **{"class": "caption"})}
    assert {text.split()[1] for text in captions} == {"kite"} and len(captions) >= 24
    (failures,) = page.root.all("section", id="failures")
    for text in ("text_missing", "image_unreadable", "a.parquet, row 3", "sub/b.parquet, row 5"):
        assert text in failures.text
    assert "fake" in page.root.all("pre")[0].text
    # Reading changes nothing.
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
