"""The URL of Redis: what each form says, and what is refused."""

from __future__ import annotations

import pytest

from rollout.errors import ConfigError
from rollout.redis_url import Node, RedisUrl, parse_redis_url


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("redis://", RedisUrl(nodes=(Node("localhost", 6379),))),
        ("redis://cache", RedisUrl(nodes=(Node("cache", 6379),))),
        ("redis://[::1]:7000/3", RedisUrl(nodes=(Node("::1", 7000),), db=3)),
        ("redis://:secret@cache/0", RedisUrl(nodes=(Node("cache", 6379),), password="secret")),
        (
            "rediss://app:a%2Fb%3F%23%40%2C@cache:6380/1?ssl_ca_certs=%2Fca.pem&ssl_check_hostname=false",
            RedisUrl(
                nodes=(Node("cache", 6380),),
                username="app",
                password="a/b?#@,",
                db=1,
                tls=True,
                ssl_ca_certs="/ca.pem",
                ssl_check_hostname=False,
            ),
        ),
        ("unix:///run/valkey@here.sock?db=1", RedisUrl(path="/run/valkey@here.sock", db=1)),
        ("unix://app:secret@/run/a.sock", RedisUrl(path="/run/a.sock", username="app", password="secret")),
        (
            "redis+sentinel://app:secret@a,b:5000,[::1]/main/2?sentinel_username=s&sentinel_password=%40&replicas=1",
            RedisUrl(
                kind="sentinel",
                nodes=(Node("a", 26379), Node("b", 5000), Node("::1", 26379)),
                username="app",
                password="secret",
                service="main",
                db=2,
                sentinel_username="s",
                sentinel_password="@",
                replicas=1,
            ),
        ),
        (
            "rediss+cluster://app:secret@a,b:7000/0?ssl_certfile=c.pem&ssl_keyfile=k.pem&ssl_cert_reqs=none",
            RedisUrl(
                kind="cluster",
                nodes=(Node("a", 6379), Node("b", 7000)),
                username="app",
                password="secret",
                tls=True,
                ssl_certfile="c.pem",
                ssl_keyfile="k.pem",
                ssl_cert_reqs="none",
            ),
        ),
    ],
)
def test_it_says_where_redis_is_and_how_to_get_in(url: str, found: RedisUrl) -> None:
    assert parse_redis_url(url) == found


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://app:secret@cache", "redis://cache:6379/0"),
        ("unix://app:secret@/run/a.sock", "unix:///run/a.sock"),
        (
            "rediss+sentinel://:secret@a,[::1]/main?sentinel_password=hidden",
            "rediss+sentinel://a:26379,[::1]:26379/main/0",
        ),
        ("redis+cluster://:secret@a,b", "redis+cluster://a:6379,b:6379"),
    ],
)
def test_it_is_shown_without_its_passwords(url: str, shown: str) -> None:
    assert str(parse_redis_url(url)) == shown


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://secret@cache", "must start with redis://, rediss://, unix://, redis.sentinel://"),
        ("redis+nonsense://secret", "must start with"),
        ("redis://:secret@a,b", "takes one address; several Sentinels take redis.sentinel://"),
        ("redis://:secret@a/x", "the database after the last / must be a number"),
        (
            "redis+sentinel://:secret@a,b",
            "takes the name of the primary, such as redis.sentinel://host,host/main/0",
        ),
        ("redis+cluster://:secret@a/1", "a cluster has no database but 0"),
        ("unix://", "takes a path, such as unix:///run/valkey.sock"),
        ("redis://:secret@a?ssl_ca_certs=ca.pem", "ssl_ca_certs takes rediss://"),
        ("redis://:secret@a?sentinel_password=x", "sentinel_password takes redis.sentinel://"),
        ("redis://:secret@a?socket_timeout=9", "has no option 'socket_timeout'; there are replicas, db, "),
        ("rediss://:secret@a?ssl_cert_reqs=maybe", "ssl_cert_reqs must be one of required, optional, none"),
        ("rediss://:secret@a?ssl_check_hostname=x", "ssl_check_hostname must be true or false"),
        ("redis://:secret@a?replicas=-1", "replicas must be a number"),
        ("redis+cluster://:secret@a,b:99999", "a port from 1 to 65535"),
        ("redis+sentinel://:secret@a,[b/main", "cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused_without_showing_it(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        parse_redis_url(url)
    assert "ROLLOUT_REDIS_URL" in str(refused.value)
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None
