"""LLaVA 1.5 and its relatives: one fixed image grid, or any grid with a Pixtral vision tower."""

from scorer.families.base import Family

LLAVA = Family(pixel_names=("pixel_values", "image_sizes"))
