"""docs/client.md says what the client does: its blocks run, and its tables are whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

import rollout.client
from rollout.client import Answer, Prediction, problems
from rollout.errors import HTTP_ERRORS
from tests.client.test_client import pixels
from tests.conftest import ROOT, Service

PAGE = (ROOT / "docs" / "client.md").read_text()


def test_its_blocks_run(served: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    PIL.Image.fromarray(pixels()).save("scan.png")
    found: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    for block in blocks:
        exec(block.replace("http://localhost:3000", served.base), found)  # noqa: S102
    found["client"].close()
    assert len(blocks) == 6
    assert [one.key for one in found["answers"]] == ["p-1", "p-2"]
    assert len(found["labels"]) == 100


def test_each_class_of_a_problem_is_that_of_the_service() -> None:
    theirs = {error.type: error.__name__ for error in HTTP_ERRORS}
    ours = {name: kind.__name__ for name, kind in problems.PROBLEMS.items()}
    assert ours.items() <= theirs.items()
    assert dict(re.findall(r"^\| `(\w+Error)` \| `([\w-]+)` \|", PAGE, re.M)) == {
        name: kind for kind, name in ours.items()
    }
    statuses = {error.type: error.status for error in HTTP_ERRORS}
    for kind in problems.PROBLEMS.values():
        assert f"({statuses[kind.type]})" in (kind.__doc__ or "")


def test_every_field_of_an_answer_is_on_the_page() -> None:
    for name in {*Answer.__struct_fields__, *Prediction.__struct_fields__} - {"dtype"}:
        assert f"`{name}`" in PAGE


def test_the_public_surface() -> None:
    assert sorted(rollout.client.__all__) == [
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
    methods = {"explain", "feedback", "feedback_many", "model", "models", "predict", "predict_many", "verdict"}
    for kind, close in ((rollout.client.Client, "close"), (rollout.client.AsyncClient, "aclose")):
        assert {name for name in vars(kind) if not name.startswith("_")} == {*methods, close}
    for name in rollout.client.__all__:
        assert getattr(rollout.client, name).__doc__
