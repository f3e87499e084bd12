"""``rollout split``: see and change which version serves whom."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from rollout.bundle.machine import user_name
from rollout.cli.completion import model_argument
from rollout.cli.examples import examples
from rollout.cli.output import print_json, printable, say
from rollout.cli.shared import ask, call, json_option
from rollout.cli.split_view import differences, show_change, show_history, show_split
from rollout.config import load_settings
from rollout.embedded import running_redis
from rollout.errors import NO_JSON, ConfigError, InvalidSplitError, SplitConflictError
from rollout.judge.policy import Policy
from rollout.routing import changes
from rollout.routing.assignment import assign as assign_client
from rollout.routing.assignment import explain
from rollout.routing.changes import default_experiment
from rollout.routing.control import Proposal, carry_out, propose, propose_removal, propose_rollback
from rollout.routing.split import Rule, Split
from rollout.routing.splits import read_history, read_quarantine, read_split
from rollout.routing.traffic import read_traffic, read_workers
from rollout.routing.verdict import read_verdict
from rollout.store import Redis

# Of a rollback, where others change the split meanwhile.
MOST_TRIES = 5
# The fields of an assignment, as the HTTP API has them.
ASSIGNMENT = ("client_id", "arm", "version", "bucket", "revision", "why")


def share(text: str) -> float:
    """Reads a share such as ``0.05`` or ``5%``."""
    try:
        return round(float(text.removesuffix("%")) / 100, 9) if text.endswith("%") else float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a share, such as 0.05 or 5%") from None


def json_file(kind: Any) -> Callable[[str], Any]:
    """Returns what reads a file that holds a certain kind of JSON."""

    def file(name: str) -> Any:
        try:
            return msgspec.json.decode(Path(name).read_bytes(), type=kind)
        except OSError as error:
            raise click.BadParameter(printable(f"cannot read {name}: {error.strerror}")) from None
        except (*NO_JSON, InvalidSplitError) as error:
            raise click.BadParameter(printable(f"{name}: {error}")) from None

    return file


RULES = json_file(tuple[Rule, ...])
LABELS = json_file(dict[str, dict[str, str]])
POLICY = json_file(Policy)


def change_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --why, --yes and --json to a command that asks before it changes something."""
    for option in (
        json_option,
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--why", default="", help="What for; the history keeps it."),
    ):
        command = option(command)
    return command


@click.group(
    epilog=examples(
        "rollout split set digits --champion v1 --challenger v2 --share 5%",
        "rollout split show digits",
        "rollout split rollback digits --why 'errors on sevens'",
    )
)
def split() -> None:
    """See and change which version serves whom."""


@split.command()
@model_argument
@json_option
def show(model: str, *, as_json: bool) -> None:
    """Show the split, and how its arms fared lately."""
    if as_json:
        print_json(_require(call(lambda redis: read_split(redis, model)), model))
        return

    async def read(redis: Redis) -> None:
        split = _require(await read_split(redis, model), model)
        show_split(
            model,
            split,
            await read_verdict(redis, model, split),
            await read_traffic(redis, model),
            await read_workers(redis, model),
            await read_quarantine(redis, model),
        )

    call(read)


@split.command(
    "set",
    epilog=examples(
        "rollout split set digits --champion v1",
        "rollout split set digits --champion v1 --challenger v2 --share 5% --shadow 10% --why trial",
    ),
)
@model_argument
@click.option("--champion", help="The version that serves by default; without it, the one that does.")
@click.option("--challenger", help="The version on trial.")
@click.option(
    "--share", type=share, help="Its share of the clients, at most 50%; 0, or the policy's first stage."
)
@click.option("--experiment", help="Hash seed of the trial; MODEL-CHAMPION-CHALLENGER by default.")
@click.option("--shadow", type=share, default="0", help="Share of the others' requests that it scores unseen.")
@click.option("--rules", type=RULES, help="JSON list of rules; without it, they stay as they are.")
@click.option("--labels", type=LABELS, help="JSON file: for each version, what its labels mean to callers.")
@click.option("--policy", type=POLICY, help="JSON file: what decides the trial, and what happens by itself.")
@click.option("--no-policy", is_flag=True, help="Nothing happens by itself any more.")
@click.option("--release", is_flag=True, help="Let its versions out of the quarantine.")
@change_options
def set_(
    model: str,
    champion: str | None,
    challenger: str | None,
    share: float | None,
    experiment: str | None,
    shadow: float,
    rules: tuple[Rule, ...] | None,
    labels: dict[str, dict[str, str]] | None,
    policy: Policy | None,
    *,
    no_policy: bool,
    release: bool,
    **options: Any,
) -> None:
    """Replace the whole split. Running workers follow within two seconds."""

    def change(current: Split | None) -> Split:
        kept = _require(current, model) if champion is None else current or Split(champion=champion)
        serving = champion or kept.champion
        stays = current is not None and (serving, challenger) == (current.champion, current.challenger)
        decides = policy or (kept.policy if stays and not no_policy else None)
        first = 0.0 if policy is None or challenger is None else policy.stages[0]
        return Split(
            champion=serving,
            challenger=challenger,
            share=first if share is None else share,
            policy=decides,
            experiment=experiment or default_experiment(model, serving, challenger),
            shadow=shadow,
            rules=kept.rules if rules is None else rules,
            labels=kept.labels if labels is None else labels,
        )

    _change(model, change, release=release, renew=True, **options)


