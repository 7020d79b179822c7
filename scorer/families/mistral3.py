"""Mistral 3 with a Pixtral vision tower: any grid, padded to the largest of the batch."""

from scorer.families.base import Family
from scorer.families.targets import to_size

# The class fails on a batch whose only image has one token: it squeezes that axis away (28 x 28 pixels or less).
MISTRAL3 = Family(pixel_names=("pixel_values", "image_sizes"), targets=to_size, uniform_blank=True, min_image_tokens=2)
