"""Who is connected, from the accepted socket on, and who has to go when there are too many.

Whoever has not shown a known key yet is a stranger: few of them are kept at once, of all and of one address,
and the *oldest* makes room for the next. A handshake takes milliseconds, so among hundreds of silent
strangers an honest caller gets through, where a full waiting room would turn it away. When the house is full,
whoever with a known key has most connections gives one up, idle ones first: no few keys keep others out. A
peer's only connection goes to nobody while it is in use.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from braintorrent.network import limits


@dataclass(slots=True, eq=False)
class Caller:
    """One connection. peer: whose key it showed, "" so far. drop: ends it, at once and without a word. busy: in use."""

    place: str
    drop: Callable[[], object]
    peer: str = ""
    busy: Callable[[], bool] = lambda: False


class Callers:
    """All callers of one listener, oldest first."""

    def __init__(self) -> None:
        self._all: dict[Caller, None] = {}
        self._of: dict[str, dict[Caller, None]] = {}  # place of strangers, or peer id

    def __len__(self) -> int:
        return len(self._all)

    def admit(self, host: str, drop: Callable[[], object]) -> Caller | None:
        """A new stranger at `host`, for whom an older one may have gone; None if there is no room."""
        place = _place(host)
        here = self._of.get(place, {})
        strangers = [caller for caller in self._all if not caller.peer]
        if len(here) >= limits.STRANGERS_PER_ADDRESS:
            self._drop(next(iter(here)))
        elif len(strangers) >= limits.STRANGERS:
            self._drop(strangers[0])
        elif len(self._all) >= limits.CONNECTIONS:
            least = self._surplus() or next(iter(strangers), None) or _idle(self._all)
            if least is None:
                return None
            self._drop(least)
        caller = Caller(place, drop)
        self._all[caller] = None
        self._of.setdefault(place, {})[caller] = None
        return caller

    def know(self, caller: Caller, peer: str) -> None:
        """The handshake proved that `caller` is `peer`."""
        if caller not in self._all:
            return
        self.leave(caller)
        caller.peer = peer
        mine = self._of.setdefault(peer, {})
        if len(mine) >= limits.CONNECTIONS_PER_PEER:
            self._drop(next(iter(mine)))
        self._all[caller] = self._of.setdefault(peer, {})[caller] = None

    def leave(self, caller: Caller) -> None:
        """Its connection is over. Idempotent."""
        self._all.pop(caller, None)
        group = caller.peer or caller.place
        if group in self._of:
            self._of[group].pop(caller, None)
            if not self._of[group]:
                del self._of[group]

    def disconnect(self, peer: str) -> None:
        """End all connections of `peer` now."""
        for caller in list(self._of.get(peer, ())):
            self._drop(caller)

    def _surplus(self) -> Caller | None:
        """Of the peer with most connections, unless each has but one: the oldest idle one, or the oldest."""
        known = (group for group in self._of.values() if next(iter(group)).peer)
        most = max(known, key=len, default={})
        return (_idle(most) or next(iter(most))) if len(most) > 1 else None

    def _drop(self, caller: Caller) -> None:
        self.leave(caller)
        caller.drop()


def _idle(callers: Iterable[Caller]) -> Caller | None:
    """The first that no request is being answered on."""
    return next((caller for caller in callers if not caller.busy()), None)


def _place(host: str) -> str:
    """What counts as one address: of IPv6 the first 64 bits, since whoever has one address there has them all."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.version == 6 and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
