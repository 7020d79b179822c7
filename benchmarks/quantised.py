"""Measure what quantised weights do to scores: ``python -m benchmarks.quantised``. Needs torchao and accelerate.

Rows are scored with the weights as saved, in float32; then with bfloat16, and with each quantization of torchao's,
which multiplies in the dtype that is named. For each, the error of the log-probability gap in nats and how far a CAL
weight moves, over all tokens. The packaged model scores its sample; models of random weights, whose gaps are so
small that CAL weights them all 1, score noise and show how the error relates to the gap.

    python -m benchmarks.quantised [--rows N]
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from benchmarks import random_models
from scorer.checkpoint.files import Checkpoint
from scorer.config import ScorerConfig
from scorer.engine import Scorer
from scorer.mini import MODEL_PATH, SAMPLE_PATH
from scorer.results import TokenScores
from scorer.types import Sample
from scorer.weights import cal

RESULTS: Final = Path(__file__).parent / "results" / "quantised.json"
VARIANTS: Final[dict[str, dict[str, Any]]] = {
    "bfloat16": {"dtype": "bfloat16"},
    "torchao-int8, float32": {"quantization": "torchao-int8"},
    "torchao-fp8, float32": {"quantization": "torchao-fp8"},
    "torchao-int8, bfloat16": {"quantization": "torchao-int8", "dtype": "bfloat16"},
    "torchao-fp8, bfloat16": {"quantization": "torchao-fp8", "dtype": "bfloat16"},
}
MOVED: Final = 0.1
"""A weight that moves by more counts as moved; CAL's weights lie between 1 and 5."""
SIDE: Final = 112
"""Width and height of a noise image, in pixels."""


def sample_rows(count: int) -> list[Sample]:
    """Return the first rows of the packaged sample; those that are meant to fail are left out by :func:`scored`."""
    rows = []
    for file in sorted(SAMPLE_PATH.glob("*.parquet")):
        for row in pq.read_table(file, columns=["id", "image", "caption"]).to_pylist():
            if row["image"]["bytes"] is not None and row["caption"]:
                rows.append(Sample.caption(row["id"], row["image"]["bytes"], row["caption"]))
    return rows[:count]


def noise_rows(count: int) -> list[Sample]:
    """Return rows of noise images with captions of the sample."""
    rng = np.random.default_rng(0)
    rows = []
    for row in sample_rows(count):
        buffer = BytesIO()
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(buffer, "PNG")
        rows.append(Sample.caption(row.sample_id, buffer.getvalue(), row.scored_texts[0]))
    return rows


def saved(make: Callable[[Path, bool], Any], path: Path) -> Path:
    """Write a small model of random weights and return its directory."""
    made = make(path, True)
    made.load_model(ScorerConfig(device="cpu")).save_pretrained(path)
    return path


def scored(scorer: Scorer, rows: Sequence[Sample]) -> list[TokenScores]:
    """Score rows; a row that fails must fail in every variant alike, which :func:`errors` checks by the ids."""
    return [one for one in scorer.score(rows) if isinstance(one, TokenScores)]


def errors(found: Sequence[TokenScores], full: Sequence[TokenScores]) -> dict[str, float]:
    """Return the errors of one variant's scores, over all tokens."""
    if [one.sample_id for one in found] != [one.sample_id for one in full]:
        raise SystemExit("other rows failed than with full precision: the figures would not be of the same tokens")
    gap = np.concatenate([a.logprob_gap - b.logprob_gap for a, b in zip(found, full, strict=True)])
    figures = {"gap_rms": _rms(gap), "gap_max": float(np.abs(gap).max())}
    if all((cal(one) == 1.0).all() for one in full):  # gaps below CAL's lower limit: no weight can move
        return figures
    weight = np.concatenate([cal(a) - cal(b) for a, b in zip(found, full, strict=True)])
    return figures | {
        "weight_rms": _rms(weight),
        "weight_max": float(np.abs(weight).max()),
        "weights_moved": float((np.abs(weight) > MOVED).mean()),
    }


def measure(checkpoint: Path, rows: Sequence[Sample]) -> dict[str, Any]:
    """Return the errors of all variants of one model."""
    full = scored(Scorer.load(checkpoint, ScorerConfig(device="cpu")), rows)
    gaps = np.concatenate([one.logprob_gap for one in full])
    weights = np.concatenate([cal(one) for one in full])
    found: dict[str, Any] = {
        "model_type": Checkpoint.locate(checkpoint).config.model_type,
        "rows": len(full),
        "tokens": len(gaps),
        "full": {"gap_rms": _rms(gaps), "weight_mean": float(weights.mean())},
    }
    for name, options in VARIANTS.items():
        found[name] = errors(scored(Scorer.load(checkpoint, ScorerConfig(device="cpu", **options)), rows), full)
        print(found["model_type"], name, found[name], flush=True)
    return found


def _rms(values: Any) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def main() -> None:
    """Measure all models and write :data:`RESULTS`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=240, help="rows of each model (default: %(default)s)")
    count = parser.parse_args().rows
    results = {"the packaged model": measure(MODEL_PATH, sample_rows(count))}
    makers = {"LLaVA, small, random": random_models.llava_7b, "Qwen2.5-VL, small, random": random_models.qwen2_5_vl_7b}
    for name, make in makers.items():
        path = Path(tempfile.mkdtemp())
        try:
            results[name] = measure(saved(make, path), noise_rows(count))
        finally:
            shutil.rmtree(path)
    about = {name: version(name) for name in ("torch", "torchao", "transformers")} | {"machine": platform.machine()}
    RESULTS.write_text(json.dumps({"versions": about, "models": results}, indent=2) + "\n")
    print(f"wrote {RESULTS}")


if __name__ == "__main__":
    main()
