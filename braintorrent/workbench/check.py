"""Preflight of a peer folder: everything that would go wrong later, found now, all of it at once.

Takes no lock and writes nothing, so it also runs beside a node. Nothing of the lab's data or model leaves the
machine; the network checks send mDNS probes with random names, and ask the name server for static peers' names.

check_findings.py       what a finding is
check_configuration.py  peer.toml, federation.toml, key, roster, start weights
check_data.py           each case by itself
check_set.py            cases against each other: doubles, parts, labels, outliers
check_machine.py        memory and time by real steps, device, disk, clock
check_network.py        port, addresses, mDNS, names
check_tables.py         the report for people
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from braintorrent.node.lab import check_folder
from braintorrent.storage import StatePaths
from braintorrent.workbench.check_configuration import check_configuration
from braintorrent.workbench.check_data import check_data
from braintorrent.workbench.check_findings import Report
from braintorrent.workbench.check_machine import check_machine
from braintorrent.workbench.check_network import check_network
from braintorrent.workbench.kept import borrowed

Progress = Callable[[str, int, int], None]  # what is being done, how much is done, of how much


def check(folder: Path, *, quick: bool = False, progress: Progress = lambda *_: None) -> Report:
    """All findings on a peer folder. quick: no training steps. ConfigError if it is no peer folder."""
    check_folder(folder)
    report, began = Report(), time.monotonic()
    configuration = report.group("configuration")
    setup = check_configuration(configuration, folder)
    if setup is not None:
        with borrowed(StatePaths(folder).split) as split:
            sound = check_data(report.group("data"), setup, split, report.facts, progress)
            instead = (
                "the configuration comes first" if configuration.failed else "the data comes first" if not sound else
                "--quick was given" if quick else ""
            )  # fmt: skip
            check_machine(report.group("machine"), setup, split, report.facts, progress, instead=instead)
        progress("asking the network", 0, 1)
        check_network(report.group("network"), setup, report.facts)
        report.facts["peer"] = setup.peer.name
    report.facts["seconds"] = round(time.monotonic() - began, 2)
    return report
