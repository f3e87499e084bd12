"""Redis: the only place that connects to it."""

from __future__ import annotations

import asyncio
import logging
import math
import time
import traceback
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import msgspec
import redis.asyncio
import redis.exceptions
from redis.asyncio.cluster import ClusterNode, PipelineCommand, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from rollout.errors import NO_JSON, ConfigError, RolloutError, StoredValueError, StoreUnavailableError
from rollout.keys import Keys
from rollout.redis_faults import NO_PRIMARY, explain, find_tls_mismatch
from rollout.redis_url import RedisUrl, parse_redis_url

TIMEOUT_S = 1.0
# Whoever has not answered by then may not have understood.
PATIENCE_S = 0.25
# Within that time, since the answer to a script comes with that of its replicas.
CONFIRM_MS = 500
REPORT_EVERY_S = 60.0
OLDEST = {"redis": 7, "valkey": 8}
# Microseconds since 1970, by the clock of the server that has the key: each node of a cluster has its own.
NOW = "local now = redis.call('TIME') return now[1] * 1000000 + now[2]"
# KEYS: cursor. ARGV: how far something got.
ADVANCE = """
if tonumber(redis.call('GET', KEYS[1]) or 0) < tonumber(ARGV[1]) then
    redis.call('SET', KEYS[1], ARGV[1])
end
"""
# What failures of Redis are, and of the way to it; those of a cluster are no RedisError.
FAILURES = (redis.exceptions.RedisError, redis.exceptions.RedisClusterException, OSError, TimeoutError)

T = TypeVar("T")

logger = logging.getLogger(__name__)
_reported: dict[str, float] = {}


