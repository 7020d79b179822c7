"""Pack a block so that its pixels travel without a copy, and no small array keeps them in memory.

Ray maps large arrays from its object store instead of copying them. A mapped array keeps its whole object there: if
every array of a block were mapped, the token ids that a unit's results keep would keep all of its pixels. So
only large arrays (pixels) are left out of the pickle; the others are copied. What rows share is packed once.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipelines.run.encoding import Block
from pipelines.run.trials import Trials

MAPPED_BYTES: Final = 64_000
"""Arrays of at least so many bytes are mapped; smaller ones are copied."""


@dataclass(frozen=True, slots=True)
class PackedBlock:
    """A :class:`pipelines.run.encoding.Block` on its way between processes.

    Attributes:
        rows: number of rows.
        nbytes, stages, trials: see :class:`pipelines.run.encoding.Block`.
        pickled: the rows without their large arrays.
        arrays: uint8 [bytes], the content of each large array, in the pickle's order.
    """

    rows: int
    nbytes: int
    stages: Mapping[str, float]
    trials: Trials
    pickled: bytes
    arrays: list[npt.NDArray[np.uint8]]

    @classmethod
    def pack(cls, block: Block) -> PackedBlock:
        """Pack a block; the arrays are views of its own."""
        arrays: list[npt.NDArray[np.uint8]] = []

        def keep(buffer: pickle.PickleBuffer) -> bool:
            """Leave a large array out of the pickle: what returns False is."""
            raw = buffer.raw()
            if raw.nbytes < MAPPED_BYTES:
                return True
            arrays.append(np.frombuffer(raw, dtype=np.uint8))
            return False

        pickled = pickle.dumps(block.rows, protocol=5, buffer_callback=keep)
        return cls(len(block.rows), block.nbytes, block.stages, block.trials, pickled, arrays)

    def unpack(self) -> list[Any]:
        """Return the block's rows (:data:`pipelines.run.captions.EncodedRow`).

        Their large arrays are views of ``arrays``, and cannot be written to where these cannot.
        """
        rows: list[Any] = pickle.loads(self.pickled, buffers=self.arrays)
        return rows
