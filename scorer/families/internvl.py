"""InternVL: an image is cut into tiles of one size, and the vision tower sees each tile as an image."""

from scorer.families.base import Family
from scorer.families.resizing import by_tiles

INTERNVL = Family(processed_pixels=by_tiles, uniform_blank=True)
