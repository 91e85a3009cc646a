"""Who is turned away, and how each side names it. Attacks run over real sockets."""

from __future__ import annotations

import asyncio
import os
import ssl
from contextlib import asynccontextmanager

import pytest

from braintorrent.errors import BadMessage, Refused, Unreachable
from braintorrent.network import limits, tls
from braintorrent.network.wire import PROTOCOL, Hello, decode_error, encode_hello
from braintorrent.protocol.messages import AskMessage
from braintorrent.records.canonical import pack

ASK = AskMessage(None, {})


async def http(address, context, *parts, pause=0.0):
    """Send raw parts over TLS; (status, body) of the one answer, (0, b"") if the connection just ends."""
    host, port = address
    reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname="")
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(pause)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return int(head.split()[1]), await reader.readexactly(length)
    except (OSError, asyncio.IncompleteReadError):
        return 0, b""
    finally:
        writer.transport.abort()


def request(method, path, body=b"", **headers):
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    lines += [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


async def until(condition):
    """Wait for something another task does."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@asynccontextmanager
async def listening(labs):
    """b serves, and a's certificate is loaded: yields (address, mutual context of a, anonymous context)."""
    a, b = labs
    remote = tls.to_der(tls.certificate(b.identity))
    async with b.serve() as server:
        tls.admit(server._context, tls.to_der(tls.certificate(a.identity)))
        yield server, tls.client_context(a.identity, remote), tls.client_context(None, remote)


async def test_without_a_certificate_only_an_introduction_passes(labs):
    a, _ = labs
    der = tls.to_der(tls.certificate(a.identity))
    async with listening(labs) as (server, _, anonymous):
        for path in ("/v1/ask", "/v1/blobs/" + "0" * 64, "/", "/v1/hello/../ask"):
            for method in ("GET", "POST"):
                status, body = await http(server.address, anonymous, request(method, path))
                assert (status, decode_error(body)[0]) == (403, "anonymous")
        assert await http(server.address, anonymous, request("POST", "/v1/hello", der)) == (200, b"")
        status, body = await http(server.address, anonymous, request("POST", "/v1/hello", encode_hello(a.say())))
        assert (status, decode_error(body)[0]) == (400, "certificate")


async def test_an_unknown_key_learns_only_that_it_is_not_trusted(labs, lab):
    _, b = labs
    stranger = lab("stranger").trust(b)
    async with b.serve() as server, stranger.call() as client:
        for attempt in (
            client.hello(b.id, str(server.address), stranger.say()),
            client.ask(b.id, str(server.address), ASK, 5),
            client.fetch_small(b.id, str(server.address), "0" * 64, 10),
        ):
            with pytest.raises(Refused) as caught:
                await attempt
            assert caught.value.reason == "roster"
            assert "lab" not in caught.value.detail
            assert b.id[:7] not in caught.value.detail
        assert not server.received + server.sent


async def test_whom_we_do_not_trust_we_do_not_call(labs):
    a, b = labs
    async with b.serve() as server, a.call() as client:
        await client.hello(b.id, str(server.address), a.say())
        a.roster.clear()
        with pytest.raises(Refused, match="roster"):
            await client.hello(b.id, str(server.address), a.say())
        assert not client._remotes


async def test_a_peer_revoked_in_between_is_refused_at_once(labs):
    a, b = labs
    async with b.serve() as server, a.call() as client:
        await client.hello(b.id, str(server.address), a.say())
        await client.ask(b.id, str(server.address), ASK, 5)
        b.roster.clear()
        with pytest.raises(Refused) as caught:
            await client.ask(b.id, str(server.address), ASK, 5)
        assert caught.value.reason == "roster"


async def test_a_peer_revoked_in_mid_download_gets_no_more(labs):
    a, b = labs
    content = os.urandom(40 * limits.MIB)

    class Revoking:
        got = 0

        def write(self, data):
            b.roster.clear()
            self.got += len(data)

    async with b.serve() as server, a.call() as client:
        revoking = Revoking()
        with pytest.raises(Unreachable):
            await client.fetch(b.id, str(server.address), b.put(content), len(content), revoking)
        assert 0 < revoking.got < len(content)


async def test_a_refusal_carries_its_reason_and_detail(labs):
    a, b = labs
    async with b.serve() as server, a.call() as client:
        with pytest.raises(Refused, match="federation other-one is not test-federation") as caught:
            await client.hello(b.id, str(server.address), Hello("a", "other-one"))
        assert caught.value.reason == "federation"
        with pytest.raises(Refused) as caught:
            await client.ask(b.id, str(server.address), ASK, 5)
        assert caught.value.reason == "hello"


async def test_another_peer_at_a_members_address(labs, lab):
    a, b = labs
    c = lab("c").trust(a, b)
    a.trust(b, c)
    async with a.call() as client:
        async with b.serve() as server:
            address = str(server.address)
            await client.hello(b.id, address, a.say())
        async with c.serve(address):
            with pytest.raises(Unreachable) as caught:  # b is known: its certificate is the only anchor
                await client.ask(b.id, address, ASK, 5)
            assert caught.value.reason == "identity"
            assert not c.asked
        async with c.serve() as server, a.call() as fresh:
            with pytest.raises(Unreachable) as caught:
                await fresh.hello(b.id, str(server.address), a.say())
            assert caught.value.reason == "identity"
            assert not c.greeted


async def test_tls_1_2_is_refused_by_both_sides(labs):
    a, b = labs
    async with listening(labs) as (server, mutual, _):
        mutual.minimum_version = mutual.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await http(server.address, mutual, request("GET", "/"))
    old = tls.server_context(b.identity)
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0, ssl=old)
    async with server, a.call() as client:
        with pytest.raises(Unreachable):
            await client.identify(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")


async def test_plain_text_and_garbage_get_no_answer(labs):
    async with listening(labs) as (server, *_):
        for line in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(500)):
            reader, writer = await asyncio.open_connection(*server.address)
            writer.write(line)
            answer = await asyncio.wait_for(reader.read(100), 5)
            assert b"HTTP" not in answer
            writer.close()


