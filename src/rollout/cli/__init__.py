"""The command line."""

from __future__ import annotations

import os
import sys

import click

from rollout.__about__ import __version__
from rollout.cli.build import build
from rollout.cli.cost import cost
from rollout.cli.demo import demo
from rollout.cli.diff import diff
from rollout.cli.gate import gate
from rollout.cli.import_file import import_file
from rollout.cli.init import init
from rollout.cli.output import say
from rollout.cli.predict import predict
from rollout.cli.pull import pull
from rollout.cli.push import push
from rollout.cli.report import report
from rollout.cli.reproduce import reproduce
from rollout.cli.review import review
from rollout.cli.serve import serve
from rollout.cli.sign import sign
from rollout.cli.split import CONFLICT, split
from rollout.cli.verify import verify
from rollout.config import load_settings
from rollout.errors import RolloutError, SplitConflictError

FAILED = 1


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def cli() -> None:
    """Serve PyTorch models in batches, try a challenger on real traffic, review the uncertain."""
    # Bundles lie in BentoML's model store; without a store of the user's own, in one under the home.
    os.environ.setdefault("BENTOML_HOME", str(load_settings().home.resolve() / "bentoml"))


for command in (
    build,
    cost,
    demo,
    diff,
    gate,
    import_file,
    init,
    predict,
    pull,
    push,
    report,
    reproduce,
    review,
    serve,
    sign,
    split,
    verify,
):
    cli.add_command(command)


def main() -> None:
    """Runs the command line; an error of ours is one line and an exit code."""
    try:
        cli()
    except RolloutError as error:
        say(f"rollout: {error.detail}", err=True)
        sys.exit(CONFLICT if isinstance(error, SplitConflictError) else FAILED)
