"""Rolling back: a stopped lab goes on from before another was in its model, and says so in ledger and record."""

from __future__ import annotations

import asyncio
import json

import pytest
from click.testing import CliRunner

from braintorrent.cli import cli
from braintorrent.errors import BusyError, ConfigError
from braintorrent.node.lab import Lab
from braintorrent.node.lineage import Ancestor, Ancestry
from braintorrent.node.node import Node
from braintorrent.node.pedigree import announced
from braintorrent.node.status import status
from braintorrent.protocol.version import NOTHING
from braintorrent.records import decode_record
from braintorrent.storage import Ledger, StatePaths, file_digest, load_checkpoint
from braintorrent.workbench.kept import find, open_folder


def rollback(folder, *arguments):
    """Its words; raises what the command line would print in one line."""
    result = CliRunner().invoke(cli, ["rollback", "-C", str(folder), "--yes", *arguments], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.output


@pytest.fixture
def late(folders, until):
    """A lab that trained two versions alone and then merged another's; and the other's folder."""
    mine, theirs = folders("lab-a", "lab-b", task={"seconds": 0.1}, discovery=False)
    toml = mine / "peer.toml"
    toml.write_text(toml.read_text().replace("alone_after = 3.0", "alone_after = 0.0"))

    async def run():
        async with asyncio.timeout(40), Node(Lab.open(mine)) as node:
            await until(lambda: status(node)["versions"] >= 2)
            (theirs / "peer.toml").write_text(f'peers = ["{node.listening}"]\n' + (theirs / "peer.toml").read_text())
            async with Node(Lab.open(theirs)):
                await until(lambda: status(node)["merges"])
                merged = status(node)["versions"]
                await until(lambda: status(node)["versions"] > merged + 1)
        return mine, theirs

    return run


def contains(folder):
    """Counter of an own version -> ids of the labs in it; own versions; counter -> parents; the ledger's entries."""
    paths = StatePaths(folder)
    with Ledger(paths.ledger, read_only=True) as ledger:
        me, ancestry = ledger.newest().author, Ancestry(ledger, paths.blobs)
        own = [announced(ledger, me, version) for version, _ in ledger.published()]
        records = {a.version.counter: (paths.blobs / ledger.announced(me, a.version).record).read_bytes() for a in own}
        parents = {counter: decode_record(record).parents for counter, record in records.items()}
        return {a.version.counter: ancestry.trace(a).authors for a in own}, own, parents, list(ledger.chain())


async def one_more(folder, until):
    """Run until it has published another version."""
    async with asyncio.timeout(30), Node(Lab.open(folder)) as node:
        before = status(node)["versions"]
        await until(lambda: status(node)["versions"] > before)


async def test_before_a_lab_then_run_the_next_version_does_not_contain_it(late, until):
    mine, theirs = await late()
    other = Lab.open(theirs)
    other.state.close()
    before, own, *_ = contains(mine)
    last_clean = max(counter for counter, labs in before.items() if other.me not in labs)
    newest = max(before)
    assert other.me in before[newest]
    said = rollback(mine, "--before", "lab-b")
    assert f"lab-b is in {newest - last_clean} of this lab's {newest} versions, since version {last_clean + 1}" in said
    assert f"the next run goes on from version {last_clean}" in said
    assert "go as well: latest" in said, "it is of a version with lab-b"
    kept = [json.loads(file.read_text())["version"] for file in StatePaths(mine).models.glob("*.json")]
    assert all(int(version.split(".")[1]) <= last_clean for version in kept)
    model = find(open_folder(mine))
    assert model.said["content"] in {a.content for a in own[:last_clean]}, "what predict and export take now"
    await one_more(mine, until)
    after, _, parents, chain = contains(mine)
    assert other.me not in after[newest + 1]
    target = own[last_clean - 1]
    assert [(p.author, p.counter, p.content, p.weight) for p in parents[newest + 1]] == [
        (target.author, last_clean, target.content, 1.0)
    ]
    entry = next(entry for entry in chain if entry.kind == "rollback")
    assert entry.body == {"from": str(own[-1].version), "to": str(target.version), "content": target.content,
                          "before": other.me}  # fmt: skip


async def test_the_checkpoint_holds_the_old_weights_and_survives_a_start_that_is_killed(late, until):
    mine, _ = await late()
    rollback(mine, "--to", "1")
    lab = Lab.open(mine)
    with Ledger(lab.state.ledger, read_only=True) as ledger:
        first, newest = announced(ledger, lab.me, ledger.published()[0][0]), ledger.newest()
    checkpoint, reason = load_checkpoint(lab.state.checkpoint, lab.learner.schema)
    lab.state.close()
    assert reason == ""
    assert checkpoint.weights.digest == first.content
    assert checkpoint.base == newest.version
    async with asyncio.timeout(30), Node(Lab.open(mine)) as node:
        node.stop()  # at once: what was gone back to is not lost
        await node.finished()
    await one_more(mine, until)
    *_, parents, _ = contains(mine)
    assert [p.content for p in parents[newest.version.counter + 1]] == [first.content]


async def test_back_to_the_shared_start(late, until):
    mine, _ = await late()
    assert "goes on from the shared start" in rollback(mine, "--to", "0")
    start = file_digest(StatePaths(mine).models / "start.safetensors")
    await one_more(mine, until)
    paths = StatePaths(mine)
    with Ledger(paths.ledger, read_only=True) as ledger:
        rolled = next(entry for entry in ledger.chain() if entry.kind == "rollback")
        counter = int(rolled.body["from"].split(".")[1]) + 1
        version = next(v for v, _ in ledger.published() if v.counter == counter)
        root = announced(ledger, ledger.newest().author, version)
        found = Ancestry(ledger, paths.blobs).trace(root)
    assert set(found.told) == {root, Ancestor(root.author, NOTHING, start)}


async def test_weights_that_are_gone_are_passed_over_or_said_to_be(late):
    mine, theirs = await late()
    found, own, *_ = contains(mine)
    other = Lab.open(theirs)
    other.state.close()
    clean = [counter for counter, labs in found.items() if other.me not in labs]
    (StatePaths(mine).blobs / own[clean[-1] - 1].content).unlink()
    for kept in ("best", "latest"):
        (StatePaths(mine).models / f"{kept}.json").unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=rf"the weights of version {clean[-1]} are not here any more; still here: 1"):
        rollback(mine, "--to", str(clean[-1]))
    said = rollback(mine, "--before", "lab-b")
    assert f"the weights of version {clean[-1]}, without lab-b, are not here any more" in said
    assert f"goes on from version {clean[-2]}" in said
    for counter in clean[:-1]:
        (StatePaths(mine).blobs / own[counter - 1].content).unlink()
    assert "goes on from the shared start" in rollback(mine, "--before", other.me)
    (StatePaths(mine).models / "start.safetensors").unlink()
    with pytest.raises(ConfigError, match=rf"no model without lab-b is here any more; still here: {clean[-1] + 1}"):
        rollback(mine, "--before", "lab-b")


