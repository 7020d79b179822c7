"""Draw the images of training: scenes at several sizes and qualities, and what contrasts show in their place."""

import io
import random
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from scorer.contrast_images import ContrastOptions
from scorer.contrasts import CONTRASTS, AlteredImage, DrawnImage
from scorer.mini.packaging import IMAGE_SIZE
from scorer.mini.world import Scene
from scorer.mini.world.drawing import draw

Pixels = npt.NDArray[np.uint8]
"""[height, width, 3]"""

SHOWN, BLANK = "shown", "blank"
ALTERED: Final = ("blur", "noise", "patches", "diffusion", "downsample")
INPUTS: Final = (
    *[SHOWN] * 30, *[BLANK] * 5, *["blur"] * 2, *["noise"] * 2, "patches", "diffusion", "downsample",
)  # fmt: skip
"""What a row of training shows instead of its scene; equal weights, repeats are weights."""

SIZES: Final = (*[IMAGE_SIZE] * 6, 128, 160, 256)
"""Sides of the images before the processor resizes them, in pixels."""
JPEG_SHARE: Final = 0.15
"""The share of images that have been through JPEG."""


def training_image(scene: Scene, kind: str, rng: random.Random) -> Pixels:
    """Return `scene` as the model's image processor passes it on, before it is normalised.

    `kind` is `SHOWN` or one of `ALTERED`, which is applied to the image at its own size, as the engine does.
    """
    image = draw(scene, rng.choice(SIZES))
    if rng.random() < JPEG_SHARE:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=rng.randint(60, 95))
        image = Image.open(buffer).convert("RGB")
    if kind != SHOWN:
        image = _contrast_image(image, kind, rng)
    if image.width != IMAGE_SIZE:
        image = image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _contrast_image(image: Image.Image, name: str, rng: random.Random) -> Image.Image:
    options = ContrastOptions(
        blank_color=(128, 128, 128),
        blur_radius=rng.choice((0.02, 0.05, 0.1, 0.1, 0.1, 0.2)),
        noise_seed=rng.randrange(2**31),
        patch_share=rng.uniform(0.3, 0.7),
        diffusion_step=rng.randint(300, 700),
        downsample_ratio=rng.choice((0.05, 0.1, 0.1, 0.2)),
    )
    how = CONTRASTS[name].how
    if isinstance(how, AlteredImage):
        return how.alter(image, options)
    if isinstance(how, DrawnImage):
        return how.draw(image.size, options)
    raise ValueError(f"the contrast {name!r} makes no image; those that do are {', '.join(ALTERED)}")
