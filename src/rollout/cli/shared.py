"""What the commands that work on Redis share: reaching it, and asking before a change."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

import click

from rollout.cli.output import say
from rollout.config import load_settings
from rollout.embedded import running_redis
from rollout.errors import ConfigError
from rollout.keys import Keys
from rollout.store import Redis, connect, guard

NOT_ASKED = 2
NOT_CONFIRMED = 4

T = TypeVar("T")

trust_option = click.option(
    "--trust", is_flag=True, help="Run the code of bundles that were neither packed here nor signed."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def call(work: Callable[[Redis], Awaitable[T]], url: str | None = None) -> T:
    """Runs something on Redis: on the one at ``url``, or on the one that the settings name."""
    if url is None:
        with running_redis(load_settings()) as running:
            return call(work, running)

    async def run() -> T:
        async with aclosing(await connect(url)) as redis:
            return await work(redis)

    return asyncio.run(run())


def ask(*, may_ask: bool) -> None:
    """Ends the command unless somebody says yes."""
    if not may_ask:
        say("rollout: say --yes to change this without being asked; nothing changed", err=True)
        sys.exit(NOT_ASKED)
    try:
        if click.confirm("Go ahead?", prompt_suffix=" ", err=True):
            return
    except click.Abort:
        say("", err=True)
    say("nothing changed", err=True)
    sys.exit(NOT_CONFIRMED)


def call_for(model: str, work: Callable[[Redis], Awaitable[T]], url: str | None = None) -> T:
    """Runs something on Redis that is about one model.

    Raises:
        ConfigError: If Redis has neither a split nor review items of it.
    """

    async def run(redis: Redis) -> T:
        names = Keys(model)
        async with guard():
            known = await redis.exists(names.split, names.review_policy, names.reviews("entered"))
        if not known:
            raise ConfigError(
                f"{model} has neither a split nor review items; "
                f"`rollout split set {model} --champion VERSION` makes a split"
            )
        return await work(redis)

    return call(run, url)
