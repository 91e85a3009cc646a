"""Who may be there: mDNS service `_braintorrent._tcp.local.` (RFC 6762, RFC 6763). A hint, never a proof.

A record carries the peer id (also its instance name) and a hash of the federation id, nothing else; who
really answers at an address is proven by the TLS handshake. Multicast may be absent or forbidden: then
`problem` says so in one line, static addresses still work, and nothing fails.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable
from types import TracebackType

from blake3 import blake3
from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from braintorrent.network import limits
from braintorrent.network.address import Address, own_addresses, parse_address
from braintorrent.records import is_peer_id

log = logging.getLogger(__name__)

SERVICE = "_braintorrent._tcp.local."
LOOKUP_SECONDS = 3.0


class Discovery:
    """Announces this peer and reports others between `async with` and its end.

    host, port: where this peer listens, host as a numeric address. A loopback host keeps mDNS on
        loopback; a wildcard host stands for the addresses of all interfaces.
    on_sighting(peer id, "host:port"): called on the event loop, again whenever a record changes.
    known(peer id): whether it is on the roster: a flood of other names does not hide it.
    problem: why multicast does not work here, None if it does.
    """

    def __init__(
        self, peer_id: str, federation: str, port: int, host: str, on_sighting: Callable[[str, str], None],
        known: Callable[[str], bool] = lambda peer: False,
    ) -> None:  # fmt: skip
        self.problem: str | None = None
        self._peer = peer_id
        self._federation = blake3(federation.encode()).hexdigest()[:16].encode()
        self._port = port
        self._host = host
        self._hosts = [parse_address(a).host for a in own_addresses(Address(host, port))]
        self._on_sighting, self._known = on_sighting, known
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._lookups: dict[str, asyncio.Task[None]] = {}
        self._seen: set[str] = set()

    async def __aenter__(self) -> Discovery:
        here = ["127.0.0.1"]  # carries records of ::1 too, which has no multicast
        for interfaces in [here] if _is_loopback(self._host) else [sorted({*self._hosts, *here}), here]:
            try:
                await self._open(interfaces)
                break
            except (OSError, ZeroconfError, TimeoutError) as error:
                await self._close_sockets()
                self.problem = f"mDNS fails on this network ({error or type(error).__name__}); name static peers"
        if self.problem is not None:
            log.warning(self.problem)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Withdraw this peer's record and stop looking. Idempotent."""
        tasks = list(self._lookups.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._zeroconf is not None and self._browser is not None:
            try:
                await self._zeroconf.async_unregister_all_services()
            except (OSError, ZeroconfError) as error:
                log.debug("the mDNS record was not withdrawn: %s", error)
        await self._close_sockets()

    async def _open(self, interfaces: list[str]) -> None:
        version = IPVersion.All if any(":" in i for i in interfaces) else IPVersion.V4Only
        self._zeroconf = AsyncZeroconf(interfaces=interfaces, ip_version=version)
        info = AsyncServiceInfo(
            SERVICE, f"{self._peer}.{SERVICE}", port=self._port, server=f"{self._peer}.local.",
            parsed_addresses=self._hosts, properties={b"id": self._peer.encode(), b"fed": self._federation},
        )  # fmt: skip
        # The name is a key's hash, so there is no conflict to probe for: that would only cost a second.
        await (await self._zeroconf.async_register_service(info, cooperating_responders=True))
        self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE, handlers=[self._changed])

    async def _close_sockets(self) -> None:
        browser, self._browser = self._browser, None
        zeroconf, self._zeroconf = self._zeroconf, None
        if browser is not None:
            await browser.async_cancel()
        if zeroconf is not None:
            await zeroconf.async_close()

    def _changed(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        peer = name.removesuffix("." + SERVICE)
        if not is_peer_id(peer) or peer == self._peer:
            return
        if state_change is ServiceStateChange.Removed:
            self._seen.discard(peer)
            return
        if peer in self._lookups or (self._crowded(peer) and not self._known(peer)):
            return
        self._lookups[peer] = asyncio.create_task(self._look_up(zeroconf, peer, name))
        self._lookups[peer].add_done_callback(lambda _: self._lookups.pop(peer, None))

    def _crowded(self, peer: str) -> bool:
        if len(self._lookups) >= limits.LOOKUPS:
            return True
        return peer not in self._seen and len(self._seen | self._lookups.keys()) >= limits.SIGHTINGS

    async def _look_up(self, zeroconf: Zeroconf, peer: str, name: str) -> None:
        info = AsyncServiceInfo(SERVICE, name)
        try:
            if not await info.async_request(zeroconf, LOOKUP_SECONDS * 1000):
                return
            addresses = info.parsed_addresses()[: limits.ADDRESSES_EACH]
            claims = info.properties.get(b"id"), info.properties.get(b"fed")
        except (OSError, ZeroconfError, ValueError) as error:
            log.debug("mDNS record of %s: %s", name, error)
            return
        if claims != (peer.encode(), self._federation) or not info.port:
            return
        self._seen.add(peer)
        for host in addresses:
            if _is_loopback(host) or _is_announced(host):
                self._on_sighting(peer, str(Address(host, info.port)))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_announced(host: str) -> bool:
    """Whether others can dial `host`: no loopback, no link-local one, which needs a scope only its owner knows."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    return not (ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified)
