"""Numbers and names as they are read."""

from __future__ import annotations

import math

import pytest

from pipelines import formatting
from pipelines.report import page as report


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.634, "63 %"), (0.9999999, "> 99.99 %"), (0.99321, "99.32 %"), (0.00021, "0.021 %"), (0.0, "< 0.0001 %")],
)
def test_percentages(value: float, text: str) -> None:
    assert report.percent(value) == text
    assert report.percent(math.nan) == "–"


def test_words_for_numbers() -> None:
    names = ("org/model", "/data/models/mini/model/", None)
    assert [formatting.model_name(n) for n in names] == ["org/model", "models/mini/model", "unnamed model"]
    assert report.comparison(math.log(3.44)) == "3.4 times more likely with the image"
    assert report.comparison(-math.log(1234)) == "1,234 times less likely with the image"
    assert report.comparison(0.01) == "as likely with the image as without"
    assert report.comparison(99.0) == "over 10,000 times more likely with the image"
    assert [report.duration(s) for s in (1.26, 48, 754, 12_345)] == ["1.3 s", "48 s", "13 min", "3.4 h"]
    assert [report.rate(r) for r in (None, 0.123, 12.34, 4321.0)] == ["–", "0.123", "12.3", "4,321"]
