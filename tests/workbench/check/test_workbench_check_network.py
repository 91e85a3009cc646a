"""Port, addresses, mDNS with real sockets, names; beside a running node too."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from braintorrent.node.lab import Lab
from braintorrent.node.node import Node
from braintorrent.workbench.check import check

STANDIN = {"format": 1, "id": "check-tests", "task": {"kind": "standin", "seconds": 0.1}}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


def words(report: Any, level: str) -> list[str]:
    return [f.what for f in report.findings if f.level == level and f.group == "network"]


def test_a_port_held_by_another_process(lab: Any, only: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        lab.peer(listen=f"127.0.0.1:{port}")
        said = only(lab.check(), "error", "port").what
    assert said == f"port {port} is in use by another process; choose another `listen`"


def test_a_port_that_is_free(lab: Any) -> None:
    port = free_port()
    lab.peer(listen=f"127.0.0.1:{port}")
    assert f"port {port} is free" in words(lab.check(), "ok")


def test_mdns_on_this_machine(lab: Any) -> None:
    lab.peer(discovery=True)
    assert "mDNS works on 127.0.0.1" in words(lab.check(), "ok")


def test_an_address_that_is_not_here(lab: Any, only: Any) -> None:
    lab.peer(listen="203.0.113.9:47100", discovery=True)
    report = lab.check()
    said = only(report, "error", "port").what
    assert said.startswith("cannot listen on 203.0.113.9:47100: Cannot assign requested address")
    (warning,) = words(report, "warning")
    assert warning.startswith("mDNS does not work on 203.0.113.9 (")


def test_names_of_static_peers(lab: Any, only: Any) -> None:
    lab.peer(peers=["localhost:47100", "nohost.invalid:47100", "192.0.2.7:47100"])
    report = lab.check()
    finding = only(report, "warning", "name")
    assert finding.what.startswith("the name nohost.invalid cannot be resolved (")
    assert finding.where.endswith("peer.toml: peers")
    assert "the name localhost resolves" in words(report, "ok")


@pytest.mark.parametrize("quick", [True, False])
async def test_beside_the_running_node(lab: Any, quick: bool) -> None:
    import tomli_w

    (lab.folder / "federation.toml").write_text(tomli_w.dumps(STANDIN))
    async with Node(Lab.open(lab.folder)) as node:
        report = await asyncio.to_thread(check, lab.folder, quick=quick)
        assert report.ready, report.findings
        assert any(f"listens on {node.listening}" in what for what in words(report, "ok"))
        node.stop()
        assert await node.finished() == "stopped"
