"""Measure a reference model on samples of a dataset; this is the one file that knows the order of the measurements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from scorer.assessment.modality import Modality, integration_rate
from scorer.assessment.numerics import Numerics, measure_numerics
from scorer.assessment.own_image import OwnImage, compare_images
from scorer.assessment.reading import Reading, read_texts
from scorer.assessment.swapped import WordSwaps, compare_words, swapped_samples
from scorer.assessment.verdict import Verdict, judge
from scorer.engine import Scorer
from scorer.results import Failure, TokenScores
from scorer.types import EncodedSample, Sample

OTHER_ROWS: Final = "shuffled"
"""The contrast that shows another row's image."""
MODALITY_ROWS: Final = 32
NUMERICS_ROWS: Final = 8


@dataclass(frozen=True, slots=True)
class Assessment:
    """What was measured, and what it means.

    Attributes:
        model: the model's name.
        contrast: the run's contrast.
        rows: how many rows were looked at.
        text_only: how many of them have no image; they are only read.
        failures: how many failed, by the failure's code.
        own_image: see :mod:`scorer.assessment.own_image`; likewise the others.
        modality: None if the model's class has no layers to look into, or no row has an image.
        verdict: the grade, with its reasons.
    """

    model: str
    contrast: str
    rows: int
    text_only: int
    failures: dict[str, int]
    own_image: OwnImage
    word_swaps: WordSwaps
    reading: Reading
    modality: Modality | None
    numerics: Numerics
    verdict: Verdict


def assess(
    scorer: Scorer, samples: Sequence[Sample], seed: int = 0, unread: Mapping[str, int] | None = None
) -> Assessment:
    """Assess a reference model on samples of a dataset, without labels.

    Each is scored with the run's contrast, with another row's image, and with one word swapped; a few in further ways.
    The samples should come from all over the dataset.

    Args:
        unread: further rows that could not be read, by the failure's code; they count as failed.
    """
    scored = scorer.score(samples)
    shuffled = scorer.with_contrast(OTHER_ROWS).score(samples)
    swaps, swapped = swapped_samples(samples, scored, seed)
    rescored = scorer.score(swapped)
    good = [
        sample
        for sample, result in zip(samples, scored, strict=True)
        if isinstance(result, TokenScores) and not result.text_only
    ]
    encoded = (scorer.encoder.try_encode(sample) for sample in good[:MODALITY_ROWS])
    own_image = compare_images(scored, shuffled, seed)
    word_swaps = compare_words(swaps, scored, rescored, seed)
    reading = read_texts([sample.scored_texts for sample in samples], scored, scorer.encoder.unknown_id, seed)
    modality = integration_rate(scorer.model, [row for row in encoded if isinstance(row, EncodedSample)])
    numerics = measure_numerics(scorer, good[:NUMERICS_ROWS])
    failures = Counter(unread or {})
    failures.update(result.code.value for result in scored if isinstance(result, Failure))
    rows = len(samples) + sum((unread or {}).values())
    return Assessment(
        model=scorer.checkpoint.name,
        contrast=scorer.config.contrast,
        rows=rows,
        text_only=sum(isinstance(result, TokenScores) and result.text_only for result in scored),
        failures=dict(failures),
        own_image=own_image,
        word_swaps=word_swaps,
        reading=reading,
        modality=modality,
        numerics=numerics,
        verdict=judge(rows, sum(failures.values()), own_image, word_swaps, reading),
    )
