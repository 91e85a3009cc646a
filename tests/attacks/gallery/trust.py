"""Who lets whom in: codes, revoked labs, and what labs say about labs."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from braintorrent.network.joining import encode_join
from braintorrent.node.inviting import invite
from braintorrent.node.trusting import revoke
from braintorrent.protocol.notices import Introduction, Notice, Proof, Revocation
from braintorrent.records import Identity, Invite
from braintorrent.records.canonical import pack
from braintorrent.records.invite import decode_invite, new_secret
from braintorrent.records.notice import rotation, sign_notice
from braintorrent.storage import StatePaths
from gallery import Answers, attack
from gallery.doors import ASK
from gallery.mallory import Answer, Mallory, declined, request
from gallery.scene import FEDERATION, until

# ------------------------------------------------------------- codes


def code(mallory: Mallory, hours: float = 1.0) -> Invite:
    """A code that the victim gave to an honest lab, and that came into the wrong hands."""
    word = invite(mallory.scene.victim, mallory.name, hours, time.time())
    return decode_invite(word, now=0.0)


async def knock(mallory: Mallory, held: Invite, step: str = "join", identity: Identity | None = None) -> Answer:
    """Ask to be let in by a code."""
    body = encode_join(identity or mallory.identity, held, step, "mallory", ())
    return await mallory.send(request("POST", "/v1/join", body), anonymous=True)


@attack("comes with a code that has expired", named="403 expired", member=False)
async def expired_invite(mallory: Mallory) -> Answers:
    return declined([await knock(mallory, code(mallory, hours=-1))], 403, "expired")


@attack("uses a code a second time, with another key", named="403 used", member=False)
async def reused_invite(mallory: Mallory) -> Answers:
    held, honest = code(mallory), Identity.create()
    assert (await knock(mallory, held, identity=honest)).status == 200
    assert (await knock(mallory, held, identity=honest)).status == 200, "an answer may be lost"
    return declined([await knock(mallory, held, "look"), await knock(mallory, held)], 403, "used")


@attack("comes back by the code of a lab that is revoked since", named="403 used", member=False)
async def invite_of_a_revoked_lab(mallory: Mallory) -> Answers:
    held = code(mallory)
    assert (await knock(mallory, held)).status == 200
    revoke(StatePaths(mallory.scene.victim), mallory.scene.identity, FEDERATION, mallory.name, "left the study")
    return declined([await knock(mallory, held)], 403, "used")


@attack("changes a request to join, bit by bit", named="400 (signature|bad-message)", member=False)
async def forged_request_to_join(mallory: Mallory) -> Answers:
    body = encode_join(mallory.identity, code(mallory), "join", "mallory", ())
    forged = [body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :] for at in range(5, len(body), len(body) // 8)]
    got = [await mallory.send(request("POST", "/v1/join", each), anonymous=True) for each in (*forged, b"", b"\xc0")]
    assert not any(a.status == 200 for a in got)
    return [f"{a.status} {a.reason}" for a in got]


@attack("replays at the victim a request to join that it received itself", named="403 unknown|429 busy", member=False)
async def request_to_join_another_lab(mallory: Mallory) -> Answers:
    own = replace(code(mallory), peer=mallory.id)  # what somebody whom it invited would send to it
    got = await knock(mallory, own, identity=Identity.create())
    return [f"{got.status} {got.reason}"]


@attack("guesses codes, thirty at once and without a pause", named="403 unknown", member=False)
async def guessed_invite(mallory: Mallory) -> Answers:
    real = code(mallory)
    words = await _guesses(mallory, [replace(real, secret=new_secret()) for _ in range(30)], [mallory])
    await asyncio.sleep(2.0)  # whoever guessed before may have used up what is answered
    return [*words, *await _guesses(mallory, [replace(real, secret=new_secret())], [mallory])]


@attack("guesses codes from forty addresses", named="429 busy", member=False)
async def invite_guessing_from_many_addresses(mallory: Mallory) -> Answers:
    real, net = code(mallory), mallory.host.rsplit(".", 1)[0]
    many = [Mallory(mallory.scene, "guesser", f"{net}.{100 + i}") for i in range(40)]
    words: list[str] = []
    while "429 busy" not in words and len(words) < 240:  # on a busy machine many find no place to be told so
        words += await _guesses(mallory, [replace(real, secret=new_secret()) for _ in range(80)], many)
    assert (await knock(mallory, real, identity=Identity.create())).status == 200, "a right code gets in regardless"
    return words


async def _guesses(mallory: Mallory, guesses: list[Invite], callers: list[Mallory]) -> list[str]:
    got = await asyncio.gather(*(knock(callers[i % len(callers)], guess) for i, guess in enumerate(guesses)))
    words = [f"{a.status} {a.reason}" for a in got]
    assert set(words) <= {"403 unknown", "429 busy", "0 "}, words
    return words


# ------------------------------------------------------------- revoked


async def revoked(mallory: Mallory, which: Mallory) -> None:
    """The victim revokes one of them, and notices within seconds."""
    scene = mallory.scene
    revoke(StatePaths(scene.victim), scene.identity, FEDERATION, which.name, "an attack test")
    assert await until(lambda: not scene.entry(which.id).get("present"), 5)
    assert await until(lambda: which.id not in {p["id"] for p in scene.status()["peers"]}, 5)


@attack("was revoked a moment ago, and goes on asking on the connection it has", named="403 roster|hung up")
async def revoked_key(mallory: Mallory) -> Answers:
    await mallory.ask()
    reader, writer = await mallory.connect()
    await revoked(mallory, mallory)
    closed = await asyncio.wait_for(reader.read(), 5) == b""
    writer.transport.abort()
    assert closed, "its connections are closed"
    got = await mallory.send(ASK)
    return [f"{got.status or 'hung up'} {got.reason}"]


@attack("was revoked, and resumes the TLS session it had before", named="403 roster|hung up")
async def tls_resumption_after_revocation(mallory: Mallory) -> Answers:
    await mallory.hello()
    context = mallory.context()
    _, writer = await mallory.connect(context=context)
    writer.write(ASK)
    await asyncio.sleep(0.2)
    connection = writer.get_extra_info("ssl_object")
    assert connection.session is None or not connection.session.has_ticket, "there is nothing to resume"
    writer.transport.abort()
    await revoked(mallory, mallory)
    got = await mallory.send(ASK)
    return [f"{got.status or 'hung up'} {got.reason}"]


@attack("relays the versions of a friend that is revoked", named="403 roster|hung up", friends=1)
async def revoked_authors_versions_relayed_by_a_third(mallory: Mallory) -> Answers:
    friend = mallory.friends[0]
    mallory.offers.append(friend.offer(friend.weights()))
    mallory.blobs |= friend.blobs
    await revoked(mallory, friend)
    async with mallory.serving():
        assert await mallory.called(4, "ask")
        assert not any("blobs" in path for path in mallory.calls), "nobody wants them"
    got = await friend.send(ASK)
    return [f"{got.status or 'hung up'} {got.reason}"]


# ------------------------------------------------------------- what labs say about labs


async def tell(mallory: Mallory, *notices: Notice, asks: int = 3) -> None:
    """Tell these until they were heard."""
    async with mallory.serving(ask=mallory.tell(notices=notices)):
        assert await mallory.called(asks, "ask"), mallory.calls


def about(mallory: Mallory, peer: str, name: str, **changes: object) -> Introduction:
    """What it says of somebody."""
    now = int(time.time() * 1000)
    fair = Introduction(FEDERATION, mallory.id, peer, name, (f"{mallory.host}:9",), now)
    return sign_notice(mallory.identity, replace(fair, **changes))


@attack("introduces ghosts by the hundred", named=r"waiting: m\d+ introduces ghost-")
async def introductions_of_ghosts(mallory: Mallory) -> Answers:
    before = len(mallory.scene.status()["peers"])
    for batch in range(5):
        await tell(mallory, *(about(mallory, Identity.create().id, f"ghost-{batch}-{i}") for i in range(16)), asks=2)
        mallory.calls.clear()
    assert len(mallory.scene.status()["peers"]) == before, "nobody is trusted without a person's word"
    return None


@attack(
    "introduces itself again under an honest lab's name, and an honest lab under its own",
    named="introduces (honest|evil)",
)
async def introductions_that_confuse(mallory: Mallory) -> Answers:
    scene = mallory.scene
    await tell(mallory, about(mallory, Identity.create().id, "honest"), about(mallory, scene.witness.id, "evil"))
    assert scene.entry(scene.witness.id)["name"] == "honest"
    return None


@attack("revokes everyone but itself", named=r"waiting: m\d+ revoked honest ")
async def revocation_of_everyone(mallory: Mallory) -> Answers:
    scene, now = mallory.scene, int(time.time() * 1000)
    others = [(p["id"], p["name"]) for p in scene.status()["peers"] if p["name"] in ("honest", "neighbour")]
    lies = [
        Revocation(FEDERATION, mallory.id, peer, name, "trust me", now) for peer, name in (*others, (scene.id, "you"))
    ]
    await tell(mallory, *(sign_notice(mallory.identity, lie) for lie in lies))
    assert {peer for peer, _ in others} <= {p["id"] for p in scene.status()["peers"]}, "others' word is advice"
    return None


@attack("passes on introductions by people that the victim does not know", silent=True)
async def introductions_by_strangers(mallory: Mallory) -> Answers:
    stranger = Mallory(mallory.scene, "stranger", mallory.host)
    await tell(mallory, *(about(stranger, Identity.create().id, f"strange-{i}") for i in range(10)))
    assert "strange-" not in mallory.scene.words()
    return None


@attack("changes an honest lab's notice after it was signed", named="signature: |bad-message: ")
async def forged_notices(mallory: Mallory) -> Answers:
    fair = about(mallory, Identity.create().id, "ghost")
    raw = fair.raw[:-1] + bytes([fair.raw[-1] ^ 1])
    async with mallory.serving(ask=mallory.tell(notices=(replace(fair, raw=raw),))):
        assert await mallory.called(1, "ask")
        assert await mallory.told("signature")
    return None


@attack("frames a friend by a proof that proves nothing", named="bad-message: ", friends=1)
async def false_proof_of_equivocation(mallory: Mallory) -> Answers:
    friend = mallory.friends[0]
    first, second = (friend.offer(friend.weights(), counter) for counter in (1, 2))
    raw = pack([1, *sorted((first.raw, second.raw))])
    async with mallory.serving(ask=mallory.tell(notices=(Proof(first, second, raw),))):
        assert await mallory.called(1, "ask")
        assert await mallory.told("bad-message")
    assert mallory.scene.entry(friend.id)["quarantined"] == []
    return None


@attack("says that an honest lab goes on under a key of its own choice", named="signature: |bad-message: ")
async def rotation_of_anothers_key(mallory: Mallory) -> Answers:
    scene = mallory.scene
    own = rotation(mallory.identity, Identity.create(), FEDERATION, int(time.time() * 1000))
    raw = own.raw.replace(mallory.identity.public_key, scene.witness.public_key)
    async with mallory.serving(ask=mallory.tell(notices=(replace(own, raw=raw),))):
        assert await mallory.called(1, "ask")
        assert await mallory.told("signature")
    assert scene.entry(scene.witness.id)["name"] == "honest"
    return None
