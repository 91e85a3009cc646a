"""Audit: any byte that changed is found, and what a kill leaves behind is whole."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from braintorrent.cli import cli
from braintorrent.errors import StorageFull
from braintorrent.node import trusting
from braintorrent.node.auditing import audit
from braintorrent.node.lab import Lab, ensure_identity
from braintorrent.node.node import Node
from braintorrent.node.notes import compare_notes, write_notes
from braintorrent.node.roster import Member
from braintorrent.node.trusting import trust
from braintorrent.protocol.version import Version
from braintorrent.records import Identity, digest, sign_announcement
from braintorrent.storage import Ledger, Merged, Part, StatePaths, seal

FLIPS = 150


def broken(folder):
    return [f"{found.what}: {found.said}" for found in audit(folder) if not found.whole]


def run(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def flip(file, rng, at=None):
    """Change one byte of a file; where."""
    data = bytearray(file.read_bytes())
    at = rng.randrange(len(data)) if at is None else at
    data[at] ^= rng.randrange(1, 256)
    file.write_bytes(data)
    return at


def test_any_flipped_byte_of_ledger_blobs_or_roster_is_found(stopped, tmp_path):
    folder, rng = stopped[0], random.Random(0)
    assert broken(folder) == []
    state = StatePaths(folder)
    files = [state.ledger, state.roster, *state.blobs.iterdir()]
    assert len(files) > 3
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for file in files:
        victim = copy / file.relative_to(folder)
        size = file.stat().st_size
        for at in [0, size - 1, *(rng.randrange(size) for _ in range(FLIPS // len(files)))]:
            flip(victim, rng, at)
            assert len(broken(copy)) == 1, f"byte {at} of {file.name}"
            shutil.copyfile(file, victim)
    assert broken(copy) == []


def test_the_verb_says_what_it_checked_and_fails_at_the_first_break(stopped):
    folder = stopped[0]
    shown = run("audit", folder)
    assert shown.exit_code == 0
    whats = [line.split(":")[0] for line in shown.output.splitlines()]
    ledger, beside = ["seal", "log", "file", "announcements", "chain", "tables"], ["notices", "blobs", "roster"]
    assert whats == [*ledger, *beside, "models", "start", "files"]
    assert "not covered: peer.toml" in shown.output
    assert json.loads(run("audit", folder, "--json").output)["whole"] is True
    flip(StatePaths(folder).roster, random.Random(1))
    shown = run("audit", folder)
    assert shown.exit_code == 1
    assert shown.stderr.splitlines() == [
        f"braintorrent: {folder}: broken: roster: roster.json is not what its last entry in the ledger says: changed "
        "by hand, or damaged"
    ]
    said = json.loads(run("audit", folder, "--json").output)
    assert said["whole"] is False
    assert said["broken"].startswith("roster: ")


async def test_a_running_node_is_audited_but_for_its_seal(folders, until):
    (folder,) = folders("lab-a", timing={"alone_after": 0.0})
    async with asyncio.timeout(30), Node(Lab.open(folder)) as node:
        await until(lambda: node.context.machine.counter)
        found = {finding.what: finding for finding in await asyncio.to_thread(lambda: list(audit(folder)))}
    assert all(finding.whole for finding in found.values())
    assert "the seal is checked when it is stopped" in found["seal"].said
    assert "whole, signed by" in next(iter(audit(folder))).said


FORGERIES = [
    ("UPDATE part SET weight = weight / 2", "tables: entry"),
    ("UPDATE merge SET last = 1 - last", "tables: entry"),
    ("DELETE FROM entry WHERE sequence = (SELECT max(sequence) FROM entry)", "the tables tell of"),
    ("DELETE FROM entry WHERE sequence = 2", "chain: entry 3 does not follow"),
    ("UPDATE entry SET sequence = sequence + 100 WHERE sequence > 1", "chain: entry 102 does not follow"),
    ("UPDATE entry SET raw = (SELECT raw FROM entry WHERE sequence = 1) WHERE sequence = 2", "does not follow"),
    ("INSERT INTO life VALUES (1, 0)", "tables: entry"),
    ("INSERT INTO refusal VALUES ('peer', 1, 1, 'schema', 0)", "refused without an entry"),
    ("DELETE FROM announcement WHERE own", "entries of kind published, the tables tell of 0"),
    ("INSERT INTO notice VALUES ('d', 'nonsense', 'own', 0)", "notices: "),
    ("UPDATE announcement SET content = 'x'", "filed under another name"),
]


@pytest.mark.parametrize(("statement", "says"), FORGERIES)
def test_what_was_changed_through_sqlite_is_found_without_the_seal(stopped, statement, says):
    state = StatePaths(stopped[0])
    with sqlite3.connect(state.ledger) as sql:
        sql.execute(statement)
    sql.close()
    assert "seal: " in broken(stopped[0])[0]
    state.ledger.with_suffix(".seal").unlink()
    assert says in broken(stopped[0])[0]


def test_another_key_s_chain_is_not_this_lab_s(stopped):
    a, b = stopped
    shutil.copyfile(StatePaths(b).key, StatePaths(a).key)
    assert "and this lab is" in broken(a)[0]


def test_a_kill_at_any_time_leaves_a_folder_that_is_whole(folders):
    (folder,) = folders("lab-a", task={"seconds": 0.0}, timing={"alone_after": 0.0, "checkpoint_every": 0.01})
    rng = random.Random(3)
    for _ in range(4):
        command = [sys.executable, "-m", "braintorrent", "run", str(folder)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not StatePaths(folder).control.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, 1.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert broken(folder) == []
        assert "absent" in next(iter(audit(folder))).said
        StatePaths(folder).control.unlink(missing_ok=True)


# ------------------------------------------------------------- the seal


def test_the_last_writer_seals_and_no_other(tmp_path):
    path, seal, me = tmp_path / "ledger.sqlite", tmp_path / "ledger.seal", Identity.create()
    with Ledger(path, identity=me) as first:
        first.begin_incarnation(1)
        with Ledger(path, identity=me) as second:
            second.record("roster", {"action": "trusted"})
        assert not seal.read_bytes()
        with Ledger(path, read_only=True) as reader:
            assert [entry.kind for entry in reader.chain()] == ["life", "roster"]
    assert seal.read_bytes()
    with Ledger(path, read_only=True):
        pass
    assert seal.read_bytes()
    with Ledger(path, identity=me):
        assert not seal.read_bytes()


def test_who_is_not_alone_writes_no_more_once_another_may_seal(tmp_path, monkeypatch):
    path, me = tmp_path / "ledger.sqlite", Identity.create()
    first, second = Ledger(path, identity=me), Ledger(path, identity=me)
    second.record("roster", {"action": "trusted"})
    first.count("peer", 5, 5)  # not written yet
    alone, asked = seal._alone, []

    def ask(descriptor):
        last = alone(descriptor)
        asked.append(last)
        if len(asked) == 1:
            second.close()
        return last

    monkeypatch.setattr(seal, "_alone", ask)
    first.close()
    assert asked == [False, True]
    assert seal.sealed(path) == me.id
    with Ledger(path, read_only=True) as ledger:
        assert ledger.traffic() == {"peer": (5, 5)}


def test_two_processes_never_fork_the_chain(tmp_path):
    me = Identity.create()
    me.save(tmp_path / "key")
    code = (
        "import sys; from pathlib import Path; from braintorrent.records import Identity;"
        "from braintorrent.storage import Ledger; here = Path(sys.argv[1]);"
        "ledger = Ledger(here / 'ledger.sqlite', identity=Identity.load(here / 'key'));"
        "[ledger.record('roster', {'n': n}) for n in range(30)]; ledger.close()"
    )
    Ledger(tmp_path / "ledger.sqlite", identity=me).close()
    workers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]
    with Ledger(tmp_path / "ledger.sqlite", read_only=True) as ledger:
        assert all(found.whole for found in ledger.proved(me.id))
        assert len(list(ledger.chain())) == 60


# ------------------------------------------------------------- comparing notes


def test_two_honest_labs_agree(stopped, tmp_path):
    a, b = stopped
    for mine, theirs, name in ((a, b, "lab-b"), (b, a, "lab-a")):
        said = run("audit", mine, "--notes", name, tmp_path / "notes")
        assert said.exit_code == 0, said.output
        said = run("audit", theirs, "--compare", tmp_path / "notes")
        assert said.exit_code == 0, said.output
        assert "on the roster), each signed by it; disagreements: none" in said.output


def announced(me, version, text):
    from braintorrent.protocol.messages import Announcement

    return sign_announcement(me, Announcement(
        federation="testing-node", author=me.id, version=version, content=digest(text), samples=3, steps=2,
        seconds=1.0, schema=digest(b"schema"), record=digest(b"record"), record_size=10, final=False,
    ))  # fmt: skip


def test_where_two_labs_notes_disagree_is_said(folders, tmp_path):
    a, b = folders("lab-a", "lab-b")
    one, two = Identity.load(StatePaths(a).key), Identity.load(StatePaths(b).key)
    with Ledger(StatePaths(a).ledger, identity=one) as ledger:
        ledger.publish(announced(one, Version(5, 1), b"what lab-a published"))
    mine, other = digest(b"what lab-a published")[:16], digest(b"another")
    met = {one.id: Part(Version(5, 1), other, 3, 1.0)}
    unheard = {one.id: Part(Version(5, 9), other, 3, reason="schema")}
    with Ledger(StatePaths(b).ledger, identity=two) as ledger:
        ledger.merge(Merged(1.0, met))
        ledger.merge(Merged(2.0, {}, unheard))
        ledger.equivocated(announced(one, Version(6, 1), b"x"), announced(one, Version(6, 1), b"y"))
    file = tmp_path / "notes"
    write_notes(b, "lab-a", file)
    said = compare_notes(a, file)[1]
    assert [line.split(": ", 1)[1] for line in said] == [
        f"they merged {other[:16]} as my version 5.1; I published that with {mine}",
        f"they skipped (schema) {other[:16]} as my version 5.9; I published no such version",
        "they hold a proof that I signed two contents for version 6.1",
    ]
    with Ledger(StatePaths(a).ledger, identity=one) as ledger:
        ledger.merge(Merged(1.0, {two.id: Part(Version(7, 1), other, 3, 1.0)}))
    assert "they say they published no such version" in compare_notes(a, file)[1][-1]
    assert run("audit", a, "--compare", file).exit_code == 1
    notes = json.loads(file.read_text())
    for change, words in [
        ({"author": one.id}, "is signed by"),
        ({"entries": ["AAAA"]}, "damaged, or not signed"),
        ({"format": 2}, "notes of format 2"),
        ({"what": "thesis"}, "not notes made by"),
        ({"about": two.id}, "notes about"),
    ]:
        file.write_text(json.dumps({**notes, **change}))
        shown = run("audit", a, "--compare", file)
        assert shown.exit_code != 0
        assert words in str(shown.exception)


# ------------------------------------------------------------- the roster


@pytest.fixture
def trusting_lab(folders):
    """(folder, paths, identity) of a lab that trusts lab-b."""
    (folder,) = folders("lab-a")
    paths, me = StatePaths(folder), ensure_identity(folder)
    trust(paths, me, Identity.create().id, Member(name="lab-b"))
    return folder, paths, me


def test_a_roster_that_changes_while_it_is_audited_is_whole(trusting_lab):
    folder, paths, me = trusting_lab
    for found in audit(folder):
        assert found.whole, found.said
        if found.what in ("tables", "blobs"):
            for name in (f"{found.what}-1", f"{found.what}-2"):
                trust(paths, me, Identity.create().id, Member(name=name))


def test_rosters_that_a_full_disk_kept_from_being_written_are_no_damage_and_an_older_one_is(trusting_lab, monkeypatch):
    folder, paths, me = trusting_lab
    before = paths.roster.read_bytes()

    @contextlib.contextmanager
    def full(*arguments, **options):
        yield
        raise StorageFull("full")

    with monkeypatch.context() as patch:
        patch.setattr(trusting, "replacing", full)
        for name in ("lab-c", "lab-d", "lab-e"):
            with pytest.raises(StorageFull):
                trust(paths, me, Identity.create().id, Member(name=name))
            assert broken(folder) == []
    for name in ("lab-c", "lab-d"):
        trust(paths, me, Identity.create().id, Member(name=name))
        assert broken(folder) == []
    paths.roster.write_bytes(before)
    assert "roster.json is not what its last entry" in broken(folder)[0]
    paths.roster.unlink()
    assert "roster.json is missing" in broken(folder)[0]
