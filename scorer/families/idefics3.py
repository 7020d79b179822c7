"""Idefics3 and SmolVLM: an image is a row of tiles, padded over a batch with tiles of zeros."""

from scorer.families.base import Family
from scorer.families.resizing import by_longest_edge_then_tiles
from scorer.families.targets import to_longest_edge

IDEFICS3 = Family(
    pixel_names=("pixel_values", "pixel_attention_mask"),
    image_axis=1,
    zero_is_padding=True,
    targets=to_longest_edge,
    uniform_blank=True,
    processed_pixels=by_longest_edge_then_tiles,
)

SMOLVLM = Family(
    pixel_names=("pixel_values", "pixel_attention_mask"),
    image_axis=1,
    zero_is_padding=True,
    targets=to_longest_edge,
    uniform_blank=True,
    processed_pixels=by_longest_edge_then_tiles,
    processor="Idefics3Processor",  # handles images identically; SmolVLM's own needs num2words for videos
)
