"""Measure what float32 logits gain in low precision, and cost: ``python -m benchmarks.precision``.

The packaged model scores the packaged sample in float32, and in bfloat16 and float16 with two projections of the same
states: the class's own, whose logits have the model's dtype, and ours. The error of a gap is its difference from the
gap of the float32 model. It has two parts: that of the states, which no projection mends, and that of the projection,
which is the difference from the same states projected in float64.

Then the projection alone is timed at the heads of LLaVA-1.5-7B and Qwen2.5-VL-7B on one thread, in pairs, and its peak
memory is read in a fresh process. A GPU has a product that widens, so that nothing is converted there; it is not
measured here.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from scorer import Sample, Scorer, ScorerConfig, TokenScores
from scorer.forward.head import Head
from scorer.forward.labels import project_labels
from scorer.mini import MODEL_PATH, SAMPLE_PATH
from scorer.versions import versions

RESULTS: Final = Path(__file__).parent / "results" / "precision.json"
SHAPES: Final = {"LLaVA-1.5-7B": (32_064, 4096), "Qwen2.5-VL-7B": (152_064, 3584)}
"""Rows and columns of the heads."""
LABELS: Final = 1024
PAIRS: Final = 5

Column = npt.NDArray[np.float64]


class ClassHead(Head):
    """The class's own projection: logits in the model's dtype, converted afterwards."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self._widens = self._converts = False


class ExactHead(ClassHead):
    """The same states and weights, multiplied in float64."""

    def logits(self, hidden: Tensor) -> Iterator[Tensor]:
        yield hidden.double() @ self._module.weight.double().T


