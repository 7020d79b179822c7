"""LLaVA 1.5 and its relatives: one fixed image grid, or any grid with a Pixtral vision tower."""

from scorer.families.base import Family
from scorer.families.resizing import by_size_of_a_square
from scorer.families.targets import to_size

LLAVA = Family(
    pixel_names=("pixel_values", "image_sizes"),
    processed_pixels=by_size_of_a_square,
    targets=to_size,
    uniform_blank=True,
)
