"""Predict how many pixels an image processor makes of an image, from the image's size and the processor's settings.

A processor that keeps proportions can turn a few bytes into gigabytes:

    1 × 2,000    shortest edge 336    →  336 × 672,000, of which it crops 336 × 336
    1 × 100,000  to 448 × 448         →  448 × 100,000 on the way: Pillow resizes the width first, for every row

The functions bound what one array or one image's output holds; a pixel is one place, whatever its channels. They follow
the ``resize`` and ``_preprocess`` methods of transformers' ``PilBackend`` (image_processing_backends.py) and of the
families' own image processors. tests/scorer/families/test_resizing.py compares them with what those do.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

_PADDED: Final = 4
"""Padding copies: a padded pixel takes less than a fourth of the time of a resized one."""
_FIXED: Final = 1024
"""A side to which a processor may resize by a rule of its own."""


@dataclass(frozen=True, slots=True)
class Resizing:
    """One image before one processor.

    Attributes:
        processor: the model's processor.
        options: what it calls its image processor with; an option goes before that one's attribute of the same name.
        width, height: of the upright image, in pixels, 1 or more.
        several: whether the sample has more images.
    """

    processor: Any
    options: Mapping[str, Any]
    width: int
    height: int
    several: bool = False

    def setting(self, name: str) -> Any:
        """Return an option or, if it is not given, the image processor's attribute; None if there is neither."""
        given = self.options.get(name)
        return getattr(self.processor.image_processor, name, None) if given is None else given

    def edge(self, size: str, name: str) -> int:
        """Return one entry of a size setting, such as ``crop_size``'s ``height``; 0 if it is not set."""
        found = self.setting(size) or {}
        return int((found.get(name) if isinstance(found, Mapping) else getattr(found, name, None)) or 0)

    @property
    def squared(self) -> Resizing:
        """Return the image padded to a square."""
        side = max(self.width, self.height)
        return replace(self, width=side, height=side)

    def to(self, width: int, height: int) -> int:
        """Return the pixels of resizing the image to a size, the half-resized image included."""
        return width * max(height, self.height)

    def scaled(self, scale: float, multiple: int = 1) -> int:
        """Return the pixels of resizing the image by a factor, with sides rounded up to a multiple."""
        return self.to(_up(self.width * scale, multiple), _up(self.height * scale, multiple))


def _up(side: float, multiple: int) -> int:
    return max(1, math.ceil(side / multiple)) * multiple


def by_size(image: Resizing) -> int:
    """Read ``size`` as ``PilBackend.resize`` does, then ``crop_size``."""
    width, height = image.edge("size", "width"), image.edge("size", "height")
    shortest, longest = image.edge("size", "shortest_edge"), image.edge("size", "longest_edge")
    max_width, max_height = image.edge("size", "max_width"), image.edge("size", "max_height")
    short_side, long_side = sorted((image.width, image.height))
    if not image.setting("do_resize"):
        pixels = image.width * image.height
    elif shortest:
        scale = shortest / short_side
        pixels = image.scaled(min(scale, longest / long_side) if longest else scale)
    elif max_width and max_height:
        pixels = image.scaled(min(max_width / image.width, max_height / image.height))
    elif width and height:
        pixels = image.to(width, height)
    elif longest:
        pixels = image.scaled(longest / long_side, side_multiple(image))
    else:
        pixels = to_a_square(image)
    cropped = image.edge("crop_size", "width") * image.edge("crop_size", "height")
    return max(pixels, cropped if image.setting("do_center_crop") else 0)


def side_multiple(image: Resizing) -> int:
    """Return what sides are rounded up to: a patch, or the patches that Mistral 3's processor merges."""
    patch = image.setting("patch_size")
    patch = patch if isinstance(patch, int) else image.edge("patch_size", "height")
    return max(1, patch) * int(getattr(image.processor, "spatial_merge_size", None) or 1)


def to_a_square(image: Resizing) -> int:
    """Count an image that is padded to a square before it is resized."""
    return max(image.width, image.height) ** 2 // _PADDED


def _squares(image: Resizing) -> bool:
    return hasattr(image.processor.image_processor, "pad_to_square")


def pads_to_a_square(image: Resizing) -> bool:
    """Return whether the processor pads an image to a square before it resizes it."""
    return bool(image.setting("do_pad")) and _squares(image)


def by_size_of_a_square(image: Resizing) -> int:
    """Like :func:`by_size`, after padding to a square if the processor can and ``do_pad`` says so (LLaVA)."""
    if not pads_to_a_square(image):
        return by_size(image)
    return max(to_a_square(image), by_size(image.squared))


def by_area(image: Resizing) -> int:
    """Read ``size`` as limits of the area, sides being multiples of a patch (Qwen-VL's ``smart_resize``)."""
    return image.to(*area_sides(image)) if image.setting("do_resize") else image.width * image.height


