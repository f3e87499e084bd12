"""A bundle from elsewhere runs no code: only what was packed here, or signed, may do more than compute."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper
from packaging.requirements import Requirement

from rollout.bundle import store
from rollout.bundle.exchange import Pull
from rollout.bundle.golden import read_golden
from rollout.bundle.manifest import Manifest
from rollout.bundle.signing import sign_bundle
from rollout.bundle.store import open_bundle, was_packed_here
from rollout.bundle.variants import VARIANTS, is_confined
from rollout.bundle.verify import choose_variant, load_variant, verify_bundle
from rollout.cli.explain import explain
from rollout.config import Settings, load_settings
from rollout.cost import measure_speeds
from rollout.errors import BundleError
from rollout.inference.version import LoadedVersion
from rollout.job.plan import prepare
from tests.bundle.test_exchange import TAG, edit, repack, take
from tests.bundle.test_signing import make_keys
from tests.bundle.two import Linear, pack_two
from tests.conftest import ROOT

CODE = {name for name, kind in VARIANTS.items() if kind.can_run_code}
# What onnxruntime notes of a tensor that is in memory; the offset would be any address.
MEMORY = "*/_ORT_MEM_ADDR_/*"
NOT_LOADED = "the torchscript variant is not loaded: that can run code"


class Writes(torch.nn.Module):
    """Makes a file when it is run, which TorchScript may do.

    Args:
        file: The file.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = str(file)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file(self.file, shared=True, size=1)


