"""``rollout sign``: vouch for a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from rollout.cli.completion import tag_argument
from rollout.cli.output import say


@click.command()
@tag_argument
@click.option(
    "--key",
    required=True,
    type=click.Path(path_type=Path),
    help="Your private key, as `openssl genpkey -algorithm ed25519` makes it.",
)
def sign(tag: str, key: Path) -> None:
    """Sign the bundle TAG, such as digits:v2, if its files are what was packed."""
    from rollout.bundle.signing import FILE_NAME, sign_bundle  # noqa: PLC0415
    from rollout.bundle.store import open_bundle  # noqa: PLC0415  the store imports BentoML

    folder, _ = open_bundle(tag)
    sign_bundle(folder, tag, key)
    say(f"{tag} is signed: {folder / FILE_NAME}")
