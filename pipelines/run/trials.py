"""Count rows on which the encoder or the model raised, to tell a bad row from a bad encoder or model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from scorer.errors import RunError


@dataclass(frozen=True, slots=True)
class Trials:
    """Rows that were tried one by one. The trials of a unit's parts add up, and can be pickled.

    Attributes:
        tried: number of rows.
        raised: on how many of them something was raised.
        first, last: ids of the first and the last row tried.
        error: what was raised first.
    """

    tried: int = 0
    raised: int = 0
    first: str = ""
    last: str = ""
    error: str = ""

    @classmethod
    def of(cls, sample_id: str, error: Exception | None) -> Self:
        """Return the trial of one row."""
        said = "" if error is None else f"{type(error).__name__}: {error}"
        return cls(1, int(error is not None), sample_id, sample_id, said)

    def __add__(self, other: Trials) -> Trials:
        if not self.tried or not other.tried:
            return self if self.tried else other
        return Trials(
            self.tried + other.tried, self.raised + other.raised, self.first, other.last, self.error or other.error
        )

    def check(self, who: str) -> None:
        """Raise RunError if several rows were tried and all raised: then ``who`` is at fault, and not the rows.

        Otherwise a whole dataset could be stored as failed. (A single row may well be at fault itself.)
        """
        if self.raised == self.tried > 1:
            raise RunError(
                f"{who} raised on each of {self.tried} rows, {self.first} to {self.last}, first {self.error}; check "
                "the model, its dtype and its device; if the model scores other rows, repair or remove these"
            )
