"""Network: the port, the addresses others would dial, mDNS on this network, names of static peers. Dials nobody."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any

from braintorrent.errors import LocalError
from braintorrent.network.address import Address, own_addresses, parse_address
from braintorrent.network.listener import bind
from braintorrent.network.probing import echoes
from braintorrent.node.control import holder, read_status
from braintorrent.workbench.check_configuration import Setup
from braintorrent.workbench.check_findings import Group

PROBE_SECONDS, LOOK_UP_SECONDS = 3.0, 5.0
FILE = "peer.toml"


def check_network(group: Group, setup: Setup, facts: dict[str, Any]) -> None:
    """Findings on how others will reach this lab and find it."""
    try:
        listening = parse_address(setup.peer.listen)
    except ValueError:
        return  # said of the configuration
    port = _port(group, setup, listening)
    hosts = [parse_address(address).host for address in own_addresses(Address(listening.host, port or 1))]
    _addresses(group, setup, hosts, port, facts)
    facts.update(port=port or None)
    if not setup.peer.discovery:
        group.note("mdns", "discovery = false: only static addresses and the roster's are dialled")
    else:
        _mdns(group, hosts)
    _names(group, setup)


def _port(group: Group, setup: Setup, listening: Address) -> int:
    """The port others would dial; 0 where it is not known before the start."""
    where = f"{setup.folder / FILE}: listen"
    running = read_status(setup.folder)
    if running is not None:
        group.ok("port", f"this peer's own node (process {running['pid']}) listens on {running['listen']}")
        return parse_address(running["listen"]).port
    if (process := holder(setup.folder)) is not None:
        group.note("port", f"this peer's own node (process {process}) is starting or ending")
        return listening.port
    try:
        bind(setup.peer.listen).close()
    except LocalError as error:
        group.error("port", str(error), where, "end what holds it, or choose another address")
        return listening.port
    if not listening.port:
        group.note("port", "each start takes a free port: only mDNS tells others which", where,
                   "give it a number for a firewall rule and for static peers")  # fmt: skip
    else:
        group.ok("port", f"port {listening.port} is free")
    return listening.port


def _addresses(group: Group, setup: Setup, hosts: list[str], port: int, facts: dict[str, Any]) -> None:
    """Where others would dial, and what a firewall must let in."""
    addresses = setup.peer.advertise or [str(Address(host, port)) if port else host for host in hosts]
    facts["addresses"] = addresses
    shown = ", ".join(addresses)
    if all(_is_loopback(host) for host in hosts) and not setup.peer.advertise:
        meant = _is_loopback(parse_address(setup.peer.listen).host)
        say = group.note if meant else group.warning
        say("addresses", f"only this machine can reach {shown}", f"{setup.folder / FILE}: listen",
            "right for peers on one machine" if meant else "connect the machine to the labs' network")  # fmt: skip
        return
    group.ok("addresses", f"others would dial {shown}")
    through = f"TCP port {port}" if port else "its TCP port"
    mdns = " and, for mDNS, UDP port 5353" if setup.peer.discovery else ""
    group.note("firewall", f"a firewall here must let {through}{mdns} in",
               do=f"for example: ufw allow {port}/tcp" if port else "give `listen` a port")  # fmt: skip


def _mdns(group: Group, hosts: list[str]) -> None:
    """Does a record announced on each interface come back?"""
    found = asyncio.run(echoes([host for host in hosts if _is_numeric(host)], PROBE_SECONDS))
    for host, trouble in found.items():
        if trouble:
            group.warning("mdns", f"mDNS does not work on {host} ({trouble}): labs will not find each other by it",
                          do="static addresses still work: `peers` in peer.toml, or in the roster lines")  # fmt: skip
        else:
            group.ok("mdns", f"mDNS works on {host}")


def _names(group: Group, setup: Setup) -> None:
    """Names of static peers and of the roster's addresses can be looked up. Numeric ones need no look-up."""
    of = dict.fromkeys(setup.peer.peers, f"{setup.folder / FILE}: peers")
    for member in setup.roster.members.values() if setup.roster else ():
        of.update(dict.fromkeys(member.addresses, f"roster: {member.name}"))
    places: dict[str, list[str]] = {}
    for address, where in of.items():
        with contextlib.suppress(ValueError):  # said of the configuration
            host = parse_address(address).host
            if not _is_numeric(host):
                places.setdefault(host, []).append(where)
    for host, trouble in _look_up(places).items():
        if trouble:
            group.warning("name", f"the name {host} cannot be resolved ({trouble})", ", ".join(places[host]),
                          "correct it, or write the address as a number")  # fmt: skip
        else:
            group.ok("name", f"the name {host} resolves")


def _look_up(hosts: Iterable[str]) -> dict[str, str]:
    """Name -> why it cannot be resolved, "" if it can. The system's own look-up knows no deadline."""
    found = dict.fromkeys(hosts, f"no answer within {LOOK_UP_SECONDS:g} s")

    def look_up(host: str) -> None:
        try:
            socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            found[host] = ""
        except OSError as error:
            found[host] = error.strerror

    threads = [threading.Thread(target=look_up, args=[host], daemon=True) for host in found]
    for thread in threads:
        thread.start()
    until = time.monotonic() + LOOK_UP_SECONDS
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return dict(found)


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_numeric(host) and ipaddress.ip_address(host).is_loopback)