async def test_bodies_above_the_cap_are_refused_before_they_are_read(labs):
    async with listening(labs) as (server, mutual, anonymous):
        for path, context, cap in (
            ("/v1/hello", mutual, limits.HELLO_BYTES),
            ("/v1/ask", mutual, limits.ASK_BYTES),
            ("/v1/hello", anonymous, limits.CERTIFICATE_BYTES),
        ):
            status, body = await http(server.address, context, request("POST", path, bytes(cap + 1)))
            assert (status, decode_error(body)[0]) == (413, "too-large")
        assert not server.received


async def test_slow_bodies_and_silent_connections_are_cut_off(labs, monkeypatch):
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.2)
    monkeypatch.setattr(limits, "LINGER_SECONDS", 0.1)
    monkeypatch.setattr(limits, "IDLE_SECONDS", 0.3)
    monkeypatch.setattr(limits, "ACCEPT_SECONDS", 0.3)
    monkeypatch.setattr(limits, "HEAD_SECONDS", 0.3)
    async with listening(labs) as (server, mutual, _):
        whole = request("POST", "/v1/ask", bytes(1000))
        status, body = await http(server.address, mutual, whole[:-900], pause=0.3)
        assert (status, decode_error(body)[0]) == (408, "slow")
        assert await http(server.address, mutual, whole[:20]) == (0, b"")  # headers never end
        reader, writer = await asyncio.open_connection(*server.address)  # no handshake at all
        assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.close()


async def test_a_reader_that_stops_reading_is_dropped(labs, monkeypatch):
    monkeypatch.setattr(limits, "BYTES_PER_SECOND", 4 * limits.MIB)
    _, b = labs
    blob = b.put(bytes(30 * limits.MIB))
    async with listening(labs) as (server, mutual, _):
        _, writer = await asyncio.open_connection(*server.address, ssl=mutual, server_hostname="", limit=1)
        writer.transport.pause_reading()
        writer.write(request("GET", f"/v1/blobs/{blob}"))
        await until(lambda: server._answers.active)
        async with asyncio.timeout(3):
            await server._answers.quiet.wait()
        assert not +server._answers.streams
        assert server.sent.total() < 30 * limits.MIB
        writer.transport.abort()


