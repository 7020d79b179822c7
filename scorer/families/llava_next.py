"""LLaVA-NeXT (1.6): an overview and tiles, padding cut off. The blank depends on the aspect ratio."""

from scorer.families.base import Family

LLAVA_NEXT = Family(pixel_names=("pixel_values", "image_sizes"))
