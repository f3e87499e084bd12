"""Signatures: who vouches for a bundle, as an Ed25519 signature of its manifest, which holds every other hash."""

from __future__ import annotations

import base64
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from rollout.bundle import manifest
from rollout.errors import BundleError, ConfigError, StorageError
from rollout.whole_file import make_draft

FILE_NAME = manifest.SIGNATURE


def sign_bundle(folder: Path, tag: str, key: Path) -> None:
    """Signs the bundle at ``folder``; its files are taken as checked. An earlier signature is replaced.

    Args:
        folder: Where the bundle lies.
        tag: Its name and version.
        key: A private key, as ``openssl genpkey -algorithm ed25519`` makes it.

    Raises:
        ConfigError: If ``key`` is not such a file.
        BundleError: If the bundle has no manifest.
        StorageError: If the signature cannot be written.
    """
    signature = _private_key(key).sign(_manifest(folder, tag))
    draft = folder.with_name(f".{folder.name}.{FILE_NAME}")  # in the bundle, it would be one file too many
    try:
        make_draft(draft)
        draft.write_bytes(base64.b64encode(signature) + b"\n")
        draft.replace(folder / FILE_NAME)
    except OSError as error:
        raise StorageError(f"{tag} cannot be signed: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)


def check_signature(folder: Path, tag: str, key: Path) -> None:
    """Refuses the bundle at ``folder`` unless its manifest is, byte for byte, what was signed.

    Args:
        folder: Where the bundle lies.
        tag: Its name and version.
        key: The signer's public key, as ``openssl pkey -pubout`` makes it.

    Raises:
        ConfigError: If ``key`` is not such a file.
        BundleError: If there is no signature, or it does not hold.
    """
    public_key = _public_key(key)
    try:
        signature = manifest.read_whole(folder / FILE_NAME)
    except FileNotFoundError:
        raise BundleError(
            f"{tag} is refused: it has no signature, and a public key is configured; "
            f"`rollout sign {tag} --key PRIVATE_KEY` makes one"
        ) from None
    try:
        public_key.verify(base64.b64decode(signature.strip(), validate=True), _manifest(folder, tag))
    except (ValueError, InvalidSignature):
        raise BundleError(
            f"{tag} is refused: its signature was not made with the private key that belongs to {key}, "
            "or its manifest was changed afterwards"
        ) from None


def _manifest(folder: Path, tag: str) -> bytes:
    try:
        return manifest.read_whole(folder / manifest.FILE_NAME)
    except FileNotFoundError:
        raise BundleError(f"{tag} is refused: {manifest.FILE_NAME} is missing") from None


def _private_key(path: Path) -> Ed25519PrivateKey:
    data = _read_key(path)
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError:
        raise ConfigError(f"{path} is encrypted; `openssl pkey -in {path} -out KEY` decrypts it") from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if isinstance(key, Ed25519PrivateKey):
        return key
    raise ConfigError(
        f"{path} is not an Ed25519 private key in PEM; `openssl genpkey -algorithm ed25519 -out KEY` makes one"
    )


def _public_key(path: Path) -> Ed25519PublicKey:
    data = _read_key(path)
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if isinstance(key, Ed25519PublicKey):
        return key
    raise ConfigError(
        f"{path} is not an Ed25519 public key in PEM; `openssl pkey -in PRIVATE_KEY -pubout -out KEY` makes one"
    )


def _read_key(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the key {path}: {error.strerror}") from None
