"""What is said: messages that are bombs, announcements that lie."""

from __future__ import annotations

from dataclasses import replace

import msgpack

from braintorrent.network import limits
from braintorrent.network.wire import PROTOCOL, encode_ask, encode_tell
from braintorrent.protocol.messages import Announcement, AskMessage, TellMessage
from braintorrent.protocol.version import MAX_FIELD, Version
from braintorrent.records import Identity, sign_announcement
from braintorrent.records.canonical import pack
from gallery import Answers, attack
from gallery.mallory import Mallory, answer, declined, request

NEWEST, HOLDS, BUCKET, PHASE = range(1, 5)  # places in an ask


def spoilt(changes: dict[int, object]) -> bytes:
    """An honest ask, but for what stands at these places."""
    fields = msgpack.unpackb(encode_ask(AskMessage(None, {})))
    for place, value in changes.items():
        fields[place] = value
    return pack(fields)


def asking(body: bytes) -> bytes:
    """An ask of these bytes."""
    return request("POST", "/v1/ask", body)


async def all_declined(mallory: Mallory, bodies: list[bytes], reason: str) -> Answers:
    """Send each as an ask; every one must be declined for this reason."""
    await mallory.hello()
    return declined([await mallory.send(asking(body)) for body in bodies], 400, reason)


@attack("claims lists, texts and bytes of gigabytes in a few bytes, and lists in lists", named="400 bad-message")
async def bomb_sizes_in_msgpack(mallory: Mallory) -> Answers:
    bombs = [
        b"\xdd\xff\xff\xff\xff", b"\x95\x01\xdd\xff\xff\xff\xff", b"\xdc\xff\xff" * 8, b"\xdd\x00\x00\x7f\xff" * 100,
        b"\x91" * 30_000, b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\x81" * 1000,
        b"\xc9\xff\xff\xff\xff\x01", b"\xdc\x7f\xff" + b"\xc0" * 32_000,
    ]  # fmt: skip
    return await all_declined(mallory, bombs, "bad-message")


@attack("sends what msgpack can hold and a message cannot: maps, NaN, surrogates, other encodings", named="400 bad-mes")
async def odd_msgpack(mallory: Mallory) -> Answers:
    fair, author = spoilt({}), "a" * 52
    odd = [
        msgpack.packb({1: 2}), fair + b"\0", b"\xdc\0" + bytes([fair[0] & 15]) + fair[1:], b"", b"\xc1", fair[:-1],
        spoilt({PHASE: float("nan")}), spoilt({PHASE: "dancing"}), spoilt({BUCKET: [0, 0]}), spoilt({BUCKET: [5, 5]}),
        spoilt({HOLDS: [[author, 2**60, 1]]}), spoilt({HOLDS: [[author, 1, 1], [author, 1, 2]]}), spoilt({0: True}),
        fair.replace(b"\xa7working", b"\xa7\xed\xa0\x80\xff\xfe\xfd\xfc"),
    ]  # fmt: skip
    return await all_declined(mallory, odd, "bad-message")


@attack("speaks a protocol that does not exist yet", named="400 protocol")
async def protocol_of_the_future(mallory: Mallory) -> Answers:
    return await all_declined(mallory, [spoilt({0: number}) for number in (0, 2, 2**40)], "protocol")


@attack("changes an announcement after it was signed, bit by bit", named="400 (signature|bad-message|format)")
async def forged_announcements(mallory: Mallory) -> Answers:
    raw = mallory.offer(mallory.weights()).raw
    await mallory.hello()
    heard = []
    for at in range(0, len(raw), 20):
        forged = raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :]
        got = await mallory.send(asking(spoilt({NEWEST: forged})))
        assert got.status in (400, 429), (at, got)
        heard.append(f"{got.status} {got.reason}")
    mallory.offers.clear()
    assert mallory.scene.entry(mallory.id)["known"] is None
    return heard


@attack("asks with an honest lab's announcement as its own newest", named="400 author")
async def borrowed_announcement(mallory: Mallory) -> Answers:
    tell, _ = await mallory.scene.ask()
    return await all_declined(mallory, [spoilt({NEWEST: a.raw}) for a in tell.announcements], "author")


@attack("tells the victim's and the neighbour's own old announcements again, and again", silent=True)
async def replayed_announcements(mallory: Mallory) -> Answers:
    scene = mallory.scene
    tell, _ = await scene.ask()
    assert len(tell.announcements) > 1
    before = scene.merged()
    mallory.offers += tell.announcements
    ask = mallory.tell(announcements=(*tell.announcements, *tell.announcements))
    async with mallory.serving(ask=ask):
        assert await mallory.called(4, "ask")
        assert not any("blobs" in path for path in mallory.calls), "it is held, or newer is known"
    assert scene.merged().keys() == before.keys()
    return None


@attack("announces version 9, and once that is refused goes back to 3 with other bytes", named="refused: 7.9 record")
async def rolled_back_announcements(mallory: Mallory) -> Answers:
    mallory.offer(b"x" * 100, 9, incarnation=7)
    async with mallory.serving():
        assert await mallory.told("7.9")
        known = mallory.scene.entry(mallory.id)
        mallory.offer(b"y" * 100, 3, incarnation=6)
        await mallory.called(len(mallory.calls) + 3, "ask")
        assert set(mallory.scene.entry(mallory.id)["refused"]) >= set(known["refused"])
    return None


