"""The rows that encoding is measured on are what their case says, and a measurement counts them all."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import encoding
from benchmarks.encoding import Case, jpegs, measure


def sizes(files: list[bytes]) -> set[tuple[int, int]]:
    return {Image.open(io.BytesIO(data)).size for data in files}


def test_no_two_rows_share_a_file_unless_the_case_says_so() -> None:
    files = jpegs(Case((64, 48), 6))
    assert len(set(files)) == 6
    assert sizes(files) == {(64, 48)}
    assert len(sizes(jpegs(Case((64, 48), 6, distinct=True)))) == 6
    captions = jpegs(Case((64, 48), 6, captions=3))
    assert len(captions) == 6
    assert captions[:3] == captions[:1] * 3
    assert len(set(captions)) == 2


def test_a_measurement_encodes_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case((64, 48), 4)
    monkeypatch.setitem(encoding.CASES, "small", case)
    images = tmp_path / "images"
    images.write_bytes(pickle.dumps(jpegs(case)))
    measured = measure("LLaVA-1.5-7B", "small", str(images))
    assert measured["rows"] == 4
    assert measured["rows_per_cpu_s"] > 0
    assert 300 < measured["kilobytes_per_row"] < 400, "336 x 336 bytes of three channels, and no blank"
