"""At the door: who may speak at all, and as whom."""

from __future__ import annotations

import asyncio
import os
import ssl
from contextlib import suppress

from braintorrent.network import limits, tls
from braintorrent.network.wire import encode_ask, encode_hello
from braintorrent.protocol.messages import AskMessage
from braintorrent.records import Identity
from gallery import Answers, attack
from gallery.mallory import Mallory, answer, request

ASK = request("POST", "/v1/ask", encode_ask(AskMessage(None, {})))


@attack("asks, fetches and pokes around without showing a certificate", named="403 anonymous", member=False)
async def no_client_certificate(mallory: Mallory) -> Answers:
    paths = (b"", b"/v1/ask"), (b"", b"/v1/blobs/" + b"0" * 64), (b"", b"/"), (b"", b"/v1/hello/../ask")
    got = [await mallory.send(request("GET", path.decode()), anonymous=True) for _, path in paths]
    got.append(await mallory.send(ASK, anonymous=True))
    assert all(a.reason == "anonymous" for a in got), got
    return [f"{a.status} {a.reason}" for a in got]


@attack("introduces a key that nobody trusts, and asks with it all the same", named="stranger", member=False)
async def unknown_key(mallory: Mallory) -> Answers:
    assert (await mallory.introduce()).reason == "roster"
    assert (await mallory.send(ASK)).status == 0, "its certificate was never admitted"
    return None


@attack("brings a member's certificate, which is no secret, and shows it with another key", named="403 anonymous")
async def borrowed_certificate(mallory: Mallory) -> Answers:
    der = tls.to_der(tls.certificate(mallory.scene.witness))
    assert (await mallory.send(request("POST", "/v1/hello", der), anonymous=True)).status == 200
    answer = await mallory.send(ASK, anonymous=True)  # having introduced somebody proves nothing
    return [f"{answer.status} {answer.reason}"]


@attack("introduces certificates with a changed name, key, date, signature or length", named="400 certificate")
async def forged_certificate(mallory: Mallory) -> Answers:
    der = tls.to_der(tls.certificate(mallory.identity))
    forged = [der[:at] + bytes([der[at] ^ 1]) + der[at + 1 :] for at in (0, 30, 90, 200, 235, 300, len(der) - 1)]
    forged += [b"", der[:-1], der + b"\0", os.urandom(len(der)), os.urandom(1000)]
    got = [await mallory.send(request("POST", "/v1/hello", each), anonymous=True) for each in forged]
    assert all(a.reason in ("certificate", "bad-message") for a in got), got
    return [f"{a.status} {a.reason}" for a in got]


@attack("offers TLS 1.2 only", named="no handshake")
async def downgrade(mallory: Mallory) -> Answers:
    context = mallory.context()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        await mallory.connect(context=context)
    except (ssl.SSLError, ConnectionError):
        return ["no handshake"]
    return None


@attack("speaks plain HTTP, HTTP/2 and noise to the TLS port", named="no answer")
async def no_tls_at_all(mallory: Mallory) -> Answers:
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", os.urandom(4000)):
        reader, writer = await mallory.plain()
        writer.write(said)
        with suppress(ConnectionError):
            assert b"HTTP" not in await asyncio.wait_for(reader.read(1000), 5)
        writer.close()
    return ["no answer"]


@attack("asks before it has said hello", named="403 hello")
async def ask_without_a_hello(mallory: Mallory) -> Answers:
    answer = await mallory.send(ASK)
    return [f"{answer.status} {answer.reason}"]


@attack("belongs to another federation, and says so", named="federation: m")
async def wrong_federation(mallory: Mallory) -> Answers:
    assert (await mallory.hello(federation="another-one")).reason == "federation"
    return None


@attack("trains something else: other labels, other network, hundreds of odd keys", named="agreement: ")
async def wrong_agreement(mallory: Mallory) -> Answers:
    agreed = mallory.scene.lab.agreement
    for other in ({}, {**agreed, "task.size": "1"}, {f"{'k' * 100}{i}": "[" * 60 for i in range(500)}):
        assert (await mallory.hello(agreement=other)).reason == "agreement"
    assert (await mallory.send(ASK)).reason == "hello"
    return None


@attack("says hello with a clock that is a century off, to drag versions along", named="clock: ")
async def clock_games(mallory: Mallory) -> Answers:
    for clock in (0, 1, 4_000_000_000_000, 2**53 - 1):
        assert (await mallory.hello(clock_ms=clock)).reason == "clock"
    return None


@attack("calls itself by escapes, HTML and line separators", named="script")
async def terminal_escapes_and_html_in_its_name(mallory: Mallory) -> Answers:
    name = "\x1b[2J\x1b]0;owned\x07<script>alert(1)</script>\u202e\u2028\r\n"
    async with mallory.serving(hello=answer(200, encode_hello(mallory.scene.hello(name=name)))):
        assert (await mallory.hello(name=name)).status == 200
        assert await mallory.told("script")
    shown = str(mallory.scene.entry(mallory.id)["calls_itself"]) + mallory.scene.words()
    assert not {"\x1b", "\x07", "\u202e", "\u2028"} & set(shown)
    assert (await mallory.hello(name="<b>" * 80)).status == 200
    assert len(mallory.scene.entry(mallory.id)["calls_itself"]) <= limits.NAME_CHARS
    return None


@attack("introduces a stranger over and over, to make signatures be checked", named="403 roster", member=False)
async def strangers_by_the_hundred(mallory: Mallory) -> Answers:
    body = tls.to_der(tls.certificate(Identity.create()))
    got = []
    for _ in range(15):
        got += await asyncio.gather(
            *(mallory.send(request("POST", "/v1/hello", body), anonymous=True) for _ in range(10))
        )
    assert not any(a.status == 200 for a in got)
    return [f"{a.status} {a.reason}" for a in got]
