"""Changing a split: proposals are checked against the bundles, carried out in one step, and can be taken back."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bentoml
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rollout.bundle.manifest import digest, read_manifest, write_manifest
from rollout.bundle.store import bundle_exists, bundle_path, save_bundle
from rollout.errors import InvalidSplitError, QuarantinedError, SplitConflictError, StoreUnavailableError
from rollout.heads import Classification
from rollout.judge.policy import Policy
from rollout.routing.changes import promote, ramp
from rollout.routing.control import Proposal, carry_out, propose, propose_rollback
from rollout.routing.split import Split
from rollout.routing.splits import read_history, read_quarantine, read_split
from rollout.store import Redis, client_of
from tests.cli.test_report import GATE

pytestmark = pytest.mark.usefixtures("bundles")

MODEL = "twins"
Change = Callable[[Split | None], Split]
Pack = Callable[..., str]


@pytest.fixture
def pack(bundles: str, tmp_path: Path) -> Iterator[Pack]:
    """Puts a version of ``twins``, a copy of ``digits:v1``, into the store; returns its digest."""
    packed = set()

    def build(version: str, **changes: Any) -> str:
        tag = f"{MODEL}:{version}"
        folder = tmp_path / version
        shutil.rmtree(folder, ignore_errors=True)
        source = bundle_path("digits:v1")
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("model.yaml"))
        manifest = msgspec.structs.replace(read_manifest(source), name=MODEL, version=version, **changes)
        write_manifest(folder, manifest)
        if bundle_exists(tag):
            bentoml.models.delete(tag)
        packed.add(tag)
        save_bundle(folder, manifest)
        return digest(manifest)

    yield build
    for tag in packed:
        if bundle_exists(tag):
            bentoml.models.delete(tag)


def to(champion: str = "v1", challenger: str | None = "v2", share: float = 0.1, **fields: Any) -> Change:
    experiment = f"digits-{champion}-{challenger}" if challenger else ""
    fields |= {"challenger": challenger, "share": share if challenger else 0, "experiment": experiment}
    return lambda _: Split(champion=champion, **fields)


def ramped(share: float) -> Change:
    return lambda before: ramp(before or Split(champion="v1"), share)


def promoted(before: Split | None) -> Split:
    assert before is not None
    return promote(before)


async def put(redis: Redis, change: Change, model: str = MODEL, **options: Any) -> Split:
    return await carry_out(redis, await propose(redis, model, change, **options), "ada", "a test")


async def roll_back(redis: Redis, model: str = MODEL) -> Split:
    return await carry_out(redis, await propose_rollback(redis, model), "grace", "it errs")


async def test_a_proposal_changes_nothing_and_carrying_it_out_does(redis: Redis) -> None:
    proposal = await propose(redis, "digits", to())
    assert await read_split(redis, "digits") is None
    stored = await carry_out(redis, proposal, "ada", "first look")
    assert stored == await read_split(redis, "digits")
    assert (stored.revision, stored.by, stored.why) == (1, "ada", "first look")
    manifests = {version: read_manifest(bundle_path(f"digits:{version}")) for version in ("v1", "v2")}
    assert stored.digests == {version: digest(manifest) for version, manifest in manifests.items()}


async def test_what_a_change_is_for_is_as_long_as_people_read(redis: Redis) -> None:
    """One of two megabytes, with which the console's pages took longer than a browser waits, stayed for ever."""
    proposal = await propose(redis, "digits", to())
    with pytest.raises(InvalidSplitError, match="at most 1000 characters, not 1,001"):
        await carry_out(redis, proposal, "ada", "y" * 1001)
    assert len((await carry_out(redis, proposal, "ada", "y" * 1000)).why) == 1000


async def test_a_challenger_without_a_gate_is_warned_of(redis: Redis) -> None:
    (warning,) = (await propose(redis, "digits", to())).warnings
    assert warning.startswith("digits:v2 goes on trial without a gate: `rollout gate digits:v2 --against v1`")
    await put(redis, to(), "digits")
    assert (await propose(redis, "digits", ramped(0.2))).warnings == [], "once"


@pytest.mark.parametrize("change", [to("v9", None), to("v1", "v9")], ids=["champion", "challenger"])
async def test_versions_must_exist(redis: Redis, change: Change) -> None:
    with pytest.raises(InvalidSplitError, match="there is no bundle digits:v9"):
        await propose(redis, "digits", change)


