"""``rollout verify``: check a bundle again, from disk."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table


@click.command()
@click.argument("tag")
@click.option("--key", type=click.Path(path_type=Path), help="Public key in PEM that must have signed it.")
def verify(tag: str, key: Path | None) -> None:
    """Check the bundle TAG, such as digits:v2: every hash, and the golden examples on every variant."""
    from rollout.bundle.store import open_bundle  # noqa: PLC0415  the store imports BentoML
    from rollout.bundle.verify import verify_bundle  # noqa: PLC0415

    folder, manifest = open_bundle(tag, key)
    table = Table(title=f"{tag}: {len(manifest.hashes)} files match their hashes", title_justify="left")
    for column in ("variant", "golden examples", "answers flipped", "reviews flipped", "largest difference"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for variant, parity in verify_bundle(folder, manifest).items():
        table.add_row(
            variant,
            str(parity.rows),
            str(parity.answers_flipped),
            str(parity.reviews_flipped),
            f"{parity.largest_difference:.1e}",
        )
    Console(highlight=False).print(table)
    click.echo(f"`rollout report {tag}` shows what else is known about it.")
