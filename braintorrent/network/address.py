"""Addresses as people write them: "host:port", "192.0.2.7:47100", "[fd00::7]:47100"."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from braintorrent.network.limits import ADDRESS_CHARS, ADDRESSES_EACH

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"  # RFC 1123; what getaddrinfo can encode
_HOST = rf"\[(?P<v6>[0-9a-fA-F:.]{{2,45}})\]|(?P<host>{_LABEL}(?:\.{_LABEL})*)"
_ADDRESS = re.compile(rf"(?:{_HOST}):(?P<port>[0-9]{{1,5}})")


class Address(NamedTuple):
    """Where to listen or dial. `host` carries no brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """`text` as an Address; ValueError says what is wrong. Port 0 passes: a listener may ask for it."""
    match = _ADDRESS.fullmatch(text) if len(text) <= ADDRESS_CHARS else None
    if match is None:
        raise ValueError(f'{text[:ADDRESS_CHARS]!r} is not an address; write "host:port" or "[v6]:port"')
    if match["v6"] is not None:
        ipaddress.IPv6Address(match["v6"])
    if int(match["port"]) > 65535:
        raise ValueError(f"{text!r}: a port is at most 65535")
    return Address(match["v6"] or match["host"], int(match["port"]))


def own_addresses(listening: Address) -> tuple[str, ...]:
    """Where others may dial a listener: itself, or for a wildcard host each interface's address.

    Loopback stands in only when there is nothing else; link-local addresses need a zone and are left out.
    """
    try:
        wildcard = ipaddress.ip_address(listening.host).is_unspecified
    except ValueError:
        wildcard = False  # a name
    if not wildcard:
        return (str(listening),)
    import ifaddr

    found: list[str] = []
    families = (4, 6) if listening.host == "::" else (4,)
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            address = ipaddress.ip_address(ip.ip if isinstance(ip.ip, str) else ip.ip[0])
            if address.version in families and not (address.is_loopback or address.is_link_local):
                found.append(str(Address(str(address), listening.port)))
    return tuple(sorted(found)[:ADDRESSES_EACH]) or (str(Address("127.0.0.1", listening.port)),)
