"""Rows of any length: what is taken, how they are padded, and that padding changes no answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from rollout import Classification, InputSchema, RolloutError, Tensor
from rollout.bundle.codec import Codec, CodecError
from rollout.bundle.columns import arguments, content, ragged
from rollout.bundle.golden import read_golden, write_golden
from rollout.bundle.parity import run_in_batches
from rollout.bundle.schema import InvalidInputsError
from rollout.bundle.store import open_bundle
from rollout.bundle.variants import VARIANTS
from rollout.bundle.verify import load_variant, verify_bundle
from rollout.cost import measure_speeds
from rollout.training.checks import row_keys
from tests.bundle.steps import FIELD, LONGEST, Masked, Recurrent, Unmasked, pack_steps, part


@pytest.fixture(scope="module", params=[Masked, Recurrent])
def packed(request: pytest.FixtureRequest) -> tuple[nn.Module, str]:
    module = request.param().eval()
    version = request.param.__name__.lower()
    parts = {name: own(module, part(300, seed)) for seed, name in enumerate(("calibration", "evaluation"))}
    pack_steps(version, module, **parts)
    return module, f"steps:{version}"


def own(module: nn.Module, rows: Any) -> Any:
    """Gives rows the answers of a module as targets, so that it is always right."""
    given = map(torch.tensor, arguments(rows.inputs).values())
    with torch.no_grad():
        return rows._replace(targets=module(*given).argmax(1).numpy())


def test_every_variant_answers_each_row_as_the_module_does_alone(packed: tuple[nn.Module, str]) -> None:
    module, tag = packed
    folder, manifest = open_bundle(tag)
    assert {name for name, kind in VARIANTS.items() if kind.is_exact} <= set(manifest.variants), manifest.left_out
    rows = part(40, 9).inputs
    rows["steps"] = np.concatenate([rows["steps"], ragged([np.ones((1, 3), np.float32)] * 2)])
    with torch.no_grad():
        alone = [module(torch.tensor(row)[None], torch.tensor([len(row)])) for row in rows["steps"]]
    assert isinstance(manifest.task, Classification)
    expected = torch.softmax(torch.cat(alone) / manifest.task.temperature, 1).numpy()
    for name, promised in manifest.variants.items():
        run = load_variant(folder, manifest, name).run
        for scores in (run(rows), run_in_batches(run, rows)):
            assert np.abs(scores - expected).max() < (1e-4 if promised.is_exact else 0.1), name
    verify_bundle(folder, manifest)
    assert {point.variant for point in measure_speeds(folder, manifest, 0.1).points} == set(manifest.variants)


def test_golden_examples_hold_the_shortest_and_the_longest_row(packed: tuple[nn.Module, str]) -> None:
    golden = read_golden(open_bundle(packed[1])[0]).inputs["steps"]
    there = [len(row) for row in part(300, 1).inputs["steps"]]
    assert {min(there), max(there)} <= {len(row) for row in golden}


def test_a_module_that_sees_the_padding_is_refused_by_name() -> None:
    with pytest.raises(RolloutError, match=r"layer head \(Linear\) answers .* how far it is padded.*lengths"):
        pack_steps("unmasked", Unmasked().eval())


@pytest.mark.parametrize("steps", [1, 2, LONGEST])
@pytest.mark.parametrize("shape", [("steps",), ("steps", 3), ("steps", 2, 2)])
def test_lists_of_every_length_are_decoded_alike_by_both_ways(shape: tuple[Any, ...], steps: int) -> None:
    field = Tensor(shape=shape, longest=LONGEST)
    row = np.random.default_rng(0).normal(size=(steps, *shape[1:])).astype(np.float32)
    for text in (json.dumps(row.tolist()), json.dumps(row.tolist(), indent=1)):
        assert np.array_equal(Codec(field).decode(text.encode())[()], row)
        assert np.array_equal(field.decode(msgspec.json.decode(text, type=field.wire_type))[()], row)


@pytest.mark.parametrize(
    ("value", "pointer", "words"),
    [
        ([], "", "length >= 1"),
        ([[1, 2, 3]] * (LONGEST + 1), "", f"length <= {LONGEST}"),
        ([[1, 2, 3], [1, 2]], "/1", "length >= 3"),
        ([1, 2, 3], "/0", "expected array"),
        ([[1, 2, "x"]], "/0/2", r"must be \(1 to 64\)×3 nested lists of numbers"),
        ([[1, 2, 1e300]], "", "finite"),
    ],
)
def test_what_does_not_fit_is_pointed_at(value: Any, pointer: str, words: str) -> None:
    with pytest.raises(CodecError, match=words) as raised:
        Codec(FIELD).decode(json.dumps(value).encode())
    assert [at for at, _ in raised.value.errors] == [pointer]


def test_fields_of_one_dimension_have_one_length_in_a_row() -> None:
    schema = InputSchema({"x": FIELD, "weight": Tensor(shape=("steps",), longest=LONGEST)})
    raw = {"x": msgspec.Raw(b"[[1,2,3],[4,5,6]]"), "weight": msgspec.Raw(b"[1,2]")}
    assert len(schema.decode(raw)["weight"][()]) == 2
    with pytest.raises(InvalidInputsError, match="/weight: has 3 steps where x has 2"):
        schema.decode(raw | {"weight": msgspec.Raw(b"[1,2,3]")})
    with pytest.raises(RolloutError, match="different bounds"):
        InputSchema({"x": FIELD, "weight": Tensor(shape=("steps",), longest=9)})
    with pytest.raises(RolloutError, match="name of the lengths of another"):
        InputSchema({"x": FIELD, "x_lengths": Tensor(shape=())})


@pytest.mark.parametrize(
    ("shape", "longest", "words"),
    [
        ((3, "steps"), 9, "only the first dimension"),
        (("steps", "more"), 9, "only the first dimension"),
        (("no name",), 9, "only the first dimension"),
        ((3,), 9, "only the first dimension"),
        (("steps",), 1, "needs longest"),
        (("steps", 0), 9, "needs longest"),
        (("steps", 1024, 1024), 9, "bytes or less"),
    ],
)
def test_a_dimension_that_has_no_sensible_bound_is_refused(shape: Any, longest: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Tensor(shape=shape, longest=longest)
    with pytest.raises(ValueError, match="needs longest"):
        Tensor(shape=("steps",))


def test_rows_are_padded_with_zeros_and_followed_by_their_lengths() -> None:
    given = arguments({"x": ragged([np.ones(1), np.ones(3)]), "y": np.ones(2)})
    assert list(given) == ["x", "x_lengths", "y"]
    assert given["x"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert given["x_lengths"].tolist() == [1, 3]
    assert arguments({"x": ragged([np.ones(1)])})["x"].shape == (1, 2)


def test_hashes_know_where_one_row_ends_and_the_next_begins() -> None:
    one, other = ragged([np.ones(1), np.ones(2)]), ragged([np.ones(2), np.ones(1)])
    assert content(one) != content(other)
    assert content(one) == content(ragged([np.ones(1), np.ones(2)]))
    assert row_keys({"x": one}, {"x": FIELD}) == row_keys({"x": other}, {"x": FIELD})[::-1]


def test_golden_examples_whose_lengths_do_not_fit_are_refused(tmp_path: Path) -> None:
    rows = np.ones((3, 3), np.float32)
    for lengths in ([1, 1], [4, -1], [3, 0], [[3]], []):
        arrays: Any = {"inputs/x": rows, "lengths/x": np.array(lengths, np.int64)}
        np.savez(tmp_path / "golden.npz", **arrays)
        with pytest.raises(RolloutError, match="golden"):
            read_golden(tmp_path)


def test_golden_examples_come_back_as_they_were(tmp_path: Path) -> None:
    golden = read_golden(open_bundle("steps:masked")[0])
    write_golden(tmp_path, golden)
    again = read_golden(tmp_path)
    assert content(again.inputs["steps"]) == content(golden.inputs["steps"])
