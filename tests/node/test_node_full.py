"""A disk that a lab itself has filled: its own past gives way, for what it writes next and for its next start."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from braintorrent.errors import StorageFull
from braintorrent.node.lab import Lab
from braintorrent.node.node import Node
from braintorrent.node.status import status
from braintorrent.storage import StatePaths, blobs


def moved(folder, disk):
    """The lab's state is on that disk."""
    state = StatePaths(folder).path
    shutil.move(state, disk / "state")
    state.symlink_to(disk / "state")


@pytest.mark.parametrize("small_disk", ["16m"], indirect=True)  # SQLite's log alone may take 4 MB
async def test_a_lab_goes_on_on_a_disk_full_of_its_own_past_and_starts_there_again(
    folders, small_disk, until, monkeypatch
):
    monkeypatch.setattr(blobs, "RESERVE", 0)  # else there is always some room
    (folder,) = folders("lab-a", task={"size": 100_000, "seconds": 0.0}, timing={"alone_after": 0.0})
    moved(folder, small_disk)
    async with asyncio.timeout(60), Node(Lab.open(folder)) as node:
        await until(lambda: shutil.disk_usage(small_disk).free < 400_000)
        version = status(node)["versions"]
        await until(lambda: status(node)["versions"] >= version + 60)
        node.stop()
        assert await node.finished() == "stopped"
        version = status(node)["versions"]
    assert StatePaths(folder).checkpoint.exists()
    fill(small_disk)
    async with asyncio.timeout(60), Node(Lab.open(folder)) as node:
        await until(lambda: status(node)["versions"] > version)


def fill(disk):
    """The last byte of it is taken, but for the pages in which SQLite looks at its file."""
    free = shutil.disk_usage(disk).free
    with (disk / "filler").open("wb") as file:
        file.write(bytes(max(0, free - (64 << 10))))


async def test_bytes_that_are_not_needed_go_though_the_ledger_cannot_say_so(labs, until, monkeypatch):
    a, b = labs("lab-a", "lab-b")
    async with asyncio.timeout(60), Node(a) as one, Node(b):

        def full(announcement):
            tried.append(announcement)
            raise StorageFull("no room")

        tried = []
        monkeypatch.setattr(one.context.ledger, "forget", full)
        await until(lambda: len(tried) >= 4)
        first = tried[0]
        await until(lambda: not one.context.blobs.has(first.content))
        held = {entry.held.content for entry in one.context.machine.table.entries.values() if entry.held}
        assert first.content not in held
        merges = status(one)["merges"]
        await until(lambda: status(one)["merges"] > merges)
