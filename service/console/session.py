"""Who is logged in: a signed cookie that every replica can read, and the token that each form carries."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import NamedTuple

from itsdangerous import BadData, URLSafeTimedSerializer

from rollout.config import Role, Settings
from rollout.http.auth import Auth, admin_token

COOKIE = "rollout_console"
LASTS_S = 12 * 3600


def cookie_in(header: str) -> str | None:
    """Returns the cookie of a session among all of a request, or ``None``.

    Ours is never quoted. What Python unquotes with takes ten seconds for 64 KiB that were made for it.

    Args:
        header: The value of ``Cookie``.

    Example:
        >>> cookie_in("theme=dark; rollout_console=abc.def")
        'abc.def'
    """
    for pair in header.split(";"):
        name, _, value = pair.partition("=")
        if name.strip() == COOKIE:
            return value.strip()
    return None


class Session(NamedTuple):
    """Somebody who logged in.

    Attributes:
        role: What they may do.
        name: Who they say they are; empty where nobody asked.
        csrf: What their forms carry, so that nobody else can send one in their name.
        id: Stays when they say their name later, and so does ``csrf``.
    """

    role: Role
    name: str
    csrf: str
    id: str


class Sessions:
    """Begins and reads sessions.

    The key comes from the tokens: whoever has the same ones accepts the same sessions, and other tokens end them.

    Args:
        settings: The configured tokens, or the home of the admin token.
    """

    def __init__(self, settings: Settings) -> None:
        self.role_of = Auth(settings).role_of
        roles = settings.roles_by_token() or {admin_token(settings.home)[0]: "admin"}
        pairs = "\n".join(sorted(f"{role}:{token}" for token, role in roles.items()))
        self._key = hashlib.sha256(b"rollout console\n" + pairs.encode("utf-8", "surrogateescape")).digest()
        self._signer = URLSafeTimedSerializer(
            self._key, salt="session", signer_kwargs={"digest_method": hashlib.sha256}
        )

    def begin(self, role: Role, name: str = "") -> str:
        """Returns the cookie of a new session."""
        return self._sign(role, name, secrets.token_urlsafe(12))

    def rename(self, session: Session, name: str) -> str:
        """Returns the cookie of a session with the name that it lacked."""
        return self._sign(session.role, name, session.id)

    def read(self, cookie: str | None) -> Session | None:
        """Returns the session of a cookie, or ``None`` if it is not ours or over."""
        try:
            content = self._signer.loads(cookie or "", max_age=LASTS_S)
        except BadData:
            return None
        ident = content["id"]
        csrf = hmac.new(self._key, f"form {ident}".encode(), hashlib.sha256).hexdigest()
        return Session(content["role"], content.get("name", ""), csrf, ident)

    def _sign(self, role: Role, name: str, ident: str) -> str:
        return str(self._signer.dumps({"role": role, "name": name, "id": ident}))
