"""``rollout verify``: check a bundle again, from disk."""

from __future__ import annotations

from pathlib import Path

import click

from rollout.bounded import limit_memory, usable_memory
from rollout.cli.completion import tag_argument
from rollout.cli.examples import examples
from rollout.cli.output import make_console, make_table, say
from rollout.cli.shared import trust_option
from rollout.cli.termination import end_on_ctrl_c
from rollout.config import load_settings

MEMORY_SHARE = 0.75


@click.command(epilog=examples("rollout verify digits:v2", "rollout verify digits:v2 --key public.pem"))
@tag_argument
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    help="Public key in PEM that must have signed it; ROLLOUT_PUBLIC_KEY by default.",
)
@trust_option
def verify(tag: str, key: Path | None, *, trust: bool) -> None:
    """Check the bundle TAG, such as digits:v2: every hash, and golden and raw examples on every variant.

    Of a bundle that was neither packed here nor signed, only ONNX is loaded.
    """
    from rollout.bundle.store import open_bundle  # noqa: PLC0415  the store imports BentoML
    from rollout.bundle.verify import verify_bundle  # noqa: PLC0415

    settings = load_settings(public_key=key, trust=trust or None)
    folder, manifest = open_bundle(tag, settings.public_key)
    end_on_ctrl_c()
    limit_memory(int(usable_memory() * MEMORY_SHARE))
    checked = verify_bundle(folder, manifest, is_trusted=settings.trusts_bundles)
    table = make_table(f"{tag}: {len(manifest.hashes)} files match their hashes")
    for column in ("variant", "examples", "rows", "answers flipped", "reviews flipped", "largest difference"):
        table.add_column(column, justify="left" if column in ("variant", "examples") else "right")
    for variant, found in checked.items():
        for which, parity in found.items():
            table.add_row(
                variant,
                which,
                str(parity.rows),
                str(parity.answers_flipped),
                str(parity.reviews_flipped),
                f"{parity.largest_difference:.1e}",
            )
    make_console().print(table)
    if unchecked := [name for name in manifest.variants if name not in checked]:
        say(
            f"Not run: {', '.join(unchecked)}. Loading these can run code, and {tag} was neither packed here nor "
            "signed by a key that is configured; --trust runs them."
        )
    say(f"`rollout report {tag}` shows what else is known about it.")
