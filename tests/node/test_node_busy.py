"""A ledger that another process holds is waited for like room on a disk: noted, tried again, and nothing ends."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from dataclasses import replace

import pytest

from braintorrent.errors import StorageBusy
from braintorrent.node.auditing import audit
from braintorrent.node.lab import Lab
from braintorrent.node.node import Node
from braintorrent.node.noticing import refresh
from braintorrent.node.status import status
from braintorrent.records import Identity
from braintorrent.storage import Ledger, StatePaths, database


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)


@contextlib.contextmanager
def held(path):
    """The ledger at `path`, held for writing by another process."""
    code = (
        "import sqlite3, sys; sql = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "sql.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.communicate()


def test_a_held_ledger_is_said_to_be_busy_and_loses_no_note(tmp_path):
    path, me = tmp_path / "ledger.sqlite", Identity.create()
    with Ledger(path, identity=me) as ledger:
        ledger.count("peer", 1, 2)
        with held(path):
            with pytest.raises(StorageBusy, match="another process holds it"):
                ledger.record("roster", {"action": "trusted"})
            assert ledger.traffic() == {}
        assert ledger.traffic() == {"peer": (1, 2)}


async def test_a_node_whose_ledger_is_held_goes_on_and_publishes_once_it_is_free(folders, until):
    (folder,) = folders("lab-a", timing={"alone_after": 0.1})
    async with asyncio.timeout(40), Node(Lab.open(folder)) as node:
        machine = node.context.machine
        machine.policy = replace(machine.policy, storage_retry=0.3)
        await until(lambda: machine.counter >= 1)
        with held(StatePaths(folder).ledger):
            before = machine.counter
            await until(lambda: "another process holds it" in str(status(node)["notes"]))
            refused = asyncio.to_thread(node.context.ledger.record, "roster", {"action": "trusted"})
            with pytest.raises(StorageBusy):
                await refused
            await asyncio.sleep(1.0)
            assert machine.counter <= before + 1
            node.context.ledger.count("peer", 1, 1)
            await asyncio.wait_for(refresh(node.context), 10)
        await until(lambda: machine.counter >= before + 2)
    assert [finding.said for finding in audit(folder) if not finding.whole] == []


async def test_reading_a_ledger_goes_on_once_it_can_be_read(folders):
    (folder,) = folders("lab-a", timing={"alone_after": 0.1})
    async with asyncio.timeout(40), Node(Lab.open(folder)) as node:
        node.context.machine.policy = replace(node.context.machine.policy, storage_retry=0.05)
        tried = []

        def read():
            tried.append(1)
            if len(tried) < 3:
                raise StorageBusy("held")
            return "read"

        assert await node.context.insist(read) == "read"
        assert status(node)["notes"]["ledger"] == "held"
        await node.context.keep(node.context.ledger.flush)
        assert "ledger" not in status(node)["notes"]
