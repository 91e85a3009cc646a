"""Identity and roster survive the loss of a disk, and nobody becomes another peer by mistake."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

from braintorrent.cli import cli
from braintorrent.errors import BusyError, ConfigError, FormatError, IdentityError
from braintorrent.node.backup import read_backup, restore_backup, write_backup
from braintorrent.node.lab import Lab
from braintorrent.node.node import Node
from braintorrent.node.roster import Member, Roster
from braintorrent.node.status import status
from braintorrent.node.trusting import revoke, trust
from braintorrent.records import Identity
from braintorrent.storage import Ledger, StatePaths


def identity(folder):
    return Identity.load(StatePaths(folder).key).id


@pytest.fixture
def pair(folders):
    return folders("lab-a", "lab-b", timing={"alone_after": 0.0, "ask_every": 0.1, "linger": 1.0})


def run(*arguments, **options):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], **options)


async def test_a_lab_comes_back_after_its_disk_is_lost(pair, tmp_path, until):
    folder, other = pair
    file, me = tmp_path / "lab-a.backup", identity(folder)
    async with Node(Lab.open(folder)) as node:
        await until(lambda: status(node)["versions"])
        shown = run("backup", folder, file)  # beside a running node
        with pytest.raises(BusyError, match="in use by process"):
            restore_backup(folder, read_backup(file))
    assert shown.output == f"{file}: identity and roster of {me} (not encrypted: keep it secret)\n"
    assert file.stat().st_mode & 0o777 == 0o600
    with Ledger(StatePaths(folder).ledger, read_only=True) as ledger:
        before = ledger.newest().version
    shutil.rmtree(StatePaths(folder).path)
    shown = run("restore", folder, file)
    assert shown.output.splitlines() == [f"{folder} is peer {me}", f"trusts lab-b {identity(other)[:7]}"]
    assert identity(folder) == me
    assert StatePaths(folder).key.stat().st_mode & 0o777 == 0o600
    async with Node(Lab.open(folder)) as node:
        await until(lambda: status(node)["versions"])
        assert node.context.machine.newest.version > before, "a life of its own"
    assert run("restore", folder, file).exit_code == 0, "again changes nothing"
    with Ledger(StatePaths(folder).ledger, read_only=True) as ledger:
        assert ledger.newest() is not None


def test_a_password_encrypts_the_key(pair, tmp_path):
    folder, file = pair[0], tmp_path / "secret"
    shown = run("backup", folder, file, "--password", input="correct horse\ncorrect horse\n")
    assert "(encrypted)" in shown.output
    assert "ENCRYPTED PRIVATE KEY" in json.loads(file.read_text())["key"]
    me = identity(folder)
    shutil.rmtree(StatePaths(folder).path)
    for wrong in ("battery staple", "", None):
        with pytest.raises(IdentityError, match="the password does not open it"):
            restore_backup(folder, read_backup(file), wrong)
    assert not StatePaths(folder).path.exists()
    assert run("restore", folder, file, input="correct horse\n").exit_code == 0
    assert identity(folder) == me


def test_another_peer_is_replaced_only_on_purpose_and_its_state_kept(pair, tmp_path):
    folder, other = pair
    file = tmp_path / "lab-b.backup"
    write_backup(other, file)
    before = identity(folder)
    with pytest.raises(ConfigError, match=rf"is peer {before[:7]} already, the backup is .*restore --replace"):
        restore_backup(folder, read_backup(file))
    assert identity(folder) == before
    moved, became, *trusts = restore_backup(folder, read_backup(file), replace=True)
    assert identity(folder) == identity(other)
    assert became == f"{folder} is peer {identity(other)}"
    assert trusts == [f"trusts lab-a {before[:7]}"]
    (aside,) = folder.glob("state-*")
    assert moved == f"the state of {before[:7]}, who it was before, is now in {aside}"
    assert Identity.load(aside / "key").id == before
    assert (aside / ".gitignore").read_text() == "*\n"


def test_a_damaged_key_is_mended_and_the_ledger_stays(pair, tmp_path):
    folder, file = pair[0], tmp_path / "backup"
    state, me = StatePaths(folder), identity(folder)
    write_backup(folder, file)
    with Ledger(state.ledger, identity=Identity.load(state.key)) as ledger:
        ledger.begin_incarnation(7)
    state.key.write_text("scratched")
    restore_backup(folder, read_backup(file))
    assert identity(folder) == me
    assert (state.path / "key.damaged").read_text() == "scratched"
    with Ledger(state.ledger, identity=Identity.load(state.key)) as ledger:
        assert ledger.begin_incarnation(0) == 8


def test_who_is_trusted_meanwhile_stays(pair, tmp_path):
    folder, file = pair[0], tmp_path / "backup"
    write_backup(folder, file)
    state = StatePaths(folder)
    roster, (old,) = Roster(state.roster), Roster(state.roster).ids
    new = Identity.create().id
    trust(state, Identity.load(state.key), new, Member(name="lab-b"), replace=True)
    done = restore_backup(folder, read_backup(file))
    assert len(done) == 2
    assert done[1].startswith(f"does not trust lab-b {old[:7]}: lab-b is {new} here already")
    roster.refresh()
    assert roster.ids == {new}
    restore_backup(folder, read_backup(file), replace=True)
    roster.refresh()
    assert roster.ids == {old}


def test_who_was_revoked_stays_so_on_a_new_disk(pair, tmp_path):
    folder, file = pair[0], tmp_path / "backup"
    state = StatePaths(folder)
    (gone,) = revoke(state, Identity.load(state.key), "testing-node", "lab-b", "spoils")
    write_backup(folder, file)
    shutil.rmtree(state.path)
    done = restore_backup(folder, read_backup(file))
    assert len(done) == 1
    roster = Roster(state.roster)
    assert (roster.ids, roster.revoked[gone].why) == (set(), "spoils")


def test_what_is_no_backup_is_neither_read_nor_overwritten(pair, tmp_path):
    folder, other = pair
    file = tmp_path / "thesis.txt"
    file.write_text("all my work")
    for act in (lambda: write_backup(folder, file), lambda: read_backup(file)):
        with pytest.raises(FormatError, match="not a backup made by braintorrent backup"):
            act()
    assert file.read_text() == "all my work"
    write_backup(other, tmp_path / "b")
    with pytest.raises(ConfigError, match=f"the backup of another peer, {identity(other)[:7]}"):
        write_backup(folder, tmp_path / "b")
    write_backup(other, tmp_path / "b")  # its own may be renewed
    with pytest.raises(ConfigError, match="not readable"):
        read_backup(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_backup(folder, tmp_path / "no" / "folder")


def test_a_damaged_backup_is_told(pair, tmp_path):
    folder, file = pair[0], tmp_path / "backup"
    write_backup(folder, file)
    content = json.loads(file.read_text())
    for change, words in [
        ({"id": "a" * 52}, "is not that of aaaaaaa: damaged"),
        ({"key": "scratched"}, "the key in it is damaged"),
        ({"roster": {"x": {"name": 5}}}, "a damaged backup"),
        ({"key": None}, "a damaged backup"),
    ]:
        file.write_text(json.dumps({**content, **change}))
        with pytest.raises((IdentityError, FormatError), match=words):
            restore_backup(folder, read_backup(file))
