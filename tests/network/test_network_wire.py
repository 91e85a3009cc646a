"""Messages survive the way there and back; whatever else arrives is a BadMessage, quickly and in little memory."""

from __future__ import annotations

import contextlib
import random
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braintorrent.errors import BadMessage
from braintorrent.network import limits, wire
from braintorrent.network.address import Address, parse_address
from braintorrent.protocol.messages import PHASES, Announcement, AskMessage, TellMessage
from braintorrent.protocol.version import MAX_FIELD, Version
from braintorrent.records import (
    Artifact,
    Identity,
    Parent,
    Record,
    decode_record,
    encode_record,
    open_announcement,
    peer_id,
    sign_announcement,
)
from braintorrent.records.canonical import pack, unpack
from braintorrent.records.content import content_digest

ME = Identity.create()
IDS = [peer_id(bytes([i]) * 32) for i in range(256)]
HEX = "0123456789abcdef" * 4

counts = st.integers(0, MAX_FIELD)
versions = st.builds(Version, counts, counts)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
addresses = st.lists(st.builds(lambda p: f"192.0.2.7:{p}", st.integers(1, 65535)), max_size=3).map(tuple)
announcements = st.builds(
    lambda incarnation, counter, seconds, final: sign_announcement(
        ME,
        Announcement(
            "fed-1", ME.id, Version(incarnation, counter), HEX, 20, 12, seconds, HEX, HEX, 300, final
        ),
    ),
    st.integers(1, MAX_FIELD), st.integers(1, MAX_FIELD), st.floats(0, 1e12), st.booleans(),
)  # fmt: skip
hellos = st.builds(
    wire.Hello, st.text("abc-Ä é", max_size=64), st.just("fed-1"),
    st.tuples(st.integers(1, 3), st.integers(3, 9)), st.just(("safetensors", "int8")),
    st.dictionaries(
        st.text("abc.", min_size=1, max_size=9),
        st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=64), max_size=5,
    ), counts, addresses,
)  # fmt: skip
asks = st.builds(
    AskMessage, st.none() | announcements, st.dictionaries(st.sampled_from(IDS), versions, max_size=6),
    st.sampled_from([(0, 1), (3, 16)]), st.sampled_from(PHASES),
)  # fmt: skip
tells = st.builds(
    TellMessage, st.lists(announcements, max_size=3).map(tuple), st.sampled_from(PHASES), st.booleans(),
    st.dictionaries(st.sampled_from(IDS), addresses, max_size=3), st.lists(digests, max_size=3).map(tuple),
)  # fmt: skip


@given(hellos, asks, tells)
def test_messages_come_back_as_they_were(hello, ask, tell):
    assert wire.decode_hello(wire.encode_hello(hello)) == hello
    assert wire.decode_ask(wire.encode_ask(ask), ME.id) == ask
    told = wire.decode_tell(wire.encode_tell(tell))
    assert told == tell
    assert [a.raw for a in told.announcements] == [a.raw for a in tell.announcements]


@pytest.mark.parametrize(("sent", "due"), [(1, 2), (2, 1), (2, 2)])
def test_what_is_asked_and_told_is_of_the_protocol_agreed_on(sent, due):
    ask, tell = AskMessage(None, {}), TellMessage()
    for data, decode, message in (
        (wire.encode_ask(ask, sent), lambda data: wire.decode_ask(data, ME.id, due), ask),
        (wire.encode_tell(tell, sent), lambda data: wire.decode_tell(data, due), tell),
    ):
        if sent == due:
            assert decode(data) == message
            continue
        with pytest.raises(BadMessage, match=f"of protocol {sent}, where {due} was due") as caught:
            decode(data)
        assert caught.value.reason == "protocol"


def announcement(counter=1):
    return sign_announcement(
        ME, Announcement("fed-1", ME.id, Version(7, counter), HEX, 20, 12, 3.5, HEX, HEX, 300, False)
    )


