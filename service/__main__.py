"""``tokensight serve``, or ``python -m service``: one uvicorn process with the model in a thread."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from scorer.command_line.process import STOPPED, WRONG, TerminatedError, fail, run_command
from scorer.errors import ConfigError, TokensightError
from scorer.extras import needing

with needing(__name__):
    import uvicorn
    from starlette.types import ASGIApp

from service import logs
from service.app import create_app
from service.command_line import parse_settings
from service.connections import ConnectionLimits, guarded
from service.logs import with_fields
from service.metrics import Metrics
from service.scoring import ScoringService
from service.settings import Settings, check_environment

logger = logging.getLogger("service")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until stopped, and return the exit status: 1 if the model fails to load or dies, 2 for invalid options."""
    # The threads of the model share cores with the event loop and the encoders, so waiting threads must sleep, not
    # spin. torch reads this once, when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        check_environment()
        settings = parse_settings(sys.argv[1:] if arguments is None else arguments)
    except ConfigError as error:
        return fail(error, WRONG)
    logs.install(settings.log_level)
    logger.info("settings", extra=with_fields(settings=settings.masked()))
    return serve(settings)


def serve(settings: Settings) -> int:
    """Run uvicorn until SIGTERM or the death of the model, after answering accepted requests."""
    died: list[BaseException] = []

    def on_death(error: BaseException) -> None:
        died.append(error)
        server.should_exit = True

    def on_ready() -> None:
        if sys.stderr.isatty():
            shown = f"[{host}]" if ":" in host else host
            print(f"ready: http://{shown}:{port}", file=sys.stderr, flush=True)

    scoring = ScoringService(settings, on_ready=on_ready, on_death=on_death)
    config = server_config(create_app(settings, scoring), settings, scoring.metrics)
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    host, port = socket.getsockname()[:2]
    logger.info("listening", extra=with_fields(host=host, port=port))
    try:
        server.run(sockets=[socket])
    except TerminatedError:  # uvicorn raises the signal again once it has stopped, which is how a service ends well
        if not server.started:
            raise
    if died and isinstance(died[0], TokensightError | OSError):
        return fail(died[0], STOPPED)
    return STOPPED if died or not server.started else 0


def server_config(app: ASGIApp, settings: Settings, metrics: Metrics) -> uvicorn.Config:
    """Return how uvicorn serves the application: within the limits of the settings, and without WebSockets."""
    limits = ConnectionLimits(
        connections=settings.max_connections,
        head_bytes=settings.max_head_bytes,
        head_seconds=settings.head_seconds,
        body_seconds=settings.request_seconds,
    )
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=guarded(limits, metrics),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # Longer than clients and load balancers keep idle connections (usually 60 s): the server must not close first,
        # or it could cut off a request that is already on its way.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    )


if __name__ == "__main__":
    sys.exit(run_command(main, owns_process=True))
