"""``rollout review``: labels out and in, what the queue is like, and the policy behind it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args

import click
import msgspec

from rollout.bundle.machine import user_name
from rollout.cli.completion import model_argument
from rollout.cli.output import print_json
from rollout.cli.review_export import ROLE, export
from rollout.cli.review_policy import policy
from rollout.cli.review_suspects import suspects
from rollout.cli.review_view import show_access, show_imported, show_items, show_stats
from rollout.cli.shared import call_for, json_option
from rollout.errors import ConfigError, InvalidRequestError
from rollout.review.access_log import read_access, record_access
from rollout.review.item import Reason, ReviewItem, milliseconds
from rollout.review.queue import list_items
from rollout.review.state import State
from rollout.review.stats import Stats, review_stats
from rollout.routing.trial_labels import TrialLabels, read_trial_labels
from rollout.store import Redis

NOT_ALL_TAKEN = 1


@click.group()
def review() -> None:
    """Take labels out of the review queue and into it, and see how it fares."""


for command in (export, policy, suspects):
    review.add_command(command)


@review.command("list")
@model_argument
@click.option("--state", type=click.Choice([*map(str, State)]), default="open", show_default=True)
@click.option("--reason", type=click.Choice(get_args(Reason)))
@click.option("--arm", type=click.Choice(["champion", "control", "challenger"]))
@click.option("--version")
@click.option("--client", help="The caller's own ID of a client.")
@click.option("--since", help="Earliest time of the prediction, ISO 8601.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many, at most.")
@json_option
def list_(
    model: str,
    state: str,
    client: str | None,
    since: str | None,
    limit: int,
    *,
    as_json: bool,
    **wanted: str | None,
) -> None:
    """List items in one state, open ones in the order in which they are claimed; without their inputs."""
    filters = {name: value for name, value in wanted.items() if value is not None}
    if client is not None:
        filters["client_id"] = client
    _require_time(since)

    async def read(redis: Redis) -> list[ReviewItem]:
        items: list[ReviewItem] = []
        async for item, _ in list_items(redis, model, filters, since, State(state)):
            items.append(item)
            if len(items) == limit:
                break
        await record_access(redis, model, user_name(), ROLE, "list", [one.id for one in items])
        return items

    items = call_for(model, read)
    if as_json:
        print_json([_fields(item, state) for item in items])
    else:
        show_items(model, State(state), items, limit)


@review.command("import")
@model_argument
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--reviewer", help="Who labelled, where the file does not say; you by default.")
@click.option("--format", "asked", type=click.Choice(["jsonl", "label-studio"]), help="What FILE is, if unclear.")
@json_option
def import_(model: str, file: Path, reviewer: str | None, asked: str | None, *, as_json: bool) -> None:
    """Resolve items by the labels in FILE: JSON lines, or what Label Studio exports as JSON.

    A line has an id, or a client_id and a key; a label, a value or what else the model answers with; and a
    reviewer if it says so. An answer that is there already is never replaced. Exit code 1: some labels were not
    taken, and it says which and why.
    """
    from rollout.job.labels import open_labels  # noqa: PLC0415
    from rollout.review.labels import is_name, take_labels  # noqa: PLC0415

    who = reviewer if reviewer is not None else user_name()
    if not is_name(who):
        raise ConfigError("--reviewer must be 1 to 128 printable characters")
    with open_labels(file, asked) as labels:
        imported = call_for(model, lambda redis: take_labels(redis, model, labels, who))
    if as_json:
        print_json(imported)
    else:
        show_imported(model, imported)
    if not imported.is_whole:
        sys.exit(NOT_ALL_TAKEN)


@review.command()
@model_argument
@json_option
def stats(model: str, *, as_json: bool) -> None:
    """Show the queue, the labels that the trial wants, the reviewers, and how often the model is right."""

    async def read(redis: Redis) -> tuple[Stats, TrialLabels | None]:
        return await review_stats(redis, model), await read_trial_labels(redis, model)

    found, trial = call_for(model, read)
    if as_json:
        print_json({**msgspec.structs.asdict(found), "trial": trial})
    else:
        show_stats(found, trial)


@review.command()
@model_argument
@click.option("--since", help="Earliest time, ISO 8601.")
@json_option
def access(model: str, since: str | None, *, as_json: bool) -> None:
    """Show who saw which items, oldest first."""
    earliest = _require_time(since)

    async def read(redis: Redis) -> list[Any]:
        return [one async for one in read_access(redis, model) if milliseconds(one.at) >= earliest]

    found = call_for(model, read)
    if as_json:
        print_json(found)
    else:
        show_access(model, found)


def _fields(item: ReviewItem, state: str) -> dict[str, Any]:
    fields = msgspec.structs.asdict(item)
    del fields["inputs"], fields["same"], fields["task"]
    return {"state": state, **fields}


def _require_time(since: str | None) -> int:
    """Returns milliseconds since 1970."""
    try:
        return 0 if since is None else milliseconds(since)
    except ValueError:
        raise InvalidRequestError(
            f"--since must be a time in ISO 8601, such as 2026-11-22T10:00:00Z, not {since!r}"
        ) from None
