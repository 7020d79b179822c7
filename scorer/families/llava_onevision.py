"""LLaVA-OneVision: tiles for a single image, an overview alone for each of several images in one sample."""

from scorer.families.base import Family

LLAVA_ONEVISION = Family(pixel_names=("pixel_values", "image_sizes", "batch_num_images"), joint_images=True)
