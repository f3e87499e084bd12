"""``rollout gate`` and ``rollout sign`` on a model that trains in no time."""

from __future__ import annotations

import json
import re
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.cli.test_cli import run
from tests.conftest import free_port

RECIPE = """
import numpy as np
import torch

from rollout import Classification, Dataset, Labelled, Recipe, Tensor, Version


def load():
    generator = np.random.default_rng(0)

    def part(rows):
        point = generator.normal(size=(rows, 2)).astype(np.float32)
        return Labelled({"point": point}, (point[:, 0] > 0).astype(np.int64))

    return Dataset(part(100), part(200), part(400), source="made here", split="at random")


def train(x, y):
    def linear(part, seed):
        module = torch.nn.Linear(2, 2)
        with torch.no_grad():
            direction = torch.tensor([x, y + 0.01 * seed])
            module.weight.copy_(torch.stack([-direction, direction]))
            module.bias.zero_()
        return module.eval()

    return linear


TASK = Classification(labels=["left", "right"], risk=0.1)
RECIPE = Recipe(
    name="sides",
    inputs={"point": Tensor(shape=(2,), dtype="float32")},
    load=load,
    versions={"v1": Version(train(5.0, 5.0), TASK, {}), "v2": Version(train(5.0, 0.0), TASK, {})},
    baselines={"always right": lambda train, inputs: np.ones(len(inputs["point"]), np.int64)},
)
"""


class Store:
    """A store with ``sides:v2``, which is not signed, and the recipe that it was built from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.models = folder / "models"
        self.private, self.public = folder / "key.pem", folder / "key.pub.pem"

    @property
    def bundle(self) -> Path:
        """The folder of the bundle."""
        return self.folder / "store" / "models" / "sides" / "v2"

    def run(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """Runs ``rollout`` on this store."""
        store = str(self.folder / "store")
        return run(self.home, *arguments, code=code, BENTOML_HOME=store, **environment)

    def gate(self, code: int = 0) -> str:
        """Runs ``rollout gate sides:v2``."""
        options = ("--against", "v1", "--models", str(self.models))
        return self.run("gate", "sides:v2", *options, code=code)

    def manifest(self) -> dict[str, Any]:
        """Reads the manifest."""
        read: dict[str, Any] = json.loads((self.bundle / "manifest.json").read_text())
        return read


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sides")
    (folder / "models" / "sides").mkdir(parents=True)
    (folder / "store").mkdir()
    (folder / "models" / "sides" / "recipe.py").write_text(textwrap.dedent(RECIPE))
    Store(folder).run("build", str(folder / "models" / "sides"), "v2")
    return folder


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Store:
    subprocess.run(["cp", "-r", built, tmp_path / "copy"], check=True)
    store = Store(tmp_path / "copy")
    write_keys(store.private, store.public)
    return store


def write_keys(private: Path, public: Path) -> None:
    key = Ed25519PrivateKey.generate()
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def test_the_gate_prints_its_decision_and_writes_it_into_the_manifest(store: Store) -> None:
    assert store.manifest()["gate"] is None
    output = store.gate()
    assert "Error rate on the evaluation part, 6 seeds of at most 8" in " ".join(output.split())
    for line in ("sides:v2", "sides:v1", "always right"):
        assert re.search(rf"^ {line} .*\d\.\d{{4}}", output, re.M)
    assert "Gate: better\nThe candidate is better: its error rate is" in output
    gate = store.manifest()["gate"]
    assert (gate["decision"], gate["against"], gate["seeds"]) == ("better", "v1", 6)
    assert gate["why"] in " ".join(output.split())
    assert gate["candidate"]["mean"] < 0.05 < gate["champion"]["mean"]
    assert "6 files match their hashes" in store.run("verify", "sides:v2"), "the bundle is still whole"


def test_the_gate_refuses_what_it_cannot_compare(store: Store) -> None:
    line = store.run("gate", "sides:v2", "--against", "v9", "--models", str(store.models), code=1)
    assert line == "rollout: sides has no version v9; it has v1, v2\n"
    assert "there is no bundle sides:v1" in store.run("gate", "sides:v1", "--against", "v2", code=1)
    assert store.manifest()["gate"] is None


def test_a_signed_bundle_is_not_gated_anymore(store: Store) -> None:
    store.run("sign", "sides:v2", "--key", str(store.private))
    before = (store.bundle / "manifest.json").read_bytes()
    line = store.gate(code=1)
    assert line == (
        "rollout: sides:v2 is signed, and its gate would change what was signed: delete "
        f"{store.bundle / 'manifest.sig'}, gate it, and sign it again\n"
    )
    assert (store.bundle / "manifest.json").read_bytes() == before


def test_what_was_signed_verifies_with_the_key_and_with_no_other(store: Store) -> None:
    unsigned = store.run("verify", "sides:v2", "--key", str(store.public), code=1)
    assert "sides:v2 is refused: it has no signature" in unsigned
    signed = store.run("sign", "sides:v2", "--key", str(store.private))
    assert signed == f"sides:v2 is signed: {store.bundle / 'manifest.sig'}\n"
    assert "files match their hashes" in store.run("verify", "sides:v2", "--key", str(store.public))
    other = store.folder / "other.pub.pem"
    write_keys(store.folder / "other.pem", other)
    assert f"was not made with the private key that belongs to {other}" in store.run(
        "verify", "sides:v2", "--key", str(other), code=1
    )
    assert "is not an Ed25519 private key" in store.run("sign", "sides:v2", "--key", str(store.public), code=1)


def test_serve_refuses_what_is_not_signed_when_it_has_a_public_key(store: Store) -> None:
    store.run("split", "set", "sides", "--champion", "v2", "--yes")
    serve = ("serve", "--port", str(free_port()))
    assert store.run(*serve, code=1, ROLLOUT_PUBLIC_KEY=str(store.public)) == (
        "rollout: sides:v2 is refused: it has no signature, and a public key is configured; "
        "`rollout sign sides:v2 --key PRIVATE_KEY` makes one\n"
    )