@pytest.fixture
def evil(there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is there makes this file if its TorchScript is run; its hashes hold. The store here is empty."""
    file = tmp_path / "written-by-the-bundle"

    def plant(folder: Path) -> None:
        torch.jit.save(torch.jit.script(Writes(file)), str(folder / "torchscript" / "model.pt"))
        edit(folder, hashes=True)

    repack(there, plant)
    (tmp_path / "elsewhere" / "models").mkdir(parents=True)
    monkeypatch.setattr(store, "_models", lambda: tmp_path / "elsewhere" / "models")
    return file


def opened() -> tuple[Path, Manifest]:
    return open_bundle(TAG)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_nothing_but_onnx_is_loaded_of_a_bundle_that_nobody_vouches_for(there: Path, evil: Path) -> None:
    (said,) = take(Pull(str(there)))
    assert said.startswith(
        "two:sent is here: onnx, onnx-int8 agree with its golden examples; not run here: torch"
    )
    folder, manifest = opened()
    assert not was_packed_here(manifest)
    golden = read_golden(folder)
    assert verify_bundle(folder, manifest).keys() == manifest.variants.keys() - CODE
    speeds = measure_speeds(folder, manifest, 0)
    assert {point.variant for point in speeds.points} == manifest.variants.keys() - CODE
    assert NOT_LOADED in speeds.not_measured["torchscript on cpu"]
    for name in CODE & manifest.variants.keys():
        with pytest.raises(BundleError, match="is not loaded"):
            load_variant(folder, manifest, name)
    with pytest.raises(BundleError, match=NOT_LOADED):
        choose_variant(folder, manifest, golden, ["torchscript"])
    assert not evil.exists()
    # It would have run: whoever says --trust gets what they ask for.
    with pytest.raises(BundleError):
        choose_variant(folder, manifest, golden, ["torchscript"], is_trusted=True)
    assert evil.exists()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_workers_jobs_and_explanations_load_what_the_settings_allow(
    there: Path, evil: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(Pull(str(there)))
    with pytest.raises(BundleError, match=NOT_LOADED):
        LoadedVersion("two", "sent", Settings(home=tmp_path, variant="torchscript"))
    with pytest.raises(BundleError, match=NOT_LOADED):
        prepare(TAG, ["client_id", "x"], {"variant": "torchscript"})
    asked = [TAG, '{"x": [1, 2]}', "--variant", "torchscript"]
    assert NOT_LOADED in str(CliRunner().invoke(explain, asked).exception)
    key = make_keys(tmp_path, "ours")[1]
    with pytest.raises(BundleError, match="it has no signature"):
        LoadedVersion("two", "sent", Settings(home=tmp_path, public_key=key))
    monkeypatch.setenv("ROLLOUT_PUBLIC_KEY", str(key))
    with pytest.raises(BundleError, match="it has no signature"):
        prepare(TAG, ["client_id", "x"], {})
    assert "it has no signature" in str(CliRunner().invoke(explain, asked).exception)
    assert not evil.exists()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_bundle_of_torchscript_alone_is_left_out_and_says_what_would_take_it(there: Path, evil: Path) -> None:
    def leave_torchscript(folder: Path) -> None:
        for name in ("onnx", "onnx-int8", "export"):
            shutil.rmtree(folder / name)
        variants = json.loads((folder / "manifest.json").read_text())["variants"]
        edit(folder, hashes=True, variants={"torchscript": variants["torchscript"]})

    repack(there, leave_torchscript)
    (said,) = take(Pull(str(there)))
    assert "none of its variants can be run here: torchscript; those that can run code take a signature" in said
    assert not evil.exists()


def test_a_signature_that_the_settings_name_vouches(there: Path, tmp_path: Path) -> None:
    private, public = make_keys(tmp_path, "ours")
    repack(there, lambda folder: sign_bundle(folder, TAG, private))
    assert load_settings({"ROLLOUT_PUBLIC_KEY": str(public)}).trusts_bundles
    (tmp_path / "empty" / "models").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_models", lambda: tmp_path / "empty" / "models")
        (said,) = take(Pull(str(there), public))
        assert "onnx, onnx-int8, torchscript agree" in said
        folder, manifest = open_bundle(TAG, public)
        assert verify_bundle(folder, manifest, is_trusted=True).keys() == manifest.variants.keys()


def test_what_was_packed_here_is_known_by_its_content(sent: Path) -> None:
    folder, manifest = opened()
    assert was_packed_here(manifest)
    assert verify_bundle(folder, manifest).keys() == manifest.variants.keys()


def test_what_packing_returns_is_what_is_read_again() -> None:
    manifest = pack_two("told", lineage={"of": ("a", "tuple")})
    assert manifest == open_bundle("two:told")[1]
    assert was_packed_here(manifest)


def test_what_is_in_the_store_is_known_although_packing_was_killed_then(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    place_bundle = store.place_bundle
    monkeypatch.setattr(store, "place_bundle", lambda *given: kill(place_bundle(*given)))
    with pytest.raises(KeyboardInterrupt):
        pack_two("killed", Linear().eval())
    assert was_packed_here(open_bundle("two:killed")[1])


def test_only_what_computes_is_exempt() -> None:
    scripts = {"torchscript", "torchscript-fp16", "torchscript-bf16"}
    assert scripts | {"export"} == CODE, "a new variant can run code unless it says that it cannot"


def test_what_onnxruntime_has_of_its_own_is_not_read_in_the_place_of_onnx(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [made])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    onnxruntime.InferenceSession(tmp_path / "model.onnx", options)
    VARIANTS["onnx"](tmp_path / "model.onnx")
    with pytest.raises(Exception, match="Protobuf parsing failed"):
        VARIANTS["onnx"](tmp_path / "model.ort")


@pytest.mark.parametrize("place", ["initializer", "constant", "branch", "constant of a branch", "function"])
@pytest.mark.parametrize("location", ["../outside.bin", "{}/outside.bin", "link.bin", MEMORY, "inside.bin"])
def test_onnx_takes_external_data_from_within_the_bundle_only(tmp_path: Path, location: str, place: str) -> None:
    """What onnxruntime sees to, wherever in a graph a tensor may stand."""
    folder = tmp_path / "onnx"
    folder.mkdir()
    for file in (folder / "inside.bin", tmp_path / "outside.bin"):
        file.write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location.format(tmp_path))
    weight.external_data.add(key="offset", value="0")
    weight.external_data.add(key="length", value="16")
    (folder / "model.onnx").write_bytes(adding(weight, place).SerializeToString())
    if location == "inside.bin":
        session = onnxruntime.InferenceSession(folder / "model.onnx")
        x, yes = np.ones(4, np.float32), np.array(True)
        assert session.run(None, {"x": x, "yes": yes})[0].tolist() == [1, 2, 3, 4]
        return
    refusals = "escapes|[Aa]bsolute path|outside the directory|symbolic link|in-memory address|not regular file"
    with pytest.raises(Exception, match=re.compile(refusals)):
        onnxruntime.InferenceSession(folder / "model.onnx")


@pytest.mark.parametrize("place", ["sparse", "sparse constant"])
@pytest.mark.parametrize("location", ["../outside.bin", "{}/outside.bin", MEMORY])
def test_no_sparse_tensor_is_anything_but_the_bundle_s(tmp_path: Path, location: str, place: str) -> None:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    outside = np.arange(4, dtype=np.float32)
    outside.tofile(tmp_path / "outside.bin")
    weight.external_data.add(key="location", value=location.format(tmp_path))
    weight.external_data.add(key="offset", value=str(outside.ctypes.data if location == MEMORY else 0))
    weight.external_data.add(key="length", value="16")
    file = tmp_path / "onnx" / "model.onnx"
    file.parent.mkdir()
    file.write_bytes(adding(weight, place).SerializeToString())
    with pytest.raises(Exception, match=re.compile("external data|in-memory address", re.IGNORECASE)):
        onnxruntime.InferenceSession(file)


def test_no_onnxruntime_is_taken_that_reads_what_is_not_the_bundle_s() -> None:
    """Of 1.26, the test above fails."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = [one for one in map(Requirement, project["dependencies"]) if one.name == "onnxruntime"]
    (least,) = wanted.specifier
    assert least.operator == ">="
    assert is_confined(least.version)
    assert is_confined(onnxruntime.__version__)
    assert not is_confined("1.26.0")
    assert not is_confined("1.9.1")
    assert is_confined("2.0.0.dev20270101")


def adding(weight: TensorProto, place: str) -> onnx.ModelProto:
    """Returns a model that adds a tensor, which stands in some place of its graph."""
    constant = helper.make_node("Constant", [], ["w"], value=weight)
    functions: list[onnx.FunctionProto] = []
    initializers: list[TensorProto] = []
    sparse: list[onnx.SparseTensorProto] = []
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    if place == "initializer":
        initializers = [weight]
    elif place == "constant":
        nodes.insert(0, constant)
    elif place.startswith("sparse"):
        at = helper.make_tensor("at", TensorProto.INT64, [4], range(4))
        held = onnx.SparseTensorProto(values=weight, indices=at, dims=[4])
        if place == "sparse":
            sparse = [held]
        else:
            nodes.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=held))
    elif place == "function":
        opsets = [helper.make_opsetid("", 17)]
        functions = [helper.make_function("own", "F", ["x"], ["y"], [constant, *nodes], opsets)]
        nodes = [helper.make_node("F", ["x"], ["y"], domain="own")]
    else:
        inner = [helper.make_node("Add", ["x", "w"], ["z"])]
        if place != "branch":
            inner.insert(0, constant)
        z = helper.make_tensor_value_info("z", TensorProto.FLOAT, [4])
        branch = helper.make_graph(inner, "branch", [], [z], [weight] if place == "branch" else [])
        nodes = [helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y"))
    yes = helper.make_tensor_value_info("yes", TensorProto.BOOL, [])
    graph = helper.make_graph(nodes, "g", [x, yes], [y], initializers, sparse_initializer=sparse)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=functions)
