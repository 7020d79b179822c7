"""Run a packed batch: one vision call and one decoder call over segments end to end, without padding."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from scorer.forward.attention import (
    Attention,
    Backend,
    BatchAttention,
    FlexAttention,
    Keys,
    SegmentedAttention,
    TextAttention,
    VarlenAttention,
    agrees_on,
    runs_on,
    tower_attention,
)
from scorer.forward.labels import project_labels
from scorer.forward.model import ReferenceModel
from scorer.forward.segments import KeptSegment, Layout, Path, lay_out
from scorer.forward.staging import StagedArrays, join_pixels, normalised_pixels
from scorer.types import Usage

BUCKETS: Final = 64
"""The most sizes that batches have: their tokens are filled up to a multiple of budget / BUCKETS."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedBatch:
    """A batch in host memory, ready to be copied.

    Attributes:
        paths: its rows.
        layout: where their segments lie.
        staged: its arrays.
        host: arrays that the vision tower reads on the host.
        text: the decoder's attention.
        towers: see :class:`BatchAttention`.
    """

    paths: Sequence[Path]
    layout: Layout
    staged: StagedArrays
    host: Mapping[str, Tensor]
    text: TextAttention
    towers: Mapping[bytes, Attention]


@dataclass(frozen=True, slots=True, eq=False)
class BatchResult:
    """What a batch leaves on the device.

    Attributes:
        scores: of all labels, as :func:`scorer.forward.labels.project_labels` returns them.
        states: [N, D], the states that predict them.
        kept: what the roots that are to be kept leave, by key.
    """

    scores: Tensor
    states: Tensor
    kept: Mapping[bytes, KeptSegment]


class PackedForward:
    """Runs packed batches of one model.

    Args:
        model: the reference model; its family must be verified for packing.
        backend: how attention is computed; None chooses: see :func:`fastest`.
        bucket: the multiple of tokens that a batch is filled up to; None for no filling.
        own: see :attr:`scorer.forward.labels.Quantities.own`.
    """

    def __init__(
        self,
        model: ReferenceModel,
        backend: Backend | None = None,
        bucket: int | None = None,
        own: Sequence[str] = (),
    ) -> None:
        self.model = model
        self._own = own
        self.backend: Backend = backend or fastest(model)
        self._bucket = bucket
        self._windows = {None, model.sliding_window}

    def prepare(self, paths: Sequence[Path]) -> PreparedBatch:
        """Lay a batch out and compute all its indices and masks on the host."""
        model = self.model
        tokens = sum({id(s): s.length for path in paths for s in path.segments}.values())
        size = None if self._bucket is None else -(-tokens // self._bucket) * self._bucket
        layout = lay_out(paths, size, model.family.blocks_ignore_window)
        text = self.backend(layout.plan, self._windows)
        images = [s.row.pixels for s in layout.segments if s.start == 0 and s.row.pixels]
        inputs = model.tower_inputs(images)
        pixels = join_pixels([{n: a for n, a in one.items() if n not in inputs.host} for one in images])
        arrays = {
            "input_ids": layout.ids[None],
            "position_ids": layout.positions[:, None],
            "reads": _reads(layout),
            "labels": np.concatenate([path.row.ids[path.row.label_index] for path in paths]),
            **{f"text:{name}": array for name, array in text.arrays.items()},
        }
        towers: dict[bytes, Attention] = {}
        host: dict[str, Tensor] = {}
        for name, array in inputs.host.items():
            host[name] = torch.from_numpy(np.ascontiguousarray(array))
            if name.endswith("seqlens"):
                tower = tower_attention(np.diff(array).tolist(), self.backend)
                key = array.tobytes()
                towers[key] = tower
                arrays |= {f"tower:{key.hex()}:{part}": value for part, value in tower.arrays.items()}
        arrays |= {f"input:{name}": array for name, array in (pixels | inputs.device).items()}
        return PreparedBatch(paths, layout, StagedArrays(arrays, model.device), host, text, towers)

    @torch.inference_mode()
    def run(self, batch: PreparedBatch, keep: Collection[bytes] = ()) -> BatchResult:
        """Run a batch; the roots in ``keep`` leave their keys and values.

        Nothing is read from the device, so that the next batch can be prepared while it works.
        """
        model, layout = self.model, batch.layout
        tensors = batch.staged.to_device()
        batch.text.place(_under("text:", tensors))
        for key, tower in batch.towers.items():
            tower.place(_under(f"tower:{key.hex()}:", tensors))
        model.usage += Usage(sum(segment.length for segment in layout.segments), len(layout.ids))
        attention = BatchAttention(
            batch.text,
            batch.towers,
            kept=_kept(layout.kept),
            capture={key: layout.starts[key] for key in keep if key in layout.starts},
        )
        hidden = model.packed_hidden(
            tensors["input_ids"],
            tensors["position_ids"],
            {**self._images(_under("input:", tensors)), **batch.host},
            attention,
        )  # [N, D]
        kept = {
            key: KeptSegment(tuple(layers), hidden[layout.starts[key][1] - 1].clone())
            for key, layers in attention.captured.items()
        }
        if layout.kept:
            hidden = torch.cat([hidden, torch.stack([one.last_hidden for one in layout.kept])])
        states = hidden[tensors["reads"]]
        return BatchResult(project_labels(model, states, tensors["labels"], self._own), states, kept)

    def _images(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        pixels = normalised_pixels(tensors, self.model.model.dtype)
        return pixels | {name: tensor for name, tensor in tensors.items() if ":" not in name}


def bucket_for(budget: int, device: torch.device, compiled: bool) -> int | None:
    """Return the multiple of tokens that batches are filled up to, where kernels are made or chosen for each shape.

    None where no shape costs more than another, as on a CPU.
    """
    return max(1, budget // BUCKETS) if compiled or device.type == "cuda" else None


def fastest(model: ReferenceModel) -> Backend:
    """Return the backend with the fewest kernels that a model can use.

    On CUDA, this is FlexAttention if it runs there, or else attention by variable lengths, if that agrees there with
    attention by segments and can express the model's attention. Otherwise, and elsewhere, it is attention by segments.
    """
    if model.device.type != "cuda":
        return SegmentedAttention
    where = [(model.device, model.model.dtype, size) for size in model.head_sizes]
    if all(runs_on(*one) for one in where):
        return FlexAttention
    if model.attends_causally and all(agrees_on(*one) for one in where):
        return VarlenAttention
    return SegmentedAttention


def _reads(layout: Layout) -> Any:
    """Return the places of all labels' states, with the kept roots' last states after the batch's."""
    reads = np.concatenate(layout.reads)
    return np.where(reads < 0, len(layout.ids) - 1 - reads, reads)


def _kept(roots: Sequence[KeptSegment]) -> list[Keys]:
    """Return the kept roots' keys and values end to end, by layer."""
    if len(roots) == 1:  # the usual case: nothing is copied
        return list(roots[0].layers)
    return [
        tuple(torch.cat([root.layers[i][part] for root in roots], dim=2) for part in range(2))  # type: ignore[misc]
        for i in range(len(roots[0].layers) if roots else 0)
    ]


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
