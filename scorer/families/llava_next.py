"""LLaVA-NeXT (1.6): an overview and tiles, with padding cut off, so a blank depends on the aspect ratio."""

from scorer.families.base import Family
from scorer.families.resizing import by_grid

LLAVA_NEXT = Family(pixel_names=("pixel_values", "image_sizes"), processed_pixels=by_grid)
