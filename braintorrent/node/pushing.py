"""Push: send another what it wants of us and cannot fetch, since it cannot dial this lab."""

from __future__ import annotations

import os

from braintorrent.errors import Refused, RemoteError
from braintorrent.node.context import Context, log
from braintorrent.node.fetching import somewhere
from braintorrent.protocol import effects
from braintorrent.records import short


async def push(context: Context, effect: effects.Push) -> None:
    """Carry out a Push, as far as the blobs are here and the other takes them."""
    name = context.lab.roster.name(effect.peer)
    for digest in effect.digests:
        try:
            await _push(context, effect.peer, digest)
        except KeyError:
            log.debug("%s wants blob %s, which is not here any more", name, digest[:16])
        except Refused as error:  # it may have the record and want the weights
            log.debug("%s does not take blob %s: %s", name, digest[:16], error)
        except RemoteError as error:
            log.info("%s %s does not get what it wants: %s", name, short(effect.peer), error)
            return


async def _push(context: Context, peer: str, digest: str) -> None:
    descriptor, _ = context.blobs.open(digest)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        await somewhere(context, peer, lambda address: context.client.push(peer, address, digest, file, context.pace))