def area_sides(image: Resizing) -> tuple[int, int]:
    """Return the width and height that Qwen-VL's ``smart_resize`` gives an image, in pixels."""
    factor = int(image.setting("patch_size")) * int(image.setting("merge_size"))
    least, most = image.edge("size", "shortest_edge"), image.edge("size", "longest_edge")
    area = image.width * image.height
    width, height = (round(side / factor) * factor for side in (image.width, image.height))
    if width * height > most:
        shrink = math.sqrt(area / most)  # the same operations in the same order, so that no side rounds otherwise
        width, height = (
            max(factor, math.floor(side / shrink / factor) * factor) for side in (image.width, image.height)
        )
    elif width * height < least:
        grow = math.sqrt(least / area)
        width, height = (math.ceil(side * grow / factor) * factor for side in (image.width, image.height))
    return width, height


def by_grid(image: Resizing) -> int:
    """Fit the image into one of ``image_grid_pinpoints``, and add an overview (LLaVA-NeXT and LLaVA-OneVision).

    Several images of a sample are each padded to a square and get an overview only, if their processor knows how.
    """
    edge = image.edge("size", "shortest_edge")
    width, height = image.edge("size", "width") or edge, image.edge("size", "height") or edge
    if image.several and _squares(image):
        return max(to_a_square(image), image.squared.to(width, height))
    grids = [(int(h), int(w)) for h, w in image.setting("image_grid_pinpoints")]
    fits = [min(w / image.width, h / image.height) for h, w in grids]
    canvas = max(h * w for h, w in grids)
    return max(canvas + width * height, image.to(width, height), *(image.scaled(scale) for scale in fits))


def by_tiles(image: Resizing) -> int:
    """Resize to a grid of tiles, and add an overview (InternVL); the processor's module says which grid."""
    if not image.setting("crop_to_patches"):
        return by_size(image)
    width, height = image.edge("size", "width"), image.edge("size", "height")
    canvas = tile_canvas(image)
    return max(canvas[0] * canvas[1] + width * height, image.to(*canvas), image.to(width, height))


def tile_canvas(image: Resizing) -> tuple[int, int]:
    """Return the width and height of the tiles that InternVL's processor cuts an image into, in pixels."""
    width, height = image.edge("size", "width"), image.edge("size", "height")
    columns, rows = map(
        int,
        sys.modules[type(image.processor.image_processor).__module__].get_optimal_tiled_canvas(
            (image.height, image.width), (height, width), image.setting("min_patches"), image.setting("max_patches")
        ),
    )
    return columns * width, rows * height


def by_longest_edge_then_tiles(image: Resizing) -> int:
    """Resize to a longest edge, then up to whole tiles, and add an overview (Idefics3 and SmolVLM)."""
    longest, tile = image.edge("size", "longest_edge"), image.edge("max_image_size", "longest_edge")
    scale = longest / max(image.width, image.height) if image.setting("do_resize") else 1
    first = image.scaled(scale, 2) if image.setting("do_resize") else by_size(image)  # sides are made even
    width, height = (_up(side * scale + 1, tile) for side in (image.width, image.height))
    return max(first, (width + tile) * (height + tile))


def to_a_canvas(image: Resizing) -> int:
    """Fit the image into a canvas of up to ``max_image_tiles`` tiles, all of which are returned (Mllama)."""
    tile, tiles = image.edge("size", "height"), int(image.setting("max_image_tiles"))
    canvas = tile * tiles
    return max(tiles * tile**2, image.scaled(min(canvas / image.width, canvas / image.height)))


def with_crops(image: Resizing) -> int:
    """Resize the image and, if ``do_pan_and_scan`` says so, crops of it (Gemma 3)."""
    crops = int(image.setting("pan_and_scan_max_num_crops") or 0) if image.setting("do_pan_and_scan") else 0
    return max(by_size(image), (1 + crops) * image.edge("size", "width") * image.edge("size", "height"))


def within_a_square(image: Resizing) -> int:
    """Scale the longer side to ``size``, neither side under ``min_size``, then pad to a square (DeepSeek-VL)."""
    side, least = image.edge("size", "height"), int(image.setting("min_size"))
    if not image.setting("do_resize"):
        return to_a_square(image)
    scale = side / max(image.width, image.height)
    width = max(math.ceil(image.width * scale), least)
    return max(image.to(width, side), side**2)


def unknown(image: Resizing) -> int:
    """Estimate for a processor that nobody has read: by area if it merges patches, else by size, padded if it can.

    A resize to a fixed size of its own is allowed for.
    """
    read = by_area if image.setting("merge_size") and image.setting("patch_size") else by_size
    squared = max(to_a_square(image), read(image.squared)) if _squares(image) else 0
    return max(read(image), squared, image.to(_FIXED, _FIXED))