class Server(redis.asyncio.Redis):
    """A client of one server, or of the primary that Sentinel names.

    Attributes:
        url: What it connects to.
        sentinels: Who names the primary.
    """

    url: RedisUrl
    sentinels: Sentinel | None = None

    async def confirm(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> tuple[Any, int]:
        """Runs a script; returns its answer, and how many replicas have what it stored."""
        pipe = self.pipeline(transaction=False)  # on one connection, which is what WAIT looks at
        for command in _confirmed(self.url, script, keys, arguments):
            pipe.execute_command(*command)
        answer, _, confirmed = await pipe.execute()
        return answer, confirmed

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001  redis-py's
        """Closes all connections."""
        await super().aclose(close_connection_pool)
        if self.sentinels is not None:
            await self.sentinels.aclose()


class Cluster(RedisCluster):
    """A client of a cluster.

    Attributes:
        url: What it connects to.
    """

    url: RedisUrl

    async def confirm(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> tuple[Any, int]:
        """Runs a script; returns its answer, and how many replicas have what it stored."""
        await self.initialize()
        node = self.get_node_from_key(keys[0])
        assert node is not None  # noqa: S101  its slot has a primary
        commands = [
            PipelineCommand(place, *command)
            for place, command in enumerate(_confirmed(self.url, script, keys, arguments))
        ]
        await node.execute_pipeline(commands)
        results: list[Any] = [command.result for command in commands]
        for result in results:
            if isinstance(result, Exception):
                with suppress(StoreUnavailableError):
                    async with guard():
                        await self.exists(keys[0])  # which learns where the key is now
                raise result
        answer, _, confirmed = results
        return answer, confirmed


def _confirmed(url: RedisUrl, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> list[list[Any]]:
    """Returns the commands that run a script and wait for the replicas.

    ``WAIT`` waits for what its connection wrote. Where an earlier try stored everything and only its replicas
    were missing, the script writes nothing, and without a write of our own any replica would do, even one that
    is just being connected and has none of it.
    """
    return [
        ["EVAL", script, len(keys), *keys, *arguments],
        ["INCR", Keys.beside(keys[0]).confirmed],
        ["WAIT", url.replicas, CONFIRM_MS],
    ]


Redis: TypeAlias = Server | Cluster


def client_of(url: str) -> Redis:
    """Returns a client that connects when it is first used.

    Raises:
        ConfigError: If the URL cannot be read, or a file that it names is not there.
    """
    to = parse_redis_url(url)
    tls: dict[str, Any] = {}
    if to.tls:
        files = {name: getattr(to, name) for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")}
        for name, file in files.items():
            if file is not None and not Path(file).is_file():
                raise ConfigError(f"ROLLOUT_REDIS_URL: {name}: there is no file {file}")
        tls = {
            "ssl": True,
            "ssl_cert_reqs": to.ssl_cert_reqs,
            "ssl_check_hostname": to.ssl_check_hostname,
            **files,
        }
        if to.ssl_cert_reqs == "none":
            tls["ssl_check_hostname"] = False
    timeouts = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
    options: dict[str, Any] = {
        **tls,
        **timeouts,
        "username": to.username,
        "password": to.password,
        # One retry, for a connection that died while it lay in the pool. A server that hangs is waited for once.
        "retry": Retry(NoBackoff(), 1, supported_errors=(redis.exceptions.ConnectionError,)),
        # And for one to a primary that has become a replica: at its address is another one now.
        "retry_on_error": [redis.exceptions.ReadOnlyError],
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    client: Redis
    if to.kind == "cluster":
        client = Cluster(startup_nodes=[ClusterNode(*node) for node in to.nodes], **options)
    elif to.kind == "sentinel":
        own = options | {"username": to.sentinel_username, "password": to.sentinel_password}
        sentinels = Sentinel(to.nodes, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
        client = primary = sentinels.master_for(to.service, redis_class=Server, db=to.db, **options)
        primary.sentinels = sentinels
    elif to.path:
        client = Server(unix_socket_path=to.path, db=to.db, **options)
    else:
        client = Server(**to.nodes[0]._asdict(), db=to.db, **options)
    client.url = to
    return client


async def connect(url: str) -> Redis:
    """Connects to Redis 7, Valkey 8 or later.

    Raises:
        ConfigError: If the URL cannot be read, or a file that it names is not there.
        StoreUnavailableError: If it does not answer, or is too old.
    """
    client = client_of(url)
    try:
        await require_supported(client)
    except BaseException:
        await client.aclose()
        raise
    return client


async def require_supported(client: Redis) -> None:
    """Refuses a server that is too old.

    Raises:
        StoreUnavailableError: If it does not answer, or is too old; the error says what to do.
    """
    asking = asyncio.create_task(_server_info(client))
    try:
        await asyncio.wait({asking}, timeout=PATIENCE_S)
        if not asking.done() or _is_unreached(asking.exception()):
            mismatch = await find_tls_mismatch(client.url)
            if mismatch is not None:
                raise StoreUnavailableError(f"{client.url}: {mismatch}")
        info = await asking
    finally:
        asking.cancel()
        await asyncio.wait({asking})
    kind = "valkey" if "valkey_version" in info else "redis"
    version = str(info[f"{kind}_version"])
    if int(version.split(".", maxsplit=1)[0]) < OLDEST[kind]:
        raise StoreUnavailableError(f"{client.url}: {kind} {version}; Redis 7, Valkey 8 or later is needed")
    if "sentinel" in (info.get("redis_mode"), info.get("server_mode")):
        raise StoreUnavailableError(f"{client.url}: this is a Sentinel: write redis+sentinel://HOST,HOST/NAME")


async def _server_info(client: Redis) -> dict[str, Any]:
    try:
        async with guard():
            await client.ping()  # while it still reads its data, it refuses this
            info: dict[str, Any] = await client.info("server")
            return info
    except StoreUnavailableError as error:
        raise StoreUnavailableError(f"{client.url}: {reason(error)}") from error


async def run_script(redis: Redis, script: str, keys: Sequence[str], *arguments: Any) -> Any:
    """Runs a script that stores what is acknowledged, and returns its answer.

    Args:
        redis: Connection.
        script: Lua.
        keys: Those of one model.
        *arguments: What it gets beside.

    Raises:
        StoreUnavailableError: If Redis does not answer, or too few replicas have what was stored.
    """
    async with guard():
        if not redis.url.replicas:
            return await redis.eval(script, len(keys), *keys, *arguments)
        answer, confirmed = await redis.confirm(script, keys, arguments)
    if confirmed < redis.url.replicas:
        raise StoreUnavailableError(
            f"of {redis.url.replicas} replicas that must have what is stored, {confirmed} confirmed it in time"
        )
    return answer


async def advance(redis: Redis, key: str, cursor: int) -> None:
    """Notes how far something got. It never goes back, not even where a worker lost its lease and does not know.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    async with guard():
        await redis.eval(ADVANCE, 1, key, cursor)


async def server_time(redis: Redis, model: str) -> int:
    """Returns what the clock says that the scripts of a model go by, microseconds since 1970.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    async with guard():
        return int(await redis.eval(NOW, 1, Keys(model).split))


@asynccontextmanager
async def guard() -> AsyncIterator[None]:
    """Turns every failure of Redis inside the block into ``StoreUnavailableError``."""
    try:
        yield
    except FAILURES as error:
        raise StoreUnavailableError(explain(error) or "Redis does not answer; try again shortly") from error
    except AttributeError as error:
        # redis-py closes a connection that another task is writing to, and goes on with what is no longer there.
        if not _is_of_the_client(error):
            raise
        closed = redis.exceptions.ConnectionError("the connection was closed while it was used")
        raise StoreUnavailableError("Redis does not answer; try again shortly") from closed


def decode_stored(data: bytes | str, kind: type[T], key: str) -> T:
    """Decodes JSON that lies in Redis.

    Args:
        data: The JSON.
        kind: What it should be.
        key: Where it lies.

    Raises:
        StoredValueError: If it is not what Rollout writes there.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (RolloutError, *NO_JSON) as error:  # what is JSON may still be no split
        raise strange_value(key, error) from None


def decode_each(stored: Iterable[tuple[str, bytes]], kind: type[T]) -> list[T]:
    """Decodes what lies under several keys, or in one of several values, without what Rollout did not write.

    That is said in the log, each once a minute.

    Args:
        stored: Where each lies, and its JSON.
        kind: What each should be.
    """
    found = []
    for key, data in stored:
        try:
            found.append(decode_stored(data, kind, key))
        except StoredValueError as error:
            report_left_out(error)
    return found


@contextmanager
def stored_at(key: str) -> Iterator[None]:
    """Names the key where what is read of it in this block is not what Rollout writes there.

    Raises:
        StoredValueError: If it is not.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, ArithmeticError, *NO_JSON) as error:
        raise strange_value(key, error) from None


def strange_value(key: str, error: Exception) -> StoredValueError:
    """Returns the error that says of a key that Rollout did not write what lies there."""
    what = next(iter(str(error).splitlines()), type(error).__name__)[:200]
    return StoredValueError(
        f"{key} in Redis holds what Rollout does not write there ({what}): put back what was there, or remove it"
    )


def _is_of_the_client(error: AttributeError) -> bool:
    """Whether redis-py raised it, not what runs inside the block."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).startswith("redis.")


def reason(error: StoreUnavailableError | TimeoutError) -> str:
    """Says in one line why Redis does not do what it should, for those who run it."""
    if isinstance(error, TimeoutError):
        return "Redis does not answer in time"
    return f"Redis does not answer: {error.__cause__}" if _is_silent(error) else error.detail


def report(error: StoreUnavailableError | TimeoutError) -> None:
    """Says in the log why Redis does not do what it should, each reason once a minute."""
    why = reason(error)
    now = time.monotonic()
    if now - _reported.get(why, -math.inf) >= REPORT_EVERY_S:
        _forget_reports(now)
        _reported[why] = now
        logger.warning("%s; predictions go on, review items go to the spool", why)


def report_left_out(error: StoredValueError) -> None:
    """Says in the log what is left out of an answer, each once a minute."""
    now = time.monotonic()
    if now - _reported.get(error.detail, -math.inf) >= REPORT_EVERY_S:
        _forget_reports(now)
        _reported[error.detail] = now
        logger.warning("%s; the others are taken", error.detail)


def _forget_reports(now: float) -> None:
    """Forgets what was said long ago: keys are many."""
    for why in [why for why, at in _reported.items() if now - at >= REPORT_EVERY_S]:
        del _reported[why]


def _is_silent(error: StoreUnavailableError) -> bool:
    """Whether no more is known than that Redis does not answer."""
    return error.__cause__ is not None and explain(error.__cause__) is None


def _is_unreached(error: BaseException | None) -> bool:
    return error is not None and explain(error) in (None, NO_PRIMARY)


def is_cancelled() -> bool:
    """Whether the running task is to end; redis-py may turn that into a failed connection, which is caught."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
