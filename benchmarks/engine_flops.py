"""Count the FLOPs of scoring on the LLaVA-1.5-7B shape: the part of `engine.py` that uses only the meta device.

Counts are relative to one clean forward pass of the base model, without the vocabulary projection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.llava import modeling_llava

from benchmarks import naive, shapes
from scorer.contrasts import CONTRASTS, EditedTokens
from scorer.forward import FastPath, ReferenceModel, labels
from scorer.forward.plain import full_forward
from scorer.types import Branch, EncodedSample

LAYERS = 32
ROWS = 8
PROMPT = 16
CAPTION = 48


def flops(run: Callable[[], object]) -> float:
    """Return the FLOPs of everything that ``run`` computes: two per multiply-add."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        run()
    return float(counter.get_total_flops())


def as_contrast(contrast: str, row: EncodedSample) -> Branch:
    """Return the row's branch for a contrast, as the encoder would create it."""
    how = CONTRASTS[contrast].how
    return how.edit(row.clean, row.clean.input_ids == 32000) if isinstance(how, EditedTokens) else row.contrast


def measure(model: ReferenceModel, contrast: str) -> dict[str, float]:
    """Count the bare clean pass, the naive way, and the fast path: cold, warm, and without log-probabilities."""
    rows = [shapes.row(i, PROMPT, CAPTION) for i in range(ROWS)]
    clean = [model.prepare(row.clean) for row in rows]
    contrasts = [as_contrast(contrast, row) for row in rows]
    other = [model.prepare(branch) for branch in contrasts]
    naive_rows = [replace(row, contrast=branch) for row, branch in zip(rows, contrasts, strict=True)]
    path = FastPath(model, contrast, 2**62)
    run_contrast = partial(path._contrast_states, other)
    path_is_cold = flops(run_contrast)
    warm = flops(run_contrast)
    bare = flops(lambda: full_forward(model, clean))
    states = [torch.empty(CAPTION, 4096, device="meta")] * ROWS
    projection = flops(lambda: labels.project_labels(model, clean, states))
    label_dots = 2.0 * 4096 * CAPTION * ROWS
    return {
        "bare_clean_forward": bare,
        "naive": flops(lambda: naive.score_batch(model, naive_rows)),
        "fast_cold": bare + path_is_cold + 2 * projection,
        "fast": bare + warm + 2 * projection,
        "fast_gap_only": bare + warm + 2 * label_dots,
    }


def measure_all() -> dict[str, dict[str, float]]:
    """Return :func:`measure` and its ratios for every contrast with a constant prefix."""
    # The check of placeholder counts reads a tensor's values, which meta tensors do not have.
    check = modeling_llava.torch_compilable_check
    modeling_llava.torch_compilable_check = lambda *args: None
    model = shapes.llava(shapes.LLAVA_7B, LAYERS, shapes.CLIP_L_336, device="meta")
    found = {}
    for contrast in (name for name, record in CONTRASTS.items() if record.constant):
        counts = measure(model, contrast)
        found[contrast] = counts | {
            "fast_over_clean": counts["fast"] / counts["bare_clean_forward"],
            "gap_only_over_clean": counts["fast_gap_only"] / counts["bare_clean_forward"],
            "naive_over_fast": counts["naive"] / counts["fast"],
        }
    modeling_llava.torch_compilable_check = check
    return found
