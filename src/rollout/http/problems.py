"""Errors on the wire: RFC 9457 problem documents."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from starlette.responses import Response

from rollout import metrics
from rollout.errors import RolloutError

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:rollout:problem:"
NO_MODEL = "-"
INFERENCE_PROTOCOL = "/v2"

logger = logging.getLogger(__name__)


def problem_document(error: RolloutError, path: str = "") -> dict[str, Any]:
    """Returns the problem document of an error, ready to be encoded.

    Args:
        error: What went wrong.
        path: Where; callers of the Open Inference Protocol look for ``error``.
    """
    document: dict[str, Any] = {
        "type": TYPE_PREFIX + error.type,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
    }
    if error.errors:
        document["errors"] = [{"pointer": f"#{pointer}", "detail": detail} for pointer, detail in error.errors]
    if path.startswith(INFERENCE_PROTOCOL):
        document["error"] = error.detail
    return document


def problem_response(error: RolloutError, model: str = NO_MODEL, path: str = "") -> Response:
    """Returns the HTTP answer to an error, and counts it.

    Args:
        error: What went wrong.
        model: The model that was asked, if it is one of ours: it becomes a metric's label.
        path: Where.
    """
    metrics.ERRORS.labels(model, error.type).inc()
    body = msgspec.json.encode(problem_document(error, path))
    return Response(body, error.status, error.headers, MEDIA_TYPE)


def as_rollout_error(error: Exception) -> RolloutError:
    """Returns the error itself where it is one of ours, and otherwise logs it and says no more than that."""
    if isinstance(error, RolloutError):
        return error.alone()
    logger.error("an unforeseen error", exc_info=error)
    return RolloutError("the service's log has the details")
