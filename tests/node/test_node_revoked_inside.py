"""A lab must go: what all of the others do, in order, so that none of their later models contains it."""

from __future__ import annotations

import asyncio
import logging
import re
import tomllib
from contextlib import AsyncExitStack

import pytest
import tomli_w
from click.testing import CliRunner

from braintorrent.cli import cli
from braintorrent.node.control import ended
from braintorrent.node.lab import Lab
from braintorrent.node.lineage import Ancestry
from braintorrent.node.node import Node
from braintorrent.node.status import status
from braintorrent.records import Identity
from braintorrent.storage import Ledger, StatePaths


def said(*arguments):
    """What a command prints; raises what the command line would print in one line."""
    result = CliRunner().invoke(cli, [*map(str, arguments)], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.output


def change(folder, **keys):
    toml = folder / "peer.toml"
    toml.write_text(tomli_w.dumps(tomllib.loads(toml.read_text()) | keys))


async def start(stack, folder, *others):
    """Its node, which dials the others'."""
    change(folder, peers=[node.listening for node in others])
    return await stack.enter_async_context(Node(Lab.open(folder)))


def inside(folder):
    """Counter of an own version -> ids of the labs in it."""
    paths = StatePaths(folder)
    with Ledger(paths.ledger, read_only=True) as ledger:
        ancestry = Ancestry(ledger, paths.blobs)
        return {a.version.counter: ancestry.authors(a) for a in ledger.own()}


def skips(folder):
    """Of every merge in the ledger: author -> reason."""
    with Ledger(StatePaths(folder).ledger, read_only=True) as ledger:
        return [{a: part.reason for a, part in merged.skipped.items()} for _, merged in ledger.merges()]


def peer_id(folder):
    return Identity.load(StatePaths(folder).key).id


@pytest.fixture
def three(folders, until):
    """Folders of labs a, b and c, all stopped: a and b trained without c at first, then c went into both."""
    # Slow enough that lab-a holds every version of lab-b's: beyond one that it missed it would not know of lab-c.
    found = a, b, c = folders("lab-a", "lab-b", "lab-c", discovery=False, task={"seconds": 0.4})

    async def run():
        for folder in found:
            change(folder, timing={"ask_every": 0.1, "alone_after": 0.0, "linger": 0.0})
        async with asyncio.timeout(60), AsyncExitStack() as stack, AsyncExitStack() as leaves_first:
            first = await start(stack, a)
            second = await start(leaves_first, b, first)
            await until(lambda: min(status(node)["versions"] for node in (first, second)) >= 2)
            third = await start(stack, c, first, second)
            await until(lambda: all(third.lab.me in node.context.contained for node in (first, second)))
            entries = first.context.machine.table.entries
            await until(lambda: third.lab.me in first.context.ancestry.authors(entries[second.lab.me].held))
        return found

    return run


async def until_versions(until, node, more):
    """Wait for so many more versions of a node; the counter of the last before."""
    before = status(node)["versions"]
    await until(lambda: status(node)["versions"] >= before + more)
    return before


async def test_labs_that_revoke_refuse_and_roll_back_never_contain_it_again(three, until, caplog):
    a, b, c = await three()
    gone = peer_id(c)
    told, _ = (said("revoke", "lab-c", "--why", "sold its scanner", "-C", folder) for folder in (a, b))
    assert "this lab's model contains lab-c: train on, so that its share fades, or stop and go back: " in told
    assert "lab-b's newest model contains lab-c: its influence goes on through lab-b, unless lab-b rolls back" in told
    found = said("rollback", "--before", "lab-c", "--yes", "-C", a)
    assert "lab-b's newest model contains lab-c: it comes back at the first merge unless lab-b rolls back too, or " \
        '[gates] lineage = "refuse"' in found  # fmt: skip
    change(a, gates={"lineage": "refuse"})
    assert "comes back" not in said("rollback", "--before", "lab-c", "--yes", "-C", a)
    newest, clean = max(inside(a)), max(n for n, labs in inside(a).items() if gone not in labs)
    went = f"version {clean} (rolled back from {newest})"
    last = CliRunner().invoke(cli, ["status", str(a)])
    assert f"the next run goes on from {went}" in last.output
    assert "lab-c" not in last.output, "nothing is said of the version gone back from"
    assert ended(a)["contains_revoked"] == []
    assert "lineage" not in ended(a)["notes"]
    assert ended(b)["contains_revoked"] == ["lab-c"]
    caplog.set_level(logging.INFO)
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        behind = await start(stack, b)  # it has not rolled back yet
        first = await start(stack, a, behind)
        await until(lambda: "without lab-b" in status(first)["notes"])
        since = await until_versions(until, first, 3)
        assert "contains a lab revoked here" in status(first)["notes"]["without lab-b"]
        assert status(first)["contains_revoked"] == []
        assert status(behind)["contains_revoked"] == ["lab-c"]
    assert {peer_id(b): "revoked"} in skips(a)
    assert f"going on with version {newest + 1}, from {went}" in caplog.text
    assert "skipped lab-b (contains lab-c, revoked here)" in caplog.text
    assert re.search(r"merged .*own 0\.\d\d \(contains lab-c, revoked here\)", caplog.text), "lab-b's own"
    change(b, gates={"lineage": "refuse"})
    said("rollback", "--before", "lab-c", "--yes", "-C", b)
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        first = await start(stack, a)
        second = await start(stack, b, first)
        await until(lambda: all(node.context.merges for node in (first, second)))
        await until_versions(until, first, 2)
        await until_versions(until, second, 2)
        assert "without lab-b" not in status(first)["notes"]
        entry = first.context.machine.table.entries[peer_id(b)]
        assert not entry.refused, "it says nothing for good about lab-b's models"
    with_it = {folder: [n for n, labs in inside(folder).items() if gone in labs] for folder in (a, b)}
    assert max(with_it[a]) <= since - 1
    for folder in (a, b):
        after = [n for n in inside(folder) if n > max(with_it[folder])]
        assert len(after) >= 3
    assert peer_id(b) in inside(a)[max(inside(a))]
