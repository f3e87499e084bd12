"""Redis over TLS: a private authority, certificates of clients, and which end speaks what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
import trustme

from rollout.errors import ConfigError, StoreUnavailableError
from rollout.store import connect, guard, run_script
from tests.conftest import need
from tests.redis_servers import PRIMARY, RedisServer, form_cluster, node_settings, running, watch


class Secure(NamedTuple):
    """Servers that take TLS only, and only from those who have a certificate of their authority."""

    single: RedisServer
    sentinel: RedisServer
    node: RedisServer
    files: dict[str, str]


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    need("redis-server")  # the Valkey of the wheel knows no TLS
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name in ("server", "client"):
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")
        certificate.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    files = {
        "ssl_ca_certs": str(folder / "ca.pem"),
        "ssl_certfile": str(folder / "client.pem"),
        "ssl_keyfile": str(folder / "client.key"),
    }
    settings = (
        f"tls-cert-file {folder / 'server.pem'}",
        f"tls-key-file {folder / 'server.key'}",
        f"tls-ca-cert-file {folder / 'ca.pem'}",
        "tls-replication yes",
    )
    options: dict[str, Any] = {"program": "redis-server", "secure": {"ssl": True, **files}}
    single = RedisServer(folder / "single", *settings, **options)
    sentinel = watch(single, folder / "sentinel", *settings, **options)
    node = RedisServer(folder / "node", *node_settings(*settings, "tls-cluster yes"), **options)
    with running(single, sentinel, node):
        form_cluster([node], primaries=1)
        yield Secure(single, sentinel, node, files)


async def store_and_read(url: str) -> None:
    async with aclosing(await connect(url)) as redis, guard():
        await run_script(redis, "redis.call('SET', KEYS[1], ARGV[1])", ["rollout:{m}:x"], "secret")
        assert await redis.get("rollout:{m}:x") == b"secret"


async def test_each_kind_is_reached_with_certificates(secure: Secure) -> None:
    query = urlencode(secure.files)
    await store_and_read(f"rediss://{secure.single.address}?{query}")
    await store_and_read(f"rediss+sentinel://{secure.sentinel.address}/{PRIMARY}?{query}")
    await store_and_read(f"rediss+cluster://{secure.node.address}?{query}")


async def test_whom_to_trust_is_said(secure: Secure) -> None:
    base, query = f"rediss://{secure.single.address}", urlencode(secure.files)
    of_client = urlencode({name: secure.files[name] for name in ("ssl_certfile", "ssl_keyfile")})
    with pytest.raises(StoreUnavailableError, match="signed by no authority that is known here"):
        await store_and_read(base)
    await store_and_read(f"{base}?ssl_cert_reqs=none&{of_client}")
    with pytest.raises(StoreUnavailableError, match="wants a certificate of its clients"):
        await store_and_read(f"{base}?{urlencode({'ssl_ca_certs': secure.files['ssl_ca_certs']})}")
    named = f"rediss://localhost:{secure.single.port}?{query}"
    with pytest.raises(StoreUnavailableError, match="the certificate of Redis is for another name"):
        await store_and_read(named)
    await store_and_read(f"{named}&ssl_check_hostname=false")
    with pytest.raises(ConfigError, match="ssl_certfile: there is no file /nowhere"):
        await store_and_read(f"{base}?ssl_certfile=/nowhere")


async def test_without_tls_it_is_said_that_there_is_tls(secure: Secure, tmp_path: Path) -> None:
    for server, end in ((secure.single, ""), (secure.node, "+cluster"), (secure.sentinel, "+sentinel")):
        with pytest.raises(StoreUnavailableError) as refused:
            await store_and_read(f"redis{end}://{server.address}{f'/{PRIMARY}' * (end == '+sentinel')}")
        words = f"{server.address} takes TLS only: write rediss{end}:// for redis{end}://"
        assert refused.value.detail.endswith(words)
