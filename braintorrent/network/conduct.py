"""How the peers on the roster behave. A few faults are forgiven, one a minute; more ban a peer, each time for longer.

A fault is what no sound peer does: bytes that do not parse or verify, a flood, a body without end. Being
away, slow to answer or of another release is none. Nothing here survives a restart.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from braintorrent.errors import BadMessage, RemoteError
from braintorrent.network import limits
from braintorrent.network.buckets import Bucket
from braintorrent.network.wire import clean
from braintorrent.records import short

log = logging.getLogger(__name__)

INNOCENT = ("protocol", "format")  # reasons of a BadMessage from another release


def is_fault(error: RemoteError) -> bool:
    """Whether it is misbehaviour that a message was bad, rather than another release."""
    return isinstance(error, BadMessage) and error.reason not in INNOCENT


@dataclass(slots=True)
class _Sheet:
    """What is held against one peer."""

    forgiven: Bucket
    faults: Counter[str] = field(default_factory=Counter)  # first word of the reason -> how often
    why: str = ""  # the fault that brought the last ban
    until: float = 0.0
    bans: int = 0


class Conduct:
    """Faults by peer id, and who is banned for them. Any thread may ask; `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sheets: dict[str, _Sheet] = {}

    def offend(self, peer: str, reason: str) -> None:
        """`peer`, which is on the roster, did this: "word: one line of detail"."""
        now, reason = self._clock(), clean(reason, limits.DETAIL_CHARS)
        sheet = self._sheets.setdefault(peer, _Sheet(Bucket(1 / limits.FAULT_SECONDS, limits.FAULTS)))
        sheet.faults[reason.partition(":")[0]] += 1
        log.info("fault of %s: %s", short(peer), reason)
        if now < sheet.until or sheet.forgiven.take(1, now):
            return
        if now > sheet.until + limits.BAN_SECONDS_MOST:
            sheet.bans = 0  # it has been good for long
        seconds = min(limits.BAN_SECONDS * 2**sheet.bans, limits.BAN_SECONDS_MOST)
        sheet.bans, sheet.why, sheet.until = min(sheet.bans + 1, 32), reason, now + seconds
        log.warning("%s is banned for %.0f s: %s", short(peer), seconds, reason)

    def banned(self, peer: str) -> str | None:
        """Why `peer` is not listened to now, and for how long yet; None if it is."""
        sheet = self._sheets.get(peer)
        left = sheet.until - self._clock() if sheet else 0.0
        return f"{sheet.why}; banned for {left:.0f} s more" if sheet and left > 0 else None

    def faults(self, peer: str) -> dict[str, int]:
        """What `peer` did so far: reason -> how often."""
        sheet = self._sheets.get(peer)
        return dict(sheet.faults) if sheet else {}

    def inherit(self, peer: str, heir: str) -> None:
        """`peer` goes on as `heir`: a new key, and all that was held against the old one."""
        sheet = self._sheets.pop(peer, None)
        if sheet is not None:
            self._sheets.setdefault(heir, sheet)

    def forget(self, peer: str) -> None:
        """`peer` is off the roster."""
        self._sheets.pop(peer, None)
