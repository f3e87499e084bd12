"""The URL of Redis: one server, a primary that Sentinel names, or a cluster."""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple, get_args
from urllib.parse import parse_qsl, unquote

import msgspec

from rollout.errors import ConfigError

Certificates = Literal["required", "optional", "none"]

PORT, SENTINEL_PORT = 6379, 26379
SCHEMES = (
    "redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, redis+cluster:// or rediss+cluster://"
)
SCHEME = re.compile(r"(?:(unix)|redis(s?)(?:\+(sentinel|cluster))?)://")
# What stands before the path, the path, the query, and a fragment, which no such URL has.
PARTS = re.compile(r"([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?")
HOST = re.compile(r"(?:\[([0-9a-fA-F:.%]+)\]|([^\[\]:]*))(?::([0-9]+))?")
TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")


class Node(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


class RedisUrl(msgspec.Struct, frozen=True, kw_only=True):
    """What a URL of Redis says.

    Attributes:
        kind: What answers there.
        nodes: The servers, the Sentinels, or some nodes of the cluster; of one that listens on a socket, none.
        path: Where that socket lies.
        username: The user; ``None`` for the default one.
        password: Their password.
        db: The number of the database.
        service: The name by which Sentinel knows the primary.
        sentinel_username: The user on the Sentinels.
        sentinel_password: Their password there.
        tls: Whether connections are encrypted, those to Sentinels, too.
        ssl_ca_certs: File of the authorities that servers are checked by; ``None`` for those of the system.
        ssl_certfile: File of the client's certificate.
        ssl_keyfile: File of its key.
        ssl_cert_reqs: Whether a server must have a certificate.
        ssl_check_hostname: Whether it must be for the name under which the server was called.
        replicas: How many replicas must have what is stored before it is acknowledged.
    """

    kind: Literal["single", "sentinel", "cluster"] = "single"
    nodes: tuple[Node, ...] = ()
    path: str = ""
    username: str | None = None
    password: str | None = None
    db: int = 0
    service: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    tls: bool = False
    ssl_ca_certs: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_cert_reqs: Certificates = "required"
    ssl_check_hostname: bool = True
    replicas: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def scheme(self) -> str:
        """What the URL begins with."""
        return "unix" if self.path else f"redis{'s' * self.tls}{'' if self.kind == 'single' else '+' + self.kind}"

    def __str__(self) -> str:
        """The address, without names and passwords."""
        if self.path:
            return f"unix://{self.path}"
        hosts = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.nodes)
        path = "/".join([self.service] * bool(self.service) + [str(self.db)] * (self.kind != "cluster"))
        return f"{self.scheme}://{','.join(hosts)}/{path}".rstrip("/")


def parse_redis_url(url: str) -> RedisUrl:
    """Reads a URL of Redis.

    Raises:
        ConfigError: If it cannot be read; the error does not show what it holds.

    Example:
        >>> found = parse_redis_url("rediss+sentinel://app:secret@a,b:5000/main/2?ssl_ca_certs=ca.pem")
        >>> str(found), found.username, found.password, found.ssl_ca_certs
        ('rediss+sentinel://a:26379,b:5000/main/2', 'app', 'secret', 'ca.pem')
    """
    found = SCHEME.match(url)
    if found is None:
        raise ConfigError(f"ROLLOUT_REDIS_URL must start with {SCHEMES}")
    unix, tls, kind = found.groups()
    parts = PARTS.fullmatch(url, found.end())
    # A password that is not encoded ends the address, and its rest is taken for what follows.
    if parts is None or parts[4] is not None or (not unix and "@" in parts[2] + (parts[3] or "")):
        raise _unreadable()
    user, _, hosts = parts[1].rpartition("@")
    username, _, password = user.partition(":")
    values: dict[str, object] = {"kind": kind or "single", "tls": bool(tls)}
    values["username"], values["password"] = unquote(username) or None, unquote(password) or None
    options = dict(parse_qsl(parts[3] or "", keep_blank_values=True))
    if unix:
        if hosts:
            raise _unreadable()
        if not parts[2].strip("/"):
            raise ConfigError("ROLLOUT_REDIS_URL: unix:// takes a path, such as unix:///run/valkey.sock")
        values["path"] = unquote(parts[2])
    else:
        values["nodes"] = _nodes(hosts, kind)
        values |= _named(unquote(parts[2]).strip("/"), kind)
    return _with_options(values, options)


def _nodes(hosts: str, kind: str | None) -> tuple[Node, ...]:
    """Reads addresses, one or, of Sentinel and a cluster, several."""
    nodes = []
    for one in hosts.split(","):
        found = HOST.fullmatch(one)
        if found is None:
            raise _unreadable()
        port = int(found[3] or (SENTINEL_PORT if kind == "sentinel" else PORT))
        if not 1 <= port <= 65535:
            raise _unreadable()
        nodes.append(Node(found[1] or unquote(found[2]) or "localhost", port))
    if kind is None and len(nodes) > 1:
        raise ConfigError(
            "ROLLOUT_REDIS_URL: redis:// takes one address; several Sentinels take redis+sentinel://, "
            "several nodes of a cluster redis+cluster://"
        )
    return tuple(nodes)


def _named(path: str, kind: str | None) -> dict[str, object]:
    """Reads what stands after the addresses: a database, after the name of the primary if Sentinel knows it."""
    service, db = "", path
    if kind == "sentinel":
        service, _, db = path.partition("/")
        if not service:
            raise ConfigError(
                "ROLLOUT_REDIS_URL: redis+sentinel:// takes the name of the primary, such as "
                "redis+sentinel://host,host/main/0"
            )
    if not re.fullmatch("[0-9]*", db):
        raise ConfigError("ROLLOUT_REDIS_URL: the database after the last / must be a number")
    if kind == "cluster" and int(db or 0):
        raise ConfigError("ROLLOUT_REDIS_URL: a cluster has no database but 0")
    return {"service": service, "db": int(db or 0)}


def _with_options(values: dict[str, object], options: dict[str, str]) -> RedisUrl:
    """Reads the query."""
    allowed = {
        "replicas": True,
        "db": bool(values.get("path")),
        **dict.fromkeys(SENTINEL_OPTIONS, values["kind"] == "sentinel"),
        **dict.fromkeys(TLS_OPTIONS, values["tls"]),
    }
    for name in options:
        if name not in allowed:
            raise ConfigError(f"ROLLOUT_REDIS_URL has no option {name!r}; there are {', '.join(allowed)}")
        if not allowed[name]:
            needed = {"db": "unix://"} | dict.fromkeys(SENTINEL_OPTIONS, "redis+sentinel://")
            raise ConfigError(f"ROLLOUT_REDIS_URL: {name} takes {needed.get(name, 'rediss://')}")
    try:
        return msgspec.convert({**values, **options}, RedisUrl, strict=False)
    except msgspec.ValidationError as error:
        _, _, name = str(error).partition("`$.")
        expected = {
            "ssl_cert_reqs": f"one of {', '.join(get_args(Certificates))}",
            "ssl_check_hostname": "true or false",
        }
        raise ConfigError(
            f"ROLLOUT_REDIS_URL: {name.rstrip('`')} must be {expected.get(name.rstrip('`'), 'a number')}"
        ) from None


def _unreadable() -> ConfigError:
    return ConfigError(
        "ROLLOUT_REDIS_URL cannot be read: write %2F for /, %3F for ?, %23 for # and %40 for @ in its "
        "password, and a port from 1 to 65535"
    )
