"""Raw rows travel with a bundle and are run again, from their bytes, wherever it is served."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import PIL.Image
import pytest

from rollout import RolloutError
from rollout.bundle import raw_examples
from rollout.bundle.golden import read_golden
from rollout.bundle.golden_run import run_golden
from rollout.bundle.manifest import Manifest, hash_files
from rollout.bundle.raw_examples import FILE_NAME, ROWS, read_raw_examples
from rollout.bundle.schema import Arrays
from rollout.bundle.store import bundle_exists, open_bundle
from rollout.bundle.variants import VARIANTS, Onnx
from rollout.bundle.verify import choose_variant, verify_bundle
from rollout.config import Settings
from rollout.heads import Scores
from rollout.inference.version import LoadedVersion
from tests.bundle.seen import answer, compare, files, pack_seen


@pytest.fixture
def bundle() -> tuple[Path, Manifest]:
    if not bundle_exists("seen:fixture"):
        pack_seen("fixture")
    return open_bundle("seen:fixture")


@pytest.fixture
def changed(bundle: tuple[Path, Manifest]) -> Iterator[Callable[[Callable[[bytes], bytes]], Manifest]]:
    """Changes the raw rows of the bundle, and its hashes to those of its files, until the test ends."""
    folder, manifest = bundle
    before = (folder / FILE_NAME).read_bytes()

    def change(how: Callable[[bytes], bytes]) -> Manifest:
        (folder / FILE_NAME).write_bytes(how(before))
        return msgspec.structs.replace(manifest, hashes=hash_files(folder))

    yield change
    (folder / FILE_NAME).write_bytes(before)


def test_every_variant_is_compared_and_the_rows_are_run_where_it_is_verified_and_served(
    bundle: tuple[Path, Manifest],
) -> None:
    folder, manifest = bundle
    assert manifest.reference is not None
    assert (manifest.reference.rows, manifest.reference.kept, manifest.reference.flipped) == (12, 12, 0)
    assert FILE_NAME in manifest.hashes
    for variant in manifest.variants.values():
        assert variant.parity["reference"].rows == 12
        assert variant.parity["reference"].answers_flipped == 0
    for found in verify_bundle(folder, manifest).values():
        assert found["reference"].rows == 12
    examples = read_raw_examples(folder, manifest)
    assert examples is not None
    assert examples.moved == []
    assert LoadedVersion("seen", "fixture", Settings()).choice.refused == {}
    run_golden(folder, manifest, ["onnx"])


def test_a_changed_row_is_refused(bundle: tuple[Path, Manifest], changed: Any) -> None:
    changed(lambda rows: rows.replace(b'"row":1', b'"row":2', 1))
    with pytest.raises(
        RolloutError, match=r"seen:fixture is refused: reference\.ndjson was changed after packing"
    ):
        open_bundle("seen:fixture")


def edited(rows: bytes, **changes: Any) -> bytes:
    first, *others = rows.splitlines()
    return b"\n".join([json.dumps(json.loads(first) | changes).encode(), *others])


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (
            lambda rows: edited(rows, scores=[0.9, 0.1]),
            "variant does not decide as the author's own pipeline: of 12",
        ),
        (lambda rows: edited(rows, scores=[1.0]), "reference.ndjson has other scores than 2 a row"),
        (
            lambda rows: edited(rows, inputs={"image": "AAAA"}),
            "does not take raw row 0 of its reference, .* /image",
        ),
        (
            lambda rows: edited(rows, inputs={}),
            "does not take raw row 0 of its reference, .* /image: is required",
        ),
        (lambda _: b"", "reference.ndjson has 0 rows, not 1 to 32"),
        (lambda rows: rows * 3, "reference.ndjson has 36 rows, not 1 to 32"),
        (lambda _: b"[]\n", "reference.ndjson holds something else than raw rows"),
        (lambda _: b"\xff\n", "reference.ndjson holds something else than raw rows"),
        (lambda _: b" " * (16 * 1024 * 1024 + 1), "reference.ndjson has more than 16,777,216 bytes"),
    ],
)
def test_rows_that_do_not_hold_are_refused_even_under_a_new_hash(
    bundle: tuple[Path, Manifest], changed: Any, how: Callable[[bytes], bytes], words: str
) -> None:
    manifest = changed(how)
    with pytest.raises(RolloutError, match=words):
        verify_bundle(bundle[0], manifest)
    with pytest.raises(RolloutError, match=words):
        choose_variant(bundle[0], manifest, read_golden(bundle[0]), ["onnx"])
    changed(how)


def test_they_are_run_in_a_process_of_their_own_too(bundle: tuple[Path, Manifest], changed: Any) -> None:
    manifest = changed(lambda rows: edited(rows, scores=[0.9, 0.1]))
    with pytest.raises(RolloutError, match="does not decide as the author's own pipeline"):
        run_golden(bundle[0], manifest, ["onnx"])


def test_another_decoder_on_the_machine_that_serves_is_found(
    bundle: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    resize = PIL.Image.Image.resize
    nearest = PIL.Image.Resampling.NEAREST
    monkeypatch.setattr(PIL.Image.Image, "resize", lambda self, size, *_: resize(self, size, nearest))
    words = (
        "does not decide as the author's own .*; image is decoded to another array here than where the bundle was"
    )
    with pytest.raises(RolloutError, match=words):
        LoadedVersion("seen", "fixture", Settings())
    with pytest.raises(RolloutError, match=words):
        verify_bundle(*bundle)


class OneOtherwise(Onnx):
    """Claims to be exact, and answers what is in a raw row differently."""

    def run(self, inputs: Arrays) -> Scores:
        scores = super().run(inputs)
        raw = np.stack([answer(row).stages["image"] for row in files(1)])
        is_raw = (inputs["image"] == raw).all((1, 2))
        return np.where(is_raw[:, None], scores[:, ::-1], scores)


def test_a_variant_that_decides_a_raw_row_otherwise_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, "onnx", OneOtherwise)
    manifest = pack_seen("v1")
    left_out = manifest.left_out["onnx"]
    assert left_out.why == (
        "it decides 1 of 12 raw rows (reference) otherwise than the author's own pipeline, where the source does not"
    )
    assert any(line.startswith("reference row 0: ") for line in left_out.worst)
    assert "torchscript" in manifest.variants


def test_no_more_rows_travel_than_a_worker_reads_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    many = files(80)
    kept = compare(rows=many).examples
    assert len(kept) == ROWS
    size = len(msgspec.json.encode(many[0]))
    monkeypatch.setattr(raw_examples, "MOST_BYTES", 2 * size * 5)
    assert 3 <= len(compare(rows=many).examples) <= 6
    monkeypatch.setattr(raw_examples, "MOST_PIXELS", 40 * 36 * 2)
    assert len(compare(rows=many).examples) == 2
    monkeypatch.setattr(raw_examples, "MOST_PIXELS", 40)
    with pytest.raises(
        RolloutError, match=r"raw row \d+ of the reference is too large to travel with the bundle"
    ):
        compare(rows=many)


def test_what_was_decided_otherwise_travels_first() -> None:
    rows = files(80)
    kept = compare(
        lambda raw: answer(raw)._replace(outputs=[-9.0, 9.0], label=None) if raw is rows[41] else answer(raw),
        rows,
        most_flipped=0.1,
        tolerance=1.0,
    ).examples
    assert 41 in [example.row for example in kept]


def test_a_bundle_without_a_reference_has_no_raw_rows() -> None:
    manifest = pack_seen("v2", reference=None)
    folder, _ = open_bundle("seen:v2")
    assert manifest.reference is None
    assert read_raw_examples(folder, manifest) is None
    assert not (folder / FILE_NAME).exists()
    assert all(set(found) == {"golden"} for found in verify_bundle(folder, manifest).values())
