"""All checks, in the order in which they are made; each has a time limit, and none ends the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from rollout.doctor import bundles, machine, redis, settings, software
from rollout.doctor.finding import Finding, warning
from rollout.doctor.setup import Setup
from rollout.errors import RolloutError

THREAD = "rollout doctor"

Look = Callable[[Setup], Iterable[Finding]]


class Check(NamedTuple):
    """A check.

    Attributes:
        name: What it looks at.
        look: What looks.
        limit_s: Seconds after which it is not waited for any more.
    """

    name: str
    look: Look
    limit_s: float = 10.0


CHECKS = (
    Check("Python", software.python),
    Check("packages", software.packages),
    Check("torch", software.torch_build),
    Check("extras", software.extras),
    Check("settings", settings.values),
    Check("settings", settings.together),
    Check("home", machine.home),
    Check("disk", machine.disk),
    Check("ports", machine.ports),
    Check("cores", machine.cores),
    Check("bundles", bundles.whole, 120.0),
    Check("models", bundles.answer, 1800.0),
    Check("Redis", redis.reachable),
    Check("Redis", redis.memory),
    Check("Redis", redis.persistence),
    Check("Redis", redis.permissions),
    Check("Redis", redis.clock),
    Check("splits", bundles.splits, 60.0),
    Check("memory", machine.memory),
)


def run_checks(setup: Setup, checks: Iterable[Check] = CHECKS) -> Iterator[tuple[str, Finding]]:
    """Makes all checks; yields what each finds, with its name."""
    for check in checks:
        for finding in _found(check, setup):
            yield check.name, finding


def is_one_at_work() -> bool:
    """Whether a check that took too long is still not at its end."""
    return any(thread.name == THREAD for thread in threading.enumerate())


def _found(check: Check, setup: Setup) -> list[Finding]:
    found: list[Finding] = []

    def look() -> None:
        try:
            found.extend(check.look(setup))
        except RolloutError as error:
            found.append(warning(f"could not be looked at: {error.detail}", "see what the other checks say"))
        except Exception as error:  # whatever is broken, the other checks go on
            found.append(
                warning(
                    f"could not be looked at: {type(error).__name__}: {error}",
                    "see what the other checks say; if they find nothing, this may be a fault of Rollout",
                )
            )

    thread = threading.Thread(target=look, name=THREAD, daemon=True)
    thread.start()
    thread.join(check.limit_s)
    if thread.is_alive():
        late = warning(f"took longer than {check.limit_s:g} s", "see whether its disk or server hangs")
        return [*found, late]
    return found
