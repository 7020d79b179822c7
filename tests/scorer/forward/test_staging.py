"""Arrays onto the device: joined, padded, and normalised there where they travel as bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from scorer.forward.staging import StagedArrays, pixels_to_device
from scorer.types import BytePixels, UniformPixels

CPU = torch.device("cpu")
TABLE = np.random.default_rng(0).standard_normal((3, 256)).astype(np.float32)


def pixels(*shape: int) -> BytePixels:
    return BytePixels(np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8), TABLE)


def test_a_level_is_looked_up_in_its_own_channel() -> None:
    one = pixels(2, 3, 4, 5)
    expected = np.empty(one.shape, dtype=np.float32)
    for image, channel, row, column in np.ndindex(one.shape):
        expected[image, channel, row, column] = TABLE[channel, one.values[image, channel, row, column]]
    np.testing.assert_array_equal(np.asarray(one), expected)
    np.testing.assert_array_equal(pixels_to_device([{"p": one}], CPU, torch.float32)["p"], expected)
    patches = BytePixels(one.values.reshape(2, 60), TABLE)  # channel first, as Qwen-VL flattens them
    np.testing.assert_array_equal(np.asarray(patches), expected.reshape(2, 60))
    np.testing.assert_array_equal(pixels_to_device([{"p": patches}], CPU, torch.float32)["p"], expected.reshape(2, 60))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 2, 3, 4, 5), (4, 60)])
def test_pixels_of_one_colour_are_what_they_stand_for(shape: tuple[int, ...]) -> None:
    uniform = UniformPixels(shape, TABLE[:, 7].copy())
    expected = np.empty(shape, dtype=np.float32)
    by_channel = expected.reshape(-1, 3, shape[-1] // 3 if len(shape) == 2 else shape[-2] * shape[-1])
    for channel in range(3):
        by_channel[:, channel] = TABLE[channel, 7]
    np.testing.assert_array_equal(np.asarray(uniform), expected)
    np.testing.assert_array_equal(np.asarray(uniform[1:]), expected[1:])
    assert np.asarray(uniform).dtype == np.float32
    np.testing.assert_array_equal(pixels_to_device([{"p": uniform}], CPU, torch.float32)["p"], expected)
    half = pixels_to_device([{"p": uniform}], CPU, torch.bfloat16)["p"]
    assert torch.equal(half, torch.from_numpy(expected).to(torch.bfloat16))
    other = pixels(*shape)
    foreign = UniformPixels(shape, np.float32([9, 9, 9]))  # no level of the table
    rows: list[dict[str, Any]] = [{"p": other}, {"p": uniform}, {"p": foreign}]
    for few in (rows[:2], rows):
        joined = pixels_to_device(few, CPU, torch.float32)["p"]
        np.testing.assert_array_equal(joined, np.concatenate([np.asarray(row["p"]) for row in few]))


def test_padded_bytes_are_zero_where_nothing_is() -> None:
    """Zero after normalisation: no byte normalises to it."""
    rows = [{"p": pixels(1, 3, 2, 5)}, {"p": pixels(2, 3, 4, 3)}]
    expected = np.zeros((3, 3, 4, 5), dtype=np.float32)
    expected[:1, :, :2, :] = np.asarray(rows[0]["p"])
    expected[1:, :, :, :3] = np.asarray(rows[1]["p"])
    np.testing.assert_array_equal(pixels_to_device(rows, CPU, torch.float32)["p"], expected)


def test_pixels_of_two_tables_keep_theirs() -> None:
    rows = [{"p": pixels(1, 3, 2, 2)}, {"p": BytePixels(pixels(1, 3, 2, 2).values, TABLE + 1)}]
    joined = pixels_to_device(rows, CPU, torch.float32)["p"]
    np.testing.assert_array_equal(joined, np.concatenate([np.asarray(row["p"]) for row in rows]))


def test_padding_is_zero_and_bytes_and_floats_share_a_batch() -> None:
    uniform = UniformPixels((1, 3, 3, 2), TABLE[:, 7].copy())
    rows: list[dict[str, Any]] = [
        {"p": pixels(1, 3, 2, 5)},
        {"p": np.ones((2, 3, 4, 3), dtype=np.float32)},
        {"p": uniform},
    ]
    joined = pixels_to_device(rows, CPU, torch.float32)["p"]
    expected = np.zeros((4, 3, 4, 5), dtype=np.float32)
    expected[:1, :, :2, :] = np.asarray(rows[0]["p"])
    expected[1:3, :, :, :3] = 1
    expected[3:, :, :3, :2] = np.asarray(uniform)
    np.testing.assert_array_equal(joined, expected)


def test_pixels_are_in_the_models_dtype_and_indices_as_they_are() -> None:
    row: dict[str, Any] = {"p": pixels(1, 3, 2, 2), "f": np.ones((1, 2)), "i": np.ones((1, 2), dtype=np.int64)}
    joined = pixels_to_device([row, row], CPU, torch.bfloat16)
    assert {name: tensor.dtype for name, tensor in joined.items()} == {
        "p": torch.bfloat16,
        "f": torch.bfloat16,
        "i": torch.int64,
    }
    assert pixels_to_device([], CPU, torch.float32) == {}


def test_a_model_that_writes_into_its_input_does_not_reach_the_rows() -> None:
    row = {"p": np.ones((1, 3, 2, 2), dtype=np.float32)}
    pixels_to_device([row], CPU, torch.float32)["p"].zero_()
    assert row["p"].all()


def test_bytes_are_not_floats_without_a_copy() -> None:
    assert np.asarray(pixels(1, 3, 2, 2), dtype=np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="copy"):
        np.asarray(pixels(1, 3, 2, 2), copy=False)
    uniform = UniformPixels((1, 3, 2, 2), TABLE[:, 7].copy())
    assert np.asarray(uniform, dtype=np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="copy"):
        np.asarray(uniform, copy=False)


def test_a_batch_is_copied_at_once_and_read_back_in_parts() -> None:
    """The meta device has no values, but takes the way of a device: one buffer, one copy, views."""
    arrays = {
        "bytes": np.arange(5, dtype=np.uint8),
        "nothing": np.empty((0, 3), dtype=np.int64),
        "masks": np.array([[True, False]]),
        "ids": np.arange(6).reshape(2, 3),
        "floats": np.float32([[1.5], [2.5]]),
    }
    staged = StagedArrays(arrays, torch.device("meta"))
    moved = staged.to_device()
    assert {name: (tuple(one.shape), one.dtype) for name, one in moved.items()} == {
        name: (array.shape, torch.from_numpy(array).dtype) for name, array in arrays.items()
    }
    assert len({one.untyped_storage()._cdata for one in moved.values()}) == 1, "views of one buffer"
    staged._device = CPU  # the copy's own bytes
    for name, one in staged.to_device().items():
        np.testing.assert_array_equal(one, arrays[name])


def test_host_memory_is_page_locked_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    empty, pinned = torch.empty, list[bool]()

    def observed(*args: Any, pin_memory: bool = False, **kwargs: Any) -> torch.Tensor:
        pinned.append(pin_memory)
        return empty(*args, **kwargs)

    monkeypatch.setattr(torch, "empty", observed)
    for name in ("cuda", "meta"):
        StagedArrays({"a": np.zeros(3)}, torch.device(name))
    assert pinned == [True, False]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_gives_the_same_bits() -> None:
    rows = [{"p": pixels(1, 3, 40, 50)}, {"p": pixels(2, 3, 60, 30)}]
    for dtype in (torch.float32, torch.bfloat16):
        ours = pixels_to_device(rows, torch.device("cuda"), dtype)["p"].cpu()
        assert torch.equal(ours, pixels_to_device(rows, CPU, dtype)["p"])
