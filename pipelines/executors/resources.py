"""Divide a cluster's CPUs and GPUs between encoding and scoring. Pure arithmetic, no Ray."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from scorer.errors import ConfigError

UNITS_PER_PROCESS: Final = 4
"""Units per actor, at least: a process takes seconds to minutes to load, which fewer units do not repay."""
_CPU_GRAIN: Final = 10_000
"""Ray counts CPUs in ten-thousandths."""


@dataclass(frozen=True, slots=True)
class ClusterSize:
    """The logical CPUs and GPUs of a cluster, all nodes together."""

    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorOptions:
    """What the user asked for; None leaves the choice to :func:`allocate`, and that of encoders to measurement."""

    actors: int | None = None
    cpus_per_actor: float | None = None
    gpus_per_actor: float | None = None
    encoders: int | None = None
    gpus_per_model: int | None = 1
    """How many GPUs the model uses, if an actor has any; None for as many as there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """The number of actors, and the resources that each takes.

    Attributes:
        encoders: the number of encoders that each actor has at first.
        most_encoders: the number that each may have at most: its share of the CPUs that are left.
    """

    actors: int
    cpus_per_actor: float
    gpus_per_actor: float
    encoders: int
    most_encoders: int
    cpus_per_encoder: float


def allocate(cluster: ClusterSize, asked: ActorOptions, units: int) -> Allocation:
    """Divide the cluster so that the actors never hold every CPU: each has room for at least one encoder of its own.

    By default an actor takes one CPU, and the model's GPUs if the cluster has any. There are as many actors as fit the
    GPUs, or half as many as CPUs, but no more than one per :data:`UNITS_PER_PROCESS` units. An encoder takes one CPU,
    or an equal share of what is left if that is less.

    Raises:
        ConfigError: an option is out of range, or what was asked for does not fit the cluster.
    """
    gpus = asked.gpus_per_actor if asked.gpus_per_actor is not None else _gpus_of_model(cluster, asked.gpus_per_model)
    cpus = asked.cpus_per_actor if asked.cpus_per_actor is not None else min(1.0, cluster.cpus / 2)
    least = {"--actors": 1, "--cpus-per-actor": 0, "--gpus-per-actor": 0, "--encoders": 1}
    for name, value in zip(least, (asked.actors, cpus, gpus, asked.encoders), strict=True):
        if value is not None and (not math.isfinite(value) or value < least[name]):
            raise ConfigError(f"{name} is {value:g}; it must be {least[name]} or more")
    _check_gpus(gpus, asked.gpus_per_model)
    useful = math.ceil(units / UNITS_PER_PROCESS)
    actors = asked.actors if asked.actors is not None else max(1, min(_as_many_as_fit(cluster, cpus, gpus), useful))
    wanted = f"{actors} actor{'s' if actors > 1 else ''} of {cpus:g} CPU"
    left = cluster.cpus - actors * cpus
    if left <= 0 or actors * gpus > cluster.gpus:
        raise ConfigError(
            f"a cluster of {cluster.cpus:g} CPU and {cluster.gpus:g} GPU has no room for {wanted} and {gpus:g} GPU "
            "each, as some CPU must be left to read and encode; lower --actors, --cpus-per-actor or "
            "--gpus-per-actor, or add nodes"
        )
    share = left / actors
    per_encoder = min(1.0, math.floor(share * _CPU_GRAIN) / _CPU_GRAIN)
    most = max(1, int(share / per_encoder)) if per_encoder else 1
    if asked.encoders is not None and asked.encoders > most:
        raise ConfigError(
            f"--encoders is {asked.encoders}, but a cluster of {cluster.cpus:g} CPU with {wanted} has room for "
            f"{most} per actor; lower --encoders, --actors or --cpus-per-actor, or add nodes"
        )
    return Allocation(
        actors=actors,
        cpus_per_actor=cpus,
        gpus_per_actor=gpus,
        encoders=asked.encoders or 1,
        most_encoders=asked.encoders or most,
        cpus_per_encoder=per_encoder,
    )


def _gpus_of_model(cluster: ClusterSize, gpus_per_model: int | None) -> float:
    return float(gpus_per_model or 1) if cluster.gpus >= 1 else 0.0


def _check_gpus(gpus: float, gpus_per_model: int | None) -> None:
    """Refuse GPUs that the model would leave idle, or too few of them. An actor without any runs on CPUs."""
    if gpus > 1 and gpus != int(gpus):
        raise ConfigError(f"--gpus-per-actor is {gpus:g}; above 1, it must be a whole number")
    if gpus_per_model is None or not gpus:
        return
    if gpus_per_model > 1 and gpus < gpus_per_model:
        raise ConfigError(
            f"--gpus-per-actor is {gpus:g}, but --tensor-parallel {gpus_per_model} needs {gpus_per_model} GPUs; leave "
            "--gpus-per-actor out"
        )
    if gpus > max(1, gpus_per_model):
        raise ConfigError(
            f"--gpus-per-actor is {gpus:g}, but a model uses only {gpus_per_model} of them; for a model that exceeds "
            f"one GPU, add --tensor-parallel {gpus:g} or --device-map auto; otherwise, use --gpus-per-actor 1"
        )


def _as_many_as_fit(cluster: ClusterSize, cpus: float, gpus: float) -> int:
    if gpus > 0:
        by_gpu = int(cluster.gpus / gpus)
        # Encoding images keeps CPUs busy: even a GPU machine with few of them reserves one for it.
        return by_gpu if cpus == 0 else min(by_gpu, math.ceil(cluster.cpus / cpus) - 1)
    return int(cluster.cpus / 2 / cpus) if cpus > 0 else 1