async def test_versions_must_be_whole(redis: Redis, pack: Pack) -> None:
    pack("v1")
    pack("v2", hashes={"gone.onnx": "0" * 64})
    with pytest.raises(InvalidSplitError, match=r"twins:v2 is refused: gone\.onnx is missing"):
        await propose(redis, MODEL, to())


async def test_versions_must_be_signed_where_that_is_asked(redis: Redis, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    public = Ed25519PrivateKey.generate().public_key()
    key.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(InvalidSplitError, match=r"digits:v1 is refused: it has no signature"):
        await propose(redis, "digits", to(), key=key)


async def test_a_change_of_what_is_not_there_is_refused(redis: Redis) -> None:
    with pytest.raises(InvalidSplitError, match="no challenger"):
        await propose(redis, "digits", ramped(0.1))
    with pytest.raises(InvalidSplitError, match="digits has no split"):
        await propose_rollback(redis, "digits")


async def test_the_margin_of_an_accuracy_is_a_share_and_stored_ones_are_read(redis: Redis) -> None:
    with pytest.raises(InvalidSplitError, match="the margin of an accuracy is below 1, not 2"):
        await propose(redis, "digits", to(policy=Policy(margin=2)))
    assert (await propose(redis, "digits", to(policy=Policy(metric="basket", margin=2)))).after.policy is not None
    assert msgspec.json.decode(b'{"margin": 2}', type=Policy).margin == 2


async def test_versions_with_other_labels_share_a_split_once_it_says_what_they_mean(
    redis: Redis, pack: Pack
) -> None:
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    pack("v1")
    pack("v2", task=Classification(labels=names))
    with pytest.raises(InvalidSplitError, match="has other labels than twins:v1"):
        await propose(redis, MODEL, to())
    meant = {name: str(number) for number, name in enumerate(names)}
    stored = await put(redis, to(labels={"v2": meant}))
    assert stored.labels == {"v2": meant}
    with pytest.raises(InvalidSplitError, match="has other labels"):  # also when both versions are known already
        await propose(redis, MODEL, lambda _: msgspec.structs.replace(stored, labels={}))
    with pytest.raises(InvalidSplitError, match="has no label 'ten'"):
        await propose(redis, MODEL, to(labels={"v2": meant | {"ten": "10"}}))
    assert (await put(redis, promoted)).labels == {"v2": meant}, "it keeps its names as champion"


async def test_a_change_is_based_on_a_revision(redis: Redis) -> None:
    assert (await propose(redis, "digits", to(), revision=0)).before is None
    await put(redis, to(), "digits", revision=0)
    await put(redis, ramped(0.2), "digits", revision=1)
    with pytest.raises(SplitConflictError, match="at revision 2, not 1: read it again") as caught:
        await propose(redis, "digits", ramped(0.3), revision=1)
    assert caught.value.status == 412


async def test_of_many_who_carry_out_at_once_one_wins_and_all_of_it_holds(redis: Redis) -> None:
    before = await put(redis, to(), "digits")
    proposals = [await propose(redis, "digits", ramped(0.2)) for _ in range(10)]
    proposals += [await propose_rollback(redis, "digits") for _ in range(10)]
    done = await asyncio.gather(
        *(carry_out(redis, one, f"person {number}", "now") for number, one in enumerate(proposals)),
        return_exceptions=True,
    )
    (winner,) = (one for one in done if isinstance(one, Split))
    assert all(isinstance(one, SplitConflictError) for one in done if one is not winner)
    assert await read_split(redis, "digits") == winner
    assert await read_history(redis, "digits") == [before, winner]
    assert bool(await read_quarantine(redis, "digits")) == (winner.challenger is None)


async def test_who_comes_too_late_neither_quarantines_nor_releases(redis: Redis) -> None:
    before = await put(redis, to(), "digits")
    late = await propose_rollback(redis, "digits")
    current = await put(redis, ramped(0.2), "digits")
    with pytest.raises(SplitConflictError, match="at revision 2, not 1"):
        await carry_out(redis, late, "grace", "too late")
    assert await read_quarantine(redis, "digits") == {}
    assert await read_history(redis, "digits") == [before, current]

    await roll_back(redis, "digits")
    release = await propose(redis, "digits", to(), release=True)
    await put(redis, to("v1", None), "digits")
    with pytest.raises(SplitConflictError):
        await carry_out(redis, release, "ada", "too late")
    assert [one.version for one in (await read_quarantine(redis, "digits")).values()] == ["v2"]


async def test_what_was_rolled_back_comes_back_only_if_somebody_says_so(redis: Redis) -> None:
    trial = await put(redis, to(), "digits")
    ended = await roll_back(redis, "digits")
    assert (ended.champion, ended.challenger, [*ended.digests]) == ("v1", None, ["v1"])
    (record,) = (await read_quarantine(redis, "digits")).values()
    assert (record.version, record.by, record.why, record.at) == ("v2", "grace", "it errs", ended.at)

    for change in (to(), to("v2", None)):
        with pytest.raises(QuarantinedError, match=r"v2 was rolled back by grace at .* \(it errs\); it cannot"):
            await propose(redis, "digits", change)
    proposal = await propose(redis, "digits", to(), release=True)
    assert proposal.release == (trial.digests["v2"],)
    assert len(await read_quarantine(redis, "digits")) == 1, "not before it is carried out"
    await carry_out(redis, proposal, "ada", "found the cause")
    assert await read_quarantine(redis, "digits") == {}
    await put(redis, ramped(0.3), "digits")


async def test_a_rollback_after_a_promotion_quarantines_the_champion(redis: Redis) -> None:
    await put(redis, to(), "digits")
    assert (await put(redis, promoted, "digits")).previous == "v1"
    back = await roll_back(redis, "digits")
    assert (back.champion, back.previous, back.revision) == ("v1", None, 3)
    assert [one.version for one in (await read_quarantine(redis, "digits")).values()] == ["v2"]
    with pytest.raises(InvalidSplitError, match="neither a challenger on trial nor a promotion"):
        await propose_rollback(redis, "digits")


async def test_a_version_that_was_built_anew_is_another_bundle(redis: Redis, pack: Pack) -> None:
    pack("v1")
    old = pack("v2")
    await put(redis, to())
    await roll_back(redis)
    new = pack("v2", created_at="2026-11-22T10:00:00Z")
    assert new != old
    assert (await put(redis, to())).digests["v2"] == new
    assert (await read_quarantine(redis, MODEL)).keys() == {old}


async def test_a_ramp_keeps_the_bundle_and_setting_the_split_looks_at_it_again(redis: Redis, pack: Pack) -> None:
    pack("v1")
    old = pack("v2")
    await put(redis, to())
    new = pack("v2", created_at="2026-11-22T10:00:00Z")
    assert (await propose(redis, MODEL, lambda now: ramp(now or to()(None), 0.3))).after.digests["v2"] == old
    assert (await propose(redis, MODEL, to(), renew=True)).after.digests["v2"] == new


async def test_a_gate_that_is_added_later_does_not_make_it_another_bundle(redis: Redis, pack: Pack) -> None:
    pack("v1")
    bare = pack("v2")
    await put(redis, to())
    await roll_back(redis)
    assert pack("v2", gate=GATE) == bare
    with pytest.raises(QuarantinedError):
        await propose(redis, MODEL, to())
    assert (await propose(redis, MODEL, to(), release=True)).warnings == []


async def test_a_rollback_needs_no_bundles(redis: Redis, pack: Pack) -> None:
    pack("v1")
    pack("v2")
    await put(redis, to())
    for version in ("v1", "v2"):
        bentoml.models.delete(f"{MODEL}:{version}")
    with pytest.raises(InvalidSplitError, match="there is no bundle"):
        await propose(redis, MODEL, to("v1", "v3"))
    assert (await roll_back(redis)).challenger is None


async def test_a_ramp_and_a_promotion_need_no_bundles_either(redis: Redis, pack: Pack) -> None:
    pack("v1")
    pack("v2")
    await put(redis, to())
    for version in ("v1", "v2"):
        bentoml.models.delete(f"{MODEL}:{version}")
    assert (await put(redis, ramped(0.4))).share == 0.4
    assert (await put(redis, promoted)).champion == "v2"


async def test_models_are_quarantined_apart(redis: Redis) -> None:
    await put(redis, to(), "digits")
    await roll_back(redis, "digits")
    assert await read_quarantine(redis, "languages") == {}


async def test_without_redis_nothing_is_proposed_and_nothing_carried_out() -> None:
    gone = client_of("redis://127.0.0.1:1")
    with pytest.raises(StoreUnavailableError):
        await propose(gone, "digits", to())
    with pytest.raises(StoreUnavailableError):
        await propose_rollback(gone, "digits")
    with pytest.raises(StoreUnavailableError):
        await carry_out(gone, Proposal("digits", None, Split(champion="v1"), []), "ada", "")
    await gone.aclose()
