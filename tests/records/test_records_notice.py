"""Notices as bytes: what is signed comes back, what anyone changed does not."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from braintorrent.errors import BadMessage
from braintorrent.network.limits import CERTIFICATE_BYTES
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.notices import MAX_ROTATIONS
from braintorrent.protocol.version import MAX_FIELD, Version
from braintorrent.records import Identity, digest, sign_announcement
from braintorrent.records.canonical import pack, unpack
from braintorrent.records.envelope import sign_envelope
from braintorrent.records.notice import (
    CONTEXT,
    FORMAT,
    Introduction,
    Revocation,
    encode_chain,
    open_chain,
    open_notice,
    prove,
    rotation,
    sign_notice,
)

A, B, C = (Identity.create() for _ in range(3))


def version(content, counter=1, author=A):
    return sign_announcement(author, Announcement(
        "fed-eration", author.id, Version(5, counter), digest(content), 1, 1, 1.0, "0" * 64, "1" * 64, 9, False,
    ))  # fmt: skip


NOTICES = {
    "introduction": sign_notice(A, Introduction("fed-eration", A.id, C.id, "lab-c", ("10.0.0.1:4", "[fd00::7]:5"), 7)),
    "revocation": sign_notice(A, Revocation("fed-eration", A.id, C.id, "lab-c", "Schlüssel verloren", 8)),
    "rotation": rotation(A, B, "fed-eration", 9),
    "proof": prove(version(b"one"), version(b"two")),
}


@pytest.mark.parametrize("kind", NOTICES)
def test_what_was_signed_comes_back(kind):
    notice = NOTICES[kind]
    assert open_notice(notice.raw) == notice
    assert notice.author == A.id
    assert len(notice.raw) <= 1024


@pytest.mark.parametrize("kind", NOTICES)
def test_no_byte_can_be_changed(kind):
    raw = NOTICES[kind].raw
    for at in range(len(raw)):
        with pytest.raises(BadMessage):
            open_notice(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])


def test_the_longest_announcements_make_a_proof_that_fits():
    longest = Announcement(
        "f" * 64, A.id, Version(2**53 - 1, 2**53 - 1), digest(b"one"), 10**12, 10**12, 1e12, "0" * 64, "1" * 64,
        4 << 20, True,
    )  # fmt: skip
    both = (sign_announcement(A, replace(longest, content=digest(content))) for content in (b"one", b"two"))
    assert len(prove(*both).raw) <= 1024


@pytest.mark.parametrize(
    "values",
    [
        ["introduction", "fed-eration", A.id, "lab-a", [], 7],
        ["introduction", "fed-eration", "not-an-id", "lab-c", [], 7],
        ["introduction", "fed-eration", C.id, "../lab", [], 7],
        ["introduction", "fed-eration", C.id, "lab-c", ["10.0.0.1:1"] * 5, 7],
        ["introduction", "fed-eration", C.id, "lab-c", ["10.0.0.1 :1"], 7],
        ["introduction", "fed-eration", C.id, "lab-c", [], -1],
        ["introduction", "fed-eration", C.id, "lab-c", [], True],
        ["introduction", "fed-eration", C.id, "lab-c", []],
        ["revocation", "fed-eration", C.id, "lab-c", "\x1b[2Jgone", 7],
        ["revocation", "fed-eration", C.id, "lab-c", "w" * 121, 7],
        ["revocation", "FED", C.id, "lab-c", "", 7],
        ["rotation", "fed-eration", B.public_key, 9, B.sign(b"something else")],
        ["promotion", "fed-eration", C.id],
        [],
        [["introduction"]],
    ],
)
def test_what_is_signed_but_out_of_bounds_is_refused(values):
    with pytest.raises(BadMessage):
        open_notice(sign_envelope(A, FORMAT, CONTEXT, values))


def test_nobody_takes_over_a_key_that_is_not_theirs():
    stolen = unpack(NOTICES["rotation"].raw, 1024)[2]
    values = unpack(stolen, 1024)
    with pytest.raises(BadMessage, match="does not verify"):
        open_notice(sign_envelope(C, FORMAT, CONTEXT, values))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (version(b"one"), version(b"one")), (version(b"one"), version(b"two", counter=2)),
        (version(b"one"), version(b"two", author=B)),
    ],
)  # fmt: skip
def test_a_proof_must_prove(first, second):
    pair = sorted((first.raw, second.raw))
    with pytest.raises(BadMessage):
        open_notice(pack([FORMAT, *pair]))
    with pytest.raises(ValueError, match="proof"):
        prove(first, second)


def test_only_the_author_signs():
    with pytest.raises(ValueError, match="by its author"):
        sign_notice(B, Introduction("fed-eration", A.id, C.id, "lab-c", (), 7))


def test_a_chain_of_keys_is_shown_in_order_and_nothing_else_is_one():
    keys = [Identity.create() for _ in range(MAX_ROTATIONS + 2)]
    links = [rotation(one, other, "f" * 64, MAX_FIELD) for one, other in pairwise(keys)]
    chain = links[:MAX_ROTATIONS]
    shown = encode_chain(chain)
    assert open_chain(shown) == chain
    assert 322 + len(shown) <= CERTIFICATE_BYTES
    assert encode_chain([]) == b""
    introduced = sign_notice(keys[0], Introduction("fed", keys[0].id, keys[1].id, "lab-b", (), 1))
    for wrong in (links, links[:1] * 2, links[1::-1], [introduced]):
        with pytest.raises(BadMessage):
            open_chain(pack([link.raw for link in wrong]))
    for wrong in ([], [1], "text", [b""]):
        with pytest.raises(BadMessage):
            open_chain(pack(wrong))
