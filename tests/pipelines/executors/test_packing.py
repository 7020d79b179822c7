"""Blocks arrive as they were sent: pixels as views, what rows share once, and nothing small keeps pixels alive."""

from __future__ import annotations

import dataclasses
import gc
import weakref

import numpy as np
import pytest

from pipelines.executors.packing import MAPPED_BYTES, PackedBlock
from pipelines.run.encoding import Block
from pipelines.run.trials import Trials
from scorer.types import BytePixels, EncodedSample, Sample
from tests.pipelines.fake_engine import FakeEngine


def row(name: str, pixels: object) -> EncodedSample:
    encoded = FakeEngine().encoder().try_encode(Sample.caption(name, b"ok", f"a kite {name}"))
    assert isinstance(encoded, EncodedSample)
    return dataclasses.replace(encoded, clean=dataclasses.replace(encoded.clean, pixels={"pixel_values": pixels}))


def packed(*rows: EncodedSample) -> PackedBlock:
    return PackedBlock.pack(Block(list(rows), 0, {}, Trials()))


def pixels(seed: int = 0) -> BytePixels:
    random = np.random.default_rng(seed)
    return BytePixels(random.integers(0, 255, (1, 3, 200, 200), np.uint8), np.zeros((3, 256), np.float32))


def test_rows_arrive_as_they_were_and_their_pixels_without_a_copy() -> None:
    sent = row("a", pixels())
    block = packed(sent)
    (found,) = block.unpack()
    assert (
        np.asarray(found.clean.pixels["pixel_values"]).tobytes()
        == np.asarray(sent.clean.pixels["pixel_values"]).tobytes()
    )
    assert found.token_ids.tolist() == sent.token_ids.tolist()
    assert [len(array) for array in block.arrays] == [200 * 200 * 3], "the table is small"
    assert np.shares_memory(found.clean.pixels["pixel_values"].values, block.arrays[0])
    assert np.shares_memory(block.arrays[0], sent.clean.pixels["pixel_values"].values)  # type: ignore[union-attr]


def test_what_rows_share_is_packed_once() -> None:
    shared = pixels()
    block = packed(row("a", shared), row("b", shared), row("c", BytePixels(shared.values, shared.table)))
    assert len(block.arrays) == 1
    found = block.unpack()
    assert len({id(one.clean.pixels["pixel_values"].values) for one in found}) == 1
    assert len(packed(row("a", pixels(0)), row("b", pixels(0))).arrays) == 2, "equal, but not the same"


@pytest.mark.parametrize(("size", "mapped"), [(MAPPED_BYTES - 1, 0), (MAPPED_BYTES, 1)])
def test_only_large_arrays_are_mapped(size: int, mapped: int) -> None:
    assert len(packed(row("a", np.zeros(size, np.uint8))).arrays) == mapped


def test_what_a_result_keeps_does_not_keep_the_pixels() -> None:
    block = packed(row("a", pixels()))
    held = weakref.ref(block.arrays[0])
    (found,) = block.unpack()
    token_ids, text_hash = found.token_ids, found.text_hash
    del block, found
    gc.collect()
    assert held() is None
    assert len(token_ids) == 3
    assert text_hash
