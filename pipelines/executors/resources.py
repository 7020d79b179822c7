"""Divide a cluster's CPUs and GPUs between encoding and scoring. Pure arithmetic, no Ray."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from scorer.errors import ConfigError

ENCODERS_PER_ACTOR: Final = 8
"""More encoders would take memory (half a gigabyte each) without feeding the model any faster."""

UNITS_PER_PROCESS: Final = 4
"""A process takes seconds to minutes to load its libraries and model: another one does not pay for fewer units."""


@dataclass(frozen=True, slots=True)
class ClusterSize:
    """The logical CPUs and GPUs of a cluster, all nodes together."""

    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorOptions:
    """What the user asked for; None leaves the choice to :func:`allocate`."""

    actors: int | None = None
    cpus_per_actor: float | None = None
    gpus_per_actor: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """The number of actors and of encoders, and the resources that each takes."""

    actors: int
    cpus_per_actor: float
    gpus_per_actor: float
    encoders: int
    cpus_per_encoder: float


def allocate(cluster: ClusterSize, asked: ActorOptions, units: int) -> Allocation:
    """Divide the cluster so that the actors never hold every CPU: the encoders that feed them would wait forever.

    By default an actor takes one CPU, and one GPU if the cluster has any. There are as many actors as GPUs, or half as
    many as CPUs, but no more than one per :data:`UNITS_PER_PROCESS` units.

    Raises:
        ConfigError: an option is out of range, or what was asked for does not fit the cluster.
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
            f"{cluster.gpus:g} GPU, where some CPU must be left to read and encode; lower --actors, "
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
        # Encoding images keeps CPUs busy: even a GPU machine with few of them reserves one for it.
        return by_gpu if cpus == 0 else min(by_gpu, math.ceil(cluster.cpus / cpus) - 1)
    return int(cluster.cpus / 2 / cpus) if cpus > 0 else 1
