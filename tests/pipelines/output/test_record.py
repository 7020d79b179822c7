"""What makes two runs the same run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scorer.errors import OtherRunError
from scorer.weights import Method
from tests.pipelines.helpers import make_job, run, write_dataset


def test_a_parameter_that_a_later_release_adds_has_its_default(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", {"x.parquet": 3})
    run(make_job(data, tmp_path / "out"))
    record = json.loads((tmp_path / "out" / "_run.json").read_text())
    del record["method"]["params"]["edges"]
    (tmp_path / "out" / "_run.json").write_text(json.dumps(record))
    run(make_job(data, tmp_path / "out"))
    with pytest.raises(OtherRunError, match=r'method\.params\.edges  "turn" → "paper"'):
        run(make_job(data, tmp_path / "out", method=Method("cal", {"edges": "paper"})))


def test_a_method_that_this_release_does_not_know_is_another(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", {"x.parquet": 3})
    run(make_job(data, tmp_path / "out"))
    record = json.loads((tmp_path / "out" / "_run.json").read_text())
    record["method"] = {"name": "calm", "params": {}}
    (tmp_path / "out" / "_run.json").write_text(json.dumps(record))
    with pytest.raises(OtherRunError, match=r'method\.name +"calm" → "cal"'):
        run(make_job(data, tmp_path / "out"))
