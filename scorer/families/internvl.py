"""InternVL: an image is cut into tiles of one size, and the vision tower sees each tile as an image."""

from scorer.families.base import Family
from scorer.families.resizing import by_tiles
from scorer.families.targets import to_tiles

INTERNVL = Family(processed_pixels=by_tiles, targets=to_tiles, uniform_blank=True)
