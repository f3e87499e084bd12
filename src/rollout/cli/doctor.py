"""``rollout doctor``: what is wrong here, and what to do about it."""

from __future__ import annotations

import os
import sys

import click

from rollout.cli.examples import examples
from rollout.cli.output import Text, make_console, print_json
from rollout.errors import ConfigError

STYLES = {"ok": "green", "warning": "yellow", "fault": "red"}


@click.command(epilog=examples("rollout doctor", "rollout doctor --deep --json"))
@click.option("--deep", is_flag=True, help="Run the examples of every bundle, too, as `rollout verify` does.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(*, deep: bool, as_json: bool) -> None:
    """Say what is wrong here, and what to do: versions, settings, home, bundles, ports, Redis, splits.

    It changes nothing, and exits with 1 if there is a fault.
    """
    try:
        from rollout.doctor.checks import is_one_at_work, run_checks  # noqa: PLC0415  they import Redis's client
        from rollout.doctor.setup import Setup  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"a package is missing or broken ({error}): install Rollout again, `pip install -c constraints.txt .`"
        ) from error

    setup = Setup(deep=deep)
    os.environ["BENTOML_HOME"] = str(setup.store)
    console = make_console()
    found = []
    for name, finding in run_checks(setup):
        found.append((name, finding))
        if not as_json:
            line = Text.assemble(
                (f"{finding.level:<8}", STYLES[finding.level]), (f"{name}: ", "bold"), finding.what
            )
            console.print(line, soft_wrap=True)
            if finding.todo:
                console.print(Text(f"        → {finding.todo}"), soft_wrap=True)
    faults = sum(finding.level == "fault" for _, finding in found)
    if as_json:
        print_json(
            [{"check": name, "level": one.level, "what": one.what, "todo": one.todo} for name, one in found]
        )
    else:
        warnings = sum(finding.level == "warning" for _, finding in found)
        console.print(Text(f"{len(found)} findings: {faults} faults, {warnings} warnings"))
    if is_one_at_work():  # it hangs, and must not keep this process from its end
        sys.stdout.flush()
        os._exit(1 if faults else 0)
    sys.exit(1 if faults else 0)