async def test_a_kept_model_is_gone_back_to_where_its_blob_is_gone(late):
    mine, _ = await late()
    paths = StatePaths(mine)
    best = json.loads((paths.models / "best.json").read_text())
    (paths.blobs / best["content"]).unlink()
    rollback(mine, "--to", best["version"])
    with Ledger(paths.ledger, read_only=True) as ledger:
        assert [entry.body["content"] for entry in ledger.chain() if entry.kind == "rollback"] == [best["content"]]


async def test_what_is_unknown_may_contain_it_so_the_way_leads_further_back(late):
    mine, _ = await late()
    paths = StatePaths(mine)
    with Ledger(paths.ledger, read_only=True) as ledger:
        second = ledger.announced(ledger.newest().author, ledger.published()[1][0])
    (paths.blobs / second.record).unlink()
    said = rollback(mine, "--before", "lab-b")
    assert "but a part of it is unknown" in said
    assert "goes on from version 1" in said


async def test_where_only_the_start_is_free_of_doubt_a_person_has_to_choose(late):
    mine, _ = await late()
    paths = StatePaths(mine)
    found, *_ = contains(mine)
    with Ledger(paths.ledger, read_only=True) as ledger:
        (paths.blobs / ledger.own()[0].record).unlink()
    last = max(n for n, labs in found.items() if len(labs) == 1)
    with pytest.raises(ConfigError, match=rf"choose: rollback --to {last}, or rollback --to 0, the shared start"):
        rollback(mine, "--before", "lab-b")
    with Ledger(paths.ledger, read_only=True) as ledger:
        assert not list(ledger.chain("rollback")), "nothing was done"
    assert f"goes on from version {last}" in rollback(mine, "--to", str(last))
    assert "the next run goes on from the shared start" in rollback(mine, "--to", "0")
    assert not list(paths.models.glob("latest*")), "newer than the start"
    with pytest.raises(ConfigError, match="no model yet"):
        find(open_folder(mine))


async def test_a_rollback_that_was_cut_short_is_said_and_done_again(late, until):
    mine, _ = await late()
    rollback(mine, "--to", "1")
    StatePaths(mine).checkpoint.unlink()
    lab = Lab.open(mine)
    with pytest.raises(ConfigError, match=r"the last rollback was cut short; again: braintorrent rollback --to 1"):
        await Node(lab).__aenter__()
    rollback(mine, "--to", "1")
    await one_more(mine, until)


async def test_what_cannot_be_done_is_said_in_one_line(folders, until):
    (folder,) = folders("lab-a", discovery=False)
    Lab.open(folder).state.close()
    with pytest.raises(ConfigError, match="no version was published here yet"):
        rollback(folder, "--to", "1")
    async with asyncio.timeout(30), Node(Lab.open(folder)) as node:
        await until(lambda: status(node)["versions"] >= 1)
        with pytest.raises(BusyError, match="in use by process"):
            rollback(folder, "--to", "1")
    with pytest.raises(ConfigError, match="nobody is, or was, called lab-x here"):
        rollback(folder, "--before", "lab-x")
    with pytest.raises(ConfigError, match=r"'99' is no version of this lab; still here: 1, "):
        rollback(folder, "--to", "99")
    content = json.loads((StatePaths(folder).models / "latest.json").read_text())["content"]
    blob = StatePaths(folder).blobs / content
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    with pytest.raises(ConfigError, match="damaged: not the weights of version"):
        rollback(folder, "--to", str(json.loads((StatePaths(folder).models / "latest.json").read_text())["version"]))
