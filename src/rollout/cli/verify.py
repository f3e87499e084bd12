"""``rollout verify``: check a bundle again, from disk."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table


@click.command()
@click.argument("tag")
def verify(tag: str) -> None:
    """Check the bundle TAG, such as digits:v2: every hash, and the golden examples on every variant."""
    from rollout.bundle.store import open_bundle  # noqa: PLC0415  the store imports BentoML
    from rollout.bundle.verify import verify_bundle  # noqa: PLC0415

    folder, manifest = open_bundle(tag)
    table = Table(title=f"{tag}: {len(manifest.hashes)} files match their hashes", title_justify="left")
    for column in ("variant", "golden examples", "labels flipped", "reviews flipped", "largest difference"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for variant, parity in verify_bundle(folder, manifest).items():
        table.add_row(
            variant,
            str(parity.rows),
            str(parity.labels_flipped),
            str(parity.reviews_flipped),
            f"{parity.largest_difference:.1e}",
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"accuracy {manifest.metrics['accuracy']:.4f} on {manifest.metrics['evaluation_rows']:.0f} rows; "
        f"predictions below {manifest.review_threshold:.4f} go to review"
    )
