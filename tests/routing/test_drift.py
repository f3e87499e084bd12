"""What a look at live rows found, in words, and kept for everybody."""

from __future__ import annotations

from rollout.judge.reweighting import PredictedAccuracy
from rollout.keys import Keys
from rollout.routing.drift import describe_predicted, keep_drift, read_drift
from rollout.routing.drift_windows import KEPT_S
from rollout.store import Redis
from tests.routing.drifts import arm_drift, view


def test_it_is_quiet_where_nothing_moved() -> None:
    found = view(arm_drift(2000), arm_drift(10, arm="challenger", version="v2"))
    assert (found.state, found.moved) == ("quiet", [])
    assert found.detail == "nothing speaks for a change in 2,010 rows"


def test_too_few_rows_are_not_quiet() -> None:
    found = view(arm_drift(0), bare=("digits:v2",))
    assert found.state == "too_few"
    assert found.detail == "0 rows were looked at in the last 35 days: too few to notice a change"
    assert found.notes == ["digits:v2 was packed without a baseline: pack it anew to see drift of its rows"]


def test_what_moved_is_told_once_by_the_arm_that_knows_most() -> None:
    found = view(arm_drift(400, 30, arm="control"), arm_drift(2000, 30), arm_drift(0, arm="challenger"))
    assert found.state == "drifted"
    moved = [(arm.arm, one.feature) for arm, one in found.moved]
    assert {("champion", "passenger.age"), ("control", "passenger.age")} <= set(moved)
    most = next(one for one in found.arms[1].found.features if one.feature == "passenger.age")
    assert found.detail.startswith(most.detail.rstrip("."))
    assert found.detail.count("passenger.age") == 1
    assert "passenger.port" not in found.detail


async def test_it_is_kept(redis: Redis) -> None:
    nothing = await read_drift(redis, "digits")
    assert (nothing.state, nothing.arms) == ("too_few", [])
    assert "no worker has looked yet" in nothing.detail
    found = view(arm_drift(600, 30))
    await keep_drift(redis, found)
    assert await read_drift(redis, "digits") == found
    assert KEPT_S - 5 < await redis.ttl(Keys("digits").drift_report) <= KEPT_S


def test_what_is_expected_is_said_with_what_it_rests_on() -> None:
    predicted = PredictedAccuracy(
        feature="passenger.age", before=0.9, estimate=0.7, low=0.6, high=0.8, reviewed=0, unknown=0.1
    )
    assert describe_predicted(predicted) == (
        "expected to be right on 70.0 % of these rows (95 %: 60.0 to 80.0 %; 90.0 % in the evaluation), "
        "by passenger.age of the evaluation"
    )
    fields = {name: getattr(predicted, name) for name in predicted.__struct_fields__}
    unknown = PredictedAccuracy(**fields | {"reviewed": 12, "unknown": 0.8})
    assert describe_predicted(unknown) == (
        "by passenger.age of 12 reviewed rows and of the evaluation, nothing is known of 80 % of these rows: "
        "have some of them reviewed"
    )
