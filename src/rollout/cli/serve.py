"""``rollout serve``: the service in worker processes of uvicorn."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import click
import uvicorn

from rollout.cli.examples import examples
from rollout.cli.output import say
from rollout.cli.shared import trust_option
from rollout.cli.termination import end_on_sigterm
from rollout.cli.workers import Workers, check_bundles
from rollout.config import Settings, load_settings
from rollout.embedded import running_redis
from rollout.errors import ConfigError
from rollout.home import keep_private, prepare_home
from rollout.http.auth import TOKEN_FILE, admin_token
from rollout.inference.variant_choice import forget_choices
from rollout.inference.watchdog import HANG_S
from rollout.logs import log_config

DRAIN_S = 30
BACKLOG = 4096
PROTOCOL = "rollout.http.protocol:PredictProtocol"  # for workers: what starts them has no engine


def address_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --host, --port and --workers to a command."""
    for option in (
        click.option("--workers", type=int, help="Worker processes; ROLLOUT_WORKERS by default."),
        click.option("--port", type=int, help="TCP port; ROLLOUT_PORT by default."),
        click.option("--host", help="Address to listen on; ROLLOUT_HOST by default."),
    ):
        command = option(command)
    return command


@click.command(epilog=examples("rollout serve", "rollout serve --host 127.0.0.1 --port 3001 --workers 2"))
@address_options
@trust_option
def serve(host: str | None, port: int | None, workers: int | None, *, trust: bool) -> None:
    """Serve every model that has a split. SIGTERM and Ctrl-C answer what is in flight, then stop."""
    run_server(load_settings(host=host, port=port, workers=workers, trust=trust or None), when_ready=lambda: None)


def run_server(settings: Settings, when_ready: Callable[[], None]) -> None:
    """Serves until SIGTERM or SIGINT.

    Args:
        settings: What to serve, and where.
        when_ready: Called once the first worker answers.

    Raises:
        ConfigError: If the address cannot be listened on, or is open to others without tokens, or a worker cannot
            start.
        StoreUnavailableError: If Redis does not answer.
    """
    # The first process of a container is ended by no signal that it leaves to the system; later, workers drain.
    end_if_asked = end_on_sigterm(0)
    if not settings.tokens and not settings.listens_on_loopback:
        raise ConfigError(
            f"{settings.host} can be reached from other machines: set ROLLOUT_TOKENS, such as "
            "app:TOKEN,reviewer:TOKEN,admin:TOKEN, or listen on 127.0.0.1"
        )
    prepare_home(settings.home)
    keep_private()
    _require_free_port(settings, settings.port, "--port or PORT")
    if settings.grpc_port:
        import rollout.http.oip_grpc  # noqa: F401, PLC0415  says so where the extra is missing

        _require_free_port(settings, settings.grpc_port, "ROLLOUT_GRPC_PORT")
    if not settings.tokens:
        token, made = admin_token(settings.home)
        if made:
            say(f"The admin token, shown this once and kept in {settings.home / TOKEN_FILE}: {token}")
    with running_redis(settings) as url:
        _prepare_workers(settings, url)
        check_bundles(settings, url)
        end_if_asked()
        threading.Thread(target=_watch_ready, args=(settings, when_ready), daemon=True).start()
        supervisor = _supervisor(settings)  # which takes signals from here on
        end_if_asked()
        supervisor.run()
        if supervisor.could_not_start:
            raise ConfigError("a worker could not start; the lines before this one say why")


def _supervisor(settings: Settings) -> Workers:
    """Listens on the address."""
    config = uvicorn.Config(
        "service.front:app",
        host=settings.host,
        port=settings.port,
        workers=settings.processes,
        loop="uvloop",
        http=PROTOCOL,
        ws="none",
        lifespan="on",
        log_config=log_config(settings.log),
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=DRAIN_S,
        timeout_worker_healthcheck=int(HANG_S),
    )
    return Workers(config, [config.bind_socket()])


def _prepare_workers(settings: Settings, url: str) -> None:
    """Hands the settings down, which workers read from the environment."""
    os.environ.update(
        PYTHONSAFEPATH="1",  # they would import what lies where the command is run
        ROLLOUT_HOME=str(settings.home.resolve()),
        ROLLOUT_REDIS_URL=url,
        ROLLOUT_HOST=settings.host,
        ROLLOUT_PORT=str(settings.port),
        ROLLOUT_WORKERS=str(settings.processes),
        ROLLOUT_TRUST=str(settings.trust).lower(),
    )
    # Workers add their metrics up through files; those of the last run would be counted again. A home may have
    # several services.
    forget_choices(settings.home)
    metrics = settings.home.resolve() / "metrics" / str(settings.port)
    shutil.rmtree(metrics, ignore_errors=True)
    metrics.mkdir(parents=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)


def _require_free_port(settings: Settings, port: int, by: str) -> None:
    try:
        family = socket.getaddrinfo(settings.host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((settings.host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} on {settings.host} is in use: stop what uses it, or choose another with {by}"
            ) from None
        raise ConfigError(f"cannot listen on {settings.host}:{port}: {error.strerror}") from None


def _watch_ready(settings: Settings, when_ready: Callable[[], None]) -> None:
    while True:
        try:
            with urllib.request.urlopen(f"http://{settings.host}:{settings.port}/readyz", timeout=60):
                when_ready()
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
