"""Scenes and drawings: seeded, within their bounds, and unlike one another."""

import math

import numpy as np
import pytest

from scorer.mini.world import GRID, Group, Item, Scene, World, sample_scene, seeded
from scorer.mini.world.drawing import COLOURS, draw

SCENES = [sample_scene(seeded("test world", index)) for index in range(200)]


def test_a_seed_gives_one_scene_and_one_picture() -> None:
    again = [sample_scene(seeded("test world", index)) for index in range(200)]
    assert again == SCENES
    assert draw(again[0], 80).tobytes() == draw(SCENES[0], 80).tobytes()
    assert len({repr(scene) for scene in SCENES}) == 200


def test_groups_stand_in_cells_of_their_own_and_differ_in_colour() -> None:
    for scene in SCENES:
        assert list(scene.layout) == sorted(set(scene.layout))
        assert len({group.colour for group in scene.groups}) == len(scene.groups)


def test_shapes_stay_within_their_cell_and_do_not_overlap() -> None:
    for scene in SCENES:
        for group in scene.groups:
            row, column = divmod(group.cell, GRID)
            for k, item in enumerate(group.items):
                assert column / GRID <= item.x - item.radius + 1e-9
                assert item.x + item.radius <= (column + 1) / GRID + 1e-9
                assert row / GRID <= item.y - item.radius + 1e-9
                assert item.y + item.radius <= (row + 1) / GRID + 1e-9
                for other in group.items[:k]:
                    assert math.dist((item.x, item.y), (other.x, other.y)) > 2 * item.radius


def test_every_value_of_every_attribute_occurs() -> None:
    world = World()
    groups = [group for scene in SCENES for group in scene.groups]
    assert {group.shape for group in groups} == set(world.shapes)
    assert {group.colour for group in groups} == set(world.colours)
    assert {group.size for group in groups} == set(world.sizes)
    assert {group.count for group in groups} == set(world.counts)
    assert {scene.background for scene in SCENES} == set(world.backgrounds)
    assert {scene.layout for scene in SCENES} == set(world.layouts())


@pytest.mark.parametrize("shape", World().shapes)
@pytest.mark.parametrize("size", [40, 81, 256])
def test_a_shape_is_painted_in_its_colour_where_it_stands(shape: str, size: int) -> None:
    scene = Scene((Group(shape, "red", "large", 3, (Item(0.75, 0.75, 0.2, 0.0),)),), "white")
    pixels = np.asarray(draw(scene, size)).astype(int)
    assert pixels.shape == (size, size, 3)
    painted = np.abs(pixels - COLOURS["red"]).sum(2) < 60
    assert painted[size // 2 :, size // 2 :].sum() > 0.03 * size * size
    assert not painted[: size // 2].any()
    assert not painted[:, : size // 2].any()


def test_edges_are_anti_aliased() -> None:
    scene = Scene((Group("circle", "black", "large", 0, (Item(0.25, 0.25, 0.2, 0.0),)),), "white")
    assert len(np.unique(np.asarray(draw(scene, 64))[..., 0])) > 6
