"""Gemma 3: an image's tokens see each other in both directions; its class applies no logit soft-cap."""

from scorer.families.base import Family
from scorer.families.resizing import with_crops
from scorer.families.targets import to_size_without_crops
from scorer.types import Int64Array


def image_token_types(ids: Int64Array, first_label: int, image_token_id: int) -> dict[str, Int64Array]:
    """Return 1 for image tokens and 0 for text. Continuations of a cached prefix do not need it: text is causal."""
    return {"token_type_ids": (ids == image_token_id).astype(ids.dtype)}


GEMMA3 = Family(
    processed_pixels=with_crops, targets=to_size_without_crops, uniform_blank=True, token_inputs=image_token_types
)
