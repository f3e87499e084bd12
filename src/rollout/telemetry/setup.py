"""What OpenTelemetry's standard variables ask for, begun and ended; all else the SDK reads from them itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Literal

from rollout.errors import ConfigError
from rollout.http import request_log

Signal = Literal["traces", "metrics"]

PROTOCOL = "http/protobuf"
# So long a worker that stops waits for what is on its way to the collector.
LAST_S = 3.0


def wanted(signal: Signal, environ: Mapping[str, str] = os.environ) -> bool:
    """Says whether a signal is to be sent.

    An endpoint is enough; ``OTEL_TRACES_EXPORTER=none`` and ``OTEL_SDK_DISABLED=true`` say no.

    Args:
        signal: Which.
        environ: The environment.

    Raises:
        ConfigError: If it is to be sent in a way that we do not have.
    """
    name = f"OTEL_{signal.upper()}_EXPORTER"
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    default = "otlp" if any(map(environ.get, endpoints)) else "none"
    exporter = environ.get(name) or default
    if exporter not in {"otlp", "none"}:
        raise ConfigError(f"{name}={exporter} is not one that Rollout has: set it to otlp or none")
    if exporter == "none" or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    protocols = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    named = next(filter(environ.get, protocols), None)
    if named is not None and environ[named] != PROTOCOL:
        raise ConfigError(f"{named}={environ[named]}: Rollout sends {PROTOCOL} alone, to port 4318 by default")
    return True


def start(models: Callable[[], Collection[str]]) -> Callable[[], None]:
    """Begins to send what is asked for; without it nothing is imported, and nothing done a request.

    Args:
        models: Returns the names of the models that are served.

    Returns:
        What sends the last of it, and ends within ``LAST_S``.

    Raises:
        ConfigError: If it is asked for in a way that we do not have, or the extra is missing.
    """
    signals: list[Signal] = [signal for signal in ("traces", "metrics") if wanted(signal)]
    if not signals:
        return lambda: None
    try:
        from rollout.telemetry.figures import Figures  # noqa: PLC0415  takes an extra
        from rollout.telemetry.replica import Replica  # noqa: PLC0415
        from rollout.telemetry.spans import Spans  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("OTEL_EXPORTER_OTLP_ENDPOINT takes an extra: pip install 'rollout[otel]'") from error
    replica = Replica()
    closing: list[Callable[[], None]] = []
    if "traces" in signals:
        spans = Spans(replica.resource)
        request_log.ended = spans.record
        closing.append(spans.close)
    if "metrics" in signals:
        closing.append(Figures(replica, models).close)

    def close() -> None:
        request_log.ended = None
        last = [threading.Thread(target=each, daemon=True) for each in closing]
        for thread in last:
            thread.start()
        for thread in last:
            thread.join(LAST_S)

    return close
