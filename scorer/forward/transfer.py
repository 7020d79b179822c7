"""Move arrays to the model's device, and normalise or fill there the pixels that travel as bytes or as one colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from scorer.types import BytePixels, PixelArray, UniformPixels


def to_device(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array to ``device``, keeping its dtype and shape."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type != "cuda":
        return tensor.to(device)
    # From page-locked memory the copy is asynchronous, and torch keeps the memory until the copy has read it.
    return tensor.pin_memory().to(device, non_blocking=True)


def join_on_device(
    rows: Sequence[Mapping[str, PixelArray]], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Join rows' tensors along axis 0; in the other axes, smaller ones are padded with zeros at the end.

    Pixels are converted to ``dtype``; indices and masks keep theirs. Each row's bytes are normalised before padding,
    because models pad with zero, and no byte normalises to zero.
    """
    return {name: _joined([_tensor(row[name], device, dtype) for row in rows]) for name in (rows[0] if rows else ())}


def _tensor(array: PixelArray, device: torch.device, dtype: torch.dtype) -> Tensor:
    if isinstance(array, BytePixels):
        tensor = _normalised(array, device)
    elif isinstance(array, UniformPixels):
        tensor = _filled(array, device)
    else:
        tensor = to_device(array, device)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _filled(pixels: UniformPixels, device: torch.device) -> Tensor:
    """Return the pixels, float32 in their shape, equal to ``np.asarray(pixels)``; a view of three values."""
    color = to_device(pixels.color, device)
    flat = len(pixels.shape) == 2
    return (color.repeat_interleave(pixels.shape[1] // 3) if flat else color[:, None, None]).expand(pixels.shape)


def _normalised(pixels: BytePixels, device: torch.device) -> Tensor:
    """Return the normalised pixels, float32 in the shape of the bytes, equal to ``np.asarray(pixels)``."""
    levels = to_device(pixels.by_channel, device)  # uint8 [N, 3, M]
    channels = torch.arange(3, device=device)[:, None]
    # As int: a uint8 index would be treated as a mask.
    return to_device(pixels.table, device)[channels, levels.int()].view(pixels.shape)


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    rows = [len(tensor) for tensor in tensors]
    largest = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    joined = tensors[0].new_zeros((sum(rows), *largest))
    for place, tensor in zip(torch.split(joined, rows), tensors, strict=True):
        place[tuple(slice(size) for size in tensor.shape)] = tensor
    return joined
