"""The same application as replicas under Ray Serve: ``serve run service.serve:app``.

Each replica is the application of :mod:`service.app` with a separate model, so handlers, key check and limits are the
same; Ray Serve adds a proxy, load balancing and autoscaling. The proxy answers 503 beyond ``max_queued_requests``, and
a replica answers 429 beyond ``queue_size``. The limits of :mod:`service.connections` are not in force here: clients
connect to Ray's proxy, a uvicorn that Ray configures without limits on headers, on the time in which a request arrives
and on connections. Put an ingress that has such limits before it.

Settings come from the environment where the application is built and are sent to the replicas; set
:class:`ReplicaOptions` with ``serve run service.serve:app max_replicas=8``.
"""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, model_validator

from scorer.extras import needing
from service import logs
from service.app import create_app
from service.scoring import ScoringService
from service.settings import Settings, check_environment

with needing(__name__, extra="serve"):
    from ray import cluster_resources, is_initialized, serve
    from ray.serve import Application
    from ray.serve.config import AutoscalingConfig

_HEADROOM: Final = 64
"""Extra concurrent requests per replica for those that need no slot in its queue: rejects, health checks, weights."""


class ReplicaOptions(BaseModel):
    """The number of replicas, and the resources of each.

    Attributes:
        min_replicas, max_replicas: Bounds for autoscaling.
        target_ongoing_requests: Requests per replica above which another replica is started.
        max_ongoing_requests: Requests sent to one replica at once; None for its queue size plus ``_HEADROOM``, so the
            replica itself rejects requests immediately and a health check never waits for samples.
        max_queued_requests: Requests waiting in a proxy for a replica; beyond that, 503.
        num_cpus: CPUs of one replica, for the model's thread and encoding.
        num_gpus: GPUs of one replica; None for one, or none if the device is ``cpu``, or ``auto`` in a cluster without
            GPUs.
    """

    model_config = ConfigDict(extra="forbid")

    min_replicas: int = Field(1, ge=1)
    max_replicas: int = Field(4, ge=1)
    target_ongoing_requests: float = Field(32, gt=0)
    max_ongoing_requests: int | None = Field(None, ge=1)
    max_queued_requests: int = Field(128, ge=1)
    num_cpus: float = Field(2, gt=0)
    num_gpus: float | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _check(self) -> ReplicaOptions:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas={self.min_replicas} exceeds max_replicas={self.max_replicas}")
        return self


@serve.deployment(name="tokensight")
@serve.ingress()
class ScoringReplica:
    """One replica: ready once its model is warm, and replaced if its model's thread ends."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        logs.install(settings.log_level)
        self._settings = settings
        self._scoring = ScoringService(settings)
        self._scoring.start()
        await self._scoring.until_ready()

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._settings, self._scoring)

    def check_health(self) -> None:
        """Raise RuntimeError if samples cannot be scored; called by Ray Serve."""
        why = self._scoring.batcher.why_not_ready()
        if why is not None:
            raise RuntimeError(why)


def app(options: ReplicaOptions) -> Application:
    """Build the application for ``serve run`` and manifests. Raises ConfigError for a misspelt variable."""
    check_environment()
    settings = Settings()
    deployment = ScoringReplica.options(  # type: ignore[attr-defined]  # ray is untyped, the decorator unseen
        max_ongoing_requests=options.max_ongoing_requests or settings.queue_size + _HEADROOM,
        max_queued_requests=options.max_queued_requests,
        autoscaling_config=AutoscalingConfig(
            min_replicas=options.min_replicas,
            max_replicas=options.max_replicas,
            target_ongoing_requests=options.target_ongoing_requests,
        ),
        ray_actor_options={"num_cpus": options.num_cpus, "num_gpus": gpus(options, settings.device)},
        graceful_shutdown_timeout_s=settings.drain_seconds,
    )
    bound: Application = deployment.bind(settings)
    return bound


def gpus(options: ReplicaOptions, device: str) -> float:
    """Return the number of GPUs for one replica."""
    if options.num_gpus is not None:
        return options.num_gpus
    if device == "cpu":
        return 0.0
    if device == "auto" and is_initialized():
        return float(min(1.0, cluster_resources().get("GPU", 0.0)))
    return 1.0
