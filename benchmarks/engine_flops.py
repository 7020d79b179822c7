"""FLOPs of scoring on the LLaVA-1.5-7B shape, counted on the meta device: exact, repeatable, no hardware needed.

    python benchmarks/engine_flops.py

The unit is one clean forward pass of the base model, without the vocabulary projection.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.llava import modeling_llava

from benchmarks import shapes
from scorer.forward import FastPath, ReferenceModel, labels
from scorer.forward.plain import full_forward
from scorer.types import Branch, EncodedSample

LAYERS = 32
ROWS = 8
PROMPT = 16
CAPTION = 48
RESULT = Path(__file__).parent / "results" / "engine_flops.json"


def flops(run: Callable[[], object]) -> float:
    """Multiply-adds times two of everything that ``run`` computes."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        run()
    return float(counter.get_total_flops())


def as_contrast(contrast: str, row: EncodedSample) -> Branch:
    """The row's branch under another contrast than blank, as the encoder makes it."""
    clean = row.clean
    is_image = clean.input_ids == 32000
    if contrast == "masked":
        return Branch(clean.input_ids, ~is_image, clean.label_index, clean.pixels, clean.pixels_digest)
    if contrast == "removed":
        ids = clean.input_ids[~is_image]
        return Branch(ids, np.ones(len(ids), dtype=np.bool_), clean.label_index - is_image.sum(), {}, b"")
    return row.contrast


def measure(model: ReferenceModel, contrast: str) -> dict[str, float]:
    """FLOPs of the bare clean pass, of the plain path and of the warm fast path, without and with log-probabilities."""
    rows = [shapes.row(i, PROMPT, CAPTION) for i in range(ROWS)]
    clean = [model.prepare(row.clean) for row in rows]
    other = [model.prepare(as_contrast(contrast, row)) for row in rows]
    path = FastPath(model, contrast, 2**62)
    run_contrast = partial(path._contrast_states, other)
    path_is_cold = flops(run_contrast)
    warm = flops(run_contrast)
    bare = flops(lambda: full_forward(model, clean))
    plain = bare + flops(lambda: full_forward(model, other))
    states = [torch.empty(CAPTION, 4096, device="meta")] * ROWS
    projection = flops(lambda: labels.project_labels(model, clean, states))
    every_position = flops(lambda: model.project(torch.empty(ROWS * len(rows[0].clean.input_ids), 4096, device="meta")))
    label_dots = 2.0 * 4096 * CAPTION * ROWS
    return {
        "bare_clean_forward": bare,
        "plain_two_forwards": plain + 2 * every_position,
        "fast_cold": bare + path_is_cold + 2 * projection,
        "fast": bare + warm + 2 * projection,
        "fast_gap_only": bare + warm + 2 * label_dots,
    }


def main() -> None:
    # The check of placeholder counts reads a value, which meta tensors do not have.
    modeling_llava.torch_compilable_check = lambda *args: None
    results = {}
    print("| contrast | ÷ clean forward, with log-probabilities | gap alone | two full forwards ÷ fast |")
    print("|---|---|---|---|")
    model = shapes.llava(shapes.LLAVA_7B, LAYERS, shapes.CLIP_L_336, device="meta")
    for contrast in ("blank", "masked", "removed"):
        counts = measure(model, contrast)
        bare, fast = counts["bare_clean_forward"], counts["fast"]
        ratios = {
            "fast_over_clean": fast / bare,
            "gap_only_over_clean": counts["fast_gap_only"] / bare,
            "plain_over_fast": counts["plain_two_forwards"] / fast,
        }
        results[contrast] = {**counts, **ratios}
        print(
            f"| `{contrast}` | {ratios['fast_over_clean']:.3f} | {ratios['gap_only_over_clean']:.3f} | "
            f"{ratios['plain_over_fast']:.2f} |"
        )
    shape = {"layers": LAYERS, "rows": ROWS, "image_tokens": shapes.IMAGE_TOKENS, "text_tokens": PROMPT + CAPTION}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"shape": shape, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
