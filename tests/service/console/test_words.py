"""Changes, numbers and histograms as people read them."""

from __future__ import annotations

import msgspec

from rollout.judge.policy import Policy
from rollout.routing.changes import ramp
from rollout.routing.split import Split
from service.console import phrases
from service.console.charts import histograms
from tests.service.console.stage import (
    ALONE,
    DIGESTS,
    TRIAL,
)


def test_changes_in_words() -> None:
    promoted = Split(champion="v2", previous="v1", digests=DIGESTS)
    assert phrases.changed(None, ALONE) == "Champion v1"
    assert phrases.changed(None, TRIAL) == "Champion v1; trial of v2 with 5 %"
    assert phrases.changed(TRIAL, ramp(TRIAL, 0)) == "Share 5 % → 0 %"
    assert phrases.changed(TRIAL, promoted) == "Promoted v2, before v1"
    assert phrases.changed(promoted, ALONE) == "Rolled back from v2 to v1"
    assert phrases.changed(ALONE, Split(champion="v3")) == "Champion v1 to v3"
    assert phrases.changed(ALONE, ALONE) == "Nothing that shows"
    policy = msgspec.structs.replace(TRIAL, policy=Policy())
    assert phrases.changed(TRIAL, policy) == "Another policy"
    assert phrases.changed(policy, TRIAL) == "No policy any more"
    other = msgspec.structs.replace(TRIAL, experiment="again", shadow=0.5, labels={"v2": {"a": "b"}})
    assert phrases.changed(TRIAL, other) == (
        "New experiment key again; shadow rate 0 % → 50 %; other names of labels"
    )


def test_numbers_in_words() -> None:
    assert [phrases.rate(number) for number in (0, 0.0123, 1.25, 1234.5)] == ["0", "0.012", "1.2", "1,234"]
    assert [phrases.latency(seconds) for seconds in (None, 0.00043, 0.0123, 0.0996, 0.25, 1.5)] == [
        "–",
        "0.43 ms",
        "12 ms",
        "100 ms",
        "250 ms",
        "1.5 s",
    ]
    assert [phrases.fraction(share) for share in (0, 0.0012, 0.99999, 1)] == ["0 %", "0.12 %", "99.99 %", "100 %"]


def test_histograms_have_one_scale() -> None:
    from rollout.routing.traffic import ArmTraffic

    sure = [0] * 11 + [10, 0]
    unsure = [0] * 4 + [5, 0, 0, 0, 0, 5, 0, 0, 0]
    one, other, none = histograms(
        [
            ArmTraffic(arm="control", version="v1", confidence=sure),
            ArmTraffic(arm="challenger", version="v2", confidence=unsure),
            ArmTraffic(arm="champion", version="v1"),
        ]
    )
    assert max(one.heights) == 100
    assert max(other.heights) == 50
    assert other.text == "50 % up to 0.5, 0 % from 0.5 to 0.9, 50 % above 0.9"
    assert none.text == "no confidences yet"
