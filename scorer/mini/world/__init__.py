"""The world of the packaged model: scenes of coloured shapes, and how they are drawn."""

from scorer.mini.world.scenes import (
    CELLS,
    GRID,
    Group,
    Item,
    Layout,
    Scene,
    World,
    in_order,
    place,
    sample_scene,
    seeded,
)

__all__ = ["CELLS", "GRID", "Group", "Item", "Layout", "Scene", "World", "in_order", "place", "sample_scene", "seeded"]