def rows() -> list[Sample]:
    """Return the sample's rows that can be scored."""
    found = []
    for path in sorted(SAMPLE_PATH.glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            if row["planted"] is None:
                image = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
                found.append(Sample.caption(row["id"], image, row["caption"]))
    return found


def gaps(scorer: Scorer, samples: Sequence[Sample], head: type[Head] = Head) -> dict[str, Column]:
    """Return the gaps of all tokens, [N] each, with one of the projections."""
    scorer.model._head = head(scorer.model.model.get_output_embeddings())
    results = [one for one in scorer.score(samples) if isinstance(one, TokenScores)]
    assert len(results) == len(samples)
    return {
        "logit_gap": np.concatenate([one.logit_gap for one in results]).astype(np.float64),
        "logprob_gap": np.concatenate([one.logprob_gap for one in results]).astype(np.float64),
    }


def rms(values: Column) -> float:
    return float(np.sqrt(np.mean(values**2)))


def accuracy() -> dict[str, Any]:
    samples = rows()
    full = gaps(Scorer.load(MODEL_PATH, ScorerConfig(device="cpu")), samples)
    found: dict[str, Any] = {"tokens": len(full["logit_gap"])}
    for dtype in ("bfloat16", "float16"):
        scorer = Scorer.load(MODEL_PATH, ScorerConfig(device="cpu", dtype=dtype))  # type: ignore[arg-type]  # one of ours
        exact = gaps(scorer, samples, ExactHead)
        for name, head in (("class", ClassHead), ("float32", Head)):
            ours = gaps(scorer, samples, head)
            found[f"{dtype}, {name}"] = {
                "distinct": len(np.unique(ours["logit_gap"])),
                "multiples_of_a_32nd": float(np.mean(ours["logit_gap"] * 32 % 1 == 0)),
                **{f"{key}_rms": rms(ours[key] - full[key]) for key in full},
                **{f"{key}_rms_of_projection": rms(ours[key] - exact[key]) for key in full},
            }
    return found


class Projection:
    """What :func:`project_labels` asks of a model, and nothing else."""

    def __init__(self, head: Head) -> None:
        self.head, self.vocabulary = head, head.vocabulary
        self.block, self.projection_width = head.block, head.width
        self.project = head.logits


@torch.inference_mode()
def project(name: str, head: type[Head], labels: int) -> Any:
    """Return a function that projects a number of states of a model's shape, in bfloat16."""
    vocabulary, width = SHAPES[name]
    module = torch.nn.Linear(width, vocabulary, bias=False, dtype=torch.bfloat16, device="meta")
    module = module.to_empty(device="cpu").requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for part in module.weight.split(4096):  # type: ignore[no-untyped-call]  # torch leaves it untyped
        part.copy_(torch.randn(part.shape, generator=generator) / width**0.5)
    states = torch.randn(labels, width, generator=generator).bfloat16()
    wanted = torch.randint(vocabulary, (labels,), generator=generator)
    model: Any = Projection(head(module))
    return lambda: project_labels(model, states, wanted)


HEADS: Final[Mapping[str, type[Head]]] = {"class": ClassHead, "float32": Head}


@torch.inference_mode()
def cost(name: str) -> dict[str, Any]:
    """Time both projections of one head in turn, and read the peak memory of each."""
    works = {key: project(name, head, LABELS) for key, head in HEADS.items()}
    seconds: dict[str, list[float]] = {key: [] for key in works}
    for turn in range(PAIRS + 1):
        for key, work in works.items():
            start = time.perf_counter()
            work()
            if turn:  # the first one warms up
                seconds[key].append(time.perf_counter() - start)
    ratios = sorted(ours / own for own, ours in zip(seconds["class"], seconds["float32"], strict=True))
    return {
        "vocabulary": SHAPES[name][0],
        "width": SHAPES[name][1],
        "labels": LABELS,
        **{f"{key}_seconds": median(times) for key, times in seconds.items()},
        "float32_over_class": {"median": median(ratios), "range": [ratios[0], ratios[-1]]},
        "peak_mb": {key: peak(name, key) for key in HEADS},
    }


def peak(name: str, key: str) -> float:
    """Return the most memory that a projection takes besides its head and its states, in MB, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.precision", "--peak", name, key]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return float(done.stdout.splitlines()[-1])


def _peak(name: str, key: str) -> float:
    work = project(name, HEADS[key], LABELS)
    before = _memory("VmRSS")
    # Linux counts the peak from here on.
    Path("/proc/self/clear_refs").write_text("5")
    with torch.inference_mode():
        work()
    return round((_memory("VmHWM") - before) / 1e3, 1)


def _memory(field: str) -> int:
    """Return a field of this process's memory, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--peak", nargs=2, metavar=("MODEL", "PROJECTION"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if options.peak:
        print(_peak(*options.peak))
        return
    result = {"accuracy": accuracy(), "cost": {name: cost(name) for name in SHAPES}, "versions": versions("torch")}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    show(result)


def show(result: Mapping[str, Any]) -> None:
    """Print the tables."""
    print(f"{result['accuracy']['tokens']:,} tokens of the sample; errors against the float32 model, rms")
    print(
        f"{'':20}{'distinct':>9}{'× 1/32':>9}{'logit gap':>11}{'projection':>11}{'logprob gap':>12}{'projection':>11}"
    )
    for name, one in result["accuracy"].items():
        if isinstance(one, dict):
            print(
                f"{name:20}{one['distinct']:9,}{one['multiples_of_a_32nd']:9.1%}{one['logit_gap_rms']:11.4f}"
                f"{one['logit_gap_rms_of_projection']:11.1e}{one['logprob_gap_rms']:12.4f}"
                f"{one['logprob_gap_rms_of_projection']:11.1e}"
            )
    print(f"\n{LABELS:,} labels in bfloat16, one thread")
    for name, one in result["cost"].items():
        ratio, peaks = one["float32_over_class"], one["peak_mb"]
        print(
            f"{name:20}class {one['class_seconds']:.2f} s, float32 {one['float32_seconds']:.2f} s, "
            f"{ratio['median']:.2f} × ({ratio['range'][0]:.2f}–{ratio['range'][1]:.2f}); "
            f"peak {peaks['class']:.0f} and {peaks['float32']:.0f} MB"
        )


if __name__ == "__main__":
    main()
