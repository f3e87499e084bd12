"""``rollout demo``: build the digit recogniser, put it on trial, serve it."""

from __future__ import annotations

import asyncio
import base64
import io
from pathlib import Path

import click
import msgspec
import PIL.Image

from rollout.cli.build import build_missing
from rollout.cli.serve import address_options, run_server
from rollout.cli.split import make_split, put_split
from rollout.config import Settings, load_settings
from rollout.embedded import running_redis
from rollout.http.auth import TOKEN_FILE


@click.command()
@address_options
def demo(host: str | None, port: int | None, workers: int | None) -> None:
    """Build models/digits, serve v1 as champion and v2 as challenger at 10 %.

    A second start builds nothing and keeps the split as it was left.
    """
    settings = load_settings(host=host, port=port, workers=workers)
    model = build_missing(Path("models/digits"))
    first = make_split(model, "v1", "v2", 0.1, None, "the demo's first split")
    with running_redis(settings) as url:
        asyncio.run(put_split(url, model, first, replace=False))
    run_server(settings, when_ready=lambda: _greet(settings, model))


def _greet(settings: Settings, model: str) -> None:
    base = f"http://{settings.host}:{settings.port}"
    body = {"client_id": "c-42", "key": "order-17", "inputs": {"image": _digit(f"{model}:v1")}}
    admin = "" if settings.tokens else f"  admin token  {settings.home / TOKEN_FILE}\n"
    click.echo(
        f"\nRollout serves {model} on {base}\n\n"
        f"  predict      {base}/v1/models/{model}/predict\n"
        f"  model        {base}/v1/models/{model}\n"
        f"  API          {base}/openapi.json\n"
        f"  metrics      {base}/metrics\n"
        f"{admin}\n"
        "Try it:\n\n"
        f"curl -s {base}/v1/models/{model}/predict -H 'Content-Type: application/json' "
        f"-d '{msgspec.json.encode(body).decode()}'\n\n"
        "Ctrl-C stops it.\n"
    )


def _digit(tag: str) -> str:
    """Returns the last golden example as a base64 PNG at the resolution that its information has."""
    from rollout.bundle.golden import read_golden  # noqa: PLC0415
    from rollout.bundle.store import bundle_path  # noqa: PLC0415  the store imports BentoML

    image = read_golden(bundle_path(tag)).inputs["image"][-1]
    file = io.BytesIO()
    PIL.Image.fromarray(image[::4, ::4]).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
