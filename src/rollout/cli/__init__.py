"""The command line."""

from __future__ import annotations

import logging
import os
import sys

import click

from rollout.__about__ import __version__
from rollout.cli.lazy import Lazy, LazyGroup
from rollout.errors import RolloutError, SplitConflictError
from rollout.logs import TextFormatter

FAILED = 1
CONFLICT = 3

COMMANDS = {
    "build": Lazy("build", "Train and pack what a recipe describes."),
    "completion": Lazy("completion", "Print the script that has a shell complete what is typed."),
    "cost": Lazy("cost", "Measure how fast a bundle is, and what predictions cost."),
    "demo": Lazy("demo", "Build the digit recogniser, put it on trial and serve it."),
    "diff": Lazy("diff", "Show what changed from one version to another."),
    "doctor": Lazy("doctor", "Say what is wrong here, and what to do about it."),
    "explain": Lazy("explain", "Show what the parts of one input do to an answer."),
    "gate": Lazy("gate", "Train a version and the champion several times: is it better?"),
    "gc": Lazy("gc", "Remove versions that nobody names."),
    "import": Lazy("import_file", "Pack a model that comes as a file."),
    "improve": Lazy("improve", "Make the next version from reviewed labels, and put it on trial."),
    "init": Lazy("init", "Write a recipe that packs and serves as it stands."),
    "ls": Lazy("ls", "List models and versions, and which of them serve."),
    "predict": Lazy("predict", "Score every row of a file through a running service."),
    "pull": Lazy("pull", "Fetch bundles from a bucket, a folder or an archive."),
    "push": Lazy("push", "Put a bundle into a bucket, a folder or an archive."),
    "report": Lazy("report", "Show what is known about a bundle."),
    "reproduce": Lazy("reproduce", "Train a version again: does it become the same?"),
    "review": Lazy("review", "Take labels out of the review queue and into it."),
    "search": Lazy("search", "Search hyperparameters; the best ones become a version."),
    "serve": Lazy("serve", "Serve every model that has a split."),
    "sign": Lazy("sign", "Sign a bundle with a private key."),
    "split": Lazy("split", "See and change which version serves whom."),
    "drift": Lazy("drift", "Say whether live rows look like those of the evaluation."),
    "verdict": Lazy("verdict", "Say whether to promote the challenger, to hold or to roll back."),
    "verify": Lazy("verify", "Check a bundle again, from disk."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__)
@click.pass_context
def cli(context: click.Context) -> None:
    """Serve PyTorch models in batches, try a challenger on real traffic, review the uncertain."""
    if context.invoked_subcommand == "doctor":  # which says what is wrong with the settings
        return
    from rollout.config import load_settings  # noqa: PLC0415  what only lists the commands needs no settings

    # Bundles lie in BentoML's model store; without a store of the user's own, in one under the home.
    os.environ.setdefault("BENTOML_HOME", str(load_settings().home.resolve() / "bentoml"))


def main() -> None:
    """Runs the command line; an error of ours is one line and an exit code."""
    if (warnings := logging.lastResort) is not None:  # what prints them where nothing was configured
        warnings.setFormatter(TextFormatter("%(message)s"))
        ours = logging.getLogger("rollout")
        ours.addHandler(warnings)
        ours.propagate = False  # some libraries configure the rest, which would print them in another form
    try:
        cli()
    except RolloutError as error:
        from rollout.cli.output import say  # noqa: PLC0415

        say(f"rollout: {error.detail}", err=True)
        sys.exit(CONFLICT if isinstance(error, SplitConflictError) else FAILED)
