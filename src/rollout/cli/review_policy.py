"""``rollout review policy``: what enters the queue, and how it is looked at."""

from __future__ import annotations

import asyncio
import sys
from typing import get_args

import click
import msgspec

from rollout.cli.completion import model_argument
from rollout.cli.output import print_json, say
from rollout.cli.review_view import differences, show_policy, show_policy_change
from rollout.cli.shared import ask, call, call_for, json_option
from rollout.config import load_settings
from rollout.embedded import running_redis
from rollout.errors import ConfigError
from rollout.review.item import Reason
from rollout.review.policy import FOLLOWED_WITHIN_S, ReviewPolicy, read_policy, write_policy
from rollout.review.retention import shorten_retention
from rollout.store import Redis


@click.command()
@model_argument
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Change a setting; may be repeated.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def policy(model: str, settings: tuple[str, ...], *, yes: bool, as_json: bool) -> None:
    """Show what enters the queue, how often it is looked at and how long it is kept; or change that.

    Such as --set audit=0.01 --set redact=name,address --set rates.low_confidence=600; nothing after the equals
    sign takes a list or a rate away. Running workers follow within two seconds.
    """
    with running_redis(load_settings()) as url:
        before = call_for(model, lambda redis: read_policy(redis, model), url)
        after = with_settings(before, settings)
        if not settings:
            if as_json:
                print_json(before)
            else:
                show_policy(model, before)
            return
        if not differences(before, after):
            say(f"nothing to change: that is the policy of {model}", err=as_json)
        else:
            show_policy_change(model, before, after)
            if not yes:
                ask(may_ask=sys.stdin.isatty() and not as_json)
            call(lambda redis: _replace_policy(redis, model, before, after), url)
            if not as_json:
                say(f"{model} has a new review policy")
    if as_json:
        print_json(after)


async def _replace_policy(redis: Redis, model: str, before: ReviewPolicy, after: ReviewPolicy) -> None:
    if await read_policy(redis, model) != before:
        raise ConfigError(
            f"the review policy of {model} was changed concurrently: nothing was stored; read it again"
        )
    await write_policy(redis, model, after)
    if after.retention_days < before.retention_days:
        await asyncio.sleep(FOLLOWED_WITHIN_S)  # what enters until then is to be kept for as long as before
        await shorten_retention(redis, model, after.retention_s)


def with_settings(policy: ReviewPolicy, settings: tuple[str, ...]) -> ReviewPolicy:
    """Returns a policy with settings changed, each ``NAME=VALUE`` or ``NAME.REASON=VALUE``.

    Raises:
        ConfigError: If there is no such name, or the value is of another kind.
        InvalidRequestError: If the value makes no sense.
    """
    paths = [
        path
        for name, value in msgspec.to_builtins(policy).items()
        for path in ([f"{name}.{reason}" for reason in get_args(Reason)] if isinstance(value, dict) else [name])
    ]
    for setting in settings:
        values = msgspec.to_builtins(policy)
        path, _, text = setting.partition("=")
        name, _, reason = path.partition(".")
        if "=" not in setting or path not in paths:
            raise ConfigError(
                f"--set {setting}: a setting is NAME=VALUE, where NAME is one of {', '.join(paths)}"
            )
        known = values[name]
        if isinstance(known, dict):
            known[reason] = text
            if not text:
                del known[reason]
        elif isinstance(known, list):
            values[name] = list(filter(None, (part.strip() for part in text.split(","))))
        else:
            values[name] = text
        try:
            policy = msgspec.convert(values, ReviewPolicy, strict=False)
        except msgspec.ValidationError as error:
            raise ConfigError(f"--set {setting}: {error}") from None
    return policy
