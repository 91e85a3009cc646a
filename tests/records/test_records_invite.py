"""Invite codes: what goes in comes out, and every way of mistyping one is named."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from braintorrent.errors import ConfigError
from braintorrent.records import Identity, is_peer_id
from braintorrent.records.canonical import pack
from braintorrent.records.identity import peer_id, verify
from braintorrent.records.invite import PREFIX, Invite, _base32, _checksum, decode_invite, encode_invite, new_secret

NOW = 1_800_000_000
LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
INVITE = Invite(
    peer_id(bytes(32)), "hippocampus-9d3e51a07c42", bytes(range(16)), NOW + 60, ("192.0.2.7:47100", "[fd00::7]:47100"),
    "lab-c",
)  # fmt: skip
CODE = encode_invite(INVITE)
BODY = CODE.removeprefix(PREFIX)

invites = st.builds(
    Invite,
    peer=st.binary(min_size=32, max_size=32).map(peer_id),
    federation=st.from_regex(r"[a-z0-9-]{1,64}", fullmatch=True),
    secret=st.binary(min_size=16, max_size=16),
    expires_unix=st.integers(NOW + 1, 2**53 - 1),
    addresses=st.lists(st.sampled_from(["192.0.2.7:47100", "[fd00::7]:1", "lab.example:65535"]), max_size=8).map(tuple),
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", fullmatch=True),
)  # fmt: skip


@given(invites)
def test_what_goes_in_comes_out(invite):
    assert decode_invite(encode_invite(invite), NOW) == invite


@given(st.lists(st.integers(0, len(CODE)), max_size=6), st.booleans())
def test_line_breaks_spaces_and_capitals_are_forgiven(breaks, capitals):
    text = CODE.upper() if capitals else CODE
    for at in sorted(breaks, reverse=True):
        text = f"{text[:at]}\n {text[at:]}"
    assert decode_invite(text, NOW) == INVITE


@given(st.integers(0, len(BODY) - 1), st.sampled_from(LETTERS))
def test_another_letter_is_found(at, letter):
    assume(BODY[at] != letter)
    with pytest.raises(ConfigError, match="mistyped"):
        decode_invite(PREFIX + BODY[:at] + letter + BODY[at + 1 :], NOW)


@given(st.integers(0, len(BODY) - 1), st.integers(1, 8))
def test_two_letters_swapped_are_found(at, apart):
    other = (at + apart) % len(BODY)
    assume(BODY[at] != BODY[other])
    letters = list(BODY)
    letters[at], letters[other] = letters[other], letters[at]
    with pytest.raises(ConfigError, match="mistyped"):
        decode_invite(PREFIX + "".join(letters), NOW)


@given(st.integers(0, len(BODY) - 1), st.integers(1, 40))
def test_letters_left_out_are_found(at, count):
    with pytest.raises(ConfigError, match=r"cut|mistyped"):
        decode_invite(PREFIX + BODY[:at] + BODY[at + count :], NOW)


@given(st.integers(0, len(BODY)), st.text(LETTERS, min_size=1, max_size=40))
def test_letters_too_many_are_found(at, more):
    with pytest.raises(ConfigError, match=r"too long|cut|mistyped"):
        decode_invite(PREFIX + BODY[:at] + more + BODY[at:], NOW)


@given(st.integers(0, len(BODY) - 1), st.sampled_from("0189-_.=\x1b/é"))
def test_a_character_that_no_code_has_is_named_with_its_place(at, odd):
    with pytest.raises(ConfigError, match=f"position {at + len(PREFIX) + 1};") as caught:
        decode_invite(PREFIX + BODY[:at] + odd + BODY[at + 1 :], NOW)
    assert str(caught.value).isprintable()


@given(st.one_of(st.text(max_size=400), st.text(LETTERS + " \n", max_size=400).map(lambda text: PREFIX + text)))
def test_no_text_is_anything_but_a_clear_error(text):
    with pytest.raises(ConfigError):
        decode_invite(text, NOW)


@given(st.one_of(st.binary(max_size=300), st.lists(st.one_of(st.integers(0, 9), st.binary(max_size=33))).map(pack)))
def test_a_body_with_a_sound_checksum_and_other_fields_is_refused(body):
    payload = (7 + len(body)).to_bytes(2, "big") + body
    with pytest.raises(ConfigError, match="another release"):
        decode_invite(PREFIX + _base32(payload + _checksum(payload)), NOW)


def test_expired_says_how_long_ago_and_what_to_do():
    with pytest.raises(ConfigError, match="expired 3 hours ago; ask for a new one: braintorrent invite lab-c"):
        decode_invite(CODE, NOW + 60 + 3 * 3600)
    with pytest.raises(ConfigError, match="expired just now; ask"):
        decode_invite(CODE, INVITE.expires_unix)


def test_a_part_of_a_code_says_that_it_is_cut():
    with pytest.raises(ConfigError, match="is cut or mistyped: 50 bytes where"):
        decode_invite(CODE[: len(PREFIX) + 80], NOW)


def test_the_key_of_an_invite_follows_from_its_secret_alone():
    other = Invite(Identity.create().id, "another-federation", INVITE.secret, 1, (), "x")
    assert other.key.id == INVITE.key.id
    assert is_peer_id(INVITE.key.id)
    verify(INVITE.key.public_key, INVITE.key.sign(b"m"), b"m")
    assert len({Invite("", "", new_secret(), 0, (), "").key.id for _ in range(8)}) == 8


def test_bounds_are_kept_when_a_code_is_made():
    for wrong in ({"name": "two words"}, {"federation": "A"}, {"secret": bytes(15)}, {"addresses": ("x\x1b[0m:1",)}):
        with pytest.raises(ValueError, match="validation error"):
            encode_invite(Invite(**{**{n: getattr(INVITE, n) for n in Invite.__slots__}, **wrong}))
