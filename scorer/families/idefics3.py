"""Idefics3 and SmolVLM: an image is a row of tiles, padded over a batch with tiles of zeros."""

from scorer.families.base import Family

IDEFICS3 = Family(pixel_names=("pixel_values", "pixel_attention_mask"), image_axis=1, zero_is_padding=True)

SMOLVLM = Family(
    pixel_names=("pixel_values", "pixel_attention_mask"),
    image_axis=1,
    zero_is_padding=True,
    processor="Idefics3Processor",  # handles images identically; SmolVLM's own needs num2words for videos
)
