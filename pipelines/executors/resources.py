"""How a cluster's CPUs and GPUs are shared out between encoding and scoring. Pure arithmetic, no Ray."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from scorer.errors import ConfigError

ENCODERS_PER_ACTOR: Final = 8
"""More would hold memory (half a gigabyte each) and feed no faster model."""

UNITS_PER_PROCESS: Final = 4
"""A process takes seconds to minutes to load its libraries and model: for fewer units, one more does not pay."""


@dataclass(frozen=True, slots=True)
class ClusterSize:
    """What a cluster has, all nodes together."""

    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorOptions:
    """What the user asked for; None where it is left to :func:`allocate`."""

    actors: int | None = None
    cpus_per_actor: float | None = None
    gpus_per_actor: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """How many actors hold the model, how many encode for them, and what each takes."""

    actors: int
    cpus_per_actor: float
    gpus_per_actor: float
    encoders: int
    cpus_per_encoder: float


def allocate(cluster: ClusterSize, asked: ActorOptions, units: int) -> Allocation:
    """Share the cluster so that the actors never hold every CPU: those that feed them would wait for ever.

    By default an actor takes one CPU, and one GPU where there are any; there are as many actors as GPUs, or half as
    many as CPUs, but none for fewer than :data:`UNITS_PER_PROCESS` units.

    Raises:
        ConfigError: what was asked for does not fit the cluster.
    """
    gpus = asked.gpus_per_actor if asked.gpus_per_actor is not None else float(cluster.gpus >= 1)
    cpus = asked.cpus_per_actor if asked.cpus_per_actor is not None else min(1.0, cluster.cpus / 2)
    for name, value in (("--actors", asked.actors), ("--cpus-per-actor", cpus), ("--gpus-per-actor", gpus)):
        least = 1 if name == "--actors" else 0
        if value is not None and (not math.isfinite(value) or value < least):
            raise ConfigError(f"{name} is {value:g}; it must be {least} or more")
    useful = math.ceil(units / UNITS_PER_PROCESS)
    actors = asked.actors if asked.actors is not None else max(1, min(_as_many_as_fit(cluster, cpus, gpus), useful))
    left = cluster.cpus - actors * cpus
    if left <= 0 or actors * gpus > cluster.gpus:
        raise ConfigError(
            f"{actors} actors of {cpus:g} CPU and {gpus:g} GPU do not fit a cluster of {cluster.cpus:g} CPU and "
            f"{cluster.gpus:g} GPU, of which some CPU must be left to read and encode; lower --actors, "
            "--cpus-per-actor or --gpus-per-actor, or add nodes"
        )
    per_encoder = min(1.0, left)
    return Allocation(
        actors=actors,
        cpus_per_actor=cpus,
        gpus_per_actor=gpus,
        encoders=max(1, min(int(left / per_encoder), actors * ENCODERS_PER_ACTOR, useful)),
        cpus_per_encoder=per_encoder,
    )


def _as_many_as_fit(cluster: ClusterSize, cpus: float, gpus: float) -> int:
    if gpus > 0:
        by_gpu = int(cluster.gpus / gpus)
        # Encoding pictures keeps CPUs busy; a GPU box with few of them still keeps one for it.
        return by_gpu if cpus == 0 else min(by_gpu, math.ceil(cluster.cpus / cpus) - 1)
    return int(cluster.cpus / 2 / cpus) if cpus > 0 else 1
