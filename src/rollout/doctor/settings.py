"""The settings: each alone, and whether they go together."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from difflib import get_close_matches

from rollout.config import Settings
from rollout.doctor.finding import Finding, fault, ok, warning
from rollout.doctor.setup import Setup

NAMES = [f"ROLLOUT_{name.upper()}" for name in Settings.__struct_fields__]


def values(setup: Setup) -> Iterator[Finding]:
    """Are all variables known, and do their values fit?"""
    for name, error in setup.refused.items():
        if name in NAMES:
            yield fault(error if name in error else f"{name}: {error}", f"correct or unset {name}")
            continue
        near = get_close_matches(name, NAMES, 1)
        todo = f"did you mean {near[0]}? Else unset it" if near else "unset it; REFERENCE.md lists the settings"
        yield fault(f"there is no setting {name}, and nothing starts while it is set", todo)
    given = sorted(name for name in setup.environ if name in NAMES)
    if given:
        yield ok(f"given: {', '.join(given)}; all others have their defaults")
    else:
        yield ok("none given: all have their defaults")


def together(setup: Setup) -> Iterator[Finding]:
    """Do the settings go together, with each other and with this machine?"""
    settings = setup.settings
    roles = set(settings.roles_by_token().values())
    if not roles and "ROLLOUT_TOKENS" not in setup.refused and not settings.listens_on_loopback:
        yield fault(
            f"ROLLOUT_HOST is {settings.host}, which other machines can reach, and there are no tokens",
            "set ROLLOUT_TOKENS, or listen on 127.0.0.1",
        )
    if roles and "admin" not in roles:
        yield warning(
            "no token in ROLLOUT_TOKENS is an admin's: nobody can change a split over HTTP or in the console",
            "add admin:TOKEN, unless only `rollout split` is to change splits",
        )
    if settings.webhook_secret and not settings.webhook_url:
        yield warning(
            "ROLLOUT_WEBHOOK_SECRET is set, and ROLLOUT_WEBHOOK_URL is not: nothing is sent",
            "set both or neither",
        )
    if settings.grpc_port and importlib.util.find_spec("tritonclient") is None:
        yield fault("ROLLOUT_GRPC_PORT takes the extra grpc", "`pip install 'rollout[grpc]'`, or unset it")
    if settings.public_key is not None and not os.access(settings.public_key, os.R_OK):
        yield fault(
            f"ROLLOUT_PUBLIC_KEY: {settings.public_key} cannot be read, and no bundle is served without it",
            "correct the path or its permissions",
        )
