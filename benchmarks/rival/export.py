"""Write what vLLM's job reads: the checkpoint under the names that vLLM expects, and rows with our own token ids."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from scorer import Sample
from scorer.encoding.encoder import Encoder
from scorer.types import EncodedSample, Int64Array

WEIGHTS = "model.safetensors"
TOWER = "vision_tower."


def export_model(source: Path, folder: Path) -> None:
    """Copy a checkpoint of a LLaVA; the weights of its vision tower get the names that vLLM's class has for them."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    save_file({vllm_name(n): array for n, array in load_file(source / WEIGHTS).items()}, folder / WEIGHTS)


def vllm_name(name: str) -> str:
    """Return vLLM's name of a weight: transformers 5 saves a vision tower without its ``vision_model`` level."""
    head, found, rest = name.partition(TOWER)
    return head + TOWER + "vision_model." + rest if found and not rest.startswith("vision_model.") else name


def export_rows(encoder: Encoder, samples: Sequence[Sample], rows: Sequence[EncodedSample], folder: Path) -> None:
    """Write samples of one PIL image each, and what they encode to, as ``rows.json`` and lossless image files."""
    (folder / "images").mkdir()
    records = []
    for i, (sample, row) in enumerate(zip(samples, rows, strict=True)):
        name = f"images/{i}.png"
        sample.images[0].save(folder / name)
        records.append(record(row, encoder.image_token_id) | {"image": name, "blank": _blank(encoder)})
    (folder / "rows.json").write_text(json.dumps(records))


def record(row: EncodedSample, image_token_id: int) -> dict[str, Any]:
    """Return a row's ids, its ids with one token for its image, which vLLM expands, and its labels' positions.

    Raises:
        ValueError: the branches differ in ids or labels, or the row does not have exactly one run of image tokens.
    """
    clean, contrast = row.clean, row.contrast
    same = np.array_equal(clean.input_ids, contrast.input_ids) and np.array_equal(
        clean.label_index, contrast.label_index
    )
    if not same:
        raise ValueError(f"the branches of row {row.sample_id} have different tokens; the contrast must be blank")
    return {
        "ids": clean.input_ids.tolist(),
        "prompt": one_image_token(clean.input_ids, image_token_id).tolist(),
        "labels": clean.label_index.tolist(),
    }


def one_image_token(ids: Int64Array, image_token_id: int) -> Int64Array:
    """Return ids in which the one run of image tokens is a single token. Raises ValueError if there is another number.

    [1, 7, 7, 7, 5] with the image token 7 becomes [1, 7, 5].
    """
    here = ids == image_token_id
    again = here & np.concatenate([[False], here[:-1]])
    runs = int((here & ~again).sum())
    if runs != 1:
        raise ValueError(f"the row has {runs} runs of image tokens; it must have one image")
    return ids[~again]


def _blank(encoder: Encoder) -> list[int]:
    return list(encoder.contrast_options.blank_color or ())
