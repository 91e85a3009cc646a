"""Lineage: back to local training of every lab, a word where knowledge ends, and nothing that a record can lie into."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from click.testing import CliRunner

from braintorrent.cli import cli
from braintorrent.node.control import ended
from braintorrent.node.lab import Lab
from braintorrent.node.lineage import CIRCLE, DAMAGED, GONE, OTHER, UNHEARD, Ancestor, Ancestry, Told
from braintorrent.node.node import Node
from braintorrent.node.pedigree import picture, plain
from braintorrent.node.status import status
from braintorrent.node.tables import console, plain_missed, what_was_missed
from braintorrent.node.trusting import revoke
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.version import NOTHING, Version
from braintorrent.records import Artifact, Identity, Parent, Record, digest, encode_record, sign_announcement
from braintorrent.storage import BlobStore, Gap, Ledger, Taken

# ------------------------------------------------------------- real nodes


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Folders of three labs that ended together, each after three versions of its own."""
    from braintorrent.experiments.processes import introduce

    root = tmp_path_factory.mktemp("three")
    task = 'kind = "standin"\nsize = 200\nsteps = 5\nseconds = 0.2'
    (root / "federation.toml").write_text(f'format = 1\nid = "testing-lineage"\n\n[task]\n{task}\n')
    found = [root / name for name in ("lab-a", "lab-b", "lab-c")]
    for folder in found:
        folder.mkdir()
        (folder / "peer.toml").write_text(
            f'name = "{folder.name}"\nlisten = "127.0.0.1:0"\n[timing]\nask_every = 0.1\nalone_after = 5.0\n'
            "linger = 10.0\nquorum = 2\npatience = 5.0\n[stop]\nversions = 3\n"
        )
    introduce(found)

    async def together():
        async with asyncio.timeout(60):
            nodes = [await Node(Lab.open(folder)).__aenter__() for folder in found]
            try:
                await asyncio.gather(*(node.finished() for node in nodes))
                return [status(node) for node in nodes]
            finally:
                for node in nodes:
                    await node.close()

    return found, asyncio.run(together())


