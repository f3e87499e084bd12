"""Who may do what: bearer tokens with a role each."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rollout.config import Role, Settings
from rollout.errors import ConfigError, ForbiddenError, UnauthorizedError
from rollout.home import prepare_home
from rollout.http.hosts import is_cross_origin, is_forwarded, is_loopback

TOKEN_FILE = "token"  # noqa: S105  the name of a file


class Bearer(NamedTuple):
    """Who has a token.

    Attributes:
        role: The token's role.
        name: What tells it from others without being it: ``token`` and 8 digits of its SHA-256.
    """

    role: Role
    name: str


NOBODY = Bearer("app", "")


class Auth:
    """Checks a request's token.

    With no tokens configured, predictions are open to requests that arrive on a loopback address, and not through
    a proxy; everything else needs the admin token in ``ROLLOUT_HOME/token``.

    Args:
        settings: The configured tokens, or the home of the admin token.
    """

    def __init__(self, settings: Settings) -> None:
        roles = settings.roles_by_token()
        self._open_on_loopback = not roles
        self._origins = settings.origins()
        if not roles:
            roles = {admin_token(settings.home)[0]: "admin"}
        # Looked up by hash, so that the time a comparison takes says nothing about a token.
        self._bearers = {
            digest: Bearer(role, f"token {digest[:4].hex()}")
            for token, role in roles.items()
            for digest in [_digest(token)]
        }

    def require(self, headers: Mapping[bytes, bytes], server: str | None, role: Role | None) -> Bearer:
        """Lets a request pass whose token has this role, or is the admin's; returns whose it is.

        Args:
            headers: Of the request, names in lower case.
            server: The address at which it arrived, if it is one.
            role: The role that it needs; ``None`` for what is open to everybody.

        Raises:
            UnauthorizedError: If there is no valid token.
            ForbiddenError: If its role is another.
        """
        if role is None:
            return NOBODY
        header = headers.get(b"authorization")
        if header is None:
            if role != "app" or not self.is_open_to(headers, server):
                raise _unauthorized("send the header 'Authorization: Bearer TOKEN'")
            if is_forwarded(headers):
                raise _unauthorized("a proxy forwarded this: send the header 'Authorization: Bearer TOKEN'")
            if is_cross_origin(headers, self._origins):
                raise _unauthorized(
                    "a page of another origin sent this: allow it by ROLLOUT_CORS_ORIGINS, or send the header "
                    "'Authorization: Bearer TOKEN'"
                )
            return NOBODY
        scheme, _, token = header.partition(b" ")
        bearer = self._bearers.get(_digest(token.strip().decode("latin-1")))
        if scheme.lower() != b"bearer" or bearer is None:
            raise _unauthorized("the token is not one that this service knows")
        if bearer.role not in (role, "admin"):
            raise ForbiddenError(f"this takes the role {role}; the token has the role {bearer.role}")
        return bearer

    def is_open_to(self, headers: Mapping[bytes, bytes], server: str | None) -> bool:
        """Whether no token is needed: none is configured, and the request arrived on a loopback address."""
        return (
            self._open_on_loopback
            and b"authorization" not in headers
            and server is not None
            and is_loopback(server)
        )

    def role_of(self, token: str) -> Role | None:
        """Returns the role of a token, or ``None`` if the service does not know it."""
        bearer = self._bearers.get(_digest(token))
        return None if bearer is None else bearer.role


def admin_token(home: Path) -> tuple[str, bool]:
    """Returns the admin token of a home, and whether this call made it.

    The file has mode 600.
    """
    path = home / TOKEN_FILE
    prepare_home(home)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        token = path.read_text().strip()
        if not token:
            raise ConfigError(f"{path} is empty: remove it, and the next start makes a new token") from None
        return token, False
    token = secrets.token_urlsafe(24)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
    return token, True


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _unauthorized(detail: str) -> UnauthorizedError:
    return UnauthorizedError(detail, headers={"WWW-Authenticate": "Bearer"})
