"""Are the arms of a trial of the size that they should be? If not, something loses clients: judge nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rollout.judge.sequences import log_beta

# The standard error of Redis's HyperLogLog: 1.04 / sqrt(2**14).
COUNTING_ERROR = 0.0081
# Clients that a mixture knows the ratio from: the more, the smaller the imbalances that it looks for, here about
# one in ten, which is seen soon, and one in a hundred. The mean of two e-values is an e-value.
PRIORS = (100, 10_000)
# Each stage of a ramp is refused at this e-value; over five of them, chance does that in one trial of 40.
REFUSED = 200.0
LARGEST_LOG = 700.0


def e_value(counts: Sequence[float], expected: Sequence[float]) -> float:
    """Returns the evidence against the expected ratio: at ``1 / alpha``, at any look, it does not hold.

    The likelihood of the counts under a Dirichlet-multinomial mixture around the expected shares, divided by
    that under these shares (Lindon & Malek, "Anytime-valid inference for multinomial count data", 2022,
    equation 6). Its expectation is at most 1 while the ratio holds, so it ever reaches ``1 / alpha`` with a
    probability of at most ``alpha`` (Ville 1939).

    Args:
        counts: Different clients, by arm.
        expected: Their shares, above 0; they are made to add up to 1.

    Returns:
        0 or more; infinity where it is larger than a float.

    Example:
        >>> e_value([102_041, 97_959], [1, 1]) > 1e10, round(e_value([5_000, 5_100], [1, 1]), 2)
        (True, 0.53)
    """
    total = math.fsum(expected)
    shares = [share / total for share in expected]
    return math.fsum(_ratio(counts, shares, prior) for prior in PRIORS) / len(PRIORS)


def _ratio(counts: Sequence[float], shares: Sequence[float], weight: float) -> float:
    """Returns the likelihood ratio of one mixture."""
    prior = [weight * share for share in shares]
    log = (
        log_beta([one + count for one, count in zip(prior, counts, strict=True)])
        - log_beta(prior)
        - math.fsum(count * math.log(share) for count, share in zip(counts, shares, strict=True))
    )
    return math.exp(log) if log < LARGEST_LOG else math.inf


def as_counted(counts: Sequence[float]) -> list[float]:
    """Returns as many clients as the counts are worth, where HyperLogLogs made them.

    Each errs by ``COUNTING_ERROR`` of itself, independently. The difference of two arms has the variance ``n``
    by chance, and ``COUNTING_ERROR² * sum(count²)`` beside it: by so much less are ``n`` clients worth (Kish,
    "Survey Sampling", 1965, the design effect).

    Example:
        >>> [round(count) for count in as_counted([102_041, 97_959])]
        [13491, 12951]
    """
    total = math.fsum(counts)
    if not total:
        return list(counts)
    effect = 1 + COUNTING_ERROR**2 * math.fsum(count**2 for count in counts) / total
    return [count / effect for count in counts]