def shown(*arguments):
    result = CliRunner().invoke(cli, ["lineage", *map(str, arguments)], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_lineage_reaches_the_local_training_of_every_lab(ran):
    (folder, *_), _ = ran
    found = json.loads(shown("--json", "-C", folder))
    assert {v["lab"] for v in found["versions"]} == {"lab-a", "lab-b", "lab-c"}
    assert any(not v["parents"] and v["version"].endswith(".1") for v in found["versions"]), "from the shared start"
    assert not any(v["unknown_beyond"] for v in found["versions"])
    assert found["left_out"] == 0
    assert {lab["lab"] for lab in found["labs"]} == {"lab-a", "lab-b", "lab-c"}
    assert sum(lab["influence"] for lab in found["labs"]) == pytest.approx(1.0, abs=1e-5)
    root = found["versions"][0]
    assert (root["lab"], root["share"], root["distance"]) == ("lab-a", 1.0, 0)
    assert sum(p["weight"] for p in root["parents"]) == pytest.approx(1.0)
    assert len({v["content"] for v in found["versions"] if not v["start"]}) == len(found["versions"])


def test_each_version_stands_in_the_tree_once_and_the_merged_model_has_a_lineage_too(ran):
    (folder, *_), _ = ran
    text = shown("merged", "-C", folder)
    versions = json.loads(shown("merged", "--json", "-C", folder))["versions"]
    assert {v["lab"] for v in versions if v["distance"] == 1} == {"lab-a", "lab-b", "lab-c"}
    assert text.count("samples") == len(versions) - 1, "the merged model itself was never announced"
    assert "local training from the shared start" in text
    assert "each version stands once" in text
    assert "lab-a, merged after version 3" in text
    assert "directly, weight 0.33" in text
    labs = json.loads(shown("merged", "--json", "-C", folder))["labs"]
    assert {lab["versions"] for lab in labs} == {3}, "a merge without training is nobody's training"


def test_the_graph_has_every_version_and_every_weight(ran):
    (folder, *_), _ = ran
    versions = json.loads(shown("--json", "-C", folder))["versions"]
    graph = shown("--dot", "-C", folder)
    assert graph.startswith("digraph lineage {")
    assert graph.rstrip().endswith("}")
    assert graph.count("[label=") - graph.count("->") == len(versions)
    assert graph.count("->") == sum(len(v["parents"]) for v in versions)


def test_depth_leaves_out_what_is_further_back_and_says_so(ran):
    (folder, *_), _ = ran
    assert "more versions are not shown" in shown("--depth", 1, "-C", folder)
    found = json.loads(shown("--depth", 1, "--json", "-C", folder))
    assert {v["distance"] for v in found["versions"]} == {0, 1}
    assert found["left_out"] > 0
    everything = json.loads(shown("--json", "-C", folder))
    assert len(found["versions"]) + found["left_out"] == len(everything["versions"])


def test_an_earlier_version_and_a_wrong_word(ran):
    (folder, *_), _ = ran
    first = json.loads(shown("1", "--json", "-C", folder))
    assert [v["lab"] for v in first["versions"]] == ["lab-a"]
    result = CliRunner().invoke(cli, ["lineage", "lab-b", "-C", str(folder)])
    assert "'lab-b' is no version of this lab (it has 1 to 3)" in str(result.exception)


def test_a_revoked_lab_is_marked_in_lineage_and_in_status(ran, until):
    (_, folder, _), said = ran
    assert said[1]["contains_revoked"] == []
    lab = Lab.open(folder)
    revoke(lab.state, lab.identity, lab.federation.id, "lab-c", "sold its scanner")
    lab.state.close()
    assert "lab-c 3 REVOKED" in shown("merged", "-C", folder)
    assert [v["lab"] for v in json.loads(shown("--json", "-C", folder))["labs"] if v["revoked"]] == ["lab-c"]
    assert "REVOKED" in shown("--dot", "-C", folder)
    asked = CliRunner().invoke(cli, ["rollback", "--before", "lab-c", "-C", str(folder)], input="n\n")
    assert re.search(r"lab-c is in \d of this lab's 3 versions", asked.output), "by the name it had on the roster"
    assert asked.exit_code == 1
    assert not lab.state.checkpoint.exists(), "nothing done without a yes"
    assert ended(folder)["contains_revoked"] == ["lab-c"], "the folder says so before any node runs there again"

    async def once():
        async with asyncio.timeout(20), Node(Lab.open(folder)) as node:
            await until(lambda: status(node)["contains_revoked"])
            return status(node)

    found = asyncio.run(once())
    assert found["contains_revoked"] == ["lab-c"]
    assert "rollback --before lab-c" in found["notes"]["lineage"]


def test_a_record_that_is_gone_or_damaged_is_a_hole(ran, tmp_path):
    (*_, folder), _ = ran
    lab = Lab.open(folder)
    try:
        with Ledger(lab.state.ledger, read_only=True) as ledger:
            newest = ledger.newest()
            root = Ancestor(lab.me, newest.version, newest.content)
            whole = Ancestry(ledger, lab.state.blobs).trace(root)
            gone, damaged = [a for a, told in whole.told.items() if told.parents and a != root][:2]
            place = tmp_path / "blobs"
            place.mkdir()
            for told in whole.told:
                record = ledger.announced(told.author, told.version).record
                data = (lab.state.blobs / record).read_bytes()
                if told == damaged:
                    data = data[:-1] + bytes([data[-1] ^ 1])
                if told != gone:
                    (place / record).write_bytes(data)
            found = Ancestry(ledger, place).trace(root)
            assert {a: found.told[a].hole for a in found.holes} == {gone: GONE, damaged: DAMAGED}
            out = console()
            with out.capture() as text:
                out.print(picture(found, lambda peer: peer[:7], ()))
            assert f"unknown beyond here: {GONE}" in text.get()
    finally:
        lab.state.close()


# ------------------------------------------------------------- what records can claim


class Lie:
    """A ledger and blobs into which versions of any claims can be put."""

    def __init__(self, path):
        self.path, self.me = path, Identity.create()
        self.blobs = BlobStore(path / "blobs", 1 << 30)
        self.ledger = Ledger(path / "ledger.sqlite", identity=self.me)

    def publish(self, who, counter, parents, content=""):
        content = content or digest(f"{who.id} {counter}".encode())
        artifact = Artifact(kind="weights", codec="safetensors", size=1, digest=content, chunks=(content,))
        rows = [Parent(author=a, incarnation=v.incarnation, counter=v.counter, content=c, weight=w)
                for (a, v, c), w in parents]  # fmt: skip
        data = encode_record(Record(parents=tuple(rows), artifacts=(artifact,), metrics=()))
        record = self.blobs.put_bytes(data)
        self.ledger.mark_held(sign_announcement(who, Announcement(
            federation="lies", author=who.id, version=Version(7, counter), content=content, samples=10, steps=1,
            seconds=0.0, schema=digest(b"schema"), record=record, record_size=len(data), final=False,
        )))  # fmt: skip
        return Ancestor(who.id, Version(7, counter), content)

    def trace(self, root):
        return Ancestry(self.ledger, self.path / "blobs").trace(root)


@pytest.fixture
def lie(tmp_path):
    made = Lie(tmp_path)
    yield made
    made.ledger.close()


def named(who, counter, content=None):
    return Ancestor(who.id, Version(7, counter), content or digest(f"{who.id} {counter}".encode()))


def test_shares_are_the_coefficients_of_what_each_training_changed(lie):
    a, b = lie.me, Identity.create()
    start = lie.publish(a, 1, []), lie.publish(b, 1, [])
    second = lie.publish(b, 2, [(start[0], 0.25), (start[1], 0.75)])
    root = lie.publish(a, 2, [(start[0], 0.5), (second, 0.5)])
    found = lie.trace(root)
    assert found.share == {root: 1.0, second: 0.5, start[0]: 0.5 + 0.5 * 0.25, start[1]: 0.5 * 0.75}
    assert found.influence == pytest.approx({a.id: 1.625 / 2.5, b.id: 0.875 / 2.5})
    assert found.authors == {a.id, b.id}


def test_records_that_lead_in_a_circle_end(lie):
    a, b = lie.me, Identity.create()
    lie.publish(b, 1, [(named(b, 2), 1.0)])
    lie.publish(b, 2, [(named(b, 1), 1.0)])
    itself = lie.publish(b, 3, [(named(b, 3), 1.0)])
    root = lie.publish(a, 1, [(named(b, 1), 0.5), (itself, 0.5)])
    found = lie.trace(root)
    assert [found.told[hole].hole for hole in found.holes] == [CIRCLE, CIRCLE]
    assert max(found.share.values()) <= 1.0


def test_claims_beyond_all_measure_are_scaled_contradictions_and_strangers_are_holes(lie):
    a, b, c = lie.me, Identity.create(), Identity.create()
    true = lie.publish(b, 1, [])
    false = named(b, 1, "f" * 64)
    root = lie.publish(a, 1, [(true, 1.0), (false, 1.0), (named(c, 9), 1.0), ((a.id, NOTHING, "0" * 64), 1.0)])
    found = lie.trace(root)
    assert found.share[true] == 0.25
    assert {found.told[hole].hole for hole in found.holes} == {OTHER, UNHEARD}
    assert c.id in found.authors, "it is said to be in it"
    assert found.told[Ancestor(a.id, NOTHING, "0" * 64)] == Told()


def test_a_long_and_wide_lineage_is_cut_with_a_word_and_names_cannot_reach_the_terminal(lie, monkeypatch):
    a, others = lie.me, [Identity.create() for _ in range(20)]
    firsts = [lie.publish(who, 1, []) for who in others]
    before = lie.publish(a, 1, [])
    for counter in range(2, 30):
        before = lie.publish(a, counter, [(before, 0.5), *((first, 0.025) for first in firsts)])
    found = lie.trace(before)
    assert found.unread == 0
    out = console()
    with out.capture() as captured:
        out.print(picture(found, lambda peer: "lab", (), depth=100))
    text = captured.get()
    assert text.count("samples") == 12 + 28, "of 49 versions: at most 12 below one"
    assert "9 more versions are not shown" in text
    monkeypatch.setattr("braintorrent.node.lineage.MAX_MENTIONS", 50)
    cut = lie.trace(before)
    assert cut.unread > 0
    assert len(cut.told) < len(found.told)
    with out.capture() as captured:
        out.print(picture(cut, lambda peer: "lab", ()))
    assert "were not looked up: this lineage is too long" in captured.get()
    json.dumps(plain(cut, lambda peer: "lab", ()))


def test_names_are_safe_to_print():
    from braintorrent.node.pedigree import namer

    class Roster:
        def name(self, peer):
            return "\x1b]0;owned\x07lab\u202e\n"

    assert namer("me", "lab-a", Roster())("other") == "]0;ownedlab"


def test_the_record_outlives_the_weights_within_a_bound(tmp_path):
    blobs = BlobStore(tmp_path, 16_000)
    records = [blobs.put_bytes(bytes([number]) * 400) for number in range(4)]
    weights = blobs.put([b"w" * 10_000]).digest
    blobs.supersede(weights)
    for record in records:
        blobs.archive(record)
    assert [blobs.has(record) for record in records] == [False, False, True, True], "a sixteenth of the bound"
    blobs.put([b"v" * 10_000])
    assert not blobs.has(weights), "weights go first"
    assert blobs.has(records[3])
    blobs.put([b"u" * 5_500])
    assert [blobs.has(record) for record in records[2:]] == [False, True], "then the oldest records"
    assert BlobStore(tmp_path, 16_000).has(records[3])


def test_what_was_missed_of_the_others_is_told_to_people_and_scripts(ran):
    (folder, *_), _ = ran
    found = json.loads(shown("--missed", "--json", "-C", folder))["labs"]
    assert {lab["lab"] for lab in found} == {"lab-b", "lab-c"}
    assert all(1 <= lab["merged"] + lab["missed"] <= 3 for lab in found)
    assert "lab-c" in shown("--missed", "-C", folder)
    assert CliRunner().invoke(cli, ["lineage", "2", "--missed", "-C", str(folder)]).exit_code == 2


def test_the_longest_gap_and_every_reason_stand_in_the_table_of_what_was_missed():
    gaps = Gap(3, 3, 10.0, 20.0), Gap(9, 24, 1_795_686_000.0, 1_795_686_090.0, held=2, skipped={10: "norm"})
    taken = {"a" * 52: Taken(2), "b" * 52: Taken(31, gaps, {"norm": 1, "validation": 4})}
    to = console()
    with to.capture() as printed:
        to.print(what_was_missed(taken, {"a" * 52: "lab-a", "b" * 52: "[red]"}.__getitem__))
    first, second = printed.get().splitlines()[1:]
    year = "2026-11-"
    assert all(word in first for word in ("[red]", "31", "17", "16 (9 to 24)", year, "norm 1, validation 4"))
    assert "lab-a" in second
    assert year not in second
    [_, told] = plain_missed(taken, str)["labs"]
    assert (told["missed"], told["gaps"][1]["held"]) == (17, 2)
