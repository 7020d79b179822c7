"""Move a batch's arrays to the device in one copy, and normalise there the pixels that travel as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from scorer.types import BytePixels, Float32Array, PixelArray, UniformPixels

Array = npt.NDArray[Any]

_ALIGNMENT: Final = 64
"""Bytes at whose multiples an array starts in the buffer; any dtype may start there."""
_VALUES, _TABLE, _SIZES = "pixels:", "table:", "sizes:"
"""Prefixes of the arrays that :func:`join_pixels` makes of one of an image processor's outputs."""


class StagedArrays:
    """A batch's arrays in host memory, in one page-locked buffer if the device is CUDA.

    A copy from page-locked memory is asynchronous, and torch keeps the memory until the copy has read it.
    """

    def __init__(self, arrays: Mapping[str, Array], device: torch.device) -> None:
        self._device = device
        self._arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        self._buffer: Tensor | None = None
        self._starts: dict[str, int] = {}
        if device.type == "cpu":
            return
        size = 0
        for name, array in self._arrays.items():
            self._starts[name] = size
            size += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        self._buffer = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
        bytes_of = self._buffer.numpy()
        for name, array in self._arrays.items():
            start = self._starts[name]
            bytes_of[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)

    def to_device(self) -> dict[str, Tensor]:
        """Return the arrays on the device: views of one copied buffer."""
        if self._buffer is None:
            return {name: torch.from_numpy(array) for name, array in self._arrays.items()}
        moved = self._buffer.to(self._device, non_blocking=True)
        found = {}
        for name, array in self._arrays.items():
            start = self._starts[name]
            dtype = torch.from_numpy(array[:0].reshape(-1)).dtype
            found[name] = moved[start : start + array.nbytes].view(dtype).view(array.shape)
        return found


def join_pixels(rows: Sequence[Mapping[str, PixelArray]]) -> dict[str, Array]:
    """Join rows' arrays along axis 0; in the other axes, smaller ones are padded at the end.

    Returns:
        the joined arrays under names that :func:`normalised_pixels` reads. Bytes stay bytes, with their table, and with
        each row's size if some are padded.
    """
    joined: dict[str, Array] = {}
    for name in rows[0] if rows else ():
        parts = [row[name] for row in rows]
        table = _table_of(parts)
        arrays = [np.asarray(part) if table is None else _bytes_of(part, table) for part in parts]
        joined[_VALUES + name] = _padded(arrays)
        if table is not None:
            joined[_TABLE + name] = table
            sizes = np.array([array.shape[1:] for array in arrays], dtype=np.int32)
            if (sizes != sizes[0]).any():
                joined[_SIZES + name] = np.repeat(sizes, [len(array) for array in arrays], axis=0)
    return joined


def _table_of(parts: Sequence[PixelArray]) -> Float32Array | None:
    """Return the table in which all pixels have levels; None if there is none, so that they must become floats."""
    tables = [part.table for part in parts if isinstance(part, BytePixels)]
    colors = [part.color for part in parts if isinstance(part, UniformPixels)]
    if not parts or len(tables) + len(colors) < len(parts):
        return None
    table = tables[0] if tables else np.repeat(colors[0][:, None], 256, axis=1)
    same = all(np.array_equal(other, table) for other in tables)
    return table if same and all((table == color[:, None]).any(axis=1).all() for color in colors) else None


def _bytes_of(part: PixelArray, table: Float32Array) -> npt.NDArray[np.uint8]:
    """Return pixels as levels of a table that has them."""
    if isinstance(part, BytePixels):
        return part.values
    assert isinstance(part, UniformPixels)
    levels = np.empty(part.shape, dtype=np.uint8)
    BytePixels.by_channel_of(levels)[:] = (table == part.color[:, None]).argmax(axis=1)[:, None]
    return levels


def _padded(arrays: Sequence[Array]) -> Array:
    if all(array.shape[1:] == arrays[0].shape[1:] for array in arrays):
        return np.concatenate(arrays)  # a copy even of one: a model may write into its input
    largest = np.max([array.shape[1:] for array in arrays], axis=0)
    joined = np.zeros((sum(map(len, arrays)), *largest), dtype=arrays[0].dtype)
    start = 0
    for array in arrays:
        joined[(slice(start, start + len(array)), *(slice(size) for size in array.shape[1:]))] = array
        start += len(array)
    return joined


def normalised_pixels(arrays: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the image processor's outputs from the arrays of :func:`join_pixels`, on their device.

    Pixels are converted to ``dtype``; indices and masks keep theirs. Padding is zero after normalisation, as models
    pad with zero, and no byte normalises to zero.
    """
    found = {}
    for name in [name.removeprefix(_VALUES) for name in arrays if name.startswith(_VALUES)]:
        tensor = arrays[_VALUES + name]
        if _TABLE + name in arrays:
            tensor = _normalised(tensor, arrays[_TABLE + name])
            if _SIZES + name in arrays:
                tensor = tensor.masked_fill(~_inside(tensor, arrays[_SIZES + name]), 0.0)
        found[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return found


def _normalised(values: Tensor, table: Tensor) -> Tensor:
    """Return float32 pixels in the shape of the bytes, equal to ``np.asarray(BytePixels(values, table))``."""
    levels = BytePixels.by_channel_of(values)
    channels = torch.arange(3, device=values.device)[:, None]
    return table[channels, levels.int()].view(values.shape)  # as int: a uint8 index would be treated as a mask


def _inside(tensor: Tensor, sizes: Tensor) -> Tensor:
    """Return which places lie within their row's own size, bool, broadcastable to ``tensor`` [B, …]."""
    inside = torch.ones((), dtype=torch.bool, device=tensor.device)
    for axis in range(1, tensor.ndim):
        shape = [1] * tensor.ndim
        shape[axis] = -1
        place = torch.arange(tensor.shape[axis], device=tensor.device).view(shape)
        inside = inside & (place < sizes[:, axis - 1].view(-1, *[1] * (tensor.ndim - 1)))
    return inside


def pixels_to_device(
    rows: Sequence[Mapping[str, PixelArray]], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return rows' arrays joined and normalised, on the device."""
    return normalised_pixels(StagedArrays(join_pixels(rows), device).to_device(), dtype)


def to_device(array: Array, device: torch.device) -> Tensor:
    """Copy an array to ``device``, keeping its dtype and shape."""
    return StagedArrays({"": array}, device).to_device()[""]


def total_bytes(rows: Iterable[Mapping[str, PixelArray]]) -> int:
    """Return the bytes that rows' arrays hold."""
    return sum(
        part.values.nbytes if isinstance(part, BytePixels) else part.nbytes for row in rows for part in row.values()
    )
