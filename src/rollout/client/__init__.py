"""The client of a Rollout service, sync and async. It needs httpx and msgspec, and nothing of the server.

Example:
    >>> from rollout.client import Client
    >>> client = Client("http://localhost:3000", model="digits")
    >>> client.close()
"""

from rollout.client.answers import (
    Answer,
    Attribution,
    Box,
    Explanation,
    Finding,
    Model,
    Outcome,
    Prediction,
    Span,
    Verdict,
)
from rollout.client.async_client import AsyncClient
from rollout.client.client import Client
from rollout.client.instances import Instance
from rollout.client.problems import (
    BodyTooLargeError,
    ClientError,
    DeadlineExceededError,
    ExplainTimeoutError,
    ExplainUnavailableError,
    Fault,
    ForbiddenError,
    InvalidRequestError,
    MalformedBodyError,
    NoAnswerError,
    OutcomeConflictError,
    OverloadedError,
    PredictionFailedError,
    Problem,
    StoreUnavailableError,
    UnauthorizedError,
    UnexpectedAnswerError,
    UnknownModelError,
    UnreachableError,
)

__all__ = [
    "Answer",
    "AsyncClient",
    "Attribution",
    "BodyTooLargeError",
    "Box",
    "Client",
    "ClientError",
    "DeadlineExceededError",
    "ExplainTimeoutError",
    "ExplainUnavailableError",
    "Explanation",
    "Fault",
    "Finding",
    "ForbiddenError",
    "Instance",
    "InvalidRequestError",
    "MalformedBodyError",
    "Model",
    "NoAnswerError",
    "Outcome",
    "OutcomeConflictError",
    "OverloadedError",
    "Prediction",
    "PredictionFailedError",
    "Problem",
    "Span",
    "StoreUnavailableError",
    "UnauthorizedError",
    "UnexpectedAnswerError",
    "UnknownModelError",
    "UnreachableError",
    "Verdict",
]
