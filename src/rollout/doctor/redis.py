"""Redis: does it answer, will it keep what it is given, and may we do there what we have to?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from rollout.config import is_loopback
from rollout.doctor.finding import Finding, fault, ok, warning
from rollout.doctor.setup import Setup
from rollout.errors import RolloutError
from rollout.keys import Keys
from rollout.redis_url import RedisUrl, parse_redis_url
from rollout.routing.traffic import SILENT_S
from rollout.store import Redis, guard, server_time
from rollout.valkey_server import server_program

# What a user of Redis must be permitted, beside EVAL, as whole commands: asked about half a one, a server may
# crash, as Valkey 9.1.2 does over EVAL. Tests hold them against REFERENCE.md and the server's own COMMAND.
NEEDED = (
    *("ping", "info server", "select 0", "wait 0 0", "time", "scan 0"),
    *("get KEY", "set KEY a", "incr KEY", "mget KEY", "del KEY", "exists KEY", "strlen KEY"),
    *("expire KEY 1", "persist KEY", "pexpireat KEY 1", "rpush KEY a", "lrange KEY 0 1"),
    *("hget KEY a", "hset KEY a b", "hsetnx KEY a b", "hmget KEY a", "hgetall KEY", "hvals KEY", "hdel KEY a"),
    *("hincrby KEY a 1", "hincrbyfloat KEY a 1", "sadd KEY a", "srem KEY a", "scard KEY", "smembers KEY"),
    *("smismember KEY a", "pfadd KEY a", "pfcount KEY", "xadd KEY * a b", "xtrim KEY MAXLEN 1", "xrange KEY - +"),
    *("zadd KEY 1 a", "zpopmin KEY", "zrem KEY a", "zrange KEY 0 1", "zrangebyscore KEY 0 1", "zscore KEY a"),
    *("zremrangebyscore KEY 0 1", "zcard KEY", "zscan KEY 0"),
)
OF_A_CLUSTER = ("cluster slots", "cluster shards", "cluster nodes", "command", "readonly")
# KEYS: one of ours. ARGV: commands. Returns those that the user may not run; it runs none of them.
REFUSED = """
local refused = {}
for _, command in ipairs(ARGV) do
    local words = {}
    for word in string.gmatch(command, '%S+') do
        words[#words + 1] = word == 'KEY' and KEYS[1] or word
    end
    local is_known, is_permitted = pcall(redis.acl_check_cmd, unpack(words))
    if is_known and not is_permitted then
        refused[#refused + 1] = command
    end
end
return refused
"""
# Of the model whose keys are named, though none is there.
NO_MODEL = "doctor"
NEARLY_FULL = 0.9
CLOSE_S = 2.0


def reachable(setup: Setup) -> Iterator[Finding]:
    """Does Redis answer, and is it new enough?"""
    if not setup.redis_url:
        try:
            program = server_program()
        except RolloutError as error:
            yield fault(error.detail, "install one, or set ROLLOUT_REDIS_URL")
            return
        yield ok(f"ROLLOUT_REDIS_URL is not set, and no embedded Valkey runs: `rollout serve` starts {program}")
        return
    url = parse_redis_url(setup.redis_url)
    if setup.redis_trouble:
        yield fault(setup.redis_trouble, "see whether it runs and ROLLOUT_REDIS_URL is right; predictions go on")
        return
    found = setup.ask(lambda redis: _info(redis, "server"))
    kind = "Valkey" if "valkey_version" in found else "Redis"
    yield ok(f"{kind} {found[f'{kind.lower()}_version']} answers at {url}")
    if not url.tls and not _is_near(url):
        yield warning(
            "the connection to Redis leaves this machine and is not encrypted",
            "write rediss for redis in ROLLOUT_REDIS_URL, unless the network is trusted",
        )


def memory(setup: Setup) -> Iterator[Finding]:
    """Does Redis refuse when it is full, rather than drop what it has?"""
    if setup.redis_trouble:
        return
    found = setup.ask(lambda redis: _info(redis, "memory"))
    policy, most, used = found.get("maxmemory_policy"), int(found.get("maxmemory", 0)), int(found["used_memory"])
    if policy != "noeviction":
        yield fault(
            f"maxmemory-policy is {policy}: what is promised to be kept may be dropped",
            "set `maxmemory-policy noeviction`",
        )
    elif most and used > NEARLY_FULL * most:
        yield warning(
            f"{used / 1e6:,.0f} MB of {most / 1e6:,.0f} MB are used",
            "raise maxmemory (ROLLOUT_STORE_BYTES of the embedded one), or lower what reviews may take",
        )
    else:
        yield ok(f"{used / 1e6:,.1f} MB used{f' of {most / 1e6:,.0f} MB' if most else ''}, nothing is evicted")


def persistence(setup: Setup) -> Iterator[Finding]:
    """Does Redis write to its disk what it is given?"""
    if setup.redis_trouble:
        return
    found = setup.ask(lambda redis: _info(redis, "persistence"))
    failed = [
        name for name in ("aof_last_write_status", "rdb_last_bgsave_status") if found.get(name, "ok") != "ok"
    ]
    if failed:
        yield fault(f"Redis cannot write to its disk ({', '.join(failed)})", "see its log and its disk")
    elif not found.get("aof_enabled"):
        yield warning(
            "the append-only file is off: a restart loses splits and reviews since the last snapshot, or all",
            "set `appendonly yes`, or use ?replicas=1 with replicas that are never all gone",
        )
    else:
        yield ok("the append-only file is on")


def permissions(setup: Setup) -> Iterator[Finding]:
    """May we run each command that is needed, on keys of ours? The server is asked, and nothing is run."""
    if setup.redis_trouble:
        return
    is_cluster = parse_redis_url(setup.redis_url).kind == "cluster"
    needed = NEEDED + OF_A_CLUSTER * is_cluster

    async def ask(redis: Redis) -> list[bytes]:
        async with guard():
            refused: list[bytes] = await redis.eval(REFUSED, 1, Keys(NO_MODEL).split, *needed)
            return refused

    refused = [_name(command.decode()) for command in setup.ask(ask)]
    if refused:
        yield fault(
            f"the user of Redis is not permitted: {', '.join(refused)}", "set the ACL rule of REFERENCE.md"
        )
    else:
        yield ok(f"all {len(needed) + 1} commands that are needed are permitted")


def clock(setup: Setup) -> Iterator[Finding]:
    """Do the clocks of Redis and of this machine agree?"""
    if setup.redis_trouble:
        return
    before = time.time()
    theirs = setup.ask(lambda redis: server_time(redis, NO_MODEL)) / 1e6
    after = time.time()
    apart = max(before - theirs, theirs - after, 0.0)
    said = f"the clocks of Redis and of this machine are {apart:.1f} s apart"
    if apart < CLOSE_S:
        yield ok(said if apart else "the clocks of Redis and of this machine agree")
    else:
        say = fault if apart > SILENT_S else warning
        yield say(said, "set both by NTP: leases, intervals and who counts as alive go by them")


def _name(command: str) -> str:
    """Returns the name of a command, as ACL rules have it."""
    first, *others = command.split()
    return f"{first}|{others[0]}" if first == "cluster" else first


async def _info(redis: Redis, section: str) -> dict[str, Any]:
    async with guard():
        found: dict[str, Any] = await redis.info(section)
        return found


def _is_near(url: RedisUrl) -> bool:
    """Whether a server is on this machine."""
    return all(is_loopback(node.host) for node in url.nodes)
