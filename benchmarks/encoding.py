"""Measure what encoding a row costs: rows for each CPU second, and bytes that travel, for images of several sizes.

    python -m benchmarks.encoding [--against FOLDER]

Writes ``benchmarks/results/encoding.json``. Encoders of LLaVA-1.5-7B and Qwen2.5-VL-7B shape, without weights, encode
JPEGs in one thread, each case in a process of its own. ``--against`` names a checkout of another version, which is
measured in turns with this one. The images are made up, with detail at every scale, and no two rows share one except
where a case says so.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

ROOT: Final = Path(__file__).parents[1]
OUTPUT: Final = Path("benchmarks/results/encoding.json")
MODELS: Final = ("LLaVA-1.5-7B", "Qwen2.5-VL-7B")


@dataclass(frozen=True)
class Case:
    """Rows to encode.

    Attributes:
        size: of the images, (width, height) in pixels.
        rows: how many.
        distinct: whether every image has another size.
        captions: rows that share an image.
        options: options of the scorer.
    """

    size: tuple[int, int]
    rows: int
    distinct: bool = False
    captions: int = 1
    options: tuple[tuple[str, Any], ...] = ()


CASES: Final = {
    "640 x 480": Case((640, 480), 60),
    "1344 x 1008": Case((1344, 1008), 24),
    "1344 x 1008, all sizes distinct": Case((1344, 1008), 24, distinct=True),
    "1344 x 1008, five captions an image": Case((1344, 1008), 60, captions=5),
    "4000 x 3000": Case((4000, 3000), 4),
    "4000 x 3000, jpeg_draft": Case((4000, 3000), 12, options=(("jpeg_draft", True),)),
}


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return an image with detail at every scale, as a photo has."""
    total = np.zeros((height, width, 3), dtype=np.float32)
    for octave in range(1, 11):
        cells = np.random.default_rng([seed, octave]).integers(0, 256, (2**octave, 2**octave, 3), dtype=np.uint8)
        whole = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(whole, dtype=np.float32) / 2**octave
    low, high = np.percentile(total, (0.5, 99.5))
    return Image.fromarray((255 * np.clip((total - low) / (high - low), 0, 1)).astype(np.uint8))


def jpegs(case: Case) -> list[bytes]:
    """Return one file for each row; equal images still differ in bytes unless rows share them."""
    (width, height), count = case.size, case.rows // case.captions
    base = photo(width + count, height)
    files: list[bytes] = []
    for i in range(count):
        if case.distinct or not files:
            with io.BytesIO() as file:
                base.crop((0, 0, width + i * case.distinct, height - i * case.distinct)).save(file, "JPEG", quality=90)
                files.append(file.getvalue())
        else:
            files.append(files[0] + i.to_bytes(4))  # what follows the end of a JPEG is not read
    return [data for data in files for _ in range(case.captions)]


def measure(model: str, name: str, images: str) -> dict[str, Any]:
    """Encode a case's rows in this process, which may have the modules of another version.

    Args:
        model: one of :data:`MODELS`.
        name: of the case.
        images: a pickle of its files.
    """
    from benchmarks.random_models import SHAPES
    from scorer import Sample, ScorerConfig
    from scorer.encoding.encoder import Encoder

    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = SHAPES[model](Path(folder), False)
        encoder = Encoder(checkpoint, ScorerConfig(**dict(case.options)))
        files = pickle.loads(Path(images).read_bytes())
        encoder.encode(Sample.caption("warm", Image.new("RGB", (200, 150)), "A kite."))
        wall, cpu = time.perf_counter(), time.process_time()
        rows = [encoder.encode(Sample.caption(str(i), data, "A red kite.")) for i, data in enumerate(files)]
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "rows": len(rows),
        "rows_per_cpu_s": len(rows) / cpu,
        "rows_per_s": len(rows) / wall,
        "kilobytes_per_row": len(pickle.dumps(rows)) / len(rows) / 1000,
    }


def draft_difference(model: str) -> dict[str, Any]:
    """Compare the pixels of a 12-megapixel JPEG decoded at a reduced scale with those of the whole image."""
    from benchmarks.random_models import SHAPES
    from scorer import Sample, ScorerConfig
    from scorer.encoding.encoder import Encoder

    (data,) = jpegs(Case((4000, 3000), 1))
    levels = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = SHAPES[model](Path(folder), False)
        for draft in (False, True):
            row = Encoder(checkpoint, ScorerConfig(jpeg_draft=draft)).encode(Sample.caption("", data, "A kite."))
            levels.append(row.clean.pixels["pixel_values"].values.astype(np.int16))
    difference = np.abs(levels[0] - levels[1])
    return {"mean": round(float(difference.mean()), 2), "max": int(difference.max())}


def in_turns(model: str, name: str, folders: dict[str, Path], rounds: int) -> dict[str, Any]:
    """Measure a case in every version, each round in a new process; return medians and ranges."""
    found: dict[str, list[dict[str, Any]]] = {version: [] for version in folders}
    with tempfile.NamedTemporaryFile() as images:
        images.write(pickle.dumps(jpegs(CASES[name])))
        images.flush()
        command = [sys.executable, "-P", str(Path(__file__).resolve()), "--measure", model, name, images.name]
        for version, folder in [*folders.items()] * rounds:
            environment = {**os.environ, "PYTHONPATH": str(folder)}
            done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, check=True, text=True)
            found[version].append(json.loads(done.stdout.splitlines()[-1]))
    return {
        version: {
            "rows": runs[0]["rows"],
            "kilobytes_per_row": round(runs[0]["kilobytes_per_row"], 1),
            **{
                figure: {
                    "median": round(statistics.median(run[figure] for run in runs), 1),
                    "range": [round(bound(run[figure] for run in runs), 1) for bound in (min, max)],
                }
                for figure in ("rows_per_cpu_s", "rows_per_s")
            },
        }
        for version, runs in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="a checkout of another version")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=3, metavar=("MODEL", "CASE", "IMAGES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    folders = {"this version": ROOT} | ({} if options.against is None else {"against": options.against.resolve()})
    results: dict[str, Any] = {"rounds": options.rounds, "models": {}}
    for model in MODELS:
        cases = results["models"][model] = {}
        for name, case in CASES.items():
            usable = {"this version": ROOT} if case.options else folders  # another version may lack an option
            cases[name] = in_turns(model, name, usable, options.rounds)
            print(model, name, json.dumps(cases[name]), flush=True)
        cases["levels of 255 that jpeg_draft changes, 4000 x 3000"] = draft_difference(model)
        print(model, cases["levels of 255 that jpeg_draft changes, 4000 x 3000"], flush=True)
    OUTPUT.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
