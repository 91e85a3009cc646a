"""TLS 1.3 in both directions, where a peer is its key. There is no plaintext mode.

Python's ssl has no verify callback, so trust has to be put as whole certificates (trust anchors):

* A peer's certificate is a function of its key: self-signed Ed25519 (RFC 8410), subject and issuer
  CN = peer id, valid 1970 to 9999, serial 1, CA:FALSE. `certified` accepts exactly these bytes, so a
  certificate can come over any channel: nobody but the key's holder can make it or use it, and no two
  anchors share a subject (OpenSSL looks anchors up by subject; equal ones would hide each other).
* A listener asks for a certificate but does not insist (CERT_OPTIONAL): a caller that shows none can
  still introduce its certificate, which `admit` adds to the live context. A caller that shows one
  that was not admitted fails the handshake.
* A caller has one context per remote, whose only anchor is that remote's certificate.
* No session tickets: resumption would skip verification.

Whether a peer is on the roster is not decided here; the server asks at each request.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from braintorrent.errors import BadMessage
from braintorrent.records import Identity, peer_id

SIGNATURE_BYTES = 64  # Ed25519, the last bytes of a certificate
_FROM, _UNTIL = datetime(1970, 1, 1), datetime(9999, 12, 31, 23, 59, 59)


def _raw(public: Ed25519PublicKey) -> bytes:
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _issue(public: Ed25519PublicKey, signer: Ed25519PrivateKey) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, peer_id(_raw(public)))])
    builder = x509.CertificateBuilder(subject, subject, public, 1, _FROM, _UNTIL)
    return builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True).sign(signer, None)


def certificate(identity: Identity) -> bytes:
    """The peer's own certificate, PEM; the same bytes whenever it is made."""
    return _issue(identity.key.public_key(), identity.key).public_bytes(Encoding.PEM)


def to_der(pem: bytes) -> bytes:
    """DER of one PEM certificate."""
    return ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))


@lru_cache(maxsize=512)
def cut_certificate(body: bytes) -> tuple[bytes, bytes]:
    """A certificate, as long as its header says, and what follows it."""
    end = 4 + int.from_bytes(body[2:4], "big")
    return body[:end], body[end:]


@lru_cache(maxsize=512)  # a caller shows one and the same with every request
def certified(der: bytes) -> str:
    """The peer id a DER certificate stands for; BadMessage unless it is exactly what that peer's key makes."""
    # All certificates have one layout, so hostile bytes are compared with what they must be, never parsed.
    # The part that is signed does not depend on the signer: a throwaway key can write it down again.
    throwaway = Ed25519PrivateKey.generate()
    sample = _issue(throwaway.public_key(), throwaway).public_bytes(Encoding.DER)
    at = sample.index(_raw(throwaway.public_key()))
    if len(der) != len(sample):
        raise BadMessage(f"{len(der)} bytes are not a peer's certificate", reason="certificate")
    public = Ed25519PublicKey.from_public_bytes(der[at : at + 32])
    expected = _issue(public, throwaway)
    try:
        public.verify(der[-SIGNATURE_BYTES:], expected.tbs_certificate_bytes)
    except InvalidSignature:
        raise BadMessage("a certificate that its own key did not sign", reason="certificate") from None
    if der[:-SIGNATURE_BYTES] != expected.public_bytes(Encoding.DER)[:-SIGNATURE_BYTES]:
        raise BadMessage("not the certificate a peer makes of its key", reason="certificate")
    return peer_id(_raw(public))


def server_context(identity: Identity, certs: Iterable[bytes] = ()) -> ssl.SSLContext:
    """A listener's context. `certs`: DER certificates of peers that may show theirs from the start."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0
    _harden(context, identity)
    for der in certs:
        admit(context, der)
    return context


def admit(context: ssl.SSLContext, der: bytes) -> str:
    """Make a peer's certificate a trust anchor of a live context and return the peer id; BadMessage if it is none."""
    peer = certified(der)
    context.load_verify_locations(cadata=der)
    return peer


def client_context(identity: Identity | None, remote: bytes | None) -> ssl.SSLContext:
    """A caller's context for one remote, whose DER certificate is its only anchor.

    identity: None shows no certificate (to introduce oneself).
    remote: None verifies nothing; only to learn the certificate of whoever answers, and to hang up.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # a peer is its key, wherever it answers
    if remote is None:
        context.verify_mode = ssl.CERT_NONE
    else:
        admit(context, remote)
    _harden(context, identity)
    return context


def shown_certificate(connection: ssl.SSLObject | None) -> bytes | None:
    """The DER certificate the other side of an open connection showed and proved the key of, if any.

    ConnectionError if its TLS broke and nobody noticed yet.
    """
    try:
        return connection.getpeercert(binary_form=True) if connection is not None else None
    except ValueError as error:  # after a fatal alert OpenSSL says "handshake not done yet"
        raise ConnectionAbortedError("TLS broke") from error


def _harden(context: ssl.SSLContext, identity: Identity | None) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_COMPRESSION
    if identity is None:
        return
    secret = identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    # ssl reads keys from paths only; pipes keep a second copy of the key off every disk.
    pipes = [_pipe(certificate(identity)), _pipe(secret)]
    try:
        context.load_cert_chain(*(f"/dev/fd/{pipe}" for pipe in pipes))
    finally:
        for pipe in pipes:
            os.close(pipe)


def _pipe(content: bytes) -> int:
    """The reading end of a pipe that holds `content`, which must fit its buffer (at least 4 KiB)."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as sink:
        sink.write(content)
    return reading
