"""What is kept of a prediction that goes to review."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import pytest

from rollout import Classification, Image, InputSchema, Tensor
from rollout.config import Settings
from rollout.http.auth import admin_token
from rollout.http.tensors import Column, SentRows
from rollout.inference.decisions import Decisions
from rollout.inference.reviewing import Pick, review_item, review_items
from rollout.inference.rows import Answers, PublicHead, Rows
from rollout.review.item import ReviewItem
from rollout.review.policy import ReviewPolicy
from rollout.review.sampling import Sampler
from rollout.review.spool import Spool
from rollout.routing.assignment import Assignment
from rollout.routing.split import Split

ADA = {"name": "Ada", "born": "1815-12-10", "income": 3}


def reviewed(
    rows: Rows, schema: InputSchema | None = None, *redact: str, scores: float = 0.4, secret: bytes = b"s"
) -> tuple[Any, Rows, Answers]:
    """Returns a model, the one row that it was asked for, and its answer."""
    task = Classification(labels=["no", "yes"], review_threshold=0.6)
    sampler = Sampler("loans")
    sampler.policy = ReviewPolicy(redact=[*redact])
    version = SimpleNamespace(manifest=SimpleNamespace(task=task))
    model = SimpleNamespace(name="loans", sampler=sampler, versions={"v1": version}, secret=secret, schema=schema)
    decisions = Decisions(np.array([[1, 1 - scores, scores]]), np.array([True]))
    assigned = [Assignment("champion", "v1", 0.5)]
    split = Split(champion="v1")
    heads = {"v1": PublicHead(task, msgspec.Raw(msgspec.json.encode(task)))}
    answers = Answers(split, task, assigned, {"v1": "onnx"}, heads, decisions, {}, {}, 0.0, 0.0, 1_700_000_000.0)
    return model, rows, answers


def item(
    sent: Mapping[str, Any], *redact: str, key: str | None = None, scores: float = 0.4, secret: bytes = b"s"
) -> ReviewItem:
    """Returns the item of one row."""
    rows = Rows(["c-1"], [key], {}, [sent], 0.0)
    return review_item(*reviewed(rows, None, *redact, scores=scores, secret=secret), 0, "low_confidence", 1.0)


def test_the_same_inputs_are_the_same_item_without_a_key_and_linked_with_one() -> None:
    assert item(ADA) == item(ADA)
    assert item(ADA).id != item(ADA | {"income": 4}).id
    one, other = item(ADA, key="k-1"), item(ADA, key="k-2")
    assert one.id != other.id
    assert one.same == other.same != item(ADA | {"income": 4}).same


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_inputs_that_came_in_several_lines_are_kept_in_one(end: str, tmp_path: Path) -> None:
    """In lines of their own they would be lost from a spool, and end an export for all."""
    laid_out = msgspec.Raw(f'[1,{end}  [2.50,{end}"a{chr(92)}n b"]]'.encode())
    schema = InputSchema({"x": Tensor(shape=(2,))})
    rows = Rows(["c-1"], [None], {"x": np.zeros((1, 2), np.float32)}, [{"x": laid_out}], 0.0)
    kept = review_item(*reviewed(rows, schema), 0, "low_confidence", 1.0)
    assert bytes(kept.inputs) == b'{"x":[1,[2.50,"a\\n b"]]}'
    spool = Spool(tmp_path, 100_000)
    assert spool.append([kept]) == [True]
    with spool.drain() as items:
        assert list(items) == [kept]


@pytest.mark.parametrize("key", [None, "k-1"])
def test_what_is_redacted_cannot_be_guessed_from_what_is_kept(key: str | None) -> None:
    """Whatever would be the same for another date of birth tells nothing of this one."""
    kept = item(ADA, "born", key=key)
    assert msgspec.json.decode(kept.inputs) == ADA | {"born": None}
    assert kept == item(ADA | {"born": "1906-12-09"}, "born", key=key)
    assert kept.same != item(ADA | {"income": 4}, "born", key=key).same
    assert kept.same != item(ADA, "born", key=key, scores=0.41).same, "a reviewer would see another one"


def test_inputs_cannot_be_found_by_trying_once_they_are_gone() -> None:
    """What outlives them are hashes under a secret that is not kept with them."""
    assert item(ADA).id != item(ADA, secret=b"t").id
    assert item(ADA).same != item(ADA, secret=b"t").same
    assert item(ADA, key="k-1").id == item(ADA, key="k-1", secret=b"t").id, (
        "a key is the caller's own, and no input"
    )


def test_the_secret_is_that_of_a_deployment(tmp_path: Path) -> None:
    configured = Settings(home=tmp_path, tokens="app:app-token-0123456789")
    assert configured.hash_secret() == Settings(home=tmp_path / "other", tokens=configured.tokens).hash_secret()
    assert configured.hash_secret() != Settings(home=tmp_path, tokens="app:app-token-9876543210").hash_secret()
    made = Settings(home=tmp_path)
    admin_token(tmp_path)
    assert made.hash_secret() == Settings(home=tmp_path).hash_secret() != configured.hash_secret()
    assert len(made.hash_secret()) == 32


PHOTO = Image(height=96, width=128, channels=3)


@pytest.mark.parametrize("came_as", ["tensor", "lists", "file"])
async def test_a_large_image_is_kept_as_a_file_made_off_the_event_loop(came_as: str) -> None:
    steps = np.linspace(0, 255, 96 * 128 * 3).reshape(96, 128, 3).astype(np.uint8)
    schema = InputSchema({"photo": PHOTO})
    sent: Any = [{"photo": msgspec.Raw(msgspec.json.encode(steps.tolist()))}]
    if came_as == "tensor":
        sent = SentRows({"photo": Column(steps[None], steps[None])}, schema.fields)
    file = msgspec.json.encode(PHOTO.keep(None, steps))
    if came_as == "file":
        sent = [{"photo": msgspec.Raw(file)}]
    rows = Rows(["c-1"], ["k-1"], {"photo": steps[None]}, sent, 0.0)
    threads = []
    keep = Image.keep

    def spy(self: Image, *arguments: Any) -> Any:
        threads.append(threading.get_ident())
        return keep(self, *arguments)

    with mock.patch.object(Image, "keep", spy):
        items = await review_items(*reviewed(rows, schema), [Pick(0, "low_confidence", 1.0)])
    assert threads
    assert threading.get_ident() not in threads
    kept = items[0].inputs
    assert bytes(kept) == b'{"photo":' + file + b"}", "the same, however it came"
    assert len(bytes(kept)) < len(msgspec.json.encode(steps.tolist())) / 5
    assert np.array_equal(schema.decode(msgspec.json.decode(kept, type=dict[str, msgspec.Raw]))["photo"], steps)


def test_a_small_image_is_kept_as_it_came() -> None:
    small = Image(height=2, width=2)
    sent = msgspec.Raw(b"[[1, 2], [3, 4]]")
    assert small.keep(sent, small.decode([[1, 2], [3, 4]])) is sent
    assert small.keep(None, small.decode([[1, 2], [3, 4]])) == [[1, 2], [3, 4]]
