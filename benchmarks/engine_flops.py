"""Count the FLOPs of scoring on the LLaVA-1.5-7B shape: the part of `engine.py` that uses only the meta device.

Counts are relative to one clean forward pass of the base model, without the vocabulary projection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.llava import modeling_llava

from benchmarks import naive, shapes
from scorer.contrasts import CONTRASTS, EditedTokens
from scorer.forward import FastPath, ReferenceModel
from scorer.forward.labels import project_labels
from scorer.forward.packed import PackedForward
from scorer.forward.packing import Packer
from scorer.forward.plain import full_forward
from scorer.types import Branch, EncodedSample

LAYERS = 32
ROWS = 8
PROMPT = 16
CAPTION = 48
UNIT = 4096
"""Rows of a unit: they share the contrast's prefix."""
BUDGET = 32_768
"""Tokens of a batch, as one would set it for a model of 7B on a GPU with 80 GB."""


def flops(run: Callable[[], object]) -> float:
    """Return the FLOPs of everything that ``run`` computes: two per multiply-add."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        run()
    return float(counter.get_total_flops())


def as_contrast(contrast: str, row: EncodedSample) -> Branch:
    """Return the row's branch for a contrast, as the encoder would create it."""
    how = CONTRASTS[contrast].how
    return how.edit(row.clean, row.clean.input_ids == 32000) if isinstance(how, EditedTokens) else row.contrast


def run_packed(model: ReferenceModel, branches: Sequence[Branch], budget: int) -> list[int]:
    """Run branches in packed batches without reading their scores; return the number of rows of each batch."""
    path, packer = FastPath(model, ["blank"]), Packer[int](budget)
    for i, branch in enumerate(branches):
        packer.add(i, path._path(packer, branch))
    forward, sizes = PackedForward(model), []
    for batch in packer.rest():
        forward.run(forward.prepare([row for _, row in batch]))
        sizes.append(len(batch))
    return sizes


def measure(model: ReferenceModel, contrast: str) -> dict[str, float]:
    """Count a row's bare clean pass, the naive way, and ours, in batches of :data:`BUDGET` tokens."""
    rows = [shapes.row(i, PROMPT, CAPTION) for i in range(ROWS)]
    clean = [model.prepare(row.clean) for row in rows]
    contrasts = [as_contrast(contrast, row) for row in rows]
    naive_rows = [replace(row, contrast=branch) for row, branch in zip(rows, contrasts, strict=True)]
    bare = flops(lambda: full_forward(model, clean)) / ROWS
    states, labels = torch.empty(CAPTION, 4096, device="meta"), torch.empty(CAPTION, dtype=torch.int64, device="meta")
    projection = flops(lambda: project_labels(model, states, labels))
    ours = flops(lambda: run_packed(model, [row.clean for row in rows], BUDGET)) / ROWS
    many = [as_contrast(contrast, shapes.with_caption(rows[0], k, CAPTION)) for k in range(UNIT)]
    contrasted = flops(lambda: run_packed(model, many, BUDGET)) / UNIT
    return {
        "bare_clean_forward": bare,
        "naive": flops(lambda: naive.score_batch(model, naive_rows)) / ROWS,
        "clean": ours,
        "contrast": contrasted,
        "fast": ours + contrasted,
        "fast_gap_only": ours + contrasted - 2 * projection + 2 * 2.0 * 4096 * CAPTION,
    }


def measure_all() -> dict[str, dict[str, float]]:
    """Return :func:`measure` and its ratios for every contrast with a constant prefix, and for all of them at once.

    Contrasts of one run share the clean pass and have batches of their own, so what they add is their sum.
    """
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
    one = next(iter(found.values()))
    together = one["clean"] + sum(counts["contrast"] for counts in found.values())
    found[", ".join(found)] = {"fast": together, "fast_over_clean": together / one["bare_clean_forward"]}
    return found
