"""Only a bundle that the holder of the private key signed, as it is, passes."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from rollout.bundle import store
from rollout.bundle.signing import check_signature, sign_bundle
from rollout.cli.sign import sign
from rollout.errors import BundleError, ConfigError, StorageError
from tests.disks import fill, small_disk

TAG = "m:v1"
PRIVATE = (Encoding.PEM, PrivateFormat.PKCS8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"name": "m"}\n')
    return folder


def make_keys(folder: Path, name: str) -> tuple[Path, Path]:
    """Writes a new pair of keys; returns the files of the private and of the public one."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    key = Ed25519PrivateKey.generate()
    private.write_bytes(key.private_bytes(*PRIVATE, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return make_keys(tmp_path, "ours")


def assert_does_not_hold(folder: Path, public: Path) -> None:
    with pytest.raises(BundleError) as caught:
        check_signature(folder, TAG, public)
    assert caught.value.detail == (
        "m:v1 is refused: its signature was not made with the private key that belongs to "
        f"{public}, or its manifest was changed afterwards"
    )


def test_what_was_signed_passes(folder: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    sign_bundle(folder, TAG, private)
    check_signature(folder, TAG, public)
    text = (folder / "manifest.sig").read_bytes()
    assert text.endswith(b"\n")
    assert len(base64.b64decode(text)) == 64


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl on the PATH")
def test_openssl_makes_the_keys_and_checks_the_signature(folder: Path, tmp_path: Path) -> None:
    def openssl(*arguments: str | Path) -> None:
        subprocess.run(["openssl", *arguments], check=True, stdout=subprocess.DEVNULL)

    private, public, raw = tmp_path / "key.pem", tmp_path / "key.pub.pem", tmp_path / "raw"
    openssl("genpkey", "-algorithm", "ed25519", "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    sign_bundle(folder, TAG, private)
    check_signature(folder, TAG, public)
    raw.write_bytes(base64.b64decode((folder / "manifest.sig").read_bytes()))
    check = ("-verify", "-pubin", "-inkey", public, "-rawin", "-sigfile", raw)
    openssl("pkeyutl", *check, "-in", folder / "manifest.json")


def test_the_key_of_somebody_else_is_refused(folder: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    sign_bundle(folder, TAG, make_keys(tmp_path, "theirs")[0])
    assert_does_not_hold(folder, public)
    sign_bundle(folder, TAG, private)
    check_signature(folder, TAG, public)


def test_a_changed_byte_is_refused(folder: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    sign_bundle(folder, TAG, private)
    (folder / "manifest.json").write_text('{"name": "n"}\n')
    assert_does_not_hold(folder, public)


@pytest.mark.parametrize("garbage", [b"", b"\xff\x00", b"not base64", b"c2hvcnQ=\n", base64.b64encode(bytes(64))])
def test_garbage_is_refused(folder: Path, keys: tuple[Path, Path], garbage: bytes) -> None:
    (folder / "manifest.sig").write_bytes(garbage)
    assert_does_not_hold(folder, keys[1])


def test_no_signature_is_refused(folder: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(BundleError) as caught:
        check_signature(folder, TAG, keys[1])
    assert caught.value.detail == (
        "m:v1 is refused: it has no signature, and a public key is configured; "
        "`rollout sign m:v1 --key PRIVATE_KEY` makes one"
    )


def test_no_manifest_is_refused(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(BundleError, match=r"m:v1 is refused: manifest.json is missing"):
        sign_bundle(tmp_path, TAG, keys[0])


def test_each_key_has_its_use(folder: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    with pytest.raises(ConfigError, match=rf"{private} is not an Ed25519 public key in PEM; `openssl pkey"):
        check_signature(folder, TAG, private)
    with pytest.raises(ConfigError, match=rf"{public} is not an Ed25519 private key in PEM; `openssl genpkey"):
        sign_bundle(folder, TAG, public)


def test_other_keys_are_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(ConfigError, match=rf"cannot read the key {path}: No such file or directory"):
        sign_bundle(folder, TAG, path)
    with pytest.raises(ConfigError, match=rf"cannot read the key {path}: No such file or directory"):
        check_signature(folder, TAG, path)

    other = generate_private_key(SECP256R1())
    path.write_bytes(other.private_bytes(*PRIVATE, NoEncryption()))
    with pytest.raises(ConfigError, match="is not an Ed25519 private key in PEM"):
        sign_bundle(folder, TAG, path)
    path.write_bytes(other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(ConfigError, match="is not an Ed25519 public key in PEM"):
        check_signature(folder, TAG, path)

    path.write_bytes(Ed25519PrivateKey.generate().private_bytes(*PRIVATE, BestAvailableEncryption(b"x")))
    with pytest.raises(ConfigError, match=rf"{path} is encrypted; `openssl pkey -in {path} -out KEY` decrypts"):
        sign_bundle(folder, TAG, path)
    assert not (folder / "manifest.sig").exists()


def test_the_command_signs_only_an_intact_bundle(
    bundles: str, keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = keys
    copy = shutil.copytree(store.bundle_path("digits:v2"), tmp_path / "copy")
    monkeypatch.setattr(store, "bundle_path", lambda _: copy)
    command = ["digits:v2", "--key", str(private)]

    golden = copy / "golden.npz"
    packed = golden.read_bytes()
    golden.write_bytes(packed + b"x")
    with pytest.raises(BundleError, match=re.escape("golden.npz was changed after packing")):
        CliRunner().invoke(sign, command, catch_exceptions=False)
    assert not (copy / "manifest.sig").exists()

    golden.write_bytes(packed)
    result = CliRunner().invoke(sign, command, catch_exceptions=False)
    assert result.output == f"digits:v2 is signed: {copy / 'manifest.sig'}\n"
    check_signature(copy, "digits:v2", public)


def test_a_full_disk_leaves_the_signature_that_there_was(tmp_path: Path) -> None:
    private, public = make_keys(tmp_path, "ours")
    with small_disk(tmp_path / "disk", "1m") as disk:
        folder = disk / "bundle"
        folder.mkdir()
        (folder / "manifest.json").write_text("{}")
        sign_bundle(folder, TAG, private)
        taken = fill(disk)
        with pytest.raises(StorageError, match=f"{TAG} cannot be signed: No space left on device"):
            sign_bundle(folder, TAG, private)
        check_signature(folder, TAG, public)
        (folder / "manifest.sig").unlink()
        fill(disk)
        with pytest.raises(StorageError):
            sign_bundle(folder, TAG, private)
        assert {*disk.rglob("*")} == {folder, folder / "manifest.json", taken}
