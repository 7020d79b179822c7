"""Draw scenes as images of any size with Pillow; edges are anti-aliased by drawing large and averaging down."""

import math
import random
from collections.abc import Callable

from PIL import Image, ImageDraw

from scorer.mini.world.scenes import Item, Scene

Colour = tuple[int, int, int]
Points = list[tuple[float, float]]

COLOURS: dict[str, Colour] = {
    "red": (214, 40, 40),
    "green": (46, 160, 67),
    "blue": (38, 84, 214),
    "yellow": (245, 205, 35),
    "purple": (130, 50, 180),
    "pink": (248, 130, 190),
    "brown": (125, 75, 35),
    "white": (250, 250, 250),
    "black": (15, 15, 18),
    "grey": (150, 153, 158),
    "beige": (232, 214, 178),
}

SUPERSAMPLE = 4


def _turned(item: Item, corners: Points) -> Points:
    """Rotate, scale and move unit-sized `corners` (y down) to `item`, in fractions of the side."""
    cos, sin = math.cos(item.angle), math.sin(item.angle)
    return [
        (item.x + item.radius * (x * cos - y * sin), item.y + item.radius * (x * sin + y * cos)) for x, y in corners
    ]


def _spiked(spikes: int, inner: float) -> Points:
    """Return a star's outline, the first spike pointing up."""
    angles = [math.pi * k / spikes - math.pi / 2 for k in range(2 * spikes)]
    return [
        ((inner if k % 2 else 1.0) * math.cos(a), (inner if k % 2 else 1.0) * math.sin(a)) for k, a in enumerate(angles)
    ]


def _heart() -> Points:
    """Return the classic heart curve, scaled into the unit disc."""
    steps = [2 * math.pi * k / 40 for k in range(40)]
    return [
        (
            16 * math.sin(t) ** 3 / 17,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 17,
        )
        for t in steps
    ]


_ARM = 0.3
OUTLINES: dict[str, Points] = {
    "square": [(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)],
    "triangle": [(0.0, -1.0), (0.94, 0.75), (-0.94, 0.75)],
    "star": _spiked(5, 0.42),
    "heart": _heart(),
    "cross": [
        (-_ARM, -1.0), (_ARM, -1.0), (_ARM, -_ARM), (1.0, -_ARM), (1.0, _ARM), (_ARM, _ARM),
        (_ARM, 1.0), (-_ARM, 1.0), (-_ARM, _ARM), (-1.0, _ARM), (-1.0, -_ARM), (-_ARM, -_ARM),
    ],
}  # fmt: skip


def _paint(canvas: ImageDraw.ImageDraw, shape: str, item: Item, fill: Colour, hole: Colour, side: int) -> None:
    def disc(radius: float, colour: Colour) -> None:
        box = (item.x - radius, item.y - radius, item.x + radius, item.y + radius)
        canvas.ellipse([side * edge for edge in box], fill=colour)

    if shape == "circle":
        disc(item.radius, fill)
    elif shape == "ring":
        disc(item.radius, fill)
        disc(item.radius * 0.5, hole)
    else:
        canvas.polygon([(side * x, side * y) for x, y in _turned(item, OUTLINES[shape])], fill=fill)


def _shade(shade: Callable[[], int], colour: Colour) -> Colour:
    red, green, blue = (min(255, max(0, channel + shade())) for channel in colour)
    return red, green, blue


def draw(scene: Scene, size: int) -> Image.Image:
    """Draw `scene` as an RGB image of `size` by `size` pixels.

    Colours vary a little around their nominal values, by a generator seeded with the scene itself: the same scene
    gives the same pixels.

    Raises:
        KeyError: this module does not know a shape or colour.
    """
    rng = random.Random(repr(scene))
    background = _shade(lambda: rng.randint(-6, 6), COLOURS[scene.background])
    side = size * SUPERSAMPLE
    image = Image.new("RGB", (side, side), background)
    canvas = ImageDraw.Draw(image)
    for group in scene.groups:
        fill = _shade(lambda: rng.randint(-14, 14), COLOURS[group.colour])
        for item in group.items:
            _paint(canvas, group.shape, item, fill, background, side)
    return image.reduce(SUPERSAMPLE)
