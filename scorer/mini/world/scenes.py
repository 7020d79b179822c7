"""Sample scenes: one to four groups of like shapes on a plain background, every attribute drawn independently.

A scene is laid out on a two-by-two grid of cells::

    0 | 1
    --+--
    2 | 3

Each occupied cell contains one group of one to three equal shapes, placed near the slots of a finer grid of the same
kind. Two groups of a scene never share a colour, so "the red circle" always names one of them; everything else is
independent, so language alone cannot predict it.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

GRID = 2
CELLS = GRID * GRID

Layout = tuple[int, ...]
"""The occupied cells, ascending."""


@dataclass(frozen=True, slots=True)
class World:
    """The values that every attribute may take; a smaller world makes exhaustive tests possible."""

    shapes: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "ring", "heart")
    colours: tuple[str, ...] = ("red", "green", "blue", "yellow", "purple", "pink", "brown")
    sizes: tuple[str, ...] = ("small", "large")
    counts: tuple[int, ...] = (1, 2, 3)
    backgrounds: tuple[str, ...] = ("white", "black", "grey", "beige")
    # Repeated entries are weights: four groups are crowded, so they are rarer.
    group_numbers: tuple[int, ...] = (1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 4)

    def layouts(self) -> tuple[Layout, ...]:
        """Return every set of cells that a scene of this world may occupy."""
        numbers = sorted(set(self.group_numbers))
        return tuple(cells for number in numbers for cells in combinations(range(CELLS), number))


@dataclass(frozen=True, slots=True)
class Item:
    """One drawn shape; lengths are fractions of the image's side, the angle is in radians."""

    x: float
    y: float
    radius: float
    angle: float


@dataclass(frozen=True, slots=True)
class Group:
    """Equal shapes in one cell."""

    shape: str
    colour: str
    size: str
    cell: int
    items: tuple[Item, ...]

    @property
    def count(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class Scene:
    """Groups in ascending order of their cells, and the background's colour."""

    groups: tuple[Group, ...]
    background: str

    @property
    def layout(self) -> Layout:
        return tuple(group.cell for group in self.groups)


RADII = {"small": (0.055, 0.066), "large": (0.1, 0.114)}
SHIFT = 0.02
"""The largest offset of a shape from the middle of its slot."""


def place(cell: int, size: str, count: int, rng: random.Random) -> tuple[Item, ...]:
    """Place `count` shapes of `size` in different slots of `cell`, of which there are four, each a little off centre.

    Raises:
        KeyError: `size` has no radius in `RADII`.
        ValueError: there are more shapes than slots.
    """
    radius = rng.uniform(*RADII[size])
    tilt = rng.uniform(-0.15, 0.15)
    row, column = divmod(cell, GRID)
    slot_side = 1 / GRID**2
    shift = min(SHIFT, slot_side / 2 - radius)
    items = []
    for slot in sorted(rng.sample(range(CELLS), count)):
        slot_row, slot_column = divmod(slot, GRID)
        x = (GRID * column + slot_column + 0.5) * slot_side + rng.uniform(-shift, shift)
        y = (GRID * row + slot_row + 0.5) * slot_side + rng.uniform(-shift, shift)
        items.append(Item(x, y, radius, tilt))
    return tuple(items)


def sample_scene(rng: random.Random, world: World | None = None) -> Scene:
    """Draw a scene; all randomness comes from `rng`."""
    world = world or World()
    number = rng.choice(world.group_numbers)
    cells = sorted(rng.sample(range(CELLS), number))
    colours = rng.sample(world.colours, number)
    groups = []
    for cell, colour in zip(cells, colours, strict=True):
        size, count = rng.choice(world.sizes), rng.choice(world.counts)
        groups.append(Group(rng.choice(world.shapes), colour, size, cell, place(cell, size, count, rng)))
    return Scene(tuple(groups), rng.choice(world.backgrounds))


def seeded(*parts: str | int) -> random.Random:
    """Return a separate generator for every tuple of `parts`, the same on every machine and Python version."""
    return random.Random(":".join(map(str, parts)))


def in_order(scene: Scene, order: Sequence[int]) -> tuple[Group, ...]:
    """Return the groups of `scene` in the order in which `order` visits the cells."""
    return tuple(sorted(scene.groups, key=lambda group: order.index(group.cell)))
