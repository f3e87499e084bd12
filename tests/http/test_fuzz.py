"""A minute of mutated requests in every protocol; `make fuzz` takes ten."""

from __future__ import annotations

import asyncio
import random

from loadtests.fuzz import encode, fuzz, mutate
from loadtests.fuzz_service import fuzzed_service

SECONDS = 60


def test_nothing_fails_hangs_or_stays_in_memory(bundles: str) -> None:
    seed = random.randrange(10**6)
    with fuzzed_service(bundles) as target:
        findings = asyncio.run(fuzz(target, target.image, SECONDS, seed))
    assert findings.failures == [], f"seed {seed}"
    assert {"HTTP 200", "HTTP 400", "HTTP 422", "gRPC OK", "gRPC INVALID_ARGUMENT"} <= findings.statuses.keys()


def test_a_seed_says_what_is_sent() -> None:
    from loadtests.fuzz import corpus

    requests = corpus([[0] * 32] * 32)
    first, again = ([encode(one, "t", random.Random(7)) for one in requests] for _ in range(2))
    assert first == again
    assert sum(mutate(one.body, random.Random(3)) != one.body for one in requests) > len(requests) / 2