async def test_long_lines_many_headers_and_garbage_are_refused_without_a_word_in_the_log(labs, caplog):
    async with listening(labs) as (server, mutual, _):
        for head in (
            request("GET", "/" + "a" * limits.LINE_BYTES),
            request("GET", "/v1/ask", X="a" * 2 * limits.LINE_BYTES),
            request("GET", "/v1/ask", **{f"X{i}": 1 for i in range(2 * limits.HEADERS)}),
            b"garbage\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        ):
            status, _ = await http(server.address, mutual, head)
            assert status in (0, 400)
    assert not caplog.records


async def test_a_fault_of_our_own_is_logged_and_does_not_end_the_server(labs, caplog):
    a, b = labs
    async with b.serve() as server, a.call() as client:
        await client.hello(b.id, str(server.address), a.say())
        b.tell = None
        with pytest.raises(Unreachable):
            await client.ask(b.id, str(server.address), ASK, 5)
        assert "a request failed" in caplog.text
        await client.hello(b.id, str(server.address), a.say())


async def test_bad_ranges(labs, monkeypatch):
    monkeypatch.setattr(limits, "FAULTS", 99)
    _, b = labs
    blob = b.put(bytes(100))
    values = ["5", "-5", "1-4", "1-,3-", "100-", "9" * 99 + "-", " 1-", "+1-"]
    async with listening(labs) as (server, mutual, _):
        for value in [f"bytes={v}" for v in values] + ["items=1-", ""]:
            status, body = await http(server.address, mutual, request("GET", f"/v1/blobs/{blob}", Range=value))
            assert (status, decode_error(body)[0]) == (416, "range"), value


async def test_paths_that_are_no_digest_never_reach_the_handlers(labs, monkeypatch):
    monkeypatch.setattr(limits, "FAULTS", 99)
    _, b = labs
    blob = b.put(b"secret")
    async with listening(labs) as (server, mutual, _):
        for path in (
            "../../../etc/passwd", "%2e%2e/" + blob, "./" + blob, blob.upper(), blob + "/", blob + "?x=1", blob[:63],
            blob + "0", "%66" + blob[1:], blob + "%00", "/" + blob, "",
        ):  # fmt: skip
            status, body = await http(server.address, mutual, request("GET", "/v1/blobs/" + path))
            assert (status, decode_error(body)[0]) == (404, "path"), path
        assert (await http(server.address, mutual, request("GET", f"/v1/blobs/{blob}")))[0] == 200
        for method in ("PATCH", "POST", "DELETE", "OPTIONS", "TRACE"):
            assert (await http(server.address, mutual, request(method, f"/v1/blobs/{blob}")))[0] == 404


async def test_one_peer_cannot_take_all_streams(labs, monkeypatch):
    monkeypatch.setattr(limits, "STREAMS_PER_PEER", 0)
    a, b = labs
    async with b.serve() as server, a.call() as client:
        with pytest.raises(Unreachable) as caught:
            await client.fetch_small(b.id, str(server.address), b.put(b"x"), 10)
        assert caught.value.reason == "busy"


@asynccontextmanager
async def rogue(identity, *known, answer=b"", pause=0.0):
    """A roster member that answers every request with `answer`, byte by byte if `pause`."""
    context = tls.server_context(identity, [tls.to_der(tls.certificate(k)) for k in known])

    async def serve(reader, writer):
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                for part in [answer] if not pause else [answer[i : i + 1] for i in range(len(answer))]:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(pause)
                writer.close()
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def answer(status, body=b"", **headers):
    headers = {"Content-Length": len(body)} | {k.replace("_", "-"): v for k, v in headers.items()}
    return "\r\n".join([f"HTTP/1.1 {status} X", *(f"{k}: {v}" for k, v in headers.items()), "", ""]).encode() + body


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (answer(302, Location="https://127.0.0.1:1/v1/ask"), BadMessage),
        (answer(200, bytes(limits.TELL_BYTES + 1)), BadMessage),
        (answer(200, b"\x1f\x8b" + bytes(100), Content_Encoding="gzip"), BadMessage),
        (answer(200, b"not msgpack"), BadMessage),
        (answer(204), BadMessage),
        (answer(200, b"", Content_Length=10), Unreachable),
        (answer(500, b"x" * 10_000), Unreachable),
        (answer(403, bytes(limits.ERROR_BYTES + 1)), Refused),
        (answer(403, pack([PROTOCOL, "go\x1b[2Jaway", "\x07"])), Refused),
        (b"HTTP/1.1 200 X\r\n" + b"X: y\r\n" * 100_000 + b"\r\n", BadMessage),
        (b"\xff\x1b" * 1000, BadMessage),
        (b"", Unreachable),
    ],
)
async def test_a_member_that_answers_badly_is_told_apart(labs, reply, kind):
    a, b = labs
    async with rogue(b.identity, a.identity, answer=reply) as address, a.call() as client:
        with pytest.raises(kind) as caught:
            await client.ask(b.id, address, ASK, 5)
        assert caught.value.detail.isprintable()
        assert len(caught.value.detail) < 500


@pytest.mark.parametrize("reply", [answer(200, bytes(n)) for n in (0, 99, 101)] + [answer(206, bytes(100))])
async def test_a_blob_of_another_size_is_bad_before_it_is_read(labs, sink, reply):
    a, b = labs
    async with rogue(b.identity, a.identity, answer=reply) as address, a.call() as client:
        with pytest.raises(BadMessage):
            await client.fetch(b.id, address, "0" * 64, 100, sink)
        with pytest.raises(BadMessage):
            await client.fetch(b.id, address, "0" * 64, 200, sink, 100)
        with pytest.raises(BadMessage):
            await client.fetch_small(b.id, address, "0" * 64, 90)
        assert not sink.data


async def test_other_bytes_than_the_small_blob_asked_for(labs):
    a, b = labs
    async with rogue(b.identity, a.identity, answer=answer(200, b"other")) as address, a.call() as client:
        with pytest.raises(BadMessage) as caught:
            await client.fetch_small(b.id, address, "0" * 64, 100)
        assert caught.value.reason == "digest"


async def test_deadlines_hold_against_a_member_that_drips(labs, sink, monkeypatch):
    a, b = labs
    slow = answer(200, bytes(1000))
    async with rogue(b.identity, a.identity, answer=slow, pause=0.02) as address, a.call() as client:
        with pytest.raises(Unreachable):
            await client.ask(b.id, address, ASK, 0.3)
        monkeypatch.setattr(limits, "STALL_SECONDS", 0.3)
        with pytest.raises(Unreachable):
            await client.fetch(b.id, address, "0" * 64, 1000, sink)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:0", "nobody.invalid:1", "a b", "", "[::1", "x:99999"])
async def test_addresses_where_nobody_answers(labs, address):
    a, b = labs
    async with a.call() as client:
        with pytest.raises(Unreachable):
            await client.identify(address)
        with pytest.raises(Unreachable):
            await client.hello(b.id, address, a.say())
