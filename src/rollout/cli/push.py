"""``rollout push``: put a bundle where replicas fetch it."""

from __future__ import annotations

import click

from rollout.cli.completion import tag_argument
from rollout.cli.examples import examples
from rollout.cli.output import say
from rollout.config import load_settings


@click.command(epilog=examples("rollout push digits:v2 s3://models/rollout"))
@tag_argument
@click.argument("url")
def push(tag: str, url: str) -> None:
    """Put the bundle TAG, such as digits:v2, at URL: s3://bucket/path or a folder.

    It lies there as URL/digits/v2.bentomodel, which `rollout pull URL` and `bentoml models import` take. What is
    there already is left alone if it is the same, and never replaced if it is not. A signature or a gate may
    come to it later, and is not lost again.
    """
    from rollout.bundle.exchange import push_bundle  # noqa: PLC0415  the store imports BentoML

    say(push_bundle(tag, url, load_settings().public_key))
