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


async def stream(
    request: web.BaseRequest, descriptor: int, start: int, size: int, threads: Executor,
    trusted: Callable[[], bool], count: Callable[[int], None],
) -> web.StreamResponse:  # fmt: skip
    """Answer with bytes `start` to `size` of a file, telling `count` as they go.

    Cut short if the caller is not `trusted` any more, takes a block slower than BYTES_PER_SECOND, or the
    file turns out shorter than `size`.
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
        # Off the loop: a cold disk takes longer than an ask may wait.
        got = await read(threads, os.preadv, descriptor, [block[: size - start]], start)
        if not got or not trusted() or not await _send(response, block[:got]):
            log.info("blob %s to %s cut short", request.raw_path[-64:][:16], request.remote)
            if request.transport is not None:
                request.transport.abort()
            break
        count(got)
        start += got
    return response


async def _send(response: web.StreamResponse, block: memoryview) -> bool:
    """Whether the caller took `block` in time. TLS has copied it when this returns, so it may be overwritten."""
    try:
        async with asyncio.timeout(limits.BLOCK / limits.BYTES_PER_SECOND):
            await response.write(block)
    except TimeoutError:
        return False
    return True
