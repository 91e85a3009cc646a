"""Too much, too slow, or both: what a stranger or a member could use up."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress

from braintorrent.errors import Unreachable
from braintorrent.network import limits
from braintorrent.network.wire import encode_ask
from braintorrent.protocol.messages import AskMessage
from gallery import Answers, attack
from gallery.mallory import Answer, Mallory, declined, read_answer, request

ASK = request("POST", "/v1/ask", encode_ask(AskMessage(None, {})))
Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
STRANGERS_IN_HAND = 16  # handshakes at once, fewer than push each other out
BROKEN = (OSError, ssl.SSLError, asyncio.IncompleteReadError, TimeoutError)


async def crowd(mallory: Mallory, count: int, open_one: Connect) -> list[str]:
    """`count` connections, most of which the victim lets in; all are hung up on, an honest peer is not."""
    turn, connected = asyncio.Semaphore(STRANGERS_IN_HAND), 0

    async def one() -> None:
        nonlocal connected
        try:
            async with turn, asyncio.timeout(3):
                reader, writer = await open_one()
        except BROKEN:
            return  # pushed out by the next in the middle of its handshake
        connected += 1
        try:
            assert await asyncio.wait_for(reader.read(), 6) == b"", "nobody spoke to it"
        except (ConnectionError, ssl.SSLError):
            pass  # hung up on, without a farewell
        finally:
            writer.transport.abort()

    tries = asyncio.gather(*(one() for _ in range(count)))
    await asyncio.sleep(0.3)
    try:
        _, seconds = await mallory.scene.ask()
    except Unreachable as error:
        raise AssertionError(f"an honest peer is hung up on: {error}\n{mallory.scene.words()[-4000:]}") from error
    assert seconds < 3, "an honest peer waits for the crowd"
    await tries
    assert connected > count / 2, connected
    return [f"hung up on {connected}"]


@attack("opens 400 connections from one address and says nothing", named="hung up", member=False)
async def half_open_connections(mallory: Mallory) -> Answers:
    return await crowd(mallory, 400, mallory.plain)


@attack("opens 300 connections from a hundred addresses and says nothing", named="hung up", member=False)
async def half_open_connections_from_many_addresses(mallory: Mallory) -> Answers:
    net = mallory.host.rsplit(".", 1)[0]
    hosts = iter([f"{net}.{100 + i % 100}" for i in range(300)])
    return await crowd(mallory, 300, lambda: mallory.plain(next(hosts)))


@attack("finishes 200 TLS handshakes and then sends no header", named="hung up", member=False)
async def header_less_connections(mallory: Mallory) -> Answers:
    context = mallory.context(anonymous=True)
    return await crowd(mallory, 200, lambda: mallory.connect(anonymous=True, context=context))


@attack("sends a request's head byte by byte, for ever", named="hung up", member=False)
async def slow_loris(mallory: Mallory) -> Answers:
    reader, writer = await mallory.connect(anonymous=True)
    with suppress(ConnectionError):
        for byte in b"GET /v1/ask HTTP/1.1\r\n" + b"X: y\r\n" * 30:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.25)
            if reader.at_eof():
                break
        else:
            raise AssertionError("it may go on for ever")
    writer.transport.abort()
    return ["hung up"]


@attack("sends a request's body byte by byte, for ever", named="408 slow")
async def slow_body(mallory: Mallory) -> Answers:
    await mallory.hello()
    head = request("POST", "/v1/ask", bytes(1000))[:-1000]
    answer = await mallory.send(head, *[b"x"] * 4, pause=0.2)
    return [f"{answer.status} {answer.reason}"]


@attack("sends a body that never ends, in chunks and by a false length", named="413 too-large")
async def endless_body(mallory: Mallory) -> Answers:
    await mallory.hello()
    chunked = b"POST /v1/ask HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    got = [
        await mallory.send(chunked, *[b"10000\r\n" + bytes(1 << 16) + b"\r\n"] * 20),
        await mallory.send(request("POST", "/v1/ask", bytes(4 << 20))),
        await mallory.send(request("POST", "/v1/hello", bytes(1 << 20))),
    ]
    assert all(a.status in (0, 413) for a in got), got
    return [f"{a.status} {a.reason}" for a in got]


@attack("sends a request whose body says gzip and unpacks to a gigabyte", named="400 bad-message")
async def content_encoding_bomb(mallory: Mallory) -> Answers:
    await mallory.hello()
    bomb = gzip.compress(bytes(30 << 20))[: limits.ASK_BYTES]
    answer = await mallory.send(request("POST", "/v1/ask", bomb, Content_Encoding="gzip"))
    return [f"{answer.status} {answer.reason}"]


@attack("asks a thousand times at once, over all the connections it may have", named="banned.*flood|flood.*banned")
async def flood_of_asks(mallory: Mallory) -> Answers:
    await mallory.hello()

    async def some() -> list[Answer]:
        got: list[Answer] = []
        with suppress(*BROKEN):
            reader, writer = await mallory.connect()
            for _ in range(60):
                writer.write(ASK)
                await writer.drain()
                async with asyncio.timeout(3):
                    got.append(await read_answer(reader))
            writer.transport.abort()
        return got

    got = await asyncio.gather(*(some() for _ in range(16)))
    words = [f"{a.status} {a.reason}" for each in got for a in each]
    assert words.count("200 ") < 200, words
    return words


@attack("sends thousands of requests down one connection and reads no answer", named="hung up|not read")
async def pipelined_requests(mallory: Mallory) -> Answers:
    await mallory.hello()
    _, writer = await mallory.connect(limit=1)
    writer.transport.pause_reading()
    with suppress(*BROKEN):
        async with asyncio.timeout(3):
            for _ in range(3000):
                writer.write(ASK)
                await writer.drain()
    writer.transport.abort()
    return ["not read"]


@attack("asks for weights on many connections at once and reads none of them", named="429 busy|hung up")
async def slow_reader(mallory: Mallory) -> Answers:
    await mallory.hello()
    tell, _ = await mallory.scene.ask()
    newest = next(a for a in tell.announcements if a.author == mallory.scene.id)
    want, held = request("GET", f"/v1/blobs/{newest.content}"), []

    async def one() -> str:
        try:
            reader, writer = await mallory.connect(limit=1, window=4096)
        except BROKEN:
            return "hung up"
        held.append(writer)
        writer.write(want * 20)  # more than the buffers between the two take
        with suppress(*BROKEN):
            head = await asyncio.wait_for(reader.read(12), 2)
            writer.transport.pause_reading()
            return "429 busy" if b"429" in head else head.decode(errors="replace")
        return "silence"

    got = await asyncio.gather(*(one() for _ in range(limits.STREAMS_PER_PEER)))
    await asyncio.sleep(0.3)  # until all are stuck, and less than the victim puts up with
    got += [await one() for _ in range(4)]
    await asyncio.sleep(0.5)
    for writer in held:
        writer.transport.abort()
    return got


@attack("asks for ranges that are negative, reversed, many, or past the end", named="416 range")
async def range_abuse(mallory: Mallory) -> Answers:
    tell, _ = await mallory.scene.ask()
    newest = next(a for a in tell.announcements if a.author == mallory.scene.id)
    got = []
    for value in ("5", "-5", "1-4", "0-0,1-1,2-2", "9" * 99 + "-", "-", "4-1", "99999999-"):
        path = f"/v1/blobs/{newest.content}"
        got.append(await mallory.send(request("GET", path, Range=f"bytes={value}")))
    return declined(got, 416, "range")


@attack("asks for blobs by paths instead of digests", named="404 path")
async def path_tricks(mallory: Mallory) -> Answers:
    tricks = ("../../state/key", "%2e%2e/%2e%2e/key", "..%2fkey", "/etc/passwd", "A" * 64, "0" * 63, "0" * 65, "", "\\")
    got = [await mallory.send(request("GET", f"/v1/blobs/{trick}")) for trick in tricks]
    got += [await mallory.send(request(how, f"/v1/blobs/{'0' * 64}")) for how in ("PUT", "DELETE", "TRACE")]
    return declined(got, 404, "path")


@attack("asks for one digest after the other in the hope that one is here", named="404 gone")
async def guessed_digests(mallory: Mallory) -> Answers:
    got = [await mallory.send(request("GET", f"/v1/blobs/{number:064x}")) for number in range(30)]
    assert not any(a.status == 200 for a in got)
    return [f"{a.status} {a.reason}" for a in got]


@attack("sends heads with lines of megabytes, thousands of headers, two lengths, and noise", named="400|hung up")
async def hostile_request_headers(mallory: Mallory) -> Answers:
    heads = [
        request("GET", "/" + "a" * (4 << 20)), request("GET", "/v1/ask", X="a" * (4 << 20)),
        request("GET", "/v1/ask", **{f"X{i}": 1 for i in range(5000)}), b"\0" * 100_000 + b"\r\n\r\n",
        b"POST /v1/ask HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/ask HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 50\r\n\r\n",
    ]  # fmt: skip
    got = [await mallory.send(head) for head in heads]
    assert all(a.status in (0, 400) for a in got), got
    return [f"{a.status or 'hung up'}" for a in got]


@attack("hides a second request in the body of a first, by two lengths that contradict", named="400|hung up|403")
async def smuggled_request(mallory: Mallory) -> Answers:
    both = b"POST /v1/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    got = [
        await mallory.send(both + ASK, anonymous=True),
        await mallory.send(both + ASK),
        await mallory.send(request("GET", "/v1/ask", Upgrade="websocket", Connection="Upgrade")),
    ]
    assert not any(a.status in (101, 200) for a in got), got
    return [f"{a.status or 'hung up'} {a.reason}" for a in got]


@attack("promises a body, waits for leave to send it, and sends none", named="408 slow|hung up|100")
async def expected_and_never_sent(mallory: Mallory) -> Answers:
    head = request("POST", "/v1/ask", bytes(500), Expect="100-continue")[:-500]
    answer = await mallory.send(head, pause=1.5)
    return [f"{answer.status or 'hung up'} {answer.reason}"]


@attack("introduces itself a hundred times, each on a new connection", named="200 again")
async def introductions_over_and_over(mallory: Mallory) -> Answers:
    got = []
    for _ in range(10):
        got += await asyncio.gather(*(mallory.introduce(force=True) for _ in range(10)))
    return [f"{a.status} {a.reason or 'again'}" for a in got]
