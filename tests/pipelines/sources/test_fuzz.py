"""No value of a row ends a run: a few hundred examples a format; ``python -m benchmarks.fuzz_sources`` runs more."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.pipelines.sources.fuzzing import FILES, check

EXAMPLES = 200


@pytest.mark.parametrize("format", sorted(FILES))
@pytest.mark.timeout(900)
def test_a_row_s_own_values_cost_that_row_only(format: str) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def run(data: st.DataObject) -> None:
        check(format, data.draw(FILES[format][1]))

    run()
