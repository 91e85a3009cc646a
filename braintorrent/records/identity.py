"""Who a peer is: an Ed25519 key, and the peer id that is the hash of its public half (RFC 8032)."""

from __future__ import annotations

import base64
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from braintorrent.errors import BadMessage, IdentityError

PEER_ID_LENGTH = 52  # base32 of 32 bytes, no padding


def peer_id(public_key: bytes) -> str:
    """The peer id of a raw 32-byte Ed25519 public key: base32(BLAKE3(key)), 52 lower-case letters."""
    return base64.b32encode(blake3(public_key).digest()).decode().rstrip("=").lower()


def is_peer_id(text: str) -> bool:
    """Whether `text` has the form of a peer id: one spelling for each, so the bits that carry nothing are 0."""
    if len(text) != PEER_ID_LENGTH or not all(c in "abcdefghijklmnopqrstuvwxyz234567" for c in text):
        return False
    raw = base64.b32decode(text.upper() + "====")
    return base64.b32encode(raw).decode().rstrip("=").lower() == text


def short(peer: str) -> str:
    """The first seven letters of a peer id, for tables and logs."""
    return peer[:7]


@dataclass(frozen=True)
class Identity:
    """A private key and the id it proves."""

    key: Ed25519PrivateKey

    @property
    def public_key(self) -> bytes:
        """Raw public key, 32 bytes."""
        return self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def id(self) -> str:
        """This peer's id."""
        return peer_id(self.public_key)

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes."""
        return self.key.sign(message)

    @classmethod
    def create(cls) -> Identity:
        """A fresh random identity."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> Identity:
        """Read a PEM key that only its owner can read; IdentityError otherwise."""
        try:
            mode = path.stat().st_mode
            if stat.S_IMODE(mode) & 0o077:
                raise IdentityError(
                    f"{path}: the private key can be read by others (mode {stat.S_IMODE(mode):04o}); "
                    f"run: chmod 600 {path}"
                )
            key = load_pem_private_key(path.read_bytes(), password=None)
        except FileNotFoundError:
            raise IdentityError(f"{path}: no key here; run: braintorrent id {path.parent.parent}") from None
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise IdentityError(f"{path}: not a readable private key ({error})") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise IdentityError(f"{path}: not an Ed25519 key")
        return cls(key)

    def save(self, path: Path) -> None:
        """Write the key as PKCS8 PEM, readable by the owner only; never replaces a key."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        pem = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        temporary = path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, pem)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(temporary, path)  # fails if a key appeared meanwhile, where rename would replace it
        except FileExistsError:
            raise IdentityError(f"{path}: there is a key already") from None
        finally:
            temporary.unlink(missing_ok=True)


def verify(public_key: bytes, signature: bytes, message: bytes) -> None:
    """Check an Ed25519 signature; BadMessage if it does not hold."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise BadMessage("signature does not verify", reason="signature") from None
