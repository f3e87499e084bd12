"""Tokens and roles."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import Any

import pytest

from rollout.config import Settings
from rollout.errors import ConfigError, ForbiddenError, UnauthorizedError
from rollout.http.auth import Auth, Bearer, admin_token

APP, REVIEWER, ADMIN = "app-token-0123456789", "reviewer-token-01234", "admin-token-01234567"
TOKENS = f"app:{APP},reviewer:{REVIEWER},admin:{ADMIN}"


def shown(token: str | None = None, server: str = "127.0.0.1", scheme: str = "Bearer") -> tuple[Any, str]:
    """Returns the headers of a request, and where it arrived."""
    return ({} if token is None else {b"authorization": f"{scheme} {token}".encode()}), server


def test_each_role_gets_its_own_and_the_admin_everything(tmp_path: Path) -> None:
    auth = Auth(Settings(home=tmp_path, tokens=TOKENS))
    auth.require(*shown(APP), "app")
    auth.require(*shown(APP, scheme="bearer"), "app")
    auth.require(*shown(REVIEWER), "reviewer")
    for role in ("app", "reviewer", "admin"):
        auth.require(*shown(ADMIN), role)
    for token, role in ((APP, "reviewer"), (APP, "admin"), (REVIEWER, "app"), (REVIEWER, "admin")):
        with pytest.raises(ForbiddenError, match=f"takes the role {role}"):
            auth.require(*shown(token), role)  # type: ignore[arg-type]


def test_whose_a_token_is_can_be_said_without_it(tmp_path: Path) -> None:
    auth = Auth(Settings(home=tmp_path, tokens=TOKENS))
    digits = hashlib.sha256(ADMIN.encode()).hexdigest()[:8]
    assert auth.require(*shown(ADMIN), "reviewer") == Bearer("admin", f"token {digits}")
    assert auth.require(*shown(REVIEWER), "reviewer").name != f"token {digits}"


def test_with_tokens_configured_nothing_is_open(tmp_path: Path) -> None:
    auth = Auth(Settings(home=tmp_path, tokens=TOKENS))
    for bad in (shown(), shown("wrong"), shown(APP, scheme="Basic"), shown("")):
        with pytest.raises(UnauthorizedError):
            auth.require(*bad, "app")
    assert not (tmp_path / "token").exists()


@pytest.mark.parametrize(
    ("server", "opened"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("10.0.0.7", False),
        ("0.0.0.0", False),
        ("/tmp/x.sock", False),
    ],
)
def test_without_tokens_predictions_are_open_on_loopback_only(tmp_path: Path, server: str, opened: bool) -> None:
    auth = Auth(Settings(home=tmp_path))
    if opened:
        auth.require(*shown(server=server), "app")
    else:
        with pytest.raises(UnauthorizedError):
            auth.require(*shown(server=server), "app")
    with pytest.raises(UnauthorizedError):
        auth.require(*shown(server=server), "reviewer")
    auth.require(*shown(admin_token(tmp_path)[0], server), "admin")


def test_the_admin_token_is_made_once_and_kept_private(tmp_path: Path) -> None:
    home = tmp_path / "new"
    token, made = admin_token(home)
    assert made
    assert len(token) >= 32
    assert admin_token(home) == (token, False)
    assert stat.S_IMODE((home / "token").stat().st_mode) == 0o600
    (home / "token").write_text("")
    with pytest.raises(ConfigError, match="is empty: remove it"):
        admin_token(home)
