"""All settings, read once from ``ROLLOUT_*`` variables into one frozen object."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

import msgspec

from rollout.cores import usable_cores
from rollout.errors import ConfigError
from rollout.redis_url import parse_redis_url

Role = Literal["app", "reviewer", "admin"]
LEAST = {
    "workers": 0,
    "grace_s": 0,
    "timeout_ms": 1,
    "max_connections": 1,
    "max_head_bytes": 1024,
    "head_timeout_s": 1,
    "body_timeout_s": 1,
    "idle_timeout_s": 1,
    "max_body_bytes": 1,
    "max_instances": 1,
    "max_pixels": 1,
    "max_reviews": 0,
    "max_review_bytes": 0,
    "max_client_review_bytes": 0,
    "spool_bytes": 0,
    "max_waiting_outcomes": 1,
    "store_bytes": 16 * 1024 * 1024,
    "breaker_window_s": 1,
    "intra_op_threads": 0,
    "explain_at_once": 0,
    "explain_timeout_s": 1,
}


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be set from outside; each field ``x`` is the variable ``ROLLOUT_X``.

    Attributes:
        home: Folder for bundles, the embedded Valkey's data, the spool and the admin token.
        redis_url: Shared Redis or Valkey; empty for the embedded one.
        host: Address to listen on.
        port: TCP port to listen on.
        grpc_port: TCP port for gRPC; 0 for none. Takes the extra ``grpc``.
        workers: Worker processes; 0 for one on each core within the CPU limit.
        tokens: ``role:token`` pairs, separated by commas; roles are app, reviewer and admin.
        token: The token that ``rollout predict`` sends.
        log: How the log is written: ``text``, or ``json`` for an object a line.
        access_log: Whether every request is logged, and not only those that fail.
        cors_origins: Origins whose pages may call ``/v1`` and ``/v2``, separated by commas; ``*`` for all.
        variant: The variants that may serve, separated by commas: one name pins it. Without any, the fastest that
            passed serves, and one that needs torch only where no other passed.
        public_key: Public key in PEM; a bundle without its signature is refused.
        trust: Whether bundles that were neither packed here nor signed may run code: of these, only ONNX is
            loaded otherwise.
        grace_s: Seconds that a worker goes on serving after SIGTERM, when it is no longer ready.
        timeout_ms: Deadline of a request that does not name its own, in milliseconds.
        max_connections: Most connections of a worker, and calls of gRPC at a time; further ones are refused.
        max_head_bytes: Largest request line and headers together.
        head_timeout_s: Seconds within which the headers must have come.
        body_timeout_s: Seconds within which more of a body must come, or more of an answer be taken.
        idle_timeout_s: Seconds after which an idle connection is closed: longer than proxies keep theirs.
        max_body_bytes: Largest request body.
        max_instances: Most instances in one request.
        max_pixels: Most pixels that the image files of a request, or of a line, have together, or samples that
            its sounds have.
        max_reviews: Open review items per model; further ones are counted, not kept.
        max_review_bytes: Most bytes of review items with their inputs, per model; further items are counted.
        max_client_review_bytes: Most of these of one client.
        max_waiting_outcomes: Most outcomes per model whose prediction is not known; the oldest of more go.
        store_bytes: Most memory of the embedded Valkey's data; beyond it, it counts as away.
        spool_bytes: Size of the on-disk spool for review items while Redis is away.
        breaker_rate: Share of a challenger's calls that may fail; above it, its clients get the champion.
        breaker_window_s: Seconds over which that share is taken.
        intra_op_threads: Threads that onnxruntime or torch uses inside one batch; 0 for one or, where ONNX
            takes more than a millisecond a row, all cores of the worker if that is faster.
        device: Where the variants run: ``cpu``, or ``cuda`` with an onnxruntime or torch that is built for it.
        explain_at_once: Explanations that a worker computes at a time, each in a process of its own; 0 for none.
        explain_timeout_s: Seconds that one may take.
        webhook_url: Where labels are sent as people decide; empty for nowhere.
        webhook_secret: What they are signed with: ``whsec_`` and base64, or any text of 24 characters or more.

    Example:
        >>> Settings(home=Path("/srv/rollout"), redis_url="redis://cache:6379/0", workers=4).workers
        4
    """

    home: Path = Path(".rollout")
    redis_url: str = ""
    host: str = "127.0.0.1"
    port: int = 3000
    grpc_port: int = 0
    workers: int = 0
    tokens: str = ""
    token: str = ""
    log: Literal["text", "json"] = "text"
    access_log: bool = False
    cors_origins: str = ""
    variant: str = ""
    public_key: Path | None = None
    trust: bool = False
    grace_s: float = 5
    timeout_ms: int = 1000
    max_connections: int = 1000
    max_head_bytes: int = 64 * 1024
    head_timeout_s: float = 10
    body_timeout_s: float = 30
    idle_timeout_s: float = 75
    max_body_bytes: int = 8 * 1024 * 1024
    max_instances: int = 1024
    max_pixels: int = 100_000_000
    max_reviews: int = 1_000_000
    max_review_bytes: int = 1024 * 1024 * 1024
    max_client_review_bytes: int = 64 * 1024 * 1024
    max_waiting_outcomes: int = 200_000
    store_bytes: int = 2 * 1024 * 1024 * 1024
    spool_bytes: int = 256 * 1024 * 1024
    breaker_rate: float = 0.2
    breaker_window_s: float = 10
    intra_op_threads: int = 0
    device: Literal["cpu", "cuda"] = "cpu"
    explain_at_once: int = 1
    explain_timeout_s: float = 30
    webhook_url: str = ""
    webhook_secret: str = ""

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            if not getattr(self, name) >= least:
                raise ConfigError(f"ROLLOUT_{name.upper()} must be at least {least}, not {getattr(self, name)}")
        if not 0 < self.breaker_rate <= 1:
            raise ConfigError(f"ROLLOUT_BREAKER_RATE must lie above 0 and up to 1, not {self.breaker_rate}")
        for name in ("port", "grpc_port"):
            if not 0 <= getattr(self, name) <= 65535:
                raise ConfigError(
                    f"ROLLOUT_{name.upper()} must lie between 0 and 65535, not {getattr(self, name)}"
                )
        if self.grpc_port and self.grpc_port == self.port:
            raise ConfigError(f"ROLLOUT_PORT and ROLLOUT_GRPC_PORT are both {self.port}; they must differ")
        if self.redis_url:
            parse_redis_url(self.redis_url)
        if "export" in self.variants():
            raise ConfigError("ROLLOUT_VARIANT: export is not served, since loading it can unpickle")
        self.roles_by_token()
        self.origins()
        if self.webhook_url:
            self._check_webhook()

    def variants(self) -> tuple[str, ...]:
        """Returns the variants that are named, those to be preferred first."""
        return tuple(filter(None, (name.strip() for name in self.variant.split(","))))

    def origins(self) -> tuple[str, ...]:
        """Returns the origins whose pages may call the API.

        Raises:
            ConfigError: If one is not ``*`` or an origin such as ``https://app.example``.
        """
        origins = tuple(filter(None, (origin.strip() for origin in self.cors_origins.split(","))))
        for origin in origins:
            scheme, _, rest = origin.partition("://")
            if origin != "*" and (scheme not in ("http", "https") or not rest or "/" in rest):
                raise ConfigError(
                    f"ROLLOUT_CORS_ORIGINS: {origin!r} is not an origin: write scheme, host and port, such as "
                    "https://app.example:8443, and nothing after them"
                )
        return origins

    def roles_by_token(self) -> dict[str, Role]:
        """Returns the configured tokens, each with its role.

        Raises:
            ConfigError: If a pair is not ``role:token`` or a token is shorter than 16 characters.
        """
        roles: dict[str, Role] = {}
        names: dict[str, Role] = {role: role for role in get_args(Role)}
        for number, pair in enumerate(filter(None, self.tokens.split(",")), start=1):
            role, _, token = pair.strip().partition(":")
            if role not in names or len(token) < 16:
                raise ConfigError(
                    f"ROLLOUT_TOKENS: pair {number} must read role:token, where the role is app, reviewer or "
                    "admin and the token has at least 16 characters"
                )
            roles[token] = names[role]
        return roles

    def hash_secret(self) -> bytes:
        """Returns a secret of 32 bytes that follows from the tokens, configured or made."""
        tokens = self.tokens
        if not tokens:
            with contextlib.suppress(OSError):
                tokens = (self.home / "token").read_text()
        return hashlib.sha256(b"rollout hashes\n" + tokens.encode("utf-8", "surrogateescape")).digest()

    def webhook_key(self) -> bytes:
        """Returns the key that signs what is sent to the webhook.

        Raises:
            ConfigError: If the secret has fewer than 24 bytes, or is not base64 after ``whsec_``.
        """
        encoded = self.webhook_secret.removeprefix("whsec_")
        try:
            key = encoded.encode() if encoded == self.webhook_secret else base64.b64decode(encoded, validate=True)
        except binascii.Error:
            key = b""
        if len(key) < 24:
            raise ConfigError(
                "ROLLOUT_WEBHOOK_SECRET must be whsec_ and at least 24 bytes in base64, or a text of at least 24 "
                "characters: the receiver checks the signature with it"
            )
        return key

    def _check_webhook(self) -> None:
        try:
            parts = urlsplit(self.webhook_url)
            is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_url = False
        if not is_url:
            raise ConfigError("ROLLOUT_WEBHOOK_URL must be a whole URL that starts with http:// or https://")
        self.webhook_key()

    @property
    def trusts_bundles(self) -> bool:
        """Whether every bundle that is not refused may run code: all are signed, or somebody says so."""
        return self.trust or self.public_key is not None

    @property
    def processes(self) -> int:
        """How many worker processes there are."""
        return self.workers or usable_cores()

    @property
    def listens_on_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings(environ: Mapping[str, str] = os.environ, **overrides: object) -> Settings:
    """Reads the settings from ``ROLLOUT_*`` variables.

    Args:
        environ: The environment to read.
        **overrides: Values that win over the environment; ``None`` means not given.

    Raises:
        ConfigError: If a variable is unknown or its value does not fit.
    """
    values: dict[str, object] = {
        name.removeprefix("ROLLOUT_").lower(): value
        for name, value in environ.items()
        if name.startswith("ROLLOUT_")
    }
    values.update((name, value) for name, value in overrides.items() if value is not None)
    unknown = sorted(set(values) - set(Settings.__struct_fields__))
    if unknown:
        raise ConfigError(f"there is no setting ROLLOUT_{unknown[0].upper()}; REFERENCE.md lists them all")
    try:
        return msgspec.convert(values, Settings, strict=False, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        reason, _, field = str(error).partition(" - at `$.")
        raise ConfigError(f"ROLLOUT_{field.rstrip('`').upper()}: {reason[0].lower()}{reason[1:]}") from None


def _decode_path(_: type, value: object) -> Path:
    return Path(str(value)).expanduser()
