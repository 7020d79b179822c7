"""InternVL: an image is cut into tiles of one size, each of which is a picture to the vision tower."""

from scorer.families.base import Family

INTERNVL = Family()
