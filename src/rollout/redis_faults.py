"""What is wrong with Redis, in one line that says what to do about it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import suppress

from rollout.redis_url import RedisUrl

PROBE_S = 1.0
LOADING = "Redis still reads its data"
NOT_KNOWN = "Redis wants a password: write it into ROLLOUT_REDIS_URL, redis://USER:PASSWORD@HOST"
STRANGE = (
    "a key in Redis holds another kind of value than Rollout writes there: put back what was there, or remove it"
)
NO_PRIMARY = (
    "Sentinel names no primary that is up: compare the name in ROLLOUT_REDIS_URL, "
    "redis+sentinel://HOST,HOST/NAME, with its own, and see whether the Sentinels answer"
)
# Words of an error, as the server, TLS or the client library put it, and what they mean.
FAULTS = (
    (
        "invalid username-password pair",
        "Redis refuses the user or the password that ROLLOUT_REDIS_URL gives: correct them there, and write "
        "reserved characters as %2F and so on",
    ),
    ("Authentication required", NOT_KNOWN),
    ("client already authenticated", NOT_KNOWN),
    (
        "without any password configured",
        "ROLLOUT_REDIS_URL gives a password, but Redis has none for its default user: name one, or no password",
    ),
    (
        "no permission",
        "Redis does not permit its user what is needed ({words}): set the ACL rule of REFERENCE.md",
    ),
    (
        "'maxmemory'",
        "Redis has reached its maxmemory and stores nothing more: give it more, or remove what else it holds",
    ),
    (
        "MISCONF",
        "Redis stores nothing more, since it cannot write to its disk: its log says why",
    ),
    (
        "NOREPLICAS",
        "Redis stores nothing while it has fewer replicas than its min-replicas-to-write: bring them back",
    ),
    (
        "read only replica",
        "Redis is a replica here, which stores nothing: ROLLOUT_REDIS_URL must lead to the primary",
    ),
    (
        "Cluster mode is not enabled",
        "ROLLOUT_REDIS_URL says redis+cluster://, but Redis is no cluster there: write redis://",
    ),
    (
        "MovedError",
        "Redis is a cluster of several nodes: write redis+cluster:// for redis:// in ROLLOUT_REDIS_URL",
    ),
    (
        "slots are not covered",
        "the Redis cluster is incomplete: some of its slots have no primary now",
    ),
    (
        "CLUSTERDOWN",
        "the Redis cluster is down: some of its slots have no primary now",
    ),
    (
        "unknown command 'SENTINEL'",
        "ROLLOUT_REDIS_URL says redis+sentinel://, but there is no Sentinel: name the Sentinels, or write redis://",
    ),
    (
        "auth:AuthenticationError",  # of all Sentinels
        "the Sentinels want another user or password than ROLLOUT_REDIS_URL gives behind it: "
        "?sentinel_username=USER&sentinel_password=PASSWORD",
    ),
    ("WRONGTYPE", STRANGE),
    # What a script says of a figure, and of JSON.
    ("is not an integer", STRANGE),
    ("is not a valid float", STRANGE),
    ("but found", STRANGE),
    ("too many nested data structures", STRANGE),
    ("No master found", NO_PRIMARY),
    (
        "DB index is out of range",
        "Redis has no database of the number that ROLLOUT_REDIS_URL gives",
    ),
    ("loading the dataset", LOADING),
    (
        "max number of clients",
        "Redis has as many clients as its maxclients: raise it",
    ),
    (
        "certificate required",
        "Redis wants a certificate of its clients: name its files in ROLLOUT_REDIS_URL, "
        "?ssl_certfile=FILE&ssl_keyfile=FILE",
    ),
    (
        "is not valid for",
        "the certificate of Redis is for another name: write the name that it is for into ROLLOUT_REDIS_URL",
    ),
    (
        "certificate verify failed",
        "the certificate of Redis is signed by no authority that is known here: name the authority's file in "
        "ROLLOUT_REDIS_URL, ?ssl_ca_certs=FILE",
    ),
)


def explain(error: BaseException) -> str | None:
    """Says what a failure means; ``None`` where all that is known is that Redis does not answer."""
    for one in _chain(error):
        words = f"{type(one).__name__} {one}".lower().replace("_", " ")
        for sign, meaning in FAULTS:
            if sign.lower() in words:
                return meaning.format(words=one)
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


async def find_tls_mismatch(url: RedisUrl) -> str | None:
    """Looks why a server does not answer: it speaks TLS where the URL does not, or the reverse, or refuses us."""
    for host, port in url.nodes:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(PROBE_S):
                if url.tls and await _answers_in_plain(host, port):
                    other = url.scheme.replace("rediss", "redis")
                    return f"there is no TLS on {host}:{port}: write {other}:// for {url.scheme}://"
                if url.tls and not url.ssl_certfile and (refusal := await _refusal_in_tls(host, port)):
                    return refusal
                if not url.tls and await _answers_in_tls(host, port):
                    other = url.scheme.replace("redis", "rediss")
                    return f"{host}:{port} takes TLS only: write {other}:// for {url.scheme}://"
    return None


async def _answers_in_plain(host: str, port: int) -> bool:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"PING\r\n")
        return (await reader.read(1)) in (b"+", b"-")  # PONG, or a password is wanted first
    except OSError:  # what speaks TLS makes nothing of it
        return False
    finally:
        writer.close()


async def _refusal_in_tls(host: str, port: int) -> str | None:
    """Returns why a server ends a connection on which nothing is sent: what is sent may overtake that."""
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=_trusting())
        try:
            async with asyncio.timeout(PROBE_S / 4):
                await reader.read(1)
        finally:
            writer.close()
    except ssl.SSLError as error:
        return explain(error)
    return None


def _trusting() -> ssl.SSLContext:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    return trusting


async def _answers_in_tls(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port, ssl=_trusting())
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")  # it wants a certificate
    writer.close()
    return True
