"""Drivers, actors, nodes and raylets are killed; what is published is the same to the byte.

One kill of each kind and two of drivers here; ``python -m benchmarks.faults`` does thirty in all.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.pipelines.faults.ray_kills import ACTORS, KINDS, Campaign
from tests.pipelines.helpers import make_job, published, run, write_dataset

SHARDS = {"a.parquet": 150, "b.parquet": 63, "empty.parquet": 0}
ROWS_PER_UNIT = 5


@pytest.mark.timeout(900)  # on a busy machine, starting a node takes long
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of Ray's own test cluster
def test_whatever_is_killed_the_output_is_exact(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", SHARDS)
    run(make_job(dataset, tmp_path / "whole"))
    campaign = Campaign(dataset, tmp_path, ("driver", *KINDS), seed=0)
    campaign.run()
    assert campaign.killed == Counter(campaign.kinds)
    assert published(campaign.output, list(SHARDS)) == published(tmp_path / "whole", list(SHARDS))
    again = campaign.rows_scored - sum(SHARDS.values())
    assert again <= campaign.killed.total() * ACTORS * ROWS_PER_UNIT, "a unit per actor and kill"
