"""A method that needs the whole dataset's gaps gets them from the output, or says why it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.run.job import prepare
from scorer.errors import ConfigError, TableError
from scorer.training import WeightTable, read_weights
from scorer.weighting.dataset_gaps import DatasetGaps
from scorer.weights import Method, top_tokens
from tests.pipelines.helpers import make_job, run, write_dataset


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    run(make_job(write_dataset(tmp_path / "data", {"a.parquet": 30, "b.parquet": 30}), tmp_path / "out"))
    return tmp_path / "out"


def edit_summary(output: Path, **changes: Any) -> None:
    summary = json.loads((output / "_SUCCESS").read_text())
    summary.update(changes)
    (output / "_SUCCESS").write_text(json.dumps({k: v for k, v in summary.items() if v is not None}))


def means(output: Path) -> list[float]:
    rows = [row.scores for row in read_weights(output) if row.ok]
    return [float(np.mean(s.logprob_clean.astype(np.float64) - s.logprob_contrast)) for s in rows if s is not None]


@pytest.mark.parametrize("share", [0.3, 0.7, 1.0])
def test_the_threshold_is_that_of_the_whole_dataset(finished: Path, share: float) -> None:
    table = WeightTable.open(finished, method=Method("vig", {"keep": share}))
    method = table.published.derive
    assert isinstance(method, Method)
    found = means(finished)
    reached = np.mean([mean >= method.params["threshold"] for mean in found])
    assert share <= reached <= share + 0.1
    for row in table:
        if row.ok:
            assert row.weights is not None and set(row.weights.tolist()) <= {0.0, 1.0}


def test_a_part_of_an_output_has_the_same_threshold(finished: Path) -> None:
    whole, part = read_weights(finished, method="vig"), read_weights(finished / "b.parquet", method="vig")
    assert part.shards == ("b.parquet",)
    assert part.derive == whole.derive != Method("vig")


def test_a_threshold_that_is_set_needs_nothing(finished: Path) -> None:
    (finished / "_SUCCESS").unlink()
    published = read_weights(finished, method=Method("vig", {"threshold": 0.5}), allow_unfinished=True)
    assert published.derive == Method("vig", {"threshold": 0.5})


WORDS = "the method 'vig' takes its threshold from the gaps of the whole dataset"


def test_an_unfinished_run_is_refused(finished: Path) -> None:
    (finished / "_SUCCESS").unlink()
    with pytest.raises(
        TableError, match=rf"{WORDS}, but the run of .* is not finished, and .*: let it finish; or set threshold"
    ):
        read_weights(finished, method="vig", allow_unfinished=True)


def test_an_output_of_an_earlier_release_is_refused(finished: Path) -> None:
    edit_summary(finished, gaps=None)
    with pytest.raises(TableError, match=rf"{WORDS}, but an earlier release published .* without its gaps: score the"):
        read_weights(finished, method="vig")


def test_damaged_gaps_are_refused(finished: Path) -> None:
    edit_summary(finished, gaps={"blank": {"tokens": {}, "rows": {}}})
    with pytest.raises(
        TableError, match=rf"{WORDS}, but the gaps in .*_SUCCESS are damaged \(a histogram lacks its lists"
    ):
        read_weights(finished, method="vig")


def test_a_contrast_without_gaps_is_refused(finished: Path) -> None:
    with pytest.raises(
        TableError, match=r"has no gaps of the contrast 'masked'; it has blank: choose one of them; or set"
    ):
        read_weights(finished, method="vig", contrast="masked")


def test_a_dataset_without_scored_rows_has_no_threshold(finished: Path) -> None:
    edit_summary(finished, gaps={"blank": DatasetGaps().to_dict()})
    with pytest.raises(TableError, match="has no scored row with an image, and so no gaps"):
        read_weights(finished, method="vig")


def test_gaps_give_thresholds_of_ones_own(finished: Path) -> None:
    """The best quarter of all tokens, and the better half of the rows."""
    published = read_weights(finished)
    threshold, kept = published.gaps().tokens.top(0.25)
    chosen = [
        row.weights for row in read_weights(finished, method=Method("vig-row", {"threshold": threshold})) if row.ok
    ]
    assert np.concatenate(chosen).mean() == pytest.approx(kept) and kept >= 0.25  # type: ignore[arg-type]
    threshold, kept = published.gaps("blank").rows.top(0.5)
    assert np.mean([mean >= threshold for mean in means(finished)]) == kept >= 0.5
    assert read_weights(finished / "a.parquet").gaps() == published.gaps()
    with pytest.raises(TableError, match="no gaps of the contrast 'masked'; it has blank: choose one of them"):
        published.gaps("masked")


def test_one_sample_has_no_threshold(finished: Path) -> None:
    row = next(row for row in read_weights(finished) if row.ok)
    assert row.scores is not None
    with pytest.raises(ConfigError, match=rf"{WORDS}, which one sample does not tell: read a finished output"):
        Method("vig")(row.scores)


def test_a_run_cannot_store_what_is_known_after_it(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", {"a.parquet": 3})
    with pytest.raises(ConfigError, match=rf"{WORDS}, which are known when the run is finished: score with another"):
        prepare(make_job(data, tmp_path / "out", method=Method("vig")))
    run(make_job(data, tmp_path / "out", method=Method("vig", {"threshold": 0.1})))


@pytest.mark.parametrize("share", [0.1, 0.25, 1.0])
def test_the_best_share_of_all_tokens(finished: Path, share: float) -> None:
    """In whichever rows they are: counted over the dataset, not in each row."""
    published = read_weights(finished, method=Method("top-tokens", {"keep": share}))
    rows = [row for row in published if row.ok]
    gaps = [row.scores.logprob_clean.astype(np.float64) - row.scores.logprob_contrast for row in rows]  # type: ignore[union-attr]
    kept = np.concatenate([row.weights for row in rows])  # type: ignore[misc]
    threshold, reached = read_weights(finished).gaps().tokens.top(share)
    assert share <= reached == kept.mean() <= share + 0.05
    assert np.array_equal(kept, np.concatenate(gaps) >= threshold)
    by_row = [row.weights.mean() for row in rows]  # type: ignore[union-attr]
    assert share == 1 or np.ptp(by_row) > 0.3, "negative control: a share of each row would be alike in all"


def test_the_best_tokens_need_the_dataset(finished: Path) -> None:
    row = next(row for row in read_weights(finished) if row.ok)
    assert row.scores is not None
    words = "the method 'top-tokens' takes its threshold from the gaps of the whole dataset, which one sample does not"
    with pytest.raises(ConfigError, match=words):
        Method("top-tokens")(row.scores)
    with pytest.raises(ValueError, match="top-tokens needs a threshold"):
        top_tokens(row.scores)
