"""Logging: as text or JSON, one line for each failed request, and one for what happens again within a second."""

from __future__ import annotations

import atexit
import logging
import logging.config
import threading
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

Format = Literal["text", "json"]

REPEATED_WITHIN_S = 1.0
# A flood of requests, or of one fault, comes through these.
REPEATING = ("rollout.http", "uvicorn.error", "bentoml")
# Requests of which all this is the same are; lines of anything else are the same if their text is.
SAME_REQUEST = ("method", "route", "status", "model", "problem")

_encode = msgspec.json.Encoder(enc_hook=str).encode


def log_config(format_: Format) -> dict[str, Any]:
    """Returns the configuration for ``logging.config.dictConfig``, of our loggers and of those of the servers.

    Args:
        format_: ``text``, or ``json`` for an object a line.
    """
    direct = {"handlers": ["console"], "level": "INFO", "propagate": False}
    repeating = {"handlers": ["repeating"], "level": "WARNING", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": JsonFormatter if format_ == "json" else TextFormatter}},
        "handlers": {
            "console": {"class": "logging.StreamHandler", "formatter": "line"},
            "repeating": {"()": RepeatHandler, "format_": format_},
        },
        "loggers": {
            "rollout": direct,
            **dict.fromkeys(REPEATING, repeating),
            "rollout.http": {**repeating, "level": "INFO"},
        },
    }


def configure(format_: Format) -> None:
    """Configures logging in this process."""
    logging.config.dictConfig(log_config(format_))


class TextFormatter(logging.Formatter):
    """``10:15:30 WARNING rollout.http: POST /v1/… 422 …``.

    Args:
        layout: What stands in a line.
    """

    def __init__(self, layout: str = "%(asctime)s %(levelname)-7s %(name)s: %(message)s") -> None:
        super().__init__(layout, "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Returns the lines of a record: what others wrote in it tells a terminal nothing and begins no line."""
        lines = super().format(record).split("\n")
        return "\n  ".join(line if line.isprintable() else _printable(line) for line in lines)


def _printable(line: str) -> str:
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode() for sign in line
    )


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, the fields of a request, and the traceback of a fault."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line).decode()


class RepeatHandler(logging.Handler):
    """Holds a record back for a second; what is the same within it becomes one line, with a count.

    Args:
        format_: How the lines are written.
    """

    def __init__(self, format_: Format = "text") -> None:
        super().__init__()
        self._target = logging.StreamHandler()
        self._target.setFormatter(JsonFormatter() if format_ == "json" else TextFormatter())
        self._held: dict[object, tuple[logging.LogRecord, int]] = {}
        self._guard = threading.Lock()
        atexit.register(self.flush)

    def emit(self, record: logging.LogRecord) -> None:
        """Holds a record, or counts it with the one that is held; what ends a server is written at once."""
        if record.name == "uvicorn.error" and record.levelno >= logging.ERROR:
            self._target.emit(record)
            return
        fields = getattr(record, "fields", None)
        what = record.getMessage() if fields is None else tuple(map(fields.get, SAME_REQUEST))
        key = (record.name, record.levelno, what)
        with self._guard:
            held = self._held.get(key)
            self._held[key] = (record, 1) if held is None else (held[0], held[1] + 1)
        if held is None:
            timer = threading.Timer(REPEATED_WITHIN_S, self._release, [key])
            timer.daemon = True
            timer.start()

    def flush(self) -> None:
        """Writes what is held."""
        for key in list(self._held):
            self._release(key)

    def _release(self, key: object) -> None:
        with self._guard:
            record, count = self._held.pop(key, (None, 0))
        if record is None:
            return
        if count > 1:
            record.msg, record.args = f"{record.getMessage()} ({count} times within a second)", ()
            record.fields = {**getattr(record, "fields", {}), "count": count}
        self._target.emit(record)