@attack("signs two contents for one version, one to each that asks", named="quarantined: 5$")
async def equivocation(mallory: Mallory) -> Answers:
    first = mallory.offer(mallory.weights(), incarnation=5)
    second = mallory.offer(mallory.weights(lambda x: x.__imul__(0.5)), incarnation=5)
    mallory.offers.clear()
    assert first.version == second.version
    await mallory.hello()
    for each in (first, second):
        body = encode_ask(AskMessage(each, {}))
        assert (await mallory.send(asking(body))).status == 200
    assert await mallory.told("quarantined: 5")
    return None


@attack("signs announcements of another federation and passes them on in this one", silent=True)
async def announcements_of_another_federation(mallory: Mallory) -> Answers:
    mallory.offer(mallory.weights(), federation="another-one")
    async with mallory.serving():
        assert await mallory.called(3, "ask")
        assert not any("blobs" in path for path in mallory.calls)
    return None


@attack(
    "signs a version from the end of time, so that nothing could follow it",
    named=rf"refused: {MAX_FIELD}\.{MAX_FIELD} record",
)
async def version_from_the_end_of_time(mallory: Mallory) -> Answers:
    mallory.offer(b"x" * 10, MAX_FIELD, incarnation=MAX_FIELD)
    async with mallory.serving():
        assert await mallory.told("refused: ")
    return None


@attack("relays thousands of versions of people that the victim does not know", silent=True)
async def versions_of_strangers(mallory: Mallory) -> Answers:
    announcements = []
    template = mallory.offer(mallory.weights())
    mallory.offers.clear()
    for _ in range(30):
        ghost = Identity.create()
        announcements.append(sign_announcement(ghost, replace(template, author=ghost.id)))
    async with mallory.serving(ask=mallory.tell(announcements=tuple(announcements))):
        assert await mallory.called(4, "ask")
        assert not any("blobs" in path for path in mallory.calls)
    return None


@attack("claims more samples, steps and seconds than a number may have", named="bad-message|no such statement")
async def numbers_out_of_bounds(mallory: Mallory) -> Answers:
    fair = mallory.offer(mallory.weights())
    mallory.offers.clear()
    await mallory.hello()
    heard = []
    for change in (
        {"samples": 0},
        {"samples": 10**13},
        {"samples": 2**63},
        {"seconds": float("inf")},
        {"steps": 2**62},
    ):
        got = await mallory.send(asking(spoilt({NEWEST: _signed(mallory, fair, change)})))
        assert got.reason == "bad-message", (change, got)
        heard.append(f"{got.status} {got.reason}")
    return heard


def _signed(mallory: Mallory, fair: Announcement, change: dict[str, object]) -> bytes:
    """What a signer without scruples would sign: our own refuses."""
    from braintorrent.records.announcement import CONTEXT, FORMAT, _body

    body = pack(_body(replace(fair, **change)))
    return pack([FORMAT, mallory.identity.public_key, body, mallory.identity.sign(CONTEXT + body)])


@attack("answers an ask with noise, with nothing, and with a tell of too many announcements", named="bad-message: ")
async def noise_for_an_answer(mallory: Mallory) -> Answers:
    fair = mallory.offer(mallory.weights())
    tell = msgpack.unpackb(encode_tell(TellMessage()))
    many = pack([tell[0], [fair.raw] * 33, *tell[2:]])
    mallory.offers.clear()
    for body in (b"", b"\xff" * 1000, many, pack([PROTOCOL, "x"])):
        mallory.calls.clear()
        async with mallory.serving(ask=answer(200, body)):
            assert await mallory.called(1, "ask")
    return None


@attack("claims in every ask to be leaving, final, seeking: whatever it was not before", named="phase: final")
async def phases_by_turns(mallory: Mallory) -> Answers:
    await mallory.hello()
    for phase in ("leaving", "final", "seeking", "leaving", "working", "final"):
        body = encode_ask(AskMessage(None, {}, phase=phase))
        assert (await mallory.send(asking(body))).status == 200
    return None


@attack("says it holds the victim's newest version, so that the victim, once stopped, does not wait", silent=True)
async def false_claims_of_holding(mallory: Mallory) -> Answers:
    await mallory.hello()
    body = encode_ask(AskMessage(None, {mallory.scene.id: Version(MAX_FIELD, MAX_FIELD)}))
    assert (await mallory.send(asking(body))).status == 200
    return None


@attack("says it holds 256 versions of authors that nobody has heard of", silent=True)
async def holdings_that_cannot_be(mallory: Mallory) -> Answers:
    await mallory.hello()
    holds = {Identity.create().id: Version(MAX_FIELD, MAX_FIELD) for _ in range(256)}
    body = encode_ask(AskMessage(None, holds))
    assert len(body) <= limits.ASK_BYTES
    assert (await mallory.send(asking(body))).status == 200
    return None
