"""Whom this lab dials: only hosts that others can have, and not too many of them.

Other peers say where somebody lives: in hello, by gossip, by mDNS. Whatever they claim, and whatever a name
resolves to, no connection goes to a link-local, multicast or unspecified address, nor to this machine itself
unless labs live on it; and each peer's unproven addresses are dialled a few at a time.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable
from typing import Any

from braintorrent.errors import Unreachable
from braintorrent.network import limits
from braintorrent.network.address import Address, parse_address
from braintorrent.network.buckets import Bucket


class Dialling:
    """loopback: whether labs live on this machine: its own listener, or an address that its people wrote."""

    def __init__(self, loopback: Callable[[], bool] = lambda: True) -> None:
        self._loopback = loopback
        self._works: dict[str, dict[str, None]] = {}  # peer -> where it answered
        self._budgets: dict[str, Bucket] = {}

    def plausible(self, address: str) -> bool:
        """Whether `address` may be dialled, as far as can be said without resolving a name."""
        try:
            return self._permits(parse_address(address).host)
        except ValueError:
            return False

    def check(self, peer: str, address: str) -> None:
        """Unreachable (reason "address") unless `peer` may be looked for at `address` now."""
        if not self.plausible(address):
            raise Unreachable(f"{address} is no address to dial", reason="address")
        if address in self._works.get(peer, ()):
            return
        budget = self._budgets.setdefault(peer, Bucket(1 / limits.DIAL_SECONDS, limits.DIALS))
        if not budget.take(1, time.monotonic()):
            raise Unreachable(f"{address} has to wait: too many new addresses were tried", reason="address")

    def worked(self, peer: str, address: str) -> None:
        """`peer` was there."""
        works = self._works.setdefault(peer, {})
        works[address] = None
        if len(works) > limits.ADDRESSES_EACH:
            del works[next(iter(works))]

    def forget(self, peer: str) -> None:
        """`peer` is off the roster."""
        self._works.pop(peer, None)
        self._budgets.pop(peer, None)

    def open(self, found: tuple[Any, ...]) -> socket.socket:
        """A socket for what getaddrinfo found, not connected yet; OSError if it may not be dialled."""
        family, kind, _, _, where = found
        if not self._permits(where[0]):
            raise OSError(f"{Address(where[0], where[1])} is no address to dial")
        return socket.socket(family, kind)

    def _permits(self, host: str) -> bool:
        if is_loopback(host):
            return self._loopback()
        try:
            ip = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return True  # a name: what it resolves to is looked at when it is dialled
        ip = (ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None) or ip
        return not (ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip.is_reserved)


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine itself, as far as can be said without resolving it."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host.lower() == "localhost" or host.lower().endswith(".localhost")
    ip = (ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None) or ip
    return ip.is_loopback
