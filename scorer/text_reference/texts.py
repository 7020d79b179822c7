"""Divide rows into those that are trained on and those held out, and encode them as a scoring run will."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from scorer.encoding.encoder import Encoder
from scorer.errors import ConfigError
from scorer.results import Failure
from scorer.types import Int32Array, Int64Array, Sample


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One row as the model reads it.

    Attributes:
        ids: int32 [T], cut after the last scored token.
        scored: int64 [N], the positions of the scored tokens in ``ids``, each at least 1; the others are context.
        scored_bytes: how many bytes of text the scored tokens have.
    """

    ids: Int32Array
    scored: Int64Array
    scored_bytes: int


def split(samples: Iterable[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Divide rows into (trained on, held out); rows with equal scored texts are on the same side.

    Which side a text is on follows from the text and the seed alone. Rows without a text to score are never held out:
    they cannot be encoded, and would take the place of a row that can.

    Args:
        share: of the distinct texts, to hold out; at least one is, and at least one is not.

    Raises:
        ConfigError: there are fewer than two distinct texts.
    """
    samples = list(samples)
    distinct = {sample.scored_texts for sample in samples}
    places = {texts: _place(texts, seed) for texts in distinct if any(text.strip() for text in texts)}
    if len(places) < 2:
        raise ConfigError(
            f"the dataset has {len(places)} distinct texts in {len(samples)} readable rows; at least 2 are needed, "
            "one to train on and one to hold out: give more data"
        )
    ranked = sorted(places, key=lambda texts: places[texts])
    held = {texts for texts in ranked if places[texts] < share}
    held = (held or {ranked[0]}) - ({ranked[-1]} if len(held) == len(ranked) else set())
    return [s for s in samples if s.scored_texts not in held], [s for s in samples if s.scored_texts in held]


def _place(texts: Sequence[str], seed: int) -> float:
    """Return a number in [0, 1) that a text always has."""
    digest = hashlib.blake2b("\0".join([str(seed), *texts]).encode(errors="surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest()) / 2**64


def encode(samples: Iterable[Sample], encoder: Encoder) -> tuple[list[Example], list[Failure]]:
    """Encode rows; those that cannot be encoded are returned as failures."""
    examples, failures = [], []
    for sample in samples:
        encoded = encoder.try_encode(sample)
        if isinstance(encoded, Failure):
            failures.append(encoded)
        elif len(encoded.contrast.label_index):
            sizes = encoded.token_ends - encoded.token_starts
            ids = encoded.contrast.input_ids.astype(np.int32)
            examples.append(Example(ids, encoded.contrast.label_index, int(sizes.sum())))
    return examples, failures
