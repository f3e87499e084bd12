"""Settings: what does not fit is refused where it is read."""

from __future__ import annotations

import msgspec
import pytest

from rollout.config import LEAST, Settings, load_settings
from rollout.errors import ConfigError


@pytest.mark.parametrize(
    "url",
    [
        "redis://:s3cret/x@cache:6379/0",
        "redis://:s3cret?x@cache:6379/0",
        "rediss://app:s3cret#x@cache:6379/0",
        "redis://:123/s3cret@cache:6379/0",
        "redis://:/s3cret@cache:6379/0",
        "unix://:s3/cret@/run/valkey.sock",
        "redis://cache:70000/0",
        "redis://cache:0/0",
    ],
)
def test_a_redis_url_with_a_password_that_is_not_encoded_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError, match="ROLLOUT_REDIS_URL cannot be read: write %2F for /") as refused:
        load_settings({"ROLLOUT_REDIS_URL": url})
    assert "s3" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache",
        "rediss://app:a%2Fb%3F%23%40@cache:6379/0",
        "redis://[::1]:6379/0",
        "unix:///run/valkey@here.sock?db=1",
        "unix:///run/valkey.sock",
    ],
)
def test_other_redis_urls_are_taken(url: str) -> None:
    assert load_settings({"ROLLOUT_REDIS_URL": url}) == Settings(redis_url=url)


# Whose range has two ends.
WITHIN = {"port", "grpc_port", "breaker_rate"}


@pytest.mark.parametrize(
    "name", [field.name for field in msgspec.structs.fields(Settings) if type(field.default) in (int, float)]
)
def test_a_number_below_what_makes_sense_is_refused(name: str) -> None:
    assert (name in LEAST) != (name in WITHIN)
    with pytest.raises(ConfigError, match=f"ROLLOUT_{name.upper()} must"):
        load_settings({f"ROLLOUT_{name.upper()}": "-1"})