@split.command()
@model_argument
@click.argument("share", type=share)
@change_options
def ramp(model: str, share: float, **options: Any) -> None:
    """Give the challenger another SHARE of the clients, such as 5%."""
    _change(model, lambda current: changes.ramp(_require(current, model), share), **options)


@split.command()
@model_argument
@change_options
def promote(model: str, **options: Any) -> None:
    """Make the challenger champion. The old one stays in memory, for a rollback."""
    _change(model, lambda current: changes.promote(_require(current, model)), **options)


@split.command()
@model_argument
@click.option("--why", required=True, help="What for; the history and the quarantine keep it.")
@json_option
def rollback(model: str, why: str, *, as_json: bool) -> None:
    """Send everybody back at once, without a question.

    That is to the champion while there is a challenger, and after a promotion to the champion before it. The
    version that nobody gets any more goes into quarantine.
    """
    proposal, stored = call(lambda redis: _roll_back(redis, model, why))
    _say_done(proposal, stored, as_json=as_json)


@split.command()
@model_argument
@change_options
def remove(model: str, *, why: str, yes: bool, as_json: bool) -> None:
    """Stop serving a model. Its bundles, its history and its reviews stay; `split set` serves it again."""
    with running_redis(load_settings()) as url:
        proposal = call(lambda redis: propose_removal(redis, model), url)
        show_change(proposal)
        if not yes:
            ask(may_ask=sys.stdin.isatty() and not as_json)
        stored = call(lambda redis: carry_out(redis, proposal, user_name(), why), url)
        _say_done(proposal, stored, as_json=as_json)


@split.command()
@model_argument
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many, at most.")
@json_option
def history(model: str, limit: int, *, as_json: bool) -> None:
    """Show the latest changes, newest first; as JSON oldest first."""
    # One more, to say what the oldest changed.
    splits = call(lambda redis: read_history(redis, model, limit + 1))
    _require(splits[-1] if splits else None, model)
    if as_json:
        print_json(splits[-limit:])
    else:
        show_history(model, splits, limit)


@split.command()
@model_argument
@click.argument("client")
@click.option("--segment", default="", help="What the client belongs to, as X-Client-Segment says it.")
@json_option
def assign(model: str, client: str, segment: str, *, as_json: bool) -> None:
    """Say which arm a CLIENT gets, and why."""
    current = _require(call(lambda redis: read_split(redis, model)), model)
    assignment = assign_client(current, client, segment)
    why = explain(current, assignment)
    if as_json:
        found = assignment._asdict() | {"client_id": client, "revision": current.revision, "why": why}
        print_json({name: found[name] for name in ASSIGNMENT})
    else:
        say(
            f"{client or '(empty client ID)'} is in the arm {assignment.arm} and gets {assignment.version}: {why}"
        )


def _change(
    model: str,
    change: Callable[[Split | None], Split],
    *,
    why: str,
    yes: bool,
    as_json: bool,
    release: bool = False,
    renew: bool = False,
) -> None:
    settings = load_settings()
    with running_redis(settings) as url:
        proposal = call(
            lambda redis: propose(redis, model, change, release=release, renew=renew, key=settings.public_key),
            url,
        )
        if proposal.before is not None and not (differences(proposal.before, proposal.after) or proposal.release):
            say(f"nothing to change: {model} is at revision {proposal.before.revision}", err=as_json)
            if as_json:
                print_json(proposal.before)
            return
        show_change(proposal)
        if proposal.before is not None and not yes:
            ask(may_ask=sys.stdin.isatty() and not as_json)
        stored = call(lambda redis: carry_out(redis, proposal, user_name(), why), url)
        _say_done(proposal, stored, as_json=as_json)


async def _roll_back(redis: Redis, model: str, why: str) -> tuple[Proposal, Split]:
    """Rolls back, whatever others change meanwhile, as long as it takes the same version from the clients."""
    proposal = await propose_rollback(redis, model)
    for left in reversed(range(MOST_TRIES)):
        show_change(proposal)
        try:
            stored = await carry_out(redis, proposal, user_name(), why)
            break
        except SplitConflictError as conflict:
            try:
                again = await propose_rollback(redis, model)
            except InvalidSplitError:
                raise conflict from None
            if not left or _goal(again) != _goal(proposal):
                raise
            proposal = again
    return proposal, stored


def _goal(rollback: Proposal) -> object:
    """Returns which versions a rollback is about: who wants to end a trial does not want its promotion undone."""
    return rollback.before and (rollback.before.versions, rollback.after.champion)


def _say_done(proposal: Proposal, stored: Split, *, as_json: bool) -> None:
    for version in proposal.quarantine.values():
        say(
            f"{proposal.model}:{version} is in quarantine: only `rollout split set … --release` brings it back",
            err=True,
        )
    if as_json:
        print_json(stored)
    else:
        say(f"{proposal.model} is at revision {stored.revision}")


def _require(found: Split | None, model: str) -> Split:
    if found is None:
        raise ConfigError(f"{model} has no split; `rollout split set {model} --champion VERSION` makes one")
    return found
