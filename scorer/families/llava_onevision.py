"""LLaVA-OneVision: a single image gets tiles; several images in one sample get only an overview each."""

from scorer.families.base import Family
from scorer.families.resizing import by_grid

LLAVA_ONEVISION = Family(
    pixel_names=("pixel_values", "image_sizes", "batch_num_images"), joint_images=True, processed_pixels=by_grid
)
