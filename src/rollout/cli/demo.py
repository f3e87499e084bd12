"""``rollout demo``: build the digit recogniser, put it on trial, serve it."""

from __future__ import annotations

import asyncio
import base64
import io
from contextlib import aclosing
from pathlib import Path

import click
import msgspec
import PIL.Image

from rollout.bundle.machine import user_name
from rollout.cli.build import build_missing
from rollout.cli.lazy import Lazy, LazyGroup
from rollout.cli.output import say
from rollout.cli.serve import address_options, run_server
from rollout.config import Settings, load_settings
from rollout.embedded import running_redis
from rollout.http.auth import TOKEN_FILE
from rollout.judge.policy import Policy
from rollout.routing.control import carry_out, propose
from rollout.routing.split import Split
from rollout.routing.splits import read_split
from rollout.store import connect

# The demo is to be over in minutes: v2 shows that it is better, and is then champion by itself. It is better by
# four points; to show that it is by three takes most stages of the ramp.
POLICY = Policy(
    aim="better",
    margin=0.03,
    least_s=30,
    least_clients=50,
    tuned_for=2_000,
    by_itself=("step", "promote", "rollback"),
)


@click.group(
    cls=LazyGroup,
    lazy={"traffic": Lazy("traffic", "Send scans as many users would, and say which digits they were.")},
    invoke_without_command=True,
)
@address_options
@click.pass_context
def demo(context: click.Context, host: str | None, port: int | None, workers: int | None) -> None:
    """Build models/digits, serve v1 as champion and v2 as challenger, which begins with 1 % of the clients.

    By itself it gets more, as `rollout demo traffic` shows that nothing speaks against it, and is champion when
    it is surely better by three points. A second start builds nothing and keeps the split as it was left.
    """
    if context.invoked_subcommand is not None:
        return
    settings = load_settings(host=host, port=port, workers=workers)
    model = build_missing(Path("models/digits"))
    with running_redis(settings) as url:
        asyncio.run(_put_on_trial(url, model, settings))
    run_server(settings, when_ready=lambda: _greet(settings, model))


async def _put_on_trial(url: str, model: str, settings: Settings) -> None:
    first = Split(
        champion="v1",
        challenger="v2",
        share=POLICY.stages[0],
        experiment=f"{model}-v1-v2",
        policy=POLICY,
    )
    async with aclosing(await connect(url)) as redis:
        if await read_split(redis, model) is None:
            proposal = await propose(redis, model, lambda _: first, revision=0, key=settings.public_key)
            for warning in proposal.warnings:
                say(warning, err=True)
            await carry_out(redis, proposal, user_name(), "the demo's first split")


def _greet(settings: Settings, model: str) -> None:
    base = f"http://{settings.host}:{settings.port}"
    body = {"client_id": "c-42", "key": "order-17", "inputs": {"image": _digit(f"{model}:v1")}}
    admin = [] if settings.tokens else [f"  admin token  {settings.home / TOKEN_FILE}"]
    say(
        "",
        f"Rollout serves {model} on {base}",
        "",
        f"  predict      {base}/v1/models/{model}/predict",
        f"  model        {base}/v1/models/{model}",
        f"  API          {base}/openapi.json",
        f"  metrics      {base}/metrics",
        f"  console      {base}/console",
        *admin,
        "",
        "Try it:",
        "",
        f"curl -s {base}/v1/models/{model}/predict -H 'Content-Type: application/json' "
        f"-d '{msgspec.json.encode(body).decode()}'",
        "",
        "`rollout demo traffic` in another terminal sends what many users would, until v2 is champion or back.",
        "Ctrl-C stops it.",
        "",
    )


def _digit(tag: str) -> str:
    """Returns the last golden example as a base64 PNG at the resolution that its information has."""
    from rollout.bundle.golden import read_golden  # noqa: PLC0415
    from rollout.bundle.store import bundle_path  # noqa: PLC0415  the store imports BentoML

    image = read_golden(bundle_path(tag)).inputs["image"][-1]
    file = io.BytesIO()
    PIL.Image.fromarray(image[::4, ::4]).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
