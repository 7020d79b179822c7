"""``tokensight serve``, or ``python -m service``: one process, uvicorn, the model in a thread."""

from __future__ import annotations

import logging
import os
import sys

import uvicorn
from pydantic import ValidationError
from pydantic_settings import CliApp

from scorer.errors import ConfigError
from service import logs
from service.app import create_app
from service.logs import with_fields
from service.scoring import ScoringService
from service.settings import Settings, check_environment

logger = logging.getLogger("service")


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop; 1 where the model cannot be loaded or does not work any more, 2 for wrong options."""
    # The model's threads share the cores with the event loop and with encoding: who waits must sleep, not spin. Read
    # once, when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        check_environment()
        settings = CliApp.run(Settings, cli_args=sys.argv[1:] if arguments is None else arguments)
    except ValidationError as error:
        for one in error.errors(include_url=False, include_input=False):
            print(f"option {'.'.join(map(str, one['loc'])) or 'combination'}: {one['msg']}", file=sys.stderr)
        return 2
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    logs.install(settings.log_level)
    logger.info("settings", extra=with_fields(settings=settings.masked()))
    return serve(settings)


def serve(settings: Settings) -> int:
    """Run uvicorn until SIGTERM or the model's end; what was accepted is finished first."""
    died: list[BaseException] = []

    def on_death(error: BaseException) -> None:
        died.append(error)
        server.should_exit = True

    app = create_app(settings, ScoringService(settings, on_death=on_death))
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        # Longer than clients and load balancers keep idle connections (60 s is usual): who closes first must not be the
        # server, which would cut off a request that is under way to it.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    )
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    host, port = socket.getsockname()[:2]
    logger.info("listening", extra=with_fields(host=host, port=port))
    server.run(sockets=[socket])
    return 1 if died or not server.started else 0


if __name__ == "__main__":
    sys.exit(main())
