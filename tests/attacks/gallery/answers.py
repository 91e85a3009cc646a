"""A member that is called, and answers as no honest server would."""

from __future__ import annotations

import asyncio
import gzip

from braintorrent.network import limits
from braintorrent.network.wire import encode_hello
from gallery import Answers, attack
from gallery.mallory import Mallory, answer


async def answered(mallory: Mallory, hook: object, kind: str = "ask", times: int = 1) -> None:
    """Serve it with this hook until the victim has run into it, and said what is wrong."""
    before = sum(kind in path for path in mallory.calls)
    async with mallory.serving(**{kind: hook}):
        assert await mallory.called(before + times, kind), mallory.calls
        assert await mallory.told("problem: "), mallory.scene.entry(mallory.id)
        await asyncio.sleep(0.3)


@attack("redirects an ask to another port, a file, and the cloud's metadata", named="status")
async def redirects(mallory: Mallory) -> Answers:
    async with mallory.serving(call=False) as elsewhere:
        for place in (f"https://{elsewhere}/v1/ask", "http://169.254.169.254/latest/meta-data/", "file:///etc/passwd"):
            await answered(mallory, answer(302, Location=place), times=1)
        assert all(path.startswith("/v1/") for path in mallory.calls)
    return None


@attack("redirects a fetch of weights", named="from m.*status|status")
async def redirected_blobs(mallory: Mallory) -> Answers:
    mallory.offer(mallory.weights())
    async with mallory.serving(blob=answer(307, Location="https://127.0.0.1:1/")):
        assert await mallory.called(2, "blobs")
        await asyncio.sleep(0.3)
    return None


@attack("answers with a body that says gzip and unpacks to a gigabyte", named="bad-message")
async def content_encoding_bomb_in_an_answer(mallory: Mallory) -> Answers:
    bomb = gzip.compress(bytes(100 << 20))[: limits.TELL_BYTES]
    await answered(mallory, answer(200, bomb, Content_Encoding="gzip"))
    return None


@attack("answers an ask with a body that never ends", named="too-large")
async def endless_answer(mallory: Mallory) -> Answers:
    await answered(mallory, _endless(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n", b"\r\n"))
    return None


@attack("answers a fetch with a body that never ends", named="size|too-large")
async def endless_blob(mallory: Mallory) -> Answers:
    mallory.offer(mallory.weights())
    hook = _endless(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n", b"\r\n")
    async with mallory.serving(blob=hook):
        assert await mallory.called(2, "blobs")
        await asyncio.sleep(0.5)
    return None


def _endless(head: bytes, before: bytes, after: bytes):
    async def pour(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        for _ in range(2000):  # 128 MiB, if it is let
            await _push(writer, before + bytes(1 << 16) + after)

    return pour


async def _push(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write it, and give the loop a turn: so it learns that the victim hung up, and then `drain` raises."""
    writer.write(data)
    await asyncio.sleep(0)
    await writer.drain()


@attack("answers with a hundred thousand headers, with lines of megabytes, and with none that is HTTP", named="http")
async def hostile_response_headers(mallory: Mallory) -> Answers:
    for reply in (
        b"HTTP/1.1 200 X\r\n" + b"X: y\r\n" * 100_000 + b"\r\n", b"HTTP/1.1 200 X\r\nX: " + b"y" * (4 << 20),
        b"\xff\x1b" * 1000 + b"\r\n\r\n", answer(200, b"", Content_Length=-5), answer(99999),
    ):  # fmt: skip
        mallory.calls.clear()
        await answered(mallory, reply)
    return None


@attack("sends headers by the million before the weights it was asked for", named="http|headers|from m")
async def hostile_headers_before_a_blob(mallory: Mallory) -> Answers:
    mallory.offer(mallory.weights())

    async def pour(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 X\r\n")
        for _ in range(500):
            await _push(writer, b"X-Header: y\r\n" * 10_000)

    async with mallory.serving(blob=pour):
        assert await mallory.called(2, "blobs")
        await asyncio.sleep(1)
    return None


@attack("sends a hundred interim answers and never the real one", named="unreachable|http|bad-message")
async def interim_answers(mallory: Mallory) -> Answers:
    async def pour(writer: asyncio.StreamWriter) -> None:
        for _ in range(10_000):
            await _push(writer, b"HTTP/1.1 100 Continue\r\n\r\n" * 100)

    await answered(mallory, pour)
    return None


@attack("answers byte by byte, for ever", named="no complete answer in time|in time")
async def slow_loris_in_an_answer(mallory: Mallory) -> Answers:
    async def drip(writer: asyncio.StreamWriter) -> None:
        for byte in answer(200, bytes(1000)):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.1)

    async with mallory.serving(ask=drip):
        assert await mallory.told("in time", 8), mallory.scene.entry(mallory.id)
    return None


@attack("serves the weights byte by byte, for ever", named="no complete answer in time|is slow")
async def slow_loris_in_a_blob(mallory: Mallory) -> Answers:
    blob = mallory.weights()
    mallory.offer(blob)

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(200, b"", Content_Length=len(blob)))
        for byte in blob:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.1)

    async with mallory.serving(blob=drip):
        assert await mallory.called(2, "blobs")
        await asyncio.sleep(1.8)
    assert mallory.scene.entry(mallory.id)["held"] is None
    return None


@attack("accepts a call and says nothing at all", named="in time|unreachable")
async def silence_for_an_answer(mallory: Mallory) -> Answers:
    async def wait(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(10)

    async with mallory.serving(ask=wait):
        assert await mallory.told("in time", 8)
    return None


@attack("says in its hello, when called, another federation than when calling", named="federation: m")
async def two_faces(mallory: Mallory) -> Answers:
    face = answer(200, encode_hello(mallory.scene.hello(federation="another-one")))
    await answered(mallory, face, kind="hello")
    return None
