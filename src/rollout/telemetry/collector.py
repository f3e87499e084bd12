"""Whether a collector takes what is sent: said once when it does not, and once when it does again."""

from __future__ import annotations

import logging
import os
import re
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Literal

import requests

# The variables that name whatever else is to send: for spans, for figures, for both.
PROVIDER = re.compile("OTEL_PYTHON_EXPORTER_OTLP_HTTP_.*CREDENTIAL_PROVIDER")

logger = logging.getLogger(__name__)


class Collector(logging.Filter):
    """Stands in the log of an exporter, which has a line for every attempt, and says what became of them.

    Args:
        what: What is sent.
        exporter: The module of the exporter, whose log this is.
    """

    def __init__(self, what: Literal["spans", "metrics"], exporter: str) -> None:
        super().__init__()
        self._what = what
        self._why = "no reason is known"
        self.is_away = False
        logging.getLogger(exporter).addFilter(self)
        logging.getLogger("opentelemetry.sdk._shared_internal").addFilter(_never)  # a line for each span

    def filter(self, record: logging.LogRecord) -> bool:
        """Keeps why an attempt failed, and has no line written."""
        self._why = record.getMessage()
        return False

    def note(self, *, took_it: bool) -> None:
        """Takes what became of a batch."""
        if took_it is not self.is_away:
            return
        self.is_away = not took_it
        if self.is_away:
            logger.warning(
                "the collector does not take %s, and they are lost until it does; no prediction waits for it: "
                "check OTEL_EXPORTER_OTLP_ENDPOINT (%s)",
                self._what,
                self._why,
            )
        else:
            logger.warning("the collector takes %s again", self._what)


class Session(requests.Session):
    """Reads no body of an answer, which the exporters have no use for: one without end would fill the memory."""

    def __init__(self) -> None:
        super().__init__()
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Sends a batch; only the headers of the answer are read."""
        response = super().send(request, **options | {"stream": True})
        response.close()
        return response

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Says that there is none: to look for it would read the body."""


def session() -> Session | None:
    """Returns what exporters send with; ``None`` where OpenTelemetry's own variables name another."""
    return None if any(PROVIDER.fullmatch(name) for name in os.environ) else Session()


def _never(_: logging.LogRecord) -> bool:
    return False
