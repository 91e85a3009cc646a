"""A blob from an open file to one caller: a block at a time, so that memory does not grow with the model."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import Executor

from aiohttp import web

from braintorrent.network import limits

log = logging.getLogger(__name__)
NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)  # Linux


async def stream(
    request: web.BaseRequest, descriptor: int, start: int, size: int, threads: Executor,
    trusted: Callable[[], bool], sent: Callable[[int], float],
) -> web.StreamResponse:  # fmt: skip
    """Answer with bytes `start` to `size` of a file. sent: told of each block, says how long the next has to wait.

    Cut short if the caller is not `trusted` any more or the file turns out shorter than `size`; one that
    does not read is cut off by its connection.
    """
    response = web.StreamResponse(status=206 if start else 200, headers={"Server": "braintorrent"})
    response.content_type = "application/octet-stream"
    response.content_length = size - start
    if start:
        response.headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
    await response.prepare(request)
    block = memoryview(bytearray(limits.BLOCK))
    read = asyncio.get_running_loop().run_in_executor
    while start < size:
        part = block[: size - start]
        if got := in_memory(descriptor, part, start):
            await asyncio.sleep(0)  # asks get their turn
        else:  # off the loop: a cold disk takes longer than an ask may wait
            got = await read(threads, os.preadv, descriptor, [part], start)
        if not got or not trusted():
            log.info("blob %s to %s cut short", request.raw_path[-64:][:16], request.remote)
            if request.transport is not None:
                request.transport.abort()
            break
        await response.write(block[:got])  # TLS has copied it on return, so it may be overwritten
        if wait := sent(got):
            await asyncio.sleep(wait)
        start += got
    return response


def in_memory(descriptor: int, block: memoryview, start: int) -> int:
    """Fill `block` from `start` of a file with what the system has in memory; how many bytes, 0 if it cannot tell.

    A thread that wakes, and wakes the loop again, takes longer than the copy.
    """
    if NOWAIT is None:
        return 0
    try:
        return os.preadv(descriptor, [block], start, NOWAIT)
    except OSError:  # none of it is, or this file system cannot tell
        return 0
