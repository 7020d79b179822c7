from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.executors.resources import UNITS_PER_PROCESS, ActorOptions, ClusterSize, allocate
from scorer.errors import ConfigError


@given(
    cpus=st.one_of(st.integers(1, 64).map(float), st.floats(0.1, 4)),
    gpus=st.integers(0, 8),
    units=st.integers(1, 100),
)
def test_actors_and_encoders_fit_together(cpus: float, gpus: int, units: int) -> None:
    cluster = ClusterSize(cpus, float(gpus))
    try:
        found = allocate(cluster, ActorOptions(), units)
    except ConfigError:
        assert gpus > 0
        assert cpus <= 1
        return
    assert found.actors >= 1
    assert 1 <= found.encoders <= found.most_encoders, "an actor without one waits for ever"
    used = found.actors * (found.cpus_per_actor + found.most_encoders * found.cpus_per_encoder)
    assert used <= cpus + 1e-9, "an actor's encoders must not take the place of another actor"
    assert found.actors * found.gpus_per_actor <= gpus
    assert found.actors == 1 or units > UNITS_PER_PROCESS * (found.actors - 1)


@pytest.mark.parametrize(
    ("cluster", "asked", "actors", "gpus", "encoders"),
    [
        (ClusterSize(4, 0), ActorOptions(), 2, 0, (1, 1, 1.0)),
        (ClusterSize(64, 0), ActorOptions(), 32, 0, (1, 1, 1.0)),
        (ClusterSize(64, 8), ActorOptions(), 8, 1, (1, 7, 1.0)),
        (ClusterSize(8, 8), ActorOptions(), 7, 1, (1, 1, 0.1428)),
        (ClusterSize(16, 2), ActorOptions(gpus_per_actor=0.5), 4, 0.5, (1, 3, 1.0)),
        (ClusterSize(16, 2), ActorOptions(gpus_per_actor=0), 8, 0, (1, 1, 1.0)),
        (ClusterSize(16, 8), ActorOptions(gpus_per_model=4), 2, 4, (1, 7, 1.0)),
        (ClusterSize(16, 8), ActorOptions(gpus_per_model=4, gpus_per_actor=4), 2, 4, (1, 7, 1.0)),
        (ClusterSize(16, 8), ActorOptions(gpus_per_model=None, gpus_per_actor=2), 4, 2, (1, 3, 1.0)),
        (ClusterSize(16, 8), ActorOptions(gpus_per_model=None), 8, 1, (1, 1, 1.0)),
        (ClusterSize(16, 8), ActorOptions(gpus_per_model=2, gpus_per_actor=0), 8, 0, (1, 1, 1.0)),
        (ClusterSize(16, 0), ActorOptions(gpus_per_model=2), 8, 0, (1, 1, 1.0)),
        (ClusterSize(16, 0), ActorOptions(cpus_per_actor=4), 2, 0, (1, 4, 1.0)),
        (ClusterSize(16, 0), ActorOptions(actors=15), 15, 0, (1, 1, 0.0666)),
        (ClusterSize(200, 1), ActorOptions(), 1, 1, (1, 199, 1.0)),
        (ClusterSize(200, 1), ActorOptions(encoders=12), 1, 1, (12, 12, 1.0)),
    ],
)
def test_defaults_and_wishes(
    cluster: ClusterSize, asked: ActorOptions, actors: int, gpus: float, encoders: tuple[int, int, float]
) -> None:
    found = allocate(cluster, asked, 1000)
    assert (found.actors, found.gpus_per_actor) == (actors, gpus)
    assert (found.encoders, found.most_encoders, found.cpus_per_encoder) == encoders


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (ActorOptions(actors=4), r"a cluster of 4 CPU and 0 GPU has no room for 4 actors of 1 CPU and 0 GPU each"),
        (ActorOptions(gpus_per_actor=1), "lower --actors"),
        (ActorOptions(actors=0), "--actors is 0; it must be 1 or more"),
        (ActorOptions(cpus_per_actor=-1), "--cpus-per-actor is -1; it must be 0 or more"),
        (ActorOptions(gpus_per_actor=float("nan")), "--gpus-per-actor is nan"),
        (ActorOptions(gpus_per_actor=2), r"is 2, but a model uses only 1 of them; .* add --tensor-parallel 2"),
        (ActorOptions(gpus_per_actor=4, gpus_per_model=2), "is 4, but a model uses only 2 of them"),
        (ActorOptions(gpus_per_actor=1, gpus_per_model=2), "is 1, but --tensor-parallel 2 needs 2 GPUs"),
        (ActorOptions(gpus_per_actor=1.5, gpus_per_model=None), "is 1.5; above 1, it must be a whole number"),
        (ActorOptions(encoders=0), "--encoders is 0; it must be 1 or more"),
        (
            ActorOptions(actors=2, encoders=2),
            r"--encoders is 2, but a cluster of 4 CPU with 2 actors of 1 CPU has room for 1 per actor",
        ),
    ],
)
def test_wishes_that_do_not_fit(asked: ActorOptions, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        allocate(ClusterSize(4, 0), asked, 10)
