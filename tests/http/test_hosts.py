"""Names of hosts, and what only looks like one."""

from __future__ import annotations

import pytest

from rollout.config import Settings
from rollout.errors import MisdirectedRequestError
from rollout.http.auth import Auth
from rollout.http.gateway import Gateway

# Each ends as a name of this machine does, or is one to whoever reads on or decodes it.
NO_HOSTS = (
    *(f"evil.example{mark}.localhost" for mark in "/?#\\@!%,; \t\"'<|`~\xa0\xff"),
    *(f"evil.example{mark}localhost" for mark in ("/", "?", "#", "@", ":3000@", ", ")),
    *("evil.example..localhost", ".localhost", "localhost..", "localhost:٣", "localhost:123456", "localhost:-1"),
    *("%6cocalhost", "127.0.0.1/evil.example", "127.1", "2130706433", "0x7f.0.0.1", "127.0.0.1%00"),
    *("[127.0.0.1]", "[::1", "::1", "[::1%25lo]", "[::1]evil.example", "[]", "[:]", "user@localhost"),
)


@pytest.mark.parametrize("host", NO_HOSTS)
def test_what_ends_as_a_name_of_this_machine_need_not_be_one(host: str) -> None:
    gateway = Gateway()
    gateway._auth = Auth(Settings())
    headers = {b"host": host.encode()}
    with pytest.raises(MisdirectedRequestError, match="answers to localhost"):
        gateway.check_host({"headers": list(headers.items()), "server": ("127.0.0.1", 3000)}, headers)


@pytest.mark.parametrize(
    "host", ["localhost", "app.localhost:3000", "LOCALHOST.", "127.8.9.10:80", "[::1]:", "my_box"]
)
def test_names_of_this_machine(host: str) -> None:
    gateway = Gateway()
    gateway.settings = Settings(host="My_Box")
    gateway._auth = Auth(Settings())
    headers = {b"host": host.encode()}
    gateway.check_host({"headers": list(headers.items()), "server": ("127.0.0.1", 3000)}, headers)
