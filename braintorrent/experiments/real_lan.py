"""Several machines on this one: network namespaces, each with an address of its own, on a bridge. Linux and root.

A side of a partition is a bridge of its own, so that cut-off machines keep their address and their link, as behind a
switch that failed. A machine's line is held to a rate by tbf at both of its ends.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterable
from types import TracebackType

from braintorrent.errors import ConfigError

BURST = 16 * 1024  # bytes that tbf lets through at once: a few full frames, few enough to keep to the rate
QUEUE = 0.2  # seconds; what would wait longer is dropped, as a router does


def run(*command: str) -> None:
    """ConfigError with what the command said if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"{' '.join(command)}: {done.stderr.strip()}")


def obstacle() -> str:
    """Why no such machines can be made here; "" if they can, as far as one sees without trying."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need Linux and root"
    lacking = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    return f"network namespaces need {' and '.join(lacking)} of iproute2" if lacking else ""


class Lan:
    """`with Lan() as lan: command = [*lan.host("192.0.2.1"), "braintorrent", "run", ...]`.

    ConfigError where machines cannot be made. Processes on them must have ended before the `with` does.
    """

    def __init__(self) -> None:
        self._mark = f"bt-{secrets.token_hex(3)}"
        self._hub = f"{self._mark}-hub"
        self._plugs: dict[str, str] = {}  # address -> the hub's end of that machine's line
        self._bridges: list[str] = []
        self._made: list[str] = []

    def __enter__(self) -> Lan:
        if obstacle():
            raise ConfigError(obstacle())
        try:
            self._namespace(self._hub)
            self._bridge(0)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in self._made:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        self._made = []

    def host(self, address: str) -> list[str]:
        """Make the machine of an IPv4 address, or find it. What to put before a command, to run it there."""
        name = self._name(address)
        if address not in self._plugs:
            plug = self._plugs[address] = f"plug{len(self._plugs)}"
            self._namespace(name)
            run("ip", "-n", name, "link", "add", "lan", "type", "veth", "peer", "name", plug, "netns", self._hub)
            run("ip", "-n", self._hub, "link", "set", plug, "master", self._bridge(0), "up")
            run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "lan")
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("ip", "-n", name, "link", "set", "lan", "up")
        return ["ip", "netns", "exec", name]

    def part(self, *sides: Iterable[str]) -> None:
        """Cut the network into these sides, by address; who is in none is on a side with all such."""
        side_of = {address: number for number, side in enumerate(sides, 1) for address in side}
        for address, plug in self._plugs.items():
            run("ip", "-n", self._hub, "link", "set", plug, "master", self._bridge(side_of.get(address, 0)))

    def heal(self) -> None:
        """Everyone reaches everyone again."""
        self.part()

    def limit(self, address: str, uplink: float | None, downlink: float | None) -> None:
        """Hold a machine's line to these bytes per second; None: as fast as it goes."""
        self._rate(self._name(address), "lan", uplink)
        self._rate(self._hub, self._plugs[address], downlink)

    def _rate(self, namespace: str, device: str, rate: float | None) -> None:
        here = ("tc", "-n", namespace, "qdisc")
        if rate is None:
            subprocess.run([*here, "del", "dev", device, "root"], capture_output=True, check=False)  # there may be none
        else:
            limits = ("rate", f"{round(rate)}bps", "burst", str(BURST), "latency", f"{QUEUE}s")
            run(*here, "replace", "dev", device, "root", "tbf", *limits)

    def _name(self, address: str) -> str:
        return f"{self._mark}-{address.rpartition('.')[2]}"

    def _namespace(self, name: str) -> None:
        run("ip", "netns", "add", name)
        self._made.append(name)

    def _bridge(self, number: int) -> str:
        while len(self._bridges) <= number:
            self._bridges.append(f"bridge{len(self._bridges)}")
            run("ip", "-n", self._hub, "link", "add", self._bridges[-1], "type", "bridge")
            run("ip", "-n", self._hub, "link", "set", self._bridges[-1], "up")
        return self._bridges[number]
