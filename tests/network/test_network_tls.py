"""Certificates: a function of the key, and nothing else passes for one."""

from __future__ import annotations

import contextlib
import ssl
from datetime import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from braintorrent.errors import BadMessage
from braintorrent.network import tls
from braintorrent.records import Identity

ME = Identity.create()
MINE = tls.to_der(tls.certificate(ME))


def issue(subject=ME.id, public=None, signer=ME.key, serial=1, until=tls._UNTIL, ca=False, algorithm=None):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    builder = x509.CertificateBuilder(name, name, public or ME.key.public_key(), serial, tls._FROM, until)
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    return builder.sign(signer, algorithm).public_bytes(Encoding.DER)


def test_a_certificate_is_the_same_whenever_it_is_made():
    assert tls.certificate(ME) == tls.certificate(ME)
    assert issue() == MINE
    assert tls.certified(MINE) == ME.id


def test_only_the_certificate_that_the_key_makes_is_one():
    other = Identity.create()
    curve = ec.generate_private_key(ec.SECP256R1())
    forged = {
        "another subject, which would hide that peer's anchor": issue(subject=other.id),
        "my key, signed by another": issue(signer=other.key),
        "another serial": issue(serial=2),
        "an end": issue(until=datetime(2030, 1, 1)),
        "an authority": issue(ca=True),
        "another kind of key": issue(public=curve.public_key(), signer=curve, algorithm=hashes.SHA256()),
        "PEM": tls.certificate(ME),
        "nothing": b"",
        "a tail": MINE + b"\0",
    }
    for what, der in forged.items():
        with pytest.raises(BadMessage):
            pytest.fail(what + tls.certified(der))


@given(st.integers(0, len(MINE) - 1), st.integers(1, 255))
def test_a_certificate_with_any_byte_changed_is_none(at, flip):
    der = bytearray(MINE)
    der[at] ^= flip
    with pytest.raises(BadMessage):
        tls.certified(bytes(der))


def test_contexts_speak_tls_1_3_only_and_ask_for_certificates():
    server, client = tls.server_context(ME, [MINE]), tls.client_context(ME, MINE)
    assert server.minimum_version == client.minimum_version == ssl.TLSVersion.TLSv1_3
    assert (server.verify_mode, client.verify_mode) == (ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED)
    assert server.num_tickets == 0
    assert [c["subject"][0][0][1] for c in client.get_ca_certs()] in ([ME.id], [])  # lists CA:TRUE only
    assert client.cert_store_stats()["x509"] == server.cert_store_stats()["x509"] == 1
    tls.admit(server, MINE)
    assert server.cert_store_stats()["x509"] == 1


def test_a_connection_whose_tls_broke_shows_no_certificate():
    """A request read in the very turn in which garbage follows it is answered on such a connection."""
    server, client = tls.server_context(ME), tls.client_context(None, MINE)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    served, called = server.wrap_bio(up, down, server_side=True), client.wrap_bio(down, up)
    for side in (called, served, called, served):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    assert tls.shown_certificate(called) == MINE
    assert tls.shown_certificate(served) is None
    up.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ssl.SSLError):
        served.read()
    with pytest.raises(ConnectionError):
        tls.shown_certificate(served)