def largest():
    """The largest messages that honest peers send."""
    record = Record(
        parents=tuple(Parent(author=a, incarnation=MAX_FIELD, counter=9, content=HEX, weight=0.5) for a in IDS),
        artifacts=(
            Artifact(
                kind="weights",
                codec="safetensors",
                size=200 << 20,
                digest=content_digest((HEX,) * 200),
                chunks=(HEX,) * 200,
            ),
        ),
        metrics=(("dice", 0.5),),
    )
    where = tuple(str(Address("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 65535)) for _ in range(limits.ADDRESSES_EACH))
    key, value = "k" * (limits.AGREEMENT_KEY_CHARS - 4), '"' * limits.AGREEMENT_VALUE_CHARS
    agreement = {f"{key}.{i:03}": value for i in range(limits.AGREEMENT_KEYS)}
    told = tuple(announcement(i) for i in range(1, 33))
    return {
        "hello": wire.encode_hello(wire.Hello("lab", "fed-1", agreement=agreement, addresses=where)),
        "ask": wire.encode_ask(AskMessage(announcement(), {a: Version(MAX_FIELD, MAX_FIELD) for a in IDS})),
        "tell": wire.encode_tell(TellMessage(told, addresses=dict.fromkeys(IDS[:64], where), wants=(HEX,) * 64)),
        "record": encode_record(record),
    }


def small():
    """Small messages, so that a mutation has a good chance to hit something of meaning."""
    artifact = Artifact(
        kind="weights", codec="safetensors", size=3 << 20, digest=content_digest((HEX,) * 3), chunks=(HEX,) * 3
    )
    parent = Parent(author=ME.id, incarnation=7, counter=1, content=HEX, weight=1.0)
    hello = wire.Hello("lab", "fed-1", agreement={"task.kind": '"standin"', "start.seed": "1"}, addresses=("a:1",))
    return {
        "hello": wire.encode_hello(hello),
        "ask": wire.encode_ask(AskMessage(announcement(), {ME.id: Version(7, 1), IDS[1]: Version(1, 2)})),
        "tell": wire.encode_tell(TellMessage((announcement(),), "final", True, {IDS[1]: ("a:1",)}, (HEX,))),
        "error": wire.encode_error("roster", "not on the roster"),
        "record": encode_record(Record(parents=(parent,), artifacts=(artifact,), metrics=(("dice", 0.5),))),
        "announcement": announcement().raw,
    }


DECODE = {
    "hello": wire.decode_hello,
    "ask": lambda data: wire.decode_ask(data, ME.id),
    "tell": wire.decode_tell,
    "error": wire.decode_error,
    "record": decode_record,
    "announcement": open_announcement,
}


def test_the_largest_honest_messages_fit():
    for what, data in largest().items():
        DECODE[what](data)


# ------------------------------------------------------------- fuzzing

ODD = [None, True, -1, 0, 1, 2**53, 2**64 - 1, -(2**63), 1.5, float("nan"), float("inf"), "", "a", "\x1b[2J", "a" * 300,
       "\u202e", b"", b"\0" * 70, [], [[]], [[[[[[]]]]]], list(range(40))]  # fmt: skip


def flip(rng, data, _):
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def splice(rng, data, other):
    i, j = rng.randrange(len(data)), rng.randrange(len(other))
    return data[:i] + other[j : j + rng.randrange(80)] + data[i + rng.randrange(80) :]


def truncate(rng, data, _):
    return data[: rng.randrange(len(data))]


def bomb(rng, data, _):
    """A length that promises far more than comes, possibly nested."""
    at = rng.randrange(len(data))
    head = rng.choice([b"\xdd", b"\xdb", b"\xc6", b"\xdf", b"\xc9"]) + rng.choice([b"\xff" * 4, b"\x00\x3f\xff\xff"])
    return data[:at] + head * rng.choice([1, 1, 300]) + data[at:]


def deform(rng, data, other):
    """Sound msgpack with one value replaced: gets past the shape, to the fields."""
    value, donor = unpack(data, 1 << 20), unpack(other, 1 << 20)
    place = value
    while True:
        at = rng.randrange(len(place))
        if not isinstance(place[at], list) or not place[at] or rng.random() < 0.2:
            break
        place = place[at]
    place[at] = rng.choice([*ODD, *donor])
    if rng.random() < 0.2:
        rng.choice([place.pop, lambda: place.append(rng.choice(ODD)), place.reverse])()
    return pack(value)


def test_a_hundred_thousand_mutated_messages():
    rng = random.Random(20240529)
    seeds = small()
    names, outcomes, details, started = list(seeds), {"value": 0, "refused": 0}, set(), time.monotonic()
    for _ in range(100_000):
        name, other = rng.choice(names), rng.choice(names)
        mutate = rng.choice([flip, splice, truncate, bomb, deform, deform])
        data = mutate(rng, seeds[name], seeds[other])
        try:
            DECODE[name](data)
            outcomes["value"] += 1
        except BadMessage as error:
            details.add(error.detail)
            outcomes["refused"] += 1
    assert all(len(detail) < 200 and detail.isprintable() for detail in details)
    assert outcomes["refused"] > 80_000
    assert outcomes["value"] > 100  # some mutations are harmless, or the decoders would refuse everything
    assert time.monotonic() - started < 60


MSGPACK_BUFFER = 512 << 10  # what its packer takes, whatever it packs


def hostile(cap):
    """Bytes within `cap` that cost the most memory for their size."""
    yield b"\xdd\x00\x3f\xff\xff" * 1000  # lists of 4 million, nested
    yield b"\x91" * min(cap, 100_000)  # deep
    yield b"\xdd" + (cap - 5).to_bytes(4, "big") + b"\x90" * (cap - 5)  # empty lists
    yield b"\xdd" + ((cap - 5) // 2).to_bytes(4, "big") + b"\x91\x90" * ((cap - 5) // 2)
    yield b"\xdd" + ((cap - 5) // 3).to_bytes(4, "big") + b"\xcd\xff\xff" * ((cap - 5) // 3)
    yield b"\xdb" + (cap - 5).to_bytes(4, "big") + b"a" * (cap - 5)
    yield b"\x94\x01" + b"\xdb" + (cap - 8).to_bytes(4, "big") + b"a" * (cap - 8) + b"\x90"
    yield b"\xdf\xff\xff\xff\xff" * 100
    yield bytes(cap + 1)


@pytest.mark.parametrize(
    ("what", "cap"),
    [("hello", limits.HELLO_BYTES), ("ask", limits.ASK_BYTES), ("tell", limits.TELL_BYTES),
     ("error", limits.ERROR_BYTES), ("announcement", 1024), ("record", 4 << 20)],
)  # fmt: skip
def test_hostile_bytes_cost_a_bounded_amount_of_memory(what, cap):
    for data in hostile(cap):
        tracemalloc.start()
        try:
            with pytest.raises(BadMessage):
                DECODE[what](data)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < MSGPACK_BUFFER + min(80 * cap, 16 << 20), data[:10]


@given(st.binary(max_size=300))
def test_any_bytes_at_all(data):
    for decode in DECODE.values():
        with contextlib.suppress(BadMessage):
            decode(data)


# ------------------------------------------------------------- what is refused, by name


def replaced(what, index, value):
    values = unpack(small()[what], 1 << 20)
    values[index] = value
    return pack(values)


@pytest.mark.parametrize(
    ("what", "index", "value"),
    [
        ("hello", 0, 2), ("hello", 0, True), ("hello", 1, "x" * 300), ("hello", 2, "Fed 1"), ("hello", 3, [2, 1]),
        ("hello", 3, [0, 1]), ("hello", 4, ["a b"]), ("hello", 4, ["x"] * 17), ("hello", 5, [["a", ""]]),
        ("hello", 5, [["a", "0" * 65]]), ("hello", 5, [["a", "\x1b[2J"]]), ("hello", 5, [["a", "1\n"]]),
        ("hello", 5, [["a", "\x9b2J"]]), ("hello", 5, [["a", "\u202e"]]), ("hello", 5, [["a b", "1"]]),
        ("hello", 5, [["a", 1]]), ("hello", 5, [["a" * 129, "1"]]),
        ("hello", 5, [[f"{n:03}", "1"] for n in range(513)]),
        ("hello", 5, [["b", "0" * 16], ["a", "0" * 16]]), ("hello", 5, [["a", "0" * 16]] * 2), ("hello", 6, -1),
        ("hello", 6, 1.0), ("hello", 7, ["a:0"]), ("hello", 7, ["a/b:1"]), ("hello", 7, ["a:1"] * 9),
        ("ask", 1, b""), ("ask", 2, [["1" * 52, 1, 1]]), ("ask", 2, [[IDS[0], -1, 1]]),
        ("ask", 2, [[IDS[0], 1, 2**53]]), ("ask", 2, [[IDS[0], 1, 1]] * 2), ("ask", 3, [1, 1]),
        ("ask", 3, [0, 0]), ("ask", 3, [0, 2**17]), ("ask", 4, "asleep"), ("tell", 1, [announcement().raw] * 33),
        ("tell", 1, [announcement().raw[:-1] + b"x"]),
        ("tell", 2, None), ("tell", 3, 1), ("tell", 4, [[IDS[0], ["a:1"]]] * 2), ("tell", 5, ["x" * 64]),
        ("error", 1, "Not A Word"), ("error", 1, ""), ("error", 2, None),
    ],
)  # fmt: skip
def test_values_out_of_bounds(what, index, value):
    with pytest.raises(BadMessage):
        DECODE[what](replaced(what, index, value))


def test_an_asker_speaks_for_itself_only():
    with pytest.raises(BadMessage) as caught:
        wire.decode_ask(small()["ask"], IDS[0])
    assert caught.value.reason == "author"


def test_names_and_details_are_safe_to_print():
    hello = wire.decode_hello(replaced("hello", 1, "\x1b[31mlab\u202e\n" + "a" * 100))
    assert hello.name == "[31mlab" + "a" * (limits.NAME_CHARS - 7)
    assert wire.decode_error(wire.encode_error("closing", "a\nb\x07" + "c" * 999))[1] == "ab" + "c" * 298
    assert len(wire.encode_error("x" * 32, "\U0001f9e0" * 999)) <= limits.ERROR_BYTES


def test_encoding_refuses_what_the_other_side_would_refuse():
    for hello in (
        wire.Hello("lab", "Fed 1"),
        wire.Hello("lab", "fed-1", addresses=("0.0.0.0:0",)),
        wire.Hello("lab", "fed-1", agreement={"a": "\x1b"}),
    ):
        with pytest.raises(ValueError, match="_Hello"):
            wire.encode_hello(hello)


def test_addresses():
    for text in ("127.0.0.1:1", "[::1]:65535", "lab-a.example.org:0", "[fd00::7]:47100"):
        assert str(parse_address(text)) == text
    wrong = ["", "a", ":1", "a:", "a:65536", "::1:1", "[::1]", "[1.2.3.4]:1", "a b:1", "a:1 ", "a:-1", "a:1\n", "é:1",
             "a" * 200 + ":1", "[:::]:1", "-a:1", "a@b:1", "a/b:1"]  # fmt: skip
    for text in wrong:
        with pytest.raises(ValueError):  # noqa: PT011
            parse_address(text)


def test_a_record_of_the_largest_model_is_read_quickly():
    artifact = Artifact(
        kind="weights", codec="safetensors", size=32 << 30, digest=content_digest((HEX,) * 32768), chunks=(HEX,) * 32768
    )
    data = encode_record(Record(parents=(), artifacts=(artifact,), metrics=()))
    started = time.perf_counter()
    assert len(decode_record(data).artifacts[0].chunks) == 32768
    assert time.perf_counter() - started < 1
