"""DeepSeek-VL: one fixed grid, padded to a square, so a blank depends on the image's shape."""

from scorer.families.base import Family

DEEPSEEK_VL = Family()
