"""Name a training by everything that decides its result: its cell in the tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from benchmarks.gain.methods import Weighting

SCRATCH, FINE_TUNED = "scratch", "fine-tuned"


@dataclass(frozen=True, slots=True)
class Split:
    """Scenes and students that are kept apart from those of another split.

    Attributes:
        training, held_out: seeds of the scenes that students are trained and examined on.
        first_student: the seed of the first student; the others count on from it.
    """

    training: str
    held_out: str
    first_student: int


VALIDATION, TEST = "validation", "test"
SPLITS: Final[Mapping[str, Split]] = {
    VALIDATION: Split("validation train", "validation held out", 1000),
    TEST: Split("train", "held out", 0),
}
"""Hyper-parameters are chosen on the first and tables made of the second."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One training.

    Attributes:
        split: a name in `SPLITS`.
        start: what the student is before: of random weights, or trained on true captions of another world.
        reference: the name of the reference model whose scores its weights are derived from.
        noise: the share of the captions' facts that are spoilt.
        method, k, floor: see :class:`Weighting`.
        rate: the highest learning rate.
        seed: of the initial weights and of the order of rows.
    """

    split: str
    start: str
    reference: str
    noise: float
    method: str
    k: float | None
    floor: float | None
    rate: float
    seed: int

    @property
    def name(self) -> str:
        """The cell's name in the file of results."""
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items() if value is not None)

    @property
    def weighting(self) -> Weighting:
        return Weighting(self.method, self.k, self.floor)


_FIELDS: Final = tuple(field.name for field in fields(Cell))


def of(document: Mapping[str, Any]) -> list[tuple[Cell, Mapping[str, float]]]:
    """Return the cells of a file of results, each with its figures."""
    return [
        (Cell(**{name: found[name] for name in _FIELDS}), {n: v for n, v in found.items() if n not in _FIELDS})
        for found in document["cells"].values()
    ]
