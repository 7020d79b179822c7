"""Read and encode mutated datasets of every format, and count what their rows became; a run must never end.

    python -m benchmarks.fuzz_sources --examples 10000

Writes ``benchmarks/results/fuzz_sources.json``: examples, ended runs with their errors, and the mutated rows by status.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.pipelines.sources.fuzzing import FILES, check


def fuzz(format: str, examples: int, first_seed: int) -> dict[str, Any]:
    """Return the counts of one format."""
    found: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    tried = 0

    @seed(first_seed)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(FILES[format][1])
    def run(written: Any) -> None:
        nonlocal tried
        tried += 1
        try:
            found.update(check(format, written))
        except Exception as error:  # counted, and the next example is tried
            ended[f"{type(error).__name__}: {str(error)[:300]}"] += 1
        if tried % 1000 == 0:
            print(f"{format}: {tried} examples, {sum(ended.values())} ended runs", flush=True)

    started = time.monotonic()
    run()
    return {
        "examples": tried,
        "ended_runs": sum(ended.values()),
        "errors": dict(ended),
        "rows": dict(sorted(found.items())),
        "seconds": round(time.monotonic() - started),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=10_000, help="of each format (default: %(default)s)")
    parser.add_argument("--format", choices=sorted(FILES), action="append", help="one format only; may be repeated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/fuzz_sources.json"))
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    results = {}
    for format in options.format or FILES:
        results[format] = fuzz(format, options.examples, options.seed)
        print(format, json.dumps(results[format], indent=1), flush=True)
    options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
