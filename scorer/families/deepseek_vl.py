"""DeepSeek-VL: one fixed grid, padded to a square, so a blank depends on the image's shape."""

from scorer.families.base import Family
from scorer.families.resizing import within_a_square

DEEPSEEK_VL = Family(processed_pixels=within_a_square)
