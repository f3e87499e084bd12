"""Which MLflow server the environment names, as MLflow's own client reads it; and what we call things there."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

TRACKING, REGISTRY = "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"
# Tags of a run, and of a version of a registered model: the bundle's version, and what it is known by.
VERSION, DIGEST = "rollout.version", "rollout.digest"


class MlflowServer(NamedTuple):
    """A server with a registry.

    Attributes:
        url: Its address, without credentials.
        headers: What lets us in.
        verify: Whether its certificate is checked; or the file of the authorities to check it with.
    """

    url: str
    headers: Mapping[str, str]
    verify: bool | str = True


def registry_server(environ: Mapping[str, str] = os.environ) -> MlflowServer | None:
    """Returns the server of the registry, or ``None`` where none is named that speaks HTTP."""
    address = environ.get(REGISTRY) or environ.get(TRACKING) or ""
    if not address.startswith(("http://", "https://")):
        return None
    parts = urlsplit(address)
    user = environ.get("MLFLOW_TRACKING_USERNAME") or unquote(parts.username or "")
    password = environ.get("MLFLOW_TRACKING_PASSWORD") or unquote(parts.password or "")
    headers = {}
    if user:
        headers["Authorization"] = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    elif token := environ.get("MLFLOW_TRACKING_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    is_insecure = environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
    authorities = environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True
    return MlflowServer(shown_address(address), headers, False if is_insecure else authorities)


def shown_address(address: str) -> str:
    """Returns an address as it may be shown: without credentials, and without a slash at its end."""
    scheme, separator, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}".rstrip("/")
