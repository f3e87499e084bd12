"""MLflow's registry over its REST API: serving has no package of MLflow's."""

from __future__ import annotations

import ssl
from typing import Annotated, TypeVar

import aiohttp
import msgspec

from rollout import outgoing
from rollout.errors import NO_JSON
from rollout.mlflow_server import DIGEST, MlflowServer

TIMEOUT_S = 10.0
API = "/api/2.0/mlflow"
MOST_BYTES = 1024 * 1024  # of an answer
MISSING = "RESOURCE_DOES_NOT_EXIST"
LONGEST = 300  # characters of a reason

Name = Annotated[str, msgspec.Meta(max_length=1000)]


class _Version(msgspec.Struct):
    version: Name | int


class _Versions(msgspec.Struct):
    model_versions: list[_Version] = []


class _Alias(msgspec.Struct):
    alias: Name
    version: Name | int


class _Aliases(msgspec.Struct):
    aliases: list[_Alias] = []


class _Model(msgspec.Struct):
    registered_model: _Aliases = msgspec.field(default_factory=_Aliases)


class _Nothing(msgspec.Struct):
    pass


class _Fault(msgspec.Struct):
    error_code: str = ""
    message: str = ""


Answer = TypeVar("Answer", _Versions, _Model, _Nothing)


class RegistryError(Exception):
    """The registry does not answer, or refuses; what it says has no credentials."""


class MlflowRegistry:
    """The versions of registered models and their aliases.

    Args:
        server: Where it is.
    """

    def __init__(self, server: MlflowServer) -> None:
        self._server = server
        self._ssl: ssl.SSLContext | bool = (
            ssl.create_default_context(cafile=server.verify) if isinstance(server.verify, str) else server.verify
        )

    async def version_of(self, model: str, digest: str) -> str | None:
        """Returns the version of a registered model that a bundle is, by its digest.

        Raises:
            RegistryError: If the registry does not say.
        """
        wanted = f"name = '{model}' and tag.`{DIGEST}` = '{digest}'"
        asked = {"filter": wanted, "max_results": "1"}
        found = await self._ask("GET", "model-versions/search", asked, _Versions)
        return str(found.model_versions[0].version) if found is not None and found.model_versions else None

    async def aliases(self, model: str) -> dict[str, str]:
        """Returns the version that each alias of a registered model names; nothing where it is not registered.

        Raises:
            RegistryError: If the registry does not say.
        """
        found = await self._ask("GET", "registered-models/get", {"name": model}, _Model)
        return {} if found is None else {one.alias: str(one.version) for one in found.registered_model.aliases}

    async def set_alias(self, model: str, alias: str, version: str | None) -> None:
        """Gives an alias to a version, or takes it from all.

        Raises:
            RegistryError: If the registry refuses.
        """
        wanted = {"name": model, "alias": alias}
        if version is None:
            await self._ask("DELETE", "registered-models/alias", wanted, _Nothing)
        else:
            await self._ask("POST", "registered-models/alias", {**wanted, "version": version}, _Nothing)

    async def _ask(self, method: str, path: str, wanted: dict[str, str], kind: type[Answer]) -> Answer | None:
        """Returns what the registry answers; ``None`` where it does not have what is asked for."""
        headers = {**self._server.headers, "Accept-Encoding": "identity"}
        try:
            async with (
                outgoing.session(TIMEOUT_S, 2 * MOST_BYTES, headers=headers) as session,
                session.request(
                    method,
                    f"{self._server.url}{API}/{path}",
                    params=wanted if method == "GET" else None,
                    json=None if method == "GET" else wanted,
                    ssl=self._ssl,
                    allow_redirects=False,
                ) as response,
            ):
                status, body = response.status, bytearray()
                async for piece in response.content.iter_any():
                    body += piece
                    if len(body) > MOST_BYTES:
                        raise RegistryError(f"{self._server.url} answers with more than {MOST_BYTES:,} bytes")
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise RegistryError(f"{self._server.url} does not answer ({type(error).__name__})") from None
        if status == 200:
            try:
                return msgspec.json.decode(body or b"{}", type=kind)
            except NO_JSON as error:
                raise RegistryError(f"{self._server.url} answers what is no registry's answer: {error}") from None
        try:
            fault = msgspec.json.decode(body, type=_Fault)
        except NO_JSON:
            fault = _Fault()
        if status == 404 and fault.error_code == MISSING:
            return None
        said = "".join(each if each.isprintable() else " " for each in fault.message[:LONGEST])
        raise RegistryError(f"{self._server.url} refuses with {status}: {said or 'no reason given'}")
