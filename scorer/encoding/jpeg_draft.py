"""Decide at which scale a JPEG may be decoded (``jpeg_draft``).

The format stores blocks of 8 × 8 pixels as frequencies, so that a decoder can leave out the high ones and return the
image at a half, a quarter or an eighth of its size in less time. The model gets the same tokens from it, and pixels
that differ a little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from scorer.encoding.image_processing import image_options, process_image
from scorer.errors import ModelError, RowError
from scorer.families import Family
from scorer.families.resizing import Resizing

SCALES: Final = (8, 4, 2)
"""The factors by which a JPEG can be reduced, largest first."""
_PHOTO: Final = (4000, 3000)
_CHECKED: Final = (_PHOTO, (1500, 2000), (700, 1900))


def reduced(side: int, scale: int) -> int:
    """Return a side of an image that is decoded at 1 ÷ ``scale``, in pixels: rounded up, as libjpeg does."""
    return -(-side // scale)


def draft_scale(
    processor: Any, options: Mapping[str, Any], family: Family, width: int, height: int, *, several: bool
) -> int:
    """Return the largest factor by which an image may be reduced, 1 if by none.

    The reduced image is at least as large, on both sides, as everything that the processor resizes it to, and that is
    what it would resize the whole image to.

    Args:
        processor: the model's processor.
        options: what it calls its image processor with.
        family: the model's record.
        width, height: of the upright image, in pixels.
        several: whether the sample has more images.
    """
    whole = Resizing(processor, options, width, height, several)
    targets = family.targets(whole)
    if targets is None:
        return 1
    for scale in SCALES:
        small = replace(whole, width=reduced(width, scale), height=reduced(height, scale))
        if all(w <= small.width and h <= small.height for w, h in targets) and family.targets(small) == targets:
            return scale
    return 1


def check_draft(processor: Any, family: Family, name: str, model_type: str) -> None:
    """Refuse a model whose images cannot be reduced, or whose processor resizes otherwise than its record predicts.

    Raises:
        ModelError: no image would be reduced, or a reduced one gets another grid.
    """
    from PIL import Image

    options = image_options(processor)
    if family.targets(Resizing(processor, options, *_PHOTO)) is None:
        raise ModelError(
            f"--jpeg-draft has no effect on model {name} of type {model_type!r}: to which sizes its image processor "
            "resizes is not known, or depends on more than the image's grid; leave the option out"
        )
    for width, height in _CHECKED:
        scale = draft_scale(processor, options, family, width, height, several=False)
        if scale == 1:
            continue
        sizes = ((width, height), (reduced(width, scale), reduced(height, scale)))
        try:
            whole, small = (process_image(processor, family, Image.new("RGB", size, (200, 90, 30))) for size in sizes)
        except RowError:
            continue  # refused at any scale
        if whole.replacement != small.replacement or whole.digest != small.digest:
            raise ModelError(
                f"--jpeg-draft would change the image tokens of model {name}: its image processor makes another grid "
                f"of {sizes[1][0]} x {sizes[1][1]} pixels than of {width} x {height}; leave the option out"
            )
